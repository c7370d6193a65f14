//! The one script: it counts, keeps and publishes a message of a room that keeps messages, or reads
//! what the room keeps.

use sha1::{Digest as _, Sha1};

use crate::hub::history_config::HistoryConfig;
use crate::hub::room::any_position;
use crate::hub::topic::Topic;
use crate::message::Message;
use crate::redis::envelope::{Envelope, HEADER, Names};
use crate::redis::resp;

/// Two keys: the count of a room, and its stream. Arguments: where the count begins if there is none
/// (empty to begin none), the milliseconds after which both are forgotten (0 to leave that as it
/// is), the messages that are kept, then either the bytes that are read at most, or the channel, the
/// header without its position and the payload.
///
/// The position is formatted as a whole number: the numbers of Lua are exact up to 2^53, and what
/// `..` prints of them is not. The entries of the stream have the position as their id.
const SCRIPT: &[u8] = b"\
local c, l = KEYS[1], KEYS[2]
if redis.call('EXISTS', c) == 0 then
if ARGV[1] == '' then return {'\\1kept', '0', {}} end
redis.call('SET', c, ARGV[1])
redis.call('DEL', l)
end
local a
if #ARGV > 4 then
local n = redis.call('INCR', c)
local p = string.format('%.0f', n)
local m = ARGV[5] .. struct.pack('>I8', n) .. ARGV[6]
redis.call('XADD', l, 'MAXLEN', ARGV[3], p .. '-0', 'm', m)
a = {'\\1placed', redis.call('PUBLISH', ARGV[4], m), p}
else
local k, b = {}, 0
for i, e in ipairs(redis.call('XREVRANGE', l, '+', '-', 'COUNT', ARGV[3])) do
b = b + #e[2][2]
if b > tonumber(ARGV[4]) then break end
k[i] = e[2][2]
end
a = {'\\1kept', redis.call('GET', c), k}
end
if ARGV[2] ~= '0' then
redis.call('PEXPIRE', c, ARGV[2])
redis.call('PEXPIRE', l, ARGV[2])
end
return a";

/// Messages of a room that are read at once at most, within what an answer may have.
const READ_MAX: usize = 4096;

/// Bytes of them at most, half of what an answer may have.
const READ_BYTES_MAX: usize = 512 * 1024;

/// What the script is run with.
#[derive(Debug)]
pub(crate) struct Script {
    /// The name that the server gives it.
    sha1: String,
    /// Which rooms keep how much.
    pub(crate) config: HistoryConfig,
}

impl Script {
    pub(crate) fn new(config: HistoryConfig) -> Self {
        let sha1 = Sha1::digest(SCRIPT).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { sha1, config }
    }

    /// Whether a topic is a room that keeps messages.
    pub(crate) fn keeps(&self, topic: &Topic) -> bool {
        matches!(topic, Topic::Room(room) if self.config.messages_max(room) > 0)
    }

    /// Appends the command that publishes a message to a room; the script itself is sent along if
    /// `is_whole`.
    pub(crate) fn publish(
        &self,
        out: &mut Vec<u8>,
        (names, run_id): (&Names, &str),
        room: &str,
        (envelope, message): (&Envelope, &Message),
        is_whole: bool,
    ) {
        let kept = self.config.messages_max(room);
        self.begin(out, (names, run_id), room, (kept, true), (6, is_whole));
        resp::argument(out, &[&names.channel(&Topic::Room(room.into()))]);
        resp::argument(out, &[&envelope.header()[..HEADER - 8]]);
        resp::argument(out, &[message.as_bytes()]);
    }

    /// Appends the command that reads what a room keeps, for a hub that has members of it: begins its
    /// count if it has none.
    pub(crate) fn read(&self, out: &mut Vec<u8>, of: (&Names, &str), room: &str) {
        self.read_newest(out, of, room, (usize::MAX, true));
    }

    /// As [`read`](Self::read), at most so many messages for a reader that is no member: it neither
    /// begins a count nor has the server keep the room for longer.
    pub(crate) fn peek(&self, out: &mut Vec<u8>, of: (&Names, &str), room: &str, most: usize) {
        self.read_newest(out, of, room, (most, false));
    }

    fn read_newest(
        &self,
        out: &mut Vec<u8>,
        of: (&Names, &str),
        room: &str,
        (most, begins): (usize, bool),
    ) {
        let count = self.config.messages_max(room).min(READ_MAX).min(most);
        self.begin(out, of, room, (count, begins), (4, true));
        resp::argument(out, &[self.read_bytes().to_string().as_bytes()]);
    }

    /// Bytes of messages that one answer has at most.
    pub(crate) fn read_bytes(&self) -> usize {
        self.config.bytes.min(READ_BYTES_MAX)
    }

    /// Milliseconds after which the server forgets a room, unless it is told again; `None` for never.
    pub(crate) fn age(&self) -> Option<u64> {
        self.config.age.map(|nanos| nanos.div_ceil(1_000_000))
    }

    /// Appends the commands that have the server keep a room for its age from now on; returns how
    /// many.
    pub(crate) fn keep(
        &self,
        out: &mut Vec<u8>,
        (names, run_id): (&Names, &str),
        room: &str,
    ) -> usize {
        let Some(age) = self.age() else { return 0 };
        let (age, keys) = (age.to_string(), names.keys(run_id, room));
        keys.iter().for_each(|key| resp::command(out, &[b"PEXPIRE", key, age.as_bytes()]));
        keys.len()
    }

    fn begin(
        &self,
        out: &mut Vec<u8>,
        (names, run_id): (&Names, &str),
        room: &str,
        (kept, begins): (usize, bool),
        (arguments, is_whole): (usize, bool),
    ) {
        resp::begin(out, 5 + arguments);
        let script = if is_whole { SCRIPT } else { self.sha1.as_bytes() };
        resp::argument(out, &[if is_whole { &b"EVAL"[..] } else { b"EVALSHA" }]);
        resp::argument(out, &[script]);
        resp::argument(out, &[b"2"]);
        let [count, log] = names.keys(run_id, room);
        resp::argument(out, &[&count]);
        resp::argument(out, &[&log]);
        // The script does not distinguish a publisher from a member.
        let age = self.age().filter(|_| begins).unwrap_or(0);
        let begin = if begins { any_position().to_string() } else { String::new() };
        for argument in [begin, age.to_string(), kept.to_string()] {
            resp::argument(out, &[argument.as_bytes()]);
        }
    }
}
