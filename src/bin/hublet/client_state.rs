//! What a client brought along from its request.

use std::sync::Arc;

use hublet::{Client, Disconnect};

use crate::auth::Rooms;

/// What a client brought along that is in one room.
#[derive(Debug)]
pub(crate) struct ClientState {
    /// The room; of a client in several, the first.
    pub(crate) room: Arc<str>,
    pub(crate) echo: bool,
    /// Whether it may send to the room.
    pub(crate) sends: bool,
    /// Whether its empty binary messages are questions: browsers hide pings from pages.
    pub(crate) probes: bool,
    /// When its token ends, in seconds of Unix time; 0 if it does not.
    pub(crate) end: u64,
    /// Whether no rate limits it.
    pub(crate) has_no_rate: bool,
    /// Whether it came from the program that this process was.
    pub(crate) is_kept: bool,
}

/// What a client brought along that is in several rooms. A type of its own, so that other clients
/// have no room for it.
#[derive(Debug)]
pub(crate) struct Several {
    pub(crate) state: ClientState,
    pub(crate) rooms: Vec<Arc<str>>,
    /// The rooms that its token lets it send to.
    pub(crate) send: Rooms,
}

impl ClientState {
    /// What any client brought along.
    pub(crate) fn of(client: &Client) -> Result<&Self, Disconnect> {
        let several = || client.extension().map(|several: &Several| &several.state);
        client.extension().or_else(several).ok_or(Disconnect::INTERNAL)
    }

    /// Describes the state for the next program.
    pub(crate) fn describe(&self) -> String {
        // A restart does this for each client while all of them wait, and formatting takes longer.
        let mut text = String::with_capacity(8 + self.room.len());
        let bits = [self.echo, self.sends, self.probes, self.has_no_rate];
        text.extend(bits.map(|bit| if bit { '1' } else { '0' }));
        text.push(' ');
        match self.end {
            0 => text.push('0'),
            end => text.push_str(&end.to_string()),
        }
        text.push(' ');
        text.push_str(&self.room);
        text
    }

    /// Reads a description.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut words = text.splitn(3, ' ');
        let bits = words.next().filter(|bits| bits.len() == 4)?;
        let bit = |nth: usize| match &bits.as_bytes()[nth] {
            b'0' => Some(false),
            b'1' => Some(true),
            _ => None,
        };
        let (echo, sends, probes, has_no_rate) = (bit(0)?, bit(1)?, bit(2)?, bit(3)?);
        let end = words.next()?.parse().ok()?;
        let room = words.next()?.into();
        Some(Self { room, echo, sends, probes, end, has_no_rate, is_kept: true })
    }
}

/// What stands between two names in a description. No name has control characters, and no pattern
/// with one matches a name.
const BETWEEN: char = '\t';

impl Several {
    /// Describes the state for the next program: a line for the first one, the other rooms, and the
    /// patterns of rooms that the client may send to.
    pub(crate) fn describe(&self) -> String {
        let mut text = self.state.describe();
        text.push('\n');
        for room in &self.rooms[1..] {
            text.push_str(room);
            text.push(BETWEEN);
        }
        text.push('\n');
        for pattern in self.send.patterns().filter(|pattern| !pattern.contains(char::is_control)) {
            text.push_str(pattern);
            text.push(BETWEEN);
        }
        text
    }

    /// Reads a description; `None` also for that of a client in one room.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let (state, rooms, send) =
            (ClientState::read(lines.next()?)?, lines.next()?, lines.next()?);
        let first = Arc::clone(&state.room);
        let others = rooms.split_terminator(BETWEEN).map(Arc::from);
        let rooms = std::iter::once(first).chain(others).collect();
        let send = Rooms::These(send.split_terminator(BETWEEN).map(str::to_owned).collect());
        Some(Self { state, rooms, send })
    }

    /// Whether the client hears a room.
    pub(crate) fn hears(&self, room: &str) -> bool {
        self.rooms.iter().any(|own| **own == *room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_read_as_it_was_described() {
        for text in ["1000 0 news", "0111 1893456000 a room", "0001 7 0"] {
            let state = ClientState::read(text).expect(text);
            assert_eq!(state.describe(), text);
            assert_eq!(state.has_no_rate, text.as_bytes()[3] == b'1');
            assert!(Several::read(text).is_none(), "{text}");
        }
        for text in ["", "100 0 news", "1002 0 news", "1000 x news", "1000 0"] {
            assert!(ClientState::read(text).is_none(), "{text}");
        }
    }
    #[test]
    fn several_rooms_are_read_as_they_were_described() {
        for text in
            ["1000 0 news\na room\t\nnews\ta*\t", "1000 0 a\nb\tc\t\n", "0101 7 a\nb\t\n*\t"]
        {
            let several = Several::read(text).expect(text);
            assert_eq!(several.describe(), text);
        }
        let several = Several::read("1000 0 news\na room\t\na*\t").expect("two rooms");
        assert!(several.hears("news") && several.hears("a room") && !several.hears("a"));
        assert!(several.send.contains("a room") && !several.send.contains("news"));
        // A claim that no room can match.
        let send = Rooms::These(vec!["a\nb*".to_owned(), "c".to_owned()]);
        let described = Several { send, ..several }.describe();
        assert_eq!(described, "1000 0 news\na room\t\nc\t");
    }
}
