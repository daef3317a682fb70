//! What survives a crash? A model of the journal: a batch is durable as a whole or not at all.
//!
//! While the disk is full, batches wait in memory, in order; a crash takes them.

use lidless_core::event::Record;
use lidless_core::id::Seq;
use lidless_core::kept::{Keeping, Kept};
use lidless_core::state::State;

/// The model.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    durable: Vec<Record>,
    /// Batches that could not be written. Lost in a crash.
    backlog: Vec<Vec<Record>>,
    /// The disk is full.
    pub(crate) full: bool,
    /// A state at an earlier record, serialised.
    snapshot: Option<Vec<u8>>,
}

impl Journal {
    /// Makes a batch durable, or says that the disk is full; then it is kept in memory.
    pub(crate) fn append(&mut self, batch: &[Record]) -> Result<(), Full> {
        if batch.is_empty() {
            return Ok(());
        }
        if self.full || !self.backlog.is_empty() {
            self.backlog.push(batch.to_vec());
            return Err(Full);
        }
        self.durable.extend_from_slice(batch);
        Ok(())
    }

    /// Writes the oldest batch of the backlog. Returns false when there is none.
    pub(crate) fn flush_one(&mut self) -> bool {
        if self.backlog.is_empty() {
            return false;
        }
        self.durable.extend(self.backlog.remove(0));
        true
    }

    /// Forgets what was not durable.
    pub(crate) fn crash(&mut self) {
        self.backlog.clear();
    }

    pub(crate) fn held_back(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// The last durable record's position.
    pub(crate) fn last(&self) -> Seq {
        self.durable.last().map(|record| record.seq).unwrap_or_default()
    }

    pub(crate) fn records(&self) -> &[Record] {
        &self.durable
    }

    /// Keeps a snapshot of the engine's state, as text like the real one.
    pub(crate) fn save_snapshot(&mut self, state: &State) {
        self.snapshot = serde_json::to_vec(&Keeping::of(state)).ok();
    }

    /// Returns the snapshot, if there is one.
    pub(crate) fn load_snapshot(&self) -> Option<State> {
        serde_json::from_slice::<Kept>(self.snapshot.as_deref()?).ok()?.restore().ok()
    }

    /// Returns a hash over the bytes of all durable records; an `Err` names one that doesn't read back as it was.
    pub(crate) fn hash(&self) -> Result<u64, String> {
        let mut hash = 0xCBF2_9CE4_8422_2325_u64;
        let mut bytes = Vec::new();
        for record in &self.durable {
            bytes.clear();
            serde_json::to_writer(&mut bytes, record).map_err(|err| err.to_string())?;
            for byte in &bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
            }
            let back: Record = serde_json::from_slice(&bytes).map_err(|err| err.to_string())?;
            if back != *record {
                return Err(format!("{record:?} reads back as {back:?}"));
            }
        }
        Ok(hash)
    }
}

/// The disk is full.
#[derive(Debug)]
pub(crate) struct Full;
