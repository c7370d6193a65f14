//! Posters: peers that send over HTTP, one request after another, and read the answers or do not.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::peer::Peer as Origin;
use crate::serve::accept::connect;
use crate::sim::executor::TaskId;
use crate::sim::journal;
use crate::sim::journal::{Name, event};
use crate::sim::network::{Line, Socket};
use crate::sim::notes::{Notes, To};
use crate::sim::response::Response;
use crate::sim::script::{ROOMS, USERS, line, said};
use crate::sim::world::World;

/// Posters at a time.
const POSTERS_MAX: usize = 6;

/// The peer's end of a connection that posts.
pub(super) struct Poster {
    pub(super) line: Arc<Line>,
    /// The connection's task.
    pub(super) task: TaskId,
    /// Its number among all that ever came.
    pub(super) number: usize,
    /// It reads every answer as it comes.
    pub(super) steady: bool,
    /// The requests that were begun and not answered, in order.
    requests: VecDeque<Request>,
    /// What it has begun to send and not finished.
    half: Vec<u8>,
    /// How much of what was taken for it, in bytes, it has understood.
    seen: usize,
    /// It has sent its last byte.
    pub(super) silent: bool,
    /// It has reset its connection, or that was dropped.
    broken: bool,
}

/// What a request is to publish.
enum Request {
    Message(u32),
    /// A message whose recipients are waited for.
    Acked(u32),
    /// A message for each line, in order.
    Lines(Vec<u32>),
}

impl Request {
    /// Notes that the hub has not taken it.
    fn refuse(self, notes: &mut Notes) {
        match self {
            Self::Message(number) | Self::Acked(number) => notes.refused(number),
            Self::Lines(numbers) => numbers.into_iter().for_each(|number| notes.refused(number)),
        }
    }
}

impl Poster {
    /// Reads what has come; `false` if that changes nothing for the server.
    pub(super) fn answer(&mut self, notes: &mut Notes) -> bool {
        self.line.read(usize::MAX);
        let kernel = self.line.lock();
        let (come, over) = (kernel.legible()[self.seen..].to_vec(), kernel.is_over());
        drop(kernel);
        let mut rest = &come[..];
        while let Some(response) = Response::first(&mut rest) {
            self.note(&response, notes);
        }
        let read = come.len() - rest.len();
        self.seen += read;
        if read > 0 && !self.steady {
            self.line.grant(read / 2);
        }
        let ends = over && !self.silent;
        if ends {
            self.silent = true;
            self.line.end();
        }
        ends || (read > 1 && !self.steady)
    }

    /// Whether it has lost an answer, or a part of one, that it should have had. After an answer
    /// that keeps the connection, the hub may still close it at any time (RFC 9112 9.3.1): a poster
    /// that has not waited for its answers has lost them.
    pub(super) fn misses(&self) -> bool {
        let kernel = self.line.lock();
        let ends = || kernel.taken.windows(17).any(|part| part == b"Connection: close");
        self.steady && !self.broken && kernel.has_lost() && ends()
    }

    /// Notes what a response says of the first request that has none.
    fn note(&mut self, response: &Response<'_>, notes: &mut Notes) {
        assert!(std::str::from_utf8(response.body).is_ok(), "a body is text");
        if response.status == 100 {
            return;
        }
        match (response.status, self.requests.pop_front()) {
            (_, Some(Request::Lines(numbers))) => note_lines(response, numbers, notes),
            (202, Some(Request::Message(number))) => {
                notes.published(number, Some(response.number("recipients")));
            }
            (202, Some(Request::Acked(number))) => {
                let fates = ["delivered", "late", "lost"].map(|name| response.number(name));
                let recipients = response.number("recipients");
                assert_eq!(
                    fates.iter().sum::<usize>(),
                    recipients,
                    "each recipient of message {number} has one fate"
                );
                notes.published(number, Some(recipients));
                notes.messages[number as usize].fates = Some(fates);
            }
            // The hub cannot say.
            (500, Some(_)) => {}
            (_, Some(request)) => request.refuse(notes),
            (status, None) => assert_eq!(
                status, 408,
                "an answer that answers no request says that it came too late"
            ),
        }
        if response.header("Connection: close").is_some() {
            // What came with it or behind it is not read.
            self.requests.drain(..).for_each(|request| request.refuse(notes));
        }
    }

