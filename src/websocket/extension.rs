//! The negotiation of `permessage-deflate` (RFC 7692 7), as plain data.
//!
//! The hub keeps nothing from message to message, and demands the same of clients. So a compressed
//! frame is the same for all of them.

use http::header::{HeaderMap, SEC_WEBSOCKET_EXTENSIONS};

use crate::deflate::compressor::WINDOW_BITS;
use crate::http1::fields::tokens;
use crate::message::Encoding;

/// The name of the extension.
const NAME: &str = "permessage-deflate";

/// Offers that the hub looks at in one request: clients make one or two.
const OFFERS_MAX: usize = 16;

/// What a client and the hub have agreed on: either may compress its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreement {
    /// Bits of the window that the client allows the hub, if it limits that.
    server_bits: Option<u8>,
}

impl Agreement {
    /// Accepts the first offer that the hub can keep to, if there is one.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        tokens(headers, &SEC_WEBSOCKET_EXTENSIONS).take(OFFERS_MAX).find_map(Self::accept)
    }

    /// Accepts an offer. One with a parameter that is unknown, invalid or repeated is declined, as
    /// RFC 7692 7.1 says.
    fn accept(offer: &str) -> Option<Self> {
        let mut parts = offer.split(';').map(str::trim_ascii);
        parts.next().filter(|name| *name == NAME)?;
        let mut seen = [false; 4];
        let mut server_bits = None;
        for part in parts {
            let (name, value) = part.split_once('=').map_or((part, None), |(name, value)| {
                (name.trim_ascii_end(), Some(unquoted(value.trim_ascii_start())))
            });
            let which = match (name, value) {
                ("server_no_context_takeover", None) => 0,
                ("client_no_context_takeover", None) => 1,
                ("server_max_window_bits", Some(value)) => {
                    server_bits = Some(window_bits(value)?);
                    2
                }
                // The client can limit its window. What it sends is inflated whatever its window.
                ("client_max_window_bits", None) => 3,
                ("client_max_window_bits", Some(value)) => {
                    window_bits(value)?;
                    3
                }
                _ => return None,
            };
            if std::mem::replace(&mut seen[which], true) {
                return None;
            }
        }
        Some(Self { server_bits })
    }

    /// What the client's frames are written in. A client that allows only a smaller window than the
    /// hub compresses with gets plain frames, which the extension allows (RFC 7692 6).
    pub(crate) fn encoding(self) -> Encoding {
        match self.server_bits {
            Some(..WINDOW_BITS) => Encoding::Plain,
            _ => Encoding::Deflate,
        }
    }

    /// The answer: the value of `Sec-WebSocket-Extensions`.
    pub(crate) fn answer(self) -> String {
        let always = format!("{NAME}; server_no_context_takeover; client_no_context_takeover");
        match self.server_bits {
            Some(bits) => format!("{always}; server_max_window_bits={}", bits.min(WINDOW_BITS)),
            None => always,
        }
    }
}

/// A value without the quotes that it may have (RFC 6455 9.1).
fn unquoted(value: &str) -> &str {
    let inside = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    inside.unwrap_or(value)
}

/// The bits of a window: 8 to 15, without a leading zero (RFC 7692 7.1.2).
fn window_bits(value: &str) -> Option<u8> {
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
    value.parse().ok().filter(|bits| is_number && (8..=15).contains(bits))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The answer to offers in one header or several, and whether the client gets compressed frames.
    fn answered(offers: &[&str]) -> Option<(String, bool)> {
        let mut headers = HeaderMap::new();
        for offer in offers {
            headers.append(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_str(offer).expect("text"));
        }
        let agreement = Agreement::of(&headers)?;
        Some((agreement.answer(), agreement.encoding() == Encoding::Deflate))
    }
    const ALWAYS: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    #[test]
    fn what_clients_offer_is_accepted() {
        for (client, offer) in [
            ("Chromium, npm ws", "permessage-deflate; client_max_window_bits"),
            ("Firefox, Safari, Tyrus, OkHttp", "permessage-deflate"),
            (
                "libwebsockets",
                "permessage-deflate; client_no_context_takeover; client_max_window_bits",
            ),
            (
                "Java-WebSocket",
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            ),
            ("Jetty", "permessage-deflate;client_max_window_bits=15"),
            (
                ".NET without takeover",
                "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
            ),
            (
                "gorilla",
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            ),
            ("quoted", "permessage-deflate; client_max_window_bits=\"10\""),
            ("spaces", " permessage-deflate ;  client_max_window_bits = 9 "),
            ("an older one before it", "x-webkit-deflate-frame, permessage-deflate"),
            (
                "another extension",
                "permessage-bzip2; x=\"1\", permessage-deflate; client_max_window_bits=8",
            ),
        ] {
            assert_eq!(answered(&[offer]), Some((ALWAYS.to_owned(), true)), "{client}");
        }
        let apart = ["x-webkit-deflate-frame", "permessage-deflate; client_max_window_bits"];
        assert_eq!(answered(&apart), Some((ALWAYS.to_owned(), true)), "two headers");
    }
    #[test]
    fn a_window_that_a_client_allows_is_answered_with_what_the_hub_uses_at_most() {
        for (offered, answered_with, is_compressed) in [
            (8, 8, false),
            (9, 9, false),
            (11, 11, false),
            (12, 12, true),
            (13, 12, true),
            (15, 12, true),
        ] {
            // Python's websockets with 12, .NET with 15.
            let offer = format!(
                "permessage-deflate; server_max_window_bits={offered}; client_max_window_bits=12"
            );
            let expected = format!("{ALWAYS}; server_max_window_bits={answered_with}");
            assert_eq!(answered(&[&offer]), Some((expected, is_compressed)), "{offered}");
        }
    }
    #[test]
    fn an_offer_that_breaks_a_rule_is_declined_and_the_next_one_looked_at() {
        for wrong in [
            "",
            "deflate",
            "Permessage-deflate-x",
            "permessage-deflate; unknown",
            "permessage-deflate;",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover=\"\"",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=08",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; server_max_window_bits=9.0",
            "permessage-deflate; client_max_window_bits=0",
            "permessage-deflate; client_max_window_bits=1000",
            "permessage-deflate; client_max_window_bits=\"9",
        ] {
            assert_eq!(answered(&[wrong]), None, "{wrong}");
            let next = format!("{wrong}, permessage-deflate");
            assert_eq!(answered(&[&next]), Some((ALWAYS.to_owned(), true)), "{next}");
        }
        assert_eq!(answered(&[]), None);
        let many = vec!["x"; OFFERS_MAX].join(", ") + ", permessage-deflate";
        assert_eq!(answered(&[&many]), None, "more than any client makes");
    }
}
