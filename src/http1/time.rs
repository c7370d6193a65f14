//! Times in queries.

use std::time::Duration;

/// Reads a time as the flags have it: a whole number and its unit, `500ms`, `25s`, `2m` or `1h`.
pub(crate) fn time(text: &str) -> Option<Duration> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    let millis = units.iter().find_map(|(unit, millis)| {
        let digits = text.strip_suffix(unit)?;
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(*millis)
    });
    millis.map(Duration::from_millis)
}
