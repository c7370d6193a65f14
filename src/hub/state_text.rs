//! What a hub hands to the process that takes it over, as text: a line for the hub, one for each room
//! with one for each message that it keeps, and one for each connection.
//!
//! ```text
//! hub 2 started=1764500000 uptime=9000000000 generation=3 count.recipients=17
//! room 0 name=news born=7000 newest=7002 outlives=1 message=8000000000
//! text from=0-2 body=hello
//! binary body=%00
//! websocket 0 peer=192.0.2.1:5000 id=0-2 since=1764500000 user=ada rooms=news idle=1200
//! http 1 peer=unix
//! ```
//!
//! A field without a value of its own is left out. A reader takes the fields that it knows, each once,
//! and refuses any other, so that nothing is lost unseen.

use std::fmt::Write as _;
use std::str::FromStr;

use crate::hub::state::{Client, Connection, Cursor, Kept, Room, State};
use crate::message::Message;

/// The version of the text. It grows with every field that an older reader would refuse.
pub(crate) const VERSION: u32 = 2;

/// The oldest version that is read: the one before this one, of which a field that is missing has its
/// default.
pub(crate) const VERSION_MIN: u32 = 1;

/// Connections at most: no process has more descriptors.
const CONNECTIONS_MAX: usize = 1 << 20;

/// Rooms at most, and messages that they keep: far more than fit into memory.
const ROOMS_MAX: usize = 1 << 24;

/// The highest position: that of a room that began at the highest one, with room for as many messages
/// again.
const POSITION_MAX: u64 = 1 << 53;

/// The latest time on the clock of the rooms, in nanoseconds: more than a century.
const UPTIME_MAX: u64 = 1 << 62;

/// Rooms of one client at most, and counters: far more than any hub has.
const LIST_MAX: usize = 1 << 16;

impl State {
    /// The number of the line of a connection.
    pub(crate) fn line_of(&self, nth: usize) -> usize {
        let of_room = |room: &Room| 1 + room.messages.len();
        2 + self.rooms.iter().map(of_room).sum::<usize>() + nth
    }

    /// Writes the text.
    pub(crate) fn write(&self) -> String {
        let mut text = format!("hub {VERSION}");
        field(&mut text, "started", &self.started);
        field(&mut text, "link", &self.link);
        field(&mut text, "uptime", &self.uptime);
        field(&mut text, "generation", &self.generation);
        for (name, count) in &self.counters {
            // Writing to a string cannot fail.
            let _ = write!(text, " count.{name}={count}");
        }
        list(&mut text, "refused", self.refused.iter().map(u64::to_string));
        text.push('\n');
        self.rooms.iter().enumerate().for_each(|(nth, room)| room.write(nth, &mut text));
        for (nth, connection) in self.connections.iter().enumerate() {
            connection.write(nth, &mut text);
        }
        text
    }

    /// Reads a text.
    ///
    /// # Errors
    ///
    /// The number of the line that is not as [`write`](Self::write) makes it, from 1.
    pub(crate) fn read(text: &str) -> Result<Self, usize> {
        let mut lines = text.split_terminator('\n');
        let mut state = lines.next().and_then(Self::read_hub).ok_or(1_usize)?;
        let mut number = 1;
        for line in lines {
            number += 1;
            state.read_line(line).ok_or(number)?;
        }
        // What a room has counted begins with what it keeps.
        let is_whole = |room: &Room| {
            let kept = room.messages.len() as u64;
            room.newest <= POSITION_MAX && room.newest.checked_sub(room.born) >= Some(kept)
        };
        let is_timely = state.uptime <= UPTIME_MAX;
        let is_whole = text.ends_with('\n') && is_timely && state.rooms.iter().all(is_whole);
        if is_whole { Ok(state) } else { Err(number) }
    }

    fn read_line(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let kind = words.next()?;
        if let "text" | "binary" = kind {
            // It belongs to the room above it.
            let room = self.rooms.last_mut().filter(|_| self.connections.is_empty())?;
            room.messages.push(Kept::read(kind == "text", Fields::new(words)?)?);
            return Some(());
        }
        let is_room = kind == "room";
        let (there, most) = if is_room {
            (self.rooms.len(), ROOMS_MAX)
        } else {
            (self.connections.len(), CONNECTIONS_MAX)
        };
        number::<usize>(words.next()?).filter(|&index| index == there && there < most)?;
        let fields = Fields::new(words)?;
        if !is_room {
            self.connections.push(Connection::read(kind, fields)?);
        } else if self.connections.is_empty() {
            self.rooms.push(Room::read(fields)?);
        } else {
            return None;
        }
        Some(())
    }

