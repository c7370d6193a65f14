//! Terms: limits of one client, where they are not those of all.

use hublet::http::{Request, StatusCode};
use hublet::{
    Admission, Client, Config, Disconnect, Handler, Message, Overflow, Peer as Source, room_of,
};

use crate::support::TestHub;

/// The room decides the terms.
struct Rooms;

impl Handler for Rooms {
    async fn on_upgrade(&self, request: &Request<()>, _: &Source) -> Result<Admission, StatusCode> {
        let room = room_of(request.uri().path()).ok_or(StatusCode::NOT_FOUND)?;
        let admission = Admission::anonymous().room("news");
        Ok(if *room == *"short" { admission.max_message(10) } else { admission })
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        Ok(client.hub().publish("news", message).await.map(drop)?)
    }
}

#[test]
fn the_longest_message_of_one_client_is_shorter() {
    let hub = TestHub::serving(Config::default().http(true), Rooms);
    let (mut short, mut other) = (hub.join_at("/ws/short"), hub.join_at("/ws/other"));
    short.say("0123456789");
    other.hears("0123456789");
    short.hears("0123456789");
    other.say("0123456789a");
    short.hears("0123456789a");
    short.say("0123456789a");
    short.is_closed(1009);
    other.hears("0123456789a");
}

#[test]
fn each_client_has_the_queue_of_its_terms() {
    let hub = TestHub::with(Config::default().queue(4));
    let news = || Admission::anonymous().room("news");
    let longest = Config::MAX_MESSAGE;
    let clients = [
        (news(), Err(4108), 0),
        (news().queue(10), Ok("5"), 0),
        (news().queue(10).queue_bytes(1), Ok("5"), 0),
        (news().queue(1).overflow(Overflow::Latest), Ok("9"), 4),
        (news().overflow(Overflow::DropOldest), Ok("6"), 1),
        (news().overflow(Overflow::DropNewest), Ok("5"), 1),
    ];
    let subscribed = clients
        .map(|(admission, first, missed)| (hub.ask(hub.hub.subscribe(admission)), first, missed));
    for number in 5..10 {
        hub.ask(hub.hub.publish("news", number.to_string()));
    }
    for (mut client, first, missed) in subscribed {
        let heard = hub.ask(async { Ok(client.next().await) });
        let heard = heard.as_ref().map(|text| text.as_text().unwrap_or_default());
        assert_eq!(heard.map_err(Disconnect::code), first);
        if first.is_ok() {
            assert_eq!(client.missed(), missed, "{first:?}");
        }
    }
    // The queue in bytes is raised to what the longest message needs.
    let mut client = hub.ask(hub.hub.subscribe(news().queue_bytes(1)));
    hub.ask(hub.hub.publish("news", "x".repeat(longest)));
    let heard = hub.ask(async { Ok(client.next().await) }).expect("connected");
    assert_eq!(heard.as_bytes().len(), longest);
}
