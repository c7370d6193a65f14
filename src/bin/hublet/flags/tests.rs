//! Tests of the command line.

use std::collections::HashMap;
use std::ffi::OsString;
use std::time::Duration;

use hublet::HistoryRule;

use crate::flags::help::COMMON;
use crate::flags::options::Options;
use crate::flags::parse::{Action, parse};
use crate::flags::table::FLAGS;
use crate::flags::tests_of_secrets::SecretFile;
use crate::flags::value::FRAMING;
use crate::socket::Address;

pub(super) fn parsed(environment: &[(&str, &str)], arguments: &[&str]) -> Result<Options, String> {
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
    let arguments = ["hublet"].iter().chain(arguments).map(OsString::from);
    match parse(environment.collect::<Vec<_>>(), arguments.collect::<Vec<_>>()) {
        Ok(Action::Serve(options)) => Ok(*options),
        Ok(Action::Takes(version, _)) => Err(format!("takes {version}")),
        Ok(Action::Health { addresses, .. }) => Err(format!("asks {addresses:?}")),
        Ok(Action::Print(text)) => Err(text),
        Err(failure) => {
            assert_eq!(failure.code, 2);
            Err(failure.sentence)
        }
    }
}

#[test]
fn no_flags_give_the_defaults() {
    assert_eq!(parsed(&[], &[]), Ok(Options::default()));
}

#[test]
fn every_flag_sets_something_and_so_does_its_variable() {
    let secret = SecretFile::new("every", b"hush\n");
    let url = SecretFile::new("every-url", b"redis://localhost\n");
    let lines = SecretFile::new("every-line", b"HUBLET_QUEUE=7\n");
    let values = HashMap::from([
        ("env-file", &*lines.path),
        ("listen", "unix:/run/hublet.sock"),
        ("no-echo", "1"),
        ("no-page", "1"),
        ("allow-origin", "https://example.org"),
        ("allow-host", "hub.example.org"),
        ("trusted-proxy", "10.0.0.0/8"),
        ("token-file", &secret.path),
        ("publish-token-file", &secret.path),
        ("admin-token-file", &secret.path),
        ("jwt-secret-file", &secret.path),
        ("overflow", "drop-oldest"),
        ("room", "news:history=7,rate=2"),
        ("log", "debug"),
        ("redis", "unix:/run/redis.sock"),
        ("redis-file", &url.path),
        ("max-message", "32k"),
        ("queue-bytes", "1m"),
    ]);
    for flag in FLAGS {
        let number = if flag.value == "TIME" { "7s" } else { "7" };
        let value = values.get(flag.name).copied().unwrap_or(number);
        let long = format!("--{}", flag.name);
        let arguments = if flag.is_switch() { vec![&*long] } else { vec![&*long, value] };
        let by_flag = parsed(&[], &arguments).expect(flag.name);
        let by_variable = parsed(&[(&flag.variable(), value)], &[]).expect(flag.name);
        assert_ne!(by_flag, Options::default(), "{}", flag.name);
        assert_eq!(by_flag, by_variable, "{}", flag.name);
    }
}

#[test]
fn a_flag_wins_over_its_variable_and_lists_are_replaced() {
    let environment = [("HUBLET_QUEUE", "5"), ("HUBLET_LISTEN", ":1, :2")];
    let options = parsed(&environment, &["--queue=9"]).expect("valid");
    assert_eq!(options.config.queue, 9);
    assert_eq!(options.listen, [Address::Port(1), Address::Port(2)]);
    let options = parsed(&environment, &["--listen", ":3", "--listen", ":4"]).expect("valid");
    assert_eq!(options.listen, [Address::Port(3), Address::Port(4)]);
}

#[test]
fn a_port_alone_and_localhost_are_loopback() {
    let loopback = Address::Tcp(([127, 0, 0, 1], 8081).into());
    for text in ["8081", "localhost:8081"] {
        assert_eq!(
            parsed(&[], &["--listen", text]).expect(text).listen,
            std::slice::from_ref(&loopback)
        );
    }
    for text in ["65536", "localhost", "localhost:", "-1", "8081:"] {
        assert!(parsed(&[], &["--listen", text]).is_err(), "{text}");
    }
}

#[test]
fn the_options_of_a_unix_socket_stay_with_it_in_a_list() {
    let list = "unix:/run/a.sock,mode=0660,group=0, 8081, unix:/run/b.sock, mode=0600";
    let options = parsed(&[("HUBLET_LISTEN", list)], &[]).expect("valid");
    let same = ["unix:/run/a.sock,mode=0660,group=0", "8081", "unix:/run/b.sock,mode=0600"]
        .map(|text| text.parse().expect(text));
    assert_eq!(options.listen, same);
}

