//! How is the journal kept on one machine? SQLite in WAL mode, with our own hash chain over the rows.
//!
//! SQLite does not checksum its pages: a flipped bit in a row passes its `integrity_check`. So each row carries the hash
//! of its content and of the row before it.
//!
//! * `open` and `lock`: one daemon per journal; `schema`: what is in the file; `chain`: what a row's hash covers
//! * `append`, `replay`, `snapshot`: what [`SqliteJournal`] does
//! * `reader`, `verify` (which finds a `problem`): what others may do beside it
//! * `mark`, `wal`: what must be there, and why it is not
//! * `fail`, `file`: what SQLite's errors mean here, and how long the file should be

mod append;
mod chain;
mod fail;
mod file;
mod lock;
mod mark;
mod open;
mod problem;
mod reader;
mod replay;
mod schema;
mod snapshot;
mod verify;
mod wal;

use std::io;
use std::path::{Path, PathBuf};

use lidless_core::event::Record;
use lidless_core::id::Seq;
use lidless_core::time::Now;
use rusqlite::Connection;

pub(crate) use append::to_sql;
pub(crate) use chain::{GENESIS, Hash};
pub(crate) use fail::sort;
pub(crate) use file::explain;
pub(crate) use lock::beside;
pub(crate) use open::{BUSY_WAIT_MAX, create_directory, make_durable, prepare, sync_directory};
pub use problem::{Problem, VerifyError, VerifyReport};
pub use reader::{EventFilter, SqliteReader};
pub use schema::SCHEMA_VERSION;
pub use verify::verify;

use crate::filing::Filing;
use crate::{Journal, JournalError};
use chain::Tip;

/// The journal of one lidless, in one file.
///
/// **Invariant:** after an I/O error the handle answers nothing but [`JournalError::Io`] until it is reopened. The kernel
/// reports a failed fsync once and then calls the pages clean, so that a second fsync on the same handle would lie.
#[derive(Debug)]
pub struct SqliteJournal {
    path: PathBuf,
    // Before `lock`, so that it is closed while the lock is still held.
    conn: Option<Connection>,
    tip: Tip,
    filing: Option<Filing>,
    wal_pages: u64,
    mark: mark::Mark,
    lock: lock::Lock,
}

impl SqliteJournal {
    /// Opens the journal at `path` and takes its lock; creates it, and its directory, where there is none.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        open::create_directory(path)?;
        let lock = lock::Lock::take(path)?;
        let mark = mark::Mark::open(path)?;
        let (conn, tip) = open::open(path, &mark)?;
        let (path, conn) = (path.to_owned(), Some(conn));
        Ok(SqliteJournal { path, conn, tip, filing: None, wal_pages: 0, mark, lock })
    }

    /// Returns where the journal is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns where the lock is.
    pub fn lock_path(&self) -> &Path {
        self.lock.path()
    }

    fn conn(&self, action: &'static str) -> Result<&Connection, JournalError> {
        self.conn.as_ref().ok_or_else(|| JournalError::Io {
            path: self.path.clone(),
            action,
            source: Box::new(io::Error::other(
                "an earlier access failed; the journal must be reopened first",
            )),
        })
    }

    /// Notes an error on the way out: whatever leaves the handle in doubt poisons it.
    fn note<T>(&mut self, result: Result<T, JournalError>) -> Result<T, JournalError> {
        if let Err(err) = &result {
            // A batch that failed may have left its names there.
            self.filing = None;
            match err {
                JournalError::Io { .. } | JournalError::Corrupt { .. } | JournalError::Truncated { .. } => {
                    self.conn = None;
                }
                JournalError::Locked { .. }
                | JournalError::Full { .. }
                | JournalError::SchemaTooNew { .. }
                | JournalError::OutOfSequence { .. }
                | JournalError::Conflict { .. }
                | JournalError::AckLost { .. }
                | JournalError::NotFound { .. }
                | JournalError::NotAJournal { .. }
                | JournalError::ReadOnly { .. }
                | JournalError::Permission { .. }
                | JournalError::Encode { .. } => {}
            }
        }
        result
    }
}

impl Journal for SqliteJournal {
    fn append(&mut self, records: &[Record]) -> Result<Seq, JournalError> {
        let result = self.append_batch(records);
        self.note(result)
    }

    fn replay(&mut self, from: Seq, visit: &mut dyn FnMut(Record)) -> Result<Seq, JournalError> {
        // Reading finds faults without causing any: the handle stays as it is.
        replay::replay(self.conn("read")?, &self.path, from, self.tip.seq, visit)
    }

    fn last(&mut self) -> Result<Option<(Seq, Now)>, JournalError> {
        self.conn("read")?;
        Ok((self.tip.seq > Seq(0)).then_some((self.tip.seq, self.tip.at)))
    }

    fn save_snapshot(&mut self, at: Seq, state: &[u8]) -> Result<(), JournalError> {
        let result = self
            .conn("save a snapshot in")
            .and_then(|conn| snapshot::save(conn, &self.path, self.tip.seq, at, state));
        self.wal_pages += state.len() as u64 / 4096 + 4;
        self.note(result)
    }

    fn load_snapshot(&mut self) -> Result<Option<(Seq, Vec<u8>)>, JournalError> {
        snapshot::load(self.conn("read")?, &self.path)
    }

    fn reopen(&mut self) -> Result<(), JournalError> {
        self.conn = None;
        self.filing = None;
        let (conn, tip) = open::open(&self.path, &self.mark)?;
        (self.conn, self.tip, self.wal_pages) = (Some(conn), tip, 0);
        Ok(())
    }

    fn tidy(&mut self) -> Result<(), JournalError> {
        if self.wal_pages < append::WAL_PAGES_TIDY {
            return Ok(());
        }
        let result = self.checkpoint();
        self.note(result)
    }
}
