//! The half of the pipe that publishes the lines of standard input.

use std::future::Future;
use std::sync::{Arc, Mutex};

use futures_lite::future::or;
use hublet::{Client, Error, Message};

use crate::failure::Failure;
use crate::lines::{self, Lines, TooLong};
use crate::output::lock;
use crate::pace::Pace;
use crate::pause::{Pause, Rest};
use crate::stdio::StreamBuffer;

/// Bytes of a frame beyond its payload, at most (RFC 6455 5.2).
const FRAMING: usize = 10;

/// The task that publishes standard input.
pub(crate) struct Input {
    pub(crate) pace: Pace,
    /// The client of the output, if it must get no echo of the input.
    pub(crate) itself: Option<Arc<Mutex<Option<Client>>>>,
    /// Bytes that the thread has read.
    pub(crate) chunks: Arc<StreamBuffer>,
    pub(crate) pause: Arc<Pause>,
}

impl Input {
    /// Publishes the lines, then waits until no member's queue holds any of them.
    pub(crate) async fn run(mut self, max: usize, rest: Rest) -> Result<(), Failure> {
        let mut lines = Lines::resume(max, (rest.number, rest.len), rest.partial);
        let mut pending = rest.line.map(|line| Ok(lines::message(&line)));
        let (mut chunk, mut at) = (rest.unread, 0);
        let pause = Arc::clone(&self.pause);
        loop {
            if pause.is_wanted() {
                let (number, len, partial) = lines.parts();
                let line =
                    pending.as_ref().and_then(|line: &Result<Message, _>| line.as_ref().ok());
                let line = line.map(|line| line.as_bytes().to_vec());
                let (partial, unread) = (partial.to_vec(), chunk[at..].to_vec());
                let rest = Rest { number, len, partial, line, unread, unwritten: Vec::new() };
                pause.take(rest).await;
            }
            if pending.is_none() {
                let mut rest = &chunk[at..];
                pending = lines.next(&mut rest);
                at = chunk.len() - rest.len();
            }
            if let Some(line) = &pending {
                let bytes = line.as_ref().map_or(0, |line| line.len() + FRAMING);
                // A line that waits for a slow member is not published, and goes along.
                match unless(&pause, self.pace.keep(bytes)).await {
                    None => continue,
                    Some(Err(_)) => return Ok(()),
                    Some(Ok(())) => {}
                }
                let Some(line) = pending.take() else { continue };
                if self.take(line, max).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            match unless(&pause, self.chunks.take()).await {
                None => {}
                Some(Some(next)) => (chunk, at) = (next, 0),
                Some(None) => break,
            }
        }
        self.chunks
            .result()
            .map_err(|error| Failure::running(format!("standard input failed: {error}")))?;
        if let Some(line) = lines.last() {
            let bytes = line.as_ref().map_or(0, |line| line.len() + FRAMING);
            if self.pace.keep(bytes).await.is_err() || self.take(line, max).await.is_err() {
                return Ok(());
            }
        }
        // An error means that the hub has ended: there is no member left.
        drop(self.pace.wait_for_all().await);
        Ok(())
    }

    /// Publishes a line.
    ///
    /// # Errors
    ///
    /// If the hub has ended.
    async fn take(&mut self, line: Result<Message, TooLong>, max: usize) -> Result<(), Error> {
        let message = match line {
            Ok(message) => message,
            Err(TooLong { number, len }) => {
                ::log::error!(
                    "line {number} of standard input was not sent: it has {len} bytes, \
                     --max-message allows {max}"
                );
                return Ok(());
            }
        };
        let (hub, room) = (&self.pace.hub, &*self.pace.room);
        let itself = self.itself.as_ref().and_then(|client| lock(client).clone());
        // Without a wait for the count, the manager takes many lines at once.
        let published = match &itself {
            Some(client) => client.try_publish(room, message),
            None => hub.try_publish(room, message),
        };
        let Err(error) = published else { return Ok(()) };
        if !error.is_full() {
            return Err(error);
        }
        let mut message = error.into_message();
        while let Some(again) = message.take() {
            let published = match &itself {
                Some(client) => client.publish(room, again).await,
                None => hub.publish(room, again).await,
            };
            match published {
                Ok(_) => {}
                // A line waits for Redis, unless it may have been sent.
                Err(error) if error.is_unavailable() => message = error.into_message(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Runs a future to its end, or until a pause is wanted.
async fn unless<T>(pause: &Pause, future: impl Future<Output = T>) -> Option<T> {
    let wanted = async {
        pause.wanted().await;
        None
    };
    or(wanted, async { Some(future.await) }).await
}
