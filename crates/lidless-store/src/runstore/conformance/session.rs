//! How does a careful owner use a store? It repeats what failed, and opens another handle where one is dead.

use std::time::Duration;

use lidless_core::id::Seq;

use super::Place;
use crate::runstore::error::{AcquireError, AppendError, LeaseError, ReadError, StoreError, WatchError};
use crate::runstore::port::RunStore;
use crate::runstore::record::{
    Batch, Entry, Epoch, Lease, LogPage, LogRecord, Owner, RecordId, Revision, RunFilter, RunHead, RunKey,
    RunPage, RunState, WatchPage,
};
use crate::runstore::settle::{Patience, append_settled};

/// How often one thing is repeated before the store counts as broken.
const TRIES_MAX: u32 = 100;

/// Returns a run's name.
pub fn key(number: u64) -> RunKey {
    RunKey::new(&format!("run-{number:04}")).expect("it is a name")
}

/// Returns an owner's name.
pub fn owner(number: u64) -> Owner {
    Owner::new(&format!("host-{number}:4711")).expect("it is a name")
}

/// Returns a batch whose records have names and bodies that `flavour` and the slot decide.
pub fn batch(run: &RunKey, epoch: Epoch, expect: u64, count: u64, flavour: u64) -> Batch {
    let entry = |seq: u64| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(run.as_str().as_bytes()).update(&seq.to_le_bytes()).update(&flavour.to_le_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        let body = format!("{run} {seq} {flavour} {}", "x".repeat((seq % 50) as usize)).into_bytes();
        Entry { id: RecordId(id), body }
    };
    let entries = (expect..expect + count).map(entry).collect();
    Batch { run: run.clone(), epoch, expect: Seq(expect), entries, state: RunState::Active }
}

/// A store in use.
pub struct Session {
    place: Place,
    store: Box<dyn RunStore>,
}

/// What a repeated call should do with an error.
enum Verdict {
    Again,
    Reopen,
    Stop,
}

fn judge(err: &StoreError) -> Verdict {
    match err {
        StoreError::Full { .. } | StoreError::Busy { .. } => Verdict::Again,
        StoreError::Unavailable { .. } => Verdict::Reopen,
        StoreError::Corrupt { .. }
        | StoreError::SchemaTooNew { .. }
        | StoreError::NotARunStore { .. }
        | StoreError::ReadOnly { .. }
        | StoreError::Permission { .. } => Verdict::Stop,
    }
}

impl Session {
    /// Opens a handle of a place.
    pub fn new(place: &Place) -> Self {
        let store = (place.open)().expect("the store opens");
        Session { place: place.clone(), store }
    }

    /// Drops the handle and opens another.
    pub fn reopen(&mut self) {
        self.store = (self.place.open)().expect("the store opens again");
    }

    /// Returns the handle.
    pub fn store(&mut self) -> &mut dyn RunStore {
        self.store.as_mut()
    }

    fn persist<T, E: std::fmt::Debug>(
        &mut self,
        mut act: impl FnMut(&mut dyn RunStore) -> Result<T, E>,
        judge: impl Fn(&E) -> Verdict,
    ) -> Result<T, E> {
        for _ in 0..TRIES_MAX {
            match act(self.store.as_mut()) {
                Ok(value) => return Ok(value),
                Err(err) => match judge(&err) {
                    Verdict::Again => {}
                    Verdict::Reopen => self.reopen(),
                    Verdict::Stop => return Err(err),
                },
            }
        }
        panic!("the store still fails after {TRIES_MAX} tries");
    }

    /// Acquires for the place's time.
    pub fn acquire(&mut self, run: &RunKey, owner: &Owner) -> Result<Lease, AcquireError> {
        let ttl = self.place.ttl;
        self.persist(
            |store| store.acquire(run, owner, ttl),
            |err| match err {
                AcquireError::Unknown => Verdict::Again,
                AcquireError::Failed(err) => judge(err),
                AcquireError::Held { .. } | AcquireError::Ended => Verdict::Stop,
            },
        )
    }

    /// Acquires what must be free.
    pub fn take(&mut self, run: &RunKey, by: u64) -> Epoch {
        self.acquire(run, &owner(by)).expect("the run is free").epoch
    }

    /// Renews.
    pub fn renew(&mut self, run: &RunKey, epoch: Epoch) -> Result<Duration, LeaseError> {
        self.persist(|store| store.renew(run, epoch), judge_lease)
    }

