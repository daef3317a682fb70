//! What is kept of what a step writes? The end of its answer, and its log line by line.

use std::collections::VecDeque;

use super::Log;
use crate::check::wording;

/// How much of the end of standard output is held.
pub(crate) const TAIL_MAX: usize = 256 * 1024;

/// How much of its beginning is held, for the sake of the first line.
const HEAD_MAX: usize = 4 * 1024;

/// The longest line that is passed on, in bytes.
pub(crate) const LINE_MAX: usize = 4 * 1024;

/// How many lines of an attempt are passed on.
pub(crate) const LINES_MAX: u32 = 10_000;

/// The end of a stream of any size, and a little of its beginning.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    cut: bool,
}

impl Tail {
    /// Takes the next piece.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        let room = HEAD_MAX - self.head.len();
        self.head.extend_from_slice(&piece[..piece.len().min(room)]);

        let kept = &piece[piece.len().saturating_sub(TAIL_MAX)..];
        let excess = (self.tail.len() + kept.len()).saturating_sub(TAIL_MAX);
        self.cut |= excess > 0 || kept.len() < piece.len();
        self.tail.drain(..excess);
        self.tail.extend(kept);
    }

    /// Returns the end of the stream.
    pub(crate) fn text(&mut self) -> &[u8] {
        self.tail.make_contiguous()
    }

    /// Says whether anything stood before the text.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Returns the first line of the stream that is not blank.
    pub(crate) fn first_line(&self) -> Option<String> {
        self.head.split(|byte| *byte == b'\n').map(wording::first_line).find(|line| !line.is_empty())
    }
}

/// Cuts a stream into lines for a log.
pub(crate) struct Lines<'a> {
    log: &'a dyn Log,
    /// The beginning of the line that is not complete yet.
    line: Vec<u8>,
    /// Whether there is such a line: an empty one counts, too.
    begun: bool,
    passed: u32,
    first: Option<String>,
}

impl<'a> Lines<'a> {
    /// Passes lines on to this log.
    pub(crate) fn new(log: &'a dyn Log) -> Self {
        Lines { log, line: Vec::new(), begun: false, passed: 0, first: None }
    }

    /// Takes the next piece.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            if self.passed > LINES_MAX {
                return;
            }
            self.begun = true;
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            // Room for one character more than is shown, so that none is shown in half.
            let room = (LINE_MAX + 4).saturating_sub(self.line.len());
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if text.len() < part.len() {
                self.pass();
            }
        }
    }

    /// Passes on a last line without an end, and returns the first line of all that is not blank.
    pub(crate) fn end(mut self) -> Option<String> {
        if self.begun && self.passed <= LINES_MAX {
            self.pass();
        }
        self.first
    }

    fn pass(&mut self) {
        self.passed += 1;
        self.begun = false;
        if self.passed > LINES_MAX {
            self.log.line(&format!("more than {LINES_MAX} lines: the rest is not shown"));
            return;
        }
        if self.first.is_none() {
            self.first = Some(wording::first_line(&self.line)).filter(|line| !line.is_empty());
        }
        self.log.line(&shown(&self.line));
        self.line.clear();
    }
}

/// Makes a line fit for a log or a terminal.
pub(crate) fn shown(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut shown = String::with_capacity(line.len().min(LINE_MAX));
    for character in String::from_utf8_lossy(line).chars() {
        let character = if character.is_control() { ' ' } else { character };
        // A byte that is no text becomes a character of three.
        if shown.len() + character.len_utf8() > LINE_MAX {
            break;
        }
        shown.push(character);
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<String>>);

    impl Log for Kept {
        fn line(&self, line: &str) {
            self.0.lock().expect("no test panics with it").push(line.to_owned());
        }
    }

    fn lines(pieces: &[&[u8]]) -> (Vec<String>, Option<String>) {
        let log = Kept::default();
        let mut lines = Lines::new(&log);
        for piece in pieces {
            lines.push(piece);
        }
        let first = lines.end();
        (log.0.into_inner().expect("no test panics with it"), first)
    }

    #[test]
    fn a_line_is_passed_on_whole_however_it_comes() {
        let (seen, first) = lines(&[b"\na", b"b\r\n", b"c\x1b[2J\n\nd", b"e"]);
        assert_eq!(seen, ["", "ab", "c [2J", "", "de"]);
        assert_eq!(first.as_deref(), Some("ab"));
        assert_eq!(lines(&[]), (vec![], None));
    }

    #[test]
    fn a_long_line_is_cut_between_two_characters() {
        let (seen, _) = lines(&["é".repeat(5_000).as_bytes(), "é".repeat(5_000).as_bytes(), b"\nnext\n"]);
        assert_eq!(seen, ["é".repeat(LINE_MAX / 2), "next".to_owned()]);
        let (seen, _) = lines(&[b"x", "é".repeat(5_000).as_bytes()]);
        assert_eq!(seen, [format!("x{}", "é".repeat(LINE_MAX / 2 - 1))]);
        let (seen, _) = lines(&[&[0xff; 10_000]]);
        assert_eq!(seen, ["\u{fffd}".repeat(LINE_MAX / 3)]);
    }

    #[test]
    fn the_end_of_a_stream_is_kept_to_the_byte() {
        let bytes: Vec<u8> = (0..=250).cycle().take(3 * TAIL_MAX).collect();
        for size in [1000, 16 * 1024, TAIL_MAX, TAIL_MAX + 1] {
            let mut tail = Tail::default();
            for piece in bytes.chunks(size) {
                tail.push(piece);
                assert!(tail.tail.len() <= TAIL_MAX && tail.head.len() <= HEAD_MAX);
            }
            assert!(tail.is_cut());
            assert_eq!(tail.text(), &bytes[bytes.len() - TAIL_MAX..]);
            assert_eq!(tail.head, &bytes[..HEAD_MAX]);
        }
        let mut tail = Tail::default();
        tail.push(&bytes[..TAIL_MAX]);
        assert!(!tail.is_cut());
    }
}
