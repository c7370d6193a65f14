//! What the manager asks of a backplane's driver, and what the driver tells it.

use std::sync::Arc;

use crate::hub::reply::Reply;
use crate::hub::topic::Topic;
use crate::time::timer_list::Tick;

/// What the driver has to do about a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Subscribe it, and confirm that with [`LinkEvent::Subscribed`].
    Subscribed,
    /// The topic is a room that keeps messages, and is subscribed. Tell what it has now on the engine,
    /// then [`LinkEvent::Subscribed`] once more: a reader has heard more of it on another hub.
    Current,
    /// The last member has gone. It stays subscribed; in a second [`LinkEvent::Vacant`] asks with
    /// this number whether to end that.
    Vacant(u32),
    /// Unsubscribe it.
    Unsubscribed,
}

/// What a table says of a topic. One type for the tables of the link and of the driver: each type of
/// table has its code in the binary.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TopicState {
    /// What the manager asks for, on the link.
    pub(crate) wish: Option<Wish>,
    /// Whether the engine has confirmed the subscription, with the driver.
    pub(crate) confirmed: bool,
    /// The number of its last vacancy, with the driver.
    pub(crate) number: u32,
    /// When the driver asks whether it is still vacant.
    pub(crate) due: Option<Tick>,
}

/// What the driver tells the manager, in the order in which it happened, between the messages that
/// came back.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// Messages come from now on. What was said before, since the last [`LinkEvent::Down`], has passed
    /// the hub unheard.
    Back,
    /// The engine is connected, and every topic that the driver was asked for is subscribed.
    Up,
    /// The engine is lost. The driver takes no wish and connects to nothing before the answer.
    Down(Reply<()>),
    /// Each of the topics is subscribed.
    Subscribed(Vec<Topic>),
    /// The engine allows none of the topics.
    Refused(Vec<Topic>),
    /// The next message of a room that keeps messages has the position after this one: the hub begins
    /// with the room, or goes on behind a gap.
    Begin(Arc<str>, u64),
    /// A second has passed since the wish that a topic is vacant, with its number.
    Vacant(Topic, u32),
}
