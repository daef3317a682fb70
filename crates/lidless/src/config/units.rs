//! How are values with a unit or a form of their own written? Durations, sizes, signals, statuses.
//!
//! Each parser refuses with a sentence that follows the key, a few words for the label and an example that works.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

/// Why a text is not a value of its type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The end of a sentence that begins with the key: "is a duration without a unit".
    pub message: String,
    /// A few words for the label.
    pub label: String,
    /// What to write.
    pub help: String,
    /// The bytes of the text that are to blame; `None` is all of it.
    pub part: Option<Range<usize>>,
    /// Whether the part is a secret and must not be shown.
    pub secret: bool,
}

impl Refused {
    /// Refuses the whole text.
    pub fn new(message: impl Into<String>, label: impl Into<String>, help: impl Into<String>) -> Refused {
        Refused { message: message.into(), label: label.into(), help: help.into(), part: None, secret: false }
    }

    /// Keeps the blamed part from being shown.
    pub fn secret(self) -> Refused {
        Refused { secret: true, ..self }
    }

    /// Blames a part of the text.
    pub fn part(self, part: Range<usize>) -> Refused {
        Refused { part: Some(part), ..self }
    }
}

/// Longer makes no sense for a watcher, and keeps all arithmetic far from overflow.
const DURATION_MAX: Duration = Duration::from_secs(3650 * 86_400);
const DURATION_HELP: &str =
    "write a number with a unit: `100ms`, `5s`, `2m`, `1h` or `1d`; or several: `1m30s`";

/// Parses `5s`, `100ms` or `1m30s`.
pub fn duration(text: &str) -> Result<Duration, Refused> {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    if text.trim_start().starts_with('-') {
        return Err(Refused::new(
            "is negative",
            "time does not run backwards",
            "write a positive duration, as `5s`",
        ));
    }
    if !text.is_empty() && digits(text) == text.len() {
        return Err(Refused::new(
            "is a duration without a unit",
            "what unit?",
            format!("write `{text}s` for seconds; units are ms, s, m, h and d"),
        ));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(digits(rest));
        let unit_len = tail.bytes().take_while(|b| !b.is_ascii_digit()).count();
        // A char boundary: the first byte after is an ASCII digit or there is none.
        let (unit, tail) = tail.split_at(unit_len);
        if number.is_empty() {
            return Err(Refused::new("is not a duration", "not a duration", DURATION_HELP));
        }
        let Some(unit_ms) = unit_ms(unit) else {
            let long = match unit.trim().to_ascii_lowercase().as_str() {
                "ms" | "msec" | "msecs" | "millis" | "milliseconds" => "ms",
                "s" | "sec" | "secs" | "second" | "seconds" => "s",
                "m" | "min" | "mins" | "minute" | "minutes" => "m",
                "h" | "hr" | "hrs" | "hour" | "hours" => "h",
                "d" | "day" | "days" => "d",
                _ => "",
            };
            let at = text.len() - tail.len() - unit.len();
            return Err(if unit == "." {
                Refused::new(
                    "is a broken number",
                    "no decimals here",
                    "write whole numbers: `1500ms` or `1m30s`",
                )
            } else if long.is_empty() {
                Refused::new("is not a duration", "not a unit of time", DURATION_HELP)
                    .part(at..at + unit.len())
            } else {
                Refused::new("is not a duration", "not a unit of time", format!("write `{number}{long}`"))
                    .part(at..at + unit.len())
            });
        };
        let part = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit_ms)).map(Duration::from_millis);
        match part.and_then(|part| total.checked_add(part)).filter(|total| *total <= DURATION_MAX) {
            Some(sum) => total = sum,
            None => return Err(Refused::new("is too long", "more than ten years", "at most `3650d`")),
        }
        rest = tail;
    }
    if text.is_empty() {
        return Err(Refused::new("is not a duration", "empty", DURATION_HELP));
    }
    Ok(total)
}

fn unit_ms(unit: &str) -> Option<u64> {
    match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    }
}

/// Writes a duration as the file would: `1m30s`.
pub fn say_duration(value: Duration) -> String {
    let mut ms = value.as_millis();
    let mut said = String::new();
    for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if ms >= length {
            said.push_str(&format!("{}{unit}", ms / length));
            ms %= length;
        }
    }
    if said.is_empty() { "0s".to_owned() } else { said }
}

/// Parses `5s..2m`.
pub fn duration_range(text: &str) -> Result<(Duration, Duration), Refused> {
    let Some((min_text, max_text)) = text.split_once("..") else {
        return Err(match duration(text) {
            Ok(_) => Refused::new(
                "needs two durations",
                "only one",
                format!(
                    "write the first and the longest wait: `1s..{text}`, or `{text}..{text}` for always the same"
                ),
            ),
            Err(_) => Refused::new(
                "is not a range of durations",
                "not a range",
                "write the first and the longest wait: `5s..2m`",
            ),
        });
    };
    let at_max = text.len() - max_text.len();
    let shift = |refused: Refused, by: usize, len: usize| {
        let part = refused.part.clone().unwrap_or(0..len);
        refused.part(part.start + by..part.end + by)
    };
    let min = duration(min_text).map_err(|refused| shift(refused, 0, min_text.len()))?;
    let max = duration(max_text).map_err(|refused| shift(refused, at_max, max_text.len()))?;
    if min > max {
        return Err(Refused::new(
            "begins with the longer wait",
            "first wait, then longest wait",
            format!("write `{max_text}..{min_text}`"),
        ));
    }
    Ok((min, max))
}

