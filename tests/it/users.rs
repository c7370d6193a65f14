//! Users: a user may have many clients, and a hook assigns clients to users.

use std::sync::Arc;

use hublet::http::{Request, StatusCode};
use hublet::{Admission, Client, Config, Disconnect, Handler, Message, Peer as Source};

use crate::peer::{Peer, upgrade};
use crate::support::{TestHub, gone, until};

/// The query is the user's name. `@name text` goes to a user, any other text to all clients.
struct Named;

impl Handler for Named {
    async fn on_upgrade(&self, request: &Request<()>, _: &Source) -> Result<Admission, StatusCode> {
        let name = request.uri().query().ok_or(StatusCode::UNAUTHORIZED)?;
        let chosen = request.headers().get("sec-websocket-protocol");
        let admission = Admission::user(name).room("lobby").extension(name.len());
        Ok(if chosen.is_some() { admission.protocol("chat.v2") } else { admission })
    }

    async fn on_message(&self, client: &Client, message: Message) -> Result<(), Disconnect> {
        let text = message.as_text().ok_or(Disconnect::UNSUPPORTED)?;
        let from = client.user().ok_or(Disconnect::INTERNAL)?;
        let Some((to, text)) = text.strip_prefix('@').and_then(|rest| rest.split_once(' ')) else {
            assert_eq!(client.extension::<usize>(), Some(&from.len()));
            return client.hub().broadcast(message).await.map(drop).map_err(gone);
        };
        let reached = client.hub().send_to_user(to, format!("{from}: {text}")).await;
        let reached = reached.map_err(gone)?;
        client.send(format!("{reached} reached")).await.map(drop).map_err(gone)
    }
}

fn named() -> TestHub {
    TestHub::serving(Config::default(), Named)
}

#[test]
fn a_message_to_a_user_reaches_all_its_clients_and_no_other() {
    let hub = named();
    let mut ada = hub.join_at("/?ada");
    let mut bobs = [hub.join_at("/?bob"), hub.join_at("/?bob")];
    ada.say("@bob lunch?");
    ada.hears("2 reached");
    bobs.iter_mut().for_each(|bob| bob.hears("ada: lunch?"));
    ada.say("@cy hello");
    ada.hears("0 reached");
    bobs[0].say("for all");
    bobs.iter_mut().for_each(|bob| bob.hears("for all"));
    ada.hears("for all");
}

#[test]
fn user_exists_until_its_last_client_is_gone() {
    let hub = named();
    let users = || {
        let mut users: Vec<_> =
            hub.ask(hub.hub.presence("lobby")).into_iter().map(|member| member.user).collect();
        users.sort();
        users
    };
    let ada: Option<Arc<str>> = Some("ada".into());
    let bob: Option<Arc<str>> = Some("bob".into());
    let _ada = hub.join_at("/?ada");
    let [one, two] = [hub.join_at("/?bob"), hub.join_at("/?bob")];
    assert_eq!(users(), [ada.clone(), bob.clone(), bob.clone()]);
    one.reset();
    until("one bob is left", || users() == [ada.clone(), bob.clone()]);
    drop(two);
    until("no bob is left", || users() == std::slice::from_ref(&ada));
    assert_eq!(hub.ask(hub.hub.send_to_user("bob", "anyone?")), 0);
}

#[test]
fn client_without_credentials_is_refused_before_the_upgrade() {
    let hub = named();
    let mut peer = hub.dial();
    let response = peer.request(&upgrade("/"));
    assert_eq!(response.status, 401);
    assert_eq!(response.header("WWW-Authenticate"), Some("Bearer"));
    assert_eq!(hub.hub.stats().clients, 0);
    // A name that is not allowed is the hook's mistake.
    let (_, status) = Peer::ask(&hub.address, &format!("/?{}", "x".repeat(129)));
    assert_eq!(status, 500);
}

#[test]
fn hub_answers_with_the_subprotocol_that_the_hook_chose() {
    let hub = named();
    let offer = |protocols: &str| {
        let request = upgrade("/?ada");
        let request = request
            .replace("\r\n\r\n", &format!("\r\nSec-WebSocket-Protocol: {protocols}\r\n\r\n"));
        hub.dial().request(&request)
    };
    let response = offer("chat.v1, chat.v2");
    assert_eq!(
        (response.status, response.header("Sec-WebSocket-Protocol")),
        (101, Some("chat.v2"))
    );
    assert_eq!(offer("chat.v1").status, 500, "one that was not offered is the hook's mistake");
    let response = hub.dial().request(&upgrade("/?ada"));
    assert_eq!((response.status, response.header("Sec-WebSocket-Protocol")), (101, None));
}
