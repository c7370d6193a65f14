//! Tests of the flags, variables and files with secrets.

use crate::flags::tests::parsed;
use crate::secret::Secret;

/// A file of one test; removed when dropped.
pub(super) struct SecretFile {
    pub(super) path: String,
}

impl SecretFile {
    pub(super) fn new(test: &str, content: &[u8]) -> Self {
        let name = format!("hublet-secret-{}-{test}", std::process::id());
        let path = std::env::temp_dir().join(name).to_str().expect("UTF-8").to_owned();
        std::fs::write(&path, content).expect("written");
        Self { path }
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}

#[test]
fn a_secret_is_what_the_operator_wrote_or_it_is_refused() {
    let long = "x".repeat(Secret::BYTES_MAX);
    let alone = "a file with nothing in it but a secret, one ";
    for (nth, (content, refused)) in [
        (&b"hush"[..], None),
        (b"hush\n", None),
        (b"hush\r\n", None),
        (b"hush hush\n", None),
        (long.as_bytes(), None),
        (format!("{long}\r\n").as_bytes(), None),
        (b"", Some("that is not empty")),
        (b"\n", Some("that is not empty")),
        (b"hush\nanother\n", Some("of a single line, without control characters")),
        (b"hush\n\n", Some("of a single line, without control characters")),
        (b"\nhush\n", Some("of a single line, without control characters")),
        (b"hush\r", Some("of a single line, without control characters")),
        (b"hu\0sh\n", Some("of a single line, without control characters")),
        (b"hush\t\n", Some("of a single line, without control characters")),
        (b"hush \n", Some("without space in front of it or behind it")),
        (b" hush\n", Some("without space in front of it or behind it")),
        ("hush\u{a0}\n".as_bytes(), Some("without space in front of it or behind it")),
        ("\u{feff}hush\n".as_bytes(), Some("without a byte order mark in front of it")),
        (format!("{long}x").as_bytes(), Some("of at most 4096 bytes")),
        (format!("{long}{long}{long}").as_bytes(), Some("of at most 4096 bytes")),
    ]
    .into_iter()
    .enumerate()
    {
        let file = SecretFile::new(&format!("wrote-{nth}"), content);
        let by_file = parsed(&[], &["--token-file", &file.path]);
        let refused_file = refused.map(|refused| {
            format!("--token-file was given {:?}; allowed is {alone}{refused}", file.path)
        });
        assert_eq!(by_file.err(), refused_file, "{nth}");
    }
    for (text, refused) in [
        ("hush ", "without space in front of it or behind it"),
        ("hush\n", "of a single line, without control characters"),
        ("\u{feff}hush", "without a byte order mark in front of it"),
    ] {
        let sentence = |origin| format!("{origin} was given a secret; allowed is one {refused}");
        assert_eq!(parsed(&[], &["--token", text]).err(), Some(sentence("--token")));
        let by_variable = parsed(&[("HUBLET_TOKEN", text)], &[]);
        assert_eq!(by_variable.err(), Some(sentence("HUBLET_TOKEN")));
    }
    let file = SecretFile::new("bytes", b"hush\xff\n");
    let sentence = parsed(&[], &["--token-file", &file.path]).expect_err("no text");
    assert!(sentence.contains("UTF-8"), "{sentence}");
}

/// The beginning of a longer URL may be a URL too.
#[test]
fn a_file_with_a_url_is_read_to_its_end_or_refused() {
    let file = SecretFile::new("url", b"redis://localhost/2\r\n");
    let options = parsed(&[], &["--redis-file", &file.path]).expect("valid");
    assert_eq!(
        options.config.redis.map(|redis| redis.to_string()).as_deref(),
        Some("redis://localhost:6379/2")
    );
    let file = SecretFile::new("long-url", format!("redis://h/{}1", "0".repeat(4096)).as_bytes());
    let refused = format!(
        "--redis-file was given {:?}; allowed is a file with nothing in it but a URL of at most \
         4096 bytes",
        file.path
    );
    assert_eq!(parsed(&[], &["--redis-file", &file.path]), Err(refused));
}

/// A compose file makes an empty variable of `${TOKEN}` that is not set.
#[test]
fn an_empty_variable_of_a_secret_is_refused_and_so_is_one_that_is_there_twice() {
    let variables = [
        "HUBLET_TOKEN",
        "HUBLET_TOKEN_FILE",
        "HUBLET_PUBLISH_TOKEN",
        "HUBLET_PUBLISH_TOKEN_FILE",
        "HUBLET_ADMIN_TOKEN",
        "HUBLET_ADMIN_TOKEN_FILE",
        "HUBLET_JWT_SECRET",
        "HUBLET_JWT_SECRET_FILE",
        "HUBLET_JWT_AUDIENCE",
        #[cfg(feature = "tls")]
        "HUBLET_TLS_CERT",
        #[cfg(feature = "tls")]
        "HUBLET_TLS_KEY",
    ];
    let why = "is empty and would guard nothing; give it a value, or remove it";
    for name in variables {
        assert_eq!(parsed(&[(name, "")], &[]).err(), Some(format!("{name} {why}")));
        let file = SecretFile::new(name, format!("HUBLET_LOG=warn\n{name}=\n").as_bytes());
        let refused = format!("{name} in line 2 of {} {why}", file.path);
        // The file wins.
        let by_file = parsed(&[(name, "hush")], &["--env-file", &file.path]);
        assert_eq!(by_file.err(), Some(refused));
    }
    let file = SecretFile::new("twice", b"HUBLET_TOKEN=hush\nHUBLET_LOG=warn\nHUBLET_TOKEN=hush\n");
    let refused = format!(
        "lines 1 and 3 of {} both set HUBLET_TOKEN, and one of them would not count; leave one",
        file.path
    );
    assert_eq!(parsed(&[], &["--env-file", &file.path]).err(), Some(refused));
    assert!(parsed(&[], &["--env-file", &file.path, "--token", "hush"]).is_ok());
    // What is in force is not empty.
    let options = parsed(&[("HUBLET_TOKEN", "")], &["--token", "hush"]).expect("valid");
    assert!(options.secrets.token.is_some());
    let file = SecretFile::new("in-force", b"HUBLET_TOKEN=hush\n");
    let options = parsed(&[("HUBLET_TOKEN", "")], &["--env-file", &file.path]).expect("valid");
    assert!(options.secrets.token.is_some());
    // All secrets may be in the file that has no name.
    for refused in [parsed(&[("HUBLET_ENV_FILE", "")], &[]), parsed(&[], &["--env-file", ""])] {
        let sentence = refused.expect_err("no file");
        assert!(sentence.starts_with("--env-file was given \"\", which cannot be read"));
    }
    assert!(parsed(&[("HUBLET_QUEUE", ""), ("HUBLET_REDIS", "")], &[]).is_ok());
}