/// Parses `64KiB` to bytes.
pub fn size(text: &str) -> Result<u64, Refused> {
    let help = "write a number with a unit: `512B`, `64KiB`, `1MiB` or `1GiB`";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if unit.is_empty() && !number.is_empty() {
        return Err(Refused::new(
            "is a size without a unit",
            "what unit?",
            format!("write `{text}B` for bytes; units are B, KiB, MiB and GiB"),
        ));
    }
    let factor: u64 = match unit {
        "B" => 1,
        "kB" => 1000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        _ => return Err(Refused::new("is not a size", "not a size", help)),
    };
    let Ok(number) = number.parse::<u64>() else {
        return Err(Refused::new("is not a size", "not a size", help));
    };
    number.checked_mul(factor).filter(|bytes| (1..=1 << 30).contains(bytes)).ok_or_else(|| {
        Refused::new("is out of range", "from 1B to 1GiB", "write a size from `1B` to `1GiB`, as `1MiB`")
    })
}

/// A signal that one process sends another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signal(rustix::process::Signal);

const SIGNALS: [(&str, rustix::process::Signal); 12] = {
    use rustix::process::Signal as S;
    [
        ("TERM", S::TERM),
        ("HUP", S::HUP),
        ("INT", S::INT),
        ("QUIT", S::QUIT),
        ("USR1", S::USR1),
        ("USR2", S::USR2),
        ("KILL", S::KILL),
        ("ABRT", S::ABORT),
        ("ALRM", S::ALARM),
        ("CONT", S::CONT),
        ("PIPE", S::PIPE),
        ("WINCH", S::WINCH),
    ]
};

impl Signal {
    /// SIGTERM.
    pub const TERM: Signal = Signal(rustix::process::Signal::TERM);
    /// SIGHUP.
    pub const HUP: Signal = Signal(rustix::process::Signal::HUP);

    /// Parses `TERM` or `SIGTERM`.
    pub fn parse(text: &str) -> Result<Signal, Refused> {
        let name = text.strip_prefix("SIG").unwrap_or(text);
        if let Some((_, signal)) = SIGNALS.iter().find(|(known, _)| *known == name) {
            return Ok(Signal(*signal));
        }
        let upper = text.trim().to_ascii_uppercase();
        let upper = upper.strip_prefix("SIG").unwrap_or(&upper);
        let all = || format!("write one of {}", SIGNALS.map(|(name, _)| name).join(", "));
        let help = nearest(upper, SIGNALS.iter().map(|(name, _)| *name))
            .map_or_else(all, |near| format!("write `{near}`"));
        Err(Refused::new("is not a signal", "no such signal", help))
    }

    /// Returns the name without SIG.
    pub fn name(self) -> &'static str {
        SIGNALS.iter().find(|(_, signal)| *signal == self.0).map_or("?", |(name, _)| name)
    }

    /// Returns the signal as the system calls take it.
    pub fn as_rustix(self) -> rustix::process::Signal {
        self.0
    }

    /// Returns the number on this platform.
    pub fn number(self) -> i32 {
        self.0.as_raw()
    }
}

impl std::fmt::Debug for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Parses `200` or `200..299`, both ends included.
pub fn statuses(text: &str) -> Result<RangeInclusive<u16>, Refused> {
    let help = "write a status or a range of them, both ends included: `200`, `200..299`";
    let status = |text: &str| text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    match (status(first), status(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        (Some(_), Some(_)) => Err(Refused::new(
            "begins with the higher status",
            "nothing lies between these",
            format!("write `{last}..{first}`"),
        )),
        _ if text.contains("==") || text.contains('<') || text.contains('>') => {
            Err(Refused::new("is not a status", "expressions are not supported yet", help))
        }
        _ if text.len() == 3
            && text.to_ascii_lowercase().ends_with("xx")
            && text.starts_with(|c: char| ('1'..='5').contains(&c)) =>
        {
            let hundred = &text[..1];
            Err(Refused::new("is not a status", "not a number", format!("write `{hundred}00..{hundred}99`")))
        }
        _ => Err(Refused::new("is not a status", "a status lies between 100 and 599", help)),
    }
}

/// Returns the candidate that was probably meant.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance_max = (word.chars().count() / 3).clamp(1, 3);
    let folded = word.to_lowercase().replace('-', "_");
    candidates
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= distance_max)
        .map(|candidate| {
            (strsim::damerau_levenshtein(&folded, &candidate.to_lowercase().replace('-', "_")), candidate)
        })
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