    fn read_hub(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let is_known = |version: &u32| (VERSION_MIN..=VERSION).contains(version);
        words.next().filter(|&word| word == "hub")?;
        number::<u32>(words.next()?).filter(is_known)?;
        let (mut state, mut fields) = (Self::default(), Fields::new(words)?);
        state.started = fields.number("started")?;
        state.link = fields.number("link")?;
        state.uptime = fields.number("uptime")?;
        state.generation = fields.number("generation")?;
        state.refused = fields.list("refused")?.iter().map(|n| number(n)).collect::<Option<_>>()?;
        for (name, count) in std::mem::take(&mut fields.0) {
            let name = name.strip_prefix("count.")?.to_owned();
            if state.counters.iter().any(|(other, _)| *other == name) {
                return None;
            }
            state.counters.push((name, number(count)?));
        }
        Some(state)
    }
}

impl Room {
    fn write(&self, nth: usize, text: &mut String) {
        // Writing to a string cannot fail.
        let _ = write!(text, "room {nth} name=");
        escape(text, &self.name);
        field(text, "born", &self.born);
        field(text, "newest", &self.newest);
        field(text, "outlives", &u8::from(self.outlives));
        field(text, "message", &self.last_message);
        field(text, "member", &self.last_member);
        text.push('\n');
        for Kept { message, except } in &self.messages {
            text.push_str(if message.is_text() { "text" } else { "binary" });
            if let Some((slot, generation)) = except {
                let _ = write!(text, " from={slot}-{generation}");
            }
            if !message.is_empty() {
                text.push_str(" body=");
            }
            match message.as_text() {
                Some(payload) => escape(text, payload),
                // Each byte as the character of its number.
                None => {
                    message.as_bytes().iter().for_each(|&byte| escape_char(text, byte.into()));
                }
            }
            text.push('\n');
        }
    }

    fn read(mut fields: Fields<'_>) -> Option<Self> {
        let room = Self {
            name: unescape(fields.take("name")?)?,
            born: fields.number("born")?,
            newest: fields.number("newest")?,
            outlives: fields.bit("outlives")?,
            last_message: fields.number("message")?,
            last_member: fields.number("member")?,
            messages: Vec::new(),
        };
        fields.0.is_empty().then_some(room)
    }
}

impl Kept {
    fn read(is_text: bool, mut fields: Fields<'_>) -> Option<Self> {
        let except = match fields.take("from") {
            Some(id) => Some(id_of(id)?),
            None => None,
        };
        let body = unescape(fields.take("body").unwrap_or_default())?;
        let message = if is_text {
            Message::text(body)
        } else {
            let byte = |char: char| u8::try_from(u32::from(char)).ok();
            Message::binary(body.chars().map(byte).collect::<Option<Vec<_>>>()?)
        };
        fields.0.is_empty().then_some(Self { message, except })
    }
}

impl Connection {
    fn write(&self, nth: usize, text: &mut String) {
        let kind = match &self.client {
            None => "http",
            Some(Client { events: None, .. }) => "websocket",
            Some(_) => "events",
        };
        // Writing to a string cannot fail.
        let _ = write!(text, "{kind} {nth} peer=");
        escape(text, &self.peer);
        if let Some(client) = &self.client {
            let _ = write!(text, " id={}-{}", client.id.0, client.id.1);
            field(text, "since", &client.since);
            field(text, "format", &client.events.unwrap_or_default());
            list(text, "rooms", client.rooms.iter());
            field(text, "missed", &client.missed);
            field(text, "deflates", &u8::from(client.deflates));
            field(text, "labels", &u8::from(client.labels));
            field(text, "idle", &client.idle);
            if let Some(cursor) = &client.cursor {
                text.push_str(" at=");
                escape(text, &cursor.room);
                field(text, "reader", &cursor.reader);
                field(text, "position", &cursor.position);
                field(text, "owed", &cursor.unread);
            }
            for (name, value) in [("user", client.user.as_deref()), ("about", Some(&*client.about))]
            {
                if let Some(value) = value.filter(|value| !value.is_empty()) {
                    let _ = write!(text, " {name}=");
                    escape(text, value);
                }
            }
        }
        text.push('\n');
    }

