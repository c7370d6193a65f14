//! Rooms and their members in JSON, a page at a time.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::{StatusCode, Uri};

use crate::error::Error;
use crate::http1::response::{Response, away, draining};
use crate::http1::url::query_of;
use crate::hub::command::Command;
use crate::hub::handle::Hub;
use crate::hub::reply::reply;
use crate::hub::shared_rooms::SharedRooms;
use crate::hub::since::Since;
use crate::json;

/// Rooms or members of a page without `?limit=`.
const LIMIT: usize = 100;

/// Rooms or members of a page at most: about 200 KB of JSON, and less than a millisecond of the
/// manager's time.
const LIMIT_MAX: usize = 1000;

/// The answer to `GET /rooms`: the rooms in the order of their names, from the first after
/// `?after=`.
pub(crate) async fn rooms(hub: &Hub, uri: &Uri) -> Result<Response, Response> {
    let limit = limit(uri)?;
    let after = query_of(uri, "after").unwrap_or_default();
    // One more than the page holds, to know whether another page follows.
    let first = after.clone();
    let command = move |reply| Command::ListRooms { after: first, limit: limit + 1, reply };
    let mut rooms = hub.request(command).await.map_err(closed)?;
    let others = others(hub, after.clone(), limit + 1).await?;
    if let Some(others) = &others {
        add_rooms(&mut rooms, others);
    }
    let more = rooms.len() > limit;
    rooms.truncate(limit);
    let mut body = String::new();
    if let Some(others) = &others {
        let hubs = others.hubs + 1;
        // The other hubs say how many members they have every 10 s.
        let _ = write!(body, "{{\"hubs\":{hubs},\"seconds_old\":10,\"rooms\":[");
    } else {
        body.push_str("{\"rooms\":[");
    }
    for (nth, (room, members)) in rooms.iter().enumerate() {
        body.push_str(if nth > 0 { ",{\"room\":" } else { "{\"room\":" });
        json::string(&mut body, room);
        // Writing to a string cannot fail.
        let _ = write!(body, ",\"members\":{members}}}");
    }
    let next = rooms.last().filter(|_| more).map(|(room, _)| room.to_string());
    Ok(finish(body, next, ""))
}

/// How long the rooms of the other hubs may take.
const OTHERS_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks for the rooms of the other hubs; `None` if the hub is alone.
async fn others(hub: &Hub, after: String, limit: usize) -> Result<Option<SharedRooms>, Response> {
    let Some(backplane) = &hub.shared().backplane else { return Ok(None) };
    let (reply, answer) = reply();
    if !backplane.link.try_query(Command::SumRooms { after, limit, reply }) {
        return Err(away());
    }
    let mut deadline = hub.shared().timers.after(OTHERS_TIMEOUT);
    deadline.within(answer).await.flatten().map(Some).ok_or_else(away)
}

/// Adds the members of the other hubs to those of this one, in the order of the rooms' names.
fn add_rooms(rooms: &mut Vec<(Arc<str>, usize)>, others: &SharedRooms) {
    for (room, members) in &others.rooms {
        match rooms.binary_search_by(|(name, _)| (**name).cmp(room)) {
            Ok(at) => rooms[at].1 += members,
            Err(at) => rooms.insert(at, (room.as_str().into(), *members)),
        }
    }
}

/// The answer to `GET /rooms/{room}`: its members in the order of their ids, from the first after
/// `?after=`; and if the room exists the positions of its newest message, and of the oldest that it
/// keeps.
pub(crate) async fn members(hub: &Hub, uri: &Uri, room: String) -> Result<Response, Response> {
    let limit = limit(uri)?;
    let slot = |id: &str| id.split('-').next()?.parse().ok();
    let after = query_of(uri, "after").map(|id| {
        slot(&id).ok_or_else(|| Response::bad_request("after must be the id of a client"))
    });
    let after = after.transpose()?;
    let mut body = String::from("{\"room\":");
    json::string(&mut body, &room);
    body.push_str(",\"members\":[");
    let kept = hub.kept(&room, Since::Now, 0).await.map_err(closed)?;
    let command = |reply| Command::ListMembers { room, after, limit: limit + 1, reply };
    let mut members = hub.request(command).await.map_err(closed)?;
    let more = members.len() > limit;
    members.truncate(limit);
    for (nth, member) in members.iter().enumerate() {
        let comma = if nth > 0 { "," } else { "" };
        let _ = write!(body, "{comma}{{\"id\":\"{}\",\"user\":", member.id);
        match &member.user {
            Some(user) => json::string(&mut body, user),
            None => body.push_str("null"),
        }
        let _ = write!(
            body,
            ",\"since\":{},\"waiting\":{},\"waiting_bytes\":{},\"missed\":{}}}",
            member.since, member.waiting, member.waiting_bytes, member.missed
        );
    }
    let next = members.last().filter(|_| more).map(|member| member.id.to_string());
    let positions = kept.map_or_else(String::new, |kept| {
        let oldest = kept.oldest.map_or("null".into(), |oldest| oldest.to_string());
        format!(",\"position\":{},\"oldest\":{oldest}", kept.newest)
    });
    Ok(finish(body, next, &positions))
}

/// Ends the list of a page, and adds what else it has and the `?after=` of the next one.
fn finish(mut body: String, next: Option<String>, further: &str) -> Response {
    body.push(']');
    body.push_str(further);
    body.push_str(",\"next\":");
    match next {
        Some(next) => json::string(&mut body, &next),
        None => body.push_str("null"),
    }
    body.push('}');
    Response::with_type(StatusCode::OK, "application/json", body.into())
        .header("Cache-Control", "no-store")
}

fn limit(uri: &Uri) -> Result<usize, Response> {
    let Some(text) = query_of(uri, "limit") else { return Ok(LIMIT) };
    let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| Response::bad_request("limit must be a number from 1 to 1000"))
}

fn closed(_: Error) -> Response {
    draining()
}
