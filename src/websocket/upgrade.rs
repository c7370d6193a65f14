//! The last step of a WebSocket's handshake: into the registry, then the 101.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use base64ct::{Base64, Encoding as _};
use futures_lite::io::AsyncWriteExt as _;
use http::{HeaderMap, Request, StatusCode, Version, header};
use sha1::{Digest as _, Sha1};

use crate::config::Config;
use crate::connection::refuse::count_refusal;
use crate::connection::registration::{Admitted, Registering, registration_timeout};
use crate::connection::respond::LastResponse;
use crate::error::Error;
use crate::http1::cors::with_cors;
use crate::http1::fields::{has_token, tokens};
use crate::http1::origin;
use crate::http1::origin::AllowOrigin;
use crate::http1::response::{Response, allow, internal_error};
use crate::hub::handle::Hub;
use crate::limits::admission::HandshakePermit;
use crate::memory::budget::Charge;
use crate::net::stream::Transport;
use crate::peer::Peer;
use crate::stats::{RefusalReason, Requested, add};
use crate::time::timers::Deadline;
use crate::websocket::extension::Agreement;

/// What is left of a request for a WebSocket while its client waits for the manager: as little as
/// can be, since many come at once.
pub(crate) struct PendingUpgrade<'a> {
    pub(crate) registering: Registering<'a>,
    /// The answer to the request's key.
    pub(crate) key: AcceptKey,
    /// The subprotocol that is answered.
    pub(crate) protocol: Option<Arc<str>>,
    /// What was agreed on of its offers to compress.
    pub(crate) agreement: Option<Agreement>,
    /// What came behind the request.
    pub(crate) early: Vec<u8>,
    /// The memory of that.
    pub(crate) _charge: Charge,
    /// When the handshake has taken too long.
    pub(crate) deadline: Deadline<'a>,
    /// Its handshake permit, until it is over.
    pub(crate) _permit: Option<HandshakePermit>,
    /// The origin that may read the response, whatever it is.
    pub(crate) allow_origin: AllowOrigin,
    /// The peer, or the client that a trusted proxy names.
    pub(crate) client_address: Peer,
}

impl PendingUpgrade<'_> {
    /// Waits until the client is in the registry, and then tells its peer; returns it, and what
    /// came behind its request.
    ///
    /// A client that sees the 101 misses nothing.
    pub(crate) async fn complete<T: Transport>(
        mut self: Box<Self>,
        hub: &Hub,
        transport: &mut T,
    ) -> Result<(Admitted, Vec<u8>), Error> {
        let counters = &hub.shared().counters;
        let Self { deadline, registering, .. } = &mut *self;
        let registered = deadline.within(Pin::new(registering)).await;
        let admitted = match registered.unwrap_or_else(|| Err(registration_timeout(hub))) {
            Ok(admitted) => Admitted { inflates: self.agreement.is_some(), ..admitted },
            Err(response) => {
                // Before the response is written, which takes as long as the peer likes: the client
                // may be first in the line for the inbox, where no other passes it, and has a permit.
                drop(self.registering);
                let response = with_cors(response, self.allow_origin.take());
                count_refusal(hub, Requested::WebSocket, &self.client_address, &response);
                let bytes = response.encode(false, None);
                let last = LastResponse { bytes: &bytes, has_unread_body: false };
                // Boxed, since it is rare.
                Box::pin(last.write(hub, transport, None)).await;
                return Err(response.into_error());
            }
        };
        let response = switching_protocols(&self.key, self.protocol.as_deref(), self.agreement);
        let written = async {
            transport.write_all(&response).await?;
            transport.flush().await
        };
        let (reason, error) = match self.deadline.within(written).await {
            Some(Ok(())) => {
                add(&counters.upgrades_accepted, 1);
                return Ok((admitted, self.early));
            }
            Some(Err(error)) => (RefusalReason::Left, error),
            None => (RefusalReason::Late, io::ErrorKind::TimedOut.into()),
        };
        counters.refuse(Requested::WebSocket, reason);
        Err(error.into())
    }
}

