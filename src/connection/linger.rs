//! The end of a stream whose peer is to read all that it was sent.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::FutureExt as _;
use futures_lite::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::hub::handle::Hub;
use crate::memory::read_buffers::READ_BUFFER_BYTES;
use crate::stats::add;

/// Bytes that are read and thrown away after the last that were written: four bodies of the longest
/// message at the defaults.
const DISCARD_MAX: usize = 256 * 1024;

/// Writes the last bytes of a stream and reads until the peer has ended it too, all within the close
/// timeout.
///
/// A socket that is closed with unread bytes resets the connection and may destroy what was sent.
pub(crate) async fn lingering_close<S>(hub: &Hub, stream: &mut S, last: &[u8]) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let goodbye = async {
        stream.write_all(last).await?;
        stream.flush().await?;
        stream.close().await?;
        let mut discarded = 0;
        while discarded < DISCARD_MAX {
            match poll_fn(|cx| poll_discard(hub, stream, cx)).await? {
                0 => break,
                n => discarded += n,
            }
        }
        Ok(())
    };
    goodbye.or(timed_out(hub, hub.shared().config.close_timeout)).await
}

/// Reads once and throws away what came; ready with how much.
pub(crate) fn poll_discard<S: AsyncRead + Unpin>(
    hub: &Hub,
    stream: &mut S,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let pool = &hub.shared().read_buffers;
    let mut bytes = pool.acquire();
    let read = Pin::new(stream).poll_read(cx, &mut bytes[..]);
    pool.release(bytes);
    // Not more than there was room for, whatever a stream of somebody else's says.
    read.map_ok(|n| {
        let n = n.min(READ_BUFFER_BYTES);
        add(&hub.shared().counters.bytes_received, n as u64);
        n
    })
}

/// Fails after `wait`.
pub(crate) async fn timed_out(hub: &Hub, wait: Duration) -> io::Result<()> {
    hub.shared().timers.after(wait).await;
    Err(io::ErrorKind::TimedOut.into())
}
