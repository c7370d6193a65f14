//! Tokens: which requests are allowed, and until when.
//!
//! This is the policy of the binary. A program that embeds the hub has users of its own.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use hublet::http::header;
use hublet::http::{HeaderMap, Method, Request, StatusCode};
use hublet::{Peer, is_local, is_name, query_of};
use sha2::Sha256;

use super::jwt::{Claims, Invalid, Key, LEEWAY};

/// The subprotocol before the token of a browser's WebSocket. The hub answers with it.
pub(crate) const PROTOCOL: &str = "hublet.token";

/// Bytes of a key for HS256, at least (RFC 7518 3.2).
const KEY_BYTES_MIN: usize = 32;

/// The answer to a token that is not one of the secrets.
const WRONG: Invalid = "the token is wrong";

/// A token or a key, and a second one while clients change from one to the other. It is never
/// printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Box<str>, Option<Box<str>>);

impl Secret {
    /// The longest secret, in bytes. It is part of the head of a request, which has 8 KiB.
    pub(crate) const BYTES_MAX: usize = 4096;

    /// # Errors
    ///
    /// What is allowed, for a text that clients cannot send as the operator wrote it: headers lose
    /// the space around a value and have one line.
    pub(crate) fn new(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            Err("one that is not empty")
        } else if text.len() > Self::BYTES_MAX {
            Err("one of at most 4096 bytes")
        } else if text.contains(char::is_control) {
            Err("one of a single line, without control characters")
        } else if text.starts_with('\u{feff}') {
            Err("one without a byte order mark in front of it")
        } else if text.trim() != text {
            Err("one without space in front of it or behind it")
        } else {
            Ok(Self(text.into(), None))
        }
    }

    /// Adds a second one; `false` if there are two already.
    pub(crate) fn add(&mut self, second: Self) -> bool {
        let has_place = self.1.is_none();
        if has_place {
            self.1 = Some(second.0);
        }
        has_place
    }

    /// Each of them.
    fn each(&self) -> impl Iterator<Item = &str> {
        [Some(&self.0), self.1.as_ref()].into_iter().flatten().map(|text| &**text)
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
    /// What JSON Web Tokens must be for; without it, those that say nothing of it.
    pub(crate) jwt_audience: Option<Box<str>>,
}

impl Secrets {
    /// Whether a token is required to subscribe.
    pub(crate) fn guard_listening(&self) -> bool {
        self.token.is_some() || self.jwt_secret.is_some()
    }

    /// Whether the key for JSON Web Tokens is shorter than it should be.
    pub(crate) fn have_short_key(&self) -> bool {
        let mut keys = self.jwt_secret.iter().flat_map(Secret::each);
        keys.any(|key| key.len() < KEY_BYTES_MIN)
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
        let key =
            secrets.jwt_secret.as_ref().map(|secret| Key::new(secret.each().map(str::as_bytes)));
        Self { secrets, key }
    }

    /// What a request may do, with its token or without one.
    ///
    /// # Errors
    ///
    /// What is wrong with a token that is not valid.
    pub(crate) fn pass(&self, request: &Request<()>, now: u64) -> Result<Pass, Invalid> {
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
        let Some(key) = &self.key else { return Err(WRONG) };
        let claims = key.verify(&shown, now)?;
        if claims.sub.as_deref().is_some_and(|sub| !is_name(sub)) {
            return Err("the claim sub must have 1 to 128 bytes and no control characters");
        }
        // A service that a token does not name must refuse it (RFC 7519 4.1.3).
        match (&self.secrets.jwt_audience, &claims.aud) {
            (None, None) => {}
            (None, Some(_)) => return Err("the claim aud needs a hub with --jwt-audience"),
            (Some(_), None) => return Err("the claim aud is missing"),
            (Some(own), Some(aud)) if aud.iter().any(|name| **name == **own) => {}
            (Some(_), Some(_)) => return Err("the claim aud does not name this hub"),
        }
        Ok(Self::pass_of(claims))
    }

