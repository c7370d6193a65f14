//! JSON Web Tokens that are signed with HS256 (RFC 7519, RFC 7515).
//!
//! Before the signature is checked, only the header is read: its `alg` must be `HS256`. The
//! signature is always checked as HS256, so a token cannot choose its algorithm.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The depth of nested objects and lists in a token, at most.
const DEPTH_MAX: u32 = 8;

/// The key that tokens are signed with.
#[derive(Clone)]
pub(crate) struct Key(Hmac<Sha256>);

/// The claims of a token.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    /// The user.
    pub(crate) sub: Option<String>,
    /// When the token expires, in seconds of Unix time.
    pub(crate) exp: Option<u64>,
    /// When the token becomes valid, in seconds of Unix time.
    nbf: Option<u64>,
    /// The rooms that the client may subscribe to; `None` without this claim.
    pub(crate) rooms: Option<Vec<String>>,
    /// The rooms that the client may publish to; `None` without this claim.
    pub(crate) publish: Option<Vec<String>>,
}

impl Key {
    pub(crate) fn new(secret: &[u8]) -> Self {
        // HMAC takes keys of any length (RFC 2104 section 3).
        Self(Hmac::new_from_slice(secret).unwrap_or_else(|_| unreachable!("any length will do")))
    }

    /// Reads a token at `now`, in seconds of Unix time; `None` if it is not valid then.
    pub(crate) fn verify(&self, token: &str, now: u64) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        check_header(&decode(header)?)?;
        let mut mac = self.0.clone();
        mac.update(signed.as_bytes());
        // In constant time.
        mac.verify_slice(&decode(signature)?).ok()?;
        let claims = Claims::read(&decode(claims)?)?;
        let begun = claims.nbf.is_none_or(|nbf| nbf <= now);
        let ended = claims.exp.is_some_and(|exp| exp <= now);
        (begun && !ended).then_some(claims)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Decodes base64url without padding (RFC 4648 section 5). Refuses all but the canonical encoding.
fn decode(part: &str) -> Option<Vec<u8>> {
    Base64UrlUnpadded::decode_vec(part).ok()
}

/// Accepts a header with `alg` HS256 and without `crit`.
fn check_header(json: &[u8]) -> Option<()> {
    let mut alg = None;
    read_object(json, &mut |key, reader| match key {
        "alg" => once(&mut alg, reader.string()?),
        // A reader must refuse critical extensions that it does not know (RFC 7515 4.1.11).
        "crit" => None,
        _ => reader.skip(DEPTH_MAX),
    })?;
    (alg? == "HS256").then_some(())
}

impl Claims {
    fn read(json: &[u8]) -> Option<Self> {
        let mut claims = Self::default();
        read_object(json, &mut |key, reader| match key {
            "sub" => once(&mut claims.sub, reader.string()?),
            "exp" => once(&mut claims.exp, reader.seconds()?.0),
            // Rounded up: with a fraction, the token is valid from the next whole second.
            "nbf" => {
                let (seconds, more) = reader.seconds()?;
                once(&mut claims.nbf, seconds.saturating_add(u64::from(more)))
            }
            "rooms" => once(&mut claims.rooms, reader.strings()?),
            "publish" => once(&mut claims.publish, reader.strings()?),
            _ => reader.skip(DEPTH_MAX),
        })?;
        Some(claims)
    }
}

/// Sets a claim; refuses a second one of the same name.
fn once<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}

/// Reads a JSON object (RFC 8259), member by member.
fn read_object(json: &[u8], member: &mut Member<'_>) -> Option<()> {
    let mut reader = Reader { rest: std::str::from_utf8(json).ok()? };
    reader.object(member)?;
    reader.space();
    reader.rest.is_empty().then_some(())
}

/// A function that gets a member's name and reads its value.
type Member<'a> = dyn FnMut(&str, &mut Reader<'_>) -> Option<()> + 'a;

