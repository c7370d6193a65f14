//! The decoder: the frames of a peer in, messages and control events out (RFC 6455 5).
//!
//! The decoder is plain data and does no I/O. It takes the bytes of a peer as they come, cut at any
//! place, and returns one event at a time, so what a peer says before it breaks a rule is heard
//! first. tungstenite reads the frame headers. The limits, the masks and the way from frames to a
//! message are here.
//!
//! A message that lies in one frame in the bytes is made from where it lies. Any other message goes
//! through an [`Assembler`]. The caller keeps what the decoder does not take: the beginning of a
//! header or of a control frame.

use std::io::Cursor;
use std::str;
use std::sync::Arc;

use async_tungstenite::tungstenite::protocol::frame::FrameHeader;
use async_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::config::Config;
use crate::disconnect::{Disconnect, is_sendable};
use crate::frame::{BINARY, TEXT};
use crate::memory::budget::MemoryBudget;
use crate::message::Message;
use crate::websocket::assembler::Assembler;
use crate::websocket::inflate::{compressed_max, inflate, too_long};
use crate::websocket::mask::{rotated, unmask};

/// The longest payload of a control frame (RFC 6455 5.5).
const CONTROL_MAX: u64 = 125;

/// The most bytes that the decoder leaves for the next call: a control frame with a header of 14
/// bytes, less one.
pub(crate) const UNDECODED_MAX: usize = 14 + CONTROL_MAX as usize - 1;

/// What a peer says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A message, counted in the hub's budget.
    Message(Message),
    /// The same of a message that came compressed, and is longer than what came.
    Inflated(Message),
    /// A ping and its payload, which the pong repeats.
    Ping(Vec<u8>),
    Pong,
    Close(Disconnect),
}

/// What a peer is held to; at most 2^30, as every limit is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of payload of a message at most.
    pub(super) message_max: u32,
    /// Frames of a message at most.
    fragments_max: u32,
    /// Whether the peer may compress messages.
    inflates: bool,
}

impl Limits {
    /// `inflates` is whether compression was negotiated.
    pub(crate) fn of(config: &Config, inflates: bool) -> Self {
        let (message_max, fragments_max) = (config.max_message, config.max_fragments);
        let (message_max, fragments_max) = (message_max as u32, fragments_max as u32);
        Self { message_max, fragments_max, inflates }
    }

    /// Bytes of payload of a message at most, as it comes.
    fn payload_max(&self, is_compressed: bool) -> u32 {
        if is_compressed { compressed_max(self.message_max) } else { self.message_max }
    }
}

/// Decodes the frames of one peer.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The message that has begun.
    // Boxed, since an idle client has none.
    unfinished: Option<Box<Unfinished>>,
}

/// A message of which a frame has begun, and its last byte has not come.
#[derive(Debug)]
struct Unfinished {
    assembler: Assembler,
    /// Frames so far.
    fragments: u32,
    /// Bytes of payload that these frames announce.
    announced: u32,
    /// Bytes of payload that the message can come to: more than is announced until its last frame,
    /// and of a compressed one always.
    most: u32,
    /// Bytes of payload of the newest frame that have not come.
    rest: u32,
    /// The masking key of the newest frame, turned to its next byte.
    mask: [u8; 4],
    /// Whether the newest frame is the last of the message.
    is_last: bool,
    /// Of a compressed message, which is gathered as it comes: the first byte of the frame that it
    /// becomes.
    inflates_to: Option<u8>,
}

/// A frame whose header has come and breaks no rule.
struct Frame {
    opcode: OpCode,
    is_final: bool,
    /// Whether a compressed message begins with it.
    is_compressed: bool,
    mask: [u8; 4],
    /// Bytes of the header.
    header: usize,
    /// Bytes of the payload.
    length: usize,
}

impl Decoder {
    /// Decodes `bytes` up to the next event. Returns how many bytes that took, and the event or the
    /// rule that the peer broke.
    ///
    /// Without an event more bytes must come: what is left goes in front of them.
    #[cfg_attr(hublet_small, optimize(speed))]
    pub(crate) fn decode(
        &mut self,
        bytes: &mut [u8],
        limits: Limits,
        memory: &Arc<MemoryBudget>,
    ) -> (usize, Option<Result<Event, Disconnect>>) {
        let mut taken = 0;
        let event = self.next(bytes, &mut taken, limits, memory);
        (taken, event.transpose())
    }

