//! What do the CLI and the screens read while the daemon writes? Slices of the journal, in short transactions.

use std::path::{Path, PathBuf};

use lidless_core::event::Record;
use lidless_core::id::{Seq, ServiceId};
use lidless_core::time::Now;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::append::to_sql;
use super::fail::Named;
use super::file::explain;
use super::open::open_reader;
use super::replay::{RawRow, at};
use super::schema::{self, Identity};
use crate::JournalError;

/// Which records are wanted; the default is all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EventFilter {
    /// Only these kinds, as [`crate::kind`] names them; empty means any.
    pub kinds: Vec<String>,
    /// Only what is about this service.
    pub service: Option<ServiceId>,
}

/// Reads a journal that somebody else may be writing.
#[derive(Debug)]
pub struct SqliteReader {
    path: PathBuf,
    conn: Connection,
}

impl SqliteReader {
    /// Opens the journal at `path` for reading. Takes no lock, creates nothing.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let conn = open_reader(path)?;
        match schema::identify(&conn, path).map_err(|err| explain(path, err))? {
            Identity::Journal => Ok(SqliteReader { path: path.to_owned(), conn }),
            Identity::Empty => Err(JournalError::NotAJournal { path: path.to_owned() }),
        }
    }

    /// Returns up to `limit` records after `after` that pass the filter, oldest first.
    pub fn events(
        &self,
        after: Seq,
        limit: usize,
        filter: &EventFilter,
    ) -> Result<Vec<Record>, JournalError> {
        let mut query = format!("SELECT {} FROM journal WHERE seq > ?", RawRow::COLUMNS);
        let mut values = vec![Value::Integer(to_sql(after.0))];
        if !filter.kinds.is_empty() {
            let marks = vec!["?"; filter.kinds.len()].join(", ");
            query.push_str(&format!(" AND kind IN ({marks})"));
            values.extend(filter.kinds.iter().cloned().map(Value::Text));
        }
        if let Some(service) = filter.service {
            query.push_str(" AND service = ?");
            values.push(Value::Integer(i64::from(service.0)));
        }
        query.push_str(" ORDER BY seq LIMIT ?");
        values.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));

        let mut statement = self.conn.prepare(&query).named(&self.path, "read")?;
        let mut rows = statement.query(params_from_iter(values)).named(&self.path, "read")?;
        let mut records = Vec::new();
        let mut next = after.next();
        while let Some(row) = rows.next().map_err(|err| at(&self.path, next, err))? {
            let row = RawRow::read(row).map_err(|err| at(&self.path, next, err))?;
            records.push(self.decode(&row)?);
            next = row.seq.next();
        }
        Ok(records)
    }

    /// Returns the last record's position and time.
    pub fn last(&self) -> Result<Option<(Seq, Now)>, JournalError> {
        let row = self.conn.query_row(RawRow::LAST, [], RawRow::read).optional();
        let row = row.named(&self.path, "read")?;
        row.map(|row| self.decode(&row).map(|record| (record.seq, record.at))).transpose()
    }

    fn decode(&self, row: &RawRow) -> Result<Record, JournalError> {
        let corrupt =
            |why: String| JournalError::Corrupt { path: self.path.clone(), seq: Some(row.seq), why };
        if !row.is_sound() {
            return Err(corrupt("its hash does not match its content".into()));
        }
        serde_json::from_slice(&row.body).map_err(|err| corrupt(err.to_string()))
    }
}
