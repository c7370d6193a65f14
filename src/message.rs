//! A message: text or binary, encoded once, shared by every queue that it waits in.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::frame::{BINARY, COMPRESSED, TEXT, header, payload_at};
use crate::label::{label, split_label};
use crate::memory::budget::{Charge, MemoryBudget, allocation};

/// One WebSocket message, text or binary.
///
/// A message is encoded when it is made: its payload is copied once, behind the header of the
/// frame that carries it. A clone is a reference count, so one publish to a thousand clients holds
/// the payload once.
///
/// # Examples
///
/// ```
/// use hublet::Message;
///
/// let text = Message::from("hello");
/// assert_eq!(text.as_text(), Some("hello"));
///
/// let binary = Message::from(vec![1u8, 2, 3]);
/// assert_eq!(binary.as_text(), None);
/// assert_eq!(binary.as_bytes(), [1, 2, 3]);
/// ```
#[derive(Clone)]
pub struct Message(Arc<Shared>);

/// How the frame of a message is written for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// The payload as it is.
    Plain,
    /// The payload compressed, of a message for which that was made in time; of any other as it is.
    Deflate,
}

/// What the clones of a message share.
struct Shared {
    /// The plain frame as it goes to a socket: the unmasked header, then the payload.
    plain: Vec<u8>,
    /// Where the first hub that took the message in has charged it, until the last clone is
    /// dropped.
    budget: OnceLock<Arc<MemoryBudget>>,
    /// The compressed frame, one for all clients of [`Encoding::Deflate`]; `None` inside if they get
    /// the plain one. Never changed once it is known: a client may have a part of the frame.
    deflated: OnceLock<Option<Box<Deflated>>>,
}

/// The compressed frame of a message.
struct Deflated {
    frame: Vec<u8>,
    /// The memory of it, on the account of the hub that made it.
    charge: Charge,
}

/// What the clones of a message share beside its bytes: two counts and the frame's own fields.
const ENVELOPE: usize = allocation(2 * size_of::<usize>() + size_of::<Shared>());

