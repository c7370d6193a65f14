//! Tokens: which requests are allowed, and until when.
//!
//! This is the policy of the binary. A program that embeds the hub has users of its own.

use hublet::http::{Method, Request, StatusCode, header};
use hublet::{Peer, is_local, is_name, query_of};

use crate::grant::{Grant, Rooms};
use crate::jwt::{Claims, Invalid, Key, LEEWAY};
use crate::request_token::{bearer, shown};
use crate::secret::{Secrets, is};

/// The answer to a token that is not one of the secrets.
const WRONG: Invalid = "the token is wrong";

/// Decides what requests may do.
#[derive(Debug)]
pub(crate) struct Access {
    secrets: Secrets,
    key: Option<Key>,
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
    pub(crate) fn grant(&self, request: &Request<()>, now: u64) -> Result<Grant, Invalid> {
        let Secrets { token, publish_token, .. } = &self.secrets;
        let by_token = |listen, send| Grant { user: None, until: None, listen, send, shown: true };
        let guards_listening = self.secrets.guard_listening();
        let Some(shown) = shown(request) else {
            let send = Rooms::if_so(!guards_listening && publish_token.is_none());
            return Ok(Grant { shown: false, ..by_token(Rooms::if_so(!guards_listening), send) });
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
        Ok(Self::grant_of(claims))
    }

    /// Whether a request shows the publish or the admin token, so that no rate limits it.
    pub(crate) fn has_no_rate(&self, request: &Request<()>) -> bool {
        let Secrets { publish_token, admin_token, .. } = &self.secrets;
        shown(request).is_some_and(|shown| is(publish_token, &shown) || is(admin_token, &shown))
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
        let is_admin = is_under(&["/metrics", "/rooms", "/events"]);
        let is_act = path == "/all" || request.method() == Method::DELETE;
        match status {
            StatusCode::UNAUTHORIZED if is_act && bearer(request.headers()).is_none() => {
                shown(request).map(|_| "the admin token has to be in the header Authorization")
            }
            StatusCode::UNAUTHORIZED if is_act => Some(WRONG),
            StatusCode::FORBIDDEN if is_act => Some("this needs a hub with --admin-token"),
            StatusCode::UNAUTHORIZED if is_admin => shown(request).map(|_| WRONG),
            StatusCode::UNAUTHORIZED => self.grant(request, now).err(),
            StatusCode::FORBIDDEN if is_admin => {
                Some("without --admin-token this answers loopback only")
            }
            // GET and HEAD of /pub read what the room keeps, which takes the right to subscribe.
            StatusCode::FORBIDDEN
                if is_under(&["/pub", "/user"])
                    && ![Method::GET, Method::HEAD].contains(request.method()) =>
            {
                Some("the token does not allow to publish here (a JSON Web Token does by publish)")
            }
            StatusCode::FORBIDDEN if query_of(request.uri(), "room").is_some() => {
                Some("the token does not allow to subscribe to each of these rooms and prefixes")
            }
            StatusCode::FORBIDDEN => Some("the token does not allow to subscribe to this room"),
            _ => None,
        }
    }

    /// What a JSON Web Token allows. Without a claim for subscribing it allows all rooms. Without a
    /// claim for publishing it allows none: the key may sign for another application too, and a
    /// token for a visitor must not allow messages to all other visitors by an omission.
    fn grant_of(claims: Claims) -> Grant {
        let listen = claims.rooms.map_or(Rooms::All, Rooms::These);
        let send = claims.publish.map_or(Rooms::none(), Rooms::These);
        let until = claims.exp.map(|exp| exp.saturating_add(LEEWAY));
        Grant { user: claims.sub, until, listen, send, shown: true }
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

/// Whether the request is that of a page of another origin. Origins and hosts are compared as browsers
/// write them.
fn is_foreign_page(request: &Request<()>) -> bool {
    let headers = request.headers();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    headers.get_all(header::ORIGIN).iter().any(|origin| {
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        origin.is_none_or(|(_, authority)| Some(authority) != host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwt::tests::{SECRET, sign};
    use crate::request_token::tests::request;
    use crate::secret::Secret;

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

    fn bearer(token: &str) -> Request<()> {
        request("/", &[("authorization", &format!("Bearer {token}"))])
    }

    /// The statuses for subscribing and publishing; 200 if it is allowed.
    fn may(access: &Access, token: Option<&str>, room: &str) -> [u16; 2] {
        let request = token.map_or_else(|| request("/", &[]), bearer);
        let status =
            |outcome: Result<(), StatusCode>| outcome.map_or_else(|s| s.as_u16(), |()| 200);
        let grant = access.grant(&request, NOW);
        let grant = grant.as_ref().map_err(|_| StatusCode::UNAUTHORIZED);
        [
            status(grant.and_then(|p| p.listens_to(room))),
            status(grant.and_then(|p| p.sends_to(room))),
        ]
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
            access.grant(&bearer(&token), NOW).expect("valid").sends_to_users().is_ok()
        };
        assert!(users(r#"{"publish":["*"]}"#) && users(r#"{"publish":"*"}"#));
        assert!(!users("{}") && !users(r#"{"publish":["a*"]}"#));
        let token = sign(r#"{"alg":"HS256"}"#, r#"{"sub":"ada","exp":1001}"#, SECRET);
        let grant = access.grant(&bearer(&token), NOW).expect("valid");
        assert_eq!((grant.user.as_deref(), grant.until), (Some("ada"), Some(1001 + LEEWAY)));
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
            let grant = access(secrets.clone()).grant(&bearer(&token), NOW);
            assert_eq!(grant.err(), refused, "{claims}");
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
            let (method, path) = path.split_once(' ').unwrap_or(("GET", path));
            let mut request = request(path, &[("authorization", &header)]);
            *request.method_mut() = method.parse().expect("a method");
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
        for path in ["/rooms", "/rooms/news", "/metrics", "/events", "DELETE /user/ada"] {
            assert_eq!(reason(path, "sesame", wrong), "the token is wrong", "{path}");
        }
        assert_eq!(
            access.reason(&request("/ws/a", &[]), wrong, NOW),
            None,
            "a request without a token hears of the scheme alone (RFC 6750 3.1)"
        );
        let token = sign(r#"{"alg":"HS256"}"#, "{}", SECRET);
        let subscribes = "the token does not allow to subscribe to this room";
        let publishes =
            "the token does not allow to publish here (a JSON Web Token does by publish)";
        let inspects = "without --admin-token this answers loopback only";
        for (path, sentence) in [
            ("/ws/a", subscribes),
            ("/sse/a", subscribes),
            ("/pub/a", subscribes),
            ("HEAD /pub/a", subscribes),
            ("POST /pub/a", publishes),
            ("PUT /pub/a", publishes),
            ("POST /user/ada", publishes),
            ("/rooms", inspects),
            ("/metrics", inspects),
            ("/events", inspects),
            ("POST /all", "this needs a hub with --admin-token"),
        ] {
            assert_eq!(reason(path, &token, forbidden), sentence, "{path}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let secrets =
            Secrets { token: secret("hush"), jwt_secret: secret("hush"), ..Secrets::default() };
        assert!(!format!("{secrets:?} {:?}", access(secrets.clone())).contains("hush"));
    }
}
