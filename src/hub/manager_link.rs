//! What the manager does for the backplane: the events of the driver, and messages with a position.

use std::sync::Arc;

use futures_lite::future::yield_now;

use crate::disconnect::Disconnect;
use crate::hub::client_id::{ClientId, Target};
use crate::hub::command::{Dispatched, Publish};
use crate::hub::link_event::LinkEvent;
use crate::hub::manager::{FANOUT, Manager, is_behind, is_heard};
use crate::hub::reply::Reply;
use crate::hub::topic::Topic;

impl Manager {
    /// Does what the driver of the backplane says.
    pub(super) async fn on_link_event(&mut self, event: LinkEvent) {
        match &event {
            // Readers that are told of gaps are told of this one now.
            LinkEvent::Down(_) => drop(self.registry.begin_anew()),
            // A program that is told of the gap now and reads its state anew misses nothing more.
            LinkEvent::Back => {
                let counting = self.registry.begin_anew();
                self.remove_all(&counting, &Disconnect::GAP).await;
            }
            LinkEvent::Begin(room, position) if self.hears(room) => {
                self.begin_at(room, *position).await;
            }
            LinkEvent::Refused(topics) => {
                for topic in topics {
                    let members = self.registry.members(&topic.target());
                    let members: Vec<_> = members.iter().map(|member| member.id).collect();
                    self.remove_all(&members, &Disconnect::TRY_LATER).await;
                    self.registry.abandon(topic);
                }
            }
            _ => {}
        }
        let Some(subscriptions) = &mut self.subscriptions else { return };
        let (registry, waiters) = (&mut self.registry, &self.waiters);
        let vacated =
            if let LinkEvent::Vacant(topic, _) = &event { Some(topic.clone()) } else { None };
        let (ready, unused) = subscriptions.on_event(
            event,
            |topic| is_heard(registry, waiters, topic),
            |command| is_behind(registry, command),
        );
        subscriptions.vacate(unused, |topic| is_heard(registry, waiters, topic));
        if let Some(topic) = vacated.filter(|topic| !subscriptions.contains(topic)) {
            registry.abandon(&topic);
        }
        for command in ready {
            self.join_or_vacate(command);
        }
    }

    /// Delivers a message that has its position from the backplane.
    pub(super) async fn publish_at(
        &mut self,
        publish: Publish,
        position: u64,
        reply: Option<Reply<Dispatched>>,
    ) {
        if let Target::Room(room) = &publish.target {
            if !self.hears(room) {
                // The hub has no member, and would not learn that what it keeps grows old.
                let dispatched = Dispatched { position: Some(position), ..Dispatched::to(0) };
                return reply.into_iter().for_each(|reply| reply.answer(dispatched));
            }
            self.begin_at(&Arc::clone(room), position - 1).await;
        }
        let target = self.batch.add(publish, reply);
        self.deliver(&target, Some(position)).await;
    }

    /// Whether a room is subscribed, or is to be.
    fn hears(&self, room: &Arc<str>) -> bool {
        let topic = Topic::Room(Arc::clone(room));
        self.subscriptions.as_ref().is_some_and(|subscriptions| subscriptions.contains(&topic))
    }

    /// Has the next message of a room be the one after a position, behind a gap if that is not so
    /// already.
    async fn begin_at(&mut self, room: &Arc<str>, position: u64) {
        let counting = self.registry.begin_at(room, position);
        self.remove_all(&counting, &Disconnect::GAP).await;
    }

    /// Removes clients, yielding between slices of them.
    async fn remove_all(&mut self, ids: &[ClientId], reason: &Disconnect) {
        for ids in ids.chunks(FANOUT) {
            for id in ids {
                self.registry.remove(*id, reason.clone());
            }
            yield_now().await;
        }
    }
}
