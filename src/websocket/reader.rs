//! The reader: reads a transport and decodes what has come.
//!
//! A read goes into a large buffer that the connection borrows for one poll of its task, so an idle
//! client has none. What the [`Decoder`] has not taken when the poll ends is kept: the beginning of a
//! header or of a control frame, and what waits for a hook or for memory. Both that and a message
//! that has begun are charged to the hub's budget.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::disconnect::Disconnect;
use crate::hub::handle::Hub;
use crate::hub::queue::Queue;
use crate::memory::budget::{Charge, allocation};
use crate::memory::read_buffers::{READ_BUFFER_BYTES, ReadBuffer, ReadBuffers};
use crate::net::stream::Transport;
use crate::time::timer_list::Tick;
use crate::time::timers::Timers;
use crate::websocket::decoder::{Decoder, Event, Limits, UNDECODED_MAX};

const _: () = assert!(UNDECODED_MAX < READ_BUFFER_BYTES && READ_BUFFER_BYTES <= u16::MAX as usize);

/// A transport, and what was read from it.
#[derive(Debug)]
pub(crate) struct Reader<T> {
    pub(crate) transport: T,
    /// The buffer of the last read, inside a poll.
    borrowed: Option<Box<ReadBuffer>>,
    /// What an earlier poll has left.
    // Boxed, since it leaves nothing at most times.
    leftover: Option<Box<Leftover>>,
    decoder: Decoder,
    /// Where the bytes that are not decoded begin and end, in the borrowed buffer or in what is kept.
    start: u16,
    end: u16,
    /// The last read filled its buffer, so the transport may hold more.
    is_full: bool,
    /// The decoder has taken from the bytes what it can take before more come.
    is_short: bool,
    /// The peer has shut its side down.
    has_ended: bool,
    /// The peer may compress messages.
    pub(super) inflates: bool,
}

/// What is held between two polls.
#[derive(Debug)]
struct Leftover {
    /// Bytes that were not decoded: at most a whole buffer or one request head.
    kept: Box<[u8]>,
    /// Counts what is kept, and what the message that has begun may need.
    charge: Charge,
    /// When the message or the frame began that has not come whole.
    began: Option<Tick>,
    /// The tick of the hub's budget at that moment.
    began_tick: u32,
}

impl Leftover {
    fn new(hub: &Hub) -> Box<Self> {
        let charge = hub.memory().charge(0);
        Box::new(Self { kept: Box::default(), charge, began: None, began_tick: 0 })
    }
}

impl<T: Transport> Reader<T> {
    /// `early` are the bytes that came behind the request head; `inflates` is whether compression
    /// was negotiated.
    pub(crate) fn new(transport: T, early: Vec<u8>, inflates: bool, hub: &Hub) -> Self {
        let end = early.len() as u16;
        let leftover = (!early.is_empty()).then(|| {
            let mut leftover = Leftover::new(hub);
            leftover.charge.resize(allocation(early.len()));
            leftover.kept = early.into();
            leftover
        });
        Self {
            transport,
            borrowed: None,
            leftover,
            decoder: Decoder::default(),
            start: 0,
            end,
            is_full: false,
            is_short: false,
            has_ended: false,
            inflates,
        }
    }

    /// Decodes the next event of what was read; `None` when more must come. A message is at most
    /// `longest` bytes long, and no longer than any client may send it.
    pub(crate) fn next(
        &mut self,
        hub: &Hub,
        queue: &Queue,
        longest: u32,
    ) -> Option<Result<Event, Disconnect>> {
        let bytes = match (&mut self.borrowed, &mut self.leftover) {
            (Some(borrowed), _) => &mut borrowed[..],
            (None, Some(leftover)) => &mut leftover.kept,
            (None, None) => &mut [],
        };
        let bytes = &mut bytes[usize::from(self.start)..usize::from(self.end)];
        let had_begun = self.decoder.has_begun();
        let mut limits = Limits::of(&hub.shared().config, self.inflates);
        limits.message_max = limits.message_max.min(longest);
        let (taken, event) = self.decoder.decode(bytes, limits, hub.memory());
        self.start += taken as u16;
        self.is_short = event.is_none();
        if event.is_some() && !self.decoder.has_begun() {
            if let Some(leftover) = &mut self.leftover {
                leftover.began = None;
            }
            if had_begun {
                // The message is counted by itself.
                self.count(hub, queue);
            }
        }
        event
    }

