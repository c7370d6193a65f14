//! Events of the hub, for the program that it is part of.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_lite::Stream;

use crate::connection::registration::event_reader_permit;
use crate::error::{Error, Kind};
use crate::http1::response::{Response, draining};
use crate::hub::command::Command;
use crate::hub::event::HubEvent;
use crate::hub::event_queue::{EventQueue, RoomFilter};
use crate::hub::handle::Hub;
use crate::limits::admission::EventReaderPermit;

/// A reader of events of the hub: [`next`](Self::next) returns clients that join and leave, rooms
/// that begin and end, and evictions.
///
/// At most [`queue`](crate::Config#structfield.queue) events wait for it, and at least 64 may. A
/// reader that does not keep up misses events, and a
/// [`HubEventKind::Gap`](crate::HubEventKind::Gap) says how many: the manager waits for no reader.
/// The events of a room come in the order in which they happened. A hub without a reader makes no
/// events.
///
/// It is no client, and [`Hub::drain`] does not wait for it. It ends with the hub.
pub struct HubEvents {
    queue: Arc<EventQueue>,
    /// Its permit as a reader of events.
    _permit: EventReaderPermit,
}

impl Hub {
    /// Reads what happens from now on: clients that join and leave rooms, rooms that begin and end,
    /// and evictions.
    ///
    /// Ask for a list of what is there already, such as [`presence`](Self::presence), after this. An
    /// event that is in the list already may come once more.
    ///
    /// # Errors
    ///
    /// [`Error::status`] 503 for more than 4 readers at once, those of `GET /events` included, and
    /// when memory is short; [`Error::is_closed`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped early, there is no reader.
    ///
    /// # Examples
    ///
    /// ```
    /// use hublet::{Admission, Config, Hub, HubEventKind};
    ///
    /// # smol::block_on(async {
    /// let (hub, manager) = Hub::new(Config::default())?;
    /// smol::spawn(manager).detach();
    /// let mut events = hub.events().await?;
    ///
    /// let ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// let made = events.next().await.expect("the hub runs");
    /// assert_eq!((made.kind, made.room.as_deref()), (HubEventKind::RoomMade, Some("news")));
    /// let join = events.next().await.expect("the hub runs");
    /// assert_eq!((join.kind, join.user.as_deref()), (HubEventKind::Join, Some("ada")));
    /// assert_eq!(join.client, Some(ada.client().id()));
    ///
    /// // 4 readers are admitted.
    /// let others = [hub.events().await?, hub.events().await?, hub.events().await?];
    /// let error = hub.events().await.expect_err("the limit is reached");
    /// assert_eq!(error.status().map(|status| status.as_u16()), Some(503));
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    #[doc(alias = "presence")]
    pub async fn events(&self) -> Result<HubEvents, Error> {
        self.read_filtered(RoomFilter::All).await
    }

    /// Reads what happens from now on in the room `NAME`, or in the rooms that `PREFIX*` covers. A `*`
    /// alone is for all rooms.
    ///
    /// # Errors
    ///
    /// As [`events`](Self::events), and [`Error::is_name`] if `rooms` is empty, or has a `*` anywhere
    /// but at its end.
    ///
    /// # Cancel safety
    ///
    /// As [`events`](Self::events).
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Admission, Config, Hub, HubEventKind};
    /// # smol::block_on(async {
    /// # let (hub, manager) = Hub::new(Config::default())?;
    /// # smol::spawn(manager).detach();
    /// let mut events = hub.events_of("sensor/*").await?;
    /// let _ada = hub.subscribe(Admission::user("ada").room("news")).await?;
    /// let _device = hub.subscribe(Admission::anonymous().room("sensor/1")).await?;
    /// let first = events.next().await.expect("the hub runs");
    /// assert_eq!((first.kind, first.room.as_deref()), (HubEventKind::RoomMade, Some("sensor/1")));
    ///
    /// assert!(hub.events_of("*/1").await.expect_err("no prefix").is_name());
    /// # Ok::<_, hublet::Error>(())
    /// # }).expect("it works");
    /// ```
    pub async fn events_of(&self, rooms: &str) -> Result<HubEvents, Error> {
        let filter = RoomFilter::parse(rooms).ok_or_else(|| Error::new(Kind::Name))?;
        self.read_filtered(filter).await
    }

    async fn read_filtered(&self, filter: RoomFilter) -> Result<HubEvents, Error> {
        let permit = event_reader_permit(self, None).map_err(Response::into_error)?;
        let events_max = events_max(self);
        read(self, filter, permit, events_max).await.map_err(|_| Error::closed())
    }
}

/// Events that may wait for a reader where the queues of clients are shorter: the rooms and the clients
/// of one step of the manager.
const EVENTS_MIN: usize = 64;

/// Events that wait for a reader at most: each takes less than 512 bytes.
pub(crate) fn events_max(hub: &Hub) -> usize {
    hub.shared().config.queue.max(EVENTS_MIN)
}

/// Has the manager tell a reader of what happens from now on; `events_max` events may wait for it.
pub(crate) async fn read(
    hub: &Hub,
    filter: RoomFilter,
    permit: EventReaderPermit,
    events_max: usize,
) -> Result<HubEvents, Response> {
    let queue = EventQueue::new(filter, events_max, hub.memory().charge(0));
    let own = Arc::clone(&queue);
    let added = hub.request(move |reply| Command::ReadEvents { queue, reply }).await;
    added.map_err(|_| draining())?;
    Ok(HubEvents { queue: own, _permit: permit })
}

impl HubEvents {
    /// Waits for the next event; `None` once the hub has ended.
    ///
    /// Cancel safety: dropped early, no event is lost.
    pub async fn next(&mut self) -> Option<HubEvent> {
        poll_fn(|cx| self.poll_take(cx)).await
    }

    pub(crate) fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Option<HubEvent>> {
        self.queue.poll_take(cx)
    }
}

/// The events, for the combinators of futures crates.
impl Stream for HubEvents {
    type Item = HubEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<HubEvent>> {
        self.queue.poll_take(cx)
    }
}

impl fmt::Debug for HubEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubEvents").field("queue", &self.queue).finish_non_exhaustive()
    }
}
