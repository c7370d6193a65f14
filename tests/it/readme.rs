//! What the README says is so: the defaults, the close codes, the examples, and that each invariant
//! has its test.

use std::fs;

use hublet::Config;

use crate::tidy::source::{files, read, root};

/// The numbers in what follows "Invariant" or "Invariants" in a comment: `4, 5 and 10`.
fn invariants_named(text: &str) -> Vec<u32> {
    let text = text.to_lowercase();
    let mut named = Vec::new();
    for (at, word) in text.match_indices("invariant") {
        let rest = text[at + word.len()..].trim_start_matches('s');
        let list = rest.split([':', '.', ';', '(']).next().unwrap_or_default();
        for part in list.replace("and", ",").split(',') {
            match part.split_whitespace().next().map(str::parse) {
                Some(Ok(number)) => named.push(number),
                _ => break,
            }
        }
    }
    named
}

#[test]
fn every_invariant_of_the_readme_is_named_by_a_test() {
    let readme = read("README.md");
    let (_, list) = readme.split_once("The invariants, each with a test:").expect("the list");
    let numbers: Vec<u32> =
        list.trim_start().lines().map_while(|line| line.split_once(". ")?.0.parse().ok()).collect();
    assert_eq!(numbers, (1..=13).collect::<Vec<_>>());
    let folders = ["src", "tests/it"].map(|folder| root().join(folder));
    let mut named: Vec<u32> = folders
        .iter()
        .flat_map(|folder| files(folder))
        .flat_map(|path| invariants_named(&fs::read_to_string(path).expect("text")))
        .collect();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named, numbers);
    assert_eq!(
        invariants_named("/// Invariants 4, 5 and 10: x. Invariant 7, over y"),
        [4, 5, 10, 7]
    );
    assert_eq!(invariants_named("/// The invariants, each with a test"), [0u32; 0]);
}

/// The cells of the README's table rows that begin with `| first `.
fn row<'a>(readme: &'a str, first: &str) -> Vec<&'a str> {
    let row = readme.lines().find(|line| line.starts_with(&format!("| {first} |")));
    let row = row.unwrap_or_else(|| panic!("no row for {first:?} in the README"));
    row.split('|').map(str::trim).collect()
}

#[test]
fn the_defaults_in_the_readme_are_the_defaults() {
    let readme = read("README.md");
    let kib = |bytes: usize| match bytes / 1024 {
        1024.. => format!("{} MiB", bytes / 1024 / 1024),
        kib => format!("{kib} KiB"),
    };
    let count = |n: usize| match n {
        1000.. => format!("{},{:03}", n / 1000, n % 1000),
        n => n.to_string(),
    };
    let seconds = |wait: std::time::Duration| format!("{} s", wait.as_secs());
    for (first, default) in [
        ("messages waiting for one client", count(Config::QUEUE)),
        ("bytes waiting for one client", kib(Config::QUEUE_BYTES)),
        (
            "commands, bytes waiting for the manager",
            format!("{}, {}", count(Config::INBOX), kib(Config::INBOX_BYTES)),
        ),
        ("message, and frame", kib(Config::MAX_MESSAGE)),
        ("frames of a message", count(Config::MAX_FRAGMENTS)),
        ("time to finish a message", seconds(Config::MESSAGE_TIMEOUT)),
        ("handshake, all of it", seconds(Config::HANDSHAKE_TIMEOUT)),
        ("handshakes at once", count(Config::HANDSHAKES)),
        (
            "silence before a ping, after it",
            format!("{}, {}", seconds(Config::PING_INTERVAL), seconds(Config::PONG_TIMEOUT)),
        ),
        ("writing without progress", seconds(Config::WRITE_TIMEOUT)),
        ("answer to a close frame", seconds(Config::CLOSE_TIMEOUT)),
        (
            "rooms, rooms per client",
            format!("{}, {}", count(Config::MAX_ROOMS), count(Config::MAX_ROOMS_PER_CLIENT)),
        ),
    ] {
        assert_eq!(row(&readme, first)[2], default, "{first}");
    }
}

#[test]
fn the_close_codes_in_the_readme_are_those_of_the_source() {
    let readme = read("README.md");
    let (_, table) = readme.split_once("| code | when |").expect("the table");
    let digits = |text: &str| {
        let numbers = text.split(|char: char| !char.is_ascii_digit());
        numbers.filter_map(|number| number.parse::<u16>().ok()).collect::<Vec<_>>()
    };
    // A range is for others to use.
    let rows = table.trim_start().lines().take_while(|line| line.starts_with('|'));
    let listed: Vec<u16> = rows
        .filter_map(|row| row.split('|').nth(1))
        .filter(|codes| !codes.contains(" to "))
        .flat_map(digits)
        .collect();
    let source = read("src/disconnect.rs");
    let constants: Vec<u16> = source
        .match_indices("Self::constant(")
        .filter_map(|(at, call)| source[at + call.len()..].split(',').next()?.parse().ok())
        .collect();
    assert!(listed.len() >= 9 && constants.len() >= 13, "{listed:?} {constants:?}");
    for code in &listed {
        assert!(
            constants.contains(code),
            "the README lists {code}, the source has no such constant"
        );
    }
    // A normal end, a hook's word, and what is never sent need no row.
    for code in constants.iter().filter(|code| ![1000, 1003, 1005, 1006].contains(code)) {
        assert!(listed.contains(code), "the source sends {code}, the README does not list it");
    }
}

#[test]
fn every_example_is_in_the_readme() {
    let readme = read("README.md");
    for path in files(&root().join("examples")) {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(
            readme.contains(&format!("`{name}`")) || readme.contains(&format!("--example {name}")),
            "{name}"
        );
    }
}