    /// Reads once from the transport, behind what the decoder has left; returns how much. 0 at the
    /// end of the stream.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        pool: &ReadBuffers,
    ) -> Poll<io::Result<usize>> {
        let (start, end) = (usize::from(self.start), usize::from(self.end));
        debug_assert!(end - start <= UNDECODED_MAX);
        let mut buffer = self.borrowed.take().unwrap_or_else(|| {
            let mut buffer = pool.acquire();
            if let Some(leftover) = &mut self.leftover {
                buffer[start..end].copy_from_slice(&leftover.kept[start..end]);
                leftover.kept = Box::default();
            }
            buffer
        });
        buffer.copy_within(start..end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let room = &mut buffer[end - start..];
        let most = room.len();
        let read = Pin::new(&mut self.transport).poll_read(cx, room);
        // Not more than there was room for, whatever a stream of an embedder says.
        let read = read.map_ok(|n| n.min(most));
        self.is_full = matches!(read, Poll::Ready(Ok(n)) if n == most);
        match read {
            Poll::Ready(Ok(n)) if n > 0 => {
                self.end += n as u16;
                self.is_short = false;
            }
            Poll::Ready(Ok(_)) => self.has_ended = true,
            _ => {}
        }
        if self.start == self.end {
            pool.release(buffer);
        } else {
            self.borrowed = Some(buffer);
        }
        read
    }

    /// Before a poll ends: keeps what is left, gives the borrowed buffer back, and counts.
    pub(crate) fn end_poll(&mut self, hub: &Hub, queue: &Queue) {
        if let Some(borrowed) = self.borrowed.take() {
            let rest = &borrowed[usize::from(self.start)..usize::from(self.end)];
            if !rest.is_empty() {
                self.leftover.get_or_insert_with(|| Leftover::new(hub)).kept = rest.into();
            }
            (self.start, self.end) = (0, self.end - self.start);
            hub.shared().read_buffers.release(borrowed);
        }
        // What is kept stays where it is until all of it is decoded.
        let is_empty = self.start == self.end;
        if self.decoder.has_begun() || (self.is_short && !is_empty) {
            let leftover = self.leftover.get_or_insert_with(|| Leftover::new(hub));
            if leftover.began.is_none() {
                leftover.began = Some(hub.shared().timers.now());
                leftover.began_tick = hub.memory().tick();
            }
        } else if let Some(leftover) = &mut self.leftover {
            leftover.began = None;
        }
        self.count(hub, queue);
        if is_empty && !self.decoder.has_begun() {
            self.leftover = None;
        }
    }

    /// Forgets what was read and not decoded, and gives the borrowed buffer back.
    pub(crate) fn discard(&mut self, hub: &Hub, queue: &Queue) {
        if let Some(borrowed) = self.borrowed.take() {
            hub.shared().read_buffers.release(borrowed);
        }
        (self.start, self.end) = (0, 0);
        self.decoder.abandon();
        self.count(hub, queue);
        self.leftover = None;
    }

    /// Whether [`next`](Self::next) may find an event in what was read.
    pub(crate) fn has_unread(&self) -> bool {
        !self.is_short && self.start < self.end
    }

    /// Whether the peer is between two frames of no message, as far as it was read.
    pub(crate) fn is_between(&self) -> bool {
        self.start == self.end && !self.decoder.has_begun() && !self.has_ended
    }

    /// Whether something may lie behind the last event, here or in the transport.
    pub(crate) fn may_have_more(&self) -> bool {
        self.is_full || self.start < self.end
    }

    /// Whether the peer has shut its side down.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether the last read filled its buffer.
    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether a message has begun, for which memory is set aside.
    pub(crate) fn has_begun(&self) -> bool {
        self.decoder.has_begun()
    }

    /// When the message or the frame began that has not come whole; known when a poll has ended.
    pub(crate) fn began(&self) -> Option<Tick> {
        self.leftover.as_ref()?.began
    }

    /// The peer is read again after a time in which it was not, which is not held against it: the
    /// time of a message that has begun begins anew.
    pub(crate) fn resume(&mut self, timers: &Timers) {
        if let Some(began) = self.leftover.as_mut().and_then(|leftover| leftover.began.as_mut()) {
            *began = timers.now();
        }
    }

    /// Counts what is kept, and sets aside what the rest of a message that has begun will need, so
    /// that it can be finished when memory is short.
    fn count(&mut self, hub: &Hub, queue: &Queue) {
        let Some(leftover) = &mut self.leftover else { return };
        let size = |bytes| if bytes == 0 { 0 } else { allocation(bytes) };
        // The buffer of a message is doubled, and while it is copied both are there.
        let message = size(2 * self.decoder.announced());
        let memory = hub.memory();
        if memory.is_limited() && (message > 0 || leftover.charge.bytes() > 0) {
            // What is kept between two messages is not the peer's to move.
            let since = leftover.began.map_or_else(|| memory.tick(), |_| leftover.began_tick);
            queue.set_private_bytes(message, since);
        }
        // An empty rest of what was kept is freed next.
        let kept = if self.start < self.end { leftover.kept.len() } else { 0 };
        leftover.charge.resize(size(kept) + message);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::task::Waker;

    use futures_lite::io::Cursor;

    use super::*;
    use crate::config::Config;
    use crate::net::stream::AnyStream;
    use crate::time::virtual_time::VirtualTime;
    use crate::websocket::decoder::tests::frame;

    /// A reader, and what the peer says next.
    pub(in crate::websocket) struct Peer {
        hub: Hub,
        queue: Arc<Queue>,
        reader: Reader<AnyStream<Cursor<Vec<u8>>>>,
    }
    impl Peer {
        fn new(early: &[u8]) -> Self {
            let (hub, _manager) = Hub::new(Config::default()).expect("valid");
            Self::of(&hub, early)
        }

        pub(in crate::websocket) fn of(hub: &Hub, early: &[u8]) -> Self {
            let queue = Queue::new(&hub.shared().queue_config);
            let stream = AnyStream(Cursor::new(Vec::new()));
            let reader = Reader::new(stream, early.to_vec(), false, hub);
            Self { hub: hub.clone(), queue, reader }
        }

        /// A poll that reads `bytes`, if there are any; returns what it finds.
        pub(in crate::websocket) fn say(&mut self, bytes: &[u8]) -> Vec<Result<Event, Disconnect>> {
            let events = self.read(bytes);
            self.reader.end_poll(&self.hub, &self.queue);
            events
        }

        /// A part of a poll: one read, or more if `bytes` need them.
        pub(in crate::websocket) fn read(
            &mut self,
            bytes: &[u8],
        ) -> Vec<Result<Event, Disconnect>> {
            let cx = &mut Context::from_waker(Waker::noop());
            let (pool, mut events) = (&self.hub.shared().read_buffers, Vec::new());
            self.reader.transport.0 = Cursor::new(bytes.to_vec());
            loop {
                while self.reader.has_unread() {
                    events.extend(self.reader.next(&self.hub, &self.queue, u32::MAX));
                    if matches!(events.last(), Some(Ok(Event::Close(_)) | Err(_))) {
                        return events;
                    }
                }
                if self.reader.transport.0.position() == bytes.len() as u64 {
                    return events;
                }
                assert!(self.reader.poll_fill(cx, pool).is_ready());
            }
        }

        fn charged(&self) -> usize {
            self.hub.memory().charged()
        }
    }
    #[test]
    fn an_unfinished_message_is_charged_whole_from_its_first_bytes_on() {
        let mut peer = Peer::new(b"\x81");
        assert_eq!(peer.charged(), allocation(1), "what came behind the head");
        let stream = frame(0x82, &[7; 40_000]);
        assert_eq!(peer.say(b""), []);
        assert_eq!(peer.charged(), allocation(1), "a byte of a header is kept");
        peer.say(&[&frame(0x81, b"one")[1..], &stream[..20_008]].concat());
        assert_eq!(peer.charged(), allocation(2 * 40_000));
        assert!(peer.reader.has_begun());
        peer.say(&stream[20_008..]);
        assert_eq!(peer.charged(), 0, "it is whole");
        assert!(!peer.reader.has_begun());
        peer.say(&frame(0x02, b"the first of many"));
        assert_eq!(peer.charged(), allocation(2 * Config::MAX_MESSAGE), "as long as one may be");
        peer.say(&frame(0x89, b"a ping between"));
        assert!(peer.reader.has_begun());
        let last = frame(0x80, &[7; 30_000]);
        peer.say(&last[..100]);
        assert_eq!(peer.charged(), allocation(2 * 30_017), "it says how long it becomes");
        peer.say(&last[100..]);
        assert_eq!(peer.charged(), 0);
        peer.say(&stream[..100]);
        assert!(peer.charged() > 0);
        let Peer { hub, reader, .. } = peer;
        drop(reader);
        assert_eq!(hub.memory().charged(), 0);
    }
    #[test]
    fn a_message_that_is_gathered_is_counted_until_it_is_made_or_thrown_away() {
        let mut peer = Peer::new(b"");
        let stream = frame(0x82, &[7; 60_000]);
        assert_eq!(peer.say(&stream[..20_000]), []);
        assert_eq!(peer.charged(), allocation(2 * 60_000));
        assert!(peer.reader.has_begun() && peer.reader.began().is_some());
        assert_eq!(peer.say(&stream[20_000..50_000]), []);
        let mut events = peer.say(&stream[50_000..]);
        let Some(Ok(Event::Message(message))) = events.pop() else { panic!("it is whole") };
        assert_eq!(peer.charged(), message.size());
        assert!(!peer.reader.has_begun() && peer.reader.began().is_none());
        drop(message);
        assert_eq!(peer.charged(), 0);
        peer.say(&stream[..20_000]);
        peer.reader.discard(&peer.hub, &peer.queue);
        assert_eq!(peer.charged(), 0);
        assert!(!peer.reader.has_begun());
        assert!(peer.hub.memory().frame_buffer().try_acquire(60_000).is_some());
    }
    #[test]
    fn a_message_is_timed_from_its_first_byte_to_its_last() {
        let time = VirtualTime::start();
        let mut peer = Peer::new(b"");
        let stream = frame(0x81, b"hello");
        peer.say(&stream[..1]);
        let began = peer.reader.began().expect("a byte of a header begins a message");
        time.advance(std::time::Duration::from_secs(1));
        peer.say(&stream[1..8]);
        assert_eq!(peer.reader.began(), Some(began), "more bytes do not start it anew");
        peer.say(&stream[8..]);
        assert_eq!(peer.reader.began(), None);
        peer.say(&frame(0x01, b"first"));
        let began = peer.reader.began();
        assert!(began.is_some(), "a message that awaits its next fragment is not finished");
        time.advance(std::time::Duration::from_secs(1));
        peer.say(&frame(0x89, b"ping"));
        assert_eq!(peer.reader.began(), began, "a control frame between does not finish it");
        peer.say(&[&frame(0x80, b"last")[..], &stream[..1]].concat());
        assert!(peer.reader.began().is_some_and(|next| Some(next) != began), "the next has begun");
    }
    #[test]
    fn what_waits_to_be_decoded_is_no_message_that_is_late() {
        let mut peer = Peer::new(&frame(0x81, b"hello"));
        peer.reader.end_poll(&peer.hub, &peer.queue);
        assert!(peer.reader.has_unread() && peer.reader.began().is_none());
    }
}
