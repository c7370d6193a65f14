//! A set of peers by address: one address, a prefix, or all Unix sockets.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::error::Error;

/// A set of peers by address: `192.0.2.1`, `10.0.0.0/8`, `2001:db8::/32`, or `unix`.
///
/// # Examples
///
/// ```
/// use hublet::Network;
///
/// let network: Network = "10.0.0.0/8".parse().expect("a network");
/// assert!(network.contains("10.1.2.3".parse().expect("an address")));
/// assert!(!network.contains("11.1.2.3".parse().expect("an address")));
/// assert!("10.0.0.0/33".parse::<Network>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The addresses that have their first `len` bits in common with `bits`, as IPv6.
    Prefix { bits: u128, len: u32 },
    /// The peers of Unix sockets.
    Unix,
}

impl Network {
    /// Returns whether the network contains an address. An IPv4 address may be written as IPv6.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match self.0 {
            Kind::Prefix { bits, len } => len == 0 || (bits ^ to_bits(address)) >> (128 - len) == 0,
            Kind::Unix => false,
        }
    }

    /// Returns whether the network is that of Unix sockets.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        self.0 == Kind::Unix
    }
}

/// The address as IPv6: an IPv4 address is mapped.
pub(crate) fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            if text == "unix" {
                return Some(Self(Kind::Unix));
            }
            let (address, len) = match text.split_once('/') {
                Some((address, len)) => (address, Some(len)),
                None => (text, None),
            };
            let address: IpAddr = address.parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let len = len.map_or(Some(most), |len| len.parse().ok().filter(|len| *len <= most))?;
            Some(Self(Kind::Prefix { bits: to_bits(address), len: 128 - most + len }))
        };
        parse().ok_or_else(|| {
            Error::config(format!("{text:?} is not an address, a network like 10.0.0.0/8 or unix"))
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Prefix { bits, len } => {
                let v6 = std::net::Ipv6Addr::from_bits(bits);
                match v6.to_ipv4_mapped().filter(|_| len >= 96) {
                    Some(v4) => write!(f, "{v4}/{}", len - 96),
                    None => write!(f, "{v6}/{len}"),
                }
            }
            Kind::Unix => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_prefix_and_no_more() {
        for (network, address, inside) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "203.0.113.9", true),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("unix", "127.0.0.1", false),
        ] {
            let network: Network = network.parse().expect(network);
            assert_eq!(network.contains(address.parse().expect(address)), inside, "{network}");
        }
    }
    #[test]
    fn invalid_networks_are_refused() {
        for text in ["", "localhost", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0.0/", "/8"] {
            let error = text.parse::<Network>().expect_err(text);
            assert!(error.is_config());
        }
    }
}