impl Message {
    /// Makes a text message.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::Message;
    /// assert_eq!(Message::text("hello").as_text(), Some("hello"));
    /// assert!(Message::text("").is_text());
    /// ```
    #[must_use]
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::encode(TEXT, text.as_ref().as_bytes())
    }

    /// Makes a binary message.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::Message;
    /// let reading = Message::binary(21.5f64.to_le_bytes());
    /// assert_eq!(reading.len(), 8);
    /// assert_eq!(reading.as_text(), None);
    /// ```
    #[must_use]
    pub fn binary(bytes: impl AsRef<[u8]>) -> Self {
        Self::encode(BINARY, bytes.as_ref())
    }

    /// Returns the text, or `None` for a binary message.
    ///
    /// The payload is checked to be UTF-8 at each call; keep the result rather than asking twice.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if self.is_text() { std::str::from_utf8(self.as_bytes()).ok() } else { None }
    }

    /// Returns the payload, of a text message its UTF-8 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.plain[payload_at(&self.0.plain)..]
    }

    /// Returns whether this is a text message.
    #[must_use]
    pub fn is_text(&self) -> bool {
        self.0.plain[0] == TEXT
    }

    /// Returns the length of the payload in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Returns whether the payload is empty. An empty message is a message like any other.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes a message of the same kind with a label ahead of the payload: the name of a room,
    /// percent-encoded as in a path, and a line feed.
    ///
    /// A client with labels ([`Admission::labels`](crate::Admission::labels)) is sent its messages so,
    /// and sends its own so. The hub adds the label itself: a handler need not.
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::Message;
    /// let message = Message::text("21.5").with_label("sensor/1");
    /// assert_eq!(message.as_text(), Some("sensor%2F1\n21.5"));
    ///
    /// let (room, payload) = message.split_label().expect("it has a label");
    /// assert_eq!((&*room, payload.as_text()), ("sensor/1", Some("21.5")));
    /// ```
    #[must_use]
    pub fn with_label(&self, room: &str) -> Self {
        Self::new(self.labelled(room))
    }

    /// Takes the label off: returns the room that it names, and the message without it. The room is
    /// empty for the label of no room, an empty line.
    ///
    /// `None` if the first line is not a name, percent-encoded, or if there is no line feed. `.` and
    /// `..` are names that no path has, and no label either.
    ///
    /// # Examples
    ///
    /// [`with_label`](Self::with_label) has one. This is refused:
    ///
    /// ```
    /// # use hublet::Message;
    /// for text in ["no line feed", "100%\nno encoding", "a\tb\nno name"] {
    ///     assert!(Message::text(text).split_label().is_none());
    /// }
    /// ```
    #[must_use]
    pub fn split_label(&self) -> Option<(String, Self)> {
        let (room, payload) = split_label(self.as_bytes())?;
        Some((room.into_owned(), Self::encode(self.0.plain[0], payload)))
    }

    /// As [`with_label`](Self::with_label), charged to `memory`.
    pub(crate) fn with_label_in(&self, room: &str, memory: &Arc<MemoryBudget>) -> Self {
        Self::from_frame(self.labelled(room), memory)
    }

    /// The plain frame of the message with a label.
    fn labelled(&self, room: &str) -> Vec<u8> {
        let (label, payload) = (label(room), self.as_bytes());
        let header = header(self.0.plain[0], label.len() + payload.len());
        [&header, &label[..], payload].concat()
    }

    /// The whole frame, ready for a socket.
    pub(crate) fn frame(&self, encoding: Encoding) -> &[u8] {
        match encoding {
            Encoding::Plain => &self.0.plain,
            Encoding::Deflate => match self.0.deflated.get_or_init(|| None) {
                Some(deflated) => &deflated.frame,
                None => &self.0.plain,
            },
        }
    }

    /// Makes the compressed frame if it is shorter than the plain one, unless it is known already
    /// what clients of [`Encoding::Deflate`] get. It is on the account of `memory` until the last
    /// clone of the message is dropped. Returns whether it was made now.
    ///
    /// For the task that publishes, before any client gets the message; and for what a room keeps,
    /// before a client of that encoding gets it.
    pub(crate) fn deflate(&self, memory: &Arc<MemoryBudget>) -> bool {
        if self.0.deflated.get().is_some() {
            return false;
        }
        // Made outside, so that a push of a clone never waits for it. Another thread may be first.
        let deflated = Deflated::new(&self.0.plain, memory);
        let is_made = deflated.is_some();
        self.0.deflated.set(deflated).is_ok() && is_made
    }

    /// Whether the frame that clients of [`Encoding::Deflate`] get is fixed.
    pub(crate) fn is_deflate_fixed(&self) -> bool {
        self.0.deflated.get().is_some()
    }

    /// Fixes what clients of [`Encoding::Deflate`] get from now on; returns whether that is
    /// another frame than the plain one.
    pub(crate) fn fix_deflated(&self) -> bool {
        self.0.deflated.get_or_init(|| None).is_some()
    }

    /// Charges the message to `memory` until its last clone is dropped.
    ///
    /// A message is charged once, to the first hub that takes it in.
    pub(crate) fn charge(&self, memory: &Arc<MemoryBudget>) {
        self.0.budget.get_or_init(|| {
            memory.add(self.0.size());
            Arc::clone(memory)
        });
    }

    /// The memory that the message takes, however many clones it has.
    pub(crate) fn size(&self) -> usize {
        let deflated = self.0.deflated.get().and_then(Option::as_ref);
        self.0.size() + deflated.map_or(0, |deflated| deflated.charge.bytes())
    }

    /// How many clones there are, at least 1.
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Makes a message with the first byte of its frame: [`BINARY`], or [`TEXT`] if it is UTF-8.
    fn encode(first: u8, payload: &[u8]) -> Self {
        let header = header(first, payload.len());
        Self::new([&header, payload].concat())
    }

    /// As [`encode`](Self::encode), charged to `memory`, and in its frame buffer if the message is
    /// long and that is free.
    pub(crate) fn encode_with(memory: &Arc<MemoryBudget>, first: u8, payload: &[u8]) -> Self {
        let header = header(first, payload.len());
        let mut bytes = memory.frame_buffer().acquire(header.len() + payload.len());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(payload);
        Self::from_frame(bytes, memory)
    }

    /// Makes a message of its whole frame, charged to `memory`.
    pub(crate) fn from_frame(bytes: Vec<u8>, memory: &Arc<MemoryBudget>) -> Self {
        let message = Self::new(bytes);
        message.charge(memory);
        message
    }

    fn new(plain: Vec<u8>) -> Self {
        Self(Arc::new(Shared { plain, budget: OnceLock::new(), deflated: OnceLock::new() }))
    }
}

impl Deflated {
    /// The compressed frame for a plain one; `None` if it is not shorter.
    fn new(plain: &[u8], memory: &Arc<MemoryBudget>) -> Option<Box<Self>> {
        let payload = &plain[payload_at(plain)..];
        // No header is longer than that of the plain frame.
        let frame = memory.compress(payload, payload.len(), |compressed| {
            let header = header(plain[0] | COMPRESSED, compressed.len());
            [&header, compressed].concat()
        })?;
        debug_assert!(frame.len() < plain.len());
        let charge = memory.charge(allocation(frame.len()) + allocation(size_of::<Self>()));
        Some(Box::new(Self { frame, charge }))
    }
}

