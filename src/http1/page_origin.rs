//! The origin of a page, as its browser, or a client that is none, writes it.

use std::fmt;

/// An origin as clients send it, its default port filled in (RFC 6454 section 4).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PageOrigin {
    /// `null` for the origin of that name.
    scheme: String,
    /// Empty where the scheme has none.
    host: String,
    port: Option<u16>,
}

impl PageOrigin {
    /// Reads an origin, also one with a path, which counts for nothing: libraries for
    /// microcontrollers send their home page, `https://github.com/gilmaimon/TinyWebsockets`.
    pub(crate) fn parse(origin: &str) -> Option<Self> {
        if origin == "null" {
            return Some(Self { scheme: origin.to_owned(), host: String::new(), port: None });
        }
        let (scheme, rest) = origin.split_once(':')?;
        let rest = rest.strip_prefix("//")?;
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if scheme.is_empty() || !scheme.bytes().all(is_scheme) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let has_no_host = authority.is_empty() && default_port(&scheme).is_none();
        if scheme == "file" || has_no_host {
            // A file's page has no host; some name the one that it lies on. Schemes of an application
            // may have none either: `qrc://`.
            return Some(Self { scheme, host: String::new(), port: None });
        }
        let (host, port) = split_port(authority)?;
        let port = port.or_else(|| default_port(&scheme));
        Some(Self { scheme, host: host.to_ascii_lowercase(), port })
    }

    /// Whether many pages that have nothing to do with each other share it: each sandboxed frame
    /// is `null`, and each page that was saved to a disk `file://`.
    pub(crate) fn is_shared(&self) -> bool {
        self.host.is_empty()
    }

    /// Whether this is the origin of the server that was asked for as `host`. TLS may end in front
    /// of the hub, so any scheme of the web will do.
    pub(crate) fn is_at(&self, host: &str) -> bool {
        let default = default_port(&self.scheme);
        let Some((host, port)) = split_port(host).filter(|_| default.is_some()) else {
            return false;
        };
        self.host.eq_ignore_ascii_case(host) && self.port == port.or(default)
    }
}

impl fmt::Display for PageOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scheme == "null" && self.is_shared() {
            return f.write_str("null");
        }
        write!(f, "{}://{}", self.scheme, self.host)?;
        match (self.port, default_port(&self.scheme)) {
            (Some(port), default) if default != Some(port) => write!(f, ":{port}"),
            _ => Ok(()),
        }
    }
}

/// The port of an origin that names none.
fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// Splits `host:port`, `[v6]:port` or either without a port; `None` if it is neither.
pub(crate) fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let after_host = if authority.starts_with('[') { authority.find(']')? + 1 } else { 0 };
    let (host, port) = match authority[after_host..].find(':') {
        Some(colon) => {
            let (host, port) = authority.split_at(after_host + colon);
            (host, Some(port[1..].parse().ok()?))
        }
        None => (authority, None),
    };
    let plain = !host.is_empty() && !host.contains(['/', '\\', '?', '#', '@', ' ']);
    let bracketed = after_host == 0 || after_host == host.len();
    (plain && bracketed).then_some((host, port))
}
