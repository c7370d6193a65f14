//! Connections that the hub opens itself.

use std::io;
#[cfg(unix)]
use std::os::unix::net::UnixStream;

use futures_lite::io::{AsyncRead, AsyncWrite};
#[cfg(unix)]
use smol::Async;
use smol::net::TcpStream;

use crate::redis_config::Place;

/// A stream of any kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects. The name of a host is resolved anew, and each of its addresses is tried in turn.
///
/// The caller has the deadline.
pub(crate) async fn dial(place: &Place) -> io::Result<Box<dyn Stream>> {
    match place {
        Place::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
        #[cfg(unix)]
        Place::Unix(path) => Ok(Box::new(Async::<UnixStream>::connect(path).await?)),
    }
}
