//! How are the runs of one machine kept? SQLite in WAL mode, in a file that any number of processes use at once.
//!
//! The file is not the journal's: that one has a single owner, who alone knows its end and copies its log, and here
//! several take turns. Each change is one immediate transaction, which reads the fence, the clock and the end of the run
//! *after* it has the write lock: whatever happened to the process before, it decides on what is true then.
//!
//! * `schema`, `open`: what is in the file, and how it comes to be; `rows`: what a hash covers
//! * `lease`, `append`, `trim`: what changes something; `read`, `list`, `watch`: what does not
//!
//! **Limits:** an owner that is stopped *within* a transaction keeps the write lock, and others are told
//! [`StoreError::Busy`] until it goes on or dies. There is no mark beside the file that would tell an older copy of all of
//! it; rows that are missing at the end of a run are told by the run's own row.

mod append;
mod lease;
mod list;
mod open;
mod read;
mod rows;
mod schema;
mod trim;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lidless_core::id::Seq;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::clock::{LeaseClock, LeaseTime};
use super::error::{AcquireError, AppendError, LeaseError, Place, ReadError, StoreError, WatchError};
use super::port::RunStore;
use super::record::{Batch, Epoch, Lease, LogPage, Owner, Revision, RunFilter, RunKey, RunPage, WatchPage};
use crate::sqlite::{BUSY_WAIT_MAX, sort};

/// A handle to the runs of one machine.
///
/// **Invariant:** after an I/O error in a change the connection is closed; the next call opens it afresh, which copies
/// what is in the log and overwrites what an unfinished commit left there, so that what is read then stays true.
pub struct SqliteRunStore {
    path: PathBuf,
    clock: Arc<dyn LeaseClock>,
    busy_wait_max: Duration,
    conn: Option<Connection>,
    wal_pages: u64,
}

/// Why a piece of work within a transaction stops.
enum Stop<E> {
    /// That is the answer.
    Answer(E),
    /// SQLite failed.
    Sqlite(rusqlite::Error),
    /// A row is not what was written.
    Corrupt(Place, &'static str),
}

impl<E> From<rusqlite::Error> for Stop<E> {
    fn from(err: rusqlite::Error) -> Self {
        Stop::Sqlite(err)
    }
}

/// An error that can say that nobody knows.
trait Answer: From<StoreError> {
    /// Says so; `err` is why.
    fn unknown(err: StoreError) -> Self;
}

impl Answer for AcquireError {
    fn unknown(_: StoreError) -> Self {
        AcquireError::Unknown
    }
}

impl Answer for LeaseError {
    fn unknown(_: StoreError) -> Self {
        LeaseError::Unknown
    }
}

impl Answer for AppendError {
    fn unknown(_: StoreError) -> Self {
        AppendError::Unknown
    }
}

impl Answer for StoreError {
    fn unknown(err: StoreError) -> Self {
        err
    }
}

impl SqliteRunStore {
    /// Opens the store at `path`; creates it, and its directory, where there is none. Leases are measured with `clock`.
    pub fn open(path: &Path, clock: Arc<dyn LeaseClock>) -> Result<Self, StoreError> {
        let path = path.to_owned();
        let conn = Some(open::open(&path, BUSY_WAIT_MAX)?);
        Ok(SqliteRunStore { path, clock, busy_wait_max: BUSY_WAIT_MAX, conn, wal_pages: 0 })
    }

    /// Sets how long a call waits for others, instead of 5 s.
    pub fn set_busy_wait_max(&mut self, busy_wait_max: Duration) {
        self.busy_wait_max = busy_wait_max;
        // Opened again with it.
        self.conn = None;
    }

    fn conn(&mut self) -> Result<&Connection, StoreError> {
        if self.conn.is_none() {
            let conn = open::open(&self.path, self.busy_wait_max)?;
            open::overwrite_leftovers(&conn).map_err(|err| self.sort("open", err))?;
            self.wal_pages = 0;
            return Ok(self.conn.insert(conn));
        }
        self.conn.as_ref().ok_or_else(|| StoreError::Busy { store: self.path.display().to_string() })
    }

    fn sort(&self, action: &'static str, err: rusqlite::Error) -> StoreError {
        StoreError::from_journal(sort(&self.path, action, err))
    }

    fn stopped<E: From<StoreError>>(&mut self, action: &'static str, stop: Stop<E>) -> E {
        match stop {
            Stop::Answer(answer) => answer,
            Stop::Corrupt(place, why) => {
                StoreError::Corrupt { store: self.path.display().to_string(), place, why: why.to_owned() }
                    .into()
            }
            Stop::Sqlite(err) => {
                let err = self.sort(action, err);
                if let StoreError::Unavailable { .. } = err {
                    self.conn = None;
                }
                err.into()
            }
        }
    }

