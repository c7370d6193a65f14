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

use std::collections::HashMap;
use std::str::SplitTerminator;
use std::time::Duration;

use crate::config::Config;
use crate::hub::room::POSITION_MAX;
use crate::hub::state::{Client, Conflation, Connection, Cursor, KeptMessage, Newest, Room, State};
use crate::hub::state_fields::{
    Fields, Words, begin, digits, escape, field, id, id_of, list, number, push, text_field,
    unescape,
};
use crate::message::{Encoding, Message};
use crate::peer::Peer;

/// The version of the text. It grows with every field that an older reader would refuse.
pub(crate) const VERSION: u32 = 3;

/// The oldest version that is read: the one before this one, of which a field that is missing has its
/// default.
pub(crate) const VERSION_MIN: u32 = 2;

/// Connections at most: no process has more descriptors.
const CONNECTIONS_MAX: usize = 1 << 20;

/// Rooms at most, and messages that they keep: far more than fit into memory.
const ROOMS_MAX: usize = 1 << 24;

/// The latest time on the clock of the rooms, in nanoseconds: more than a century.
const UPTIME_MAX: u64 = 1 << 62;

/// Bytes that the line of a connection takes, about: the memory for the text is taken at once.
pub(crate) const LINE_BYTES: usize = 128;

impl State {
    /// Writes the text up to the connections, of which there will be so many.
    pub(crate) fn write(&self, connections: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity((self.rooms.len() + connections + 8) * LINE_BYTES);
        push(&mut text, b"hub ");
        digits(&mut text, VERSION.into());
        field(&mut text, "started", self.started);
        field(&mut text, "link", self.link);
        field(&mut text, "uptime", self.uptime);
        field(&mut text, "generation", self.generation);
        for (name, count) in &self.counters {
            push(&mut text, b" count.");
            push(&mut text, name.as_bytes());
            text.push(b'=');
            digits(&mut text, *count);
        }
        list(&mut text, "refused", &self.refused, |text, count| digits(text, *count));
        text.push(b'\n');
        self.rooms.iter().enumerate().for_each(|(nth, room)| room.write(nth, &mut text));
        text
    }

    /// Reads a text up to its connections; returns these too, which are still to be read.
    ///
    /// # Errors
    ///
    /// The number of the line that is not as [`write`](Self::write) makes it, from 1.
    pub(crate) fn read(text: &str) -> Result<(Self, Connections<'_>), usize> {
        let (mut lines, mut fields) = (text.split_terminator('\n'), Fields::default());
        let first = lines.next().and_then(|line| Self::read_hub(line, &mut fields));
        let mut state = first.filter(|state| state.uptime <= UPTIME_MAX).ok_or(1_usize)?;
        let (mut number, mut rest) = (1, lines.clone());
        while let Some(line) = lines.next() {
            if !state.read_line(line, &mut fields).ok_or(number + 1)? {
                break;
            }
            number += 1;
            rest = lines.clone();
        }
        let mut line = 1;
        for room in &state.rooms {
            line += 1;
            // What a room has counted begins with what it keeps.
            let kept = room.messages.len() as u64;
            if room.newest > POSITION_MAX || room.newest.checked_sub(room.born) < Some(kept) {
                return Err(line);
            }
            line += room.messages.len();
        }
        if !text.ends_with('\n') {
            return Err(text.lines().count());
        }
        Ok((state, Connections { lines: rest, fields, number, read: 0, bodies: Vec::new() }))
    }

    /// Reads the line of a room, or of a message that the room above it keeps; `Some(false)` for any
    /// other line.
    fn read_line<'a>(&mut self, line: &'a str, fields: &mut Fields<'a>) -> Option<bool> {
        let mut words = Words::new(line, b' ');
        match words.next()? {
            "room" => {
                let is_next = |&index: &usize| index == self.rooms.len() && index < ROOMS_MAX;
                number(words.next()?).filter(is_next)?;
                self.rooms.push(Room::read(fields.fill(words)?)?);
            }
            kind @ ("text" | "binary") => {
                let room = self.rooms.last_mut()?;
                room.messages.push(KeptMessage::read(kind == "text", fields.fill(words)?)?);
            }
            _ => return Some(false),
        }
        Some(true)
    }

    fn read_hub<'a>(line: &'a str, fields: &mut Fields<'a>) -> Option<Self> {
        let mut words = Words::new(line, b' ');
        let is_known = |version: &u32| (VERSION_MIN..=VERSION).contains(version);
        words.next().filter(|&word| word == "hub")?;
        number::<u32>(words.next()?).filter(is_known)?;
        let (mut state, fields) = (Self::default(), fields.fill(words)?);
        state.started = fields.number("started")?;
        state.link = fields.number("link")?;
        state.uptime = fields.number("uptime")?;
        state.generation = fields.number("generation")?;
        state.refused = fields.list("refused")?.iter().map(|n| number(n)).collect::<Option<_>>()?;
        for (name, count) in fields.rest() {
            let name = name.strip_prefix("count.")?;
            if state.counters.iter().any(|(other, _)| other == name) {
                return None;
            }
            state.counters.push((name.to_owned(), number(count)?));
        }
        Some(state)
    }
}

