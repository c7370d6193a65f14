//! The address of a client behind a proxy.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use http::header::HeaderName;

use crate::http1::fields::tokens;
use crate::network::Network;
use crate::peer::Peer;

pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the client: the one that a trusted proxy names, else the peer itself.
///
/// Each proxy appends the address that its request came from, so the last that is no trusted proxy's
/// is the client's; what stands before it any peer may have written.
pub(crate) fn client_address(peer: &Peer, headers: &HeaderMap, trusted: &[Network]) -> Peer {
    let mut client_address = *peer;
    if trusted.is_empty() {
        return client_address;
    }
    let mut hops: Vec<_> = tokens(headers, &FORWARDED_FOR).collect();
    while trusted.iter().any(|network| client_address.is_in(network)) {
        let Some(address) = hops.pop().and_then(hop) else { break };
        client_address = Peer::forwarded(address);
    }
    client_address
}

/// The address of an element of `X-Forwarded-For`, which some write with its port.
fn hop(text: &str) -> Option<IpAddr> {
    let socket = || text.parse().map(|socket: SocketAddr| socket.ip());
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().or_else(|_| socket()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_last_that_no_trusted_proxy_vouches_for() {
        let trusted = ["10.0.0.0/8", "unix"].map(|network| network.parse().expect("a network"));
        let proxy = Peer::from(SocketAddr::from(([10, 0, 0, 1], 5000)));
        for (peer, forwarded, expected) in [
            (proxy, &["203.0.113.9"][..], "203.0.113.9"),
            (proxy, &["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
            (proxy, &["1.1.1.1", "203.0.113.9, 10.0.0.2"], "203.0.113.9"),
            (proxy, &["[2001:db8::1]:443"], "2001:db8::1"),
            (proxy, &["2001:db8::1"], "2001:db8::1"),
            (proxy, &["203.0.113.9:443"], "203.0.113.9"),
            (proxy, &["203.0.113.9, unknown"], "10.0.0.1:5000"),
            (proxy, &["10.0.0.3"], "10.0.0.3"),
            (proxy, &[], "10.0.0.1:5000"),
            (Peer::unix(), &["203.0.113.9"], "203.0.113.9"),
            (Peer::from(SocketAddr::from(([192, 0, 2, 1], 7))), &["1.1.1.1"], "192.0.2.1:7"),
        ] {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append(FORWARDED_FOR, value.parse().expect("a value"));
            }
            let client_address = client_address(&peer, &headers, &trusted);
            assert_eq!(client_address.to_string(), expected, "{peer} {forwarded:?}");
        }
    }
}
