//! The hub's counters in the format of Prometheus (text format 0.0.4).

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use http::StatusCode;

use crate::http1::response::Response;
use crate::hub::handle::Hub;
use crate::stats::{Counters, RefusalReason, Requested, Stats};
use crate::sync::AtomicU64;

/// A metric with one value: its name without the prefix, its help text, and how to read it. The
/// name of a counter, which only grows, ends in `_total`, as is the custom of Prometheus.
type Metric = (&'static str, &'static str, fn(&Stats) -> u64);

const METRICS: &[Metric] = &[
    ("clients", "Clients connected now.", |stats| stats.clients as u64),
    ("rooms", "Rooms now, also those that outlive their members.", |stats| stats.rooms as u64),
    ("history_bytes", "Memory that the kept messages of all rooms take now.", |stats| {
        stats.history_bytes as u64
    }),
    ("history_shed_total", "Kept messages that were dropped to save memory.", |stats| {
        stats.history_shed
    }),
    ("gaps_total", "Times that a reader was told of messages it missed.", |stats| stats.gaps),
    ("connections", "Connections open now, clients included.", |stats| stats.connections as u64),
    (
        "held_bytes",
        "Memory held for peers and publishers now: queues, and messages and requests being received.",
        |s| s.held_bytes as u64,
    ),
    ("messages_received_total", "Messages taken from clients and by POST.", |stats| {
        stats.messages_received
    }),
    ("messages_dispatched_total", "Messages handed to their recipients.", |stats| {
        stats.messages_dispatched
    }),
    ("messages_compressed_total", "Messages that were compressed, once for all.", |stats| {
        stats.messages_compressed
    }),
    ("recipients_total", "Recipients over all dispatched messages.", |stats| stats.recipients),
    ("messages_delivered_total", "Of the recipients: the kernel took all of it.", |stats| {
        stats.messages_delivered
    }),
    ("messages_dropped_total", "Of the recipients: the overflow policy dropped it.", |stats| {
        stats.messages_dropped
    }),
    ("messages_lost_total", "Of the recipients: the client ended while it waited.", |stats| {
        stats.messages_lost
    }),
    ("received_bytes_total", "Bytes read from peers.", |stats| stats.bytes_received),
    ("sent_bytes_total", "Bytes written to peers, events as their frames.", |stats| {
        stats.bytes_sent
    }),
    ("rate_pauses_total", "Times that a client was read later because of its rate.", |stats| {
        stats.rate_pauses
    }),
    ("posts_over_rate_total", "Requests to publish past --max-post-rate, refused.", |stats| {
        stats.posts_over_rate
    }),
    ("handshakes_accepted_total", "Requests that became clients.", |stats| stats.upgrades_accepted),
];

impl Hub {
    /// Returns what `/metrics` answers, for a program whose own server is scraped: the counters of
    /// the hub and what Linux says of the process, in the text format 0.0.4 of Prometheus. It does
    /// not wait for the manager.
    ///
    /// Serve it with the type `text/plain; version=0.0.4`. A program that exports metrics of its
    /// process already takes the lines that begin with `hublet_`, or reads [`Hub::stats`].
    ///
    /// # Examples
    ///
    /// ```
    /// # use hublet::{Config, Hub};
    /// let (hub, _manager) = Hub::new(Config::default())?;
    /// assert!(hub.metrics().contains("\nhublet_clients 0\n"));
    /// # Ok::<_, hublet::Error>(())
    /// ```
    #[must_use]
    pub fn metrics(&self) -> String {
        text(self)
    }
}

/// The answer to `GET /metrics`.
pub(crate) fn response(hub: &Hub) -> Response {
    let body = text(hub).into();
    Response::with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
        .header("Cache-Control", "no-store")
}

