//! The clients of several hubs: each reads what its hub sends, and notes it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;

use crate::connection::admission::Admission;
use crate::connection::registration;
use crate::connection::registration::{Admitted, ClientKind};
use crate::hub::backlog::Taken;
use crate::hub::client::Client;
use crate::hub::handle::Hub;
use crate::sim::journal::event;
use crate::sim::several_notes::{NEVER, Notes};

/// A client that is told positions, or that hears without any.
pub(super) async fn read(
    hub: Hub,
    notes: Rc<RefCell<Notes>>,
    nth: usize,
    room: usize,
    admission: Admission,
) {
    let subscribed = hub.subscribe(admission).await;
    drop(hub);
    let Ok(mut subscription) = subscribed else { return };
    enter(&notes, nth, room, subscription.client());
    let mut position = subscription.position();
    notes.borrow_mut().members[nth].begins.1 = position;
    loop {
        match subscription.next().await {
            Ok(message) => {
                let text = message.as_text().expect("text").to_owned();
                let now = subscription.position();
                let is_new = std::mem::replace(&mut position, now) != now;
                notes.borrow_mut().hear(nth, room, now.filter(|_| is_new), text);
            }
            Err(reason) => {
                notes.borrow_mut().members[nth].ended = Some(reason);
                return;
            }
        }
    }
}

/// A client that counts, as a WebSocket with `since` does.
pub(super) async fn count(
    hub: Hub,
    notes: Rc<RefCell<Notes>>,
    nth: usize,
    room: usize,
    admission: Admission,
) {
    let admitted = registration::admit(&hub, admission, ClientKind::WebSocket).await;
    drop(hub);
    let Ok(Admitted { registered, client, begin, .. }) = admitted else { return };
    registered.queue.set_program();
    registered.queue.open(None);
    enter(&notes, nth, room, &client);
    drop(client);
    let mut position = begin.expect("it counts").position;
    notes.borrow_mut().members[nth].begins.1 = Some(position);
    loop {
        let taken = poll_fn(|cx| {
            let taken = registered.queue.poll_take(cx);
            registered.queue.take_request().into_iter().for_each(|id| registered.request_more(id));
            taken
        });
        match taken.await {
            Ok(Taken { message, .. }) => {
                position += 1;
                let text = message.as_text().expect("text").to_owned();
                notes.borrow_mut().hear(nth, room, Some(position), text);
            }
            Err(reason) => {
                event!("client {nth} is closed: {reason:?}");
                notes.borrow_mut().members[nth].ended = Some(reason);
                return;
            }
        }
    }
}

/// A client is a member of its first room.
fn enter(notes: &RefCell<Notes>, nth: usize, room: usize, client: &Client) {
    event!("client {nth} is in");
    let mut notes = notes.borrow_mut();
    let (step, restarts) = (notes.step, notes.restarts);
    notes.members[nth].whole.take_if(|(_, before)| *before != restarts);
    notes.members[nth].client = Some(client.clone());
    notes.members[nth].stays.push((room, step, NEVER));
}
