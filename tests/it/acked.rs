//! Publishing with `?wait=TIME`: the answer says what became of the message at each recipient.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hublet::http::{Request, StatusCode};
use hublet::{
    Admission, Client, Config, Disconnect, Handler, Message, Peer as Source, Target, room_of,
};

use crate::http;
use crate::peer::{Peer, Response};
use crate::support::{TestHub, until};

/// Allows everything.
#[derive(Default)]
struct Open {
    /// When a permission to publish ends, in seconds of Unix time; 0 for never.
    until: Arc<AtomicU64>,
}

impl Handler for Open {
    async fn on_upgrade(&self, request: &Request<()>, _: &Source) -> Result<Admission, StatusCode> {
        let room = room_of(request.uri().path()).ok_or(StatusCode::NOT_FOUND)?;
        Ok(Admission::user("ada").room(room))
    }

    async fn on_publish(&self, _: &Request<()>, _: &Source, _: &Target) -> Result<(), StatusCode> {
        Ok(())
    }

    async fn on_act(&self, _: &Request<()>, _: &Source, _: &Target) -> Result<(), StatusCode> {
        Ok(())
    }

    async fn publish_until(&self, _: &Request<()>, _: &Source, _: &Target) -> StatusCode {
        if self.until.load(Ordering::Relaxed) == 0 {
            std::future::pending::<()>().await;
        }
        StatusCode::UNAUTHORIZED
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        Ok(client.hub().broadcast(message).await.map(drop)?)
    }
}

fn config() -> Config {
    Config::default().http(true)
}

fn hub(config: Config) -> TestHub {
    TestHub::serving(config, Open::default())
}

fn send(peer: &mut Peer<TcpStream>, path: &str) {
    peer.write(http::post(path, "", "hello").as_bytes());
}

#[track_caller]
fn answer(peer: &mut Peer<TcpStream>) -> (u16, String) {
    let response: Response = peer.response();
    (response.status, peer.body_text(&response).trim_end().to_owned())
}

#[track_caller]
fn post(hub: &TestHub, path: &str) -> (u16, String) {
    let mut peer = hub.dial();
    send(&mut peer, path);
    answer(&mut peer)
}

fn body(fates: [usize; 4], position: Option<u64>) -> String {
    let [recipients, delivered, late, lost] = fates;
    let position = position.map_or(String::new(), |position| format!(",\"position\":{position}"));
    format!(
        "{{\"recipients\":{recipients},\"delivered\":{delivered},\"late\":{late},\"lost\":{lost}{position}}}"
    )
}

#[test]
fn the_answer_says_for_how_many_the_kernel_has_it() {
    let hub = hub(config());
    let mut readers = [hub.join_at("/ws/news"), hub.join_at("/ws/news")];
    let before = hub.ask(hub.hub.position("news")).expect("it has members");
    let told = post(&hub, "/pub/news?wait=60s");
    assert_eq!(told, (202, body([2, 2, 0, 0], Some(before + 1))));
    readers.iter_mut().for_each(|reader| reader.hears("hello"));
    assert_eq!(post(&hub, "/user/ada?wait=60s"), (202, body([2, 2, 0, 0], None)));
    assert_eq!(post(&hub, "/all?wait=60s"), (202, body([2, 2, 0, 0], None)));
    assert_eq!(post(&hub, "/pub/empty?wait=60s"), (202, body([0; 4], None)));
}

