//! The rules of the house, read off the source: who may name whom, and what the library never does.

pub(crate) mod source;

use std::path::Path;
use std::process::Command;

use source::{Source, names_of, paths, read, sources};

use crate::support::skip;

/// What a rule finds in a file.
type Rule = fn(&Source) -> Vec<String>;

/// Every rule that one file can break by itself.
const RULES: &[(&str, Rule)] = &[
    ("the ground knows no storey", ground_stands_alone),
    ("the hub does not know serving", hub_stands_below_serving),
    ("in the hub nothing points up", hub_is_in_order),
    ("no socket and no clock in the hub", hub_has_no_io),
    ("no channel without a bound", no_unbounded_channel),
    ("nobody but the manager has the registry", one_owner_of_the_registry),
    ("no slab outside the registry and the poller", slab_stays_inside),
    ("one way out of the registry", one_way_out),
    ("the manager waits for its inbox and a yield", manager_waits_for_nobody),
    ("the library starts, prints and reads nothing", library_keeps_quiet),
    ("the clock is read in one place", one_clock),
    ("no unsafe code", no_unsafe),
    ("a file is named after what it is about", no_drawer),
];

#[test]
fn the_source_keeps_every_rule() {
    let sources = sources();
    assert!(sources.len() > 30, "only {} files were found", sources.len());
    for (name, rule) in RULES {
        let offences: Vec<_> = sources.iter().flat_map(rule).collect();
        assert!(offences.is_empty(), "{name}:\n{}", offences.join("\n"));
    }
}

/// The paths from the root that lead to a storey.
fn paths_to(source: &Source, storey: &str) -> Vec<String> {
    let names = names_of(storey);
    let leads = |path: &String| {
        let first = path.split("::").next().unwrap_or_default();
        first == storey || names.iter().any(|name| name == first)
    };
    let paths = paths(&source.code, "crate::").into_iter().filter(leads);
    paths.map(|path| source.offence(&format!("crate::{path}"))).collect()
}

fn ground_stands_alone(source: &Source) -> Vec<String> {
    if source.path.contains('/') || source.path == "lib.rs" {
        return Vec::new();
    }
    [paths_to(source, "hub"), paths_to(source, "serve")].concat()
}

fn hub_stands_below_serving(source: &Source) -> Vec<String> {
    if source.is_in("hub/") { paths_to(source, "serve") } else { Vec::new() }
}

/// In the order of the design; what is not listed is a leaf that all may use.
const HUB: [&str; 8] =
    ["mod", "client", "manager", "inbox", "relief", "registry", "sizing", "queue"];

/// Words that pass upwards: what a command is, and what a client is called.
const HUB_WORDS: [&str; 2] = ["manager::Command", "registry::ClientId"];

fn hub_is_in_order(source: &Source) -> Vec<String> {
    let Some(file) = source.path.strip_prefix("hub/").and_then(|path| path.strip_suffix(".rs"))
    else {
        return Vec::new();
    };
    let rank = |module: &str| HUB.iter().position(|name| *name == module).unwrap_or(HUB.len());
    let points_up = |path: &String| {
        let module = path.split("::").next().unwrap_or_default();
        // What begins with a capital is of mod.rs: the handles, which are one with the client's.
        let is_handle = module.starts_with(char::is_uppercase);
        let up = if is_handle { file != "client" } else { rank(module) <= rank(file) };
        up && rank(module) < HUB.len() + usize::from(is_handle)
            && !HUB_WORDS.contains(&path.as_str())
    };
    if file == "mod" {
        return Vec::new();
    }
    let inside = paths(&source.code, "crate::hub::");
    let paths = paths(&source.code, "super::").into_iter().chain(inside).filter(points_up);
    paths.map(|path| source.offence(&format!("super::{path}"))).collect()
}

fn hub_has_no_io(source: &Source) -> Vec<String> {
    let words = [
        "async_io",
        "smol::net",
        "smol::Async",
        "std::net",
        "std::os",
        "tungstenite",
        "async_tungstenite",
        "Instant",
        "SystemTime",
        "Timer",
        "Executor",
    ];
    if source.is_in("hub/") { source.lines_with(&words) } else { Vec::new() }
}

/// Invariant 3.
fn no_unbounded_channel(source: &Source) -> Vec<String> {
    // mpsc::channel is the standard library's unbounded one.
    source.lines_with(&["unbounded", "mpsc::channel", "mpsc"])
}

