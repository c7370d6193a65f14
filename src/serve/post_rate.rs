//! Publishing by request no faster than the rate of its address allows.

use std::future::Future;

use futures_lite::future::or;
use http::{Request, StatusCode};

use crate::connection::handler::Handler;
use crate::http1::response::Response;
use crate::hub::handle::Hub;
use crate::limits::post_rates::PostRates;
use crate::peer::Peer;
use crate::stats::add;
use crate::time::clock::now;

/// The network that a request counts under, and where.
pub(crate) type Metered<'a> = (&'a PostRates, u128);

/// Where a request counts, if its rate is limited.
pub(crate) fn metered<'a, H: Handler>(
    hub: &'a Hub,
    handler: &H,
    request: &Request<()>,
    peer: &Peer,
) -> Option<Metered<'a>> {
    let rates = hub.shared().post_rates.as_deref()?;
    let network = peer.network().filter(|_| handler.is_rate_limited(request, peer))?;
    Some((rates, network))
}

/// Counts a request to publish a message, or none of a stream of lines, where each line counts later.
///
/// # Errors
///
/// 429 if its address has published as much as it may.
#[cold]
pub(crate) fn admit_post<H: Handler>(
    hub: &Hub,
    handler: &H,
    request: &Request<()>,
    peer: &Peer,
    messages: usize,
) -> Result<(), Response> {
    let Some((rates, network)) = metered(hub, handler, request, peer) else { return Ok(()) };
    rates.admit(network, messages, now()).map_err(|wait| {
        add(&hub.shared().counters.posts_over_rate, 1);
        let limit = rates.per_second();
        let sentence = format!("this address has published {limit} messages a second, the limit");
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Response::new(StatusCode::TOO_MANY_REQUESTS, sentence)
            .header("Retry-After", seconds.to_string())
    })
}

/// Counts lines that were published, and waits until the address may publish more.
///
/// # Errors
///
/// What `over` says, if that comes before.
pub(crate) async fn slow_down(
    hub: &Hub,
    (rates, network): Metered<'_>,
    lines: usize,
    over: impl Future<Output = Response> + Unpin,
) -> Result<(), Response> {
    let wait = rates.count(network, lines, now());
    if wait.is_zero() {
        return Ok(());
    }
    add(&hub.shared().counters.rate_pauses, 1);
    let wait = hub.shared().timers.after(wait);
    let waited = async {
        wait.await;
        None
    };
    or(async { Some(over.await) }, waited).await.map_or(Ok(()), Err)
}
