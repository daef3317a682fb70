//! Where does a line of a stream end that comes in pieces?

use std::mem;

/// Cuts a stream into lines. What a line has beyond the most is dropped.
pub(super) struct Splitter {
    begun: Vec<u8>,
    max: usize,
    /// Whether anything was dropped.
    pub(super) is_over: bool,
}

impl Splitter {
    pub(super) fn new(max: usize) -> Self {
        Splitter { begun: Vec::new(), max, is_over: false }
    }

    /// Takes the next piece, and returns the lines that it completes.
    pub(super) fn push(&mut self, piece: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            let room = self.max - self.begun.len();
            self.is_over |= text.len() > room;
            self.begun.extend_from_slice(&text[..text.len().min(room)]);
            if text.len() < part.len() {
                lines.push(mem::take(&mut self.begun));
            }
        }
        lines
    }

    /// Returns a last line without an end.
    pub(super) fn rest(&mut self) -> Option<Vec<u8>> {
        Some(mem::take(&mut self.begun)).filter(|line| !line.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_and_no_longer_than_they_may() {
        let mut splitter = Splitter::new(3);
        assert_eq!(splitter.push(b"a"), Vec::<Vec<u8>>::new());
        assert_eq!(splitter.push(b"b\n\nabc\nd"), [&b"ab"[..], b"", b"abc"]);
        assert!(!splitter.is_over);
        assert_eq!(splitter.push(b"efg"), Vec::<Vec<u8>>::new());
        assert!(splitter.is_over);
        assert_eq!(splitter.push(b"h\n"), [b"def"]);
        assert_eq!(splitter.rest(), None);
        splitter.push(b"x");
        assert_eq!(splitter.rest().as_deref(), Some(&b"x"[..]));
    }
}
