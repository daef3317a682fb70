//! How are moments and delays written between a step and us?

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last moment that RFC 3339 can write: 9999-12-31T23:59:59.999Z.
const MILLIS_MAX: u128 = 253_402_300_799_999;

/// Returns the moment that is `ahead` from now, in RFC 3339 and UTC: "2026-02-28T23:59:59.250Z".
#[expect(clippy::disallowed_methods, reason = "a moment that others can read is one of the wall clock")]
pub(crate) fn moment_in(ahead: Duration) -> String {
    // A clock before 1970 is not set at all: there is no right answer.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(now.saturating_add(ahead).as_millis())
}

/// Writes milliseconds since 1970 in RFC 3339. What lies beyond the year 9999 becomes its end.
fn rfc3339(millis: u128) -> String {
    // By hand: the one date that drivers ever write is not worth a library of time zones.
    let millis = millis.min(MILLIS_MAX);
    let (seconds, millis) = (millis / 1000, millis % 1000);
    let (day, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Returns the date that is so many days after 1970-01-01.
///
/// Counts in years that begin in March, so that the leap day is the last of its year, and in spans of 400 years, after which
/// the calendar repeats itself.
fn civil(day: u128) -> (u128, u128, u128) {
    const SPAN: u128 = 146_097;
    // From 0000-03-01.
    let day = day + 719_468;
    let (span, day) = (day / SPAN, day % SPAN);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // From March on, 5 months have 153 days.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (span * 400 + year + next, month, day)
}

/// Reads a delay: "500ms", "5s", "2m".
pub(crate) fn parse_delay(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_rfc_3339() {
        let shown = |seconds: u64| rfc3339(u128::from(seconds) * 1000);
        // What `date -u -d @N +%FT%T` says.
        assert_eq!(shown(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(shown(951_782_399), "2000-02-28T23:59:59.000Z");
        assert_eq!(shown(951_782_400), "2000-02-29T00:00:00.000Z");
        assert_eq!(shown(951_868_800), "2000-03-01T00:00:00.000Z");
        assert_eq!(shown(1_709_164_800), "2024-02-29T00:00:00.000Z");
        assert_eq!(shown(1_767_225_599), "2025-12-31T23:59:59.000Z");
        assert_eq!(shown(4_107_542_400), "2100-03-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_767_225_600_007), "2026-01-01T00:00:00.007Z");
        assert_eq!(rfc3339(u128::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(moment_in(Duration::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = (1970, 1, 1);
        for day in 1..200_000 {
            let (year, month, date) = civil(day);
            let follows = (year, month, date - 1) == before
                || (date == 1 && (year, month - 1) == (before.0, before.1) && before.2 >= 28)
                || ((month, date) == (1, 1) && before == (year - 1, 12, 31));
            assert!(follows, "{before:?} and then {year}-{month}-{date}");
            before = (year, month, date);
        }
    }

    #[test]
    fn delays_have_a_number_and_a_unit() {
        assert_eq!(parse_delay("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_delay("5s"), Some(Duration::from_secs(5)));
        assert_eq!(parse_delay("2m"), Some(Duration::from_secs(120)));
        for bad in [
            "",
            "5",
            "s",
            "5 s",
            "-5s",
            "+5s",
            "1.5s",
            "5h",
            "99999999999999999999s",
            "18446744073709551615m",
        ] {
            assert_eq!(parse_delay(bad), None, "{bad}");
        }
    }
}
