//! The date of a response.

/// Before this a clock was never set: the first second of 2020. A server without a clock sends no
/// date (RFC 9110 6.6.1).
const CLOCK_SET: u64 = 1_577_836_800;

/// The `Date` of a response (RFC 9110 5.6.7) at a time in seconds since 1970, if the clock was set.
pub(crate) fn http_date(unix_seconds: u64) -> Option<String> {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    if unix_seconds < CLOCK_SET {
        return None;
    }
    let (days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    // Years that begin in March end with the leap day. Counted from 0000-03-01, in eras of 400.
    let since = days + 719_468;
    let (era, day) = (since / 146_097, since % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year + u64::from(month >= 10);
    let (weekday, month) = (DAYS[(days % 7) as usize], MONTHS[month as usize]);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    Some(format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The right side is what `date -u -d @SECONDS '+%a, %d %b %Y %H:%M:%S GMT'` prints.
    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (1_577_836_800, "Wed, 01 Jan 2020 00:00:00 GMT"),
            (1_582_934_400, "Sat, 29 Feb 2020 00:00:00 GMT"),
            (1_583_020_799, "Sat, 29 Feb 2020 23:59:59 GMT"),
            (1_583_020_800, "Sun, 01 Mar 2020 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (1_893_456_000, "Tue, 01 Jan 2030 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (13_574_563_200, "Tue, 29 Feb 2400 00:00:00 GMT"),
        ] {
            assert_eq!(http_date(seconds).as_deref(), Some(expected));
        }
        assert_eq!(http_date(CLOCK_SET - 1), None, "the clock was never set");
    }
}
