//! JSON Web Tokens that are signed with HS256 (RFC 7519, RFC 7515).
//!
//! Before the signature is checked, only the header is read: its `alg` must be `HS256`. The
//! signature is always checked as HS256, so a token cannot choose its algorithm.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

// Not from `crate`: the fuzz targets compile both files as parts of their own.
use super::json_reader::read_object;

/// The depth of nested objects and lists in a token, at most.
const DEPTH_MAX: u32 = 8;

/// Seconds by which the clock of the signer and this one may differ: a token is valid so long before
/// its `nbf` and after its `exp` (RFC 7519 4.1.4 and 4.1.5).
pub(crate) const LEEWAY: u64 = 5;

/// Why a token is not valid: a sentence that names the claim, and no value of it.
pub(crate) type Invalid = &'static str;

const MALFORMED: Invalid = "the token is not a JSON Web Token";
const HEADER: Invalid = "the header of the token must say alg HS256, and no crit";
const SIGNATURE: Invalid = "the signature of the token does not match the key";
const CLAIMS: Invalid = "the claims of the token must be a JSON object";
const SUB: Invalid = "the claim sub must be a string, given once";
const EXP: Invalid = "the claim exp must be a number of seconds since 1970, given once";
const NBF: Invalid = "the claim nbf must be a number of seconds since 1970, given once";
const AUD: Invalid = "the claim aud must be a string or a list of strings, given once";
const ROOMS: Invalid = "the claim rooms must be a string or a list of strings, given once";
const PUBLISH: Invalid = "the claim publish must be a string or a list of strings, given once";
const EXPIRED: Invalid = "the claim exp is in the past";
const EARLY: Invalid = "the claim nbf is in the future";

/// The keys that tokens may be signed with.
#[derive(Clone)]
pub(crate) struct Key(Vec<Hmac<Sha256>>);

/// The claims of a token.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    /// The user.
    pub(crate) sub: Option<String>,
    /// When the token expires, in seconds of Unix time.
    pub(crate) exp: Option<u64>,
    /// When the token becomes valid, in seconds of Unix time.
    nbf: Option<u64>,
    /// The services that the token is for; `None` without this claim.
    pub(crate) aud: Option<Vec<String>>,
    /// The rooms that the client may subscribe to; `None` without this claim.
    pub(crate) rooms: Option<Vec<String>>,
    /// The rooms that the client may publish to; `None` without this claim.
    pub(crate) publish: Option<Vec<String>>,
}

impl Key {
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let hmac = |secret| {
            // HMAC takes keys of any length (RFC 2104 section 3).
            Hmac::new_from_slice(secret).unwrap_or_else(|_| unreachable!("any length will do"))
        };
        Self(secrets.into_iter().map(hmac).collect())
    }

    /// Reads a token at `now`, in seconds of Unix time.
    ///
    /// # Errors
    ///
    /// What is wrong with the token, if it is not valid then. The sentence is about a claim only if
    /// the signature is right.
    pub(crate) fn verify(&self, token: &str, now: u64) -> Result<Claims, Invalid> {
        let (signed, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
        let (header, claims) = signed.split_once('.').ok_or(MALFORMED)?;
        check_header(&decode(header).ok_or(MALFORMED)?).ok_or(HEADER)?;
        let signature = decode(signature).ok_or(MALFORMED)?;
        let mut macs = self.0.iter().map(|mac| mac.clone().chain_update(signed));
        // In constant time.
        if !macs.any(|mac| mac.verify_slice(&signature).is_ok()) {
            return Err(SIGNATURE);
        }
        let claims = Claims::read(&decode(claims).ok_or(MALFORMED)?)?;
        if claims.nbf.is_some_and(|nbf| nbf > now.saturating_add(LEEWAY)) {
            return Err(EARLY);
        }
        if claims.exp.is_some_and(|exp| exp.saturating_add(LEEWAY) <= now) {
            return Err(EXPIRED);
        }
        Ok(claims)
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
        "alg" => once(&mut alg, reader.string()),
        // A reader must refuse critical extensions that it does not know (RFC 7515 4.1.11).
        "crit" => None,
        _ => reader.skip(DEPTH_MAX),
    })?;
    (alg? == "HS256").then_some(())
}