/// The connections of a state that are still to be read: each with the number of its line, or the number
/// of a line that is none.
pub(crate) struct Connections<'a> {
    lines: SplitTerminator<'a, char>,
    fields: Fields<'a>,
    /// The number of the line before.
    number: usize,
    /// Connections that were read.
    read: usize,
    /// The messages that wait in clients, each behind the connection whose line has the body, in their
    /// order.
    bodies: Vec<(usize, Message)>,
}

impl<'a> Iterator for Connections<'a> {
    type Item = Result<(usize, Connection<'a>), usize>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.lines.next()?;
        self.number += 1;
        let connection = self.read_line(line).map(|connection| (self.number, connection));
        Some(connection.ok_or(self.number))
    }
}

impl<'a> Connections<'a> {
    fn read_line(&mut self, line: &'a str) -> Option<Connection<'a>> {
        let mut words = Words::new(line, b' ');
        let kind = words.next()?;
        let is_next = |&index: &usize| index == self.read && index < CONNECTIONS_MAX;
        number(words.next()?).filter(is_next)?;
        let nth = self.read;
        self.read += 1;
        Connection::read(kind, self.fields.fill(words)?, nth, &mut self.bodies)
    }
}

impl Room {
    fn write(&self, nth: usize, text: &mut Vec<u8>) {
        push(text, b"room ");
        digits(text, nth as u64);
        begin(text, "name");
        escape(text, &self.name);
        field(text, "born", self.born);
        field(text, "newest", self.newest);
        field(text, "outlives", self.outlives);
        field(text, "message", self.last_message);
        field(text, "member", self.last_member);
        text.push(b'\n');
        for KeptMessage { message, except } in &self.messages {
            push(text, if message.is_text() { b"text" } else { b"binary" });
            if let Some(except) = *except {
                begin(text, "from");
                id(text, except);
            }
            write_body(text, message);
            text.push(b'\n');
        }
    }

    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let room = Self {
            name: unescape(fields.take("name")?)?.into_owned(),
            born: fields.number("born")?,
            newest: fields.number("newest")?,
            outlives: fields.bit("outlives")?,
            last_message: fields.number("message")?,
            last_member: fields.number("member")?,
            messages: Vec::new(),
        };
        fields.are_taken().then_some(room)
    }
}

impl KeptMessage {
    fn read(is_text: bool, fields: &mut Fields<'_>) -> Option<Self> {
        let except = match fields.take("from") {
            Some(id) => Some(id_of(id)?),
            None => None,
        };
        let message = read_body(is_text, fields)?;
        fields.are_taken().then_some(Self { message, except })
    }
}

fn write_body(text: &mut Vec<u8>, message: &Message) {
    match message.as_text() {
        Some(payload) => text_field(text, "body", payload),
        // Each byte as the character of its number.
        None => {
            let payload: String = message.as_bytes().iter().copied().map(char::from).collect();
            text_field(text, "body", &payload);
        }
    }
}

fn read_body(is_text: bool, fields: &mut Fields<'_>) -> Option<Message> {
    let body = fields.text("body")?;
    if is_text {
        return Some(Message::text(&*body));
    }
    let byte = |char: char| u8::try_from(u32::from(char)).ok();
    Some(Message::binary(body.chars().map(byte).collect::<Option<Vec<_>>>()?))
}

/// What stands for a message that waits for its time, by its kind; 0 where none waits.
const TEXT: u8 = 1;
const BINARY: u8 = 2;
/// It is the message of an earlier connection, whose line has the body.
const SAME: u8 = 3;

/// The messages that wait in clients: the first connection that has one, by where its frame lies in
/// memory. A message of a room waits in all its clients that hear it every so often, and its body is
/// written once.
#[derive(Debug, Default)]
pub(crate) struct Bodies(HashMap<u128, usize>);

impl Bodies {
    /// The connection whose line has the body of a message; `None` if that is the `nth`, which is now
    /// written.
    fn line_of(&mut self, message: &Message, nth: usize) -> Option<usize> {
        let address = message.frame(Encoding::Plain).as_ptr().addr();
        // As wide as the addresses of peers, so that the binary has the code of one such map.
        let first = *self.0.entry(address as u128).or_insert(nth);
        (first != nth).then_some(first)
    }
}

impl Conflation {
    fn write(&self, nth: usize, bodies: &mut Bodies, text: &mut Vec<u8>) {
        // Rounded up: no message goes earlier than it may.
        let millis = |time: Duration| time.as_nanos().div_ceil(1_000_000) as u64;
        field(text, "every", millis(self.interval));
        field(text, "next", millis(self.next));
        let Some(Newest { message, position, last_position }) = &self.newest else { return };
        // One more, since 0 is a position too, and stands for none here.
        field(text, "number", position.map_or(0, |position| position + 1));
        field(text, "last", *last_position);
        if let Some(first) = bodies.line_of(message, nth) {
            field(text, "waits", SAME);
            field(text, "same", first as u64);
        } else {
            field(text, "waits", if message.is_text() { TEXT } else { BINARY });
            write_body(text, message);
        }
    }