    fn read(kind: &str, mut fields: Fields<'_>) -> Option<Self> {
        let peer = unescape(fields.take("peer")?)?;
        let is_events = kind == "events";
        let client = match kind {
            "http" => None,
            "websocket" | "events" => {
                let id = id_of(fields.take("id")?)?;
                let format = fields.number("format")?;
                if format != 0 && !is_events {
                    return None;
                }
                Some(Client {
                    events: is_events.then_some(format),
                    id,
                    since: fields.number("since")?,
                    user: match fields.take("user") {
                        Some(user) => Some(unescape(user).filter(|user| !user.is_empty())?),
                        None => None,
                    },
                    rooms: {
                        let rooms = fields.list("rooms")?;
                        rooms.into_iter().map(unescape).collect::<Option<_>>()?
                    },
                    missed: fields.number("missed")?,
                    deflates: fields.bit("deflates")?,
                    labels: fields.bit("labels")?,
                    cursor: match fields.take("at") {
                        Some(room) => Some(Cursor {
                            room: unescape(room)?,
                            reader: fields.number("reader")?,
                            position: fields.number("position")?,
                            unread: fields.number("owed")?,
                        }),
                        None => None,
                    },
                    idle: fields.number("idle")?,
                    about: unescape(fields.take("about").unwrap_or_default())?,
                })
            }
            _ => return None,
        };
        fields.0.is_empty().then_some(Self { peer, client })
    }
}

/// The fields of a line that are still to be read.
struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Fields<'a> {
    /// `None` if a word is no field.
    fn new(words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let fields: Vec<_> =
            words.take(LIST_MAX).map(|word| word.split_once('=')).collect::<Option<_>>()?;
        Some(Self(fields))
    }

    /// A second field of the name stays, and is refused as one that is not known.
    fn take(&mut self, name: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|(other, _)| *other == name)?;
        Some(self.0.remove(at).1)
    }

    /// The number of a field; its default, where it is missing.
    fn number<T: FromStr + Default>(&mut self, name: &str) -> Option<T> {
        self.take(name).map_or_else(|| Some(T::default()), number)
    }

    fn bit(&mut self, name: &str) -> Option<bool> {
        let bit: u8 = self.number(name)?;
        (bit < 2).then_some(bit == 1)
    }

    fn list(&mut self, name: &str) -> Option<Vec<&'a str>> {
        let Some(parts) = self.take(name) else { return Some(Vec::new()) };
        let parts: Vec<_> = parts.split(',').take(LIST_MAX + 1).collect();
        (parts.len() <= LIST_MAX).then_some(parts)
    }
}

/// Reads a slot and its generation.
fn id_of(text: &str) -> Option<(u32, u32)> {
    let (slot, generation) = text.split_once('-')?;
    Some((number(slot)?, number(generation)?))
}

/// Reads a number, which has no sign.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|digit| digit.is_ascii_digit()))
}

fn field<T: ToString + Default + PartialEq>(text: &mut String, name: &str, value: &T) {
    if *value != T::default() {
        let _ = write!(text, " {name}={}", value.to_string());
    }
}

fn list(text: &mut String, name: &str, parts: impl Iterator<Item = impl AsRef<str>>) {
    for (nth, part) in parts.enumerate() {
        if nth == 0 {
            let _ = write!(text, " {name}=");
        } else {
            text.push(',');
        }
        escape(text, part.as_ref());
    }
}

/// Whether a byte would end a field or a line, or be a part of another's escape.
fn is_special(byte: u8) -> bool {
    byte <= b' ' || matches!(byte, b'%' | b',' | 0x7f)
}

/// Appends a text with each special byte as `%` and two digits.
fn escape(text: &mut String, value: &str) {
    value.chars().for_each(|char| escape_char(text, char));
}

fn escape_char(text: &mut String, char: char) {
    if char.is_ascii() && is_special(char as u8) {
        // Writing to a string cannot fail.
        let _ = write!(text, "%{:02x}", char as u8);
    } else {
        text.push(char);
    }
}