#[test]
fn a_secret_may_be_given_twice_in_any_two_ways() {
    let (old, new) = (SecretFile::new("old", b"hush"), SecretFile::new("new", b"hush hush"));
    let files = format!("{},{}", old.path, new.path);
    let two_files = [("HUBLET_TOKEN_FILE", &*files)];
    let flags = ["--token-file", &*old.path, "--token-file", &*new.path];
    let options = parsed(&two_files, &[]).expect("two");
    assert_eq!(options, parsed(&[], &flags).expect("two"));
    for (environment, arguments) in [
        (&[][..], &["--admin-token", "a", "--admin-token", "b"][..]),
        (&[("HUBLET_ADMIN_TOKEN", "a")], &["--admin-token-file", &old.path]),
        (&[("HUBLET_ADMIN_TOKEN_FILE", &files)], &[]),
    ] {
        let options = parsed(environment, arguments).expect("two");
        let mut secret = options.secrets.admin_token.expect("given");
        let third = secret.clone();
        assert!(!secret.add(third), "{arguments:?}");
    }
    // A secret may have a comma in it.
    let comma = parsed(&[("HUBLET_TOKEN", "a,b")], &[]).expect("one");
    assert_eq!(comma, parsed(&[], &["--token", "a,b"]).expect("one"));
}

#[test]
fn queues_grow_with_the_longest_message_unless_they_are_given() {
    let options = parsed(&[], &["--max-message", "16m"]).expect("valid");
    let two = 2 * 16 * 1024 * 1024 + FRAMING;
    assert_eq!((options.config.queue_bytes, options.config.inbox_bytes), (two, two));
    let options = parsed(&[], &["--max-message", "16m", "--queue-bytes", "1m"]).expect("valid");
    assert_eq!(options.config.queue_bytes, 1024 * 1024, "the hub refuses it, and says why");
}

#[test]
fn invalid_values_are_named_with_what_is_allowed() {
    for (arguments, sentence) in [
        (
            &["--queue", "0"][..],
            "--queue was given \"0\"; allowed is a whole number from 1 to 1073741824",
        ),
        (
            &["--queue", "-1"],
            "--queue was given \"-1\"; allowed is a whole number from 1 to 1073741824",
        ),
        (
            &["--threads", "65"],
            "--threads was given \"65\"; allowed is a whole number from 1 to 64",
        ),
        (
            &["--max-message", "64kb"],
            "--max-message was given \"64kb\"; allowed is a number of bytes from 1 to 536870902, like 4096, 64k or 1m",
        ),
        (
            &["--drain", "5"],
            "--drain was given \"5\"; allowed is a time from 0s to a day, like 500ms, 10s or 2m",
        ),
        (
            &["--overflow", "drop"],
            "--overflow was given \"drop\"; allowed is disconnect, drop-newest, drop-oldest, latest, replay",
        ),
        (&["--log", "trace"], "--log was given \"trace\"; allowed is error, warn, info, debug"),
        (
            &["--listen", "hub:8080"],
            "--listen was given \"hub:8080\"; allowed is a port like 8080 (loopback), an address and port like 127.0.0.1:8080, a port like :8080 (all interfaces), or unix: and a path without a comma",
        ),
        (
            &["--listen", "unix:/run/hub.sock,mode=rw"],
            "--listen was given \"unix:/run/hub.sock,mode=rw\"; allowed is mode= with three octal digits, like mode=0660",
        ),
        (
            &["--listen", "unix:/run/hub.sock,group=no such group"],
            "--listen was given \"unix:/run/hub.sock,group=no such group\"; allowed is group= with a group of /etc/group or its number",
        ),
        (
            &["--listen", "unix:/run/hub.sock,perm=0660"],
            "--listen was given \"unix:/run/hub.sock,perm=0660\"; allowed is unix: and a path, then perhaps ,mode=0660 and ,group=NAME",
        ),
        (
            &["--allow-origin", "example.org"],
            "--allow-origin was given \"example.org\"; allowed is an origin like https://example.org, app://-, file:// or null; or * for any",
        ),
        (
            &["--allow-host", "https://example.org"],
            "--allow-host was given \"https://example.org\"; allowed is a host like hub.example.org, without a scheme, or *",
        ),
        (
            &["--protocol", "chat, v1"],
            "--protocol was given \"chat, v1\"; allowed is a subprotocol like chat.v1, at most 64 bytes without space and comma",
        ),
        (
            &["--protocol", "hublet.token"],
            "--protocol was given \"hublet.token\"; allowed is any but hublet.token, which is answered in any case",
        ),
        (
            &["--jwt-audience", " hub"],
            "--jwt-audience was given \" hub\"; allowed is a name or a URL, as the claim aud has it",
        ),
        (
            &["--trusted-proxy", "nginx"],
            "--trusted-proxy was given \"nginx\"; allowed is an address, a network like 10.0.0.0/8, or unix",
        ),
        (
            &["--stdin", "a\nb"],
            "--stdin was given \"a\\nb\"; allowed is the name of a room, 1 to 128 bytes without control characters",
        ),
        (
            &["--stdout", ""],
            "--stdout was given \"\"; allowed is the name of a room, 1 to 128 bytes without control characters",
        ),
        (&["--tokens", "x"], "unknown flag --tokens; see --help"),
        (&["--token", ""], "--token was given a secret; allowed is one that is not empty"),
        (
            &["--token", "a", "--token", "b", "--token", "c"],
            "--token was given a secret; allowed is two secrets at most: the old one and the new one",
        ),
        (
            &["--token", "a", "--token", "b", "--token", "c"],
            "--token was given a secret; allowed is two secrets at most: the old one and the new one",
        ),
        (
            &["--jwt-secret-file", "no/such/file"],
            "--jwt-secret-file was given \"no/such/file\"; allowed is a file that can be read (No such file or directory (os error 2))",
        ),
        (&["--no-echo=1"], "unexpected argument for option '--no-echo': \"1\"; see --help"),
        (&["--queue"], "missing argument for option '--queue'; see --help"),
        (&["serve"], "unexpected argument \"serve\"; see --help"),
        (&["-x"], "invalid option '-x'; see --help"),
    ] {
        assert_eq!(parsed(&[], arguments), Err(sentence.to_owned()));
    }
    let sentence = "HUBLET_NO_ECHO was given \"yes\"; allowed is 1, true, 0 or false";
    assert_eq!(parsed(&[("HUBLET_NO_ECHO", "yes")], &[]), Err(sentence.to_owned()));
}