    /// `Some(None)` for a client that hears every message.
    fn read(
        fields: &mut Fields<'_>,
        nth: usize,
        bodies: &mut Vec<(usize, Message)>,
    ) -> Option<Option<Self>> {
        let interval = fields.number("every")?;
        if interval == 0 {
            return Some(None);
        }
        let [interval, next] = [interval, fields.number("next")?].map(Duration::from_millis);
        if interval > Config::WAIT_MAX || next > interval {
            return None;
        }
        let newest = match fields.number("waits")? {
            0 => None,
            kind @ (TEXT | BINARY | SAME) => {
                let position: u64 = fields.number("number")?;
                let last_position = fields.number("last")?;
                let message = if kind == SAME {
                    let same: usize = fields.number("same")?;
                    let found = bodies.binary_search_by_key(&same, |(nth, _)| *nth).ok()?;
                    bodies[found].1.clone()
                } else {
                    let message = read_body(kind == TEXT, fields)?;
                    bodies.push((nth, message.clone()));
                    message
                };
                Some(Newest { message, position: position.checked_sub(1), last_position })
            }
            _ => return None,
        };
        Some(Some(Self { interval, next, newest }))
    }
}

impl<'a> Connection<'a> {
    /// Appends the line of the connection that so many are ahead of; `bodies` is of all of them.
    pub(crate) fn write(&self, nth: usize, bodies: &mut Bodies, text: &mut Vec<u8>) {
        push(
            text,
            match &self.client {
                None => b"http ",
                Some(Client { events: None, .. }) => b"websocket ",
                Some(_) => b"events ",
            },
        );
        digits(text, nth as u64);
        begin(text, "peer");
        write_peer(text, &self.peer);
        if let Some(client) = &self.client {
            begin(text, "id");
            id(text, client.id);
            field(text, "since", client.since);
            field(text, "format", client.events.unwrap_or_default());
            list(text, "rooms", &client.rooms, |text, room| escape(text, room));
            list(text, "prefixes", &client.prefixes, |text, prefix| {
                escape(text, prefix);
                push(text, b"*");
            });
            field(text, "missed", client.missed);
            field(text, "deflates", client.deflates);
            field(text, "labels", client.labels);
            field(text, "idle", client.idle);
            if let Some(cursor) = &client.cursor {
                begin(text, "at");
                escape(text, &cursor.room);
                field(text, "reader", cursor.reader);
                field(text, "position", cursor.position);
                field(text, "owed", cursor.unread);
            }
            client.conflation.iter().for_each(|conflation| conflation.write(nth, bodies, text));
            text_field(text, "user", client.user.as_deref().unwrap_or_default());
            text_field(text, "about", &client.about);
        }
        text.push(b'\n');
    }

    fn read(
        kind: &str,
        fields: &mut Fields<'a>,
        nth: usize,
        bodies: &mut Vec<(usize, Message)>,
    ) -> Option<Self> {
        let peer = Peer::of(&unescape(fields.take("peer")?)?)?;
        let is_events = kind == "events";
        let client = match kind {
            "http" => None,
            "websocket" | "events" => {
                let id = id_of(fields.take("id")?)?;
                let since = fields.number("since")?;
                let format = fields.number("format")?;
                if format != 0 && !is_events {
                    return None;
                }
                let rooms = fields.list("rooms")?.into_iter().map(unescape);
                let prefixes = fields.list("prefixes")?.into_iter();
                let prefixes = prefixes.map(|prefix| unescape(prefix.strip_suffix('*')?));
                Some(Client {
                    events: is_events.then_some(format),
                    id,
                    since,
                    rooms: rooms.collect::<Option<_>>()?,
                    prefixes: prefixes.collect::<Option<_>>()?,
                    missed: fields.number("missed")?,
                    deflates: fields.bit("deflates")?,
                    labels: fields.bit("labels")?,
                    idle: fields.number("idle")?,
                    cursor: match fields.take("at") {
                        Some(room) => Some(Cursor {
                            room: unescape(room)?.into_owned(),
                            reader: fields.number("reader")?,
                            position: fields.number("position")?,
                            unread: fields.number("owed")?,
                        }),
                        None => None,
                    },
                    conflation: Conflation::read(fields, nth, bodies)?.map(Box::new),
                    user: fields.name("user")?,
                    about: fields.text("about")?,
                })
            }
            _ => return None,
        };
        fields.are_taken().then_some(Self { peer, client })
    }
}

/// Appends what the type `Peer` writes; what most peers are, an IPv4 address and a port, without the
/// formatting of the standard library.
fn write_peer(text: &mut Vec<u8>, peer: &Peer) {
    let Some((octets, port)) = peer.ipv4() else {
        return escape(text, &peer.to_string());
    };
    for (nth, octet) in octets.into_iter().enumerate() {
        if nth > 0 {
            text.push(b'.');
        }
        digits(text, octet.into());
    }
    text.push(b':');
    digits(text, port.into());
}

#[cfg(test)]
mod tests;
