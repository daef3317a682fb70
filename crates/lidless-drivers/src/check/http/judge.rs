//! Is this answer good enough? Judges the status, the body, and what broke off.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;

use hyper::Response;
use hyper::body::Incoming;
use lidless_core::check::FailureKind;

use super::Wanted;
use super::exchange::Audience;
use crate::check::verdict::Trouble;
use crate::check::wording::Bytes;

/// The statuses that pass.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum StatusWanted {
    /// Any below 400. A redirect passes: it is not followed.
    #[default]
    Below400,
    /// One within any of these.
    Within(Vec<RangeInclusive<u16>>),
}

impl StatusWanted {
    /// Says whether a status passes.
    pub(crate) fn holds(&self, status: u16) -> bool {
        match self {
            StatusWanted::Below400 => status < 400,
            StatusWanted::Within(ranges) => ranges.iter().any(|range| range.contains(&status)),
        }
    }

    fn judge(&self, status: u16) -> Result<(), Trouble> {
        if self.holds(status) {
            return Ok(());
        }
        Err(Trouble::target(FailureKind::Status, format!("status {status}, wanted {self}")))
    }
}

impl fmt::Display for StatusWanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StatusWanted::Below400 => f.write_str("below 400"),
            StatusWanted::Within(ranges) => {
                for (place, range) in ranges.iter().enumerate() {
                    let comma = if place == 0 { "" } else { ", " };
                    match (range.start(), range.end()) {
                        (start, end) if start == end => write!(f, "{comma}{start}")?,
                        (start, end) => write!(f, "{comma}{start}-{end}")?,
                    }
                }
                Ok(())
            }
        }
    }
}

/// Reads a body up to its limit, and keeps it only where somebody will look at it.
pub(super) struct BodyReader<'a> {
    wanted: &'a Wanted,
    read: usize,
    kept: Vec<u8>,
}

impl Wanted {
    pub(super) fn body_reader(&self) -> BodyReader<'_> {
        BodyReader { wanted: self, read: 0, kept: Vec::new() }
    }
}

impl Audience for BodyReader<'_> {
    fn head(&mut self, head: &Response<Incoming>) -> Result<(), Trouble> {
        self.wanted.status.judge(head.status().as_u16())
    }

    /// An endless body is an answer too, once that much of it came in time.
    fn is_full(&self) -> bool {
        self.read >= self.wanted.body_max
    }

    fn take(&mut self, data: &[u8]) {
        if self.wanted.contains.is_some() {
            let room = self.wanted.body_max.saturating_sub(self.read);
            self.kept.extend_from_slice(&data[..data.len().min(room)]);
        }
        self.read = self.read.saturating_add(data.len());
    }
}

impl BodyReader<'_> {
    pub(super) fn judge(&self) -> Result<(), Trouble> {
        let Some(needle) = &self.wanted.contains else { return Ok(()) };
        if contains(&self.kept, needle) {
            return Ok(());
        }
        let needle = String::from_utf8_lossy(needle);
        let detail = if self.is_full() {
            format!("body does not contain `{needle}` in its first {}", Bytes(self.wanted.body_max))
        } else {
            format!("body of {} does not contain `{needle}`", Bytes(self.read))
        };
        Err(Trouble::target(FailureKind::Content, detail))
    }
}

/// Says whether a body contains a text.
pub(crate) fn contains(body: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || body.windows(needle.len()).any(|window| window == needle)
}

/// Judges an exchange that broke off.
pub(super) fn broken(err: &hyper::Error) -> Trouble {
    if err.is_incomplete_message() {
        return Trouble::target(FailureKind::Network, "connection closed without an answer");
    }
    let mut source = err.source();
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return broken_io(io);
        }
        source = inner.source();
    }
    // Not HTTP at all, or a header beyond what we take.
    Trouble::target(FailureKind::Protocol, format!("broken answer: {err}"))
}

fn broken_io(err: &io::Error) -> Trouble {
    match err.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Trouble::target(FailureKind::Protocol, format!("broken body: {err}"))
        }
        io::ErrorKind::UnexpectedEof => {
            Trouble::target(FailureKind::Network, "connection closed before the body was complete")
        }
        _ => Trouble::from_io(err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(contains: &str, body_max: usize) -> Wanted {
        Wanted { status: StatusWanted::default(), contains: Some(contains.as_bytes().into()), body_max }
    }

    fn judged(wanted: &Wanted, chunks: &[&str]) -> String {
        let mut reader = wanted.body_reader();
        for chunk in chunks {
            reader.take(chunk.as_bytes());
        }
        match reader.judge() {
            Ok(()) => "found".into(),
            Err(Trouble::Target { detail, .. }) => detail,
            Err(Trouble::Ours { reason }) => reason,
        }
    }

    #[test]
    fn a_text_is_found_across_chunks_and_within_the_limit_only() {
        assert_eq!(judged(&wanted("ready", 100), &["I am rea", "dy now"]), "found");
        assert_eq!(judged(&wanted("ready", 100), &["I am late"]), "body of 9 bytes does not contain `ready`");
        assert_eq!(
            judged(&wanted("ready", 6), &["I am ", "ready"]),
            "body does not contain `ready` in its first 6 bytes"
        );
        assert_eq!(judged(&wanted("", 6), &[]), "found");
    }

    #[test]
    fn statuses_are_wanted_by_range_and_by_number() {
        let some = StatusWanted::Within(vec![200..=299, 404..=404]);
        assert_eq!(some.to_string(), "200-299, 404");
        assert!(some.judge(204).is_ok() && some.judge(404).is_ok() && some.judge(302).is_err());
        assert!(StatusWanted::Below400.judge(399).is_ok() && StatusWanted::Below400.judge(400).is_err());
    }
}
