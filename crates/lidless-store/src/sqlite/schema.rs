//! What is in the file? Tables, versions, and how a file of another kind or age is told.

use std::path::Path;

use rusqlite::Connection;

use super::fail::Named;
use crate::JournalError;

/// The version of the tables below.
pub const SCHEMA_VERSION: i64 = 1;

/// "LDLS": marks the file as ours.
const APPLICATION_ID: i64 = 0x4c44_4c53;

/// `head` changes in the same transaction as `journal`: it tells rows cut off at the end from a journal that ends there.
const TABLES: &str = "
    CREATE TABLE journal (
        seq     INTEGER PRIMARY KEY,
        wall_ms INTEGER NOT NULL,
        mono_us INTEGER NOT NULL,
        kind    TEXT    NOT NULL,
        service INTEGER,
        body    TEXT    NOT NULL,
        prev    BLOB    NOT NULL,
        hash    BLOB    NOT NULL
    ) STRICT;
    CREATE INDEX journal_by_kind ON journal (kind, seq);
    CREATE INDEX journal_by_service ON journal (service, seq) WHERE service IS NOT NULL;
    CREATE TABLE head (
        one  INTEGER PRIMARY KEY CHECK (one = 1),
        seq  INTEGER NOT NULL,
        hash BLOB    NOT NULL
    ) STRICT;
    CREATE TABLE snapshot (
        seq   INTEGER PRIMARY KEY,
        chain BLOB NOT NULL,
        state BLOB NOT NULL,
        hash  BLOB NOT NULL
    ) STRICT;
    INSERT INTO head VALUES (1, 0, zeroblob(32));
";

/// What a file turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Identity {
    /// Nothing yet.
    Empty,
    /// A journal that this version understands.
    Journal,
}

/// Tells what the file is, without changing it.
pub(super) fn identify(conn: &Connection, path: &Path) -> Result<Identity, JournalError> {
    let pragma = |name| conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).named(path, "read");
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    if application == APPLICATION_ID {
        if version > SCHEMA_VERSION {
            return Err(JournalError::SchemaTooNew {
                path: path.to_owned(),
                found: version,
                known: SCHEMA_VERSION,
            });
        }
        return Ok(Identity::Journal);
    }
    let tables: i64 =
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).named(path, "read")?;
    if application == 0 && version == 0 && tables == 0 {
        return Ok(Identity::Empty);
    }
    Err(JournalError::NotAJournal { path: path.to_owned() })
}

/// Creates the tables. One transaction: a crash in it leaves an empty file.
pub(super) fn create(conn: &Connection, path: &Path) -> Result<(), JournalError> {
    let script = format!(
        "BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
    );
    conn.execute_batch(&script).named(path, "create")
}
