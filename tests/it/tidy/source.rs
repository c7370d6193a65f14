//! The source, as the rules read it: code without comments, the contents of literals, and tests.

use std::fs;
use std::path::{Path, PathBuf};

/// A source file of the package: its path below `src`, and its code without comments, the contents
/// of literals, and tests.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
        Self { path: path.to_owned(), code: code(&text[..end]) }
    }

    pub(crate) fn is_in(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    /// The lines that contain one of `words` as a whole word, or path.
    pub(crate) fn lines_with(&self, words: &[&str]) -> Vec<String> {
        let named = |line: &&str| words.iter().any(|word| has_word(line, word));
        self.code.lines().filter(named).map(|line| self.offence(line)).collect()
    }

    pub(crate) fn offence(&self, line: &str) -> String {
        format!("{}: {}", self.path, line.trim())
    }
}

/// Whether `word` stands in `line` with no letter, digit or underscore at its sides.
fn has_word(line: &str, word: &str) -> bool {
    let inside = |char: char| char.is_alphanumeric() || char == '_';
    let tail = word.ends_with(inside);
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(inside);
        let after = line[at + word.len()..].chars().next().is_some_and(inside);
        !(before || tail && after)
    })
}

/// Blanks comments and the contents of strings and characters.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if rest.starts_with("r#\"") {
            rest.find("\"#").map_or(rest.len(), |at| at + 2)
        } else if char == '"' {
            literal(rest, '"')
        } else if rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'') && char == '\'' {
            literal(rest, '\'')
        } else {
            code.push(char);
            char.len_utf8()
        };
        if skipped > char.len_utf8() {
            // Lines stay lines.
            code.extend(rest[..skipped].chars().filter(|char| *char == '\n'));
        }
        rest = &rest[skipped..];
    }
    code
}

/// The length of a literal that `rest` begins with.
fn literal(rest: &str, quote: char) -> usize {
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => drop(chars.next()),
            char if char == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

pub(crate) fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(path)).expect("it is there")
}

/// Everything that is shipped.
pub(crate) fn sources() -> Vec<Source> {
    let folder = root().join("src");
    let source = |path: &PathBuf| {
        // Not the whole path, of which only what is below `src` is ours to name.
        let name = path.strip_prefix(&folder).expect("below src").to_str().expect("UTF-8");
        let is_test = ["tests", "sim/", "virtual_time"].iter().any(|test| name.contains(test));
        (!is_test).then(|| Source::new(name, &fs::read_to_string(path).expect("text")))
    };
    files(&folder).iter().filter_map(source).collect()
}

/// What lib.rs takes out of each storey, so that a name at the root is known by where it lives.
pub(crate) fn names_of(storey: &str) -> Vec<String> {
    let lib = code(&read("src/lib.rs"));
    let (_, rest) = lib.split_once(&format!("pub use {storey}::")).expect("lib.rs has it");
    let (names, _) = rest.split_once(';').expect("it has an end");
    let names = names.trim_matches(['{', '}']).split(',').map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The first two segments of every path in `code` that begins with `start`, groups opened.
pub(crate) fn paths(code: &str, start: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(start) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|char| char.is_alphanumeric() || char == '_' || char == ':') {
            continue;
        }
        let rest = &code[at + start.len()..];
        match rest.strip_prefix('{') {
            Some(group) => {
                let end = closing(group);
                let mut depth = 0;
                let split = group[..end].split(|char| {
                    depth += i32::from(char == '{') - i32::from(char == '}');
                    char == ',' && depth == 0
                });
                found.extend(split.map(|path| path.trim().to_owned()).filter(|p| !p.is_empty()));
            }
            None => {
                let end = rest.find(|char: char| !(char.is_alphanumeric() || "_:{".contains(char)));
                let path = &rest[..end.unwrap_or(rest.len())];
                match path.split_once("::{") {
                    // module::{One, Two}: each of them.
                    Some((module, _)) => {
                        let group = &rest[module.len() + 3..];
                        let names = group[..closing(group)].split(',');
                        found.extend(names.map(|name| format!("{module}::{}", name.trim())));
                    }
                    None => found.push(path.to_owned()),
                }
            }
        }
    }
    found
}

/// Where the group ends whose inside `rest` begins with.
fn closing(rest: &str) -> usize {
    let mut depth = 1;
    let closes = |char| {
        depth += i32::from(char == '{') - i32::from(char == '}');
        depth == 0
    };
    rest.find(closes).unwrap_or(rest.len())
}
