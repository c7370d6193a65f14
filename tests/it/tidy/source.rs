//! The source as the rules read it: without comments, contents of literals, and tests.

use std::fs;
use std::path::{Path, PathBuf};

/// A source file: its path below `src`, and its code without comments, contents of literals, and
/// tests.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let mut code = code(text);
        // A condition like `all(test, unix)` too.
        for start in ["#[cfg(test", "#[cfg(all(test,", "#[cfg(doctest"] {
            while let Some(at) = code.find(start) {
                let behind = at + code[at..].find(']').map_or(code.len() - at, |len| len + 1);
                code.replace_range(at..behind + item_len(&code[behind..]), "");
            }
        }
        Self { path: path.to_owned(), code }
    }

    pub(crate) fn is_in(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }

    /// The lines that contain one of `words` as a whole word or path.
    pub(crate) fn lines_with(&self, words: &[&str]) -> Vec<String> {
        let named = |line: &&str| words.iter().any(|word| has_word(line, word));
        self.code.lines().filter(named).map(|line| self.offence(line)).collect()
    }

    pub(crate) fn offence(&self, line: &str) -> String {
        format!("{}: {}", self.path, line.trim())
    }
}

/// Whether `line` contains `word` without a letter, digit or underscore at its sides.
fn has_word(line: &str, word: &str) -> bool {
    let inside = |char: char| char.is_alphanumeric() || char == '_';
    let tail = word.ends_with(inside);
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(inside);
        let after = line[at + word.len()..].chars().next().is_some_and(inside);
        !(before || tail && after)
    })
}

/// Removes comments and the contents of strings and characters. Line breaks stay.
pub(crate) fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    for (kind, piece) in pieces(text) {
        match kind {
            Kind::Code => code.push_str(piece),
            _ => code.extend(piece.chars().filter(|char| *char == '\n')),
        }
    }
    code
}

/// The comments of a Rust file, one after another.
pub(crate) fn comments(text: &str) -> String {
    let comments = pieces(text).into_iter().filter(|(kind, _)| *kind == Kind::Comment);
    comments.map(|(_, comment)| format!("{comment}\n")).collect()
}

/// The strings and characters of a Rust file, one after another.
pub(crate) fn literals(text: &str) -> String {
    let literals = pieces(text).into_iter().filter(|(kind, _)| *kind == Kind::Literal);
    literals.map(|(_, literal)| format!("{literal}\n")).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

/// Splits a Rust file into code, comments and literals.
fn pieces(text: &str) -> Vec<(Kind, &str)> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let (kind, len) = if rest.starts_with("//") {
            (Kind::Comment, rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            (Kind::Comment, rest.find("*/").map_or(rest.len(), |at| at + 2))
        } else if rest.starts_with("r#\"") {
            (Kind::Literal, rest.find("\"#").map_or(rest.len(), |at| at + 2))
        } else if char == '"' {
            (Kind::Literal, literal(rest, '"'))
        } else if rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'') && char == '\'' {
            (Kind::Literal, literal(rest, '\''))
        } else {
            (Kind::Code, char.len_utf8())
        };
        pieces.push((kind, &rest[..len]));
        rest = &rest[len..];
    }
    pieces
}

/// The length of the item at the start of `rest`: up to its semicolon or its closing brace.
fn item_len(rest: &str) -> usize {
    let mut depth = 0;
    let ends = |char: char| {
        depth += i32::from("([{".contains(char)) - i32::from(")]}".contains(char));
        depth == 0 && (char == ';' || char == '}')
    };
    rest.find(ends).map_or(rest.len(), |at| at + 1)
}

/// The length of the literal at the start of `rest`.
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

/// All source files without those that only tests use.
pub(crate) fn sources() -> Vec<Source> {
    let is_test = |name: &str| ["tests", "sim/", "virtual_time"].iter().any(|t| name.contains(t));
    all_sources().into_iter().filter(|source| !is_test(&source.path)).collect()
}

/// All source files, with those of the tests.
pub(crate) fn all_sources() -> Vec<Source> {
    all_texts().iter().map(|(path, text)| Source::new(path, text)).collect()
}

/// The path below `src` of each source file, and its text.
pub(crate) fn all_texts() -> Vec<(String, String)> {
    let folder = root().join("src");
    let file = |path: &PathBuf| {
        // Folders above `src` must not match: their names are arbitrary.
        let name = path.strip_prefix(&folder).expect("below src").to_str().expect("UTF-8");
        (name.to_owned(), fs::read_to_string(path).expect("text"))
    };
    files(&folder).iter().map(file).collect()
}

/// Every path in `code` that starts with `start`: the rest of it, with its groups expanded.
pub(crate) fn paths(code: &str, start: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(start) {
        let before = code[..at].chars().next_back();
        if !before.is_some_and(|char| char.is_alphanumeric() || char == '_' || char == ':') {
            open(&code[at + start.len()..], "", &mut found);
        }
    }
    found
}

/// Appends the path at the start of `rest`, with `above` before it, or each path of its group.
fn open(rest: &str, above: &str, found: &mut Vec<String>) {
    let end = rest.find(|char: char| !(char.is_alphanumeric() || "_:".contains(char)));
    let (path, behind) = rest.split_at(end.unwrap_or(rest.len()));
    let path = format!("{above}{path}");
    let Some(group) = behind.strip_prefix('{').filter(|_| path.is_empty() || path.ends_with(':'))
    else {
        return found.push(path);
    };
    let mut depth = 0;
    let parts = group[..closing(group)].split(|char| {
        depth += i32::from(char == '{') - i32::from(char == '}');
        char == ',' && depth == 0
    });
    for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
        open(part, &path, found);
    }
}

/// The position of the brace that closes the group in which `rest` starts.
fn closing(rest: &str) -> usize {
    let mut depth = 1;
    let closes = |char| {
        depth += i32::from(char == '{') - i32::from(char == '}');
        depth == 0
    };
    rest.find(closes).unwrap_or(rest.len())
}
