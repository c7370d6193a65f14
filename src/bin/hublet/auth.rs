//! Tokens: which requests are allowed, and until when.
//!
//! This is the policy of the binary. A program that embeds the hub has users of its own.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use hublet::http::header;
use hublet::http::{HeaderMap, Request, StatusCode};
use hublet::{Peer, is_local, is_name, query_of};
use sha2::Sha256;

use super::jwt::{Claims, Key};

/// The subprotocol before the token of a browser's WebSocket. The hub answers with it.
pub(crate) const PROTOCOL: &str = "hublet.token";

/// Bytes of a key for HS256, at least (RFC 7518 3.2).
const KEY_BYTES_MIN: usize = 32;

/// A token or a key. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Box<str>);

impl Secret {
    /// `None` for an empty text.
    pub(crate) fn new(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.into()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The tokens that the command line sets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Secrets {
    /// Required to subscribe.
    pub(crate) token: Option<Secret>,
    /// Required to publish; also allows to subscribe.
    pub(crate) publish_token: Option<Secret>,
    /// Required for the admin endpoints.
    pub(crate) admin_token: Option<Secret>,
    /// The key that JSON Web Tokens are signed with.
    pub(crate) jwt_secret: Option<Secret>,
}

impl Secrets {
    /// Whether a token is required to subscribe.
    pub(crate) fn guard_listening(&self) -> bool {
        self.token.is_some() || self.jwt_secret.is_some()
    }

    /// Whether the key for JSON Web Tokens is shorter than it should be.
    pub(crate) fn have_short_key(&self) -> bool {
        self.jwt_secret.as_ref().is_some_and(|key| key.0.len() < KEY_BYTES_MIN)
    }
}

/// Decides what requests may do.
#[derive(Debug)]
pub(crate) struct Access {
    secrets: Secrets,
    key: Option<Key>,
}

/// What a client with a token, or without one, may do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    /// The user of the token.
    pub(crate) user: Option<String>,
    /// When the token expires, in seconds of Unix time.
    pub(crate) until: Option<u64>,
    listen: Rooms,
    send: Rooms,
    /// Whether the request has a token: a refusal without one is 401, otherwise 403.
    shown: bool,
}

/// A set of rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rooms {
    All,
    /// Exact names, and prefixes that end in `*`.
    These(Vec<String>),
}

impl Rooms {
    fn none() -> Self {
        Self::These(Vec::new())
    }

    fn if_so(so: bool) -> Self {
        if so { Self::All } else { Self::none() }
    }

    fn contains(&self, room: &str) -> bool {
        let Self::These(names) = self else { return true };
        names.iter().any(|name| match name.strip_suffix('*') {
            Some(beginning) => room.starts_with(beginning),
            None => name == room,
        })
    }
}

impl Access {
    pub(crate) fn new(secrets: Secrets) -> Self {
        let key = secrets.jwt_secret.as_ref().map(|secret| Key::new(secret.0.as_bytes()));
        Self { secrets, key }
    }

    /// What a request may do, with its token or without one.
    ///
    /// # Errors
    ///
    /// 401 for a token that is not valid.
    pub(crate) fn pass(&self, request: &Request<()>, now: u64) -> Result<Pass, StatusCode> {
        let Secrets { token, publish_token, .. } = &self.secrets;
        let by_token = |listen, send| Pass { user: None, until: None, listen, send, shown: true };
        let guards_listening = self.secrets.guard_listening();
        let Some(shown) = shown(request) else {
            let send = Rooms::if_so(!guards_listening && publish_token.is_none());
            return Ok(Pass { shown: false, ..by_token(Rooms::if_so(!guards_listening), send) });
        };
        if !guards_listening && publish_token.is_none() {
            // No token is required, so any is accepted.
            return Ok(by_token(Rooms::All, Rooms::All));
        }
        if is(publish_token, &shown) {
            return Ok(by_token(Rooms::All, Rooms::All));
        }
        if is(token, &shown) {
            return Ok(by_token(Rooms::All, Rooms::if_so(publish_token.is_none())));
        }
        let claims = self.key.as_ref().and_then(|key| key.verify(&shown, now));
        let claims = claims.filter(|claims| claims.sub.as_deref().is_none_or(is_name));
        claims.map(|claims| self.pass_of(claims)).ok_or(StatusCode::UNAUTHORIZED)
    }

