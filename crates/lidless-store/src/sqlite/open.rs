//! How is a journal opened, so that what is read from it is on the disk?

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use lidless_core::event::Record;
use lidless_core::id::Seq;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::chain::{GENESIS, Hash, Tip, row_hash};
use super::fail::Named;
use super::file::explain;
use super::mark::{self, Mark};
use super::replay::RawRow;
use super::schema::{self, Identity};
use crate::{Holder, JournalError};

/// How long one access waits for another process: readers hold the journal for milliseconds.
pub(crate) const BUSY_WAIT_MAX: Duration = Duration::from_secs(5);

/// Creates the journal's directory, for its owner only, where there is none.
pub(crate) fn create_directory(path: &Path) -> Result<(), JournalError> {
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else { return Ok(()) };
    if parent.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
    made.map_err(|err| JournalError::from_io(path, "create the directory of", err))
}

/// Opens the file for writing, creates what is missing, and returns where the journal ends.
pub(super) fn open(path: &Path, mark: &Mark) -> Result<(Connection, Tip), JournalError> {
    open_inner(path, mark).map_err(|err| explain(path, err))
}

fn open_inner(path: &Path, mark: &Mark) -> Result<(Connection, Tip), JournalError> {
    if create_file(path)? {
        // Of a journal that was moved away.
        mark.write(Tip::EMPTY);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).named(path, "open")?;
    conn.busy_timeout(BUSY_WAIT_MAX).named(path, "open")?;
    // Closing would copy the log into the file and empty it: not before it is known that nothing is missing.
    let kept = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    conn.set_db_config(kept, true).named(path, "open")?;
    // Before any pragma that writes: a file that is not ours stays as it was.
    let identity = schema::identify(&conn, path)?;
    prepare(&conn, path)?;
    match identity {
        Identity::Empty => schema::create(&conn, path)?,
        Identity::Journal => {}
    }
    mark::compare(&conn, path)?;
    conn.set_db_config(kept, false).named(path, "open")?;
    make_durable(&conn, path)?;
    let tip = read_tip(&conn, path)?;
    mark.write(tip);
    Ok((conn, tip))
}

/// Opens the file for reading beside a daemon.
pub(super) fn open_reader(path: &Path) -> Result<Connection, JournalError> {
    if !path.try_exists().map_err(|err| JournalError::from_io(path, "open", err))? {
        return Err(JournalError::NotFound { path: path.to_owned() });
    }
    // SQLite reports both as "unable to open".
    if let Err(err) = rustix::fs::access(path, rustix::fs::Access::READ_OK) {
        return Err(JournalError::from_io(path, "open", err.into()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).named(path, "open")?;
    conn.busy_timeout(BUSY_WAIT_MAX).named(path, "open")?;
    Ok(conn)
}

/// Creates the file if there is none; true if there was none.
fn create_file(path: &Path) -> Result<bool, JournalError> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => sync_directory(path).map(|()| true),
        Err(err) if err.kind() == ErrorKind::AlreadyExists => {
            // SQLite would fall back to reading only; ask before it does.
            let access = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
            let may = rustix::fs::access(path, access);
            may.map(|()| false).map_err(|err| JournalError::from_io(path, "open", err.into()))
        }
        Err(err) => Err(JournalError::from_io(path, "create", err)),
    }
}

/// Makes the new file's name durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), JournalError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let synced = fs::canonicalize(parent).and_then(File::open).and_then(|directory| directory.sync_all());
    synced.map_err(|err| JournalError::from_io(path, "create", err))
}

/// Sets what is not kept in the file: how it is written, and who copies the log.
pub(crate) fn prepare(conn: &Connection, path: &Path) -> Result<(), JournalError> {
    let mode: String =
        conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)).named(path, "open")?;
    if mode != "wal" {
        let why = format!("the file system keeps SQLite from using a write-ahead log (it offers `{mode}`)");
        return Err(JournalError::Io { path: path.to_owned(), action: "open", source: why.into() });
    }
    // `wal_autocheckpoint` off: SQLite would checkpoint within a commit, and swallow the checkpoint's errors. We do it in
    // `tidy`, after the acknowledgement, and see them.
    conn.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA cell_size_check = ON;
         PRAGMA trusted_schema = OFF;",
    )
    .named(path, "open")
}

/// Copies everything from the write-ahead log into the file, and syncs that.
///
/// After a failed fsync the log may hold a commit that is in the page cache and not on the disk, and a second fsync of the
/// log would call it durable. Copying writes the pages anew, so that this fsync says the truth: whatever is read after
/// `open` is on the disk.
pub(crate) fn make_durable(conn: &Connection, path: &Path) -> Result<(), JournalError> {
    let (busy, in_log, copied) = conn
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        })
        .named(path, "sync")?;
    // A reader may keep the log from being emptied; what counts is that all of it was copied.
    if busy != 0 && (in_log < 0 || copied < in_log) {
        return Err(JournalError::Locked { path: path.to_owned(), holder: Holder::default() });
    }
    Ok(())
}

/// Returns the end of the journal, after comparing the last row with what the head says.
fn read_tip(conn: &Connection, path: &Path) -> Result<Tip, JournalError> {
    let (seq, hash) = read_head(conn, path)?;
    let last = conn.query_row(RawRow::LAST, [], RawRow::read).optional().named(path, "read")?;
    let Some(row) = last else {
        if seq == Seq(0) && hash == GENESIS {
            return Ok(Tip::EMPTY);
        }
        let what = format!("records 1 to {seq} are missing");
        return Err(JournalError::Truncated { path: path.to_owned(), what });
    };
    if row.seq < seq {
        let what = format!("records {} to {seq} are missing at the end", row.seq.next());
        return Err(JournalError::Truncated { path: path.to_owned(), what });
    }
    let corrupt =
        |why: &str| JournalError::Corrupt { path: path.to_owned(), seq: Some(row.seq), why: why.into() };
    if row_hash(&row.prev, row.seq, row.service, &row.body) != row.hash.as_slice() {
        return Err(corrupt("its hash does not match its content"));
    }
    if row.seq != seq || row.hash != hash {
        return Err(corrupt("it was not written by lidless: the journal's head names another last record"));
    }
    let record: Record = serde_json::from_slice(&row.body).map_err(|err| corrupt(&err.to_string()))?;
    Ok(Tip { seq, at: record.at, hash })
}

/// Returns the last sequence number and its hash, as the head has them.
pub(super) fn read_head(conn: &Connection, path: &Path) -> Result<(Seq, Hash), JournalError> {
    let head = conn
        .query_row("SELECT seq, hash FROM head WHERE one = 1", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
        })
        .optional()
        .named(path, "read")?;
    let head = head.and_then(|(seq, hash)| Some((Seq(u64::try_from(seq).ok()?), Hash::try_from(hash).ok()?)));
    head.ok_or_else(|| JournalError::Corrupt {
        path: path.to_owned(),
        seq: None,
        why: "its head is missing or not readable".into(),
    })
}
