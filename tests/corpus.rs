//! Replays the fuzzer's corpus on stable, so that a fault that it once found is found again.
#![expect(unreachable_pub, reason = "what is taken in is public in the fuzzer's crate")]

#[path = "../fuzz/src/body.rs"]
mod body;
#[path = "../fuzz/src/connection.rs"]
mod connection;
#[path = "../fuzz/src/deflated.rs"]
mod deflated;
#[path = "../fuzz/src/frames.rs"]
mod frames;
#[path = "../fuzz/src/head.rs"]
mod head;
#[path = "../fuzz/src/jwt.rs"]
mod jwt;
#[path = "../fuzz/src/reference.rs"]
mod reference;
#[path = "../fuzz/src/resp.rs"]
mod resp;
#[path = "../fuzz/src/room.rs"]
mod room;
#[path = "../fuzz/src/stage.rs"]
mod stage;
#[path = "../fuzz/src/state.rs"]
mod state;

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
fn chunked_bodies() {
    replay("chunked", body::chunked);
}

#[test]
fn streams_of_lines() {
    replay("lines", body::lines);
}

#[test]
fn states() {
    replay("state", state::run);
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
fn compressed_messages() {
    replay("deflated", deflated::run);
}

#[test]
fn sequences_of_frames() {
    replay("frames", frames::run);
}

#[test]
fn tokens() {
    replay("jwt", jwt::run);
}

#[test]
fn answers_of_redis() {
    replay("resp", resp::run);
}

/// Answers of every kind, whole and spoilt: the published codec reads the same values.
#[test]
fn the_codec_of_redis_agrees_with_a_published_one() {
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..20_000 {
        let mut bytes = Vec::new();
        any_value(&mut rng, &mut bytes, 3);
        if rng.bool() {
            let at = rng.usize(..bytes.len());
            bytes[at] = *rng.choice(b"\r\n$*:+>-09a").expect("some");
        }
        resp::run(&bytes);
    }
}

/// Appends a value of a kind that both codecs read alike.
fn any_value(rng: &mut fastrand::Rng, bytes: &mut Vec<u8>, depth: usize) {
    match rng.u8(..if depth > 0 { 5 } else { 3 }) {
        0 => bytes.extend(format!(":{}\r\n", rng.i64(..)).into_bytes()),
        1 => {
            let text: Vec<u8> = (0..rng.usize(..40)).map(|_| rng.u8(..)).collect();
            bytes.extend(format!("${}\r\n", text.len()).into_bytes());
            bytes.extend([&text[..], b"\r\n"].concat());
        }
        2 => bytes.extend(b"+QUEUED\r\n"),
        kind => {
            let count = rng.usize(1..5);
            let mark = if kind == 3 || depth < 3 { '*' } else { '>' };
            bytes.extend(format!("{mark}{count}\r\n").into_bytes());
            (0..count).for_each(|_| any_value(rng, bytes, depth - 1));
        }
    }
}