#[test]
fn rooms_keep_what_the_flags_say() {
    let config = |environment: &[(&str, &str)], arguments: &[&str]| {
        parsed(environment, arguments).expect("valid").config
    };
    let rules = [("*", 10), ("chat-*", 50), ("news", 0)];
    let rules = rules.map(|(pattern, messages)| HistoryRule::new(pattern, messages));
    let flags = ["--history", "10", "--history", "chat-*=50", "--history", "news=0"];
    assert_eq!(config(&[], &flags).history, rules);
    assert_eq!(config(&[("HUBLET_HISTORY", "10, chat-*=50,news=0")], &[]).history, rules);
    // A name may have an equals sign in it.
    assert_eq!(config(&[], &["--history", "a=b=3"]).history, [HistoryRule::new("a=b", 3)]);
    for (age, seconds) in [("0", 0), ("0s", 0), ("90s", 90), ("2h", 7200), ("24h", 86_400)] {
        let age = config(&[], &["--history-age", age]).history_age;
        assert_eq!(age, Duration::from_secs(seconds));
    }
    for bad in ["", "-1", "many", "a*b=1", "*a=1", "=1", "a=", "a=b", "1073741825"] {
        assert!(parsed(&[], &["--history", bad]).is_err(), "{bad}");
    }
    let options = parsed(&[], &["--history-bytes", "2m", "--history-memory", "1m"]).expect("valid");
    assert_eq!(
        options.warnings(),
        ["--history-bytes 2m is more than --history-memory: a room keeps 1m at most"]
    );
}

