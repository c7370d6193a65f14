use std::sync::Arc;

use smol::block_on;
use smol::future::poll_once;

use crate::hub::backplane::Link;
use crate::hub::client_id::{ClientId, Refusal, Target};
use crate::hub::command::{Carry, Command, Publish};
use crate::hub::inbox::CommandReceiver;
use crate::hub::link_event::{LinkEvent, Wish};
use crate::hub::queue::Queue;
use crate::hub::reply::{Answer, reply};
use crate::hub::since::Since;
use crate::hub::subscriptions::Subscriptions;
use crate::hub::tests::reader::counting;
use crate::hub::tests::support::queue_config;
use crate::hub::topic::Topic;
use crate::message::Message;
use crate::overflow::Overflow;
use crate::time::timers::Timers;

/// A link that is not connected, and the driver's side of its outbox.
fn link() -> (Arc<Link>, CommandReceiver) {
    let (link, outbox) = Link::new((4, 1024), Timers::new().now(), None);
    (Arc::new(link), outbox)
}

/// A join of a room, and its answer.
fn join(room: &str) -> (Command, Answer<Result<(), Refusal>>) {
    let (reply, answer) = reply();
    let id = ClientId { slot: 0, generation: 0 };
    (Command::Join { id, room: room.into(), is_prefix: false, reply }, answer)
}

#[test]
fn a_join_that_waits_is_refused_once_the_backplane_is_lost() {
    let (link, _outbox) = link();
    link.set_up();
    let mut subscriptions = Subscriptions::new(Arc::clone(&link), &Arc::default());
    subscriptions.on_event(LinkEvent::Up, |_| false, |_| false);
    let (command, mut answer) = join("news");
    assert!(subscriptions.admit(command, false).is_none(), "it waits");
    let topic = Topic::Room("news".into());
    assert_eq!(link.take_wishes().collect::<Vec<_>>(), [(topic.clone(), Wish::Subscribed)]);
    assert!(block_on(poll_once(&mut answer)).is_none());
    let (taken, is_taken) = reply();
    let (ready, unused) = subscriptions.on_event(LinkEvent::Down(taken), |_| false, |_| false);
    assert_eq!((ready.len(), unused), (0, vec![topic]));
    assert!(matches!(block_on(poll_once(answer)), Some(Some(Err(Refusal::Away)))));
    assert_eq!(block_on(is_taken), Some(()));
    let (command, answer) = join("news");
    assert!(subscriptions.admit(command, false).is_none(), "it is refused");
    assert!(matches!(block_on(answer), Some(Err(Refusal::Away))));
}

/// It has heard more of its room on another hub. Only the room can be read once more, not its user.
#[test]
fn a_reader_that_is_ahead_waits_for_its_room_whatever_is_confirmed_last() {
    let (room, user) = (Topic::Room("news".into()), Topic::User("ada".into()));
    for is_known in [false, true] {
        let (link, _outbox) = link();
        link.set_up();
        let mut subscriptions = Subscriptions::new(Arc::clone(&link), &Arc::default());
        let on_event = |subscriptions: &mut Subscriptions, event| {
            let (ready, _) = subscriptions.on_event(event, |_| false, |_| true);
            ready.len()
        };
        on_event(&mut subscriptions, LinkEvent::Up);
        if is_known {
            let both = [room.clone(), user.clone()];
            subscriptions.restore(both.into_iter(), Vec::new());
            on_event(&mut subscriptions, LinkEvent::Up);
            link.take_wishes().for_each(drop);
        }
        let (reply, _answer) = reply();
        let queue = Queue::new(&queue_config(4, 1024, Overflow::Disconnect));
        let reading = Box::new(counting(Since::Position(9)));
        let (rooms, user_name) = (Box::new(["news".into()]), Some("ada".into()));
        let command = Command::Register {
            queue,
            user: user_name,
            rooms,
            prefixes: 0,
            came: 0,
            reading,
            reply,
        };
        assert!(subscriptions.admit(command, true).is_none(), "it waits");
        if !is_known {
            assert_eq!(link.take_wishes().count(), 2, "both are to be subscribed");
            assert_eq!(on_event(&mut subscriptions, LinkEvent::Subscribed(vec![room.clone()])), 0);
            assert_eq!(on_event(&mut subscriptions, LinkEvent::Subscribed(vec![user.clone()])), 0);
        }
        let wishes: Vec<_> = link.take_wishes().collect();
        assert_eq!(wishes, [(room.clone(), Wish::Current)]);
        assert_eq!(on_event(&mut subscriptions, LinkEvent::Subscribed(vec![user.clone()])), 0);
        assert_eq!(on_event(&mut subscriptions, LinkEvent::Subscribed(vec![room.clone()])), 1);
        subscriptions.check([room.clone()].into_iter());
    }
}

#[test]
fn a_publisher_that_waits_goes_on_once_the_backplane_is_back() {
    let executor = smol::Executor::new();
    let (link, _outbox) = link();
    let publish = Publish::by_hub(Target::All, Message::text("hello"));
    let carry = Carry { publish, reply: None, hubs: None };
    let publisher = Arc::clone(&link);
    let publishing = executor.spawn(async move { publisher.send(carry).await });
    while executor.try_tick() {}
    assert!(!publishing.is_finished(), "the backplane is away");
    link.set_up();
    while executor.try_tick() {}
    assert!(publishing.is_finished());
    assert_eq!(block_on(publishing), Ok(()));
}
