//! Compares the public API with the list in `docs/api.txt`, so that no change goes unnoticed.
//!
//! `UPDATE_API=1 cargo test --test api` writes a new list after an intended change.

mod tools;

use std::fs;
use std::process::{Command, Stdio};

/// The toolchain whose rustdoc writes the JSON that `tests/api` reads, in a format that changes
/// from one Rust to the next.
const TOOLCHAIN: &str = "1.95.0";

/// The list; `None` if it cannot be made on this machine.
fn listed() -> Option<String> {
    let lister = tools::file("target/api/debug/api");
    let lister = tools::tool("tests/api", lister.is_file().then_some(lister))?;
    let rustup = tools::program("rustup")?;
    let target = tools::file("target/api");
    let json = target.join("doc/hublet.json");
    let mut rustdoc = Command::new(rustup);
    rustdoc
        .args(["run", TOOLCHAIN, "cargo", "rustdoc", "--quiet", "--lib", "--no-default-features"])
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
    Some(String::from_utf8(list.stdout).expect("text"))
}

#[test]
fn public_api_is_the_one_that_is_listed() {
    let Some(found) = listed() else { return };
    let path = tools::file("docs/api.txt");
    if std::env::var_os("UPDATE_API").is_some() {
        fs::write(&path, &found).expect("it can be written");
    }
    let known = fs::read_to_string(&path).expect("the list");
    let missing = known.lines().filter(|line| !found.lines().any(|found| found == *line));
    let new = found.lines().filter(|line| !known.lines().any(|known| known == *line));
    let changes: Vec<String> = missing
        .map(|line| format!("- {line}"))
        .chain(new.map(|line| format!("+ {line}")))
        .collect();
    assert!(
        changes.is_empty() && found.lines().count() == known.lines().count(),
        "the public API is not the one of docs/api.txt; if that is meant, run \
         UPDATE_API=1 cargo test --test api\n{}",
        changes.join("\n")
    );
}
