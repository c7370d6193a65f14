//! Tests of the command line.

use std::collections::HashMap;

use super::*;

fn parsed(environment: &[(&str, &str)], arguments: &[&str]) -> Result<Options, String> {
    let environment = environment.iter().map(|(name, value)| (name.into(), value.into()));
    let arguments = ["hublet"].iter().chain(arguments).map(OsString::from);
    match parse(environment.collect::<Vec<_>>(), arguments.collect::<Vec<_>>()) {
        Ok(Action::Serve(options)) => Ok(*options),
        Ok(Action::Health(addresses)) => Err(format!("asks {addresses:?}")),
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
    let values = HashMap::from([
        ("listen", "unix:/run/hublet.sock"),
        ("no-echo", "1"),
        ("no-page", "1"),
        ("allow-origin", "https://example.org"),
        ("allow-host", "hub.example.org"),
        ("trusted-proxy", "10.0.0.0/8"),
        // Any file with a line of text.
        ("token-file", "Cargo.toml"),
        ("publish-token-file", "Cargo.toml"),
        ("admin-token-file", "Cargo.toml"),
        ("jwt-secret-file", "Cargo.toml"),
        ("overflow", "drop-oldest"),
        ("log", "debug"),
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
            "--overflow was given \"drop\"; allowed is disconnect, drop-newest, drop-oldest",
        ),
        (&["--log", "trace"], "--log was given \"trace\"; allowed is error, warn, info, debug"),
        (
            &["--listen", "8080"],
            "--listen was given \"8080\"; allowed is an address and port like 127.0.0.1:8080, a port like :8080, or unix: and a path",
        ),
        (
            &["--allow-origin", "example.org"],
            "--allow-origin was given \"example.org\"; allowed is an origin like https://example.org, without a path, or *",
        ),
        (
            &["--allow-host", "https://example.org"],
            "--allow-host was given \"https://example.org\"; allowed is a host like hub.example.org, without a scheme, or *",
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
            &["--token", "hush", "--token-file", "Cargo.toml"],
            "--token-file was given \"Cargo.toml\"; allowed is one secret, given once: by its flag, its variable or its file",
        ),
        (
            &["--token", "hush", "--token", "hush"],
            "--token was given a secret; allowed is one secret, given once: by its flag, its variable or its file",
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
fn health_checks_the_addresses_of_listen() {
    let asked = parsed(&[("HUBLET_LISTEN", ":80")], &["--health"]);
    assert_eq!(asked, Err(format!("asks {:?}", [Address::Port(80)])));
    let asked = parsed(&[], &["--health", "--listen", ":81"]);
    assert_eq!(asked, Err(format!("asks {:?}", [Address::Port(81)])));
    assert_eq!(parsed(&[], &["--health"]), Err("asks []".to_owned()));
}

#[test]
fn unknown_variable_is_reported() {
    let options = parsed(&[("HUBLET_QUEU", "1"), ("OTHER", "1")], &[]).expect("valid");
    assert_eq!(options.unknown, ["HUBLET_QUEU"]);
}

#[test]
fn help_names_every_flag_its_variable_and_its_default() {
    let help = parsed(&[], &["--help"]).expect_err("help");
    for flag in FLAGS {
        let line = format!("\n  {}\n", format!("--{} {}", flag.name, flag.value).trim_end());
        assert!(help.contains(&line), "{}", flag.name);
        assert!(help.contains(&format!("[{}]", flag.variable())), "{}", flag.name);
    }
    assert!(help.contains("(default: 127.0.0.1:8080)") && help.contains("(default: 64k)"));
}
