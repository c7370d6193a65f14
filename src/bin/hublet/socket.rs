//! Binds the addresses of `--listen`.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
#[cfg(unix)]
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
#[cfg(unix)]
use std::time::Duration;

use hublet::{Error, Listener};

use crate::failure::Failure;
use crate::unix_address::UnixAddress;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A port on all interfaces, IPv6 and IPv4.
    Port(u16),
    /// A Unix socket.
    Unix(UnixAddress),
    /// A TCP address that speaks no TLS.
    #[cfg(feature = "tls")]
    Plain(Box<Self>),
}

/// What stands before a TCP address that speaks no TLS.
#[cfg(feature = "tls")]
const PLAIN: &str = "plain:";

/// How long a process that listens on a Unix socket may take to accept, where this one wants to listen.
#[cfg(unix)]
const ACCEPT_MAX: Duration = Duration::from_secs(2);

/// What `--listen` takes.
const ADDRESSES: &str = "a port like 8080 (loopback), an address and port like 127.0.0.1:8080, a \
                         port like :8080 (all interfaces), or unix: and a path without a comma";

impl FromStr for Address {
    /// What is allowed instead.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(unix) = text.strip_prefix("unix:").filter(|_| cfg!(unix)) {
            return unix.parse().map(Self::Unix);
        }
        #[cfg(feature = "tls")]
        if let Some(text) = text.strip_prefix(PLAIN) {
            return match text.parse()? {
                tcp @ (Self::Tcp(_) | Self::Port(_)) => Ok(Self::Plain(Box::new(tcp))),
                _ => Err("plain: and a TCP address, like plain:127.0.0.1:8080".to_owned()),
            };
        }
        if let Some(port) = text.strip_prefix(':') {
            return port.parse().map(Self::Port).map_err(|_| ADDRESSES.to_owned());
        }
        // Not resolved: IPv4 loopback is what every machine has, and what the default is.
        let port = text.strip_prefix("localhost:").unwrap_or(text);
        if let Ok(port) = port.parse() {
            return Ok(Self::Tcp((Ipv4Addr::LOCALHOST, port).into()));
        }
        let address = text.parse().ok().or_else(|| in_zone(text));
        address.map(Self::Tcp).ok_or_else(|| ADDRESSES.to_owned())
    }
}

/// Reads a link-local address with the name of an interface for its zone: `[fe80::1%eth0]:8080`, or
/// `[fe80::1%25eth0]:8080` as in a URL (RFC 6874). The standard library knows zones by their number
/// only.
fn in_zone(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.strip_prefix('[')?.rsplit_once(']')?;
    let port = port.strip_prefix(':')?;
    let (address, zone) = address.split_once('%').filter(|(_, zone)| !zone.contains('/'))?;
    // Linux lists them here; elsewhere the number has to be given.
    let index = |zone: &str| std::fs::read_to_string(format!("/sys/class/net/{zone}/ifindex")).ok();
    let index = index(zone).or_else(|| index(zone.strip_prefix("25")?))?;
    let index = index.trim_ascii().parse().ok()?;
    Some(SocketAddrV6::new(address.parse().ok()?, port.parse().ok()?, 0, index).into())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Port(port) => write!(f, ":{port}"),
            Self::Unix(unix) => write!(f, "unix:{}", unix.path.display()),
            #[cfg(feature = "tls")]
            Self::Plain(address) => write!(f, "{PLAIN}{address}"),
        }
    }
}

/// The file of a Unix socket. Dropping this removes the file, unless another has replaced it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    pub(crate) path: PathBuf,
    pub(crate) identity: Option<Identity>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            if let Err(error) = std::fs::remove_file(&self.path) {
                ::log::warn!("{} stays behind: {error}", self.path.display());
            }
        }
    }
}

/// A listener, and its socket file if this process made one.
type Bound = (Listener, Option<SocketFile>);

/// A listener that the hub serves.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) listener: Listener,
    pub(crate) file: Option<SocketFile>,
    /// The address that made it; empty for one that a supervisor passed.
    pub(crate) address: String,
}

/// What a restart hands on of a listener that is served.
#[derive(Debug)]
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "there is no restart"))]
pub(crate) struct Open {
    #[cfg(unix)]
    pub(crate) descriptor: OwnedFd,
    /// What tells another process of it.
    pub(crate) line: String,
}

impl Served {
    fn of((listener, file): Bound, address: String) -> Self {
        Self { listener, file, address }
    }