    /// Why a request was refused with this status: a sentence that names no value of its token.
    pub(crate) fn reason(
        &self,
        request: &Request<()>,
        status: StatusCode,
        now: u64,
    ) -> Option<&'static str> {
        let path = request.uri().path();
        let is_under = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
        let is_admin = is_under(&["/metrics", "/rooms"]);
        let is_act = path == "/all" || request.method() == Method::DELETE;
        match status {
            StatusCode::UNAUTHORIZED if is_act && bearer(request.headers()).is_none() => {
                shown(request).map(|_| "the admin token has to be in the header Authorization")
            }
            StatusCode::UNAUTHORIZED if is_act => Some(WRONG),
            StatusCode::FORBIDDEN if is_act => Some("this needs a hub with --admin-token"),
            StatusCode::UNAUTHORIZED if is_admin => shown(request).map(|_| WRONG),
            StatusCode::UNAUTHORIZED => self.pass(request, now).err(),
            StatusCode::FORBIDDEN if is_admin => {
                Some("without --admin-token only programs on this machine may ask for this")
            }
            StatusCode::FORBIDDEN if is_under(&["/pub", "/user"]) => {
                Some("the token does not allow to publish here (a JSON Web Token does by publish)")
            }
            StatusCode::FORBIDDEN => Some("the token does not allow to subscribe to this room"),
            _ => None,
        }
    }

    /// What a JSON Web Token allows. Without a claim for subscribing it allows all rooms. Without a
    /// claim for publishing it allows none: the key may sign for another application too, and a
    /// token for a visitor must not allow messages to all other visitors by an omission.
    fn pass_of(claims: Claims) -> Pass {
        let listen = claims.rooms.map_or(Rooms::All, Rooms::These);
        let send = claims.publish.map_or(Rooms::none(), Rooms::These);
        let until = claims.exp.map(|exp| exp.saturating_add(LEEWAY));
        Pass { user: claims.sub, until, listen, send, shown: true }
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
        // A page of another origin shows the token, also from this machine.
        let is_own = is_local(request, peer) && !is_foreign_page(request);
        if is_own { Ok(()) } else { Err(StatusCode::FORBIDDEN) }
    }
}

impl Access {
    /// Whether a request may do what an administrator does. It needs the admin token, from this
    /// machine too, and in its header: a page that the hub does not know can have a browser send a
    /// query.
    ///
    /// # Errors
    ///
    /// 401 if the token is missing or wrong, 403 if there is no admin token.
    pub(crate) fn act(&self, request: &Request<()>) -> Result<(), StatusCode> {
        let secret = &self.secrets.admin_token;
        if secret.is_none() {
            return Err(StatusCode::FORBIDDEN);
        }
        let valid = bearer(request.headers()).is_some_and(|shown| is(secret, &shown));
        if valid { Ok(()) } else { Err(StatusCode::UNAUTHORIZED) }
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

/// Whether a page asks that is not of the origin that it asks. Origins and hosts are compared as
/// browsers write them.
fn is_foreign_page(request: &Request<()>) -> bool {
    let headers = request.headers();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    headers.get_all(header::ORIGIN).iter().any(|origin| {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        origin.is_none_or(|(_, authority)| Some(authority) != host)
    })
}

/// The token of a request: from `Authorization: Bearer`, `?token=`, or after [`PROTOCOL`] in
/// `Sec-WebSocket-Protocol`.
fn shown(request: &Request<()>) -> Option<String> {
    let headers = request.headers();
    let behind_protocol = || {
        let names = protocols(headers);
        let nth = names.iter().position(|name| *name == PROTOCOL)?;
        names.get(nth + 1).copied()
    };
    bearer(headers)
        .or_else(|| query_of(request.uri(), "token"))
        .or_else(|| behind_protocol().map(Into::into))
}

/// The token of `Authorization: Bearer`. Any other scheme is for the proxy in front of the hub: a
/// browser that has passed its Basic authentication sends that with each request.
fn bearer(headers: &HeaderMap) -> Option<String> {
    headers.get_all(header::AUTHORIZATION).iter().find_map(|value| {
        let value = String::from_utf8_lossy(value.as_bytes());
        let (scheme, token) = value.split_once(' ').unwrap_or((&value, ""));
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_ascii().to_owned())
    })
}

/// The subprotocol to answer a request with: the first that it offers of the one for tokens and of
/// those that are named.
///
/// What stands behind the one for tokens is a secret. It is never looked at here.
pub(crate) fn answered_protocol(request: &Request<()>, named: &[Arc<str>]) -> Option<Arc<str>> {
    protocols(request.headers()).into_iter().find_map(|offer| match offer {
        PROTOCOL => Some(PROTOCOL.into()),
        _ => named.iter().find(|name| ***name == *offer).cloned(),
    })
}

/// The subprotocols that a request offers.
fn protocols(headers: &HeaderMap) -> Vec<&str> {
    let mut names = Vec::new();
    for value in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        names.extend(value.to_str().unwrap_or_default().split(',').map(str::trim_ascii));
    }
    names
}