/// Invariant 2: no lock around it, and no other holder.
fn one_owner_of_the_registry(source: &Source) -> Vec<String> {
    let locks = ["Mutex<Registry", "RwLock<Registry", "Arc<Registry", "RefCell<Registry", "RwLock"];
    let mut offences = source.lines_with(&locks);
    // The relief is the manager's, and borrows the registry from it.
    let owners = ["hub/mod.rs", "hub/manager.rs", "hub/relief.rs", "hub/registry.rs"];
    if !owners.contains(&source.path.as_str()) {
        offences.extend(source.lines_with(&["Registry"]));
    }
    offences
}

/// Invariant 4: of clients in the registry, of sockets in the poller.
fn slab_stays_inside(source: &Source) -> Vec<String> {
    if ["hub/registry.rs", "serve/epoll.rs"].contains(&&*source.path) {
        return Vec::new();
    }
    source.lines_with(&["slab", "Slab"])
}

/// Invariant 5.
fn one_way_out(source: &Source) -> Vec<String> {
    if source.path != "hub/registry.rs" {
        return Vec::new();
    }
    let removes: Vec<_> =
        source.code.lines().filter(|line| line.contains("entries.remove(")).collect();
    let others = ["entries.try_remove", "entries.clear", "entries.retain", "entries.drain"];
    let mut offences = source.lines_with(&others);
    if removes.len() != 1 {
        offences.push(source.offence(&format!("{} calls of entries.remove", removes.len())));
    }
    offences
}

/// Invariant 1.
fn manager_waits_for_nobody(source: &Source) -> Vec<String> {
    if source.path != "hub/manager.rs" {
        return Vec::new();
    }
    let waits = ["self.outbox.next(", "yield_now()", "self.deliver(", "self.dispatch("];
    let others =
        |line: &&str| line.contains(".await") && !waits.iter().any(|wait| line.contains(wait));
    source.code.lines().filter(others).map(|line| source.offence(line)).collect()
}

/// Invariant 11.
fn library_keeps_quiet(source: &Source) -> Vec<String> {
    if source.is_in("bin/") {
        return Vec::new();
    }
    let is_static = |line: &&str| {
        let item = line.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        item.starts_with("static ") || item.starts_with("thread_local!")
    };
    let mut offences = source.lines_with(&[
        "thread::spawn",
        "thread::Builder",
        "smol::spawn",
        "smol::unblock",
        "Unblock",
        "std::env",
        "env::var",
        "std::process",
        "println!",
        "eprintln!",
        "print!",
        "eprint!",
        "dbg!",
        "stdout",
        "stderr",
        "async_signal",
        "signal_hook",
        "set_hook",
    ]);
    offences.extend(source.code.lines().filter(is_static).map(|line| source.offence(line)));
    offences
}

fn one_clock(source: &Source) -> Vec<String> {
    if source.is_in("bin/") || source.path == "time.rs" {
        return Vec::new();
    }
    source.lines_with(&["Instant::now", "SystemTime", "smol::Timer"])
}

fn no_unsafe(source: &Source) -> Vec<String> {
    source.lines_with(&["unsafe"])
}

fn no_drawer(source: &Source) -> Vec<String> {
    let name = source.path.rsplit('/').next().unwrap_or_default();
    let drawers = ["util.rs", "utils.rs", "helper.rs", "helpers.rs", "common.rs", "misc.rs"];
    if drawers.contains(&name) { vec![source.path.clone()] } else { Vec::new() }
}

