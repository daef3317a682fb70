//! How is the journal read back? In order, with every hash and every link checked on the way.

use std::path::Path;

use lidless_core::event::Record;
use lidless_core::id::{Seq, ServiceId};
use rusqlite::{Connection, OptionalExtension, Row};

use super::append::to_sql;
use super::chain::{GENESIS, row_hash};
use super::fail::Named;
use crate::JournalError;

/// A row as it is in the file, before anything is believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RawRow {
    pub(super) seq: Seq,
    pub(super) service: Option<ServiceId>,
    pub(super) body: Vec<u8>,
    pub(super) prev: Vec<u8>,
    pub(super) hash: Vec<u8>,
}

impl RawRow {
    /// The columns that [`RawRow::read`] expects; `CAST` lets a body through that is no text any more.
    pub(super) const COLUMNS: &'static str = "seq, service, CAST(body AS BLOB), prev, hash";

    /// Selects the last row.
    pub(super) const LAST: &'static str =
        "SELECT seq, service, CAST(body AS BLOB), prev, hash FROM journal ORDER BY seq DESC LIMIT 1";

    /// Reads the current row.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<RawRow> {
        let seq: i64 = row.get(0)?;
        Ok(RawRow {
            // A negative position was never ours; 0 comes before every record, and so is out of order.
            seq: Seq(u64::try_from(seq).unwrap_or(0)),
            service: row.get::<_, Option<u32>>(1)?.map(ServiceId),
            body: row.get(2)?,
            prev: row.get(3)?,
            hash: row.get(4)?,
        })
    }

    /// Returns whether the row's hash covers its content.
    pub(super) fn is_sound(&self) -> bool {
        row_hash(&self.prev, self.seq, self.service, &self.body) == self.hash.as_slice()
    }
}

/// Hands over every record from `from` to `last`, and stops at the first that cannot be trusted.
pub(super) fn replay(
    conn: &Connection,
    path: &Path,
    from: Seq,
    last: Seq,
    visit: &mut dyn FnMut(Record),
) -> Result<Seq, JournalError> {
    let from = from.max(Seq(1));
    let corrupt = |seq, why: String| JournalError::Corrupt { path: path.to_owned(), seq: Some(seq), why };
    let missing = |seq| corrupt(seq, "it is missing".into());
    if from > last {
        return Ok(last);
    }
    let mut prev = match from.0 - 1 {
        0 => GENESIS.to_vec(),
        before => conn
            .query_row("SELECT hash FROM journal WHERE seq = ?1", [to_sql(before)], |row| row.get(0))
            .optional()
            .named(path, "read")?
            .ok_or_else(|| missing(Seq(before)))?,
    };
    let query = format!("SELECT {} FROM journal WHERE seq >= ?1 ORDER BY seq", RawRow::COLUMNS);
    let mut statement = conn.prepare(&query).named(path, "read")?;
    let mut rows = statement.query([to_sql(from.0)]).named(path, "read")?;
    let mut expected = from;
    while let Some(row) = rows.next().map_err(|err| at(path, expected, err))? {
        let row = RawRow::read(row).map_err(|err| at(path, expected, err))?;
        if row.seq != expected {
            return Err(missing(expected));
        }
        if !row.is_sound() {
            return Err(corrupt(row.seq, "its hash does not match its content".into()));
        }
        if row.prev != prev {
            return Err(corrupt(row.seq, "it does not follow the record before it".into()));
        }
        visit(serde_json::from_slice(&row.body).map_err(|err| corrupt(row.seq, err.to_string()))?);
        prev = row.hash;
        expected = expected.next();
    }
    if expected <= last {
        return Err(missing(expected));
    }
    Ok(last)
}

/// Names the record at which reading failed.
pub(super) fn at(path: &Path, expected: Seq, err: rusqlite::Error) -> JournalError {
    match super::fail::sort(path, "read", err) {
        JournalError::Corrupt { path, why, .. } => JournalError::Corrupt { path, seq: Some(expected), why },
        other => other,
    }
}