    /// Gives back. One that is lost after an unknown answer was given back by that.
    pub fn release(&mut self, run: &RunKey, epoch: Epoch) -> Result<(), LeaseError> {
        let mut in_doubt = false;
        self.persist(
            |store| match store.release(run, epoch) {
                Err(LeaseError::Lost) if in_doubt => Ok(()),
                done => {
                    in_doubt |= matches!(done, Err(LeaseError::Unknown));
                    done
                }
            },
            judge_lease,
        )
    }

    /// Appends, settled.
    pub fn put(&mut self, batch: &Batch) -> Result<Seq, AppendError> {
        self.persist(
            |store| append_settled(store, batch, Patience { tries_max: 3, pause: &mut |_| {} }),
            |err| match err {
                // Perhaps because the handle is dead.
                AppendError::Unknown => Verdict::Reopen,
                AppendError::Failed(err) => judge(err),
                AppendError::Unfit { .. }
                | AppendError::Fenced
                | AppendError::Ended
                | AppendError::Compacted
                | AppendError::SeqTaken { .. }
                | AppendError::Gap { .. } => Verdict::Stop,
            },
        )
    }

    /// Reads a page of a log.
    pub fn page(&mut self, run: &RunKey, from: u64, limit: usize) -> Result<LogPage, ReadError> {
        self.persist(
            |store| store.read(run, Seq(from), limit),
            |err| match err {
                ReadError::Compacted => Verdict::Stop,
                ReadError::Failed(err) => judge(err),
            },
        )
    }

    /// Reads a whole log, in pages.
    pub fn log(&mut self, run: &RunKey) -> Vec<LogRecord> {
        let mut records = Vec::new();
        loop {
            let page = self.page(run, records.len() as u64 + 1, 7).expect("the log is there");
            records.extend(page.records);
            if records.len() as u64 >= page.last.0 {
                assert_eq!(records.len() as u64, page.last.0, "the log ends where it says");
                return records;
            }
        }
    }

    /// Lists a page of runs.
    pub fn list(&mut self, filter: RunFilter, after: Option<&RunKey>, limit: usize) -> RunPage {
        self.persist(|store| store.list(filter, after, limit), judge).expect("the runs are listed")
    }

    /// Lists all runs.
    pub fn runs(&mut self, filter: RunFilter) -> Vec<RunHead> {
        let (mut runs, mut after) = (Vec::new(), None);
        loop {
            let page = self.list(filter, after.as_ref(), 3);
            runs.extend(page.runs);
            match page.next {
                Some(next) => after = Some(next),
                None => return runs,
            }
        }
    }

    /// Returns the store's position.
    pub fn position(&mut self) -> Revision {
        self.list(RunFilter::All, None, 1).at
    }

    /// Watches, without waiting.
    pub fn watch(&mut self, from: Revision, limit: usize) -> Result<WatchPage, WatchError> {
        self.persist(
            |store| store.watch(from, limit, Duration::ZERO),
            |err| match err {
                WatchError::Compacted { .. } | WatchError::Ahead { .. } => Verdict::Stop,
                WatchError::Failed(err) => judge(err),
            },
        )
    }

    /// Watches from `from` on until there is nothing more, in pages of about `limit`.
    pub fn watch_all(&mut self, from: Revision, limit: usize) -> Vec<LogRecord> {
        let (mut seen, mut from) = (Vec::new(), from);
        loop {
            let page = self.watch(from, limit).expect("nothing was trimmed");
            if page.records.is_empty() {
                return seen;
            }
            assert!(page.next > from, "a page goes on");
            seen.extend(page.records);
            from = page.next;
        }
    }

    /// Trims.
    pub fn trim(&mut self, watermark: Revision) -> Revision {
        self.persist(|store| store.trim(watermark), judge).expect("it is trimmed")
    }
}

fn judge_lease(err: &LeaseError) -> Verdict {
    match err {
        LeaseError::Unknown => Verdict::Again,
        LeaseError::Failed(err) => judge(err),
        LeaseError::Lost => Verdict::Stop,
    }
}

/// Compares a log with the batches that it should be made of.
pub(super) fn assert_log(log: &[LogRecord], batches: &[Batch]) {
    let is: Vec<_> = log.iter().map(|record| (record.seq, record.epoch, record.id, &record.body)).collect();
    let numbered =
        |batch: &'_ Batch| batch.entries.iter().map(|entry| (batch.epoch, entry.clone())).collect::<Vec<_>>();
    let entries: Vec<(Epoch, Entry)> = batches.iter().flat_map(numbered).collect();
    let should: Vec<_> = entries
        .iter()
        .zip(1..)
        .map(|((epoch, entry), seq)| (Seq(seq), *epoch, entry.id, &entry.body))
        .collect();
    assert_eq!(is, should);
}