/// Whether a token is the secret. Compares their hashes in constant time, so that the time tells
/// nothing about either.
fn is(secret: &Option<Secret>, shown: &str) -> bool {
    let Some(secret) = secret else { return false };
    let mac = |text: &str| {
        Hmac::<Sha256>::new_from_slice(PROTOCOL.as_bytes()).ok().map(|mac| mac.chain_update(text))
    };
    // Each is compared, so that the time does not say which one it was either.
    secret.each().fold(false, |found, secret| {
        let (Some(expected), Some(shown)) = (mac(secret), mac(shown)) else { return found };
        shown.verify(&expected.finalize().into_bytes()).is_ok() | found
    })
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
        Secret::new(text).ok()
    }

    /// The old one and the new one.
    fn two(old: &str, new: &str) -> Option<Secret> {
        let mut secret = secret(old)?;
        assert!(secret.add(self::secret(new)?), "there is a place");
        Some(secret)
    }

    #[test]
    fn while_there_are_two_secrets_both_are_valid() {
        let key = std::str::from_utf8(SECRET).expect("text");
        let other = "another key of at least thirty-two bytes";
        let secrets = Secrets { token: two("old", "new"), ..Secrets::default() };
        let secrets =
            Secrets { admin_token: two("a", "b"), jwt_secret: two(key, other), ..secrets };
        assert!(!secrets.have_short_key());
        assert!(Secrets { jwt_secret: two(key, "short"), ..secrets.clone() }.have_short_key());
        let access = access(secrets);
        let signed = |key: &[u8]| sign(r#"{"alg":"HS256"}"#, r#"{"publish":["*"]}"#, key);
        for (token, status) in [
            ("old", 200),
            ("new", 200),
            ("older", 401),
            ("", 401),
            (&*signed(SECRET), 200),
            (&*signed(other.as_bytes()), 200),
            (&*signed(b"a third key"), 401),
        ] {
            assert_eq!(may(&access, Some(token), "a"), [status, status], "{token:?}");
        }
        for (token, allowed) in [("a", true), ("b", true), ("c", false)] {
            assert_eq!(access.inspect(&bearer(token), &Peer::unix()).is_ok(), allowed, "{token}");
        }
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
        let pass = pass.as_ref().map_err(|_| StatusCode::UNAUTHORIZED);
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
            (&key, r#"{}"#, "a", [200, 403]),
            (&key, r#"{"rooms":["a"]}"#, "a", [200, 403]),
            (&key, r#"{"rooms":["a"],"publish":"a"}"#, "a", [200, 200]),
            (&key, r#"{"rooms":["a"]}"#, "ab", [403, 403]),
            (&key, r#"{"rooms":["a*"],"publish":["a*"]}"#, "ab", [200, 200]),
            (&key, r#"{"rooms":["*"],"publish":["a"]}"#, "b", [200, 403]),
            (&key, r#"{"rooms":[],"publish":["a"]}"#, "a", [403, 200]),
            (&key, r#"{"publish":[]}"#, "a", [200, 403]),
            (&strict, r#"{}"#, "a", [200, 403]),
            (&strict, r#"{"publish":["a"]}"#, "a", [200, 200]),
            (&key, r#"{"exp":995}"#, "a", [401, 401]),
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
        assert!(users(r#"{"publish":["*"]}"#) && users(r#"{"publish":"*"}"#));
        assert!(!users("{}") && !users(r#"{"publish":["a*"]}"#));
        let token = sign(r#"{"alg":"HS256"}"#, r#"{"sub":"ada","exp":1001}"#, SECRET);
        let pass = access.pass(&bearer(&token), NOW).expect("valid");
        assert_eq!((pass.user.as_deref(), pass.until), (Some("ada"), Some(1001 + LEEWAY)));
    }

    #[test]
    fn a_token_for_another_service_is_refused() {
        let open = Secrets {
            jwt_secret: secret(std::str::from_utf8(SECRET).expect("text")),
            ..Secrets::default()
        };
        let named = Secrets { jwt_audience: Some("hub".into()), ..open.clone() };
        for (secrets, claims, refused) in [
            (&open, "{}", None),
            (&open, r#"{"aud":"hub"}"#, Some("the claim aud needs a hub with --jwt-audience")),
            (&named, "{}", Some("the claim aud is missing")),
            (&named, r#"{"aud":"hub"}"#, None),
            (&named, r#"{"aud":["api","hub"]}"#, None),
            (&named, r#"{"aud":"hubs"}"#, Some("the claim aud does not name this hub")),
            (&named, r#"{"aud":[]}"#, Some("the claim aud does not name this hub")),
        ] {
            let token = sign(r#"{"alg":"HS256"}"#, claims, SECRET);
            let pass = access(secrets.clone()).pass(&bearer(&token), NOW);
            assert_eq!(pass.err(), refused, "{claims}");
        }
    }

    #[test]
    fn token_is_read_from_header_query_and_subprotocol() {
        for (uri, headers, token) in [
            ("/", &[("authorization", "Bearer a.b-c")][..], Some("a.b-c")),
            ("/", &[("authorization", "bearer  a")], Some("a")),
            ("/", &[("authorization", "Bearer")], Some("")),
            ("/", &[("authorization", "Basic YTpi")], None),
            ("/?token=query", &[("authorization", "Basic YTpi")], Some("query")),
            (
                "/",
                &[("authorization", "Basic YTpi"), ("sec-websocket-protocol", "hublet.token, s")],
                Some("s"),
            ),
            ("/?token=query", &[("authorization", "Digest username=\"a\"")], Some("query")),
            ("/", &[("authorization", "Basic YTpi"), ("authorization", "Bearer b")], Some("b")),
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
    fn the_first_subprotocol_that_is_known_is_answered_and_no_secret() {
        let named = ["chat".into(), "graphql-ws".into(), "sesame".into()];
        for (offers, answered) in [
            (&["chat"][..], Some("chat")),
            (&["mqtt", "graphql-ws, chat"], Some("graphql-ws")),
            (&["hublet.token, sesame"], Some("hublet.token")),
            (&["hublet.token", "sesame, chat"], Some("hublet.token")),
            (&["chat, hublet.token, sesame"], Some("chat")),
            (&["mqtt"], None),
            (&["Chat"], None),
            (&[], None),
        ] {
            let headers: Vec<_> =
                offers.iter().map(|offer| ("sec-websocket-protocol", *offer)).collect();
            let answer = answered_protocol(&request("/ws", &headers), &named);
            assert_eq!(answer.as_deref(), answered, "{offers:?}");
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
    fn a_refusal_says_what_is_wrong_and_no_value_of_the_token() {
        let key = secret(std::str::from_utf8(SECRET).expect("text"));
        let access = access(Secrets { jwt_secret: key, ..Secrets::default() });
        let reason = |path: &str, token: &str, status: StatusCode| {
            let header = format!("Bearer {token}");
            let request = request(path, &[("authorization", &header)]);
            access.reason(&request, status, NOW).unwrap_or("none")
        };
        let (wrong, forbidden) = (StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN);
        for (claims, sentence) in [
            (r#"{"sub":42}"#, "the claim sub must be a string, given once"),
            (r#"{"sub":""}"#, "the claim sub must have 1 to 128 bytes and no control characters"),
            (r#"{"nbf":1006}"#, "the claim nbf is in the future"),
            (r#"{"exp":995}"#, "the claim exp is in the past"),
            (r#"{"exp":1.9e9}"#, "none"),
        ] {
            let token = sign(r#"{"alg":"HS256"}"#, claims, SECRET);
            assert_eq!(reason("/ws/a", &token, wrong), sentence, "{claims}");
        }
        let malformed = "the token is not a JSON Web Token";
        assert_eq!(reason("/ws/a", "sesame", wrong), malformed);
        assert_eq!(reason("/rooms", "sesame", wrong), "the token is wrong");
        assert_eq!(
            access.reason(&request("/ws/a", &[]), wrong, NOW),
            None,
            "a request without a token hears of the scheme alone (RFC 6750 3.1)"
        );
        let token = sign(r#"{"alg":"HS256"}"#, "{}", SECRET);
        for (path, sentence) in [
            ("/ws/a", "the token does not allow to subscribe to this room"),
            (
                "/pub/a",
                "the token does not allow to publish here (a JSON Web Token does by publish)",
            ),
            (
                "/user/ada",
                "the token does not allow to publish here (a JSON Web Token does by publish)",
            ),
            ("/rooms", "without --admin-token only programs on this machine may ask for this"),
        ] {
            assert_eq!(reason(path, &token, forbidden), sentence);
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let secrets =
            Secrets { token: secret("hush"), jwt_secret: secret("hush"), ..Secrets::default() };
        assert!(!format!("{secrets:?} {:?}", access(secrets.clone())).contains("hush"));
    }
}
