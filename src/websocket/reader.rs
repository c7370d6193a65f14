//! The wire: the stream that tungstenite is given.
//!
//! Tungstenite reassembles messages inside one read, reserves a frame's whole length when it sees
//! its header, and keeps a buffer of its largest frame for ever. The wire stands below it and
//! bounds all three. It reads the socket in large pieces into a buffer that connections borrow for
//! one poll. A message in one frame is made from there, or [gathered](Gathering) from one read after
//! another. Of what remains for tungstenite its [`Scan`] counts fragments, empty ones too, limits what
//! a frame may announce, and hands a frame on as it comes: what is there of it in fragments of a few
//! KiB, and what is left once all of that is there, as it is. So nothing is allocated ahead of what a
//! peer has really sent, and bad UTF-8 is found early. It copies the payload anyway, and takes the
//! mask off on the way.
//!
//! In the other direction it is the client's [`Queue`]: what tungstenite writes are control
//! frames, and they enter the same lane as everything else that goes to the client.

use std::io;
use std::io::{IoSlice, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_tungstenite::tungstenite::error::Error as WsError;

use crate::disconnect::Disconnect;
use crate::hub::handle::Hub;
use crate::hub::queue::{DirectWriter, Queue};
use crate::memory::budget::{Charge, MemoryBudget, allocation};
use crate::memory::read_buffers::{READ_BUFFER_BYTES, ReadBuffers};
use crate::net::stream::Transport;
use crate::time::timer_list::Tick;
use crate::time::timers::Timers;
use crate::websocket::assembler::Assembler;
use crate::websocket::decoder::{Decoder, Event};

/// A transport, the queue above it, and what has been read and not yet been handed on.
#[derive(Debug)]
pub(crate) struct Reader<T> {
    pub(crate) transport: T,
    /// Where control frames go.
    queue: Arc<Queue>,
    buffer: Buffer,
    /// A message of which a part has come, unless that is with tungstenite.
    gathering: Option<Box<Assembler>>,
    /// How far the buffer has been handed on, and where in the stream of frames that is.
    scan: Decoder,
    /// The memory of what is kept and of a message that has begun, between two polls.
    held: Charge,
    /// The tick in which the message began that is not finished, if one has.
    since: u32,
    /// The peer has shut its side down.
    ended: bool,
    /// Tungstenite had a control frame that did not fit the queue.
    starved: bool,
    /// Tungstenite has written since this was last asked.
    wrote: bool,
    /// Tungstenite has written, once or more.
    answered: bool,
    /// Why nothing more is handed on, once the peer broke a rule. Boxed, since few do.
    fault: Option<Box<Disconnect>>,
}

/// Where the bytes lie that were read last.
#[derive(Debug)]
enum Buffer {
    /// What was left over when an earlier poll ended: nothing and without capacity at most times,
    /// never more than one scratch buffer or one request head.
    Kept(Box<[u8]>),
    /// In the borrowed one, of which they fill so much. Only inside a poll.
    Borrowed(Box<[u8]>, u16),
}

impl Default for Buffer {
    fn default() -> Self {
        Self::Kept(Box::default())
    }
}

impl Buffer {
    /// The bytes from `at` on.
    fn rest(&self, at: u16) -> &[u8] {
        match self {
            Self::Kept(kept) => &kept[usize::from(at)..],
            Self::Borrowed(buffer, filled) => &buffer[usize::from(at)..usize::from(*filled)],
        }
    }

    fn rest_mut(&mut self, at: u16) -> &mut [u8] {
        match self {
            Self::Kept(kept) => &mut kept[usize::from(at)..],
            Self::Borrowed(buffer, filled) => &mut buffer[usize::from(at)..usize::from(*filled)],
        }
    }
}

impl<T: Transport> Reader<T> {
    /// `early` are the bytes that came behind the request head.
    pub(crate) fn new(transport: T, queue: Arc<Queue>, early: Vec<u8>, hub: &Hub) -> Self {
        let config = &hub.shared().config;
        let mut wire = Self {
            transport,
            queue,
            buffer: Buffer::Kept(early.into()),
            gathering: None,
            scan: Decoder::new(config.max_message as u32, config.max_fragments as u32),
            held: hub.memory().charge(0),
            since: 0,
            ended: false,
            starved: false,
            wrote: false,
            answered: false,
            fault: None,
        };
        wire.scan.parts = hub.memory().is_limited();
        wire.count();
        wire
    }

    /// Whether reading through tungstenite would find anything.
    pub(crate) fn has_unread(&self) -> bool {
        self.ended || self.fault.is_some() || !self.unread().is_empty()
    }

    /// Whether a tungstenite that has been asked until it had nothing more knows nothing that a new
    /// one would not know: no frame and no message has begun, and no control frame is held back.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.has_unread() && !self.starved && self.scan.is_between()
    }

    /// Where what comes over the wire is counted.
    pub(crate) fn memory(&self) -> &Arc<MemoryBudget> {
        self.held.memory()
    }

    /// The longest message, in bytes of payload.
    pub(crate) fn message_max(&self) -> usize {
        self.scan.message_max as usize
    }

    /// Whether tungstenite holds a control frame back that may fit now; asked once per drain.
    pub(crate) fn take_starved(&mut self) -> bool {
        std::mem::take(&mut self.starved)
    }

    /// Whether tungstenite has written a control frame since this was last asked.
    pub(crate) fn take_wrote(&mut self) -> bool {
        std::mem::take(&mut self.wrote)
    }

    /// Whether tungstenite has written since it was borrowed; forgotten with it.
    pub(crate) fn take_answered(&mut self) -> bool {
        std::mem::take(&mut self.answered)
    }

    /// The rule that the peer broke, if reading failed for that.
    pub(crate) fn take_fault(&mut self) -> Option<Disconnect> {
        self.fault.take().map(|fault| *fault)
    }

    /// When the message began that is not finished.
    pub(crate) fn began(&self) -> Option<Tick> {
        self.scan.began
    }

    /// The peer is being read again after a time in which it was not, which is not held against it:
    /// the time of a message that has begun begins anew.
    pub(crate) fn listens_again(&mut self, timers: &Timers) {
        if self.scan.began.is_some() {
            self.scan.began = Some(timers.now());
        }
    }

    /// Takes the next of what was read, if it lies there in one frame, or is a message in one of which
    /// the last has come; an error as soon as what has come is no text. Only while tungstenite is not
    /// there, since it may hold what came before.
    pub(crate) fn take_next(&mut self) -> Option<Result<Event, WsError>> {
        let mut unread = self.buffer.rest_mut(self.scan.at);
        let memory = self.held.memory();
        if self.gathering.is_none() {
            if let Some((said, taken)) = self.scan.take_whole(unread, memory) {
                self.scan.at += taken as u16;
                return Some(Ok(said));
            }
            let (first, header, length) = self.scan.begin_parts(unread)?;
            self.scan.at += header as u16;
            unread = &mut unread[header..];
            let begun = Assembler::begin(memory, first, length, unread.len());
            self.gathering = Some(Box::new(begun));
        }
        let gathering = self.gathering.as_mut()?;
        let (taken, mask) = self.scan.take_part(unread.len());
        self.scan.at += taken as u16;
        if !gathering.add(&unread[..taken], mask) {
            return Some(Err(WsError::Utf8(String::new())));
        }
        if !self.scan.is_between() {
            return None;
        }
        let gathered = self.gathering.take()?.finish();
        // It is counted by itself.
        self.count();
        Some(Ok(Event::Message(gathered)))
    }

    /// Reads once from the transport, all that fits a scratch buffer; returns how much. 0 at the
    /// end of the stream. What was read before must have been handed on.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        pool: &ReadBuffers,
    ) -> Poll<io::Result<usize>> {
        debug_assert!(self.unread().is_empty());
        let mut buffer = match std::mem::take(&mut self.buffer) {
            Buffer::Borrowed(buffer, _) => buffer,
            Buffer::Kept(_) => pool.acquire(),
        };
        self.scan.at = 0;
        let read = Pin::new(&mut self.transport).poll_read(cx, &mut buffer);
        match read {
            Poll::Ready(Ok(n)) if n > 0 => {
                self.buffer = Buffer::Borrowed(buffer, n.min(READ_BUFFER_BYTES) as u16);
            }
            Poll::Ready(Ok(_)) => {
                self.ended = true;
                pool.release(buffer);
            }
            _ => pool.release(buffer),
        }
        read
    }

    /// Keeps what is left over and gives the borrowed buffer back. Before a poll ends.
    pub(crate) fn settle(&mut self, pool: &ReadBuffers, timers: &Timers) {
        let rest = self.unread();
        // What is kept stays where it is until all of it was handed on.
        if rest.is_empty() || matches!(self.buffer, Buffer::Borrowed(..)) {
            let rest = Buffer::Kept(rest.into());
            self.replace_buffer(rest, pool);
        }
        let began = self.scan.began;
        self.scan.settle(timers);
        if self.scan.began != began {
            self.since = self.held.memory().tick();
        }
        self.count();
    }

    /// Forgets what was read and not handed on, and gives the borrowed buffer back.
    pub(crate) fn discard(&mut self, pool: &ReadBuffers) {
        self.replace_buffer(Buffer::default(), pool);
        if self.gathering.take().is_some() {
            self.scan.abandon();
        }
        self.count();
    }

    /// Puts another buffer in the place of this one, which is given back if it was borrowed.
    fn replace_buffer(&mut self, buffer: Buffer, pool: &ReadBuffers) {
        if let Buffer::Borrowed(buffer, _) = std::mem::replace(&mut self.buffer, buffer) {
            pool.release(buffer);
        }
        self.scan.at = 0;
    }

    /// Writes the queue's frames to the transport.
    pub(crate) fn poll_write_frames(
        &mut self,
        cx: &mut Context<'_>,
        frames: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write_vectored(cx, frames)
    }

    /// Flushes what the transport itself may hold back, as TLS does.
    pub(crate) fn poll_flush_transport(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    /// Where pushes may write, if the transport can be written from outside its task.
    pub(crate) fn outlet(&self) -> Option<Arc<dyn DirectWriter>> {
        self.transport.outlet()
    }

    /// Counts what this peer has sent and nobody has taken yet, and sets aside what the rest of a
    /// message that has begun will need, so that it can be finished when memory is short.
    fn count(&mut self) {
        let size = |bytes| if bytes == 0 { 0 } else { allocation(bytes) };
        // The buffer in which a message is gathered is doubled, and is there twice meanwhile.
        let message = size(2 * self.scan.announced());
        let memory = self.held.memory();
        if memory.is_limited() && (message > 0 || self.held.bytes() > 0) {
            // What is kept between two messages is not the peer's to move.
            let since = self.scan.began.map_or_else(|| memory.tick(), |_| self.since);
            self.queue.set_private_bytes(message, since);
        }
        let kept = match &self.buffer {
            Buffer::Kept(kept) => kept.len(),
            Buffer::Borrowed(..) => 0,
        };
        self.held.resize(size(kept) + message);
    }

    /// Whether a message has begun, for which memory is set aside.
    pub(crate) fn has_begun(&self) -> bool {
        self.scan.announced() > 0
    }

    fn unread(&self) -> &[u8] {
        self.buffer.rest(self.scan.at)
    }
}

