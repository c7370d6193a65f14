//! The listeners of the process that this one was before it restarted.

use std::io;
use std::os::fd::OwnedFd;

use hublet::{Error, Listener};

use crate::socket::{Address, DEFAULT, Identity, Served, SocketFile, serve};

/// A listener of the process that this one was.
#[derive(Debug)]
pub(crate) struct InheritedListener {
    descriptor: OwnedFd,
    identity: Identity,
    address: String,
}

impl InheritedListener {
    /// Reads the line of an [`Open`], but for its first word.
    pub(crate) fn read(line: &str, descriptor: OwnedFd) -> Option<Self> {
        let mut words = line.splitn(5, ' ');
        let identity = (
            words.next()?.parse().ok()?,
            words.next()?.parse().ok()?,
            words.next()?.parse().ok()?,
            words.next()?.parse().ok()?,
        );
        Some(Self { descriptor, identity, address: words.next()?.to_owned() })
    }

    /// The listener, which listens on.
    fn served(self) -> Result<Served, Error> {
        let is_unix =
            rustix::net::getsockname(&self.descriptor).map_err(io::Error::from)?.address_family()
                == rustix::net::AddressFamily::UNIX;
        let listener = if is_unix {
            Listener::try_from(std::os::unix::net::UnixListener::from(self.descriptor))?
        } else {
            Listener::try_from(std::net::TcpListener::from(self.descriptor))?
        };
        let path = self.address.strip_prefix("unix:").filter(|_| self.identity != (0, 0, 0, 0));
        let file = path.map(|path| SocketFile { path: path.into(), identity: Some(self.identity) });
        Ok(Served { listener, file, address: self.address })
    }
}

/// The listeners of the process that this one was, for the addresses that are asked for now. One
/// that cannot be bound is an error in the log, since clients are connected by the others.
pub(crate) fn listen_on(addresses: &[Address], inherited: Vec<InheritedListener>) -> Vec<Served> {
    let (mut passed, mut others): (Vec<_>, Vec<_>) =
        inherited.into_iter().partition(|inherited| inherited.address.is_empty());
    let default = [DEFAULT];
    let addresses = if addresses.is_empty() && passed.is_empty() { &default } else { addresses };
    let mut bound = Vec::new();
    for address in addresses {
        let text = address.to_string();
        let (ours, rest): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|inherited| inherited.address == text);
        others = rest;
        if ours.is_empty() {
            if let Err(failure) = serve(address, &mut bound) {
                ::log::error!("{}", failure.sentence);
            }
        }
        passed.extend(ours);
    }
    for inherited in passed {
        match inherited.served() {
            Ok(served) => bound.push(served),
            Err(error) => ::log::error!("a socket from before cannot be listened on: {error}"),
        }
    }
    // The file of an address that is not asked for any more goes.
    others.into_iter().for_each(|inherited| drop(inherited.served()));
    bound
}