    /// Has a TCP listener speak TLS, unless its address is plain.
    #[cfg(feature = "tls")]
    pub(crate) fn secured(mut self, tls: Option<&hublet::Tls>) -> Self {
        let is_tcp = self.listener.local_addr().is_some();
        if let Some(tls) = tls.filter(|_| is_tcp && !self.address.starts_with(PLAIN)) {
            self.listener = self.listener.tls(tls);
        }
        self
    }

    /// Takes the listener out, to serve it, and its file.
    pub(crate) fn open(self) -> io::Result<(Listener, Open, Option<SocketFile>)> {
        let identity = self.file.as_ref().and_then(|file| file.identity);
        let (device, inode, seconds, nanos) = identity.unwrap_or_default();
        // A path with a line end is bound anew.
        let address = self.address.replace('\n', "?");
        let open = Open {
            #[cfg(unix)]
            descriptor: self.listener.as_fd().try_clone_to_owned()?,
            line: format!("listener {device} {inode} {seconds} {nanos} {address}\n"),
        };
        Ok((self.listener, open, self.file))
    }
}

/// The address that the hub listens on without `--listen`.
pub(crate) const DEFAULT: Address =
    Address::Tcp(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080)));

/// Takes the sockets that a supervisor passes in and binds `addresses`. Binds the default if there
/// are neither.
pub(crate) fn listen(addresses: &[Address]) -> Result<Vec<Served>, Failure> {
    let passed = handed_over()?;
    let mut served: Vec<_> =
        passed.into_iter().map(|bound| Served::of(bound, String::new())).collect();
    for address in addresses {
        serve(address, &mut served)?;
    }
    if served.is_empty() {
        serve(&DEFAULT, &mut served)?;
    }
    Ok(served)
}

/// Binds an address that is to be served.
pub(crate) fn serve(address: &Address, served: &mut Vec<Served>) -> Result<(), Failure> {
    let mut bound = Vec::new();
    bind(address, &mut bound)?;
    served.extend(bound.into_iter().map(|bound| Served::of(bound, address.to_string())));
    Ok(())
}

/// Takes the sockets that `LISTEN_FDS` counts. The supervisor keeps them open while it restarts the
/// process, so that no connection is refused meanwhile.
#[cfg(unix)]
fn handed_over() -> Result<Vec<Bound>, Failure> {
    let mut bound = Vec::new();
    let mut sockets = listenfd::ListenFd::from_env();
    for nth in 0..sockets.len() {
        let listener = match sockets.take_tcp_listener(nth) {
            Ok(Some(listener)) => Listener::try_from(listener),
            _ => match sockets.take_unix_listener(nth) {
                Ok(Some(listener)) => Listener::try_from(listener),
                Ok(None) => continue,
                Err(error) => Err(error.into()),
            },
        };
        let listener = listener.map_err(|error| {
            let why = cause(&error).map_or_else(|| error.to_string(), ToString::to_string);
            Failure::running(format!(
                "socket {nth} of LISTEN_FDS cannot be listened on: {why}; hand over stream \
                 sockets, with Accept=no"
            ))
        })?;
        bound.push((listener, None));
    }
    Ok(bound)
}

/// This system has no socket activation.
#[cfg(not(unix))]
fn handed_over() -> Result<Vec<Bound>, Failure> {
    Ok(Vec::new())
}

/// Binds an address: one listener, or two.
fn bind(address: &Address, bound: &mut Vec<Bound>) -> Result<(), Failure> {
    let listeners = match address {
        Address::Tcp(address) => Listener::bind(address).map(|listener| vec![listener]),
        Address::Port(port) => bind_everywhere(bind_ipv6, *port),
        #[cfg(feature = "tls")]
        Address::Plain(address) => return bind(address, bound),
        Address::Unix(unix) => {
            bound.push(bind_unix(unix)?);
            return Ok(());
        }
    };
    let listeners = listeners.map_err(|error| cannot(address, &error))?;
    bound.extend(listeners.into_iter().map(|listener| (listener, None)));
    Ok(())
}

