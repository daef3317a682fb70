//! What does `--since` mean? A time ago, a date, a time, or a word, in the zone of whoever typed it.

use jiff::civil::DateTime;
use jiff::{Span, Timestamp, ZonedDateTime};

/// Returns the moment that the text means.
pub(super) fn parse(text: &str, now: &ZonedDateTime) -> Result<Timestamp, String> {
    let text = text.trim();
    let wrong = || {
        format!(
            "--since {text}: write a time ago (14d, 10min), a date (2026-11-01), a time, `today` or `yesterday`"
        )
    };
    let moment = match text {
        "now" => Ok(now.clone()),
        "today" => now.start_of_day(),
        "yesterday" => now.yesterday().and_then(|day| day.start_of_day()),
        _ => {
            if let Ok(moment) = text.parse::<Timestamp>() {
                return Ok(moment);
            }
            // A date alone is its midnight.
            if let Ok(time) = text.parse::<DateTime>() {
                time.to_zoned_datetime(now.time_zone().clone())
            } else {
                // "10min ago" and "-10min" are negative to jiff, and the same thing to people.
                let span = text.parse::<Span>().map_err(|_| wrong())?;
                now.checked_sub(span.abs())
            }
        }
    };
    moment.map(|moment| moment.timestamp()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(text: &str) -> String {
        // Central European time, without asking the machine for its table of zones.
        let zone = jiff::tz::TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a rule");
        let now = "2026-11-14T11:00:00Z".parse::<Timestamp>().expect("a time").to_zoned_datetime(zone);
        parse(text, &now).map_or_else(|why| why, |time| time.to_string())
    }

    #[test]
    fn people_may_write_as_they_think() {
        assert_eq!(since("10min"), "2026-11-14T10:50:00Z");
        assert_eq!(since("2h 30m"), "2026-11-14T08:30:00Z");
        assert_eq!(since("10 minutes ago"), "2026-11-14T10:50:00Z");
        assert_eq!(since("14d"), "2026-10-31T11:00:00Z");
        assert_eq!(since("today"), "2026-11-13T23:00:00Z");
        assert_eq!(since("yesterday"), "2026-11-12T23:00:00Z");
        assert_eq!(since("2026-11-01"), "2026-10-31T23:00:00Z");
        assert_eq!(since("2026-11-01 08:00"), "2026-11-01T07:00:00Z");
        assert_eq!(since("2026-11-01T08:00:00Z"), "2026-11-01T08:00:00Z");
    }

    #[test]
    fn three_weeks_cross_the_end_of_summer_time() {
        assert_eq!(since("21d"), "2026-10-24T10:00:00Z", "noon is noon, in summer too");
    }

    #[test]
    fn nonsense_is_answered_with_what_would_do() {
        assert!(since("soonish").contains("write a time ago"));
        assert!(since("").contains("write a time ago"));
    }
}
