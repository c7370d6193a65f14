//! Fuzzes the codec of Redis: what it takes, a published codec takes as the same value of the same
//! length. No beginning of a value is a value, and a command reads back.

#[path = "../../src/redis/resp.rs"]
#[allow(dead_code, reason = "the library uses all of it")]
mod codec;

use codec::Value;
use redis_protocol::resp3::decode::complete::decode;
use redis_protocol::resp3::types::OwnedFrame;

/// Bytes of a value that is cut everywhere, at most.
const CUT_MAX: usize = 256;

/// Parses the bytes as values, one after another. Also sends their lines as a command.
pub fn run(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some((value, length))) = codec::parse(rest) {
        assert!(length > 0 && length <= rest.len());
        compare(&rest[..length], &value);
        for end in 0..length.min(CUT_MAX) {
            assert_eq!(codec::parse(&rest[..end]), Ok(None), "{:?}", &rest[..end]);
        }
        rest = &rest[length..];
    }
    let arguments: Vec<_> = bytes.split(|byte| *byte == b'\n').take(64).collect();
    let mut command = Vec::new();
    codec::command(&mut command, &arguments);
    let (value, length) = codec::parse(&command).expect("RESP").expect("whole");
    assert_eq!(length, command.len());
    let texts: Vec<_> = value.list().expect("a list").iter().filter_map(Value::text).collect();
    assert_eq!(texts, arguments);
    compare(&command, &value);
}

/// Has the published codec read a value that ours has read.
fn compare(bytes: &[u8], value: &Value<'_>) {
    if !is_common(bytes) {
        return;
    }
    let theirs = decode(bytes).expect("it takes the value").expect("whole");
    assert_eq!(theirs.1, bytes.len(), "the same length: {value:?}");
    assert!(is_same(value, &theirs.0), "{value:?} is not {:?}", theirs.0);
}

/// Whether the bytes have only types that both codecs read alike. Theirs makes a number of a
/// double, drops fields of a map that come twice, keeps attributes, checks that big numbers are
/// UTF-8, and has no null of RESP2.
fn is_common(bytes: &[u8]) -> bool {
    let begins = |line: &[u8]| line.first().is_none_or(|kind| !b",(%~|=!#_-".contains(kind));
    let mut lines = bytes.split(|byte| *byte == b'\n');
    lines.all(|line| begins(line) && !line.starts_with(b"$-") && !line.starts_with(b"*-"))
}

fn is_same(ours: &Value<'_>, theirs: &OwnedFrame) -> bool {
    let all = |ours: &[Value<'_>], theirs: &[OwnedFrame]| {
        ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| is_same(a, b))
    };
    match (ours, theirs) {
        (
            Value::Text(text),
            OwnedFrame::BlobString { data, .. } | OwnedFrame::SimpleString { data, .. },
        ) => text == data,
        (Value::Number(number), OwnedFrame::Number { data, .. }) => number == data,
        (Value::List(list), OwnedFrame::Array { data, .. })
        | (Value::Push(list), OwnedFrame::Push { data, .. }) => all(list, data),
        _ => false,
    }
}