/// Binds a port for IPv6 and IPv4: by one socket for both where the system has that, and else by a
/// socket for each. Systems differ in what a socket for IPv6 takes if it is not told. The kernel may
/// also lack IPv6.
fn bind_everywhere(
    bind_ipv6: impl Fn(u16) -> Result<(Listener, bool), Error>,
    port: u16,
) -> Result<Vec<Listener>, Error> {
    let (ipv6, has_both) = match bind_ipv6(port) {
        Ok(bound) => bound,
        Err(error) if is_taken(&error) => return Err(error),
        Err(_) => return Ok(vec![Listener::bind((Ipv4Addr::UNSPECIFIED, port))?]),
    };
    if has_both {
        return Ok(vec![ipv6]);
    }
    // The same port, also where the system has chosen it.
    let port = ipv6.local_addr().map_or(port, |address| address.port());
    Ok(vec![ipv6, Listener::bind((Ipv4Addr::UNSPECIFIED, port))?])
}

/// Binds a port for IPv6, and for IPv4 if the system grants that; returns whether it does. Linux with
/// `net.ipv6.bindv6only=1`, FreeBSD and NetBSD have to be told. OpenBSD refuses.
#[cfg(unix)]
fn bind_ipv6(port: u16) -> Result<(Listener, bool), Error> {
    use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};

    let open = || -> io::Result<(std::os::fd::OwnedFd, bool)> {
        let socket = socket(AddressFamily::INET6, SocketType::STREAM, None)?;
        // Not with a flag: macOS has none.
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
        // As the standard library does, so that a restart need not wait for old connections.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        let has_both = sockopt::set_ipv6_v6only(&socket, false).is_ok();
        bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
        Ok((socket, has_both))
    };
    let (socket, has_both) = open()?;
    // It listens from here on.
    Ok((Listener::try_from(std::net::TcpListener::from(socket))?, has_both))
}

/// Binds a port for IPv6. The standard library has no call to take IPv4 too, and Windows does not
/// unless it is told.
#[cfg(not(unix))]
fn bind_ipv6(port: u16) -> Result<(Listener, bool), Error> {
    Ok((Listener::bind((Ipv6Addr::UNSPECIFIED, port))?, false))
}

#[cfg(unix)]
fn bind_unix(unix: &UnixAddress) -> Result<Bound, Failure> {
    use std::os::unix::fs::FileTypeExt;

    let path = &unix.path;
    let address = Address::Unix(unix.clone());
    match std::fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => match unix.connect(ACCEPT_MAX) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                // Stale: the process that made it has ended without removing it.
                std::fs::remove_file(path).map_err(|error| cannot(&address, &error.into()))?;
            }
            Err(error) if error.kind() != ErrorKind::WouldBlock => {
                return Err(cannot(&address, &error.into()));
            }
            // A process listens, and may be too busy to accept.
            _ => return Err(cannot(&address, &io::Error::from(ErrorKind::AddrInUse).into())),
        },
        Ok(_) => {
            return Err(Failure::running(format!(
                "cannot listen on {address}: a file that is not a socket is there"
            )));
        }
        Err(_) => {}
    }
    let listener = unix.bind().map_err(|error| cannot(&address, &error.into()))?;
    let file = SocketFile { path: path.clone(), identity: identity(path) };
    unix.hand_to_group().map_err(|error| {
        Failure::running(format!(
            "cannot give {address} its group: {error}; start the hub as root or as a member of \
             the group"
        ))
    })?;
    let listener = Listener::try_from(listener).map_err(|error| cannot(&address, &error))?;
    Ok((listener, Some(file)))
}

#[cfg(not(unix))]
fn bind_unix(unix: &UnixAddress) -> Result<Bound, Failure> {
    let path = unix.path.display();
    Err(Failure::running(format!("{path} is a Unix socket, which this system lacks")))
}

/// Device, inode, and time of creation in seconds and nanoseconds. The inode alone is not enough:
/// file systems use it again at once for the next file.
pub(crate) type Identity = (u64, u64, i64, i64);

/// The identity of a file, which tells it from a later one of the same name.
fn identity(path: &Path) -> Option<Identity> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::symlink_metadata(path).ok()?;
        // A socket file is never written to, so that the time of its last modification is that of
        // its creation. `chmod`, which is common, does not change that.
        Some((file.dev(), file.ino(), file.mtime(), file.mtime_nsec()))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// Whether the port is in use, or not allowed for this user.
fn is_taken(error: &Error) -> bool {
    let kind = cause(error).map(io::Error::kind);
    matches!(kind, Some(ErrorKind::AddrInUse | ErrorKind::PermissionDenied))
}

/// The operating system's error in an error of the hub.
fn cause(error: &Error) -> Option<&io::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