    /// Sends nothing more. Only a stream of lines may be silent for any time: of its end the peer's
    /// kernel tells.
    pub(super) fn vanish(&mut self) {
        if self.requests.iter().any(|request| matches!(request, Request::Lines(_))) {
            self.line.reset();
            self.broken = true;
        }
    }

    /// Sends the first bytes of what it has begun.
    fn send_half(&mut self, now: usize) {
        let rest = self.half.split_off(now);
        self.line.send(&self.half);
        self.half = rest;
    }

    /// Whether a request of its own would be the only one under way.
    fn is_ready(&self) -> bool {
        self.steady && !self.silent && self.requests.is_empty() && self.half.is_empty()
    }
}

/// Notes what a response says of a stream of lines: the first were sent, the others not.
fn note_lines(response: &Response<'_>, numbers: Vec<u32>, notes: &mut Notes) {
    let has_sent = response.text().starts_with("{\"messages\":");
    let sent = if has_sent { response.number("messages") } else { 0 };
    assert!(
        sent <= numbers.len(),
        "a stream of {} lines says that {sent} messages were sent",
        numbers.len()
    );
    assert!(
        response.status != 202 || sent == numbers.len(),
        "each line of a stream that ends well is a message"
    );
    for (number, nth) in numbers.into_iter().zip(0..) {
        if nth < sent {
            notes.published(number, None);
        } else if response.status != 500 {
            notes.refused(number);
        }
    }
}

impl World {
    /// A poster sends a request, or a part of it, or leaves.
    pub(super) fn post(&mut self) {
        let few = self.posters.len() < POSTERS_MAX;
        if self.posters.is_empty() || (few && self.rng.u8(..8) == 0) {
            self.connect_poster();
        }
        let n = self.rng.usize(..self.posters.len());
        if self.posters[n].silent {
            // Another in its place.
            if !self.executor.runs(self.posters[n].task) {
                self.posters.swap_remove(n);
            }
            return;
        }
        match self.rng.u8(..60) {
            0 => {
                self.posters[n].line.end();
                self.posters[n].silent = true;
            }
            1 => {
                self.posters[n].line.reset();
                self.posters[n].silent = true;
                self.posters[n].broken = true;
            }
            2 => {
                event!("the program drops the connection of poster {}", self.posters[n].number);
                self.executor.cancel(self.posters[n].task);
                self.posters[n].silent = true;
                self.posters[n].broken = true;
            }
            3..=9 => self.posters[n].line.grant(100),
            10..=16 => {
                let to = To::Room(self.rng.usize(..ROOMS));
                self.request_by_lines(n, to);
            }
            _ => {
                let to = if self.rng.u8(..4) == 0 {
                    To::User(self.rng.usize(..USERS))
                } else {
                    To::Room(self.rng.usize(..ROOMS))
                };
                let len = match self.rng.u8(..40) {
                    // A byte too long.
                    0 => self.len_max + 1,
                    1..=9 => self.rng.usize(4..=self.len_max),
                    _ => self.rng.usize(4..=40),
                };
                let whole = self.rng.u8(..4) > 0;
                self.request_by_post(n, to, len, whole);
            }
        }
    }

    /// A poster that has nothing under way, if there is one.
    pub(super) fn ready_poster(&mut self) -> Option<usize> {
        let runs = |poster: &Poster| self.executor.runs(poster.task);
        self.posters.iter().position(|poster| poster.is_ready() && runs(poster))
    }

