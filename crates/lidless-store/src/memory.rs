//! How does a journal behave? The model: a vector, and nothing that could fail.
//!
//! It keeps the encoded form, as the real ones do, so that what comes back is what a reader of the disk would see.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lidless_core::event::Record;
use lidless_core::id::Seq;
use lidless_core::time::Now;

use crate::journal::already_there;
use crate::{Journal, JournalError, filing};

/// What survives a [`MemoryJournal`]: clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    bodies: Vec<String>,
    snapshots: Vec<(Seq, Vec<u8>)>,
}

/// A journal in memory.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    disk: MemoryDisk,
}

impl MemoryJournal {
    /// Begins an empty journal.
    pub fn new() -> Self {
        MemoryJournal::default()
    }

    /// Opens the journal on `disk`, with what an earlier one left there.
    pub fn on(disk: &MemoryDisk) -> Self {
        MemoryJournal { disk: disk.clone() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Every change is one push or extend, so that what a panicking thread left is whole.
        self.disk.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for MemoryJournal {
    fn append(&mut self, records: &[Record]) -> Result<Seq, JournalError> {
        let mut kept = self.kept();
        let last = end_of(&kept.bodies);
        let known = already_there(path(), last, records)?;
        let bodies =
            records.iter().map(|record| filing::encode(path(), record)).collect::<Result<Vec<_>, _>>()?;
        for (record, body) in records.iter().zip(&bodies).take(known) {
            if kept.bodies.get(index_of(record.seq)) != Some(body) {
                return Err(JournalError::Conflict { path: path().to_owned(), seq: record.seq });
            }
        }
        kept.bodies.extend(bodies.into_iter().skip(known));
        Ok(end_of(&kept.bodies))
    }

    fn replay(&mut self, from: Seq, visit: &mut dyn FnMut(Record)) -> Result<Seq, JournalError> {
        // Cloned, so that `visit` may use another handle of the same disk.
        let bodies = self.kept().bodies.clone();
        for body in bodies.iter().skip(index_of(from)) {
            visit(decode(body)?);
        }
        Ok(end_of(&bodies))
    }

    fn last(&mut self) -> Result<Option<(Seq, Now)>, JournalError> {
        let record = self.kept().bodies.last().map(|body| decode(body)).transpose()?;
        Ok(record.map(|record| (record.seq, record.at)))
    }

    fn save_snapshot(&mut self, at: Seq, state: &[u8]) -> Result<(), JournalError> {
        let mut kept = self.kept();
        let last = end_of(&kept.bodies);
        if at == Seq(0) || at > last {
            return Err(JournalError::OutOfSequence { path: path().to_owned(), expected: last, got: at });
        }
        kept.snapshots.retain(|(seq, _)| *seq != at);
        kept.snapshots.push((at, state.to_vec()));
        kept.snapshots.sort();
        let surplus = kept.snapshots.len().saturating_sub(2);
        kept.snapshots.drain(..surplus);
        Ok(())
    }

    fn load_snapshot(&mut self) -> Result<Option<(Seq, Vec<u8>)>, JournalError> {
        Ok(self.kept().snapshots.last().cloned())
    }

    fn reopen(&mut self) -> Result<(), JournalError> {
        Ok(())
    }
}

fn path() -> &'static Path {
    Path::new("(memory)")
}

fn end_of(bodies: &[String]) -> Seq {
    Seq(bodies.len() as u64)
}

fn index_of(seq: Seq) -> usize {
    usize::try_from(seq.0.saturating_sub(1)).unwrap_or(usize::MAX)
}

fn decode(body: &str) -> Result<Record, JournalError> {
    serde_json::from_str(body).map_err(|err| JournalError::Corrupt {
        path: path().to_owned(),
        seq: None,
        why: err.to_string(),
    })
}
