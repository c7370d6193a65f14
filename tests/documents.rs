//! What `docs/dependencies.md`, `SECURITY.md` and others say, held to what is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Versions below which a crate has a known flaw, and what it is called.
const ADVISORIES: [(&str, [u64; 3], &str); 4] = [
    ("bytes", [1, 11, 1], "RUSTSEC-2026-0007"),
    ("slab", [0, 4, 11], "RUSTSEC-2025-0047"),
    ("event-listener", [5, 4, 2], "RUSTSEC-2026-0221"),
    ("tungstenite", [0, 20, 1], "RUSTSEC-2023-0065"),
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of a table under a heading: their cells.
fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let section = page.split("\n## ").find_map(|section| section.strip_prefix(heading));
    let lines = section.expect(heading).lines().filter(|line| line.starts_with('|'));
    // Without its head and the line under it.
    let rows = lines.skip(2).map(|line| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    });
    rows.collect()
}

/// What the manifest asks for in the sections that are shipped: crate and least version.
fn direct() -> BTreeMap<String, String> {
    let manifest = read("Cargo.toml");
    let mut direct = BTreeMap::new();
    let mut shipped = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            shipped = line == "[dependencies]"
                || line.starts_with("[target.") && line.ends_with(".dependencies]");
        } else if let (true, Some((name, value))) = (shipped, line.split_once(" = ")) {
            let version = value.split('"').nth(1).expect("a version");
            direct.insert(name.to_owned(), version.to_owned());
        }
    }
    assert!(direct.len() > 10, "{direct:?}");
    direct
}

/// The crates of the static binary, each with its version, as Cargo has locked them.
fn shipped() -> BTreeMap<String, String> {
    let cargo = std::env::var_os("CARGO").expect("Cargo runs the tests");
    let output = Command::new(cargo)
        .args(["tree", "--locked", "--edges", "normal,no-proc-macro"])
        .args(["--target", "x86_64-unknown-linux-musl", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo tree runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).expect("text");
    let crates = tree.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()?.trim_start_matches('v').to_owned()))
    });
    crates.filter(|(name, _)| name != "hublet").collect()
}

fn numbers(version: &str) -> Vec<u64> {
    version.split('.').map(|number| number.parse().expect(version)).collect()
}

#[test]
fn every_direct_dependency_has_its_reason_and_its_weight() {
    let page = read("docs/dependencies.md");
    let mut listed = BTreeMap::new();
    for row in rows(&page, "What we ask for") {
        let [name, version, bytes, why] = &row[..] else { panic!("{row:?}") };
        let bytes = bytes.replace(',', "");
        assert!(bytes.parse::<u64>().is_ok(), "{name} weighs {bytes:?}");
        assert!(why.len() > 20, "{name} is there for {why:?}");
        listed.insert(name.trim_matches('`').to_owned(), version.clone());
    }
    assert_eq!(listed, direct());
}

#[test]
fn the_binary_has_one_size() {
    let page = read("docs/dependencies.md").replace(',', "");
    let readme = read("README.md");
    let size = readme.lines().find_map(|line| line.strip_prefix("binary "));
    let size = size.expect("the README quotes what footprint prints").trim();
    assert!(page.contains(&format!("The static x86-64 binary is {size}.")), "{size}");
}

#[test]
fn every_crate_that_comes_along_is_listed() {
    let page = read("docs/dependencies.md");
    let listed: Vec<_> = rows(&page, "What comes along")
        .into_iter()
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect();
    let direct = direct();
    let expected: Vec<_> =
        shipped().into_keys().filter(|name| !direct.contains_key(name)).collect();
    assert_eq!(listed, expected);
}

#[test]
fn nothing_shipped_is_older_than_the_mending_of_a_known_flaw() {
    let (direct, shipped) = (direct(), shipped());
    let page = read("docs/dependencies.md");
    for (name, mended, advisory) in ADVISORIES {
        let locked = shipped.get(name).expect(name);
        assert!(numbers(locked) >= mended.to_vec(), "{name} {locked} is before {advisory}");
        // What others resolve for themselves is held by the manifest, where it is ours to say.
        if let Some(least) = direct.get(name) {
            assert!(numbers(least) >= mended.to_vec(), "{name} {least} is before {advisory}");
        }
        assert!(page.contains(advisory), "{advisory} is not told of");
    }
}

/// The sources under a folder of the repository.
fn sources(folder: &str) -> Vec<PathBuf> {
    let mut sources = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the repository") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("node_modules") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(path);
            }
        }
    }
    sources
}

#[test]
fn every_promise_names_tests_that_are_there() {
    let page = read("SECURITY.md");
    let mut names = String::new();
    for source in sources("src").into_iter().chain(sources("tests")) {
        names.push_str(&fs::read_to_string(source).expect("text"));
    }
    let promises = rows(&page, "What is promised, and by which tests");
    assert!(promises.len() > 5, "{promises:?}");
    for row in promises {
        let [promise, _, tests] = &row[..] else { panic!("{row:?}") };
        // What stands between backticks: a test, a fuzz target, or a command.
        let named: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "nothing tests {promise:?}");
        for name in named.into_iter().filter(|name| !name.contains(' ')) {
            let target = format!("fuzz/fuzz_targets/{name}.rs");
            let is_target = Path::new(env!("CARGO_MANIFEST_DIR")).join(target).is_file();
            assert!(is_target || names.contains(&format!("fn {name}(")), "no test {name}");
        }
    }
}

/// The number of clients that the smallest box has room for, wherever it is told.
#[test]
fn sixteen_mebibytes_hold_as_many_clients_as_is_said() {
    let config = hublet::Config::default().max_memory(Some(16 << 20));
    let (hub, _manager) = hublet::Hub::new(config).expect("enough");
    let clients = hub.sizing().expect("there is a ceiling").max_clients;
    let row = format!("| `16m` | {clients} |");
    assert!(read("README.md").contains(&row), "README.md: {row}");
    let comment = format!("# 16 MiB for all of it, whatever comes in: {clients} clients");
    assert!(read("deploy/openwrt.init").contains(&comment), "deploy/openwrt.init: {comment}");
}
