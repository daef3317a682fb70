//! What does a calendar of cron say, and in which zone? Expressions and names of zones, checked and put into words.

mod moments;

use croner::Cron;
use jiff::tz::TimeZone;

pub use moments::{Moments, next_after};

/// Reads an expression of five fields, or of six with seconds in front, and says in words what it means. An `Err` says what is
/// wrong with it.
pub fn check(expression: &str) -> Result<String, String> {
    let cron: Cron = expression.parse().map_err(|err: croner::errors::CronError| {
        let said = err.to_string();
        // "Component error: Position 61 is out of bounds ..." for people: without the library's own word for it.
        let what = said.split_once(": ").map_or(said.as_str(), |(_, what)| what);
        fragment(what).replace("cronPattern contains", "it has the")
    })?;
    let said = fragment(&cron.describe());
    Ok(said.strip_prefix("at every ").map(|rest| format!("every {rest}")).unwrap_or(said))
}

/// Makes a sentence fit into another.
fn fragment(sentence: &str) -> String {
    let mut chars = sentence.trim_end_matches('.').chars();
    let first = chars.next().map(|first| first.to_lowercase().to_string());
    first.unwrap_or_default() + chars.as_str()
}

/// Says whether there is such a zone; an `Err` says what is wrong.
pub fn zone(name: &str) -> Result<(), String> {
    match TimeZone::get(name) {
        Ok(_) => Ok(()),
        Err(_) if TimeZone::get("Europe/Lisbon").is_err() => {
            Err("this machine has no rules of zones: install `tzdata`".to_owned())
        }
        Err(_) => Err("there is no such zone".to_owned()),
    }
}

/// Returns the name of the machine's zone; none where it has rules of its own without a name.
pub fn own_zone() -> Option<String> {
    match TimeZone::try_system() {
        Ok(zone) => zone.iana_name().map(str::to_owned),
        // As the C library has it: a machine that says nothing is on UTC.
        Err(_) if std::env::var_os("TZ").is_none() && !std::path::Path::new("/etc/localtime").exists() => {
            Some("UTC".to_owned())
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_put_into_words_or_refused_with_a_reason() {
        for (expression, wanted) in [
            ("0 4 * * *", "at 04:00"),
            ("*/5 * * * *", "every 5 minutes"),
            ("0 4 * * 0#1", "at 04:00, on the 1st Sunday of the month"),
        ] {
            assert_eq!(check(expression).as_deref(), Ok(wanted), "{expression}");
        }
        for expression in ["", "0 4 * *", "61 4 * * *", "0 4 * * someday"] {
            let why = check(expression).expect_err("it is nonsense");
            assert!(why.starts_with(|first: char| first.is_lowercase()) && !why.ends_with('.'), "{why}");
        }
    }

    #[test]
    fn zones_are_known_by_their_names() {
        assert_eq!(zone("UTC"), Ok(()));
        assert!(zone("Europe/Nowhere").is_err());
        assert!(own_zone().is_none_or(|name| zone(&name).is_ok()));
    }
}