#[test]
fn it_waits_until_the_last_recipient_has_it_or_time_is_over() {
    let hub = hub(config());
    let _quick = hub.join_at("/ws/news");
    // The program itself, which takes its messages when it likes.
    let news = || Admission::anonymous().room("news");
    let mut slow = hub.ask(hub.hub.subscribe(news()));
    let position = || hub.ask(hub.hub.position("news"));
    let told = post(&hub, "/pub/news?wait=0s");
    assert_eq!(told, (202, body([2, 1, 1, 0], position())));
    let told = post(&hub, "/pub/news?wait=50ms");
    assert_eq!(told, (202, body([2, 1, 1, 0], position())));
    let gone = hub.ask(hub.hub.subscribe(news()));
    let mut peer = hub.dial();
    send(&mut peer, "/pub/news?wait=60s");
    until("it is published", || hub.hub.stats().messages_dispatched == 3);
    for _ in 0..3 {
        assert_eq!(hub.ask(async { Ok(slow.next().await) }), Ok(Message::from("hello")));
    }
    drop(gone);
    assert_eq!(answer(&mut peer), (202, body([3, 2, 0, 1], position())));
    send(&mut peer, "/pub/news");
    assert_eq!(answer(&mut peer).0, 202, "the connection stays");
}

#[test]
fn it_takes_the_place_of_a_client_and_no_slot() {
    let hub = hub(config().handshakes(1).max_clients(Some(2)).max_clients_per_ip(Some(1)));
    let slow = hub.ask(hub.hub.subscribe(Admission::anonymous().room("news")));
    let mut waiting = hub.dial();
    send(&mut waiting, "/pub/news?wait=60s");
    until("it is published", || hub.hub.stats().messages_dispatched == 1);
    let (status, sentence) = post(&hub, "/pub/news?wait=1s");
    assert_eq!(status, 503, "{sentence}");
    assert_eq!(hub.hub.stats().messages_dispatched, 1, "what is refused is not sent");
    assert_eq!(post(&hub, "/pub/news").0, 202, "the slot is free");
    drop(slow);
    let (status, told) = answer(&mut waiting);
    assert_eq!((status, told.contains("\"lost\":1")), (202, true), "{told}");
    until("the place is free", || post(&hub, "/pub/news?wait=1s").0 == 202);
}

#[test]
fn a_peer_that_leaves_gives_its_place_back() {
    let hub = hub(config().max_clients(Some(2)));
    let _slow = hub.ask(hub.hub.subscribe(Admission::anonymous().room("news")));
    let mut waiting = hub.dial();
    send(&mut waiting, "/pub/news?wait=60s");
    until("it is published", || hub.hub.stats().messages_dispatched == 1);
    assert_eq!(post(&hub, "/pub/news?wait=0s").0, 503);
    drop(waiting);
    until("the place is free", || post(&hub, "/pub/news?wait=0s").0 == 202);
}

#[test]
fn it_ends_with_the_count_so_far_when_the_hub_drains_or_its_permission_ends() {
    let open = Open::default();
    let end = Arc::clone(&open.until);
    let hub = TestHub::serving(config(), open);
    let slow = hub.ask(hub.hub.subscribe(Admission::anonymous().room("news")));
    let begun = Instant::now();
    let mut waiting = hub.dial();
    send(&mut waiting, "/pub/news?wait=60s");
    until("it is published", || hub.hub.stats().messages_dispatched == 1);
    end.store(1, Ordering::Relaxed);
    let (status, told) = post(&hub, "/pub/news?wait=60s");
    assert_eq!((status, told.contains("\"late\":1")), (202, true), "{told}");
    let draining = hub.hub.clone();
    let drain = hub.spawn(async move { draining.drain(Disconnect::RESTART).await });
    let (status, told) = answer(&mut waiting);
    assert_eq!((status, told.contains("\"recipients\":1,\"delivered\":0,")), (202, true), "{told}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    drop(slow);
    futures_lite::future::block_on(drain);
}

#[test]
fn what_is_no_wait_is_refused() {
    let hub = hub(config());
    for wait in ["61s", "2m", "5", "-1s", "", "s", "1h"] {
        let (status, sentence) = post(&hub, &format!("/pub/news?wait={wait}"));
        assert_eq!((status, sentence.contains("at most 60s")), (400, true), "{wait}: {sentence}");
    }
    assert_eq!(post(&hub, "/pub/news?lines&wait=1s").0, 400);
    assert_eq!(hub.hub.stats().messages_dispatched, 0);
}
