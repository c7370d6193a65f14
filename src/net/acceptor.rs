//! What makes the stream of a connection of its socket.

use std::future::Future;
#[cfg(not(feature = "tls"))]
use std::future::ready;
use std::io;

use crate::net::socket::Socket;
use crate::net::stream::Transport;

/// Makes the stream of a connection of the socket that was accepted.
///
/// The connection has its slot among the handshakes by then, and the time that this takes is a part
/// of the handshake's: at the deadline it is dropped.
pub(crate) trait Acceptor: Clone + Send + Sync + 'static {
    /// What carries the bytes of the connection.
    type Stream: Transport + 'static;

    /// Makes the stream.
    fn accept(self, socket: Socket) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// The socket is the stream.
#[cfg(not(feature = "tls"))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain;

#[cfg(not(feature = "tls"))]
impl Acceptor for Plain {
    type Stream = Socket;

    fn accept(self, socket: Socket) -> impl Future<Output = io::Result<Socket>> + Send {
        ready(Ok(socket))
    }
}
