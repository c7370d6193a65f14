//! The last step of a WebSocket's handshake: into the registry, then the 101.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use futures_lite::future::or;
use futures_lite::io::AsyncWriteExt as _;

use super::Peer;
use super::access::{self, Reader};
use super::handshake::{AcceptKey, Admitted, Registering, switching};
use super::requests::{end_with, note, too_late};
use super::transport::Transport;
use crate::error::Kind;
use crate::hub::{Handshake, Wrong, add};
use crate::memory::Held;
use crate::timekeeper::Deadline;
use crate::{Error, Hub};

/// What is left of a request for a WebSocket while its client waits for the manager: as little as
/// can be, since many come at once.
pub(crate) struct Entrance<'a> {
    pub(crate) registering: Registering<'a>,
    /// The answer to the request's key.
    pub(crate) key: AcceptKey,
    /// The subprotocol that is answered.
    pub(crate) protocol: Option<Arc<str>>,
    /// What came behind the request.
    pub(crate) early: Vec<u8>,
    /// The memory of that.
    pub(crate) _held: Held,
    /// When the handshake has taken too long.
    pub(crate) deadline: Deadline<'a>,
    /// Its place among the handshakes, until it is over.
    pub(crate) _place: Option<Handshake>,
    /// Who may read the response, whatever it is.
    pub(crate) reader: Reader,
    /// Who asks.
    pub(crate) asker: Peer,
}

impl Entrance<'_> {
    /// Waits until the client is in the registry, and then tells its peer; returns it, and what
    /// came behind its request.
    ///
    /// Who sees the 101 misses nothing.
    pub(crate) async fn enter<T: Transport>(
        mut self: Box<Self>,
        hub: &Hub,
        transport: &mut T,
    ) -> Result<(Admitted, Vec<u8>), Error> {
        let counters = &hub.shared().counters;
        let registered = {
            let late = async {
                Pin::new(&mut self.deadline).await;
                Err(too_late())
            };
            or(Pin::new(&mut self.registering), late).await
        };
        let admitted = match registered {
            Ok(admitted) => admitted,
            Err(response) => {
                // Before the goodbye, which takes as long as the peer likes: it may stand in the line
                // for the inbox, where nobody passes it, and it has a place among the clients.
                drop(self.registering);
                let response = access::tell(response, self.reader.take());
                note(hub, &self.asker, &response);
                // Boxed, since it is rare.
                return Err(Box::pin(end_with(hub, transport, response, false)).await);
            }
        };
        let response = switching(&self.key, self.protocol.as_deref());
        let told = async {
            transport.write_all(&response).await?;
            Some(transport.flush().await).transpose()
        };
        let late = async {
            Pin::new(&mut self.deadline).await;
            Ok(None)
        };
        match or(told, late).await {
            Ok(Some(())) => {
                add(&counters.upgrades_accepted, 1);
                Ok((admitted, self.early))
            }
            Ok(None) => {
                counters.refuse(Wrong::Late);
                Err(Error::new(Kind::Io(io::ErrorKind::TimedOut.into())))
            }
            Err(error) => {
                counters.refuse(Wrong::Left);
                Err(error.into())
            }
        }
    }
}
