//! The names of rooms and users.

/// The longest name of a room or a user, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 128;

/// Returns whether a room or a user may be called `name`: 1 to 128 bytes, no control characters.
///
/// # Examples
///
/// ```
/// assert!(hublet::is_name("caf\u{e9}"));
/// assert!(!hublet::is_name("") && !hublet::is_name("a\nb"));
/// assert!(!hublet::is_name(&"a".repeat(129)));
/// ```
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// Whether a path cannot have a name as its segment: it would mean another path.
pub(crate) fn is_dots(name: &str) -> bool {
    name == "." || name == ".."
}

/// Whether the name of a room may begin so: at most as long as a name, without control characters.
pub(crate) fn is_prefix(prefix: &str) -> bool {
    prefix.is_empty() || is_name(prefix)
}
