//! The project's rules, checked in the source: which file may use which, what the library never
//! does, and the words of comments.

mod identifiers;
mod layers;
pub(crate) mod source;
mod words;

use std::path::Path;
use std::process::Command;

use source::{Source, all_sources, read, sources};

use crate::support::skip;

/// A rule. It returns the offences in a file.
type Rule = fn(&Source) -> Vec<String>;

/// The rules that are checked file by file.
const RULES: &[(&str, Rule)] = &[
    ("no socket and no clock in the hub", hub_has_no_io),
    ("no channel without a bound", no_unbounded_channel),
    ("only the manager has the registry", one_owner_of_the_registry),
    ("no slab outside the registry and the poller", slab_stays_inside),
    ("one way out of the registry", one_way_out),
    ("the manager waits for its inbox and a yield", manager_waits_for_no_client),
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

#[test]
fn a_mod_declares_and_exports_no_more() {
    let sources = all_sources();
    let mods = sources.iter().filter(|source| source.path.ends_with("mod.rs")).count();
    assert!(mods > 10, "only {mods} were found");
    let offences: Vec<_> = sources.iter().flat_map(mod_only_declares).collect();
    assert_eq!(offences, [""; 0]);
}

fn mod_only_declares(source: &Source) -> Vec<String> {
    if source.path != "lib.rs" && !source.path.ends_with("mod.rs") {
        return Vec::new();
    }
    let begins =
        ["mod ", "pub mod ", "pub(crate) mod ", "pub use ", "pub(crate) use ", "#[", "#!["];
    // An export of several names goes on over the next lines.
    let mut goes_on = false;
    let is_other = |line: &&str| {
        let line = line.trim();
        let declares = goes_on || line.is_empty() || begins.iter().any(|b| line.starts_with(b));
        goes_on =
            !line.ends_with(';') && !line.ends_with(']') && (goes_on || line.contains("use "));
        !declares
    };
    source.code.lines().filter(is_other).map(|line| source.offence(line)).collect()
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

/// Invariant 2: there is no lock around the registry, and no other owner.
fn one_owner_of_the_registry(source: &Source) -> Vec<String> {
    let locks = ["Mutex<Registry", "RwLock<Registry", "Arc<Registry", "RefCell<Registry", "RwLock"];
    let mut offences = source.lines_with(&locks);
    // The eviction is a part of the manager, which lends it the registry.
    let owners = ["hub/handle.rs", "hub/manager", "hub/eviction.rs", "hub/registry"];
    if !owners.iter().any(|owner| source.is_in(owner)) {
        offences.extend(source.lines_with(&["Registry"]));
    }
    offences
}

/// Invariant 4: of clients in the registry, of sockets in the poller. A delivery reads the registry's.
fn slab_stays_inside(source: &Source) -> Vec<String> {
    if source.path == "hub/delivery.rs" {
        let owns = |line: &str| !line.contains("&Slab<") && !line.contains("use slab::Slab;");
        return source
            .lines_with(&["slab", "Slab"])
            .into_iter()
            .filter(|line| owns(line))
            .collect();
    }
    if ["hub/registry.rs", "net/registrations.rs"].contains(&&*source.path) {
        return Vec::new();
    }
    source.lines_with(&["slab", "Slab"])
}

/// Invariant 5.
fn one_way_out(source: &Source) -> Vec<String> {
    if !source.is_in("hub/registry") {
        return Vec::new();
    }
    let ways = usize::from(source.path == "hub/registry.rs");
    let removes = source.code.lines().filter(|line| line.contains("entries.remove(")).count();
    let others = ["entries.try_remove", "entries.clear", "entries.retain", "entries.drain"];
    let mut offences = source.lines_with(&others);
    if removes != ways {
        offences.push(source.offence(&format!("{removes} calls of entries.remove")));
    }
    offences
}

/// Invariant 1.
fn manager_waits_for_no_client(source: &Source) -> Vec<String> {
    if !source.is_in("hub/manager") {
        return Vec::new();
    }
    let waits = [
        "self.commands.next(",
        "yield_now()",
        "self.deliver(",
        "self.deliver_acked(",
        "self.dispatch(",
        "self.answer_waiters(",
        "self.on_link_event(",
        "self.remove_all(",
        "self.begin_at(",
        "self.publish_at(",
    ];
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
    // The name of a host is resolved in a thread, when a reactor connects to Redis.
    if source.path != "net/dial.rs" {
        offences.extend(source.lines_with(&["thread::Builder"]));
    }
    offences.extend(source.code.lines().filter(is_static).map(|line| source.offence(line)));
    offences
}

fn one_clock(source: &Source) -> Vec<String> {
    if source.is_in("bin/") || source.path == "time/clock.rs" {
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

/// A rule that finds nothing may be broken: each gets examples of what it must find and must not.
#[test]
fn every_rule_finds_its_offences() {
    let bad: &[(Rule, &str, &str)] = &[
        (mod_only_declares, "hub/mod.rs", "mod queue;\nfn f() {}"),
        (mod_only_declares, "sim/mod.rs", "mod world;\n#[test]\nfn runs() {}"),
        (mod_only_declares, "bin/hublet/flags/mod.rs", "mod table;\nstruct Options;"),
        (mod_only_declares, "lib.rs", "use config::Config;"),
        (mod_only_declares, "lib.rs", "pub use config::{\n    A,\n};\nstruct B;"),
        (hub_has_no_io, "hub/inbox.rs", "use std::{net::IpAddr};\nuse std::net::IpAddr;"),
        (hub_has_no_io, "hub/queue.rs", "let now = std::time::Instant::now();"),
        (hub_has_no_io, "hub/handle.rs", "use async_tungstenite::tungstenite;"),
        (no_unbounded_channel, "serve/accept.rs", "let (s, r) = async_channel::unbounded();"),
        (no_unbounded_channel, "bin/hublet/main.rs", "use std::sync::mpsc::channel;"),
        (one_owner_of_the_registry, "hub/manager.rs", "registry: Arc<Mutex<Registry>>,"),
        (one_owner_of_the_registry, "serve/accept.rs", "use crate::hub::registry::Registry;"),
        (slab_stays_inside, "hub/manager.rs", "use slab::Slab;"),
        (slab_stays_inside, "hub/delivery.rs", "entries: &mut Slab<Entry>,"),
        (one_way_out, "hub/registry.rs", "self.entries.remove(a); \n self.entries.remove(b);"),
        (one_way_out, "hub/registry.rs", "self.entries.remove(a);\nself.entries.retain(f);"),
        (one_way_out, "hub/registry_state.rs", "self.entries.remove(a);"),
        (slab_stays_inside, "hub/registry_lists.rs", "fn of(slab: &slab::Slab<Entry>) {}"),
        (manager_waits_for_no_client, "hub/manager.rs", "queue.sender.send(message).await;"),
        (manager_waits_for_no_client, "hub/manager_waiters.rs", "reply.sent().await;"),
        (library_keeps_quiet, "serve/accept.rs", "std::thread::spawn(f);"),
        (library_keeps_quiet, "hub/handle.rs", "    println!();"),
        (library_keeps_quiet, "config.rs", "use std::env;"),
        (library_keeps_quiet, "memory/read_buffers.rs", "pub(crate) static POOL: Mutex<u8> = f();"),
        (library_keeps_quiet, "memory/read_buffers.rs", "thread_local! {"),
        (one_clock, "connection/timeouts.rs", "let now = Instant::now();"),
        (no_unsafe, "bin/hublet/main.rs", "unsafe { f() }"),
        (no_unsafe, "sse/connection.rs", "#[cfg(test)]\nmod tests;\nunsafe { f() }"),
        (no_drawer, "serve/utils.rs", ""),
    ];
    for (name, rule) in RULES {
        let shown = bad.iter().any(|(of, ..)| std::ptr::fn_addr_eq(*of, *rule));
        assert!(shown, "no example of an offence for: {name}");
    }
    for (rule, path, snippet) in bad {
        assert!(!rule(&Source::new(path, snippet)).is_empty(), "not found in {path}: {snippet}");
    }
    let good = "
        //! unsafe, println!, Slab, crate::serve::accept, Instant::now()
        /* static X: u8 */
        use crate::{Config, Disconnect};
        fn f<'a>(quote: char) -> &'static str { if quote == '\"' { \"unsafe \\\" Slab\" } else { r#\"\"dbg!\"\"# } }
        #[cfg(test)]
mod tests { use std::time::Instant; }";
    for path in ["stats.rs", "hub/inbox.rs", "message.rs", "serve/accept.rs", "bin/hublet/main.rs"]
    {
        for (name, rule) in RULES {
            let offences = rule(&Source::new(path, good));
            assert!(offences.is_empty(), "{name}: {offences:?}");
        }
    }
}

#[test]
fn lints_that_the_rules_rely_on_are_set() {
    let manifest = read("Cargo.toml");
    for lint in ["unsafe_code = \"forbid\"", "unwrap_used", "await_holding_lock", "missing_docs"] {
        assert!(manifest.contains(lint), "{lint}");
    }
    assert!(!manifest.contains("panic = \"abort\""), "a hook's panic must end one client only");
}

/// The faults that CI injects name functions and pieces of code, which must exist.
#[test]
fn every_fault_finds_its_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mutants");
    for arguments in [&["-B", "run.py", "--check"][..], &["-B", "-m", "unittest", "locate_test"]] {
        let python = Command::new("python3").args(arguments).current_dir(&folder).output();
        let Ok(output) = python else { return skip("python3 is not installed") };
        let says = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&says));
    }
}
