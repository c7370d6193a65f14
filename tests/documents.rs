//! Compares `docs/dependencies.md`, `SECURITY.md` and other pages with the repository.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The first version of a crate without a known flaw, and the name of the flaw.
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

/// The cells of the rows of the table under a heading.
fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let section = page.split("\n## ").find_map(|section| section.strip_prefix(heading));
    let lines = section.expect(heading).lines().filter(|line| line.starts_with('|'));
    // Without the head of the table and the line under it.
    let rows = lines.skip(2).map(|line| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    });
    rows.collect()
}

/// The dependencies of the shipped sections of the manifest: crate and least version.
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
    let readme = read("README.md").replace(',', "");
    let figures = read("docs/figures.md");
    let size = figures.lines().find_map(|line| line.strip_prefix("binary "));
    let size = size.expect("the figures of footprint").trim();
    assert!(page.contains(&format!("The static x86-64 binary is {size}.")), "{size}");
    assert!(readme.contains(&format!("The static binary has {size}.")), "{size}");
}

/// The cells of the lines of a table.
fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn the_numbers_of_the_readme_are_figures_of_the_page() {
    let (readme, figures) = (read("README.md"), read("docs/figures.md"));
    let (_, numbers) = readme.split_once("## Numbers").expect("the section");
    let table = |page: &str| -> Vec<String> {
        let rows = page.lines().skip_while(|line| !line.starts_with("| "));
        rows.take_while(|line| line.starts_with("| ")).map(str::to_owned).collect()
    };
    let (ours, all) = (table(numbers), table(&figures));
    assert!(ours.len() >= 7 && all.len() > ours.len(), "{ours:?}");
    let columns = cells(&ours[0]);
    for row in &ours[2..] {
        let row = cells(row);
        let whole = all.iter().map(|row| cells(row)).find(|other| other[0] == row[0]);
        let whole = whole.unwrap_or_else(|| panic!("{:?} is no row of the figures", row[0]));
        for (peer, figure) in columns.iter().zip(&row).skip(1) {
            let column = cells(&all[0]).iter().position(|name| name == peer).expect("a column");
            // The ratio in brackets is left out.
            assert_eq!(whole[column].split(" (").next(), Some(*figure), "{peer}: {}", row[0]);
        }
    }
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
fn shipped_crates_have_the_fixes_of_known_flaws() {
    let (direct, shipped) = (direct(), shipped());
    let page = read("docs/dependencies.md");
    for (name, mended, advisory) in ADVISORIES {
        let locked = shipped.get(name).expect(name);
        assert!(numbers(locked) >= mended.to_vec(), "{name} {locked} is before {advisory}");
        // Embedding programs resolve versions themselves: the manifest must require the fix.
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
fn every_promise_names_existing_tests() {
    let page = read("SECURITY.md");
    let mut names = String::new();
    for source in sources("src").into_iter().chain(sources("tests")) {
        names.push_str(&fs::read_to_string(source).expect("text"));
    }
    let promises = rows(&page, "What is promised, and by which tests");
    assert!(promises.len() > 5, "{promises:?}");
    for row in promises {
        let [promise, _, tests] = &row[..] else { panic!("{row:?}") };
        // A text between backticks is a test, a fuzz target, or a command.
        let named: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "nothing tests {promise:?}");
        for name in named.into_iter().filter(|name| !name.contains(' ')) {
            let target = format!("fuzz/fuzz_targets/{name}.rs");
            let is_target = Path::new(env!("CARGO_MANIFEST_DIR")).join(target).is_file();
            assert!(is_target || names.contains(&format!("fn {name}(")), "no test {name}");
        }
    }
}

/// Compares the numbers of clients in pages and files with the sizing of the hub.
#[test]
fn the_table_of_sizes_is_the_arithmetic_of_the_hub() {
    // The column of idle clients: the memory at the start, and that of an idle client.
    const START: usize = 1_000_000;
    const CLIENT: usize = 5_400;
    let page = read("docs/limits.md");
    let grouped = |number: usize| {
        if number < 1000 {
            return number.to_string();
        }
        format!("{},{:03}", number / 1000, number % 1000)
    };
    raise_descriptors();
    for mebibytes in [16, 32, 64, 256] {
        let bytes = mebibytes << 20;
        let config = hublet::Config::default().max_memory(Some(bytes));
        let (hub, _manager) = hublet::Hub::new(config).expect("enough");
        let sizing = hub.sizing().expect("there is a ceiling");
        let (quiet, hostile) = (grouped((bytes - START) / CLIENT), grouped(sizing.max_clients));
        let row = format!("| `{mebibytes}m` | {quiet} | {hostile} |");
        assert!(page.contains(&row), "docs/limits.md: {row}");
        if mebibytes == 16 {
            let comment = format!("# 16 MiB for everything, whatever arrives: {hostile} clients");
            assert!(read("deploy/openwrt.init").contains(&comment), "openwrt.init: {comment}");
        }
        if mebibytes == 32 {
            let line = format!("\nmemory: {sizing}\n");
            assert!(page.contains(&line), "docs/limits.md: {line}");
        }
    }
}

/// Raises the limit on file descriptors, which bounds the number of clients.
#[cfg(unix)]
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .expect("up to the hard limit");
}

#[cfg(not(unix))]
fn raise_descriptors() {}

/// The pages for users: path and text.
fn pages() -> Vec<(String, String)> {
    let mut pages: Vec<String> =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"].map(str::to_owned).into();
    let mut folders = ["docs", "deploy", "examples"].map(str::to_owned).to_vec();
    while let Some(folder) = folders.pop() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&folder);
        for entry in fs::read_dir(path).expect("a folder of the repository") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("ASCII");
            let path = format!("{folder}/{name}");
            if !entry.path().is_dir() {
                let is_page =
                    !name.ends_with(".png") && !name.starts_with("api") && name != "Cargo.lock";
                pages.extend(is_page.then_some(path));
            } else if name != "target" {
                folders.push(path);
            }
        }
    }
    pages.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

