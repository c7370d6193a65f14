//! The layers of the library: imports go down, and there is no import cycle.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, paths, sources};

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

/// A file of the library by its module path: `hub::queue`.
type Module = String;

/// The imports of each file of the library.
pub(crate) struct Imports {
    of: BTreeMap<Module, BTreeSet<Module>>,
    /// Imports that name no defining file, but a re-export in `lib.rs` or a `mod.rs`.
    indirect: Vec<String>,
}

impl Imports {
    pub(crate) fn read(sources: &[Source]) -> Self {
        let library = sources.iter().filter(|source| !source.is_in("bin/"));
        let files: Vec<_> = library.map(|source| (module(&source.path), source)).collect();
        let modules: BTreeSet<_> = files.iter().map(|(module, _)| module.clone()).collect();
        let mut imports = Self { of: BTreeMap::new(), indirect: Vec::new() };
        for (module, source) in &files {
            // Another rule checks that these files only declare and re-export.
            if source.path == "lib.rs" || source.path.ends_with("mod.rs") {
                continue;
            }
            let of = imports.of.entry(module.clone()).or_default();
            for path in paths(&source.code, "crate::") {
                match defining(&path, &modules) {
                    Some(other) if other == *module => {}
                    Some(other) => drop(of.insert(other)),
                    None => imports.indirect.push(source.offence(&format!("crate::{path}"))),
                }
            }
            for path in paths(&source.code, "super::") {
                let folder = module.rsplit_once("::").map_or("", |(folder, _)| folder);
                let path = if folder.is_empty() { path } else { format!("{folder}::{path}") };
                match defining(&path, &modules) {
                    Some(other) if other == *module => {}
                    Some(other) => drop(of.insert(other)),
                    None => imports.indirect.push(source.offence(&format!("super: {path}"))),
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

/// The module path of a file: `hub::queue` for `hub/queue.rs`.
fn module(path: &str) -> Module {
    path.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::")
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
    let is_folder = |at: &str| modules.iter().any(|module| folder(module) == at);
    let mut at = path;
    loop {
        if modules.contains(at) && !is_folder(at) {
            return Some(at.to_owned());
        }
        at = at.rsplit_once("::")?.0;
    }
}

#[test]
fn imports_go_down_the_layers_and_have_no_cycle() {
    let imports = Imports::read(&sources());
    assert!(imports.of.len() > 50, "only {} files were found", imports.of.len());
    let edges: usize = imports.of.values().map(BTreeSet::len).sum();
    assert!(edges > 200, "only {edges} imports were found");
    assert_eq!(imports.indirect, [""; 0], "import from the file that defines the name");
    assert_eq!(imports.upward(), [""; 0]);
    assert_eq!(imports.circles(), [""; 0]);
}

/// A rule that finds nothing may be broken: each gets examples of what it must find.
#[test]
fn upward_imports_and_cycles_are_found() {
    let sources = |files: &[(&str, &str)]| -> Vec<_> {
        let all = ["error.rs", "message.rs", "hub/mod.rs", "hub/queue.rs", "hub/inbox.rs"];
        let all =
            all.into_iter().chain(["serve/accept.rs", "sse/encoder.rs", "websocket/close.rs"]);
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
    ] {
        let imports = Imports::read(&sources(&bad));
        let found = [imports.upward(), imports.circles(), imports.indirect].concat();
        assert!(!found.is_empty(), "{bad:?} may be");
    }
    let good = [
        ("hub/queue.rs", "use crate::hub::inbox::Inbox;\nuse crate::message::Message;"),
        ("serve/accept.rs", "use crate::{hub::{inbox::Inbox, queue::Queue}, sse::encoder};"),
    ];
    let imports = Imports::read(&sources(&good));
    let found = [imports.upward(), imports.circles(), imports.indirect].concat();
    assert_eq!(found, [""; 0]);
}
