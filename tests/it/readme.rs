//! Compares the pages of `docs/` with the code: defaults, statuses, close codes and examples. Also
//! checks that each invariant has a test.

use std::fs;

use hublet::Config;
use hublet::http::StatusCode;

use crate::tidy::source::{files, read, root};

/// The numbers that follow "Invariant" or "Invariants" in a comment, as in `4, 5 and 10`.
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
fn every_invariant_of_the_design_is_named_by_a_test() {
    let page = read("docs/design.md");
    let (_, list) = page.split_once("## Invariants").expect("the list");
    let (list, _) = list.split_once("\n## ").expect("another heading");
    let lines = || list.lines().filter_map(|line| line.split_once(". "));
    let numbers: Vec<u32> = lines().filter_map(|(number, _)| number.parse().ok()).collect();
    assert_eq!(numbers, (1..=15).collect::<Vec<_>>());
    let folders = ["src", "tests/it", "tests/cli"].map(|folder| root().join(folder));
    let files = folders.iter().flat_map(|folder| files(folder));
    // The examples below name some.
    let files = files.filter(|path| !path.ends_with("readme.rs"));
    let texts: Vec<_> = files.map(|path| fs::read_to_string(path).expect("text")).collect();
    // What the page names for an invariant exists, and names the invariant itself.
    let mut number = 0;
    for line in list.lines() {
        number = line.split_once(". ").and_then(|(n, _)| n.parse().ok()).unwrap_or(number);
        let Some(names) = line.trim_start().strip_prefix("Held by ") else { continue };
        for name in names.split('`').skip(1).step_by(2) {
            let head = texts.iter().find_map(|text| text.split_once(&format!("fn {name}(")));
            let (before, _) = head.unwrap_or_else(|| panic!("no test {name}"));
            let comment = before.rsplit("\n\n").next().unwrap_or_default();
            let named = invariants_named(comment);
            assert!(named.contains(&number), "{name} is no test of invariant {number}");
        }
    }
    assert_eq!(list.matches("Held by `").count(), numbers.len());
    let mut named: Vec<u32> = texts.iter().flat_map(|text| invariants_named(text)).collect();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named, numbers);
    assert_eq!(
        invariants_named("/// Invariants 4, 5 and 10: x. Invariant 7, over y"),
        [4, 5, 10, 7]
    );
    assert_eq!(invariants_named("/// The invariants, each with a test"), [0u32; 0]);
}

#[test]
fn every_file_that_the_design_names_exists() {
    let page = read("docs/design.md");
    let quoted: Vec<_> = page.split('`').skip(1).step_by(2).collect();
    let paths: Vec<_> = quoted.into_iter().filter(|name| name.ends_with(".rs")).collect();
    assert!(paths.len() > 30, "only {} files are named", paths.len());
    for path in paths {
        let is_there = |folder: &str| root().join(folder).join(path).exists();
        assert!(is_there("src") || is_there(""), "{path} does not exist");
    }
}

/// The cells of the table row that begins with `| first |`.
fn row<'a>(page: &'a str, first: &str) -> Vec<&'a str> {
    let row = page.lines().find(|line| line.starts_with(&format!("| {first} |")));
    let row = row.unwrap_or_else(|| panic!("the page has no row for {first:?}"));
    row.split('|').map(str::trim).collect()
}

