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
        Self(Source::Forwarded(address))
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

    /// Returns whether the peer is on this machine: a loopback address or a Unix socket.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let loopback = |address: SocketAddr| address.ip().to_canonical().is_loopback();
        self.0 == Source::Unix || self.address().is_some_and(loopback)
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
        Some(if address.to_canonical().is_ipv4() { bits } else { bits >> 64 << 64 })
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self(Source::Address(address))
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
