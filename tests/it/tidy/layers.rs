//! The layers of the library: imports go down, and there is no import cycle. The binary has no layers,
//! and no cycle either.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{self, Source, read, sources};

/// The layers, from the lowest up. A file imports only from its own folder and from lower layers.
///
/// A name with `/` is a folder; the others are files of `src`. Files that are not listed are the
/// lowest layer. `lib.rs` and the binary are above all layers.
const LAYERS: &[&[&str]] = &[
    &["deflate/"],
    &["memory/"],
    &["message"],
    &["error"],
    &["network"],
    &["peer"],
    &["redis_config"],
    &["history_rule"],
    &["overflow"],
    &["config"],
    &["time/"],
    &["stats"],
    &["limits/"],
    &["hub/"],
    &["net/"],
    &["redis/"],
    &["http1/"],
    &["connection/"],
    &["websocket/", "sse/"],
    &["serve/"],
];

/// The folder of the binary.
const BINARY: &str = "bin/hublet/";

/// A file of a crate by its module path: `hub::queue`.
type Module = String;

/// The imports of each file of a crate.
pub(crate) struct Imports {
    of: BTreeMap<Module, BTreeSet<Module>>,
    /// Imports that name no defining file, but a re-export in `lib.rs` or a `mod.rs`, or `main.rs`.
    indirect: Vec<String>,
}

impl Imports {
    /// The imports of the library.
    fn of_library(sources: &[Source]) -> Self {
        Self::read(sources.iter().filter(|source| !source.is_in(BINARY)), "")
    }

    /// The imports of the binary.
    fn of_binary(sources: &[Source]) -> Self {
        Self::read(sources.iter().filter(|source| source.is_in(BINARY)), BINARY)
    }

    /// The imports of the crate whose files lie in `folder`.
    fn read<'a>(sources: impl Iterator<Item = &'a Source>, folder: &str) -> Self {
        let files: Vec<_> = sources.map(|source| (module(&source.path, folder), source)).collect();
        let files: Vec<_> =
            files.into_iter().filter(|(_, source)| !only_declares(source)).collect();
        // No file imports from the top file of the crate.
        let modules = files.iter().map(|(module, _)| module).filter(|module| *module != "main");
        let modules: BTreeSet<_> = modules.cloned().collect();
        let mut imports = Self { of: BTreeMap::new(), indirect: Vec::new() };
        for (module, source) in &files {
            let of = imports.of.entry(module.clone()).or_default();
            let mut paths = source::paths(&source.code, "crate::");
            paths.extend(source::paths(&source.code, "super::").into_iter().map(|path| {
                let folder = module.rsplit_once("::").map_or("", |(folder, _)| folder);
                if folder.is_empty() { path } else { format!("{folder}::{path}") }
            }));
            for path in paths {
                match defining(&path, &modules) {
                    Some(other) if other == *module => {}
                    Some(other) => drop(of.insert(other)),
                    None => imports.indirect.push(source.offence(&format!("crate::{path}"))),
                }
            }
        }
        imports
    }

    /// Imports from a higher layer, or from another folder of the same layer.
    fn upward(&self) -> Vec<String> {
        let points_up = |(from, to): &(&Module, &Module)| {
            let same_folder = from.contains("::") && folder(from) == folder(to);
            let both_ground = layer(from) == 0 && layer(to) == 0;
            !same_folder && !both_ground && layer(to) >= layer(from)
        };
        let pairs = self.of.iter().flat_map(|(from, to)| to.iter().map(move |to| (from, to)));
        pairs.filter(points_up).map(|(from, to)| format!("{from} imports {to}")).collect()
    }

    /// The files that import each other in a cycle.
    fn circles(&self) -> Vec<Module> {
        // A file without remaining imports is in no cycle. Remove such files until none is found.
        let mut left = self.of.clone();
        loop {
            let done: Vec<_> = left
                .iter()
                .filter(|(_, to)| to.iter().all(|to| !left.contains_key(to)))
                .map(|(module, _)| module.clone())
                .collect();
            if done.is_empty() {
                return left.into_keys().collect();
            }
            done.iter().for_each(|module| drop(left.remove(module)));
        }
    }
}

