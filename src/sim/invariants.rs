//! What must be so when a run is over (DESIGN: invariants).

use std::collections::{BTreeMap, BTreeSet};

use crate::disconnect::Disconnect;
use crate::hub::tests::support::{Frame, number_of};
use crate::label::split_label;
use crate::overflow::Overflow;
use crate::sim::conflated::{is_conflated, last_message};
use crate::sim::notes::{NEVER, Notes, PeerNote, Span, To};
use crate::sim::peer::{GAP, Peer, STAND, Said, Way};
use crate::sim::reader;
use crate::sim::response::behind_head;
use crate::sim::script::{number_of_text, room};
use crate::sim::world::World;

/// What one peer was told, or heard of it.
#[derive(Clone)]
struct Heard {
    /// The numbers of its messages, in order.
    messages: Vec<u32>,
    /// The numbers of those that came compressed.
    compressed: BTreeSet<u32>,
    /// The code of its close frame, if there was one.
    close: Option<Option<u16>>,
}

/// Checks a run that has ended.
pub(super) fn check(world: &World) {
    let notes = world.script.notes();
    let hear = |bytes: &[u8], peer: &Peer| {
        let frames = peer.frames(bytes).unwrap_or_default();
        if peer.has_labels {
            hear(&without_labels(&notes, frames, peer.way), peer)
        } else {
            hear(&frames, peer)
        }
    };
    let taken: Vec<_> =
        world.peers.iter().map(|peer| hear(&peer.line.lock().taken, peer)).collect();
    let heard = world.peers.iter().zip(&taken).map(|(peer, taken)| {
        let kernel = peer.line.lock();
        if kernel.has_lost() { hear(kernel.legible(), peer) } else { taken.clone() }
    });
    let heard: Vec<_> = heard.collect();
    reader::check_readers(&notes, &world.peers, &world.pollers);
    check_order(&notes, &in_order(world, &notes, &taken));
    check_compressed(world, &notes, &taken);
    for (n, (taken, heard)) in taken.iter().zip(&heard).enumerate() {
        check_peer(&notes, n, taken, heard, world.hub.shared().config.overflow);
        check_goodbye(&notes.peers[n], &world.peers[n], n, heard);
    }
    for number in 0..notes.messages.len() {
        check_recipients(&notes, number);
        check_fates(&notes, number, &taken);
    }
    let stats = world.hub.stats();
    let delivered: usize = taken.iter().map(|heard| heard.messages.len()).sum();
    assert_eq!(stats.messages_delivered, delivered as u64, "delivered is what the kernel took");
    let fates = stats.messages_delivered + stats.messages_dropped + stats.messages_lost;
    assert_eq!(stats.recipients, fates, "every recipient has exactly one fate");
    assert_eq!((stats.clients, stats.connections), (0, 0), "no client and no connection is left");
    if !world.hub.shared().config.history_age.is_zero() || !world.executor.runs(world.manager) {
        assert_eq!((stats.rooms, stats.held_bytes), (0, 0), "no room and no message is left");
    }
    let slow = Disconnect::SLOW.code();
    let (mut evicted, mut unheard) = (0, 0);
    for peer in &notes.peers {
        evicted += peer.reasons.iter().filter(|&&code| code == slow).count() as u64;
        // A client that ended before its first hook, or was told to go before it was evicted.
        unheard += u64::from(peer.reasons.is_empty() || !peer.codes.is_empty());
    }
    let counted = stats.clients_evicted;
    assert!(
        evicted <= counted && counted <= evicted + unheard,
        "{counted} clients count as evicted: {evicted} were told so, and {unheard} heard nothing"
    );
}

/// The frames without their labels. Each label names the room that its message was for.
fn without_labels(notes: &Notes, frames: Vec<Said>, way: Way) -> Vec<Said> {
    let unlabel = |said: Said| {
        let frame = &said.frame;
        if !matches!(frame.opcode, 1 | 2) {
            return said;
        }
        let (label, payload) = split_label(&frame.payload).expect("a message with a label");
        let number =
            if frame.opcode == 1 { number_of_text(payload, way) } else { number_of(payload) };
        let expected = match notes.messages[number as usize].to {
            To::Room(which) => room(which),
            To::All | To::User(_) | To::Peer(_) => String::new(),
        };
        assert_eq!(label, expected, "the label of message {number}");
        let frame = Frame { payload: payload.to_vec(), ..frame.clone() };
        Said { frame, ..said }
    };
    frames.into_iter().map(unlabel).collect()
}

