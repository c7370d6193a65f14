//! The origin of a connection: address, Unix socket, or unknown.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::network::{Network, to_bits};

/// Where a connection comes from: an address, a Unix socket, or unknown.
///
/// # Examples
///
/// ```
/// use std::net::SocketAddr;
/// use hublet::Peer;
///
/// let address: SocketAddr = "192.0.2.1:5000".parse().expect("an address");
/// assert_eq!(Peer::from(address).address(), Some(address));
/// assert_eq!(Peer::unknown().address(), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(Source);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Address(SocketAddr),
    /// The address that a trusted proxy reported.
    Forwarded(IpAddr),
    Unix,
    Unknown,
}

impl Peer {
    /// Makes a peer behind a Unix socket; no limit per address counts it.
    #[must_use]
    pub fn unix() -> Self {
        Self(Source::Unix)
    }

    /// Makes a peer without an address, for example behind a pipe. No limit per address counts it.
    #[must_use]
    pub fn unknown() -> Self {
        Self(Source::Unknown)
    }

    /// A peer behind a proxy.
    pub(crate) fn forwarded(address: IpAddr) -> Self {
        Self(Source::Forwarded(address.to_canonical()))
    }

    /// Returns the peer's TCP address, if it has one. The port is 0 if a proxy of
    /// [`Config::trusted_proxies`](crate::Config::trusted_proxies) reported the address.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self.0 {
            Source::Address(address) => Some(address),
            Source::Forwarded(address) => Some(SocketAddr::new(address, 0)),
            Source::Unix | Source::Unknown => None,
        }
    }

    /// Returns whether the peer is local: a loopback address or a Unix socket.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let loopback = |address: SocketAddr| address.ip().is_loopback();
        self.0 == Source::Unix || self.address().is_some_and(loopback)
    }

    /// The octets of an IPv4 address and the port, unless a proxy reported the address.
    pub(crate) fn ipv4(&self) -> Option<([u8; 4], u16)> {
        match self.0 {
            Source::Address(SocketAddr::V4(address)) => {
                Some((address.ip().octets(), address.port()))
            }
            _ => None,
        }
    }

    /// Whether the peer's address belongs to a network.
    pub(crate) fn is_in(&self, network: &Network) -> bool {
        match self.address() {
            Some(address) => network.contains(address.ip()),
            None => self.0 == Source::Unix && network.is_unix(),
        }
    }

    /// The network that the limit per address counts: an IPv4 address, or the /64 of an IPv6
    /// address, since one host usually owns a whole /64. `None` without an address: no limit.
    pub(crate) fn network(&self) -> Option<u128> {
        let address = self.address()?.ip();
        let bits = to_bits(address);
        Some(if address.is_ipv4() { bits } else { bits >> 64 << 64 })
    }
}

/// An IPv4 address that is written as IPv6 (`::ffff:192.0.2.1`), as a socket for both has it, becomes
/// IPv4, so that hooks, limits and the log see one address for one host.
impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self(Source::Address(match address.ip().to_canonical() {
            IpAddr::V4(v4) => SocketAddr::from((v4, address.port())),
            IpAddr::V6(_) => address,
        }))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Source::Address(address) => address.fmt(f),
            Source::Forwarded(address) => address.fmt(f),
            Source::Unix => f.write_str("unix"),
            Source::Unknown => f.write_str("unknown"),
        }
    }
}

impl Peer {
    /// Reads what [`Display`](fmt::Display) writes.
    pub(crate) fn of(text: &str) -> Option<Self> {
        match text {
            "unix" => Some(Self::unix()),
            "unknown" => Some(Self::unknown()),
            text => match text.parse::<SocketAddr>() {
                Ok(address) => Some(Self::from(address)),
                Err(_) => text.parse().ok().map(Self::forwarded),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What accept(2) gives for `[::]:8080` when an IPv4 host connects, and what proxies forward.
    #[test]
    fn an_ipv4_host_has_one_address() {
        let mapped: SocketAddr = "[::ffff:192.0.2.7]:5000".parse().expect("an address");
        let plain: SocketAddr = "192.0.2.7:5000".parse().expect("an address");
        let peer = Peer::from(mapped);
        assert_eq!((peer, peer.to_string()), (Peer::from(plain), "192.0.2.7:5000".to_owned()));
        assert_eq!(Peer::forwarded(mapped.ip()), Peer::forwarded(plain.ip()));
        assert_eq!(peer.network(), Peer::forwarded(plain.ip()).network());
        for network in ["192.0.2.0/24", "192.0.2.7", "0.0.0.0/0"] {
            assert!(peer.is_in(&network.parse().expect("a network")), "{network}");
        }
        let loopback: SocketAddr = "[::ffff:127.0.0.1]:1".parse().expect("an address");
        assert!(Peer::from(loopback).is_local());
        let v6: SocketAddr = "[fe80::1%3]:80".parse().expect("an address");
        assert_eq!(Peer::from(v6).address(), Some(v6), "with its zone");
    }

    #[test]
    fn what_is_written_of_a_peer_is_read_back() {
        for text in ["192.0.2.7:5000", "192.0.2.7", "[fe80::1%3]:80", "2001:db8::1", "unix"] {
            let peer = Peer::of(text).expect(text);
            assert_eq!(
                (peer.to_string().as_str(), Peer::of(&peer.to_string())),
                (text, Some(peer))
            );
        }
        assert_eq!((Peer::of("unknown"), Peer::of("elsewhere")), (Some(Peer::unknown()), None));
    }

    #[test]
    fn a_network_is_a_v4_address_or_a_v6_64() {
        let network =
            |text: &str| Peer::from(SocketAddr::new(text.parse().expect(text), 1)).network();
        assert_eq!(network("192.0.2.1"), network("::ffff:192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(Peer::unix().network(), None);
    }
}