impl Shared {
    /// The memory of the plain frame and of this.
    fn size(&self) -> usize {
        allocation(self.plain.len()) + ENVELOPE
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(memory) = self.budget.take() {
            memory.sub(self.size());
            memory.frame_buffer().release(std::mem::take(&mut self.plain));
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_text() { "text" } else { "binary" };
        write!(f, "Message({kind}, {} bytes)", self.len())
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.0.plain == other.0.plain
    }
}

impl Eq for Message {}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<&[u8]> for Message {
    fn from(bytes: &[u8]) -> Self {
        Self::binary(bytes)
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Self::binary(bytes)
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::binary(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_length_class_is_encoded_as_rfc_6455_5_2_says() {
        for (len, header) in [
            (0, vec![0x82, 0]),
            (125, vec![0x82, 125]),
            (126, vec![0x82, 126, 0, 126]),
            (65535, vec![0x82, 126, 0xff, 0xff]),
            (65536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let payload = vec![7u8; len];
            let message = Message::from(payload.clone());
            assert_eq!(message.frame(Encoding::Plain)[..header.len()], header[..], "length {len}");
            assert_eq!(message.as_bytes(), payload, "length {len}");
            assert_eq!(message.len(), len);
        }
    }
    #[test]
    fn the_next_long_message_has_the_buffer_of_the_first() {
        let memory = Arc::<MemoryBudget>::default();
        let first = Message::encode_with(&memory, BINARY, &[1; 9000]);
        let (clone, address) = (first.clone(), first.frame(Encoding::Plain).as_ptr());
        drop(first);
        let second = Message::encode_with(&memory, BINARY, &[2; 9000]);
        assert_ne!(second.frame(Encoding::Plain).as_ptr(), address, "it is in use");
        drop(clone);
        let third = Message::encode_with(&memory, TEXT, &[b'3'; 8000]);
        assert_eq!(third.frame(Encoding::Plain).as_ptr(), address);
        assert_eq!(third.as_text(), Some(&*"3".repeat(8000)));
    }
    #[test]
    fn a_compressed_frame_is_made_once_and_counted_until_the_message_is_gone() {
        let memory = Arc::<MemoryBudget>::default();
        let message = Message::from("to be or not to be, ".repeat(20));
        message.charge(&memory);
        let plain = memory.charged();
        assert!(message.deflate(&memory));
        let frame = message.frame(Encoding::Deflate);
        assert_eq!((frame[0], usize::from(frame[1])), (TEXT | COMPRESSED, frame.len() - 2));
        assert!(frame.len() < message.frame(Encoding::Plain).len() / 4);
        assert_eq!(message.as_text(), Some(&*"to be or not to be, ".repeat(20)));
        assert_eq!(memory.charged(), message.size());
        assert!(memory.charged() > plain + frame.len());
        let address = frame.as_ptr();
        assert!(!message.clone().deflate(&memory));
        assert_eq!(message.frame(Encoding::Deflate).as_ptr(), address, "the first one stays");
        assert!(message.fix_deflated());
        drop(message);
        assert_eq!(memory.charged(), 0);
    }
    /// A client may have got a part of the plain frame.
    #[test]
    fn a_message_that_was_sent_plain_stays_plain() {
        let memory = Arc::<MemoryBudget>::default();
        for first_looked_at in [true, false] {
            let message = Message::from("to be or not to be, ".repeat(20));
            let plain = message.frame(Encoding::Plain).to_vec();
            if first_looked_at {
                assert_eq!(message.frame(Encoding::Deflate), plain);
            } else {
                assert!(!message.fix_deflated());
            }
            assert!(!message.deflate(&memory));
            assert_eq!(message.frame(Encoding::Deflate), plain);
        }
        let short = Message::from("short");
        assert!(!short.deflate(&memory));
        assert!(!short.fix_deflated(), "it would not be shorter");
        assert_eq!(memory.charged(), 0);
    }
    #[test]
    fn a_shared_message_is_counted_once_and_until_its_last_clone_is_gone() {
        let memory = Arc::<MemoryBudget>::default();
        let message = Message::from("hello");
        message.charge(&memory);
        let clone = message.clone();
        clone.charge(&memory);
        assert_eq!(memory.charged(), message.size());
        assert!(message.size() > message.frame(Encoding::Plain).len());
        drop(message);
        assert_eq!(memory.charged(), clone.size());
        drop(clone);
        assert_eq!(memory.charged(), 0);
    }
}
