//! Binds the addresses of `--listen`.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use hublet::{Error, Listener};

use super::Failure;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A port on all interfaces, IPv6 and IPv4.
    Port(u16),
    /// A Unix socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() || cfg!(not(unix)) {
                Err(())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        if let Some(port) = text.strip_prefix(':') {
            return port.parse().map(Self::Port).map_err(drop);
        }
        text.parse().map(Self::Tcp).map_err(drop)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Port(port) => write!(f, ":{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The file of a Unix socket. Dropping this removes the file, unless another has replaced it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: Option<Identity>,
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

/// The address that the hub listens on without `--listen`.
pub(crate) const DEFAULT: Address =
    Address::Tcp(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080)));

/// Takes the sockets that a supervisor passes in and binds `addresses`. Binds the default if there
/// are neither.
pub(crate) fn listen(addresses: &[Address]) -> Result<Vec<Bound>, Failure> {
    let mut bound = handed_over()?;
    for address in addresses {
        bound.push(bind(address)?);
    }
    if bound.is_empty() {
        bound.push(bind(&DEFAULT)?);
    }
    Ok(bound)
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

/// Binds an address.
fn bind(address: &Address) -> Result<Bound, Failure> {
    let listener = match address {
        Address::Tcp(address) => Listener::bind(address),
        Address::Port(port) => Listener::bind((Ipv6Addr::UNSPECIFIED, *port)).or_else(|error| {
            if is_taken(&error) {
                Err(error)
            } else {
                // The kernel may lack IPv6.
                Listener::bind((Ipv4Addr::UNSPECIFIED, *port))
            }
        }),
        Address::Unix(path) => return bind_unix(path),
    };
    match listener {
        Ok(listener) => Ok((listener, None)),
        Err(error) => Err(cannot(address, &error)),
    }
}

#[cfg(unix)]
fn bind_unix(path: &Path) -> Result<Bound, Failure> {
    use std::os::unix::fs::FileTypeExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    let address = Address::Unix(path.to_owned());
    match std::fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                // Stale: the process that made it has ended without removing it.
                std::fs::remove_file(path).map_err(|error| cannot(&address, &error.into()))?;
            }
            Ok(_) => return Err(cannot(&address, &io::Error::from(ErrorKind::AddrInUse).into())),
            Err(error) => return Err(cannot(&address, &error.into())),
        },
        Ok(_) => {
            return Err(Failure::running(format!(
                "cannot listen on {address}: a file that is not a socket is there"
            )));
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(|error| cannot(&address, &error.into()))?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path) };
    let listener = Listener::try_from(listener).map_err(|error| cannot(&address, &error))?;
    Ok((listener, Some(file)))
}

#[cfg(not(unix))]
fn bind_unix(path: &Path) -> Result<Bound, Failure> {
    Err(Failure::running(format!("{} is a Unix socket, which this system lacks", path.display())))
}

/// Device, inode, and time of creation in seconds and nanoseconds. The inode alone is not enough:
/// file systems use it again at once for the next file.
type Identity = (u64, u64, i64, i64);

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
    fn bind_failures_name_address_cause_and_remedy() {
        let tcp = Address::Tcp(([0, 0, 0, 0], 80).into());
        let unix = Address::Unix("/run/hub.sock".into());
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
