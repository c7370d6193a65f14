//! What must be so whenever a world is at rest.

use std::collections::BTreeSet;

use crate::hub::command::Command;
use crate::sim::notes::{Span, To};
use crate::sim::peer::Way;
use crate::sim::script::{Op, ROOMS, room};
use crate::sim::world::World;

impl World {
    /// What must be so whenever all rest.
    pub(super) fn check_rest(&mut self) {
        for (n, peer) in self.peers.iter().enumerate() {
            if !self.executor.runs(peer.task) {
                assert!(peer.line.lock().closed, "peer {n}'s descriptor is closed with its task");
            }
        }
        for poster in &self.posters {
            let closed = poster.line.lock().closed;
            let number = poster.number;
            let runs = self.executor.runs(poster.task);
            assert!(closed || runs, "the descriptor of poster {number} is left");
            assert!(!poster.misses(), "poster {number} has lost an answer");
        }
        self.check_conflated();
        if !self.executor.runs(self.manager) || self.rng.u8(..4) > 0 {
            return;
        }
        self.check_clients();
        self.check_pollers();
        self.check_events();
        let which = self.rng.usize(..ROOMS);
        if let Some(hearing) = self.check_members(which) {
            self.check_message(which, hearing);
        }
    }

    /// A listing names the members of a room, and these and the clients that hear the room by a prefix
    /// hear it. Returns how many hear it.
    fn check_members(&mut self, which: usize) -> Option<usize> {
        let members = self.call(|hub| async move { hub.presence(&room(which)).await })?;
        let listening = self.call(|hub| async move {
            let mut listening = Vec::new();
            for client in hub.clients().await? {
                let (id, room) = (client.id, room(which).into());
                if hub.request(|reply| Command::Hears { id, room, reply }).await? {
                    listening.push(id);
                }
            }
            Ok(listening)
        });
        let listening = listening?;
        let mut notes = self.script.notes();
        let now = notes.moment();
        let span = Span { from: now, by: now };
        let listed = |id| members.iter().any(|member| member.id == id);
        for n in 0..notes.peers.len() {
            let is_listed = notes.peers[n].id.is_some_and(listed);
            let (surely, perhaps) = notes.is_member(n, which, span);
            assert!(!surely || is_listed, "peer {n} is missing in room {which}");
            assert!(perhaps || !is_listed, "peer {n} is no member of room {which}");
            let (surely, perhaps) = notes.got(n, To::Room(which), span);
            let hears = notes.peers[n].id.is_some_and(|id| listening.contains(&id));
            assert!(!surely || hears, "peer {n} does not hear room {which}");
            assert!(perhaps || !hears, "peer {n} hears room {which}, of which it has no part");
            assert!(hears || !is_listed, "peer {n} is in room {which} and does not hear it");
        }
        Some(listening.len())
    }

    /// A message from rest reaches as many clients as hear its room.
    fn check_message(&mut self, which: usize, hearing: usize) {
        let before = self.hub.stats();
        let (to, number) = (To::Room(which), self.script.notes().messages.len());
        let poster = if self.rng.bool() { self.ready_poster() } else { None };
        if let Some(poster) = poster {
            self.request_by_post(poster, to, 4, true);
        } else {
            let op = Op::Publish { to, through_client: false, waits: true, len: 4 };
            let (hub, script) = (self.hub.clone(), self.script.clone());
            self.executor.spawn(async move { drop(script.act(&hub, None, op).await) });
        }
        while self.executor.tick(&mut self.rng) {}
        if let Some(poster) = poster {
            self.posters[poster].answer(&mut self.script.notes());
        }
        // Its place may have been for another poster, which was not at rest then.
        let recipients = self.script.notes().messages[number].recipients;
        let counted = self.hub.stats().recipients - before.recipients;
        if let Some(recipients) = recipients {
            assert_eq!(
                recipients, hearing,
                "message {number} is told to have as many recipients as clients hear the room"
            );
            assert!(counted >= recipients as u64, "the recipients of message {number} are counted");
        }
    }

