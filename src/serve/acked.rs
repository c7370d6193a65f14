//! Publishing by request, acknowledged: the answer says for how many recipients the kernel has the
//! message.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::connection::handler::Handler;
use crate::connection::registration::client_permit;
use crate::http1::head::Head;
use crate::http1::response::Response;
use crate::http1::stream::{Failure, HttpStream};
use crate::hub::ack::{Acking, Acknowledged};
use crate::hub::client_id::Target;
use crate::net::stream::Transport;
use crate::serve::exchange::Exchange;
use crate::serve::long_request::{HEAD_CHARGE, over};
use crate::serve::publish::{BodyKind, dispatch, published_as, read_message};

/// Publishes the body of a request, once the hook has allowed it, and waits for its recipients.
///
/// From the body on the request has the permit of a client, and no slot among the handshakes. The wait
/// ends early, with the count so far, when the hub drains or the permission of the request ends.
pub(crate) async fn publish_acked<T: Transport, H: Handler>(
    stream: &mut HttpStream<'_, T>,
    handler: &H,
    head: Head,
    (target, wait): (Target, Duration),
    exchange: &mut Exchange<'_>,
) -> Result<Response, Failure> {
    let hub = stream.hub;
    let peer = exchange.client_address;
    let message = read_message(stream, BodyKind::of(&head), exchange).await?;
    // Before the message goes out: a request that is refused has not published.
    let permit = client_permit(hub, peer.network())?;
    exchange.slot.release();
    let charge = hub.memory().charge(HEAD_CHARGE);
    let acking = Acking::default();
    let ack = &acking.0;
    let (published, hubs) = dispatch(hub, target.clone(), message, Some(ack)).await?;
    let mut stopped = pin!(over(hub, handler, &head.request, &peer, &target));
    let mut deadline = hub.shared().timers.after(wait);
    let waited = deadline.within(poll_fn(|cx| {
        if ack.poll_acknowledged(cx).is_ready() || stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        stream.poll_left(cx).map(Err)
    }));
    waited.await.unwrap_or(Ok(()))?;
    // The answer takes as long as the peer likes to read it.
    drop((permit, charge));
    let Acknowledged { recipients, delivered, late, lost, position } =
        ack.count(published.recipients, published.position);
    let fields = format!(",\"delivered\":{delivered},\"late\":{late},\"lost\":{lost}");
    Ok(published_as(recipients, hubs, &fields, position))
}