    /// What a JSON Web Token allows. Without a claim for subscribing it allows all rooms. Without a
    /// claim for publishing it allows the same rooms as for subscribing, or none if there is a
    /// token for publishing.
    fn pass_of(&self, claims: Claims) -> Pass {
        let listen = claims.rooms.map_or(Rooms::All, Rooms::These);
        let send = match claims.publish {
            Some(rooms) => Rooms::These(rooms),
            None if self.secrets.publish_token.is_some() => Rooms::none(),
            None => listen.clone(),
        };
        Pass { user: claims.sub, until: claims.exp, listen, send, shown: true }
    }

    /// Whether a request may use the admin endpoints: with the admin token, or from this machine if
    /// there is no admin token.
    ///
    /// # Errors
    ///
    /// 401 if the token is missing or wrong, 403 for a request from elsewhere.
    pub(crate) fn inspect(&self, request: &Request<()>, peer: &Peer) -> Result<(), StatusCode> {
        if self.secrets.admin_token.is_some() {
            let shown = shown(request);
            let valid = shown.is_some_and(|shown| is(&self.secrets.admin_token, &shown));
            return if valid { Ok(()) } else { Err(StatusCode::UNAUTHORIZED) };
        }
        if is_local(request, peer) { Ok(()) } else { Err(StatusCode::FORBIDDEN) }
    }
}

impl Pass {
    /// Whether the client may subscribe to a room.
    ///
    /// # Errors
    ///
    /// 401 if the request has no token, 403 if its token does not allow this.
    pub(crate) fn listens_to(&self, room: &str) -> Result<(), StatusCode> {
        self.check(self.listen.contains(room))
    }

    /// Whether the client may publish to a room.
    ///
    /// # Errors
    ///
    /// As [`listens_to`](Self::listens_to).
    pub(crate) fn sends_to(&self, room: &str) -> Result<(), StatusCode> {
        self.check(self.send.contains(room))
    }

    /// Whether the client may send to users, in whatever rooms they are: it may if it may publish
    /// to every room.
    ///
    /// # Errors
    ///
    /// As [`listens_to`](Self::listens_to).
    pub(crate) fn sends_to_users(&self) -> Result<(), StatusCode> {
        let everywhere = match &self.send {
            Rooms::All => true,
            Rooms::These(names) => names.iter().any(|name| name == "*"),
        };
        self.check(everywhere)
    }

    fn check(&self, allowed: bool) -> Result<(), StatusCode> {
        match allowed {
            true => Ok(()),
            false if self.shown => Err(StatusCode::FORBIDDEN),
            false => Err(StatusCode::UNAUTHORIZED),
        }
    }
}

/// The token of a request: from `Authorization: Bearer`, `?token=`, or after [`PROTOCOL`] in
/// `Sec-WebSocket-Protocol`.
fn shown(request: &Request<()>) -> Option<String> {
    let headers = request.headers();
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        // Another scheme counts as an invalid token.
        let (scheme, token) = value.to_str().ok()?.split_once(' ').unwrap_or_default();
        let token = if scheme.eq_ignore_ascii_case("bearer") { token.trim_ascii() } else { "" };
        return Some(token.to_owned());
    }
    query_of(request.uri(), "token")
        .or_else(|| protocols(headers).skip_while(|name| *name != PROTOCOL).nth(1).map(Into::into))
}