/// The response that makes a request with this answer to its key a WebSocket (RFC 6455 4.2.2).
pub(crate) fn switching_protocols(
    key: &AcceptKey,
    protocol: Option<&str>,
    agreement: Option<Agreement>,
) -> Vec<u8> {
    const BEGIN: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: ";
    let name = if protocol.is_some() { "\r\nSec-WebSocket-Protocol: " } else { "" };
    let protocol = protocol.unwrap_or_default();
    let extension = agreement.map_or_else(String::new, |agreement| {
        format!("\r\nSec-WebSocket-Extensions: {}", agreement.answer())
    });
    [BEGIN, key, name.as_bytes(), protocol.as_bytes(), extension.as_bytes(), b"\r\n\r\n"].concat()
}

/// What proves to a client that its request was understood: the base64 of a hash.
pub(crate) type AcceptKey = [u8; 28];

/// The answer to a request's key (RFC 6455 4.2.2, step 5).
pub(crate) fn accept_key(request: &Request<()>) -> AcceptKey {
    /// What is hashed behind the key (RFC 6455 1.3).
    const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
    let mut hash = Sha1::new_with_prefix(key.map_or(&[][..], |key| key.as_bytes()));
    hash.update(GUID);
    let mut answer = [0; 28];
    Base64::encode(&hash.finalize(), &mut answer).expect("28 digits say 20 bytes");
    answer
}

/// Refuses to answer a subprotocol that the request did not offer.
pub(crate) fn check_protocol(
    request: &Request<()>,
    protocol: Option<&str>,
) -> Result<(), Response> {
    let Some(protocol) = protocol else { return Ok(()) };
    if tokens(request.headers(), &header::SEC_WEBSOCKET_PROTOCOL).any(|offer| offer == protocol) {
        return Ok(());
    }
    Err(internal_error("a subprotocol was chosen that was not offered"))
}

/// Checks an upgrade that another server has read, whatever its path, by the same rules.
pub(crate) fn check_upgrade_elsewhere(
    request: &Request<()>,
    config: &Config,
) -> Result<(), Response> {
    origin::check(request, config)?;
    allow(request.method(), "GET")?;
    check_upgrade(request)
}

/// Checks that a request is an opening handshake (RFC 6455 4.2.1).
pub(crate) fn check_upgrade(request: &Request<()>) -> Result<(), Response> {
    let headers = request.headers();
    let upgrade = request.version() == Version::HTTP_11
        && has_token(headers, header::UPGRADE, "websocket")
        && has_token(headers, header::CONNECTION, "upgrade");
    if !upgrade {
        return Err(upgrade_required("this route needs a WebSocket client"));
    }
    if single(headers, header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(upgrade_required("only WebSocket version 13 is supported"));
    }
    if !single(headers, header::SEC_WEBSOCKET_KEY).is_some_and(is_key) {
        return Err(Response::bad_request("Sec-WebSocket-Key must be 16 bytes in base64"));
    }
    let lengths = headers.get_all(header::CONTENT_LENGTH);
    if headers.contains_key(header::TRANSFER_ENCODING) || lengths.iter().any(|n| n != "0") {
        return Err(Response::bad_request("an upgrade request must not have a body"));
    }
    Ok(())
}

fn upgrade_required(sentence: &'static str) -> Response {
    Response::new(StatusCode::UPGRADE_REQUIRED, sentence)
        .header("Upgrade", "websocket")
        .header("Connection", "upgrade")
        .header("Sec-WebSocket-Version", "13")
}

/// The value of a header that stands there exactly once.
fn single(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Whether `key` is the base64 of 16 bytes: 22 digits and two signs of padding.
fn is_key(key: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    key.len() == 24 && key.ends_with("==") && key.bytes().take(22).all(digit)
}
