#!/usr/bin/env python3
"""Puts faults into a copy of the hub, one after another: the simulation must find each, and the
tests of a file those in what the simulation leaves out.

    tests/mutants.py [--seeds N] [--short] [--only NAME]

A fault is a piece of the source and what it is replaced with. Exits with 1 if one is not found, or
if the piece is not there (any more). The copy and its build are in target/mutants.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
COPY = ROOT / "target" / "mutants"

# Name, file, piece, replacement, and who finds it if not the simulation. A piece must be there
# exactly once.
SIMULATION = "serve::sim::every"
FAULTS = [
    (
        "lost wake: a queue that fills wakes nobody",
        "src/hub/queue.rs",
        "if was_empty || outcome == Push::Full {",
        "if outcome == Push::Full {",
    ),
    (
        "lost wake: an eviction wakes nobody",
        "src/hub/queue.rs",
        "if was_empty || outcome == Push::Full {",
        "if was_empty {",
    ),
    (
        "lost wake: a drain that has had its turn does not come back",
        "src/hub/queue.rs",
        "if written >= budget {\n                    cx.waker().wake_by_ref();",
        "if written >= budget {",
    ),
    (
        "lost wake: a drain leaves no waker",
        "src/hub/queue.rs",
        "_ => state.waker = Some(cx.waker().clone()),",
        "_ => {}",
    ),
    (
        "lost wake: an answer wakes nobody",
        "src/hub/reply.rs",
        "if let Some(waker) = waker {\n                waker.wake();\n            }",
        "drop(waker);",
    ),
    (
        "lost wake: bytes that are free are not told of",
        "src/hub/inbox.rs",
        "self.freed.notify(1);",
        "",
    ),
    (
        "lost wake: the first who waits for bytes is not seen",
        "src/hub/inbox.rs",
        "if self.waiting.load(Ordering::SeqCst) > 0 {",
        "if self.waiting.load(Ordering::SeqCst) > 1 {",
    ),
    (
        "lost wake: a command does not wake the manager",
        "src/hub/inbox.rs",
        "reserved.keep();\n        self.ledger.manager.wake();",
        "reserved.keep();",
    ),
    (
        "lost wake: who departs does not wake the manager",
        "src/hub/inbox.rs",
        "self.ledger.any_departed.store(true, Ordering::SeqCst);\n        self.rouse();",
        "self.ledger.any_departed.store(true, Ordering::SeqCst);",
    ),
    (
        "lost wake: whose turn it is to wait for a place is not told",
        "src/hub/turn.rs",
        "line.taken = false;\n        let next = line.first();",
        "line.taken = false;\n        let next = None::<Waker>;",
    ),
    (
        "lost wake: who is refused stands in the line for the inbox through its goodbye",
        "src/serve/entrance.rs",
        "drop(self.registering);",
        "",
        "serve::requests",
    ),
    (
        "missed generation: an id of an earlier client finds the next one of its slot",
        "src/hub/registry.rs",
        "self.entries.get(id.slot as usize).filter(|entry| entry.generation == id.generation)",
        "self.entries.get(id.slot as usize)",
    ),
    (
        "missed generation: every client of a slot has the same id",
        "src/hub/registry.rs",
        "self.generation = self.generation.wrapping_add(1);",
        "",
    ),
    (
        "skipped yield: the manager goes on while there are commands",
        "src/hub/inbox.rs",
        "if behind && !waited {",
        "if false {",
    ),
    (
        "a batch of more than a queue",
        "src/hub/manager.rs",
        "commands: (queue / 2).clamp(1, RUN_MAX)",
        "commands: (4 * queue).clamp(1, RUN_MAX)",
    ),
    (
        "a batch of more bytes than a queue",
        "src/hub/manager.rs",
        "bytes: queue_bytes / 2 }",
        "bytes: queue_bytes }",
        "hub::tests::manager",
    ),
    (
        "a batch takes what came since it began",
        "src/hub/manager.rs",
        "self.outbox.waiting().min(self.batch.commands - 1)",
        "self.batch.commands - 1",
        "hub::tests::manager",
    ),
    (
        "what waits for one room does not leave in one write",
        "src/hub/manager.rs",
        "next = self.gather(&target, &mut rest);",
        "next = self.take(&mut rest);",
        "hub::tests::manager",
    ),
    (
        "a command too many for a batch is lost",
        "src/hub/manager.rs",
        "self.carry = Some(command);\n            return None;",
        "return None;",
        "hub::tests::manager",
    ),
    (
        "the command that ends a run is lost",
        "src/hub/manager.rs",
        "other => return Some(other),",
        "other => drop(other),",
        "hub::tests::manager",
    ),
    (
        "a run takes what is for others",
        "src/hub/manager.rs",
        " if same == *target",
        " if same == *target || same != *target",
    ),
    (
        "whoever asked hears how many took the first message of its run",
        "src/hub/manager.rs",
        "self.replies.push((self.messages.len(), reply));",
        "self.replies.push((0, reply));",
        "hub::tests::manager",
    ),
    (
        "count off by one: what is dropped by an eviction",
        "src/hub/queue.rs",
        "self.miss(u64::from(self.waiting - kept) + more as u64, terms);",
        "self.miss(u64::from(self.waiting) + more as u64, terms);",
    ),
    (
        "count off by one: what is lost with a connection is not counted",
        "src/hub/queue.rs",
        "u64::from(state.waiting) + more as u64",
        "more as u64",
    ),
    (
        "count off by one: a cut message is not delivered when it is whole",
        "src/hub/queue.rs",
        "if self.cut > 0 {\n            delivered += self.advance_message(&mut n);\n        }",
        "if self.cut > 0 {\n            self.advance_message(&mut n);\n        }",
    ),
    (
        "count off by one: recipients include those who had gone",
        "src/hub/registry.rs",
        "whole += usize::from(outcome != Push::Gone)",
        "whole += usize::from(outcome != Push::Full)",
    ),
    (
        "stale room entry: who is removed stays in its rooms",
        "src/hub/registry.rs",
        "for membership in &entry.memberships {\n            self.vacate(membership);\n        }",
        "",
    ),
    (
        "stale room entry: who was moved has its old place",
        "src/hub/registry.rs",
        "moved.place = membership.place;",
        "",
    ),
    (
        "stale room entry: a client is in one room twice",
        "src/hub/registry.rs",
        "if entry.memberships.iter().any(|membership| membership.room == *room) {",
        "if entry.memberships.is_empty() && room.is_empty() {",
    ),
    (
        "stale user entry",
        "src/hub/registry.rs",
        "if let Some(user) = &entry.user {\n            self.withdraw(user, id.slot);\n        }",
        "",
    ),
    (
        "the sender hears itself through its client",
        "src/hub/registry.rs",
        "delivery.excepting && delivery.dispatches.iter().any(|d| d.except == Some(id));",
        "false;",
    ),
    (
        "a torn frame: control frames go before the rest of a cut one",
        "src/hub/queue.rs",
        "        if self.cut > 0 {\n            if let Some(message) = messages.next() {\n"
        "                put(&message.frame()[self.cut as usize..]);\n            }\n        }\n"
        "        if !self.control.is_empty() {\n            put(&self.control);\n        }",
        "        if !self.control.is_empty() {\n            put(&self.control);\n        }\n"
        "        if self.cut > 0 {\n            if let Some(message) = messages.next() {\n"
        "                put(&message.frame()[self.cut as usize..]);\n            }\n        }",
    ),
    (
        "a torn frame: the oldest is dropped though it is half written",
        "src/hub/queue.rs",
        "_ => self.front.remove(usize::from(self.cut > 0)),",
        "_ => self.front.remove(0),",
    ),
    (
        "a message behind the close frame",
        "src/serve/websocket/ending.rs",
        "let mut ending = Ending { reason, stage };",
        "self.registered.queue.close_frame(&reason.frame());\n"
        "        let mut ending = Ending { reason, stage };",
    ),
    (
        "order: the newest that waits goes first",
        "src/hub/queue.rs",
        "else { break };\n                    self.front.push_back(message);",
        "else { break };\n                    self.front.push_front(message);",
    ),
    (
        "a connection that is dropped is not told of",
        "src/serve/handshake.rs",
        "if let Some(id) = self.queue.kill() {\n            self.hub.depart(id);\n        }",
        "drop(self.queue.kill());",
    ),
    (
        "a client whose connection had gone is inserted",
        "src/hub/queue.rs",
        "if state.phase == Phase::Dead {\n            return false;\n        }\n"
        "        state.id = Some(id);",
        "state.id = Some(id);",
    ),
    (
        "while a hook waits its client is not written to",
        "src/serve/websocket.rs",
        "self.poll_lane(cx, false).map(Err)\n        })\n    }",
        "Poll::Pending\n        })\n    }",
    ),
    (
        "who oversleeps is deaf",
        "src/serve/websocket.rs",
        "if self.protocol.wire.has_unread() {\n            return true;\n        }",
        "return false;\n        #[allow(unreachable_code)]",
        "serve::websocket",
    ),
    (
        "a ping is sent again and again, and its answer never missed",
        "src/serve/clock.rs",
        "None => (self.heard.plus(ping_interval), Verdict::Ping),",
        "_ if self.share > 0 => {\n"
        "                (self.pinged.unwrap_or(self.heard).plus(ping_interval), Verdict::Ping)\n"
        "            }\n"
        "            None => (self.heard.plus(ping_interval), Verdict::Ping),",
    ),
    (
        "the write deadline is moved by every drain",
        "src/serve/clock.rs",
        "} else if progress || self.stuck.is_none() {",
        "} else {",
    ),
    (
        "a panic ends as a normal end",
        "src/serve/websocket.rs",
        "Err(_) => Err(End::Ours(Disconnect::INTERNAL)),",
        "Err(_) => Err(End::Ours(Disconnect::NORMAL)),",
    ),
    (
        "the room is left at a leave, and not the client's own note of it",
        "src/hub/registry.rs",
        "let membership = entry.memberships.remove(at);\n            self.vacate(&membership);",
        "let membership = entry.memberships.remove(at);\n            drop(membership);",
    ),
    (
        "lost wake: the rest of an event is left to a stream that is not full",
        "src/serve/events.rs",
        "ready!(self.poll_flush(&mut write))?;\n"
        "            return Poll::Ready(Ok(std::mem::take(&mut self.owed)));",
        "return Poll::Pending;",
    ),
    (
        "a torn event: the rest of one that is half written is lost",
        "src/serve/events.rs",
        "self.out.drain(..written);",
        "self.out.clear();",
    ),
    (
        "two lines of an event for one end of a line",
        "src/serve/events.rs",
        "*after_cr = text[end] == b'\\r';",
        "*after_cr = false;",
    ),
    (
        "events stay open when their client is told to go",
        "src/serve/sse.rs",
        "Phase::Sealed => return Poll::Ready(End::Sealed),",
        "Phase::Sealed => {}",
    ),
    (
        "count off by one: a post tells of a recipient too many",
        "src/serve/requests.rs",
        "answer.await.map_or_else(unknown, published)",
        "answer.await.map_or_else(unknown, |n| published(n + n.min(1)))",
    ),
    (
        "what is posted behind a request is lost with it",
        "src/serve/requests.rs",
        "self.buffer = self.buffer.split_off(len);",
        "self.buffer.clear();",
    ),
    (
        "who waits for memory has nobody evicted",
        "src/serve/strain.rs",
        "hub.want_relief();",
        "",
        "serve::strain",
    ),
    (
        "who waits for memory does not hear of it again",
        "src/serve/strain.rs",
        "wait.eased = memory.listen();",
        "return Poll::Ready(true);",
        "serve::strain",
    ),
    (
        "a text that goes past tungstenite is not checked",
        "src/serve/scan.rs",
        "TEXT if !is_ascii && str::from_utf8(payload).is_err() => return None,",
        "TEXT if false => return None,",
        "serve::protocol",
    ),
    (
        "the last bytes of a text are taken for ASCII",
        "src/serve/scan.rs",
        "seen & u128::from_ne_bytes([0x80; 16]) == 0 && last < 0x80",
        "seen & u128::from_ne_bytes([0x80; 16]) == 0",
        "serve::scan",
    ),
    (
        "all but the last bytes of a text are taken for ASCII",
        "src/serve/scan.rs",
        "seen & u128::from_ne_bytes([0x80; 16]) == 0 && last < 0x80",
        "last < 0x80",
        "serve::scan",
    ),
    (
        "what is left to tungstenite after all has its mask twice",
        "src/serve/scan.rs",
        "std::mem::take(head.last_chunk_mut()?)",
        "*head.last_chunk_mut()?",
        "serve::protocol",
    ),
    (
        "a fragment is taken for a message",
        "src/serve/scan.rs",
        "let most = match first {",
        "let most = match first | 0x80 {",
        "serve::protocol",
    ),
    (
        "a message that goes past tungstenite may have any length",
        "src/serve/scan.rs",
        "(length <= u64::from(most)).then_some(",
        "(length <= 1 << 31).then_some(",
        "serve::protocol",
    ),
    (
        "a close frame that goes past tungstenite may have any code",
        "src/serve/scan.rs",
        "CloseCode::from(code).is_allowed().then(",
        "true.then(",
        "serve::protocol",
    ),
    (
        "a text that comes in parts is not checked",
        "src/serve/gathering.rs",
        "if self.frame[0] != TEXT {",
        "if true {",
        "serve::protocol",
    ),
    (
        "a text that comes in parts may end within a character",
        "src/serve/gathering.rs",
        "error.error_len().is_none() && len < self.total",
        "error.error_len().is_none()",
        "serve::gathering",
    ),
    (
        "the mask of a part is that of the first",
        "src/serve/scan.rs",
        "self.mask = turned(mask, taken);",
        "",
        "serve::protocol",
    ),
    (
        "a message that comes in parts is not counted",
        "src/serve/scan.rs",
        "(1, true, length as u32, length as u32)",
        "(1, true, 0, length as u32)",
        "serve::wire",
    ),
    (
        "the end of a connection shuts its stream at every poll",
        "src/serve/websocket/ending.rs",
        "*shut = true;",
        "",
        "serve::websocket::ending",
    ),
    (
        "the end of a connection that has had its turn is not woken for the next",
        "src/serve/websocket/ending.rs",
        "            self.protocol.wire.discard(scratch);\n        }\n        cx.waker().wake_by_ref();",
        "            self.protocol.wire.discard(scratch);\n        }",
        "serve::websocket::ending",
    ),
    (
        "the end of a connection: who does not answer keeps its stream",
        "src/serve/websocket/ending.rs",
        "its close frame: {error}\");\n                        self.protocol.wire.transport.abort();",
        "its close frame: {error}\");",
        "serve::websocket::ending",
    ),
    (
        "the end of a connection: who was told something is not heard out",
        "src/serve/websocket/ending.rs",
        "                            && !self.registered.queue.has_told()\n",
        "",
        "serve::websocket::ending",
    ),
    (
        "the end of a connection: nobody has to be heard out",
        "src/serve/websocket/ending.rs",
        "End::Ours(reason) => (reason, goodbye(false)),",
        "End::Ours(reason) => (reason, goodbye(true)),",
        "serve::websocket::ending",
    ),
    (
        "the end of a connection: any stream is trusted to deliver alone",
        "src/serve/websocket/ending.rs",
        "\n                            && self.protocol.wire.transport.delivers_alone();",
        ";",
        "serve::websocket::ending",
    ),
    (
        "the end of a connection: a close frame is the last word whatever the socket still holds",
        "src/serve/websocket.rs",
        "let is_last = !self.more && ",
        "let is_last = ",
        "serve::websocket",
    ),
    (
        "the end of a connection: a close frame is the last word whatever tungstenite holds",
        "src/serve/protocol.rs",
        "self.tungstenite.is_none() && !self.wire",
        "!self.wire",
        "serve::websocket",
    ),
    (
        "the end of a connection: what came since the close frame is not read",
        "src/serve/websocket/ending.rs",
        "Poll::Ready(()) => self.poll_fill(cx)?,",
        "Poll::Ready(()) if !*heard_out => self.poll_fill(cx)?,\n"
        "                Poll::Ready(()) => Poll::Pending,",
        "serve::websocket::ending",
    ),
    (
        "a queue forgets that a control frame was written",
        "src/hub/queue.rs",
        "frame);\n        state.told = true;",
        "frame);",
        "hub::tests::queue",
    ),
    (
        "a queue forgets that a message was written",
        "src/hub/queue.rs",
        "state.told = true;\n        let was_empty",
        "let was_empty",
        "hub::tests::queue",
    ),
    (
        "the end of a connection: a close frame is the last word whatever lies behind it",
        "src/serve/websocket.rs",
        "let is_last = !self.more && self.protocol.is_heard_out();",
        "let is_last = !self.more;",
        "serve::websocket",
    ),
    (
        "the end of a connection: the evicted are not told",
        "src/serve/websocket/ending.rs",
        "if *tries {",
        "if false {",
        "serve::websocket::ending",
    ),
    (
        "a reset: a goodbye waits for nobody",
        "src/serve/websocket/ending.rs",
        "                Poll::Pending if !*heard_out => return Poll::Pending,\n",
        "",
    ),
    (
        "a reset: who was told something is not heard out",
        "src/serve/websocket/ending.rs",
        "                            && !self.registered.queue.has_told()\n",
        "",
    ),
    (
        "a reset: who was pinged counts as told nothing",
        "src/hub/queue.rs",
        "frame);\n        state.told = true;",
        "frame);",
    ),
    (
        "a reset: whom the hub closes is not heard out",
        "src/serve/websocket/ending.rs",
        "End::Ours(reason) => (reason, goodbye(false)),",
        "End::Ours(reason) => (reason, goodbye(true)),",
    ),
    (
        "a reset: who is kicked is not heard out",
        "src/serve/websocket/ending.rs",
        "End::Sealed => (self.reason(Disconnect::GOING_AWAY), goodbye(false)),",
        "End::Sealed => (self.reason(Disconnect::GOING_AWAY), goodbye(true)),",
    ),
    (
        "a reset: any stream is trusted to deliver alone",
        "src/serve/websocket/ending.rs",
        "\n                            && self.protocol.wire.transport.delivers_alone();",
        ";",
    ),
    (
        "a reset: any close frame is the last word",
        "src/serve/websocket.rs",
        "let is_last = !self.more && self.protocol.is_heard_out();",
        "let is_last = true;",
    ),
    (
        "a reset: the last answer or event waits for nobody",
        "src/serve/goodbye.rs",
        "while discarded < DISCARD_MAX {",
        "while discarded > DISCARD_MAX {",
    ),
    (
        "frames of any length are laid side by side",
        "src/hub/manager.rs",
        "&& frame_bytes(&self.messages) <= JOINED_MAX {",
        "{",
        "hub::manager",
    ),
    (
        "the first of the frames that lie side by side is not among them",
        "src/hub/manager.rs",
        "self.messages.iter().for_each(|message| self.joined",
        "self.messages.iter().skip(1).for_each(|message| self.joined",
    ),
    (
        "what has come last goes past a tungstenite that has not said all",
        "src/serve/protocol.rs",
        "if self.tungstenite.is_none() {",
        "if true {",
        "serve::protocol",
    ),
    (
        "the timekeeper does not wait for the next deadline",
        "src/timekeeper.rs",
        "next.is_none_or(|next| self.set(waiting, next))",
        "next.is_none_or(|_| true)",
    ),
    (
        "the timekeeper leaves an earlier deadline to a later one",
        "src/timekeeper.rs",
        "let is_set = waiting.set_for.is_some_and(|set_for| !due.is_before(set_for));",
        "let is_set = waiting.set_for.is_some();",
        "timekeeper::",
    ),
    (
        "the timekeeper takes what has fired for what will",
        "src/timekeeper.rs",
        "waiting.set_for = None;",
        "",
        "timekeeper::",
    ),
    (
        "a deadline that has come while the timer was set is left to it",
        "src/timekeeper.rs",
        "if !fires {",
        "if false {",
        "timekeeper::",
    ),
    (
        "one that panics takes the wakes of the rest with it",
        "src/timekeeper.rs",
        "drop(catch_unwind(AssertUnwindSafe(|| waker.wake())));",
        "waker.wake();",
        "timekeeper::",
    ),
    (
        "who has given up a deadline is woken",
        "src/deadlines.rs",
        "entry.waker.take()\n    }",
        "entry.waker.clone()\n    }",
        "timekeeper::",
    ),
    (
        "who polls with another waker is not woken by it",
        "src/deadlines.rs",
        "if entry.waker.as_ref().is_some_and(|held| held.will_wake(waker)) {",
        "if entry.waker.is_some() {",
        "timekeeper::",
    ),
    (
        "a deadline that was moved ahead comes when it would have",
        "src/deadlines.rs",
        "if entry.waker.is_none() || due.is_before(entry.due) {",
        "if entry.waker.is_none() {",
        "timekeeper::",
    ),
    (
        "deadlines come early",
        "src/deadlines.rs",
        "self.ahead((wait.as_nanos() as u64).div_ceil(GRAIN))",
        "self.ahead(wait.as_nanos() as u64 / GRAIN)",
        "timekeeper::tests::each",
    ),
    (
        "the wrap of the moments turns the past into the future",
        "src/deadlines.rs",
        "self.minus(other) < 0",
        "self.0 < other.0",
        "deadlines::",
    ),
    (
        "a slot that is free is lost when memory is given back",
        "src/deadlines.rs",
        "if entry.next != Slot::TAKEN {\n                entry.next",
        "if entry.next == Slot::NONE {\n                entry.next",
        "deadlines::",
    ),
]

# What CI runs each time: one of each kind.
SHORT = [
    "lost wake: a queue that fills wakes nobody",
    "lost wake: an answer wakes nobody",
    "missed generation: an id of an earlier client finds the next one of its slot",
    "skipped yield: the manager goes on while there are commands",
    "count off by one: what is dropped by an eviction",
    "stale room entry: who is removed stays in its rooms",
    "a reset: who was told something is not heard out",
]


def prepare():
    COPY.mkdir(parents=True, exist_ok=True)
    for name in ["Cargo.toml", "Cargo.lock", "README.md"]:
        shutil.copy2(ROOT / name, COPY / name)
    for name in ["src", "benches", "tests", "examples"]:
        shutil.rmtree(COPY / name, ignore_errors=True)
        # With the time of the copy: cargo takes what is older than its last build, which was of a
        # fault, for built.
        shutil.copytree(ROOT / name, COPY / name, copy_function=shutil.copy)


def cargo(arguments, seeds, log):
    environment = dict(os.environ, HUBLET_SIM_SEEDS=f"0..{seeds}", RUST_BACKTRACE="0")
    environment["CARGO_TARGET_DIR"] = str(COPY / "target")
    environment.pop("HUBLET_TEST_SEED", None)
    command = ["cargo", "test", "--quiet", "--lib", *arguments]
    with open(log, "w") as out:
        done = subprocess.run(
            command, cwd=COPY, env=environment, stdout=out, stderr=subprocess.STDOUT, check=False
        )
    return done.returncode, pathlib.Path(log).read_text(errors="replace")


def found_by(seeds, name, file, piece, replacement, tests=SIMULATION):
    """How the fault was found; None if it was not."""
    path = COPY / file
    before = path.read_text()
    path.write_text(before.replace(piece, replacement))
    try:
        built, log = cargo(["--no-run"], seeds, COPY / "build.log")
        if built != 0:
            sys.exit(f"{name}: it does not build\n{log}")
        code, log = cargo([tests], seeds, COPY / "run.log")
    finally:
        path.write_text(before)
    if code == 0:
        return None
    seed = re.search(r"HUBLET_TEST_SEED=(\d+): ([^\n]*)", log)
    if seed:
        return f"seed {seed[1]}: {seed[2]}"
    failed = re.search(r"^failures:\n    (\S+)$", log, re.MULTILINE)
    return failed[1] if failed else "it does not end well"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=1000, help="seeds a fault has to hide from")
    parser.add_argument("--short", action="store_true", help="one fault of each kind")
    parser.add_argument("--only", default="", help="only faults with this in their names")
    arguments = parser.parse_args()
    if unknown := set(SHORT) - {fault[0] for fault in FAULTS}:
        sys.exit(f"no such fault: {unknown}")
    for name, file, piece, *_ in FAULTS:
        if (times := (ROOT / file).read_text().count(piece)) != 1:
            sys.exit(f"{name}: the piece is in {file} {times} times, not once")
    prepare()
    faults = [fault for fault in FAULTS if fault[0] in SHORT or not arguments.short]
    faults = [fault for fault in faults if arguments.only in fault[0]]
    for tests in sorted({fault[4] if len(fault) > 4 else SIMULATION for fault in faults}):
        code, log = cargo([tests], 50, COPY / "run.log")
        if code != 0:
            sys.exit(f"without a fault {tests} must find none\n{log}")
    hidden = 0
    for fault in faults:
        start = time.monotonic()
        how = found_by(arguments.seeds, *fault)
        hidden += how is None
        took = time.monotonic() - start
        print(f"{'NOT FOUND' if how is None else 'found'}: {fault[0]} ({took:.0f} s)", flush=True)
        if how:
            print(f"    {how[:150]}", flush=True)
    print(f"{len(faults)} faults, {len(faults) - hidden} found, {hidden} not")
    return 1 if hidden else 0


if __name__ == "__main__":
    sys.exit(main())
