//! A reader of events of the hub, and what must be so of the events that it hears.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use futures_lite::future::yield_now;

use crate::connection::registration::event_reader_permit;
use crate::hub::client_id::ClientId;
use crate::hub::event::{HubEvent, HubEventKind};
use crate::hub::event_queue::RoomFilter;
use crate::hub::handle::Hub;
use crate::serve::hub_events::read;
use crate::sim::executor::Executor;

/// What a reader has heard.
#[derive(Debug, Default)]
pub(super) struct HeardEvents {
    /// The rooms that exist, by the events; `None` after a gap, since a room without a member is in no
    /// list of members.
    rooms: Option<BTreeSet<String>>,
    /// The clients in them.
    members: BTreeSet<(String, ClientId)>,
    /// The clients of each prefix; `None` after a gap, since they are in no list.
    prefixes: Option<BTreeSet<(String, ClientId)>>,
    /// The client that was evicted, if its leave has to come next.
    evicted: Option<(String, ClientId)>,
    /// The reader was told of a gap, so that it does not know.
    has_gap: bool,
}

/// Has a task read all events, from the first one on, or of a hub that another process had. One that
/// is slow reads one at a time, whenever it gets its turn.
pub(super) fn spawn(
    executor: &mut Executor,
    hub: &Hub,
    (is_slow, is_first): (bool, bool),
) -> Rc<RefCell<HeardEvents>> {
    // What a reader does not know that comes later, it learns as after a gap.
    let (rooms, prefixes) = (is_first.then(BTreeSet::new), is_first.then(BTreeSet::new));
    let begin = HeardEvents { rooms, prefixes, has_gap: !is_first, ..HeardEvents::default() };
    let heard = Rc::new(RefCell::new(begin));
    let (hub_of_reader, own) = (hub.clone(), Rc::clone(&heard));
    executor.spawn(async move {
        let permit = event_reader_permit(&hub_of_reader, None).expect("the first of them");
        let events_max = hub_of_reader.shared().config.queue;
        let reading = read(&hub_of_reader, RoomFilter::All, permit, events_max).await;
        let Ok(mut events) = reading else { return };
        // A handle would keep the hub alive.
        drop(hub_of_reader);
        while let Some(event) = events.next().await {
            own.borrow_mut().hear(event);
            for _ in 0..if is_slow { 5 } else { 0 } {
                yield_now().await;
            }
        }
    });
    heard
}

impl HeardEvents {
    fn hear(&mut self, event: HubEvent) {
        if event.kind == HubEventKind::Gap {
            assert!(event.missed > 0, "a gap of nothing");
            (self.has_gap, self.evicted) = (true, None);
            return;
        }
        let prefix = event.prefix.as_ref().map(|prefix| format!("{prefix}*"));
        let room = event.room.as_deref().map(str::to_owned).or(prefix);
        if self.has_gap {
            return;
        }
        let evicted = self.evicted.take();
        if let Some(evicted) = &evicted {
            let left = (room.clone().unwrap_or_default(), event.client.expect("a client"));
            assert!(
                event.kind == HubEventKind::Leave && *evicted == left,
                "an eviction is told ahead of its leave, and not of {event:?}"
            );
        }
        if let (Some(_), Some(name), Some(client)) = (&event.prefix, &room, event.client) {
            return self.hear_of_prefix(event.kind, name, client);
        }
        match (event.kind, room, event.client) {
            (HubEventKind::RoomMade, Some(room), None) => {
                let is_new = self.rooms.as_mut().is_none_or(|rooms| rooms.insert(room.clone()));
                assert!(is_new, "events say twice that {room} is made");
            }
            (HubEventKind::RoomGone, Some(room), None) => {
                let was_there = self.rooms.as_mut().is_none_or(|rooms| rooms.remove(&room));
                assert!(was_there, "events say that {room} ends, and not before that it was made");
                let mut members = self.members.iter();
                assert!(
                    members.all(|(other, _)| *other != room),
                    "events say that {room} ends while it has members"
                );
            }
            (HubEventKind::Join, Some(room), Some(client)) => {
                let is_there = self.rooms.as_ref().is_none_or(|rooms| rooms.contains(&room));
                assert!(is_there, "events say that {client} joins {room}, which was not made");
                let is_new = self.members.insert((room.clone(), client));
                assert!(is_new, "events say twice that {client} joins {room}");
                assert_eq!(event.reason, None, "a join has no reason");
            }
            (HubEventKind::Leave, Some(room), Some(client)) => {
                let was_there = self.members.remove(&(room.clone(), client));
                assert!(was_there, "events say that {client} leaves {room}, where it was not");
            }
            (HubEventKind::Evicted, Some(room), Some(client)) => {
                let is_there = self.members.contains(&(room.clone(), client));
                assert!(
                    is_there,
                    "events say that {client} is evicted from {room}, where it is not"
                );
                self.evicted = Some((room, client));
            }
            (HubEventKind::Evicted, None, Some(_)) => {}
            _ => panic!("{event:?} is no event"),
        }
    }

    /// A client joins a prefix, or leaves it.
    fn hear_of_prefix(&mut self, kind: HubEventKind, name: &str, client: ClientId) {
        let key = (name.to_owned(), client);
        // After a gap the reader does not know them.
        let Some(prefixes) = &mut self.prefixes else { return };
        match kind {
            HubEventKind::Join => {
                assert!(prefixes.insert(key), "events say twice that {client} joins {name}");
            }
            HubEventKind::Leave => {
                assert!(prefixes.remove(&key), "events say that {client} leaves {name}");
            }
            HubEventKind::Evicted => {
                assert!(prefixes.contains(&key), "events say that {client} is evicted from {name}");
                self.evicted = Some(key);
            }
            _ => panic!("{kind:?} is no event of a prefix"),
        }
    }

    /// Compares what was heard with the members that the registry lists, when all rest. A reader that
    /// was told of a gap begins again from the list.
    pub(super) fn agree(&mut self, listed: BTreeSet<(String, ClientId)>) {
        if self.has_gap {
            *self = Self { members: listed, ..Self::default() };
            return;
        }
        assert_eq!(self.members, listed, "events and the registry agree");
        assert_eq!(self.evicted, None, "a client that is evicted leaves");
    }
}
