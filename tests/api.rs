//! Compares the public API with the list in `docs/api.txt`, and what the feature `tls` adds with that in
//! `docs/api-tls.txt`, so that no change goes unnoticed.
//!
//! `UPDATE_API=1 cargo test --test api` writes a new list after an intended change.

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