fn text(hub: &Hub) -> String {
    let mut text = String::new();
    let stats = hub.stats();
    declare(&mut text, "hublet_", "build_info", "The version of the hub; always 1.");
    text.push_str(concat!("hublet_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1\n"));
    for (name, help, value) in METRICS {
        declare(&mut text, "hublet_", name, help);
        sample(&mut text, "hublet_", name, "", value(&stats));
    }
    let name = "evictions_total";
    declare(&mut text, "hublet_", name, "Clients that were too slow, by how that was noticed.");
    let (stuck, memory) = (stats.clients_stuck, stats.clients_shed);
    let overflow = stats.clients_evicted.saturating_sub(stuck + memory);
    for (reason, value) in [("overflow", overflow), ("stuck", stuck), ("memory", memory)] {
        sample(&mut text, "hublet_", name, reason, value);
    }
    refusals(&mut text, &hub.shared().counters);
    backplane(&mut text, hub);
    let name = "start_time_seconds";
    declare(&mut text, "hublet_", name, "When the hub began to serve, in Unix time.");
    let started = hub.shared().started.get().copied().unwrap_or_default();
    sample(&mut text, "hublet_", name, "", started);
    process(&mut text);
    text
}

/// Adds the refused requests, a line for each kind and reason.
fn refusals(text: &mut String, counters: &Counters) {
    let name = "requests_refused_total";
    let help = "Requests that were refused, by what they asked for and what was wrong.";
    declare(text, "hublet_", name, help);
    for (request, reasons) in Requested::NAMES.iter().zip(&counters.refused) {
        for (reason, count) in RefusalReason::NAMES.iter().zip(reasons) {
            let count = count.load(Ordering::Relaxed);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "hublet_{name}{{request=\"{request}\",reason=\"{reason}\"}} {count}"
            );
        }
    }
}

/// Adds what happens between the hub and its server, if it has one.
fn backplane(text: &mut String, hub: &Hub) {
    let Some(backplane) = &hub.shared().backplane else { return };
    let (link, counters) = (&backplane.link, &backplane.link.counters);
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let metrics = [
        ("redis_connected", "1 while the hub is connected to Redis.", u64::from(link.is_up())),
        (
            "redis_gaps_total",
            "Times at which messages may have passed the hub unheard.",
            count(&counters.gaps),
        ),
        (
            "redis_dropped_total",
            "Messages from Redis that were longer than the longest message.",
            count(&counters.dropped),
        ),
        (
            "redis_unconfirmed_total",
            "Messages of the hub that Redis has not confirmed; they may be lost.",
            count(&counters.unconfirmed),
        ),
    ];
    for (name, help, value) in metrics {
        declare(text, "hublet_", name, help);
        sample(text, "hublet_", name, "", value);
    }
}

fn declare(text: &mut String, prefix: &str, name: &str, help: &str) {
    let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
    // Writing to a string cannot fail.
    let _ = write!(text, "# HELP {prefix}{name} {help}\n# TYPE {prefix}{name} {kind}\n");
}

/// Adds a sample, with a reason as its label if there is one.
fn sample(text: &mut String, prefix: &str, name: &str, reason: &str, value: u64) {
    let _ = if reason.is_empty() {
        writeln!(text, "{prefix}{name} {value}")
    } else {
        writeln!(text, "{prefix}{name}{{reason=\"{reason}\"}} {value}")
    };
}

/// Adds what Linux reports of the process, under the names that Prometheus clients use.
#[cfg(target_os = "linux")]
fn process(text: &mut String) {
    let mut add = |name, help, value: Option<u64>| {
        if let Some(value) = value {
            declare(text, "process_", name, help);
            sample(text, "process_", name, "", value);
        }
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_ascii().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    };
    add("virtual_memory_bytes", "Virtual memory size.", kib("VmSize:"));
    add("resident_memory_bytes", "Resident memory size.", kib("VmRSS:"));
    add("open_fds", "Open file descriptors.", open_fds());
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    add("max_fds", "Limit on open file descriptors.", limit);
}

#[cfg(not(target_os = "linux"))]
fn process(_: &mut String) {}

/// Counts the open descriptors. Since Linux 6.2 the size of the folder is their number, so that
/// the folder need not be listed.
#[cfg(target_os = "linux")]
fn open_fds() -> Option<u64> {
    const FDS: &str = "/proc/self/fd";
    match std::fs::metadata(FDS).ok()?.len() {
        0 => Some(std::fs::read_dir(FDS).ok()?.count() as u64),
        size => Some(size),
    }
}
