//! The words of identifiers: a word that once stood for several things stands for none, or for one.

use std::collections::BTreeSet;

use super::source::{all_texts, code, read};

/// Words that no identifier has, in all their forms.
const BANNED: &[&[&str]] = &[
    &["ask", "asks", "asked", "asking", "asker"],
    &["debt", "debts", "debtor"],
    &["place", "places", "placed"],
    &["settle", "settles", "settled"],
    &["tell", "tells", "told"],
    &["turn", "turns", "turned"],
];

/// What is held is a hub, or a stream of the binary, for a restart; and the field of the statistics
/// has had its name from the beginning.
const HELD: &[&str] = &["held", "is_held", "is_clean_and_held", "held_bytes"];

/// Whether an identifier has a word that is banned. `run` is the verb of a future, a hook or an
/// executor, and no type.
fn is_overloaded(identifier: &str) -> bool {
    let words = words(identifier);
    let is_type =
        identifier.starts_with(char::is_uppercase) && identifier != identifier.to_uppercase();
    words.iter().any(|word| BANNED.iter().any(|forms| forms.contains(&&**word)))
        || words.contains("held") && !HELD.contains(&identifier)
        || is_type && (words.contains("run") || words.contains("runs"))
}

/// The words of an identifier, in lower case: those between underscores, and between the humps of a
/// type.
fn words(identifier: &str) -> BTreeSet<String> {
    let is_constant = identifier == identifier.to_uppercase();
    let mut words = vec![String::new()];
    for char in identifier.chars() {
        if char == '_' || char.is_uppercase() && !is_constant {
            words.push(String::new());
        }
        let word = words.last_mut().expect("the first at least");
        word.extend(char.to_lowercase().filter(|char| *char != '_'));
    }
    words.into_iter().collect()
}

/// The identifiers of a file that have a banned word, in its tests too.
fn overloaded(path: &str, text: &str) -> BTreeSet<String> {
    let code = code(text);
    let pieces = code.split(|char: char| !(char.is_alphanumeric() || char == '_'));
    pieces.filter(|piece| is_overloaded(piece)).map(|piece| format!("{path}: {piece}")).collect()
}

#[test]
fn every_word_of_an_identifier_has_one_meaning() {
    let texts = all_texts();
    assert!(texts.len() > 100, "only {} files were found", texts.len());
    let offences: BTreeSet<_> =
        texts.iter().flat_map(|(path, text)| overloaded(path, text)).collect();
    assert_eq!(offences, BTreeSet::new(), "the glossary of docs/design.md says what to write");
}

#[test]
fn the_glossary_says_what_to_write_instead() {
    let design = read("docs/design.md");
    let (_, glossary) = design.split_once("\n| not | but |\n").expect("a table of words");
    let words = BANNED.iter().map(|forms| forms[0]).chain(["held", "run"]);
    for word in words {
        assert!(glossary.contains(&format!("\n| {word}")), "{word} is not in the table");
    }
}

/// A rule that finds nothing may be broken: it gets examples of what it must find and must not.
#[test]
fn overloaded_words_are_found() {
    for bad in
        ["place", "PLACE_MAX", "is_placed", "Told", "AskedHost", "run_held", "TurnsMax", "Run"]
    {
        assert!(is_overloaded(bad), "{bad} may be");
    }
    for good in
        ["replace", "task", "mask", "is_held", "run", "run_hook", "Running", "RUNS", "return"]
    {
        assert!(!is_overloaded(good), "{good} may not be");
    }
    let text = "fn f() { let told = \"place\"; } // asked\n#[cfg(test)]\nmod tests { fn ask() {} }";
    assert_eq!(overloaded("a.rs", text), ["a.rs: ask".to_owned(), "a.rs: told".to_owned()].into());
}