/// What the frames of a stream say: none is behind a close frame.
fn hear(frames: &[Said], peer: &Peer) -> Heard {
    let (way, mut is_position) = (peer.way, peer.counts());
    let mut heard = Heard { messages: Vec::new(), compressed: BTreeSet::new(), close: None };
    for Said { frame: Frame { opcode, payload, is_compressed }, .. } in frames {
        assert!(heard.close.is_none(), "nothing follows a close frame");
        match opcode {
            1 if std::mem::take(&mut is_position) => {}
            1 => heard.messages.push(number_of_text(payload, way)),
            2 => heard.messages.push(number_of(payload)),
            8 => {
                let code = payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code));
                heard.close = Some(code);
            }
            9 | 10 => assert!(payload.len() <= 125, "a control frame is short"),
            &(GAP | STAND) => {}
            _ => panic!("no peer sent a frame of opcode {opcode}"),
        }
        heard.compressed.extend(heard.messages.last().filter(|_| *is_compressed));
    }
    heard
}

/// All clients that negotiated compression get a message in one frame, and no other client gets a
/// compressed one. A message that another process has taken over may be compressed there anew.
fn check_compressed(world: &World, notes: &Notes, taken: &[Heard]) {
    let pairs = || world.peers.iter().zip(taken);
    let is_own = |number: &u32| *number as usize >= notes.first_of_process;
    // With a label a message may be just too short to become shorter, and without it not.
    let compressed = |has_labels: bool| {
        let alike = pairs().filter(move |(peer, _)| peer.has_labels == has_labels);
        alike.flat_map(|(_, taken)| taken.compressed.iter().copied()).collect::<BTreeSet<_>>()
    };
    let compressed = [compressed(false), compressed(true)];
    for (n, (peer, taken)) in pairs().enumerate() {
        let compares = |number: &u32| !peer.deflates || is_own(number);
        let got: BTreeSet<_> = taken.compressed.iter().copied().filter(compares).collect();
        let compressed = &compressed[usize::from(peer.has_labels)];
        let heard = taken.messages.iter().copied().filter(|number| compressed.contains(number));
        let expected = if peer.deflates { heard.filter(is_own).collect() } else { BTreeSet::new() };
        assert_eq!(
            got, expected,
            "peer {n} gets compressed what others do, if it negotiated that, and else nothing"
        );
    }
}

/// What each peer was told, as far as it was told that in the order in which it was dispatched. A
/// client that is behind in its room hears what is not for the room earlier.
fn in_order(world: &World, notes: &Notes, taken: &[Heard]) -> Vec<Vec<u32>> {
    let target = |number: &u32| notes.messages[*number as usize].to;
    let replays = world.hub.shared().config.overflow == Overflow::Replay;
    let mut ordered = Vec::new();
    for (note, taken) in notes.peers.iter().zip(taken) {
        if note.every.is_some() {
            // What waits for its time is overtaken by what is not for the room.
            let is_conflated = |number: &u32| is_conflated(notes, *number);
            let (own, others) = taken.messages.iter().partition(|number| is_conflated(number));
            ordered.extend::<[Vec<u32>; 2]>([own, others]);
            continue;
        }
        if !replays && !note.since {
            ordered.push(taken.messages.clone());
            continue;
        }
        let mut rest = taken.messages.clone();
        while let Some(to) = rest.first().map(target) {
            let (one, others) = rest.into_iter().partition(|number| target(number) == to);
            ordered.push(one);
            rest = others;
        }
    }
    ordered
}

/// Invariant 9, and more: there is one order in which everything was dispatched, which agrees with
/// what every peer has heard and with what publishers knew to be done.
fn check_order(notes: &Notes, heard: &[Vec<u32>]) {
    let mut after: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    let mut before: BTreeMap<u32, usize> = BTreeMap::new();
    for heard in heard {
        let mut latest = 0;
        for &number in heard {
            let Span { from, by } = notes.messages[number as usize].span;
            assert!(by >= latest, "message {number} was done before an earlier one was begun");
            latest = latest.max(from);
        }
        for pair in heard.windows(2) {
            if after.entry(pair[0]).or_default().insert(pair[1]) {
                *before.entry(pair[1]).or_default() += 1;
            }
        }
    }
    let mut ready: Vec<_> =
        after.keys().filter(|number| !before.contains_key(number)).copied().collect();
    while let Some(number) = ready.pop() {
        for next in after.remove(&number).unwrap_or_default() {
            let left = before.get_mut(&next).expect("was counted");
            *left -= 1;
            if *left == 0 {
                before.remove(&next);
                ready.push(next);
            }
        }
    }
    assert!(before.is_empty(), "two peers heard {before:?} in different orders");
}

