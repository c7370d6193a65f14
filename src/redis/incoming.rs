//! What the server sends, as the hub takes it.

use std::sync::Arc;

use crate::hub::client_id::ClientId;
use crate::hub::topic::Topic;
use crate::memory::budget::MemoryBudget;
use crate::message::Message;
use crate::redis::envelope::{Channel, Envelope, Names};
use crate::redis::resp::Value;

/// What a message that comes is read with.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) names: Names,
    /// This hub.
    pub(crate) hub: u64,
    /// Where a message is charged.
    pub(crate) memory: Arc<MemoryBudget>,
    /// Bytes of the longest message.
    pub(crate) message_max: usize,
}

/// What came from the server, for the hub.
pub(crate) enum Incoming {
    /// A message for members of this hub.
    Message {
        topic: Topic,
        except: Option<ClientId>,
        message: Message,
        is_own: bool,
        position: u64,
    },
    /// A message that says only that the connection works.
    Heard,
    /// A message that is longer than the longest.
    TooLong,
    /// A channel is subscribed or left.
    Confirmed,
    /// The answer to a command.
    Answer(Answer),
    /// What the hub has not asked for.
    Ignored,
}

/// The answer to a command.
pub(crate) enum Answer {
    Number(usize),
    Error(String),
    List(Vec<Vec<u8>>),
    /// A message has a position, and so many hubs heard it.
    Positioned {
        hubs: usize,
        position: u64,
    },
    /// The position of a room's newest message, and the newest messages, oldest first.
    Kept {
        top: u64,
        messages: Vec<Incoming>,
    },
    Other,
}

impl Incoming {
    /// Reads what the server has sent.
    pub(crate) fn read(value: &Value<'_>, reader: &Reader) -> Self {
        let parts = match value {
            Value::Push(parts) => parts,
            Value::Number(number) => {
                return Self::Answer(Answer::Number(usize::try_from(*number).unwrap_or_default()));
            }
            Value::Error(error) => {
                return Self::Answer(Answer::Error(String::from_utf8_lossy(error).into_owned()));
            }
            Value::List(list) => {
                if let Some(answer) = scripted(list, reader) {
                    return Self::Answer(answer);
                }
                let texts = list.iter().filter_map(|value| value.text().map(<[u8]>::to_vec));
                return Self::Answer(Answer::List(texts.collect()));
            }
            Value::Text(_) | Value::Null => return Self::Answer(Answer::Other),
        };
        let texts = (parts.first().and_then(Value::text), parts.get(1).and_then(Value::text));
        match texts {
            (Some(b"message"), Some(channel)) => {
                let payload = parts.get(2).and_then(Value::text).unwrap_or_default();
                match reader.names.read(channel) {
                    Some(Channel::Topic(topic)) => message(reader, topic, payload),
                    Some(Channel::Own) => Self::Heard,
                    None => Self::Ignored,
                }
            }
            (Some(b"subscribe" | b"unsubscribe"), _) => Self::Confirmed,
            _ => Self::Ignored,
        }
    }
}

/// Reads an answer of the script. Its first text is one that no other answer begins with.
fn scripted(list: &[Value<'_>], reader: &Reader) -> Option<Answer> {
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse().ok();
    match (list.first()?.text()?, list.get(1)?, list.get(2)?) {
        (b"\x01placed", Value::Number(hubs), position) => Some(Answer::Positioned {
            hubs: usize::try_from(*hubs).unwrap_or_default(),
            position: number(position.text()?)?,
        }),
        (b"\x01kept", top, Value::List(messages)) => {
            let texts = messages.iter().rev().filter_map(Value::text);
            let messages = texts.map(|bytes| message(reader, Topic::All, bytes)).collect();
            Some(Answer::Kept { top: number(top.text()?)?, messages })
        }
        _ => None,
    }
}

fn message(reader: &Reader, topic: Topic, bytes: &[u8]) -> Incoming {
    let (envelope, payload) = Envelope::split(bytes);
    if payload.len() > reader.message_max {
        return Incoming::TooLong;
    }
    let first = Envelope::first_byte(envelope.as_ref(), payload);
    let message = Message::encode_with(&reader.memory, first, payload);
    let own = envelope.filter(|envelope| envelope.hub == reader.hub);
    let except = own.and_then(|envelope| envelope.except);
    let position = envelope.map_or(0, |envelope| envelope.position);
    Incoming::Message { topic, except, message, is_own: own.is_some(), position }
}