    /// Joins and leaves that a reader of events has heard agree with the registry, unless it was told of
    /// a gap since the last look.
    fn check_events(&mut self) {
        let mut listed = BTreeSet::new();
        for which in 0..ROOMS {
            let name = room(which);
            let Some(members) = self.call(|hub| async move { hub.presence(&room(which)).await })
            else {
                return;
            };
            listed.extend(members.iter().map(|member| (name.clone(), member.id)));
        }
        self.heard.borrow_mut().agree(listed);
    }

    /// An evicted client is gone (invariant 7), and nothing waits for a client that has room, without
    /// any time.
    fn check_clients(&mut self) {
        let Some(clients) = self.call(|hub| async move { hub.clients().await }) else { return };
        let mut live = Vec::new();
        let notes = self.script.notes();
        for (n, (peer, note)) in self.peers.iter().zip(&notes.peers).enumerate() {
            let Some(id) = note.id else { continue };
            let had_to_go = !note.codes.is_empty() || peer.dawdled;
            let is_client = clients.iter().any(|client| client.id == id);
            let runs = self.executor.runs(peer.task);
            assert!(is_client || had_to_go || !runs, "peer {n} was evicted and is still here");
            assert!(runs || !is_client, "peer {n} is a client without a connection");
            let hears_the_end = peer.way == Way::Events && peer.steady && note.id.is_some();
            assert!(is_client || !hears_the_end || !runs, "peer {n} does not hear of its end");
            let stays = peer.reads.is_some_and(|reads| !note.was_moved(reads.room));
            if is_client && stays && !peer.line.is_full() {
                live.push(n);
            }
            let waiting = clients.iter().any(|client| client.id == id && client.waiting > 0);
            let cut = peer.way == Way::Events && !ends_with_event(&peer.line.lock().taken);
            let waits = waiting || (cut && is_client);
            assert!(
                !waits || peer.line.is_full(),
                "something waits for peer {n}, although it has room"
            );
        }
        drop(notes);
        live.into_iter().for_each(|n| self.check_reader(n));
    }

    /// A reader that has room has heard all of its room, or knows what it has missed.
    fn check_reader(&mut self, n: usize) {
        let peer = &self.peers[n];
        let Some(last) = peer.last_position(&peer.line.lock().taken) else { return };
        let which = peer.reads.expect("a reader").room;
        let newest = self.call(|hub| async move { hub.position(&room(which)).await });
        let Some(Some(newest)) = newest else { return };
        if let Some(conflated) = &mut self.peers[n].conflated {
            if !conflated.must_have(newest) {
                return;
            }
        }
        assert_eq!(last, newest, "peer {n} has room, so it has heard the newest of room {which}");
    }
}

impl World {
    /// A poller that waits has heard all of its room. If its room has begun another life meanwhile, it
    /// is told so with the next message.
    fn check_pollers(&mut self) {
        for n in 0..self.pollers.len() {
            let poller = &self.pollers[n];
            let (number, which) = (poller.number, poller.room);
            let waits = poller.waits_behind(&self.script.notes());
            let (Some(last), true) = (waits, self.executor.runs(poller.task)) else {
                continue;
            };
            let newest = self.call(|hub| async move { hub.position(&room(which)).await });
            let ahead = newest.flatten().and_then(|newest| newest.checked_sub(last));
            let is_behind = ahead.is_some_and(|ahead| (1..1 << 20).contains(&ahead));
            assert!(
                !is_behind,
                "poller {number}, which waits behind {last}, has all of room {which}"
            );
        }
    }
}

/// Whether the last chunk of a stream is whole, and the event or the comment in it.
fn ends_with_event(taken: &[u8]) -> bool {
    let is_head = taken.ends_with(b"\r\n\r\n") && !taken.ends_with(b"\r\n0\r\n\r\n");
    taken.ends_with(b"\n\r\n") && !is_head
}