/// Whether a file only declares and re-exports, which another rule checks.
fn only_declares(source: &Source) -> bool {
    source.path == "lib.rs" || source.path.ends_with("mod.rs")
}

/// The module path of a file in a crate: `hub::queue` for `hub/queue.rs`.
fn module(path: &str, crate_folder: &str) -> Module {
    path.trim_start_matches(crate_folder).trim_end_matches(".rs").replace('/', "::")
}

fn folder(module: &str) -> &str {
    module.split_once("::").map_or("", |(folder, _)| folder)
}

/// The layer of a file; 0 is the lowest.
fn layer(module: &str) -> usize {
    let is_at = |name: &&str| match name.strip_suffix('/') {
        Some(name) => folder(module) == name,
        None => module == *name,
    };
    LAYERS.iter().position(|layer| layer.iter().any(is_at)).map_or(0, |at| at + 1)
}

/// The file that defines a path: the longest prefix of the path that is a file.
fn defining(path: &str, modules: &BTreeSet<Module>) -> Option<Module> {
    let mut at = path;
    while !modules.contains(at) {
        at = at.rsplit_once("::")?.0;
    }
    Some(at.to_owned())
}

#[test]
fn imports_go_down_the_layers_and_have_no_cycle() {
    let imports = Imports::of_library(&sources());
    assert!(imports.of.len() > 50, "only {} files were found", imports.of.len());
    let edges: usize = imports.of.values().map(BTreeSet::len).sum();
    assert!(edges > 200, "only {edges} imports were found");
    assert_eq!(imports.indirect, [""; 0], "import from the file that defines the name");
    assert_eq!(imports.upward(), [""; 0]);
    assert_eq!(imports.circles(), [""; 0]);
}

/// The picture in docs/design.md has the layers from the highest down to the lowest, and every file
/// that lies in none of the folders.
#[test]
fn the_picture_of_the_design_is_the_table() {
    let page = read("docs/design.md");
    let (_, picture) = page.split_once("```text\n").expect("a picture");
    let (picture, _) = picture.split_once("```").expect("its end");
    let line_of = |name: &str| {
        let names = |line: &str| line.split([' ', ',']).any(|word| word == name);
        picture.lines().position(names).unwrap_or_else(|| panic!("{name} is not in the picture"))
    };
    let file =
        |name: &str| if name.ends_with('/') { name.to_owned() } else { format!("{name}.rs") };
    let mut above = 0;
    for layer in LAYERS.iter().rev() {
        let lines: Vec<_> = layer.iter().map(|name| line_of(&file(name))).collect();
        let first = lines.iter().min().copied().unwrap_or_default();
        assert!(first >= above, "{layer:?} stands too high in the picture");
        above = lines.into_iter().max().unwrap_or_default();
    }
    for source in sources().iter().filter(|source| !source.path.contains('/')) {
        let line = line_of(&source.path);
        let is_ground = source.path != "lib.rs" && layer(&module(&source.path, "")) == 0;
        assert!(!is_ground || line >= above, "{} stands too high in the picture", source.path);
    }
}

#[test]
fn imports_of_the_binary_have_no_cycle() {
    let imports = Imports::of_binary(&sources());
    assert!(imports.of.len() > 30, "only {} files were found", imports.of.len());
    let edges: usize = imports.of.values().map(BTreeSet::len).sum();
    assert!(edges > 80, "only {edges} imports were found");
    assert_eq!(imports.indirect, [""; 0], "import from the file that defines the name");
    assert_eq!(imports.circles(), [""; 0]);
}

