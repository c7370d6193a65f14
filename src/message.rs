//! A message: text or binary, encoded once, shared by every queue that it waits in.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::frame::{BINARY, TEXT, header, payload_at};
use crate::memory::budget::{MemoryBudget, allocation};

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
}

/// What the clones of a message share.
///
/// A further [`Encoding`] has a `OnceLock` here, filled once for all clients that have it.
struct Shared {
    /// The plain frame as it goes to a socket: the unmasked header, then the payload.
    plain: Vec<u8>,
    /// Where the first hub that took the message in has charged it, until the last clone is
    /// dropped.
    budget: OnceLock<Arc<MemoryBudget>>,
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

    /// The whole frame, ready for a socket.
    pub(crate) fn frame(&self, encoding: Encoding) -> &[u8] {
        match encoding {
            Encoding::Plain => &self.0.plain,
        }
    }

    /// Charges the message to `memory` until its last clone is dropped.
    ///
    /// A message is charged once, to the first hub that takes it in.
    pub(crate) fn charge(&self, memory: &Arc<MemoryBudget>) {
        self.0.budget.get_or_init(|| {
            memory.add(self.size());
            Arc::clone(memory)
        });
    }

    /// The memory that the message takes, however many clones it has.
    pub(crate) fn size(&self) -> usize {
        self.0.size()
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
        Self(Arc::new(Shared { plain, budget: OnceLock::new() }))
    }
}

impl Shared {
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
    use crate::frame::{BINARY, TEXT};

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