#[test]
fn any_origin_that_a_client_sends_can_be_listed() {
    for (origin, warning) in [
        ("https://example.org", None),
        ("http://[::1]:3000", None),
        ("https://example.org/", None),
        ("app://-", None),
        ("qrc://", None),
        ("capacitor://localhost", None),
        ("chrome-extension://iaoigbhacejd", None),
        ("*", None),
        (
            "https://example.org/admin",
            Some(
                "--allow-origin https://example.org/admin allows every page of \
                 https://example.org: an origin has no path",
            ),
        ),
        (
            "null",
            Some("--allow-origin null allows every sandboxed frame, which any web page can make"),
        ),
        ("file://", Some("--allow-origin file:// allows every page that is opened as a file")),
    ] {
        let options = parsed(&[], &["--allow-origin", origin]).expect(origin);
        assert_eq!(options.config.origins, [origin]);
        assert_eq!(options.warnings(), Vec::from_iter(warning), "{origin}");
    }
    for origin in [
        "https://*.example.org",
        "https://user@example.org",
        "https://example.org:http",
        "https://müller.example",
        "https://",
        "://example.org",
        "file:",
    ] {
        parsed(&[], &["--allow-origin", origin]).expect_err(origin);
    }
}

#[test]
fn subprotocols_are_bounded() {
    let names: Vec<_> = (0..17).map(|n| format!("--protocol=v{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let options = parsed(&[], &names[..16]).expect("valid");
    assert_eq!(options.protocols.len(), 16);
    let sentence = "--protocol was given \"v16\"; allowed is at most 16 subprotocols";
    assert_eq!(parsed(&[], &names), Err(sentence.to_owned()));
}

#[test]
fn health_checks_the_addresses_of_listen() {
    let checks = parsed(&[("HUBLET_LISTEN", ":80")], &["--health"]);
    assert_eq!(checks, Err(format!("asks {:?}", [Address::Port(80)])));
    let checks = parsed(&[], &["--health", "--listen", ":81"]);
    assert_eq!(checks, Err(format!("asks {:?}", [Address::Port(81)])));
    assert_eq!(parsed(&[], &["--health"]), Err("asks []".to_owned()));
}

#[cfg(feature = "tls")]
#[test]
fn tls_is_for_tcp_addresses_that_are_not_plain() {
    let options = parsed(&[], &["--listen", "plain::80", "--listen", "81"]).expect("valid");
    assert_eq!(options.listen[0], Address::Plain(Box::new(Address::Port(80))));
    assert_eq!(options.listen[0].to_string(), "plain::80");
    assert!(options.tls().expect("none").is_none());
    for address in ["plain:unix:/run/hub.sock", "plain:plain:80"] {
        let sentence = parsed(&[], &["--listen", address]).expect_err("refused");
        assert!(sentence.ends_with("plain: and a TCP address, like plain:127.0.0.1:8080"));
    }
    for flag in ["--tls-cert", "--tls-key"] {
        let options = parsed(&[], &[flag, "there-is-no-such-file.pem"]).expect("valid");
        let failure = options.tls().expect_err("one is missing");
        assert_eq!(failure.code, 2);
        assert_eq!(
            failure.sentence,
            "--tls-cert and --tls-key go together: one of them is missing"
        );
    }
    let files = ["--tls-cert", "no-such.pem", "--tls-key", "no-such.pem"];
    let failure = parsed(&[], &files).expect("valid").tls().expect_err("no file");
    assert_eq!(failure.code, 2);
    assert!(failure.sentence.starts_with("no TLS: no-such.pem cannot be read: "));
}

#[test]
fn unknown_variable_is_reported() {
    let options = parsed(&[("HUBLET_QUEU", "1"), ("OTHER", "1")], &[]).expect("valid");
    assert_eq!(options.unknown, ["HUBLET_QUEU"]);
}

#[test]
fn help_names_every_flag_its_variable_and_its_default() {
    let help = parsed(&[], &["--help", "all"]).expect_err("help");
    for flag in FLAGS {
        let line = format!("\n  {}\n", format!("--{} {}", flag.name, flag.value).trim_end());
        assert!(help.contains(&line), "{}", flag.name);
        assert!(help.contains(&format!("[{}]", flag.variable())), "{}", flag.name);
    }
    assert!(help.contains("(default: 127.0.0.1:8080)") && help.contains("(default: 64k)"));
}

#[test]
fn help_without_a_word_has_twelve_flags_of_the_table() {
    let help = parsed(&[], &["--help"]).expect_err("help");
    let named: Vec<_> =
        FLAGS.iter().filter(|flag| help.contains(&format!("[{}]", flag.variable()))).collect();
    let shown: Vec<_> = FLAGS.iter().filter(|flag| COMMON.contains(&flag.name)).collect();
    assert_eq!(shown.len(), 12);
    for flag in shown {
        assert!(help.contains(&format!("[{}]", flag.variable())), "{}", flag.name);
    }
    assert_eq!(named.len(), 12, "{help}");
    assert!(help.contains("--help [all]"));
}
