//! A message as hubs hand it to each other, and the channels that it goes over.

use std::sync::Arc;

use crate::frame::{BINARY, TEXT};
use crate::hub::client_id::ClientId;
use crate::hub::topic::Topic;
use crate::message::Message;
use crate::name::is_name;

/// The first byte: no text begins with it.
const MARK: u8 = 0xff;

/// The version of the header.
const VERSION: u8 = 1;

/// Stands for no client.
const NO_CLIENT: u64 = u64::MAX;

/// Bytes of the header: the mark, the version, the hub, its client, the kind, the position.
pub(crate) const HEADER: usize = 1 + 1 + 8 + 8 + 1 + 8;

/// What a hub says about a message, in front of its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Envelope {
    /// The hub that published it.
    pub(crate) hub: u64,
    /// The client of that hub that published it and does not get it.
    pub(crate) except: Option<ClientId>,
    /// Whether it is text.
    pub(crate) is_text: bool,
    /// Its position in the room; 0 for none.
    pub(crate) position: u64,
}

impl Envelope {
    /// The header, in front of the payload.
    pub(crate) fn header(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = MARK;
        bytes[1] = VERSION;
        bytes[2..10].copy_from_slice(&self.hub.to_be_bytes());
        let client = self.except.map_or(NO_CLIENT, ClientId::to_bits);
        bytes[10..18].copy_from_slice(&client.to_be_bytes());
        bytes[18] = u8::from(self.is_text);
        bytes[19..].copy_from_slice(&self.position.to_be_bytes());
        bytes
    }

    /// Splits what came over a channel: into the header of a hub and the payload, or the payload
    /// alone, which any other program has published.
    pub(crate) fn split(bytes: &[u8]) -> (Option<Self>, &[u8]) {
        match bytes.split_first_chunk::<HEADER>() {
            Some((header, payload)) if header[..2] == [MARK, VERSION] && header[18] <= 1 => {
                let number = |at: usize| {
                    let bytes = header[at..].first_chunk().copied().unwrap_or_default();
                    u64::from_be_bytes(bytes)
                };
                let client = number(10);
                let except = (client != NO_CLIENT).then(|| ClientId::from_bits(client));
                let (hub, position) = (number(2), number(19));
                (Some(Self { hub, except, is_text: header[18] == 1, position }), payload)
            }
            _ => (None, bytes),
        }
    }

    /// The first byte of the frame of a payload: text must be UTF-8, whatever the header says.
    pub(crate) fn first_byte(envelope: Option<&Self>, payload: &[u8]) -> u8 {
        let may_be_text = envelope.is_none_or(|envelope| envelope.is_text);
        if may_be_text && std::str::from_utf8(payload).is_ok() { TEXT } else { BINARY }
    }

    /// What a hub says about a message of its own.
    pub(crate) fn of(hub: u64, except: Option<ClientId>, message: &Message) -> Self {
        Self { hub, except, is_text: message.is_text(), position: 0 }
    }
}

/// The names of channels and keys under a prefix.
#[derive(Debug)]
pub(crate) struct Names {
    /// The prefix with its colon.
    begin: Vec<u8>,
    hub: u64,
}

/// What a channel carries.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Topic(Topic),
    /// The hub's own: its probe comes back here.
    Own,
}

impl Names {
    pub(crate) fn new(prefix: &str, hub: u64) -> Self {
        Self { begin: format!("{prefix}:").into_bytes(), hub }
    }

    /// The channel of a topic.
    pub(crate) fn channel(&self, topic: &Topic) -> Vec<u8> {
        match topic {
            Topic::All => self.name("\x01all"),
            Topic::Room(room) => self.name(room),
            Topic::User(user) => self.name(&format!("\x01user:{user}")),
        }
    }

    /// The keys of a room that keeps messages: its count and its stream. Another run of the server
    /// has other keys, so that it does not go on with what an old snapshot of it remembers.
    pub(crate) fn keys(&self, run_id: &str, room: &str) -> [Vec<u8>; 2] {
        ["count", "log"].map(|kind| self.name(&format!("\x01{kind}:{run_id}:{room}")))
    }

    /// The channel of the hub's probe, and the key of what it says about its rooms.
    pub(crate) fn own(&self) -> Vec<u8> {
        self.of_hub(self.hub)
    }

    fn of_hub(&self, hub: u64) -> Vec<u8> {
        self.name(&format!("\x01hub:{hub:016x}"))
    }

    /// What matches the own channel of every hub, in a pattern of Redis.
    pub(crate) fn every_hub(&self) -> Vec<u8> {
        self.name("\x01hub:*")
    }

    fn name(&self, rest: &str) -> Vec<u8> {
        [&self.begin, rest.as_bytes()].concat()
    }

    /// What a channel is for; `None` for one that is none of these.
    pub(crate) fn read(&self, channel: &[u8]) -> Option<Channel> {
        let rest = channel.strip_prefix(&*self.begin)?;
        if channel == self.own() {
            return Some(Channel::Own);
        }
        let rest = std::str::from_utf8(rest).ok()?;
        let topic = match rest.strip_prefix('\x01') {
            Some("all") => Topic::All,
            Some(rest) => Topic::User(name(rest.strip_prefix("user:")?)?),
            None => Topic::Room(name(rest)?),
        };
        Some(Channel::Topic(topic))
    }
}

fn name(name: &str) -> Option<Arc<str>> {
    is_name(name).then(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_anything_else_is_a_payload() {
        for except in [None, Some(ClientId::from_bits(0)), Some(ClientId::from_bits(7 << 32 | 9))] {
            let envelope = Envelope { hub: 5, except, is_text: true, position: 1 << 52 };
            let bytes = [&envelope.header()[..], b"hello"].concat();
            assert_eq!(Envelope::split(&bytes), (Some(envelope), &b"hello"[..]));
            for end in 0..HEADER {
                assert_eq!(Envelope::split(&bytes[..end]), (None, &bytes[..end]));
            }
            let mut other = bytes.clone();
            other[1] = 2;
            assert_eq!(Envelope::split(&other), (None, &other[..]));
        }
        assert_eq!(Envelope::split(b"hello"), (None, &b"hello"[..]));
        assert_eq!(Envelope::first_byte(None, b"hello"), TEXT);
        assert_eq!(Envelope::first_byte(None, b"\xff"), BINARY);
    }

    #[test]
    fn channels_read_back() {
        let names = Names::new("p", 10);
        for (topic, channel) in [
            (Topic::All, "p:\x01all"),
            (Topic::Room("a:b".into()), "p:a:b"),
            (Topic::User("ada".into()), "p:\x01user:ada"),
        ] {
            assert_eq!(names.channel(&topic), channel.as_bytes());
            assert_eq!(names.read(channel.as_bytes()), Some(Channel::Topic(topic)));
        }
        assert_eq!(names.read(b"p:\x01hub:000000000000000a"), Some(Channel::Own));
        assert_eq!(names.own(), b"p:\x01hub:000000000000000a");
        for other in ["p:\x01hub:000000000000000b", "p", "q:a", "p:", "p:\x01user:", "p:\x01x"] {
            assert_eq!(names.read(other.as_bytes()), None, "{other:?}");
        }
    }
}