impl Claims {
    fn read(json: &[u8]) -> Result<Self, Invalid> {
        let mut claims = Self::default();
        let mut wrong = CLAIMS;
        let read = read_object(json, &mut |key, reader| {
            let (sentence, read) = match key {
                "sub" => (SUB, once(&mut claims.sub, reader.string())),
                "exp" => (EXP, once(&mut claims.exp, reader.seconds().map(|(exp, _)| exp))),
                // Rounded up: with a fraction, the token is valid from the next whole second.
                "nbf" => {
                    let begin = reader.seconds();
                    let begin = begin.map(|(nbf, more)| nbf.saturating_add(u64::from(more)));
                    (NBF, once(&mut claims.nbf, begin))
                }
                "aud" => (AUD, once(&mut claims.aud, reader.strings())),
                "rooms" => (ROOMS, once(&mut claims.rooms, reader.strings())),
                "publish" => (PUBLISH, once(&mut claims.publish, reader.strings())),
                _ => (CLAIMS, reader.skip(DEPTH_MAX)),
            };
            if read.is_none() {
                wrong = sentence;
            }
            read
        });
        read.ok_or(wrong).map(|()| claims)
    }
}

/// Sets a claim; refuses a second one of the same name.
fn once<T>(slot: &mut Option<T>, value: Option<T>) -> Option<()> {
    slot.replace(value?).is_none().then_some(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const SECRET: &[u8] = b"a secret of at least 256 bits, as HS256 wants it";

    /// Signs a token with HS256, whatever its header says.
    pub(crate) fn sign(header: &str, claims: &str, secret: &[u8]) -> String {
        let encode = |part: &str| Base64UrlUnpadded::encode_string(part.as_bytes());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let mut mac = Key::new([secret]).0.remove(0);
        mac.update(signed.as_bytes());
        let signature = Base64UrlUnpadded::encode_string(&mac.finalize().into_bytes());
        format!("{signed}.{signature}")
    }

    const HEAD: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

    fn read(claims: &str) -> Result<Claims, Invalid> {
        Key::new([SECRET]).verify(&sign(HEAD, claims, SECRET), 1000)
    }

    /// The example of RFC 7515, appendix A.1: not made by this code.
    #[test]
    fn the_example_of_the_rfc_is_read() {
        let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9\
             .eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ\
             .dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let key = Key::new([&*decode(secret).expect("base64")]);
        let claims = key.verify(token, 1_300_819_379).expect("valid a second before its end");
        assert_eq!(claims, Claims { exp: Some(1_300_819_380), ..Claims::default() });
        let end = 1_300_819_380 + LEEWAY;
        assert!(key.verify(token, end - 1).is_ok());
        assert_eq!(key.verify(token, end), Err(EXPIRED));
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
                "x":{"y":[true,false,null,{"z":"}"}]},"exp":1001.9,"nbf":1000.0,"aud":"hub" } "#,
        );
        let expected = Claims {
            sub: Some("ada 😀\n".into()),
            exp: Some(1001),
            nbf: Some(1000),
            aud: Some(vec!["hub".into()]),
            rooms: Some(vec!["a".into(), "b/*".into()]),
            publish: Some(vec!["a".into()]),
        };
        assert_eq!(claims, Ok(expected));
        assert_eq!(read("{}"), Ok(Claims::default()));
    }

    /// Lua, PHP and JavaScript write large numbers with an exponent.
    #[test]
    fn a_date_is_any_number_of_json() {
        for (text, seconds) in [
            ("1893456000", 1_893_456_000),
            ("1.9e9", 1_900_000_000),
            ("1.9E+9", 1_900_000_000),
            ("1.893456789e+09", 1_893_456_789),
            ("18934567890000e-4", 1_893_456_789),
            ("1893456000.999999999999999999999", 1_893_456_000),
            ("9007199254740993", 9_007_199_254_740_993),
            ("18446744073709551615", u64::MAX),
        ] {
            let claims = read(&format!("{{\"exp\":{text}}}"));
            assert_eq!(claims.map(|claims| claims.exp), Ok(Some(seconds)), "{text}");
        }
        for (text, seconds) in [
            ("0", 0),
            ("-1e3", 0),
            ("1e-32768", 1),
            ("0.5", 1),
            ("0e32767", 0),
            ("1e3", 1000),
            ("1000.5e0", 1001),
        ] {
            let claims = read(&format!("{{\"nbf\":{text}}}"));
            assert_eq!(claims.map(|claims| claims.nbf), Ok(Some(seconds)), "{text}");
        }
        for text in ["18446744073709551616", "1e20", "1e400", "1e99999", "\"1893456000\"", "null"] {
            assert_eq!(read(&format!("{{\"exp\":{text}}}")), Err(EXP), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_token_is_said_by_the_name_of_its_claim() {
        for (claims, wrong) in [
            (r#"{"sub":42}"#, SUB),
            (r#"{"sub":null}"#, SUB),
            (r#"{"sub":"a","sub":"a"}"#, SUB),
            (r#"{"exp":"1893456000"}"#, EXP),
            (r#"{"nbf":true}"#, NBF),
            (r#"{"aud":7}"#, AUD),
            (r#"{"rooms":{"news":true}}"#, ROOMS),
            (r#"{"publish":true}"#, PUBLISH),
            (r#"{"exp":995}"#, EXPIRED),
            (r#"{"nbf":1006}"#, EARLY),
            (r#"{"nbf":1005.1}"#, EARLY),
            (r#"["sub"]"#, CLAIMS),
            (r#"{"x":}"#, CLAIMS),
        ] {
            assert_eq!(read(claims), Err(wrong), "{claims}");
        }
        assert!(read(r#"{"exp":996,"nbf":1005}"#).is_ok(), "clocks differ by so much");
        let key = Key::new([SECRET]);
        for (token, wrong) in [
            ("sesame", MALFORMED),
            ("a.b.c", MALFORMED),
            (&*sign(r#"{"alg":"RS256"}"#, "{}", SECRET), HEADER),
            (&sign(HEAD, r#"{"sub":42}"#, b"another secret"), SIGNATURE),
        ] {
            assert_eq!(key.verify(token, 1000), Err(wrong), "{token}");
        }
    }

    #[test]
    fn invalid_and_expired_tokens_are_refused() {
        let good = sign(HEAD, r#"{"sub":"ada"}"#, SECRET);
        let key = Key::new([SECRET]);
        assert!(key.verify(&good, 1000).is_ok());
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
            (HEAD, r#"{"exp":995}"#),
            (HEAD, r#"{"exp":995.9}"#),
            (HEAD, r#"{"exp":"2000"}"#),
            (HEAD, r#"{"exp":2000.}"#),
            (HEAD, r#"{"exp":02000}"#),
            (HEAD, r#"{"exp":+2000}"#),
            (HEAD, r#"{"x":1.e3}"#),
            (HEAD, r#"{"x":-}"#),
            (HEAD, r#"{"exp":-1}"#),
            (HEAD, r#"{"exp":99999999999999999999}"#),
            (HEAD, r#"{"exp":2000,"exp":3000}"#),
            (HEAD, r#"{"nbf":1006}"#),
            (HEAD, r#"{"nbf":1005.1}"#),
            (HEAD, r#"{"sub":1}"#),
            (HEAD, r#"{"sub":"\ud800"}"#),
            (HEAD, r#"{"sub":"\ud800\u0041"}"#),
            (HEAD, "{\"sub\":\"a\nb\"}"),
            (HEAD, r#"{"rooms":[1]}"#),
            (HEAD, r#"{"rooms":{}}"#),
            (HEAD, r#"{"rooms":["a",]}"#),
            (HEAD, r#"{"x":[[[[[[[[[]]]]]]]]]}"#),
            (HEAD, r#"{"x":tru}"#),
            (HEAD, r#"{"x":}"#),
            (HEAD, r#"{} {}"#),
            (HEAD, "{"),
            (HEAD, ""),
            (HEAD, "null"),
        ] {
            let token = sign(header, claims, SECRET);
            assert!(key.verify(&token, 1000).is_err(), "{header} {claims}");
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
            &sign(HEAD, r#"{"sub":"ada"}"#, b"another secret"),
            &good.replace('.', ".."),
        ] {
            assert!(key.verify(token, 1000).is_err(), "{token}");
        }
    }
}
