//! Replays the fuzzer's corpus on stable, so that a fault that it once found is found again.
#![expect(unreachable_pub, reason = "what is taken in is public in the fuzzer's crate")]

#[path = "../fuzz/src/connection.rs"]
mod connection;
#[path = "../fuzz/src/frames.rs"]
mod frames;
#[path = "../fuzz/src/head.rs"]
mod head;
#[path = "../fuzz/src/jwt.rs"]
mod jwt;
#[path = "../fuzz/src/reference.rs"]
mod reference;
#[path = "../fuzz/src/room.rs"]
mod room;
#[path = "../fuzz/src/stage.rs"]
mod stage;

use std::fs;
use std::path::Path;

/// Runs a target on every file of its corpus.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("the corpus is kept")
        .map(|entry| entry.expect("a file").path())
        .collect();
    files.sort();
    assert!(files.len() >= 8, "{} has {} files", folder.display(), files.len());
    for file in files {
        // A failure names the file.
        println!("{}", file.display());
        run(&fs::read(&file).expect("a file"));
    }
}

#[test]
fn heads() {
    replay("head", head::run);
}

#[test]
fn rooms() {
    replay("room", room::run);
}

#[test]
fn connections() {
    replay("connection", connection::run);
}

#[test]
fn sequences_of_frames() {
    replay("frames", frames::run);
}

#[test]
fn tokens() {
    replay("jwt", jwt::run);
}