    /// Does `work` in one transaction: all of it is durable when this returns, or nothing was changed, or it is unknown.
    fn change<T, E: Answer>(
        &mut self,
        action: &'static str,
        work: impl FnOnce(&Connection, &LeaseTime) -> Result<T, Stop<E>>,
    ) -> Result<T, E> {
        if self.wal_pages > open::WAL_PAGES_MAX {
            self.checkpoint()?;
        }
        let clock = Arc::clone(&self.clock);
        let busy_wait_max = self.busy_wait_max;
        let conn = self.conn()?;
        let done = open::begin(conn, busy_wait_max).map_err(Stop::from).and_then(|transaction| {
            // Only now: waiting for the lock may have taken longer than the lease lasts.
            let value = work(&transaction, &clock.now())?;
            Ok((value, transaction.commit()))
        });
        match done {
            Ok((value, Ok(()))) => Ok(value),
            Ok((_, Err(err))) => {
                let err = self.sort(action, err);
                match err {
                    // The log could not grow, or was never written to: there is no commit in it.
                    StoreError::Full { .. }
                    | StoreError::Busy { .. }
                    | StoreError::ReadOnly { .. }
                    | StoreError::Permission { .. } => Err(err.into()),
                    StoreError::Unavailable { .. }
                    | StoreError::Corrupt { .. }
                    | StoreError::SchemaTooNew { .. }
                    | StoreError::NotARunStore { .. } => {
                        self.conn = None;
                        Err(E::unknown(err))
                    }
                }
            }
            Err(stop) => Err(self.stopped(action, stop)),
        }
    }

    /// Does `work` on one state of the store.
    fn look<T, E: From<StoreError>>(
        &mut self,
        work: impl FnOnce(&Connection, &LeaseTime) -> Result<T, Stop<E>>,
    ) -> Result<T, E> {
        let clock = Arc::clone(&self.clock);
        let conn = self.conn()?;
        let begun = Transaction::new_unchecked(conn, TransactionBehavior::Deferred);
        let done = begun.map_err(Stop::from).and_then(|transaction| work(&transaction, &clock.now()));
        done.map_err(|stop| self.stopped("read", stop))
    }

    /// Copies what readers allow from the log into the file. Whoever changes something does it now and then, before that:
    /// an error of it is then one of a change that was not made.
    fn checkpoint(&mut self) -> Result<(), StoreError> {
        let conn = self.conn()?;
        let done = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        self.wal_pages = 0;
        done.map_err(|err| {
            self.conn = None;
            self.sort("sync", err)
        })
    }
}

impl RunStore for SqliteRunStore {
    fn acquire(&mut self, run: &RunKey, owner: &Owner, ttl: Duration) -> Result<Lease, AcquireError> {
        self.change("acquire a run in", |conn, now| lease::acquire(conn, now, run, owner, ttl))
    }

    fn renew(&mut self, run: &RunKey, epoch: Epoch) -> Result<Duration, LeaseError> {
        self.change("renew a lease in", |conn, now| lease::renew(conn, now, run, epoch))
    }

    fn release(&mut self, run: &RunKey, epoch: Epoch) -> Result<(), LeaseError> {
        self.change("release a lease in", |conn, now| lease::release(conn, now, run, epoch))
    }

    fn append(&mut self, batch: &Batch) -> Result<Seq, AppendError> {
        if let Some(why) = batch.unfit() {
            return Err(AppendError::Unfit { why });
        }
        let bytes: usize = batch.entries.iter().map(|entry| entry.body.len() + 200).sum();
        self.wal_pages += 8 + bytes as u64 / 4096;
        self.change("append to", |conn, now| append::append(conn, now, batch))
    }

    fn read(&mut self, run: &RunKey, from: Seq, limit: usize) -> Result<LogPage, ReadError> {
        self.look(|conn, _| read::read(conn, run, from, limit))
    }

    fn list(
        &mut self,
        filter: RunFilter,
        after: Option<&RunKey>,
        limit: usize,
    ) -> Result<RunPage, StoreError> {
        self.look(|conn, now| list::list(conn, now, filter, after, limit))
    }

    fn watch(&mut self, from: Revision, limit: usize, patience: Duration) -> Result<WatchPage, WatchError> {
        watch::wait(patience, || self.look(|conn, _| watch::watch(conn, from, limit)))
    }

    fn trim(&mut self, watermark: Revision) -> Result<Revision, StoreError> {
        loop {
            // In steps, so that nobody waits long for the write lock.
            let (trimmed, more) = self.change("trim", |conn, _| trim::trim_some(conn, watermark))?;
            if !more {
                return Ok(trimmed);
            }
        }
    }
}