    /// Posts a message behind what the poster has asked before, or a part of it.
    pub(super) fn request_by_post(&mut self, n: usize, to: To, len: usize, whole: bool) {
        let number = self.script.notes().publish(to, None);
        event!(
            "poster {} posts message {number}, {len} bytes, to {to}{}",
            self.posters[n].number,
            if whole { "" } else { ", and sends a part of it" }
        );
        let acked = self.rng.u8(..4) == 0;
        let wait = if acked { format!("?wait={}ms", self.rng.u32(..4000)) } else { String::new() };
        let path = match to {
            To::Room(room) => format!("/pub/room%20{room}"),
            To::User(user) => format!("/user/user%20{user}"),
            To::All | To::Peer(_) => unreachable!("there is no path for it"),
        };
        let expects = if self.rng.u8(..4) == 0 { "Expect: 100-continue\r\n" } else { "" };
        let message = said(number, len);
        let kind = if message.is_text() { "text/plain" } else { "application/octet-stream" };
        let head = format!(
            "POST {path}{wait} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n{expects}\
             Content-Length: {}\r\n\r\n",
            message.len()
        );
        let poster = &mut self.posters[n];
        let request = if acked { Request::Acked(number) } else { Request::Message(number) };
        poster.requests.push_back(request);
        poster.half.extend_from_slice(head.as_bytes());
        poster.half.extend_from_slice(message.as_bytes());
        let now = if whole { poster.half.len() } else { self.rng.usize(..poster.half.len()) };
        poster.send_half(now);
    }

    /// Posts a stream of lines behind what the poster has asked before, or a part of it.
    fn request_by_lines(&mut self, n: usize, to: To) {
        let To::Room(room) = to else { unreachable!("streams go to rooms") };
        let rng = &mut self.rng;
        let mut notes = self.script.notes();
        let mut numbers = Vec::new();
        let mut body = String::new();
        // An empty line is no message, and one that is too long ends the stream.
        for _ in 0..rng.usize(..12) {
            let number = notes.publish(to, None);
            numbers.push(number);
            match rng.u8(..60) {
                0 => body.push_str(&"x".repeat(self.len_max + 1)),
                _ => body.push_str(&line(number, rng.usize(4..40))),
            }
            body.push_str(rng.choice(&["\n", "\r\n", "\n\n"]).expect("some"));
        }
        drop(notes);
        let until = if rng.u8(..4) == 0 { "&until=3" } else { "" };
        let head = format!("PUT /pub/room%20{room}?lines{until} HTTP/1.1\r\nHost: x\r\n");
        let poster = &mut self.posters[n];
        event!("poster {} posts messages {numbers:?} as lines, to {to}", poster.number);
        poster.requests.push_back(Request::Lines(numbers));
        poster.half.extend_from_slice(head.as_bytes());
        if rng.bool() {
            let length = format!("Content-Length: {}\r\n\r\n{body}", body.len());
            poster.half.extend_from_slice(length.as_bytes());
        } else {
            poster.half.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            let piece = rng.usize(1..100);
            for chunk in body.as_bytes().chunks(piece) {
                poster.half.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                poster.half.extend_from_slice(chunk);
                poster.half.extend_from_slice(b"\r\n");
            }
            poster.half.extend_from_slice(b"0\r\n\r\n");
        }
        let all = poster.half.len();
        let now = if rng.bool() { all } else { rng.usize(..all) };
        poster.send_half(now);
    }

    fn connect_poster(&mut self) {
        let rng = &mut self.rng;
        let steady = rng.bool();
        let room = if steady { usize::MAX } else { rng.usize(..600) };
        let at_most = if rng.bool() { usize::MAX } else { rng.usize(1..100) };
        let number = self.posters_so_far;
        self.posters_so_far += 1;
        let line = Line::named(Name::Poster(number), room, at_most, rng.fork());
        event!(
            "poster {number} comes: it reads {}, the kernel takes {} for it",
            if steady { "all" } else { "late" },
            journal::bytes(room)
        );
        let (hub, script) = (self.hub.clone(), self.script.clone());
        let socket = Socket::new(&line, false);
        let task = self.executor.spawn(async move {
            let admissions = &hub.shared().admissions;
            let _counted = admissions.connection();
            let permit = admissions.handshake().await;
            // It never becomes a client.
            connect(&hub, socket, Origin::unknown(), &script, permit).await.expect_err("no client");
        });
        let (requests, half, seen) = (VecDeque::new(), Vec::new(), 0);
        let (silent, broken) = (false, false);
        self.posters.push(Poster {
            line,
            task,
            number,
            steady,
            requests,
            half,
            seen,
            silent,
            broken,
        });
    }
}