/// A rule that finds nothing may be blind: each is shown what it must see, and what it must not.
#[test]
fn every_rule_sees_what_it_is_for() {
    let bad: &[(Rule, &str, &str)] = &[
        (ground_stands_alone, "message.rs", "use crate::Hub;"),
        (ground_stands_alone, "error.rs", "use crate::{Config, Client};"),
        (ground_stands_alone, "config.rs", "fn f(_: crate::serve::Peer) {}"),
        (hub_stands_below_serving, "hub/mod.rs", "use crate::{Error, Listener};"),
        (hub_stands_below_serving, "hub/queue.rs", "use crate::serve::wire::Wire;"),
        (hub_is_in_order, "hub/queue.rs", "use super::registry::{ClientId, Registry};"),
        (hub_is_in_order, "hub/queue.rs", "use super::manager::Manager;"),
        (hub_is_in_order, "hub/registry.rs", "use super::manager::Command2;"),
        (hub_is_in_order, "hub/manager.rs", "use super::{Hub, inbox::Outbox};"),
        (hub_is_in_order, "hub/stats.rs", "fn f(_: crate::hub::queue::Queue) {}"),
        (hub_has_no_io, "hub/gate.rs", "use std::{net::IpAddr};\nuse std::net::IpAddr;"),
        (hub_has_no_io, "hub/queue.rs", "let now = std::time::Instant::now();"),
        (hub_has_no_io, "hub/mod.rs", "use async_tungstenite::tungstenite;"),
        (no_unbounded_channel, "serve/mod.rs", "let (s, r) = async_channel::unbounded();"),
        (no_unbounded_channel, "bin/hublet/main.rs", "use std::sync::mpsc::channel;"),
        (one_owner_of_the_registry, "hub/manager.rs", "registry: Arc<Mutex<Registry>>,"),
        (one_owner_of_the_registry, "serve/mod.rs", "use crate::hub::Registry;"),
        (slab_stays_inside, "hub/manager.rs", "use slab::Slab;"),
        (one_way_out, "hub/registry.rs", "self.entries.remove(a); \n self.entries.remove(b);"),
        (one_way_out, "hub/registry.rs", "self.entries.remove(a);\nself.entries.retain(f);"),
        (manager_waits_for_nobody, "hub/manager.rs", "queue.sender.send(message).await;"),
        (library_keeps_quiet, "serve/mod.rs", "std::thread::spawn(f);"),
        (library_keeps_quiet, "hub/mod.rs", "    println!();"),
        (library_keeps_quiet, "config.rs", "use std::env;"),
        (library_keeps_quiet, "scratch.rs", "pub(crate) static POOL: Mutex<u8> = f();"),
        (library_keeps_quiet, "scratch.rs", "thread_local! {"),
        (one_clock, "serve/clock.rs", "let now = Instant::now();"),
        (no_unsafe, "bin/hublet/main.rs", "unsafe { f() }"),
        (no_unsafe, "serve/sse.rs", "#[cfg(test)]\nmod tests;\nunsafe { f() }"),
        (no_drawer, "serve/utils.rs", ""),
    ];
    for (name, rule) in RULES {
        let shown = bad.iter().any(|(of, ..)| std::ptr::fn_addr_eq(*of, *rule));
        assert!(shown, "nothing bad is shown to: {name}");
    }
    for (rule, path, snippet) in bad {
        assert!(!rule(&Source::new(path, snippet)).is_empty(), "{path} may have: {snippet}");
    }
    let good = "
        //! unsafe, println!, Slab, crate::serve::wire, Instant::now()
        /* static X: u8 */
        use crate::{Config, Disconnect};
        fn f<'a>(quote: char) -> &'static str { if quote == '\"' { \"unsafe \\\" Slab\" } else { r#\"\"dbg!\"\"# } }
        #[cfg(test)]
mod tests { use std::time::Instant; }";
    for path in ["hub/stats.rs", "hub/inbox.rs", "message.rs", "serve/mod.rs", "bin/hublet/main.rs"]
    {
        for (name, rule) in RULES {
            let offences = rule(&Source::new(path, good));
            assert!(offences.is_empty(), "{name}: {offences:?}");
        }
    }
    let upwards = "use super::manager::Command;\nuse super::registry::ClientId;";
    assert!(hub_is_in_order(&Source::new("hub/inbox.rs", upwards)).is_empty());
}

#[test]
fn lints_that_the_rules_rely_on_are_set() {
    let manifest = read("Cargo.toml");
    for lint in ["unsafe_code = \"forbid\"", "unwrap_used", "await_holding_lock", "missing_docs"] {
        assert!(manifest.contains(lint), "{lint}");
    }
    assert!(!manifest.contains("panic = \"abort\""), "a hook's panic must end one client only");
}

/// The faults that CI puts into the source name pieces of it, by the functions that they stand in.
#[test]
fn every_fault_finds_its_piece() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mutants");
    for arguments in [&["-B", "run.py", "--check"][..], &["-B", "-m", "unittest", "locate_test"]] {
        let python = Command::new("python3").args(arguments).current_dir(&folder).output();
        let Ok(output) = python else { return skip("python3 is not installed") };
        let says = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&says));
    }
}
