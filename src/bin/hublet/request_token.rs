//! The token that a request shows, and the subprotocol that answers it.

use std::sync::Arc;

use hublet::http::{HeaderMap, Request, header};
use hublet::query_of;

/// The subprotocol before the token of a browser's WebSocket. The hub answers with it.
pub(crate) const PROTOCOL: &str = "hublet.token";

/// The token of a request: from `Authorization: Bearer`, `?token=`, or after [`PROTOCOL`] in
/// `Sec-WebSocket-Protocol`.
pub(crate) fn shown(request: &Request<()>) -> Option<String> {
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
pub(crate) fn bearer(headers: &HeaderMap) -> Option<String> {
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn request(uri: &str, headers: &[(&'static str, &str)]) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = uri.parse().expect("a target");
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().expect("a value"));
        }
        request
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
}