#[test]
fn the_defaults_in_the_table_of_limits_are_the_defaults() {
    let page = read("docs/limits.md");
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
        ("messages queued for one client", count(Config::QUEUE)),
        ("bytes queued for one client", kib(Config::QUEUE_BYTES)),
        (
            "commands, bytes waiting for the manager",
            format!("{}, {}", count(Config::INBOX), kib(Config::INBOX_BYTES)),
        ),
        ("message, and frame; of a compressed one what it becomes", kib(Config::MAX_MESSAGE)),
        ("frames of a message", count(Config::MAX_FRAGMENTS)),
        ("time to finish a message", seconds(Config::MESSAGE_TIMEOUT)),
        ("handshake, all of it", seconds(Config::HANDSHAKE_TIMEOUT)),
        ("idle HTTP connection", seconds(Config::IDLE_TIMEOUT)),
        ("handshakes at once", count(Config::HANDSHAKES)),
        (
            "silence before a ping, after it",
            format!("{}, {}", seconds(Config::PING_INTERVAL), seconds(Config::PONG_TIMEOUT)),
        ),
        ("writing without progress", seconds(Config::WRITE_TIMEOUT)),
        (
            "answer to a close frame, or to the last response or event",
            seconds(Config::CLOSE_TIMEOUT),
        ),
        (
            "rooms, rooms per client",
            format!("{}, {}", count(Config::MAX_ROOMS), count(Config::MAX_ROOMS_PER_CLIENT)),
        ),
    ] {
        assert_eq!(row(&page, first)[2], default, "{first}");
    }
}

/// The first cells of a table, and the numbers in them.
fn first_cells(page: &str, head: &str) -> Vec<(String, Vec<u16>)> {
    let (_, table) = page.split_once(head).expect("the table");
    let rows = table.trim_start().lines().skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cell = row.split('|').nth(1).expect("a cell").trim();
        let numbers = cell.split(|char: char| !char.is_ascii_digit());
        (cell.to_owned(), numbers.filter_map(|number| number.parse().ok()).collect())
    })
    .collect()
}

#[test]
fn the_close_codes_in_the_table_are_those_of_the_source() {
    // A range of codes is for applications.
    let rows = first_cells(&read("docs/web.md"), "| close code | why | what to do |");
    let listed: Vec<u16> = rows
        .into_iter()
        .filter(|(cell, _)| !cell.contains(" to "))
        .flat_map(|(_, codes)| codes)
        .collect();
    let source = read("src/disconnect.rs");
    let constants: Vec<u16> = source
        .match_indices("Self::constant(")
        .filter_map(|(at, call)| source[at + call.len()..].split(',').next()?.parse().ok())
        .collect();
    assert!(listed.len() >= 11 && constants.len() >= 13, "{listed:?} {constants:?}");
    for code in &listed {
        assert!(constants.contains(code), "the page lists {code}, the source has no such constant");
    }
    // 1005 stands for a close frame without a code and is never sent.
    for code in constants.iter().filter(|code| **code != 1005) {
        assert!(listed.contains(code), "the source has {code}, the page does not list it");
    }
}

/// The number of a status by the name of its constant.
fn number(name: &str) -> Option<u16> {
    (100..600).find(|number| {
        let status = StatusCode::from_u16(*number).expect("in range");
        let reason = status.canonical_reason().unwrap_or_default();
        reason.to_ascii_uppercase().replace([' ', '-'], "_") == name
    })
}

#[test]
fn every_status_that_the_source_answers_is_in_the_table() {
    let rows = first_cells(&read("docs/web.md"), "| status | why | what to do |");
    let listed: Vec<u16> = rows.into_iter().flat_map(|(_, numbers)| numbers).collect();
    let mut answered = Vec::new();
    for path in ["src", "src/bin"].iter().flat_map(|folder| files(&root().join(folder))) {
        let source = fs::read_to_string(path).expect("text");
        for (at, path) in source.match_indices("StatusCode::") {
            let rest = &source[at + path.len()..];
            let name = rest.split(|char: char| !char.is_ascii_uppercase() && char != '_').next();
            answered.extend(name.and_then(number).filter(|number| *number >= 400));
        }
        // This constructor has a fixed status.
        if source.contains("Response::bad_request(") {
            answered.push(400);
        }
    }
    answered.sort_unstable();
    answered.dedup();
    assert!(answered.len() >= 14, "{answered:?}");
    assert_eq!(listed, answered);
}

#[test]
fn every_example_is_in_the_page_for_embedders() {
    let page = read("docs/embed.md");
    for path in files(&root().join("examples")) {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(page.contains(&format!("| `{name}` |")), "{name}");
    }
}
