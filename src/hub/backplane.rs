//! The seam between a hub and a backplane, an engine that several hubs share.
//!
//! It is plain data. Publishers hand their messages to an outbox instead of the manager's inbox.
//! A driver takes them from there, and sends what the engine returns to the inbox of every hub that
//! has members. So all hubs deliver a room's messages in the order of the engine. The manager says
//! which topics the hub has members of. It knows no engine, and it never waits for the driver.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use event_listener::Event;

use crate::hub::client_id::Target;
use crate::hub::command::{Carry, Command, Publish};
use crate::hub::inbox::{CommandReceiver, Inbox, Refused, inbox};
use crate::hub::link_event::{TopicState, Wish};
use crate::hub::reply::reply;
use crate::hub::topic::Topic;
use crate::message::Message;
use crate::sync::AtomicU64;
use crate::time::timer_list::Tick;

/// How long the engine may be away before the hub counts as ill.
pub(crate) const ILL_AFTER: Duration = Duration::from_secs(5);

/// What publishers, the manager and the driver of one hub share.
#[derive(Debug)]
pub(crate) struct Link {
    /// Names this hub among those on the engine; chosen by chance, or by the process that had it.
    pub(crate) hub: u64,
    /// Messages for the engine. It has the bounds of the inbox, and publishers wait beyond them.
    outbox: Inbox,
    /// Whether the engine is connected.
    is_up: AtomicBool,
    /// When the hub counts as ill, unless it is connected before.
    ill_at: Mutex<Tick>,
    /// Notified when the link is up. Publishers that wait for that listen.
    came_up: Event,
    /// What the driver has to do about each topic. The newest wish replaces an older one that the
    /// driver has not taken, so there are never more than topics.
    wishes: Mutex<HashMap<Topic, TopicState>>,
    /// Rooms of another process whose positions the engine gives, and the position of the last message
    /// that was delivered in each; until the driver takes them.
    restored: Mutex<Vec<(Arc<str>, u64)>>,
    /// Wakes the driver for a wish.
    driver: AtomicWaker,
    /// What has happened on the link.
    pub(crate) counters: LinkCounters,
}

/// What happened between a hub and its backplane.
#[derive(Debug, Default)]
pub(crate) struct LinkCounters {
    /// Times at which messages may have passed the hub unheard.
    pub(crate) gaps: AtomicU64,
    /// Messages from elsewhere that were longer than the longest message.
    pub(crate) dropped: AtomicU64,
    /// Messages of this hub that the engine has not confirmed, so that they may be lost.
    pub(crate) unconfirmed: AtomicU64,
}

impl Link {
    /// Makes the link of a hub, and the driver's side of its outbox, which holds at most `commands`
    /// messages of `bytes` in all. It is not connected yet, and the hub counts as ill from `ill_at` on.
    pub(crate) fn new(
        (commands, bytes): (usize, usize),
        ill_at: Tick,
        hub: Option<u64>,
    ) -> (Self, CommandReceiver) {
        let (outbox, messages) = inbox(commands, bytes);
        let link = Self {
            hub: hub.unwrap_or_else(|| fastrand::u64(..)),
            outbox,
            is_up: AtomicBool::new(false),
            ill_at: Mutex::new(ill_at),
            came_up: Event::new(),
            wishes: Mutex::default(),
            restored: Mutex::default(),
            driver: AtomicWaker::new(),
            counters: LinkCounters::default(),
        };
        (link, messages)
    }

    /// Whether the engine is connected and every topic that has members is subscribed. While it is
    /// not, the hub publishes nothing and admits no client.
    pub(crate) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::SeqCst)
    }

    /// The tick from which on the hub counts as ill, unless it is connected.
    pub(crate) fn ill_at(&self) -> Option<Tick> {
        let ill_at = *self.ill_at.lock().unwrap_or_else(PoisonError::into_inner);
        (!self.is_up()).then_some(ill_at)
    }

    /// The engine is connected: publishers go on.
    pub(crate) fn set_up(&self) {
        self.is_up.store(true, Ordering::SeqCst);
        self.came_up.notify(usize::MAX);
    }

    /// The engine is lost. From the tick `ill_at` on the hub counts as ill.
    pub(crate) fn set_down(&self, ill_at: Tick) {
        *self.ill_at.lock().unwrap_or_else(PoisonError::into_inner) = ill_at;
        self.is_up.store(false, Ordering::SeqCst);
    }

    /// Waits until the engine is connected.
    pub(crate) async fn up(&self) {
        loop {
            let listener = self.came_up.listen();
            if self.is_up() {
                break;
            }
            listener.await;
        }
    }

    /// Waits until the engine has answered what it was sent before, and that has come back. Ready at
    /// once if it is away.
    pub(crate) async fn flush(&self) {
        let (hubs, answer) = reply();
        // No client is of this user. The answers keep the order of the messages.
        let no_client = Target::User("\u{1}".into());
        let publish = Publish::by_hub(no_client, Message::binary([]));
        if self.try_send(Carry { publish, reply: None, hubs: Some(hubs) }).is_ok() {
            let _ = answer.await;
        }
    }

    /// Notes the rooms that another process was in.
    pub(crate) fn restore(&self, rooms: Vec<(Arc<str>, u64)>) {
        *self.restored.lock().unwrap_or_else(PoisonError::into_inner) = rooms;
    }

    /// Takes them.
    pub(crate) fn take_restored(&self) -> Vec<(Arc<str>, u64)> {
        std::mem::take(&mut *self.restored.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hands a message to the driver, once the link is up and there is room. `Err` when the driver
    /// has ended.
    ///
    /// Cancel safety: if the future is dropped early the message is either handed over or dropped.
    pub(crate) async fn send(&self, carry: Carry) -> Result<(), ()> {
        self.up().await;
        self.outbox.send(Command::Carry(Box::new(carry))).await.map_err(drop)
    }

    /// Asks for the rooms of the other hubs; `false` if there is no room for the question now.
    pub(crate) fn try_query(&self, command: Command) -> bool {
        self.is_up() && self.outbox.try_send(command).is_ok()
    }

    /// Hands a message to the driver if the link is up and there is room now.
    pub(crate) fn try_send(&self, carry: Carry) -> Result<(), Refused> {
        let command = Command::Carry(Box::new(carry));
        if !self.is_up() {
            return Err(Refused::Full(command));
        }
        self.outbox.try_send(command)
    }

    /// The hub has ended: the driver ends too.
    pub(crate) fn close(&self) {
        self.outbox.close();
    }

    /// Asks the driver to do something about a topic, for the manager. Never waits.
    pub(crate) fn wish(&self, topic: Topic, wish: Wish) {
        let state = TopicState { wish: Some(wish), ..TopicState::default() };
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner).insert(topic, state);
        self.driver.wake();
    }

    /// Takes what the manager has asked for since the last call, in no order.
    pub(crate) fn take_wishes(&self) -> impl Iterator<Item = (Topic, Wish)> + use<> {
        let wishes =
            std::mem::take(&mut *self.wishes.lock().unwrap_or_else(PoisonError::into_inner));
        wishes.into_iter().filter_map(|(topic, state)| Some((topic, state.wish?)))
    }

    /// Ready when there is a wish; else the driver is woken for the next one.
    pub(crate) fn poll_wishes(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.driver.register(cx.waker());
        let wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner);
        if wishes.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }
}
