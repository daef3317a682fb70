//! What must a journal do? Append durably, all or none, in sequence; give everything back; keep snapshots.

use std::path::Path;

use lidless_core::event::Record;
use lidless_core::id::Seq;
use lidless_core::time::Now;

use crate::JournalError;

/// The engine's memory.
///
/// **Invariant:** records have no gaps; the first is 1; one that was acknowledged is there after any crash.
pub trait Journal: Send {
    /// Appends a batch and returns the last sequence number. `Ok` means durable; all of it or none.
    ///
    /// Records must continue the journal. One that is already there with the same bytes is skipped, so that a batch whose
    /// acknowledgement was lost can be appended again; one that differs is a [`JournalError::Conflict`].
    fn append(&mut self, records: &[Record]) -> Result<Seq, JournalError>;

    /// Hands over every record from `from` on, in order, and returns the last sequence number of the journal.
    fn replay(&mut self, from: Seq, visit: &mut dyn FnMut(Record)) -> Result<Seq, JournalError>;

    /// Returns the last record's position and time.
    fn last(&mut self) -> Result<Option<(Seq, Now)>, JournalError>;

    /// Keeps the engine's state as of record `at`, durably. The one before it is kept too, older ones go.
    fn save_snapshot(&mut self, at: Seq, state: &[u8]) -> Result<(), JournalError>;

    /// Returns the newest snapshot that is sound; `None` means that everything must be replayed.
    fn load_snapshot(&mut self) -> Result<Option<(Seq, Vec<u8>)>, JournalError>;

    /// Opens what is behind the handle afresh, after an error that left it in doubt. No other lidless can get in between.
    fn reopen(&mut self) -> Result<(), JournalError>;

    /// Does the housekeeping that no acknowledgement should wait for. The writer calls it after it has said "durable".
    fn tidy(&mut self) -> Result<(), JournalError> {
        Ok(())
    }
}

impl<J: Journal + ?Sized> Journal for Box<J> {
    fn append(&mut self, records: &[Record]) -> Result<Seq, JournalError> {
        (**self).append(records)
    }

    fn replay(&mut self, from: Seq, visit: &mut dyn FnMut(Record)) -> Result<Seq, JournalError> {
        (**self).replay(from, visit)
    }

    fn last(&mut self) -> Result<Option<(Seq, Now)>, JournalError> {
        (**self).last()
    }

    fn save_snapshot(&mut self, at: Seq, state: &[u8]) -> Result<(), JournalError> {
        (**self).save_snapshot(at, state)
    }

    fn load_snapshot(&mut self) -> Result<Option<(Seq, Vec<u8>)>, JournalError> {
        (**self).load_snapshot()
    }

    fn reopen(&mut self) -> Result<(), JournalError> {
        (**self).reopen()
    }

    fn tidy(&mut self) -> Result<(), JournalError> {
        (**self).tidy()
    }
}

/// Returns how many records at the head of the batch are at or before `last`; refuses gaps, before and within it.
pub(crate) fn already_there(path: &Path, last: Seq, records: &[Record]) -> Result<usize, JournalError> {
    let Some(first) = records.first() else { return Ok(0) };
    let mut expected = if first.seq > last || first.seq == Seq(0) { last.next() } else { first.seq };
    for record in records {
        if record.seq != expected {
            return Err(JournalError::OutOfSequence { path: path.to_owned(), expected, got: record.seq });
        }
        expected = expected.next();
    }
    Ok(records.iter().take_while(|record| record.seq <= last).count())
}
