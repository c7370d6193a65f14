//! The words of comments, pages and test names: a sentence names its actor.

use std::fs;
use std::path::{Path, PathBuf};

use super::source::{code, comments, literals, read, root, sources};

/// Words that stand for an actor without naming it.
const BANNED: [&str; 6] = ["who", "whom", "whoever", "nobody", "somebody", "anybody"];

/// A label of the page, which comments may quote.
const LABEL: &str = "\"Who is here\"";

/// The number of banned words in prose.
fn count(prose: &str) -> usize {
    let prose = prose.replace(LABEL, "").to_lowercase();
    let words = prose.split(|char: char| !(char.is_alphanumeric() || char == '_'));
    words.filter(|word| BANNED.contains(word)).count()
}

/// The number of banned words in the comments and the test names of a Rust file.
fn count_in_rust(text: &str) -> usize {
    let code = code(text);
    let names = code.split("#[test]").skip(1).filter_map(|test| {
        let (_, name) = test.split_once("fn ")?;
        name.split_once('(').map(|(name, _)| name.replace('_', " "))
    });
    count(&comments(text)) + names.map(|name| count(&name)).sum::<usize>()
}

/// The number of banned words in the comments of a script or a settings file.
fn count_in_script(text: &str) -> usize {
    text.lines().filter(|line| line.trim_start().starts_with('#')).map(count).sum()
}

/// The files of a folder, without those that builds write.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    let paths = entries.map(|entry| entry.path());
    let sources = paths.filter(|path| !path.ends_with("target") && !path.ends_with("node_modules"));
    sources.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The path of each file that the rule covers, and the number of its banned words.
fn counts() -> Vec<(String, usize)> {
    let folders = ["src", "tests", "benches", "examples", "fuzz/src", "docs", "deploy"];
    let mut paths: Vec<_> = folders.iter().flat_map(|folder| files(&root().join(folder))).collect();
    let pages = ["README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", ".ci/run"];
    paths.extend(pages.map(|page| root().join(page)));
    let mut counts = Vec::new();
    for path in paths {
        let name = path.strip_prefix(root()).expect("below the root").to_str().expect("UTF-8");
        let is_script = name.starts_with("deploy/") || name.starts_with(".ci/");
        let count = match path.extension().and_then(|extension| extension.to_str()) {
            // What the library, the binary and the simulation say is prose too.
            Some("rs") if name.starts_with("src/") => {
                count_in_rust(&read(name)) + count(&literals(&read(name)))
            }
            Some("rs") => count_in_rust(&read(name)),
            Some("md") => count(&read(name)),
            _ if is_script => count_in_script(&read(name)),
            _ => continue,
        };
        counts.push((name.to_owned(), count));
    }
    counts
}

#[test]
fn every_sentence_names_its_actor() {
    let counts = counts();
    assert!(counts.len() > 150, "only {} files were found", counts.len());
    let with_some = counts.iter().filter(|(_, count)| *count > 0);
    let offences: Vec<_> =
        with_some.map(|(name, count)| format!("{name} has {count} of {BANNED:?}")).collect();
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

/// Characters of a line of an example that a page of 1,200 pixels shows without scrolling.
const EXAMPLE_WIDTH: usize = 93;

/// The lines of the examples in the documentation that are wider than that.
fn wide_lines(text: &str) -> Vec<&str> {
    let mut in_example = false;
    let mut wide = Vec::new();
    for line in text.lines().map(str::trim_start) {
        let Some(line) = line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) else {
            in_example = false;
            continue;
        };
        let line = line.strip_prefix(' ').unwrap_or(line);
        if line.starts_with("```") {
            in_example = !in_example;
        } else if in_example && !line.starts_with("# ") && line.chars().count() > EXAMPLE_WIDTH {
            wide.push(line);
        }
    }
    wide
}

#[test]
fn every_example_fits_the_page() {
    for source in sources() {
        let wide = wide_lines(&read(format!("src/{}", source.path))).join("\n");
        assert!(wide.is_empty(), "{}:\n{wide}", source.path);
    }
    let long = "x".repeat(EXAMPLE_WIDTH + 1);
    let text =
        format!("/// {long}\n/// ```\n/// {long}\n/// # {long}\n/// ```\n/// {long}\n// {long}");
    assert_eq!(wide_lines(&text), [long.as_str()]);
}

/// A rule that finds nothing may be broken: it gets examples of what it must find and must not.
#[test]
fn banned_words_are_found() {
    assert_eq!(count("Those who wait, one who asks, WHOEVER comes.\nNobody's; for whom?"), 5);
    assert_eq!(count("\"Who is here\" lists clients whose `who_` is wholly anonymous."), 0);
    let bad = "
        //! Who does what.
        fn f() {} // somebody calls it
        /* anybody may */
        #[test]
        #[ignore]
        fn who_asks_gets_nobody() {}";
    assert_eq!(count_in_rust(bad), 5);
    let good = "
        /// \"Who is here\" and `nobody_is_here`
        const WHO: &str = \"who // nobody\";
        fn who_is_no_test() { let nobody = '\"'; }
        #[test]
        fn whole_names_are_compared() {}";
    assert_eq!(count_in_rust(good), 0);
    assert_eq!(count(&literals(good)), 2);
    assert_eq!(count_in_script("# for nobody\n  # who\nUser=nobody\n"), 2);
}
