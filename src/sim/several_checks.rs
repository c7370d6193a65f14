//! What must be so at the end of a run of several hubs.

use crate::disconnect::Disconnect;
use crate::hub::handle::Hub;
use crate::hub::topic::Topic;
use crate::sim::engine::{Engine, KEEPS};
use crate::sim::several_notes::{Member, NEVER, Notes, ROOMS, Said, name};

/// How a gap ends a client that counts: it was told, or it was too slow for what its room keeps.
const ENDS: [u16; 2] = [4109, 4108];

/// Checks all of it, at the end of a run.
pub(super) fn check(hubs: &[Hub], engine: &Engine, notes: &Notes) {
    for (nth, hub) in hubs.iter().enumerate() {
        let members = notes.members.iter().filter(|member| member.hub == nth);
        let is_allowed = |member: &Member| {
            let ended = member.ended.as_ref().map(Disconnect::code);
            ended.is_none_or(|code| member.is_counting() && ENDS.contains(&code))
        };
        assert!(members.clone().all(is_allowed), "no client is closed but by a gap");
        let here =
            members.filter(|member| member.client.is_some() && member.ended.is_none()).count();
        assert_eq!(hub.stats().clients, here, "hub {nth} counts its clients");
        let subscribed = engine.subscribed(nth);
        let rooms = subscribed.iter().filter(|topic| **topic != Topic::All).count();
        assert_eq!(
            rooms,
            hub.stats().rooms,
            "hub {nth} is subscribed to the rooms that it has, not to {subscribed:?}"
        );
    }
    for (nth, member) in notes.members.iter().enumerate() {
        check_begin(nth, member);
    }
    for said in &notes.said {
        check_said(notes, said);
    }
    check_positions(engine, notes);
    check_late_reads(engine, notes);
    for (nth, member) in notes.members.iter().enumerate() {
        check_member(engine, notes, nth, member);
    }
}

/// What follows by its position follows in the order of the engine.
fn check_positions(engine: &Engine, notes: &Notes) {
    let index = |room: usize, text: &String| {
        let order = &engine.order[&Topic::Room(name(room).into())];
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

/// A reader that comes from another hub begins where it was, unless messages of that were kept no more
/// when it came, or are while it waits to be let in.
fn check_begin(nth: usize, member: &Member) {
    let ((Some(since), Some(begin)), Some((whole, _))) = (member.begins, &member.whole) else {
        return;
    };
    if whole.contains(&since) && begin < since {
        panic!("client {nth} has heard {since}, and begins at {begin}");
    }
}

/// What a hub has read that it had not heard is heard by the members that it had.
fn check_late_reads(engine: &Engine, notes: &Notes) {
    for read in &*engine.log.late_reads.borrow() {
        let by = notes.rests.iter().find(|rest| **rest > read.step).copied().unwrap_or(NEVER);
        let is_in = |member: &Member| {
            member.stays.iter().any(|&(room, from, to)| {
                name(room) == KEEPS && from < read.step && to > by && member.ended.is_none()
            })
        };
        let here = |member: &Member| member.hub == read.hub && is_in(member);
        for (nth, member) in notes.members.iter().enumerate().filter(|(_, member)| here(member)) {
            for text in &read.texts {
                let said = notes.said.iter().find(|said| said.text.as_bytes() == *text);
                let said = said.expect("was said");
                // In a room that it joined later it does not hear itself, whatever it is.
                let is_own = said.except == Some(nth);
                assert!(
                    is_own || member.heard.contains(&said.text),
                    "client {nth} does not hear {}, which hub {} has read",
                    said.text,
                    read.hub
                );
            }
        }
    }
}

/// The recipients are exact, and what is refused is heard nowhere.
fn check_said(notes: &Notes, said: &Said) {
    let heard = |member: &&Member| member.heard.contains(&said.text);
    match said.result {
        Some(Ok(recipients)) => {
            let here = notes.members.iter().filter(|member| member.hub == said.hub);
            let ended = here.clone().filter(|member| member.ended.is_some()).count();
            let heard = here.filter(heard).count();
            // Readers that come later hear what is kept, and of what a reader is owed it may miss some
            // when a gap ends it.
            let may_be_more = name(said.room) == KEEPS && recipients < heard;
            let is_exact = may_be_more || (heard..=heard + ended).contains(&recipients);
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
fn check_member(engine: &Engine, notes: &Notes, nth: usize, member: &Member) {
    for room in 0..ROOMS {
        let order = engine.order.get(&Topic::Room(name(room).into()));
        let order = order.map(Vec::as_slice).unwrap_or_default();
        let in_room =
            |text: &&String| notes.said.iter().any(|said| said.text == **text && said.room == room);
        let followers: Vec<_> = member
            .heard
            .iter()
            .filter(in_room)
            .map(|text| order.iter().position(|said| said == text.as_bytes()).expect("was said"))
            .collect();
        assert!(
            followers.windows(2).all(|two| two[0] < two[1]),
            "client {nth} hears room {room} in another order: {followers:?}"
        );
    }
    for said in &notes.said {
        let heard = member.heard.contains(&said.text);
        assert!(
            !heard || member.hears_itself() || said.except != Some(nth),
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
        let was_deaf = is_deaf(notes, member.hub, said.began)
            || (name(said.room) == KEEPS && is_behind(engine, notes, member.hub, said.began));
        let surely = member.stays.iter().any(surely) && said.except != Some(nth);
        let surely = surely && member.ended.is_none();
        assert!(heard || !surely || lost || was_deaf, "client {nth} misses {}", said.text);
    }
}

/// Whether a hub may have been deaf when a message began: it was not connected since its last loss.
fn is_deaf(notes: &Notes, hub: usize, began: usize) -> bool {
    let last = notes.losses[hub].iter().filter(|&&step| step < began).max();
    // From a loss to the next rest the hub may still be connecting.
    last.is_some_and(|last| !notes.rests.iter().any(|rest| rest > last && *rest < began))
}

/// Whether a hub may have been behind in the room that keeps messages when one began: one had passed it
/// over, which it notices with the next one. It drops what comes from then on until it has read the
/// room, and the room may keep less than that.
fn is_behind(engine: &Engine, notes: &Notes, hub: usize, began: usize) -> bool {
    let Some(last) = notes.passes[hub].iter().filter(|&&step| step < began).max() else {
        return false;
    };
    let reads = engine.log.late_reads.borrow();
    let mut of_hub = reads.iter().filter(|read| read.hub == hub && !read.texts.is_empty());
    !of_hub.any(|read| read.step > *last && read.step < began)
}
