//! Compares the public API with the list in `docs/api.txt`, and what the feature `tls` adds with that in
//! `docs/api-tls.txt`, so that no change goes unnoticed.
//!
//! `UPDATE_API=1 cargo test --test api` writes a new list after an intended change.
//!
//! An item of a release stays until a version that Cargo does not take for compatible. The lists of each
//! release are kept in `tests/api/released/VERSION/`; until the first release there are none.

mod tools;

use std::fs;
use std::process::{Command, Stdio};

/// The toolchain whose rustdoc writes the JSON that `tests/api` reads, in a format that changes
/// from one Rust to the next.
const TOOLCHAIN: &str = "1.95.0";

/// The list of what a user finds with features; `None` if it cannot be made on this machine.
fn listed(features: &str) -> Option<Vec<String>> {
    let lister = tools::file("target/api/debug/api");
    let lister = tools::tool("tests/api", lister.is_file().then_some(lister))?;
    let rustup = tools::program("rustup")?;
    let target = tools::file("target/api");
    let json = target.join("doc/hublet.json");
    let mut rustdoc = Command::new(rustup);
    rustdoc
        .args(["run", TOOLCHAIN, "cargo", "rustdoc", "--quiet", "--lib", "--no-default-features"])
        .arg(format!("--features={features}"))
        .arg("--manifest-path")
        .arg(tools::file("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .args(["--", "-Zunstable-options", "--output-format", "json"])
        // Allows the unstable JSON format.
        .env("RUSTC_BOOTSTRAP", "1")
        .stdin(Stdio::null());
    assert!(rustdoc.status().expect("rustup runs").success(), "rustdoc failed");
    let list = Command::new(lister).arg(json).output().expect("it runs");
    assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
    let list = String::from_utf8(list.stdout).expect("text");
    Some(list.lines().map(str::to_owned).collect())
}

/// Compares what was found with a list, which it writes anew if it is asked to.
fn compare(name: &str, found: &[String]) {
    let path = tools::file(name);
    if std::env::var_os("UPDATE_API").is_some() {
        let list: String = found.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&path, list).expect("it can be written");
    }
    let known = fs::read_to_string(&path).expect("the list");
    let known: Vec<&str> = known.lines().collect();
    let missing = known.iter().filter(|line| !found.iter().any(|found| found == *line));
    let new = found.iter().filter(|line| !known.contains(&line.as_str()));
    let changes: Vec<String> = missing
        .map(|line| format!("- {line}"))
        .chain(new.map(|line| format!("+ {line}")))
        .collect();
    assert!(
        changes.is_empty() && found.len() == known.len(),
        "the public API is not the one of {name}; if that is meant, run \
         UPDATE_API=1 cargo test --test api\n{}",
        changes.join("\n")
    );
}

/// One after the other: rustdoc writes both to the same file.
#[test]
fn public_api_is_the_one_that_is_listed() {
    let Some(plain) = listed("") else { return };
    compare("docs/api.txt", &plain);
    let Some(mut found) = listed("tls") else { return };
    // A feature takes nothing away.
    for line in &plain {
        let at = found.iter().position(|found| found == line);
        found.remove(at.unwrap_or_else(|| panic!("not there with the feature tls: {line}")));
    }
    compare("docs/api-tls.txt", &found);
}

/// The lists that a release keeps.
const LISTS: [&str; 2] = ["api.txt", "api-tls.txt"];

/// The numbers of a version.
type Version = [u64; 3];

fn version(text: &str) -> Version {
    let numbers: Vec<u64> = text.split('.').map(|part| part.parse().expect("a number")).collect();
    numbers.try_into().expect("three numbers")
}

/// Whether Cargo updates a program from one version to the other by itself.
fn is_compatible(old: Version, new: Version) -> bool {
    // The first number that is not zero, and those before it.
    let significant = old.iter().position(|number| *number != 0).unwrap_or(2);
    old[..=significant] == new[..=significant] && new >= old
}

/// The items of a release that are no longer there. A list may have a line several times.
fn lost<'a>(released: &'a str, now: &str) -> Vec<&'a str> {
    let mut now: Vec<&str> = now.lines().collect();
    let mut is_lost = |line: &&str| match now.iter().position(|found| found == line) {
        Some(at) => {
            now.swap_remove(at);
            false
        }
        None => true,
    };
    released.lines().filter(|line| is_lost(line)).collect()
}

/// The versions of a changelog that are released, the newest first.
fn released(changelog: &str) -> Vec<&str> {
    let headings = changelog.lines().filter_map(|line| line.strip_prefix("## "));
    let versions = headings.filter_map(|heading| heading.split_once(", "));
    versions.filter(|(_, date)| *date != "unreleased").map(|(version, _)| version).collect()
}

#[test]
fn a_release_keeps_its_lists_and_a_compatible_version_loses_no_item_of_it() {
    let read = |path: &str| fs::read_to_string(tools::file(path)).expect(path);
    let changelog = read("CHANGELOG.md");
    let versions = released(&changelog);
    for version in &versions {
        for list in LISTS {
            let kept = format!("tests/api/released/{version}/{list}");
            assert!(
                tools::file(&kept).is_file(),
                "a release keeps a copy of docs/{list} in {kept}"
            );
        }
    }
    let this = version(env!("CARGO_PKG_VERSION"));
    let Some(last) = versions.first().filter(|last| is_compatible(version(last), this)) else {
        return;
    };
    for list in LISTS {
        let before = read(&format!("tests/api/released/{last}/{list}"));
        let lost = lost(&before, &read(&format!("docs/{list}")));
        assert!(lost.is_empty(), "{list} of {last} has what this version has not: {lost:#?}");
    }
}

#[test]
fn what_counts_as_released_as_compatible_and_as_lost() {
    let changelog = "# Changelog\n\n## 0.2.0, unreleased\n\n## 0.1.1, 2027-01-02\n\n### The hub\n\n## 0.1.0, 2026-12-24\n";
    assert_eq!(released(changelog), ["0.1.1", "0.1.0"]);
    for (old, new, is) in [
        ("0.1.0", "0.1.1", true),
        ("0.1.0", "0.2.0", false),
        ("1.2.3", "1.3.0", true),
        ("1.2.3", "2.0.0", false),
        ("0.0.1", "0.0.2", false),
        ("0.1.2", "0.1.1", false),
    ] {
        assert_eq!(is_compatible(version(old), version(new)), is, "{old} {new}");
    }
    assert!(lost("a\nb\nb\n", "b\nc\nb\na\n").is_empty());
    assert_eq!(lost("a\nb\nb\n", "b\nc\n"), ["a", "b"]);
}