/// Whether a request offers the subprotocol for tokens.
pub(crate) fn offers_protocol(request: &Request<()>) -> bool {
    protocols(request.headers()).any(|name| name == PROTOCOL)
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim_ascii)
}

/// Whether a token is the secret. Compares their hashes in constant time, so that the time tells
/// nothing about either.
fn is(secret: &Option<Secret>, shown: &str) -> bool {
    let Some(secret) = secret else { return false };
    let mac = |text: &str| {
        Hmac::<Sha256>::new_from_slice(PROTOCOL.as_bytes()).ok().map(|mac| mac.chain_update(text))
    };
    let (Some(expected), Some(shown)) = (mac(&secret.0), mac(shown)) else { return false };
    shown.verify(&expected.finalize().into_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwt::tests::{SECRET, sign};

    const NOW: u64 = 1000;

    fn access(secrets: Secrets) -> Access {
        Access::new(secrets)
    }

    fn secret(text: &str) -> Option<Secret> {
        Secret::new(text)
    }

    fn request(uri: &str, headers: &[(&'static str, &str)]) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = uri.parse().expect("a target");
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().expect("a value"));
        }
        request
    }

    fn bearer(token: &str) -> Request<()> {
        request("/", &[("authorization", &format!("Bearer {token}"))])
    }

    /// The statuses for subscribing and publishing; 200 if it is allowed.
    fn may(access: &Access, token: Option<&str>, room: &str) -> [u16; 2] {
        let request = token.map_or_else(|| request("/", &[]), bearer);
        let status =
            |outcome: Result<(), StatusCode>| outcome.map_or_else(|s| s.as_u16(), |()| 200);
        let pass = access.pass(&request, NOW);
        let pass = pass.as_ref().map_err(|status| *status);
        [status(pass.and_then(|p| p.listens_to(room))), status(pass.and_then(|p| p.sends_to(room)))]
    }

    #[test]
    fn tokens_allow_what_the_table_says() {
        let none = Secrets::default();
        let token = Secrets { token: secret("t"), ..none.clone() };
        let publish = Secrets { publish_token: secret("p"), ..none.clone() };
        let both = Secrets { publish_token: secret("p"), ..token.clone() };
        for (secrets, shown, expected) in [
            (&none, None, [200, 200]),
            (&none, Some("whatever"), [200, 200]),
            (&token, None, [401, 401]),
            (&token, Some("t"), [200, 200]),
            (&token, Some("x"), [401, 401]),
            (&token, Some(""), [401, 401]),
            (&publish, None, [200, 401]),
            (&publish, Some("p"), [200, 200]),
            (&publish, Some("x"), [401, 401]),
            (&both, None, [401, 401]),
            (&both, Some("t"), [200, 403]),
            (&both, Some("p"), [200, 200]),
        ] {
            assert_eq!(
                may(&access(secrets.clone()), shown, "main"),
                expected,
                "{secrets:?} {shown:?}"
            );
        }
    }

    #[test]
    fn claims_limit_the_rooms_to_subscribe_and_to_publish() {
        let key = Secrets {
            jwt_secret: secret(std::str::from_utf8(SECRET).expect("text")),
            ..Secrets::default()
        };
        let strict = Secrets { publish_token: secret("p"), ..key.clone() };
        for (secrets, claims, room, expected) in [
            (&key, r#"{}"#, "a", [200, 200]),
            (&key, r#"{"rooms":["a"]}"#, "a", [200, 200]),
            (&key, r#"{"rooms":["a"]}"#, "ab", [403, 403]),
            (&key, r#"{"rooms":["a*"]}"#, "ab", [200, 200]),
            (&key, r#"{"rooms":["*"],"publish":["a"]}"#, "b", [200, 403]),
            (&key, r#"{"rooms":[],"publish":["a"]}"#, "a", [403, 200]),
            (&key, r#"{"publish":[]}"#, "a", [200, 403]),
            (&strict, r#"{}"#, "a", [200, 403]),
            (&strict, r#"{"publish":["a"]}"#, "a", [200, 200]),
            (&key, r#"{"exp":1000}"#, "a", [401, 401]),
        ] {
            let token = sign(r#"{"alg":"HS256"}"#, claims, SECRET);
            assert_eq!(
                may(&access(secrets.clone()), Some(&token), room),
                expected,
                "{claims} {room}"
            );
        }
        let access = access(key);
        let users = |claims| {
            let token = sign(r#"{"alg":"HS256"}"#, claims, SECRET);
            access.pass(&bearer(&token), NOW).expect("valid").sends_to_users().is_ok()
        };
        assert!(users("{}") && users(r#"{"publish":["*"]}"#) && !users(r#"{"publish":["a*"]}"#));
        let token = sign(r#"{"alg":"HS256"}"#, r#"{"sub":"ada","exp":1001}"#, SECRET);
        let pass = access.pass(&bearer(&token), NOW).expect("valid");
        assert_eq!((pass.user.as_deref(), pass.until), (Some("ada"), Some(1001)));
    }

    #[test]
    fn token_is_read_from_header_query_and_subprotocol() {
        for (uri, headers, token) in [
            ("/", &[("authorization", "Bearer a.b-c")][..], Some("a.b-c")),
            ("/", &[("authorization", "bearer  a")], Some("a")),
            ("/", &[("authorization", "Basic YTpi")], Some("")),
            ("/?token=query", &[("authorization", "Bearer header")], Some("header")),
            ("/?x=1&token=a%20b%2f", &[], Some("a b/")),
            ("/?token=100%", &[], Some("100%")),
            ("/?token=", &[], Some("")),
            ("/?untoken=a", &[], None),
            ("/", &[("sec-websocket-protocol", "chat, hublet.token, secret")], Some("secret")),
            (
                "/",
                &[("sec-websocket-protocol", "hublet.token"), ("sec-websocket-protocol", "s")],
                Some("s"),
            ),
            ("/", &[("sec-websocket-protocol", "hublet.token")], None),
            ("/", &[], None),
        ] {
            assert_eq!(shown(&request(uri, headers)).as_deref(), token, "{uri} {headers:?}");
        }
    }

    #[test]
    fn admin_endpoints_need_the_admin_token_or_this_machine() {
        let open = access(Secrets { token: secret("t"), ..Secrets::default() });
        let local = Peer::unix();
        let remote = Peer::from(std::net::SocketAddr::from(([192, 0, 2, 1], 1)));
        for (peer, headers, allowed) in [
            (local, &[("host", "localhost:8080")][..], true),
            (local, &[("host", "127.0.0.1")], true),
            (local, &[("host", "[::1]:8080")], true),
            (local, &[("host", "evil.example")], false),
            (local, &[("host", "127.0.0.1.evil.example:80")], false),
            (local, &[], false),
            (local, &[("host", "localhost"), ("x-forwarded-for", "127.0.0.1")], false),
            (local, &[("host", "localhost"), ("forwarded", "for=127.0.0.1")], false),
            (remote, &[("host", "127.0.0.1")], false),
        ] {
            let outcome = open.inspect(&request("/metrics", headers), &peer);
            assert_eq!(outcome.is_ok(), allowed, "{peer} {headers:?}");
        }
        let guarded = access(Secrets { admin_token: secret("a"), ..Secrets::default() });
        assert!(guarded.inspect(&bearer("a"), &remote).is_ok());
        for request in [bearer("t"), bearer(""), request("/", &[("host", "localhost")])] {
            assert_eq!(guarded.inspect(&request, &local), Err(StatusCode::UNAUTHORIZED));
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let secrets =
            Secrets { token: secret("hush"), jwt_secret: secret("hush"), ..Secrets::default() };
        assert!(!format!("{secrets:?} {:?}", access(secrets.clone())).contains("hush"));
    }
}