/// A peer gets only messages that were meant for it, and a steady peer gets each of those once.
fn check_peer(notes: &Notes, n: usize, taken: &Heard, heard: &Heard, overflow: Overflow) {
    let peer = &notes.peers[n];
    let mut numbers = taken.messages.clone();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), taken.messages.len(), "peer {n} is told each message once");
    let mut came = heard.messages.clone();
    came.sort_unstable();
    // A peer that hears of its kick has heard before what was queued for it, however slow it is.
    let kicked = peer.kicks.iter().find(|(_, code)| heard.close == Some(Some(*code)));
    let end = match kicked {
        Some((moment, _)) if overflow == Overflow::Disconnect && !peer.since => *moment,
        _ => peer.gone.from,
    };
    // What waits for its time goes ahead of the end, where the peer hears of that.
    let hears_last = peer.every.is_some() && heard.close.is_some();
    let last = if hears_last { last_message(notes, n) } else { None };
    for (number, message) in notes.messages.iter().enumerate() {
        let (mut surely, mut perhaps) = notes.got_before(n, message.to, message.span, end);
        // Of what is conflated it hears the last.
        let may_be_left_out = peer.every.is_some() && is_conflated(notes, number as u32);
        surely &= !may_be_left_out || last == Some(number);
        perhaps |= notes.got_kept(n, message.to, message.span);
        // The sender of a message that it did not wait for does not know of the dispatch.
        surely &= message.span.by != NEVER;
        let except = message.except == Some(n);
        let got = numbers.binary_search(&(number as u32)).is_ok();
        assert!(!got || !message.refused, "peer {n} was told {number}, which was refused");
        assert!(!got || (perhaps && !except), "peer {n} was told {number}, which was not for it");
        let came = came.binary_search(&(number as u32)).is_ok();
        assert!(came || !surely || except, "peer {n} did not hear {number}: {message:?}");
    }
    let slow = Disconnect::SLOW.code();
    let deadlines = [Disconnect::ABNORMAL.code(), Disconnect::POLICY.code(), slow];
    let may_be =
        |code: u16| peer.codes.contains(&code) || (!peer.steady && deadlines.contains(&code));
    if let Some(Some(code)) = taken.close {
        assert!(may_be(code), "peer {n} was closed with {code}, not with one of {:?}", peer.codes);
    }
    for &code in &peer.reasons {
        assert!(may_be(code), "peer {n} ended with {code}, not with one of {:?}", peer.codes);
    }
    let hooks = peer.reasons.len();
    assert!(hooks <= 1, "on_disconnect runs once");
    assert!(peer.id.is_none() || hooks == 1 || peer.cancelled, "and it runs for peer {n}");
}

/// A peer that reads and answers loses nothing with its connection, and hears of its end.
fn check_goodbye(note: &PeerNote, peer: &Peer, n: usize, heard: &Heard) {
    // A peer that reset its connection, and a connection that was dropped, are not told.
    if !peer.answers || peer.has_reset || note.cancelled {
        return;
    }
    let code = note.reasons.first().copied();
    let is = |reason: Disconnect| code == Some(reason.code());
    let is_exempt = match peer.way {
        // A refused reader may ask again, and a connection without a request may end at any time. A
        // reader that sends too many bytes behind its request is cut off.
        Way::Events => {
            let has_all = peer.reads.is_some_and(|reads| reads.ends) && is(Disconnect::NORMAL);
            code.is_none() || has_all || is(Disconnect::POLICY)
        }
        // A refusal that its peer reads later than the handshake may take is lost with a stream that
        // does not deliver alone. A response whose head was not taken in time says nothing.
        Way::Upgrades | Way::Upgraded => {
            let line = peer.line.lock();
            let is_cut_off = peer.way == Way::Upgrades && behind_head(&line.taken).is_none();
            code.is_none() && !peer.steady && (!line.is_own || is_cut_off)
        }
    };
    // A lost peer is not told, and an evicted one only if that takes no waiting.
    if is_exempt || is(Disconnect::ABNORMAL) || is(Disconnect::SLOW) {
        return;
    }
    assert!(!peer.line.lock().has_lost(), "peer {n} has lost something with its end: {code:?}");
    assert!(code.is_none() || heard.close.is_some(), "peer {n} did not hear of its end: {code:?}");
}

/// Invariant 10: as many recipients as members, as far as can be known from outside.
fn check_recipients(notes: &Notes, number: usize) {
    let message = &notes.messages[number];
    let Some(taken) = message.recipients else { return };
    let (mut least, mut most) = (0, 0);
    for n in (0..notes.peers.len()).filter(|&n| message.except != Some(n)) {
        let (surely, perhaps) = notes.got(n, message.to, message.span);
        least += usize::from(surely);
        most += usize::from(perhaps);
    }
    assert!(
        (least..=most).contains(&taken),
        "{number}: {taken} recipients, {least} to {most} meant"
    );
}

/// What a publisher was told of its recipients is so: what it was told to be delivered, the kernel
/// has taken, and what it was told to be lost, no recipient was told later.
fn check_fates(notes: &Notes, number: usize, taken: &[Heard]) {
    let Some([delivered, late, _]) = notes.messages[number].fates else { return };
    let has = |heard: &Heard| heard.messages.contains(&(number as u32));
    let all = taken.iter().filter(|heard| has(heard)).count();
    // One that came with `since` may have been told it without being a recipient.
    let pairs = notes.peers.iter().zip(taken);
    let recipients = pairs.filter(|(peer, heard)| !peer.since && has(heard)).count();
    assert!(delivered <= all, "{number}: {delivered} delivered, and {all} were told it");
    let most = delivered + late;
    assert!(recipients <= most, "{number}: {most} not lost, and {recipients} were told it");
}