/// A JSON reader. Each method reads one value, or returns `None`, which ends the reading.
struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Skips `sign` if it is next.
    fn sign(&mut self, sign: char) -> bool {
        self.space();
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Reads elements between `open` and `close`, with commas between them.
    fn list(
        &mut self,
        [open, close]: [char; 2],
        each: &mut dyn FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        if !self.sign(open) {
            return None;
        }
        if self.sign(close) {
            return Some(());
        }
        loop {
            each(self)?;
            if !self.sign(',') {
                return self.sign(close).then_some(());
            }
        }
    }

    fn object(&mut self, member: &mut Member<'_>) -> Option<()> {
        self.list(['{', '}'], &mut |reader| {
            let key = reader.string()?;
            if !reader.sign(':') {
                return None;
            }
            member(&key, reader)
        })
    }

    /// A list of strings. A single string counts as a list of one.
    fn strings(&mut self) -> Option<Vec<String>> {
        self.space();
        if self.rest.starts_with('"') {
            return Some(vec![self.string()?]);
        }
        let mut strings = Vec::new();
        self.list(['[', ']'], &mut |reader| {
            strings.push(reader.string()?);
            Some(())
        })?;
        Some(strings)
    }

    fn string(&mut self) -> Option<String> {
        if !self.sign('"') {
            return None;
        }
        let mut string = String::new();
        let mut characters = self.rest.chars();
        loop {
            match characters.next()? {
                '"' => break,
                '\\' => {
                    let escaped = characters.next()?;
                    string.push(match escaped {
                        '"' | '\\' | '/' => escaped,
                        'b' => '\u{8}',
                        'f' => '\u{c}',
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        'u' => unicode(&mut characters)?,
                        _ => return None,
                    });
                }
                character if character < ' ' => return None,
                character => string.push(character),
            }
        }
        self.rest = characters.as_str();
        Some(string)
    }

    /// A time from 1970 on: whole seconds, and whether there is a fraction.
    fn seconds(&mut self) -> Option<(u64, bool)> {
        let number = self.number()?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        // An exponent is refused: dates are not written with one.
        fraction.bytes().all(|digit| digit.is_ascii_digit()).then_some(())?;
        let seconds = whole.parse().ok()?;
        Some((seconds, fraction.bytes().any(|digit| digit != b'0')))
    }

    fn number(&mut self) -> Option<&str> {
        self.space();
        let is_sign = |c: char| matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E');
        let end = self.rest.find(|c| !is_sign(c)).unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(end);
        self.rest = rest;
        is_number(number).then_some(number)
    }

    /// Skips any value with at most `depth` nested lists and objects.
    fn skip(&mut self, depth: u32) -> Option<()> {
        self.space();
        let deeper = depth.checked_sub(1);
        match self.rest.chars().next()? {
            '"' => self.string().map(drop),
            '{' => {
                let deeper = deeper?;
                self.object(&mut |_, reader| reader.skip(deeper))
            }
            '[' => {
                let deeper = deeper?;
                self.list(['[', ']'], &mut |reader| reader.skip(deeper))
            }
            't' | 'f' | 'n' => {
                let mut words = ["true", "false", "null"].into_iter();
                self.rest = words.find_map(|word| self.rest.strip_prefix(word))?;
                Some(())
            }
            _ => self.number().map(drop),
        }
    }
}

/// Whether a text is a JSON number (RFC 8259 section 6).
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (text, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, "0"),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let leads = whole.len() > 1 && whole.starts_with('0');
    digits(whole) && !leads && digits(fraction) && digits(exponent)
}

