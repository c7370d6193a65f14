//! Requests that last as long as a client: what each holds, and what ends it.

use std::convert::Infallible;
use std::future::Future;

use futures_lite::future::or;
use http::Request;

use crate::connection::handler::Handler;
use crate::connection::hooks::run_request_hook;
use crate::http1::response::{Response, draining};
use crate::hub::client_id::Target;
use crate::hub::handle::Hub;
use crate::peer::Peer;

/// Bytes of memory that a long request holds beside its buffer: its head, at most.
pub(crate) const HEAD_CHARGE: usize = 8 * 1024;

/// The answer to a request to publish that has to end, though its body has not: see [`ended`] and
/// [`forbidden`].
pub(crate) fn over<H: Handler>(
    hub: &Hub,
    handler: &H,
    request: &Request<()>,
    peer: &Peer,
    target: &Target,
) -> impl Future<Output = Response> {
    or(ended(hub), forbidden(handler, request, peer, target))
}

/// The answer once the hub drains, another process takes it over, or its manager has ended: a stream
/// that rests would learn of that with its next line only.
async fn ended(hub: &Hub) -> Response {
    or(hub.long_requests_end(), hub.ended()).await;
    draining()
}

/// The answer once the handler says that the request may publish no more.
async fn forbidden<H: Handler>(
    handler: &H,
    request: &Request<()>,
    peer: &Peer,
    target: &Target,
) -> Response {
    let hook = async { Err::<Infallible, _>(handler.publish_until(request, peer, target).await) };
    let reason = |status| handler.on_refusal(request, status);
    match run_request_hook(hook, reason).await {
        Err(refused) => refused,
        Ok(never) => match never {},
    }
}