/// `None` for what [`escape`] does not write.
fn unescape(value: &str) -> Option<String> {
    let mut parts = value.split('%');
    let mut text = parts.next()?.to_owned();
    for part in parts {
        let digits = part.get(..2)?;
        let byte = u8::from_str_radix(digits, 16).ok()?;
        let is_ours = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        if !is_ours || !is_special(byte) {
            return None;
        }
        text.push(char::from(byte));
        text.push_str(&part[2..]);
    }
    (!value.bytes().any(|byte| is_special(byte) && byte != b'%')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let client = Client {
            events: None,
            id: (3, 17),
            since: 1_764_500_000,
            user: Some("ada & co, 100 %".to_owned()),
            rooms: vec!["one room".to_owned(), "a,b".to_owned(), "übrige=".to_owned()],
            missed: 5,
            deflates: true,
            labels: true,
            cursor: Some(Cursor { room: "a,b".to_owned(), reader: 2, position: 7001, unread: 1 }),
            idle: 12_000,
            about: "echo=1 end=7".to_owned(),
        };
        let reader = Client { events: Some(3), id: (0, 0), ..Client::default() };
        let connection = |peer: &str, client| Connection { peer: peer.to_owned(), client };
        let kept = |message: Message, except| Kept { message, except };
        State {
            started: 1_764_400_000,
            link: u64::MAX,
            uptime: 9_000_000_000,
            generation: 18,
            counters: vec![("recipients".to_owned(), 9), ("bytes_sent".to_owned(), 0)],
            refused: vec![0, 4, 0],
            rooms: vec![
                Room {
                    name: "a,b".to_owned(),
                    born: 7000,
                    newest: 7003,
                    outlives: true,
                    last_message: 8_000_000_000,
                    last_member: 0,
                    messages: vec![
                        kept("a text, of \"two\"\nlines: 100 %=ü\u{7f}".into(), Some((3, 17))),
                        kept((0..=255).collect::<Vec<u8>>().into(), None),
                        kept("".into(), None),
                    ],
                },
                Room { name: "empty".to_owned(), born: 1, newest: 1, ..Room::default() },
            ],
            connections: vec![
                connection("192.0.2.1:5000", Some(client)),
                connection("unix", None),
                connection("[fe80::1%3]:80", Some(reader)),
            ],
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for state in [state(), State::default()] {
            let text = state.write();
            assert_eq!(State::read(&text).as_ref(), Ok(&state), "{text}");
        }
        let lines = state().write().lines().count();
        assert_eq!(lines, state().line_of(3) - 1, "a line for each connection");
    }

    #[test]
    fn a_text_that_no_hub_has_written_is_refused_by_its_line() {
        for (text, line) in [
            ("", 1),
            ("hub 1", 1),
            ("hub 3\n", 1),
            ("hub 0\n", 1),
            ("hub +1\n", 1),
            ("club 1\n", 1),
            ("hub 1 started=-1\n", 1),
            ("hub 1 started=1 started=1\n", 1),
            ("hub 1 news=1\n", 1),
            ("hub 1 count.a=1 count.a=1\n", 1),
            ("hub 1\nhttp 1 peer=unix\n", 2),
            ("hub 1\nhttp 0\n", 2),
            ("hub 1\nhttp 0 peer=unix\nhttp 1 peer=unix id=0-0\n", 3),
            ("hub 1\nwebsocket 0 peer=unix\n", 2),
            ("hub 1\nwebsocket 0 peer=unix id=0\n", 2),
            ("hub 1\nwebsocket 0 peer=unix id=0-0 format=1\n", 2),
            ("hub 1\nwebsocket 0 peer=unix id=0-0 colour=red\n", 2),
            ("hub 1\nwebsocket 0 peer=unix id=0-0 user=%zz\n", 2),
            ("hub 1\nwebsocket 0 peer=unix id=0-0 user=%41\n", 2),
            ("hub 1\nwebsocket 0 peer=unix id=0-0 user=%2\n", 2),
            ("hub 1\nwebsocket 0 peer=unix id=0-4294967296\n", 2),
            ("hub 1\nhttp 0 peer=unix", 2),
            ("hub 1\nroom 0 name=a born=2 newest=1\n", 2),
            ("hub 1\nroom 0 name=a newest=9007199254740993\n", 2),
            ("hub 1\nroom 0 name=a outlives=2\n", 2),
            ("hub 1\nroom 0 name=a\ntext body=a\n", 3),
            ("hub 1\nroom 0 name=a newest=1\ntext body=a,b\n", 3),
            ("hub 1\nroom 0 name=a newest=1\nbinary body=\u{100}\n", 3),
            ("hub 1\ntext body=a\n", 2),
            ("hub 1\nhttp 0 peer=unix\nroom 0 name=a\n", 3),
            ("hub 1\nroom 0 name=a newest=1\nhttp 0 peer=unix\ntext body=a\n", 4),
            ("hub 1\nwebsocket 0 peer=unix id=0-0 reader=1\n", 2),
        ] {
            assert_eq!(State::read(text), Err(line), "{text:?}");
        }
    }

    /// A hub of the version before knows no labels.
    #[test]
    fn the_version_before_is_read() {
        let text = "hub 1\nwebsocket 0 peer=unix id=1-2 rooms=a,b deflates=1\n";
        let read = State::read(text).expect("it is whole");
        let client = read.connections[0].client.as_ref().expect("a client");
        assert_eq!((client.rooms.len(), client.deflates, client.labels), (2, true, false));
    }

    #[test]
    fn a_field_that_is_missing_has_its_default() {
        let read = State::read("hub 1\nevents 0 peer=unix id=1-2\n").expect("it is whole");
        let client = read.connections[0].client.as_ref().expect("a client");
        assert_eq!((client.events, client.id, client.missed), (Some(0), (1, 2), 0));
        assert_eq!((client.user.as_deref(), client.rooms.len()), (None, 0));
    }
}
