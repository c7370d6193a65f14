//! Consecutive messages for one target, which the manager delivers together.

use std::sync::Arc;

use crate::hub::ack::Ack;
use crate::hub::batch::JoinedFrames;
use crate::hub::client_id::Target;
use crate::hub::command::{Dispatched, Publish};
use crate::hub::delivery::Dispatch;
use crate::hub::reply::Reply;
use crate::message::Message;

/// What a batch may take, or may take still.
#[derive(Debug)]
pub(crate) struct BatchBudget {
    /// Commands, and so messages of a delivery: half a queue at most.
    pub(crate) commands: usize,
    /// Bytes of frames: half a queue at most, past the first command.
    pub(crate) bytes: usize,
}

/// Consecutive messages for one target.
#[derive(Debug, Default)]
pub(crate) struct PublishBatch {
    pub(crate) messages: Vec<Message>,
    /// For each message the client that must not get it, and how many took it.
    pub(crate) dispatches: Vec<Dispatch>,
    /// The index of a message, and where to answer how many took it; in the order of messages.
    pub(crate) replies: Vec<(usize, Reply<Dispatched>)>,
    /// Where its recipients acknowledge a message that is the only one.
    pub(crate) ack: Option<Arc<Ack>>,
    /// The frames of the messages side by side, where there are several and they are short.
    pub(crate) joined: JoinedFrames,
}

impl PublishBatch {
    /// Whether a message joins those that are there, which are for a target. The answer to a question of
    /// one client does not come with other messages for it: a client that counts, or has labels, gets it
    /// as it is.
    pub(crate) fn takes(&self, target: &Target, publish: &Publish) -> bool {
        let is_answer = |message: &Message| message.is_empty() && !message.is_text();
        let is_alike =
            || self.messages.iter().all(|one| is_answer(one) == is_answer(&publish.message));
        publish.target == *target && (!matches!(target, Target::Client(_)) || is_alike())
    }

    /// Adds a message; returns its target.
    pub(crate) fn add(&mut self, publish: Publish, reply: Option<Reply<Dispatched>>) -> Target {
        let Publish { target, except, message } = publish;
        if let Some(reply) = reply {
            self.replies.push((self.messages.len(), reply));
        }
        self.messages.push(message);
        self.dispatches.push(Dispatch::new(except));
        target
    }
}