#[test]
fn every_page_is_short_and_has_its_place() {
    let pages = pages();
    let readme = &pages[0].1;
    assert!(readme.lines().count() <= 220, "README.md has {} lines", readme.lines().count());
    for (path, text) in pages.iter().filter(|(path, _)| path.starts_with("docs/")) {
        assert!(text.lines().count() < 250, "{path} has {} lines", text.lines().count());
        assert!(readme.contains(path.as_str()), "the README does not name {path}");
        if path.ends_with(".md") {
            let first = text.lines().nth(2).unwrap_or_default();
            assert!(
                first.starts_with("For "),
                "{path} does not say for which reader it is: {first}"
            );
        }
    }
}

/// The name that a heading has in a link.
fn anchor(heading: &str) -> String {
    let name = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    name.chars().filter(|char| char.is_alphanumeric() || *char == '-').collect()
}

#[test]
fn every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut links = 0;
    for (path, text) in pages() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") {
                continue;
            }
            links += 1;
            let (file, name) = link.split_once('#').unwrap_or((link, ""));
            let folder = root.join(&path).parent().expect("a folder").to_owned();
            let target = if file.is_empty() { root.join(&path) } else { folder.join(file) };
            assert!(target.exists(), "{path}: {link}");
            if !name.is_empty() {
                let there = fs::read_to_string(target).expect("text");
                let found = there.lines().any(|line| line.starts_with('#') && anchor(line) == name);
                assert!(found, "{path}: {link}");
            }
        }
    }
    assert!(links > 40, "{links} links");
}

/// The words of a page outside of code blocks and backticks.
fn prose(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for block in text.split("```").step_by(2) {
        for prose in block.split('`').step_by(2) {
            let of =
                prose.split(|char: char| !char.is_alphabetic()).filter(|word| !word.is_empty());
            words.extend(of.map(str::to_lowercase));
        }
    }
    words
}

/// The comments of a program, of a script or of a file of settings.
fn comments(text: &str, sign: &str) -> String {
    let lines = text.lines().filter(|line| line.trim_ascii_start().starts_with(sign));
    lines.collect::<Vec<_>>().join("\n")
}

/// Plain English names the actor: a client, a peer, the hub.
#[test]
fn every_page_names_its_actors() {
    const BANNED: [&str; 8] =
        ["who", "whom", "whose", "whoever", "nobody", "somebody", "anybody", "mended"];
    let found: Vec<_> = pages()
        .iter()
        .flat_map(|(path, text)| {
            let words = match path.strip_prefix("deploy/") {
                Some(name) if !name.ends_with(".md") => prose(&comments(text, "#")),
                _ if path.starts_with("examples/") => prose(&comments(text, "//")),
                _ => prose(text),
            };
            words.into_iter().map(|word| (path.clone(), word))
        })
        .filter(|(_, word)| BANNED.contains(&word.as_str()))
        .collect();
    assert_eq!(found, []);
    assert_eq!(prose("Who `is whom`?\n```\nnobody\n```\nWe."), ["who", "we"]);
}

/// Runs `.ci/test` with a fake Cargo that prints the output of a test run.
#[cfg(unix)]
#[test]
fn the_last_line_of_a_test_run_counts_what_was_skipped() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("last-line");
    fs::create_dir_all(&folder).expect("made");
    let run = |printed: &str, code: u8| {
        let script = format!("cat <<'END'\n{printed}END\nexit {code}\n");
        fs::write(folder.join("cargo"), script).expect("written");
        let mut command = Command::new(root.join(".ci/test"));
        // The script splits this at the space.
        command.env("CARGO", format!("sh {}", folder.join("cargo").display()));
        let output = command.output().expect("a shell");
        let said = String::from_utf8(output.stdout).expect("text");
        let last = said.lines().rev().take(2).map(str::to_owned).collect::<Vec<_>>();
        (last, output.status.code())
    };
    let passed = "     Running tests/a.rs (target/a)\n\
        skipped: two_tabs_chat: chromium is not installed\n\
        skipped: two_tabs_chat: the npm package x is not installed\n\
        skipped: deploy::nginx: nginx is not installed\n\
        test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n\
     Running tests/b.rs (target/b)\n\
        skipped: deploy::nginx: nginx is not installed\n\
        test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n";
    let missing = "missing: chromium, the npm package x, nginx; .ci/tools installs it on Debian";
    let (last, code) = run(passed, 0);
    assert_eq!(last, ["7 passed, 0 failed, 4 skipped", missing]);
    assert_eq!(code, Some(0));
    let failed = "test result: FAILED. 7 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n";
    let (last, code) = run(failed, 101);
    assert_eq!((last[0].as_str(), code), ("7 passed, 2 failed, 0 skipped", Some(101)));
    let (last, code) = run("error: could not compile\n", 101);
    let lines = ["0 passed, 0 failed, 0 skipped", "cargo ended with 101 before all tests had run"];
    assert_eq!((last, code), (lines.map(str::to_owned).to_vec(), Some(101)));
}