/// A rule that finds nothing may be broken: each gets examples of what it must find.
#[test]
fn upward_imports_and_cycles_are_found() {
    let sources = |files: &[(&str, &str)]| -> Vec<_> {
        let all = ["error.rs", "message.rs", "hub/mod.rs", "hub/queue.rs", "hub/inbox.rs"];
        let all = all.into_iter().chain(["net/mod.rs", "net/tls/mod.rs", "net/tls/stream.rs"]);
        let all = all.chain(["serve/accept.rs", "sse/encoder.rs", "websocket/close.rs"]);
        let text = |path| files.iter().find(|(of, _)| *of == path).map_or("", |(_, text)| text);
        all.map(|path| Source::new(path, text(path))).collect()
    };
    for bad in [
        [("hub/queue.rs", "use crate::serve::accept::connect;"), ("", "")],
        [("message.rs", "use crate::{error::Error};"), ("", "")],
        [("sse/encoder.rs", "fn f(_: crate::websocket::close::Closing) {}"), ("", "")],
        [("message.rs", "use crate::hub::{inbox::Inbox, queue::{Queue, Run}};"), ("", "")],
        [
            ("hub/queue.rs", "use super::inbox::Inbox;"),
            ("hub/inbox.rs", "use super::queue::Queue;"),
        ],
        [("hub/queue.rs", "use crate::Message;"), ("", "")],
        [("serve/accept.rs", "use crate::hub::Queue;"), ("", "")],
        [("serve/accept.rs", "use crate::net::tls::TlsStream;"), ("", "")],
        [("serve/accept.rs", "use crate::net::tls;"), ("", "")],
    ] {
        let imports = Imports::of_library(&sources(&bad));
        let found = [imports.upward(), imports.circles(), imports.indirect].concat();
        assert!(!found.is_empty(), "{bad:?} may be");
    }
    let good = [
        ("hub/queue.rs", "use crate::hub::inbox::Inbox;\nuse crate::message::Message;"),
        (
            "serve/accept.rs",
            "use crate::{hub::{inbox::Inbox, queue::Queue}, net::tls::stream, sse::encoder};",
        ),
    ];
    let imports = Imports::of_library(&sources(&good));
    let found = [imports.upward(), imports.circles(), imports.indirect].concat();
    assert_eq!(found, [""; 0]);
}

#[test]
fn cycles_of_the_binary_are_found() {
    let sources = |files: &[(&str, &str)]| -> Vec<_> {
        let all =
            ["main.rs", "pipe.rs", "pace.rs", "flags/mod.rs", "flags/sets.rs", "flags/table.rs"];
        let text = |path| files.iter().find(|(of, _)| *of == path).map_or("", |(_, text)| text);
        all.map(|path| Source::new(&format!("{BINARY}{path}"), text(path))).into()
    };
    for bad in [
        [("main.rs", "use crate::pipe::Pipe;"), ("pipe.rs", "use crate::Failure;")],
        [("main.rs", "use crate::pipe::Pipe;"), ("pipe.rs", "use crate::main::Failure;")],
        [("pipe.rs", "use crate::pace::Pace;"), ("pace.rs", "use super::pipe::Plan;")],
        [("flags/sets.rs", "use super::table::A;"), ("flags/table.rs", "use super::sets::B;")],
        [("flags/sets.rs", "use crate::flags::Options;"), ("", "")],
        [("flags/sets.rs", "use super::Options;"), ("", "")],
    ] {
        let imports = Imports::of_binary(&sources(&bad));
        assert!(!imports.circles().is_empty() || !imports.indirect.is_empty(), "{bad:?} may be");
    }
    let good = [
        ("main.rs", "use crate::flags::table::A;\nuse crate::pace::Pace;"),
        ("pipe.rs", "use crate::flags::{sets::B, table::A};\nuse crate::pace::Pace;"),
        ("flags/sets.rs", "use super::table::A;"),
    ];
    let imports = Imports::of_binary(&sources(&good));
    assert_eq!([imports.circles(), imports.indirect].concat(), [""; 0]);
}
