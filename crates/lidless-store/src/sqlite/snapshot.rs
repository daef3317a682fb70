//! How does start-up stay quick while the journal grows? The engine's state is kept now and then, bound to the chain.

use std::path::Path;

use lidless_core::id::Seq;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::append::to_sql;
use super::chain::snapshot_hash;
use super::fail::Named;
use crate::JournalError;

/// How many are kept: the newest, and one to fall back to.
const KEPT: i64 = 2;

/// A snapshot as it is in the file.
pub(super) struct RawSnapshot {
    pub(super) seq: Seq,
    chain: Vec<u8>,
    pub(super) state: Vec<u8>,
    hash: Vec<u8>,
}

impl RawSnapshot {
    /// Returns what is wrong with it, given the hash of the record that it was taken at.
    pub(super) fn fault(&self, record_hash: Option<&[u8]>) -> Option<&'static str> {
        if snapshot_hash(&self.chain, self.seq, &self.state) != self.hash.as_slice() {
            return Some("its hash does not match its content");
        }
        match record_hash {
            None => Some("the record that it was taken at is missing"),
            Some(hash) if hash != self.chain.as_slice() => Some("it was taken from another journal"),
            Some(_) => None,
        }
    }
}

/// Keeps `state` as of record `at`.
pub(super) fn save(
    conn: &Connection,
    path: &Path,
    last: Seq,
    at: Seq,
    state: &[u8],
) -> Result<(), JournalError> {
    let chain = if at > last { None } else { record_hash(conn, path, at)? };
    let Some(chain) = chain else {
        return Err(JournalError::OutOfSequence { path: path.to_owned(), expected: last, got: at });
    };
    let hash = snapshot_hash(&chain, at, state);
    let write = || -> rusqlite::Result<()> {
        let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
        transaction.execute(
            "INSERT OR REPLACE INTO snapshot VALUES (?1, ?2, ?3, ?4)",
            params![to_sql(at.0), chain, state, hash.as_slice()],
        )?;
        transaction.execute(
            "DELETE FROM snapshot WHERE seq NOT IN (SELECT seq FROM snapshot ORDER BY seq DESC LIMIT ?1)",
            [KEPT],
        )?;
        transaction.commit()
    };
    write().named(path, "save a snapshot in")
}

/// Returns the newest sound snapshot.
pub(super) fn load(conn: &Connection, path: &Path) -> Result<Option<(Seq, Vec<u8>)>, JournalError> {
    for seq in positions(conn, path)? {
        // One that cannot even be read is as good as none: the older one, or all records, give the same state.
        let Ok(Some(snapshot)) = read(conn, path, seq) else { continue };
        if snapshot.fault(record_hash(conn, path, seq)?.as_deref()).is_none() {
            return Ok(Some((snapshot.seq, snapshot.state)));
        }
    }
    Ok(None)
}

/// Returns where snapshots were taken, newest first.
pub(super) fn positions(conn: &Connection, path: &Path) -> Result<Vec<Seq>, JournalError> {
    let mut statement = conn.prepare("SELECT seq FROM snapshot ORDER BY seq DESC").named(path, "read")?;
    let rows = statement.query_map([], |row| row.get::<_, i64>(0)).named(path, "read")?;
    rows.map(|seq| Ok(Seq(u64::try_from(seq.named(path, "read")?).unwrap_or(0)))).collect()
}

/// Returns the snapshot taken at `seq`.
pub(super) fn read(conn: &Connection, path: &Path, seq: Seq) -> Result<Option<RawSnapshot>, JournalError> {
    conn.query_row("SELECT chain, state, hash FROM snapshot WHERE seq = ?1", [to_sql(seq.0)], |row| {
        Ok(RawSnapshot { seq, chain: row.get(0)?, state: row.get(1)?, hash: row.get(2)? })
    })
    .optional()
    .named(path, "read")
}

/// Returns the hash of the record at `seq`, as it is stored.
pub(super) fn record_hash(conn: &Connection, path: &Path, seq: Seq) -> Result<Option<Vec<u8>>, JournalError> {
    conn.query_row("SELECT hash FROM journal WHERE seq = ?1", [to_sql(seq.0)], |row| row.get(0))
        .optional()
        .named(path, "read")
}
