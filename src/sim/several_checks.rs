//! The invariants of several hubs.

use crate::hub::topic::Topic;
use crate::sim::engine::KEEPS;
use crate::sim::several::{Member, NEVER, Notes, ROOMS, Said, World, name};

pub(super) fn check(world: &World) {
    let notes = world.notes.borrow();
    for (nth, hub) in world.hubs.iter().enumerate() {
        let members = notes.members.iter().filter(|member| member.hub == nth);
        assert!(members.clone().all(|member| member.ended.is_none()), "no client is closed");
        let here = members.filter(|member| member.client.is_some()).count();
        assert_eq!(hub.stats().clients, here, "hub {nth} counts its clients");
        let subscribed = world.engine.subscribed(nth);
        let rooms = subscribed.iter().filter(|topic| **topic != Topic::All).count();
        assert_eq!(
            rooms,
            hub.stats().rooms,
            "hub {nth} is subscribed to the rooms that it has, not to {subscribed:?}"
        );
    }
    for said in &notes.said {
        check_said(&notes, said);
    }
    check_positions(world, &notes);
    for (nth, member) in notes.members.iter().enumerate() {
        check_member(world, &notes, nth, member);
    }
}

/// What follows by its position follows in the order of the engine.
fn check_positions(world: &World, notes: &Notes) {
    let index = |room: usize, text: &String| {
        let order = &world.engine.order[&Topic::Room(name(room).into())];
        order.iter().position(|said| said == text.as_bytes()).expect("was said")
    };
    for (&(hub, room, position), text) in &notes.positioned {
        let Some(next) = notes.positioned.get(&(hub, room, position + 1)) else { continue };
        let (this, that) = (index(room, text), index(room, next));
        assert_eq!(
            this + 1,
            that,
            "{next} has the position behind {text} on hub {hub}, so it follows it in the order of \
             room {room}"
        );
    }
}

/// The recipients are exact, and what is refused is heard nowhere.
fn check_said(notes: &Notes, said: &Said) {
    let heard = |member: &&Member| member.heard.contains(&said.text);
    match said.result {
        Some(Ok(recipients)) => {
            let here = notes.members.iter().filter(|member| member.hub == said.hub);
            let heard = here.filter(heard).count();
            // Readers that come later hear what is kept.
            let is_exact = recipients == heard || name(said.room) == KEEPS && recipients < heard;
            assert!(
                is_exact,
                "{} is told to have {recipients} recipients, and {heard} hear it",
                said.text
            );
        }
        Some(Err(true)) => {
            assert!(
                !notes.members.iter().any(|m| heard(&m)),
                "{} was refused, and is heard",
                said.text
            );
        }
        _ => {}
    }
}

/// A client hears the rooms that it is in, each in the one order of the engine, and all of it while
/// its hub is connected.
fn check_member(world: &World, notes: &Notes, nth: usize, member: &Member) {
    for room in 0..ROOMS {
        let order = world.engine.order.get(&Topic::Room(name(room).into()));
        let order = order.map(Vec::as_slice).unwrap_or_default();
        let in_room =
            |text: &&String| notes.said.iter().any(|said| said.text == **text && said.room == room);
        let positions: Vec<_> = member
            .heard
            .iter()
            .filter(in_room)
            .map(|text| order.iter().position(|said| said == text.as_bytes()).expect("was said"))
            .collect();
        assert!(
            positions.windows(2).all(|two| two[0] < two[1]),
            "client {nth} hears room {room} in another order: {positions:?}"
        );
    }
    for said in &notes.said {
        let heard = member.heard.contains(&said.text);
        assert!(
            !heard || member.counts || said.except != Some(nth),
            "client {nth} hears its own {}",
            said.text
        );
        let Some(Ok(_)) = said.result else { continue };
        // Until then all of it has arrived.
        let by = notes.rests.iter().find(|rest| **rest > said.ended).copied().unwrap_or(NEVER);
        let surely = |stay: &(usize, usize, usize)| {
            stay.0 == said.room && stay.1 < said.began && stay.2 > by
        };
        let lost = notes.losses[member.hub].iter().any(|&step| step >= said.began && step <= by);
        let was_deaf = is_deaf(notes, member.hub, said.began);
        let surely = member.stays.iter().any(surely) && said.except != Some(nth);
        assert!(heard || !surely || lost || was_deaf, "client {nth} misses {}", said.text);
    }
}

/// Whether a hub may have been deaf when a message began: it was not connected since its last loss.
fn is_deaf(notes: &Notes, hub: usize, began: usize) -> bool {
    let last = notes.losses[hub].iter().filter(|&&step| step < began).max();
    // From a loss to the next rest the hub may still be connecting.
    last.is_some_and(|last| !notes.rests.iter().any(|rest| rest > last && *rest < began))
}
