//! What is in the file? Tables, their version, and how a file of another kind is told.

use std::path::Path;

use rusqlite::Connection;

use crate::runstore::error::StoreError;
use crate::sqlite::sort;

/// The version of the tables below.
const SCHEMA_VERSION: i64 = 1;

/// "LDLR": marks the file as ours.
const APPLICATION_ID: i64 = 0x4c44_4c52;

/// Every row has a hash of its content; those of a run's log are chained, and `run.tip` names the last.
///
/// `store.opened` is what an opening changes in order to overwrite leftovers; it is not covered by the hash.
const TABLES: &str = "
    CREATE TABLE store (
        one      INTEGER PRIMARY KEY CHECK (one = 1),
        revision INTEGER NOT NULL,
        trimmed  INTEGER NOT NULL,
        opened   INTEGER NOT NULL,
        sum      BLOB    NOT NULL
    ) STRICT;
    CREATE TABLE run (
        run      TEXT    PRIMARY KEY,
        state    TEXT    NOT NULL,
        last     INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        kept     INTEGER NOT NULL,
        tip      BLOB    NOT NULL,
        sum      BLOB    NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX run_by_state ON run (state, run);
    CREATE INDEX run_to_trim ON run (revision) WHERE state = 'ended' AND kept = 1;
    CREATE TABLE run_lease (
        run      TEXT    PRIMARY KEY,
        owner    TEXT    NOT NULL,
        epoch    INTEGER NOT NULL,
        ttl_us   INTEGER NOT NULL,
        era      TEXT    NOT NULL,
        until_us INTEGER NOT NULL,
        sum      BLOB    NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE run_log (
        run      TEXT    NOT NULL,
        seq      INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        epoch    INTEGER NOT NULL,
        id       BLOB    NOT NULL,
        body     BLOB    NOT NULL,
        prev     BLOB    NOT NULL,
        hash     BLOB    NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX run_log_by_run ON run_log (run, seq);
    CREATE INDEX run_log_by_revision ON run_log (revision, seq);
";

/// Fails if the file is not a run store that this version understands; changes nothing.
pub(super) fn identify(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    let store = || path.display().to_string();
    let pragma = |name| {
        let value = conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        value.map_err(|err| StoreError::from_journal(sort(path, "read", err)))
    };
    if pragma("application_id")? != APPLICATION_ID {
        return Err(StoreError::NotARunStore { store: store() });
    }
    match pragma("user_version")? {
        found if found > SCHEMA_VERSION => {
            Err(StoreError::SchemaTooNew { store: store(), found, known: SCHEMA_VERSION })
        }
        _ => Ok(()),
    }
}

/// Creates the tables.
pub(super) fn create(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(&format!(
        "BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
    ))
}
