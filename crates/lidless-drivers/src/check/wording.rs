//! How is what we measured, and what a target sent, shown in one line?

use std::fmt;
use std::time::Duration;

/// Shows a duration the way people say it: `0.2 ms`, `250 ms`, `1.5 s`.
pub(crate) struct Short(pub(crate) Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        // Hundredths of the unit, rounded, so that no float is needed.
        let (hundredths, unit) = match micros {
            0..10_000 => ((micros + 50) / 100 * 10, "ms"),
            10_000..999_500 => ((micros + 500) / 1_000 * 100, "ms"),
            _ => ((micros + 5_000) / 10_000, "s"),
        };
        let (whole, rest) = (hundredths / 100, hundredths % 100);
        match rest {
            0 => write!(f, "{whole} {unit}"),
            rest if rest % 10 == 0 => write!(f, "{whole}.{} {unit}", rest / 10),
            rest => write!(f, "{whole}.{rest:02} {unit}"),
        }
    }
}

/// Shows a number of bytes: `37 bytes`, `64 KiB`, `1 MiB`.
pub(crate) struct Bytes(pub(crate) usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0 bytes"),
            1 => f.write_str("1 byte"),
            size if size % (1 << 20) == 0 => write!(f, "{} MiB", size >> 20),
            size if size % (1 << 10) == 0 => write!(f, "{} KiB", size >> 10),
            size => write!(f, "{size} bytes"),
        }
    }
}

/// The most characters of foreign text that we pass on.
const TEXT_MAX: usize = 300;

/// Returns the first line of foreign bytes, fit for a log or a terminal.
///
/// Control characters become spaces: a target must not be able to steer the terminal of who reads about it.
pub(crate) fn first_line(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    // Four bytes a character at most: no need to decode what is cut off anyway.
    let line = &line[..line.len().min(TEXT_MAX * 4)];
    let text = String::from_utf8_lossy(line);
    let mut shown = String::with_capacity(text.len().min(TEXT_MAX));
    for character in text.trim().chars().take(TEXT_MAX) {
        shown.push(if character.is_control() { ' ' } else { character });
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_as_people_say_them() {
        let shown = |micros| Short(Duration::from_micros(micros)).to_string();
        let all =
            [0, 180, 2_000, 9_960, 10_400, 250_000, 999_700, 1_000_000, 1_250_000, 1_500_000, 90_000_000];
        assert_eq!(
            all.map(shown),
            ["0 ms", "0.2 ms", "2 ms", "10 ms", "10 ms", "250 ms", "1 s", "1 s", "1.25 s", "1.5 s", "90 s"]
        );
    }

    #[test]
    fn foreign_text_cannot_steer_a_terminal() {
        assert_eq!(first_line(b"  bad \x1b[2J\xff thing\nsecond"), "bad  [2J\u{fffd} thing");
        assert_eq!(first_line(&[b'x'; 5_000]).len(), TEXT_MAX);
        assert_eq!(first_line(b""), "");
    }
}