/// The failure for an address that cannot be bound: the address, the cause, and what to do.
fn cannot(address: &Address, error: &Error) -> Failure {
    let cause = cause(error);
    let kind = cause.map(io::Error::kind);
    let remedy = match kind {
        Some(ErrorKind::AddrInUse) => ": something listens there already, stop it or name another",
        Some(ErrorKind::PermissionDenied) => match address {
            Address::Unix(_) => {
                ": the folder, or the socket that is there, is not yours; take another path"
            }
            _ => ": a port below 1024 needs CAP_NET_BIND_SERVICE; take one from 1024 up",
        },
        Some(ErrorKind::AddrNotAvailable) => ": no interface of this machine has that address",
        Some(ErrorKind::NotFound) => ": make the folder first",
        _ => "",
    };
    match (remedy, cause) {
        ("", Some(cause)) => Failure::running(format!("cannot listen on {address}: {cause}")),
        _ => Failure::running(format!("cannot listen on {address}{remedy}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_the_number_of_an_interface_or_its_name() {
        let zone = |text: &str| match text.parse() {
            Ok(Address::Tcp(SocketAddr::V6(address))) => Some(address.scope_id()),
            _ => None,
        };
        assert_eq!(zone("[fe80::1%7]:80"), Some(7));
        assert_eq!(zone("[fe80::1]:80"), Some(0));
        if cfg!(target_os = "linux") {
            for text in ["[fe80::1%lo]:80", "[fe80::1%25lo]:80"] {
                assert_eq!(zone(text), Some(1), "{text}: the loopback interface comes first");
            }
        }
        for text in [
            "[fe80::1%no-such]:80",
            "[fe80::1%../net/lo]:80",
            "[fe80::1%25../net/lo]:80",
            "[fe80::1%25no-such]:80",
            "[fe80::1%]:80",
            "[x%lo]:80",
        ] {
            assert_eq!(zone(text), None, "{text}");
        }
    }

    /// As on Windows and OpenBSD.
    #[test]
    fn where_ipv6_takes_no_ipv4_the_port_has_a_socket_for_each() {
        let alone = |port| Listener::bind((Ipv6Addr::LOCALHOST, port)).map(|ipv6| (ipv6, false));
        // Without IPv6 there is nothing to see.
        let Ok(_) = alone(0) else { return };
        // Another program may have the port by IPv4.
        let mut tries = (0..8).filter_map(|_| bind_everywhere(alone, 0).ok());
        let listeners = tries.next().expect("a free port");
        let addresses: Vec<_> = listeners.iter().filter_map(Listener::local_addr).collect();
        assert_eq!(addresses.len(), 2);
        assert!(addresses[0].is_ipv6() && addresses[1].is_ipv4());
        assert_eq!(addresses[0].port(), addresses[1].port());
    }

    #[test]
    fn bind_failures_name_address_cause_and_remedy() {
        let tcp = Address::Tcp(([0, 0, 0, 0], 80).into());
        let unix: Address = "unix:/run/hub.sock".parse().expect("an address");
        for (address, kind, sentence) in [
            (
                &tcp,
                ErrorKind::AddrInUse,
                "cannot listen on 0.0.0.0:80: something listens there already, stop it or name \
                 another",
            ),
            (
                &tcp,
                ErrorKind::PermissionDenied,
                "cannot listen on 0.0.0.0:80: a port below 1024 needs CAP_NET_BIND_SERVICE; take \
                 one from 1024 up",
            ),
            (
                &tcp,
                ErrorKind::AddrNotAvailable,
                "cannot listen on 0.0.0.0:80: no interface of this machine has that address",
            ),
            (
                &unix,
                ErrorKind::PermissionDenied,
                "cannot listen on unix:/run/hub.sock: the folder, or the socket that is there, is \
                 not yours; take another path",
            ),
            (
                &unix,
                ErrorKind::NotFound,
                "cannot listen on unix:/run/hub.sock: make the folder first",
            ),
        ] {
            let failure = cannot(address, &io::Error::from(kind).into());
            assert_eq!((failure.code, failure.sentence.as_str()), (1, sentence));
        }
        // For other errors the sentence has the text of the system.
        let failure = cannot(&unix, &io::Error::other("out of luck").into());
        assert_eq!(failure.sentence, "cannot listen on unix:/run/hub.sock: out of luck");
    }
}
