//! The handshake of TLS, and streams that may be plain or encrypted.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use crate::memory::budget::MemoryBudget;
use crate::net::acceptor::Acceptor;
use crate::net::socket::Socket;
use crate::net::tls::certificate::Tls;
use crate::net::tls::stream::{Stream, TlsStream};

/// Makes encrypted streams for a listener that speaks TLS, and plain ones for any other.
///
/// One acceptor, and so one type of stream, for both: the code for connections is in the program
/// once.
#[derive(Debug, Clone)]
pub(crate) struct Secure(Option<(Tls, Arc<MemoryBudget>)>);

impl Secure {
    pub(crate) fn new(tls: Option<Tls>, memory: &Arc<MemoryBudget>) -> Self {
        Self(tls.map(|tls| (tls, Arc::clone(memory))))
    }
}

impl Acceptor for Secure {
    type Stream = Stream;

    async fn accept(self, socket: Socket) -> io::Result<Stream> {
        let Some((tls, memory)) = self.0 else { return Ok(Stream::Plain(socket)) };
        // Boxed, so that the connections of a plain listener have no room for it.
        let mut stream = Box::new(TlsStream::new(&tls, &memory, socket)?);
        poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(Stream::Tls(*stream))
    }
}