    /// Bytes of payload that the message that has begun can come to; 0 between two messages.
    pub(crate) fn announced(&self) -> usize {
        self.unfinished.as_ref().map_or(0, |message| message.most as usize)
    }

    /// Whether a message has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.unfinished.is_some()
    }

    /// Forgets a message that has begun.
    pub(crate) fn abandon(&mut self) {
        self.unfinished = None;
    }

    #[cfg_attr(hublet_small, optimize(speed))]
    fn next(
        &mut self,
        bytes: &mut [u8],
        taken: &mut usize,
        limits: Limits,
        memory: &Arc<MemoryBudget>,
    ) -> Result<Option<Event>, Disconnect> {
        loop {
            let mut rest = &mut bytes[*taken..];
            if self.unfinished.as_ref().is_none_or(|message| message.rest == 0) {
                let Some(frame) = self.frame(rest, limits)? else { return Ok(None) };
                let whole = rest.get_mut(frame.header..frame.header + frame.length);
                let is_message = frame.is_final && self.unfinished.is_none();
                match (frame.opcode, whole) {
                    (OpCode::Control(_), None) => return Ok(None),
                    (OpCode::Control(control), Some(payload)) => {
                        *taken += frame.header + payload.len();
                        unmask(payload, frame.mask);
                        return event(control, payload).map(Some);
                    }
                    (OpCode::Data(data), Some(payload)) if is_message => {
                        *taken += frame.header + payload.len();
                        let is_ascii = unmask(payload, frame.mask);
                        let first = first_byte(data);
                        if frame.is_compressed {
                            let message = inflate(payload, first, limits.message_max, memory)?;
                            return Ok(Some(Event::Inflated(message)));
                        }
                        if first == TEXT && !is_ascii && str::from_utf8(payload).is_err() {
                            return Err(Disconnect::INVALID_TEXT);
                        }
                        let message = Message::encode_with(memory, first, payload);
                        return Ok(Some(Event::Message(message)));
                    }
                    (OpCode::Data(data), _) => {
                        *taken += frame.header;
                        rest = &mut rest[frame.header..];
                        self.begin(data, &frame, rest.len(), limits, memory);
                    }
                }
            }
            let Some(message) = &mut self.unfinished else { return Ok(None) };
            *taken += message.add(rest)?;
            if message.rest > 0 {
                return Ok(None);
            }
            if message.is_last {
                let Some(message) = self.unfinished.take() else { return Ok(None) };
                return message.finish(limits, memory).map(Some);
            }
        }
    }

    /// The frame that begins with these bytes, once its header is there.
    fn frame(&self, bytes: &[u8], limits: Limits) -> Result<Option<Frame>, Disconnect> {
        let mut cursor = Cursor::new(bytes);
        // The only error that a header can have by itself.
        let parsed = FrameHeader::parse(&mut cursor);
        let parsed = parsed.map_err(|_| broken("frame with a reserved opcode"))?;
        let Some((header, length)) = parsed else { return Ok(None) };
        let FrameHeader { opcode, is_final, rsv1: is_compressed, .. } = header;
        let mask = self.check(&header, length, limits)?;
        let header = cursor.position() as usize;
        Ok(Some(Frame { opcode, is_final, is_compressed, mask, header, length: length as usize }))
    }

    /// Holds a frame to the rules and to the limits, before its payload has come; returns its mask.
    ///
    /// A reserved bit breaks a rule, except RSV1 on the first frame of a message where compression
    /// is negotiated (RFC 7692 6).
    fn check(
        &self,
        header: &FrameHeader,
        length: u64,
        limits: Limits,
    ) -> Result<[u8; 4], Disconnect> {
        // RFC 6455 5.1 and 5.2.
        let mask = header.mask.ok_or_else(|| broken("frame without a mask"))?;
        let begins = matches!(header.opcode, OpCode::Data(Data::Text | Data::Binary));
        if header.rsv1 && !(limits.inflates && begins) || header.rsv2 || header.rsv3 {
            return Err(broken("frame with reserved bits"));
        }
        match (header.opcode, &self.unfinished) {
            // RFC 6455 5.5.
            (OpCode::Control(_), _) if !header.is_final => Err(broken("fragmented control frame")),
            (OpCode::Control(_), _) if length > CONTROL_MAX => {
                Err(broken("control frame longer than 125 bytes"))
            }
            (OpCode::Control(_), _) => Ok(mask),
            // RFC 6455 5.4.
            (OpCode::Data(Data::Continue), None) => {
                Err(broken("continuation frame without a message"))
            }
            (OpCode::Data(Data::Text | Data::Binary), Some(_)) => {
                Err(broken("new message inside a fragmented message"))
            }
            (OpCode::Data(_), message) => {
                let (fragments, announced) = message
                    .as_ref()
                    .map_or((0, 0), |message| (message.fragments, message.announced));
                let is_compressed =
                    message.as_ref().map_or(header.rsv1, |message| message.inflates_to.is_some());
                if fragments >= limits.fragments_max {
                    let reason = format!("more than {} fragments", limits.fragments_max);
                    return Err(Disconnect::new(Disconnect::POLICY.code(), reason));
                }
                if length > u64::from(limits.payload_max(is_compressed) - announced) {
                    return Err(too_long(limits.message_max));
                }
                Ok(mask)
            }
        }
    }

    /// Begins a data frame of which `there` bytes have come, and perhaps more behind it.
    fn begin(
        &mut self,
        data: Data,
        frame: &Frame,
        there: usize,
        limits: Limits,
        memory: &Arc<MemoryBudget>,
    ) {
        let message = self.unfinished.get_or_insert_with(|| {
            Box::new(Unfinished::new(memory, first_byte(data), frame.is_compressed))
        });
        let payload_max = limits.payload_max(message.inflates_to.is_some());
        message.fragments += 1;
        message.announced += frame.length as u32;
        let most = if frame.is_final { message.announced } else { payload_max };
        message.most = if message.inflates_to.is_some() { payload_max } else { most };
        message.rest = frame.length as u32;
        message.mask = frame.mask;
        message.is_last = frame.is_final;
        message.assembler.announce(message.announced as usize, most as usize, there);
    }
}