impl<T: Transport> Read for Reader<T> {
    /// Hands on what was read; `WouldBlock` when there is none. The pump reads the transport and
    /// comes back.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.fault.is_none() {
            let handed = self.scan.hand_on(self.buffer.rest(self.scan.at), into);
            self.scan.at += handed.taken as u16;
            self.fault = handed.fault.map(Box::new);
            // What came before the fault is heard first.
            if handed.given > 0 {
                return Ok(handed.given);
            }
        }
        if self.fault.is_some() {
            return Err(io::Error::other("the peer broke a rule"));
        }
        if self.ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }
}

impl<T: Transport> Write for Reader<T> {
    /// Takes control frames into the queue; the pump's next drain writes them.
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        self.answered = true;
        if self.queue.push_control(frames) {
            self.wrote = true;
            Ok(frames.len())
        } else {
            self.starved = true;
            Err(io::ErrorKind::WouldBlock.into())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use futures_lite::io::Cursor;

    use super::*;
    use crate::config::Config;
    use crate::net::stream::AnyStream;
    use crate::websocket::decoder::tests::frame;

    type Bytes = AnyStream<Cursor<Vec<u8>>>;
    /// A poll that reads `bytes`, if there are any, and takes all that is handed on.
    fn poll(wire: &mut Reader<Bytes>, bytes: &[u8], pool: &ReadBuffers) {
        let cx = &mut Context::from_waker(Waker::noop());
        if !bytes.is_empty() {
            wire.transport.0 = Cursor::new(bytes.to_vec());
            assert!(wire.poll_fill(cx, pool).is_ready());
        }
        let mut into = [0; 256];
        while wire.read(&mut into).is_ok() {}
        wire.settle(pool, &Timers::new());
    }
    #[test]
    fn an_unfinished_message_is_held_whole_from_its_first_bytes_on() {
        let (hub, _manager) = Hub::new(Config::default()).expect("valid");
        let (memory, pool) = (hub.memory(), ReadBuffers::default());
        let queue = Queue::new(&hub.shared().queue_config);
        let transport = AnyStream(Cursor::new(Vec::new()));
        let mut wire = Reader::new(transport, queue, b"\x81".to_vec(), &hub);
        assert_eq!(memory.charged(), allocation(1), "what came behind the head");
        let stream = frame(0x82, &[7; 40_000]);
        poll(&mut wire, &[], &pool);
        assert_eq!(memory.charged(), 0, "a byte of a header is kept in the scan");
        poll(&mut wire, &stream[1..20_008], &pool);
        assert_eq!(memory.charged(), allocation(2 * 40_000));
        assert!(wire.has_begun());
        poll(&mut wire, &stream[20_008..], &pool);
        assert_eq!(memory.charged(), 0, "it is whole");
        assert!(!wire.has_begun());
        poll(&mut wire, &frame(0x02, b"the first of many"), &pool);
        assert_eq!(memory.charged(), allocation(2 * Config::MAX_MESSAGE), "as long as one may be");
        poll(&mut wire, &frame(0x89, b"a ping between"), &pool);
        assert!(wire.has_begun());
        poll(&mut wire, &frame(0x80, b"the last"), &pool);
        assert_eq!(memory.charged(), 0);
        poll(&mut wire, &stream[..100], &pool);
        assert!(memory.charged() > 0);
        drop(wire);
        assert_eq!(memory.charged(), 0);
    }
    #[test]
    fn a_message_that_is_gathered_is_counted_until_it_is_made_or_thrown_away() {
        let (hub, _manager) = Hub::new(Config::default()).expect("valid");
        let (memory, pool) = (hub.memory(), ReadBuffers::default());
        let queue = Queue::new(&hub.shared().queue_config);
        let transport = AnyStream(Cursor::new(Vec::new()));
        let mut wire = Reader::new(transport, queue, Vec::new(), &hub);
        let stream = frame(0x82, &[7; 60_000]);
        let say = |wire: &mut Reader<Bytes>, bytes: &[u8]| {
            let cx = &mut Context::from_waker(Waker::noop());
            wire.transport.0 = Cursor::new(bytes.to_vec());
            assert!(wire.poll_fill(cx, &pool).is_ready());
            let said = wire.take_next();
            wire.settle(&pool, &Timers::new());
            said
        };
        assert!(say(&mut wire, &stream[..20_000]).is_none());
        assert_eq!(memory.charged(), allocation(2 * 60_000));
        assert!(wire.has_begun() && wire.began().is_some());
        assert!(say(&mut wire, &stream[20_000..50_000]).is_none());
        let Some(Ok(Event::Message(message))) = say(&mut wire, &stream[50_000..]) else {
            panic!("it is whole");
        };
        assert_eq!(memory.charged(), message.size());
        assert!(!wire.has_begun() && wire.began().is_none());
        drop(message);
        assert_eq!(memory.charged(), 0);
        assert!(say(&mut wire, &stream[..20_000]).is_none());
        wire.discard(&pool);
        assert_eq!(memory.charged(), 0);
        assert!(!wire.has_begun() && memory.frame_buffer().try_acquire(60_000).is_some());
    }
}
