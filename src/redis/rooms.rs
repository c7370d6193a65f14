//! The part of a session that says how many members rooms have, and asks the other hubs.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use crate::hub::command::Command;
use crate::hub::reply::reply;
use crate::redis::in_flight::Sent;
use crate::redis::presence::{HUBS_MAX, Listing, ROOMS_MAX, SUMS_MAX, Sum};
use crate::redis::resp;
use crate::redis::session::Session;

/// How long what it says is kept, in seconds.
const PRESENCE_KEPT: &[u8] = b"30";

/// Rooms that are asked of the manager at once: less than a millisecond of its time.
const ROOMS_AT_ONCE: usize = 1000;

impl Session<'_> {
    /// Asks which hubs there are.
    pub(crate) fn query_hubs(&mut self, sum: Sum) {
        if self.driver.is_cluster {
            sum.finish();
        } else if self.sums.len() < SUMS_MAX {
            self.sums.push_back(sum);
            let pattern = self.driver.reader.names.every_hub();
            resp::command(&mut self.connection.output, &[b"PUBSUB", b"CHANNELS", &pattern]);
            self.in_flight.push(Sent::Hubs);
        }
    }

    /// Asks the other hubs for their rooms.
    pub(crate) fn query_counts(&mut self, channels: &[Vec<u8>]) {
        let own = self.driver.reader.names.own();
        let others = channels.iter().filter(|channel| **channel != own).take(HUBS_MAX);
        for channel in others {
            resp::command(&mut self.connection.output, &[b"HGETALL", channel]);
            self.in_flight.push(Sent::Counts);
            if let Some(sum) = self.sums.iter_mut().find(|sum| !sum.is_queried) {
                sum.left += 1;
            }
        }
        if let Some(sum) = self.sums.iter_mut().find(|sum| !sum.is_queried) {
            sum.is_queried = true;
        }
        self.finish_sum();
    }

    pub(crate) fn finish_sum(&mut self) {
        while self.sums.front().is_some_and(|sum| sum.is_queried && sum.left == 0) {
            if let Some(sum) = self.sums.pop_front() {
                sum.finish();
            }
        }
    }

    /// Begins to say how many members each room of this hub has: asks the manager for them.
    pub(crate) fn list_rooms(&mut self) -> Command {
        self.list_after(Vec::new())
    }

    fn list_after(&mut self, rooms: Vec<(Arc<str>, usize)>) -> Command {
        let after = rooms.last().map_or(String::new(), |(room, _)| (**room).to_owned());
        let (reply, answer) = reply();
        self.listing = Some(Listing { rooms, answer, page: None });
        Command::ListRooms { after, limit: ROOMS_AT_ONCE, reply }
    }

    /// Goes on with it, when the manager has answered.
    pub(crate) fn follow_listing(&mut self) -> Option<Command> {
        let listing = self.listing.take_if(|listing| listing.page.is_some())?;
        let (mut rooms, page) = (listing.rooms, listing.page.unwrap_or_default());
        let is_last = page.len() < ROOMS_AT_ONCE;
        rooms.extend(page);
        if is_last || rooms.len() >= ROOMS_MAX {
            self.say_rooms(rooms);
            return None;
        }
        Some(self.list_after(rooms))
    }

    /// Says how many members each room of this hub has, if that has changed.
    fn say_rooms(&mut self, mut rooms: Vec<(Arc<str>, usize)>) {
        rooms.truncate(ROOMS_MAX);
        let mut hasher = DefaultHasher::new();
        rooms.hash(&mut hasher);
        let said = hasher.finish();
        let key = self.driver.reader.names.own();
        let output = &mut self.connection.output;
        if self.said == Some(said) {
            resp::command(output, &[b"EXPIRE", &key, PRESENCE_KEPT]);
            self.in_flight.push(Sent::Other);
            return;
        }
        self.said = Some(said);
        resp::command(output, &[b"MULTI"]);
        resp::command(output, &[b"DEL", &key]);
        let mut commands = 3;
        if !rooms.is_empty() {
            resp::begin(output, 2 + 2 * rooms.len());
            resp::argument(output, &[b"HSET"]);
            resp::argument(output, &[&key]);
            for (room, members) in &rooms {
                resp::argument(output, &[room.as_bytes()]);
                resp::argument(output, &[members.to_string().as_bytes()]);
            }
            resp::command(output, &[b"EXPIRE", &key, PRESENCE_KEPT]);
            commands += 2;
        }
        resp::command(output, &[b"EXEC"]);
        (0..commands).for_each(|_| self.in_flight.push(Sent::Other));
    }
}
