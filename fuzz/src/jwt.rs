//! Fuzzes tokens: an accepted token is signed, has `alg` HS256, and has the claims that a second
//! reader finds in it.

#[path = "../../src/bin/hublet/json_reader.rs"]
mod json_reader;
#[path = "../../src/bin/hublet/jwt.rs"]
#[allow(dead_code, reason = "the binary uses all of it")]
mod token;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

const SECRET: &[u8] = b"a secret of at least 256 bits, as HS256 wants it";
const NOW: u64 = 1_000_000_000;

/// Verifies the bytes as a token. Also signs them as a header and claims, a line each, and verifies
/// that.
pub fn run(bytes: &[u8]) {
    let key = token::Key::new([SECRET]);
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Some((signed, signature)) = text.rsplit_once('.') {
            if key.verify(text, NOW).is_ok() {
                assert_eq!(signature, sign(signed), "{text:?}");
            }
        }
    }
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let (header, claims) = (&bytes[..end], &bytes[end + 1..]);
    let [head, body] = [header, claims].map(Base64UrlUnpadded::encode_string);
    let signed = format!("{head}.{body}");
    let token = format!("{signed}.{}", sign(&signed));
    let Ok(said) = key.verify(&token, NOW) else { return };
    let header: Value = serde_json::from_slice(header).expect("what is accepted is JSON");
    let claims: Value = serde_json::from_slice(claims).expect("what is accepted is JSON");
    assert_eq!(header["alg"], "HS256");
    assert!(header.get("crit").is_none());
    assert_eq!(said.sub.as_deref(), claims.get("sub").and_then(Value::as_str));
    // Numbers stay text, so that the comparison is not affected by rounding.
    let seconds =
        |name: &str| Some(seconds(&claims.get(name)?.as_number().expect("a number").to_string()));
    assert_eq!(said.exp, seconds("exp").map(|(exp, _)| exp));
    assert!(seconds("exp").is_none_or(|(exp, _)| exp.saturating_add(token::LEEWAY) > NOW));
    let begun = |(nbf, more)| nbf + u64::from(more) <= NOW + token::LEEWAY;
    assert!(seconds("nbf").is_none_or(begun));
    let lists = [(&said.aud, "aud"), (&said.rooms, "rooms"), (&said.publish, "publish")];
    for (rooms, name) in lists {
        let value = claims.get(name).map(|value| match value {
            Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
            value => vec![value.as_str().expect("a name")],
        });
        assert_eq!(rooms.as_ref().map(|rooms| rooms.iter().map(String::as_str).collect()), value);
    }
}

/// The whole seconds of a number of JSON, and whether there is a fraction, by moving its point.
fn seconds(number: &str) -> (u64, bool) {
    let (digits, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.starts_with('-') {
        return (0, false);
    }
    let exponent: i32 = exponent.parse().expect("an accepted exponent is short");
    let zeros = "0".repeat(exponent.unsigned_abs() as usize);
    let (whole, fraction) = if exponent < 0 {
        let all = format!("{zeros}{whole}");
        let (left, right) = all.split_at(whole.len());
        (left.to_owned(), format!("{right}{fraction}"))
    } else {
        let all = format!("{fraction}{zeros}");
        let (left, right) = all.split_at(zeros.len());
        (format!("{whole}{left}"), right.to_owned())
    };
    (whole.parse().expect("seconds"), fraction.bytes().any(|digit| digit != b'0'))
}

fn sign(signed: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("any length will do");
    Base64UrlUnpadded::encode_string(&mac.chain_update(signed).finalize().into_bytes())
}