impl Unfinished {
    fn new(memory: &Arc<MemoryBudget>, first: u8, is_compressed: bool) -> Self {
        // A text that is compressed is no text before it is inflated.
        let assembler = Assembler::new(memory, if is_compressed { BINARY } else { first });
        Self {
            assembler,
            fragments: 0,
            announced: 0,
            most: 0,
            rest: 0,
            mask: [0; 4],
            is_last: false,
            inflates_to: is_compressed.then_some(first),
        }
    }

    /// Takes what has come of the frame's payload; returns how much.
    fn add(&mut self, bytes: &[u8]) -> Result<usize, Disconnect> {
        let taken = bytes.len().min(self.rest as usize);
        if !self.assembler.add(&bytes[..taken], self.mask) {
            return Err(Disconnect::INVALID_TEXT);
        }
        self.mask = rotated(self.mask, taken);
        self.rest -= taken as u32;
        Ok(taken)
    }

    /// Makes the message, once all of it is there.
    fn finish(self, limits: Limits, memory: &Arc<MemoryBudget>) -> Result<Event, Disconnect> {
        match self.inflates_to {
            None => self.assembler.finish().map(Event::Message),
            Some(first) => {
                let payload = self.assembler.payload();
                inflate(payload, first, limits.message_max, memory).map(Event::Inflated)
            }
        }
    }
}

/// The first byte of the one frame of a message.
fn first_byte(data: Data) -> u8 {
    if data == Data::Text { TEXT } else { BINARY }
}

/// What a whole control frame says.
fn event(control: Control, payload: &[u8]) -> Result<Event, Disconnect> {
    match control {
        Control::Ping => Ok(Event::Ping(payload.to_vec())),
        Control::Close => close(payload).map(Event::Close),
        // The header's parser refuses a reserved opcode.
        Control::Pong | Control::Reserved(_) => Ok(Event::Pong),
    }
}

/// What a close frame says (RFC 6455 5.5.1 and 7.4).
fn close(payload: &[u8]) -> Result<Disconnect, Disconnect> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        if payload.is_empty() {
            return Ok(Disconnect::NO_STATUS);
        }
        return Err(broken("malformed close frame"));
    };
    let code = u16::from_be_bytes(*code);
    let reason = str::from_utf8(reason).map_err(|_| Disconnect::INVALID_TEXT)?;
    if is_sendable(code) {
        Ok(Disconnect::new(code, reason.to_owned()))
    } else {
        Ok(broken("Protocol violation"))
    }
}

/// A close reason that names the rule that the peer broke.
fn broken(rule: &'static str) -> Disconnect {
    Disconnect::new(Disconnect::PROTOCOL_ERROR.code(), rule)
}

#[cfg(test)]
pub(crate) mod tests;
