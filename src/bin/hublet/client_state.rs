//! What a client brought along from its request.

use std::sync::Arc;

use hublet::{Client, Disconnect};

use crate::grant::Rooms;

/// What a client brought along that is in one room.
#[derive(Debug)]
pub(crate) struct ClientState {
    /// The room; of a client in several, the first room or prefix.
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
    /// The prefixes that it hears, without a `*`.
    pub(crate) prefixes: Vec<Arc<str>>,
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
    /// Describes the state for the next program: a line for the first room, one for all rooms, one for
    /// the prefixes, and one for the patterns of rooms that the client may send to.
    pub(crate) fn describe(&self) -> String {
        let send = self.send.patterns().filter(|pattern| !pattern.contains(char::is_control));
        let mut text = self.state.describe();
        add_line(&mut text, self.rooms.iter().map(|room| &**room));
        add_line(&mut text, self.prefixes.iter().map(|prefix| &**prefix));
        add_line(&mut text, send);
        text
    }

    /// Reads a description; `None` also for that of a client in one room.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let state = ClientState::read(lines.next()?)?;
        let mut names = || Some(lines.next()?.split_terminator(BETWEEN));
        let rooms = names()?.map(Arc::from).collect();
        let prefixes = names()?.map(Arc::from).collect();
        let send = Rooms::These(names()?.map(str::to_owned).collect());
        Some(Self { state, rooms, prefixes, send })
    }

    /// Whether the client hears a room.
    pub(crate) fn hears(&self, room: &str) -> bool {
        self.rooms.iter().any(|own| **own == *room)
            || self.prefixes.iter().any(|prefix| room.starts_with(&**prefix))
    }
}

/// Adds a line with names.
fn add_line<'a>(text: &mut String, names: impl Iterator<Item = &'a str>) {
    text.push('\n');
    for name in names {
        text.push_str(name);
        text.push(BETWEEN);
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
        for text in [
            "1000 0 news\nnews\ta room\t\n\nnews\ta*\t",
            "1000 0 a\na\tb\tc\t\na/\tb\t\n",
            "0101 7 \n\n\t\n*\t",
        ] {
            let several = Several::read(text).expect(text);
            assert_eq!(several.describe(), text);
        }
        let text = "1000 0 news\nnews\ta room\t\ns/\t\na*\t";
        let several = Several::read(text).expect("two rooms");
        assert!(several.hears("news") && several.hears("a room") && !several.hears("a"));
        assert!(several.hears("s/") && several.hears("s/1") && !several.hears("s"));
        assert!(several.send.contains("a room") && !several.send.contains("news"));
        // A claim that no room can match.
        let send = Rooms::These(vec!["a\nb*".to_owned(), "c".to_owned()]);
        let described = Several { send, ..several }.describe();
        assert_eq!(described, "1000 0 news\nnews\ta room\t\ns/\t\nc\t");
        for text in ["1000 0 a", "1000 0 a\na\t", "1000 0 a\na\t\n", "x\n\n\n"] {
            assert!(Several::read(text).is_none(), "{text}");
        }
    }
}
