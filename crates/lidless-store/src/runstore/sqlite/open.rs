//! How is the file opened, so that processes that begin at once find the same one, and what is read is on the disk?

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::rows::{self, StoreRow};
use super::schema;
use crate::JournalError;
use crate::runstore::error::StoreError;
use crate::runstore::record::Revision;
use crate::sqlite::{beside, create_directory, explain, make_durable, prepare, sort, sync_directory};

/// Pages in the log (of 4 KiB, estimated; those of other processes come on top) from which on they are copied.
pub(super) const WAL_PAGES_MAX: u64 = 1_000;

/// Between two attempts to be the one who writes.
///
/// SQLite's own pauses grow to 100 ms, and its locks know no order: one who writes all the time starves another with
/// those, within 5 s now and then. A commit takes about as long as this.
const PAUSE: Duration = Duration::from_millis(1);

/// Opens the file, creates what is missing.
pub(super) fn open(path: &Path, busy_wait_max: Duration) -> Result<Connection, StoreError> {
    open_inner(path, busy_wait_max).map_err(|err| match err {
        Failed::Journal(err) => StoreError::from_journal(explain(path, err)),
        Failed::Store(err) => err,
    })
}

/// Why it was not opened.
enum Failed {
    Journal(JournalError),
    Store(StoreError),
}

impl From<JournalError> for Failed {
    fn from(err: JournalError) -> Self {
        Failed::Journal(err)
    }
}

fn open_inner(path: &Path, busy_wait_max: Duration) -> Result<Connection, Failed> {
    create_directory(path)?;
    let there = path.try_exists().map_err(|err| JournalError::from_io(path, "open", err))?;
    if !there {
        create(path)?;
    }
    // SQLite would fall back to reading only; ask before it does.
    let access = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    rustix::fs::access(path, access).map_err(|err| JournalError::from_io(path, "open", err.into()))?;
    let conn = connect(path)?;
    let named = |err| sort(path, "open", err);
    conn.busy_timeout(busy_wait_max).map_err(named)?;
    schema::identify(&conn, path).map_err(|err| match err {
        StoreError::NotARunStore { .. } => {
            Failed::Journal(JournalError::NotAJournal { path: path.to_owned() })
        }
        err => Failed::Store(err),
    })?;
    prepare(&conn, path)?;
    let is_busy = |err: &JournalError| matches!(err, JournalError::Locked { .. });
    eagerly(&conn, busy_wait_max, named, is_busy, || make_durable(&conn, path))?;
    Ok(conn)
}

/// Does what needs the write lock, again and again while it is busy. It must not wait for the lock itself.
fn eagerly<T, E>(
    conn: &Connection,
    busy_wait_max: Duration,
    named: impl Fn(rusqlite::Error) -> E,
    is_busy: impl Fn(&E) -> bool,
    mut act: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let deadline = Instant::now() + busy_wait_max;
    conn.busy_timeout(Duration::ZERO).map_err(&named)?;
    let done = loop {
        match act() {
            Err(err) if is_busy(&err) && Instant::now() < deadline => std::thread::sleep(PAUSE),
            done => break done,
        }
    };
    conn.busy_timeout(busy_wait_max).map_err(&named)?;
    done
}

/// Begins a transaction that has the write lock from the start.
pub(super) fn begin(conn: &Connection, busy_wait_max: Duration) -> rusqlite::Result<Transaction<'_>> {
    let is_busy = |err: &rusqlite::Error| err.sqlite_error_code() == Some(ErrorCode::DatabaseBusy);
    eagerly(
        conn,
        busy_wait_max,
        |err| err,
        is_busy,
        || Transaction::new_unchecked(conn, TransactionBehavior::Immediate),
    )
}

fn connect(path: &Path) -> Result<Connection, JournalError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags).map_err(|err| sort(path, "open", err))
}

/// Puts a new store at `path`, unless another process is faster.
///
/// It is made under another name and then given this one: nobody ever sees half a store.
fn create(path: &Path) -> Result<(), JournalError> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let unnamed = beside(path, &format!(".new-{}-{number}", std::process::id()));
    let done = fill(&unnamed).and_then(|()| match fs::hard_link(&unnamed, path) {
        Err(err) if err.kind() != ErrorKind::AlreadyExists => Err(JournalError::from_io(path, "create", err)),
        Ok(()) | Err(_) => sync_directory(path),
    });
    for suffix in ["", "-wal", "-shm"] {
        // The last two are there only after an error; a leftover is small, and nobody opens it.
        let _ = fs::remove_file(beside(&unnamed, suffix));
    }
    done
}

fn fill(unnamed: &Path) -> Result<(), JournalError> {
    let named = |err| sort(unnamed, "create", err);
    let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(unnamed);
    made.map_err(|err| JournalError::from_io(unnamed, "create", err))?;
    let conn = connect(unnamed)?;
    prepare(&conn, unnamed)?;
    schema::create(&conn).map_err(named)?;
    let store = StoreRow { revision: Revision(0), trimmed: Revision(0) };
    rows::insert_store(&conn, store).map_err(named)?;
    // Copies the log into the file and removes it.
    conn.close().map_err(|(_, err)| named(err))
}

/// Changes something, so that what a commit that failed left in the log is overwritten, and no crash brings it back.
///
/// A log is valid as far as its running checksum goes: one new frame in place of the first left over ends all of them.
pub(super) fn overwrite_leftovers(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute("UPDATE store SET opened = opened + 1", []).map(|_| ())
}