/// Reads an escape after its `\u`, and the second one of a surrogate pair (RFC 8259 section 7).
fn unicode(characters: &mut std::str::Chars<'_>) -> Option<char> {
    let mut unit =
        || (0..4).try_fold(0, |unit, _| Some(unit * 16 + characters.next()?.to_digit(16)?));
    let first = unit()?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first);
    }
    if (characters.next()?, characters.next()?) != ('\\', 'u') {
        return None;
    }
    let second =
        (0..4).try_fold(0, |unit, _| Some(unit * 16 + characters.next()?.to_digit(16)?))?;
    let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    char::from_u32(0x10000 + ((first - 0xd800) << 10) + low)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const SECRET: &[u8] = b"a secret of at least 256 bits, as HS256 wants it";

    /// Signs a token with HS256, whatever its header says.
    pub(crate) fn sign(header: &str, claims: &str, secret: &[u8]) -> String {
        let encode = |part: &str| Base64UrlUnpadded::encode_string(part.as_bytes());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let mut mac = Key::new(secret).0;
        mac.update(signed.as_bytes());
        let signature = Base64UrlUnpadded::encode_string(&mac.finalize().into_bytes());
        format!("{signed}.{signature}")
    }

    const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

    fn read(claims: &str) -> Option<Claims> {
        Key::new(SECRET).verify(&sign(HEADER, claims, SECRET), 1000)
    }

    /// The example of RFC 7515, appendix A.1: not made by this code.
    #[test]
    fn the_example_of_the_rfc_is_read() {
        let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9\
             .eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ\
             .dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let key = Key::new(&decode(secret).expect("base64"));
        let claims = key.verify(token, 1_300_819_379).expect("valid a second before its end");
        assert_eq!(claims, Claims { exp: Some(1_300_819_380), ..Claims::default() });
        assert_eq!(key.verify(token, 1_300_819_380), None, "expired from exp on");
    }

    /// Two texts for the same bytes would be two texts for one token.
    #[test]
    fn base64_is_canonical_and_without_padding() {
        for (text, bytes) in [("", &b""[..]), ("AA", b"\0"), ("-_8", b"\xfb\xff"), ("QUJD", b"ABC")]
        {
            assert_eq!(decode(text).as_deref(), Some(bytes), "{text:?}");
        }
        for text in ["A", "AB", "AAB", "+/8", "AA=", "AA==", "A A", "QUJDR", "AA\n"] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }

    #[test]
    fn known_claims_are_read_and_others_skipped() {
        let claims = read(
            r#" { "sub" : "ad\u0061 \ud83d\ude00\n", "rooms":["a","b/*"],"publish":"a", "iat":-1.5e3,
                "x":{"y":[true,false,null,{"z":"}"}]},"exp":1001.9,"nbf":1000.0 } "#,
        );
        let expected = Claims {
            sub: Some("ada 😀\n".into()),
            exp: Some(1001),
            nbf: Some(1000),
            rooms: Some(vec!["a".into(), "b/*".into()]),
            publish: Some(vec!["a".into()]),
        };
        assert_eq!(claims, Some(expected));
        assert_eq!(read("{}"), Some(Claims::default()));
    }

    #[test]
    fn invalid_and_expired_tokens_are_refused() {
        let good = sign(HEADER, r#"{"sub":"ada"}"#, SECRET);
        let key = Key::new(SECRET);
        assert!(key.verify(&good, 1000).is_some());
        for (header, claims) in [
            (r#"{"alg":"none"}"#, "{}"),
            (r#"{"alg":"HS512"}"#, "{}"),
            (r#"{"alg":"RS256"}"#, "{}"),
            (r#"{"alg":"hs256"}"#, "{}"),
            (r#"{"typ":"JWT"}"#, "{}"),
            (r#"{"alg":"HS256","alg":"none"}"#, "{}"),
            (r#"{"alg":"none","alg":"HS256"}"#, "{}"),
            (r#"{"alg":"HS256","crit":["exp"]}"#, "{}"),
            (r#"["alg","HS256"]"#, "{}"),
            (HEADER, r#"{"exp":1000}"#),
            (HEADER, r#"{"exp":999.9}"#),
            (HEADER, r#"{"exp":"2000"}"#),
            (HEADER, r#"{"exp":2e3}"#),
            (HEADER, r#"{"exp":2000.}"#),
            (HEADER, r#"{"exp":02000}"#),
            (HEADER, r#"{"exp":+2000}"#),
            (HEADER, r#"{"x":1.e3}"#),
            (HEADER, r#"{"x":-}"#),
            (HEADER, r#"{"exp":-1}"#),
            (HEADER, r#"{"exp":99999999999999999999}"#),
            (HEADER, r#"{"exp":2000,"exp":3000}"#),
            (HEADER, r#"{"nbf":1001}"#),
            (HEADER, r#"{"nbf":1000.1}"#),
            (HEADER, r#"{"sub":1}"#),
            (HEADER, r#"{"sub":"\ud800"}"#),
            (HEADER, r#"{"sub":"\ud800\u0041"}"#),
            (HEADER, "{\"sub\":\"a\nb\"}"),
            (HEADER, r#"{"rooms":[1]}"#),
            (HEADER, r#"{"rooms":{}}"#),
            (HEADER, r#"{"rooms":["a",]}"#),
            (HEADER, r#"{"x":[[[[[[[[[]]]]]]]]]}"#),
            (HEADER, r#"{"x":tru}"#),
            (HEADER, r#"{"x":}"#),
            (HEADER, r#"{} {}"#),
            (HEADER, "{"),
            (HEADER, ""),
            (HEADER, "null"),
        ] {
            assert_eq!(key.verify(&sign(header, claims, SECRET), 1000), None, "{header} {claims}");
        }
        let (signed, signature) = good.rsplit_once('.').expect("three parts");
        for token in [
            "",
            ".",
            "..",
            "a.b.c",
            signed,
            &format!("{signed}."),
            &format!("{signed}.{}", &signature[1..]),
            &format!("{good}="),
            &format!("{good}.x"),
            &format!(" {good}"),
            &sign(HEADER, r#"{"sub":"ada"}"#, b"another secret"),
            &good.replace('.', ".."),
        ] {
            assert_eq!(key.verify(token, 1000), None, "{token}");
        }
    }
}
