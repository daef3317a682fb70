//! How does a batch become durable? One transaction, one fsync, each row chained to the one before.

use std::path::Path;

use lidless_core::event::{Event, Record};
use lidless_core::id::{Seq, ServiceId};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::SqliteJournal;
use super::chain::{Tip, row_hash};
use super::fail::Named;
use crate::JournalError;
use crate::filing::{self, Filing, REMEMBERED_MAX, Subject};
use crate::journal::already_there;

/// Pages in the log (of 4 KiB, estimated) from which on `tidy` copies them into the file.
pub(super) const WAL_PAGES_TIDY: u64 = 1_000;

/// Pages in the log from which on an append does so itself, where nobody calls `tidy`.
const WAL_PAGES_MAX: u64 = 16_000;

impl SqliteJournal {
    /// Appends a batch. The caller poisons the handle where the outcome is in doubt.
    pub(super) fn append_batch(&mut self, records: &[Record]) -> Result<Seq, JournalError> {
        self.conn("append to")?;
        let known = already_there(&self.path, self.tip.seq, records)?;
        // One by one, also below: a run pins all its steps in one record, and a batch may have a thousand of these.
        for record in &records[..known] {
            self.compare(record.seq, &filing::encode(&self.path, record)?)?;
        }
        if known == records.len() {
            return Ok(self.tip.seq);
        }
        if self.wal_pages > WAL_PAGES_MAX {
            self.checkpoint()?;
        }
        let mut filing = match self.filing.take() {
            Some(filing) => filing,
            None => load_filing(self.conn("append to")?, &self.path)?,
        };
        let conn = self.conn("append to")?;
        let mut bytes = 0;
        let encode = |record: &Record| {
            let body = filing::encode(&self.path, record)?;
            bytes += body.len() as u64 + 200;
            Ok(body)
        };
        let tip = write(conn, &self.path, self.tip, &mut filing, &records[known..], encode)?;
        self.wal_pages += 6 + bytes / 4096;
        self.filing = Some(filing);
        self.tip = tip;
        self.mark.write(tip);
        Ok(tip.seq)
    }

    /// Copies what readers allow from the log into the file.
    pub(super) fn checkpoint(&mut self) -> Result<(), JournalError> {
        let (in_log, copied) = self
            .conn("sync")?
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            })
            .named(&self.path, "sync")?;
        // Where a reader stands in the way, the rest comes soon, not at once.
        self.wal_pages = if copied >= in_log { 0 } else { WAL_PAGES_TIDY / 2 };
        Ok(())
    }

    fn compare(&self, seq: Seq, body: &str) -> Result<(), JournalError> {
        let there: Option<String> = self
            .conn("read")?
            .query_row("SELECT body FROM journal WHERE seq = ?1", [to_sql(seq.0)], |row| row.get(0))
            .optional()
            .named(&self.path, "read")?;
        if there.as_deref() == Some(body) {
            return Ok(());
        }
        Err(JournalError::Conflict { path: self.path.clone(), seq })
    }
}

fn write(
    conn: &Connection,
    path: &Path,
    mut tip: Tip,
    filing: &mut Filing,
    fresh: &[Record],
    mut encode: impl FnMut(&Record) -> Result<String, JournalError>,
) -> Result<Tip, JournalError> {
    let what = "append to";
    // Immediate: the write lock is taken before the first row, not half-way.
    let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate).named(path, what)?;
    {
        let mut insert = transaction
            .prepare("INSERT INTO journal VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")
            .named(path, what)?;
        for record in fresh {
            let body = encode(record)?;
            if let Some(kind) = filing.is_cold(&record.event) {
                filing.warm(kind, introduced_last(&transaction, kind).named(path, what)?);
            }
            let service = filing
                .service_of(&record.event, |subject| look_up(&transaction, subject))
                .named(path, what)?;
            let hash = row_hash(&tip.hash, record.seq, service, body.as_bytes());
            insert
                .execute(params![
                    to_sql(record.seq.0),
                    record.at.wall_ms,
                    micros(record),
                    filing::kind(&record.event),
                    service.map(|id| id.0),
                    body,
                    tip.hash.as_slice(),
                    hash.as_slice(),
                ])
                .named(path, what)?;
            tip = Tip { seq: record.seq, at: record.at, hash };
        }
        let mut head =
            transaction.prepare("UPDATE head SET seq = ?1, hash = ?2 WHERE one = 1").named(path, what)?;
        head.execute(params![to_sql(tip.seq.0), tip.hash.as_slice()]).named(path, what)?;
    }
    // An error in here leaves the outcome open; dropping the transaction then rolls back what is left of it.
    transaction.commit().named(path, what)?;
    Ok(tip)
}

/// Returns whose subject it is, from the record that introduced it.
fn look_up(conn: &Connection, subject: Subject) -> rusqlite::Result<Option<ServiceId>> {
    let (kind, field, number) = subject.introduced_by();
    // Newest first: nearly every question is about something recent.
    conn.query_row(
        "SELECT service FROM journal WHERE kind = ?1 AND json_extract(body, ?2) = ?3 ORDER BY seq DESC LIMIT 1",
        params![kind, field, to_sql(number)],
        |row| row.get::<_, Option<u32>>(0),
    )
    .optional()
    .map(|service| service.flatten().map(ServiceId))
}

/// Returns whose those subjects are that were introduced last, of one kind.
fn introduced_last(conn: &Connection, of: Subject) -> rusqlite::Result<Vec<(u64, Option<ServiceId>)>> {
    let (kind, field, _) = of.introduced_by();
    let field = format!("\"{}\":", field.trim_start_matches("$."));
    // The number is the first field of the event, and what follows may be long: a run has all its steps there.
    let mut statement = conn.prepare(
        "SELECT service, substr(body, 1, 400) FROM journal WHERE kind = ?1 ORDER BY seq DESC LIMIT ?2",
    )?;
    let rows = statement.query_map(params![kind, to_sql(REMEMBERED_MAX as u64)], |row| {
        Ok((row.get::<_, Option<u32>>(0)?, row.get::<_, String>(1)?))
    })?;
    let number = |begin: &str| {
        let (_, rest) = begin.split_once(field.as_str())?;
        rest.split(|other: char| !other.is_ascii_digit()).next()?.parse().ok()
    };
    let mut known = Vec::new();
    for row in rows {
        let (service, begin) = row?;
        known.extend(number(&begin).map(|number| (number, service.map(ServiceId))));
    }
    Ok(known)
}

/// Returns whose checks are whose, as the last configuration says.
fn load_filing(conn: &Connection, path: &Path) -> Result<Filing, JournalError> {
    let mut filing = Filing::default();
    let body: Option<String> = conn
        .query_row(
            "SELECT body FROM journal WHERE kind = 'config_applied' ORDER BY seq DESC LIMIT 1",
            [],
            |row| row.get(0),
        )
        .optional()
        .named(path, "read")?;
    let Some(body) = body else { return Ok(filing) };
    let record: Record = serde_json::from_str(&body).map_err(|err| JournalError::Corrupt {
        path: path.to_owned(),
        seq: None,
        why: format!("the last configuration in it cannot be read: {err}"),
    })?;
    if let Event::ConfigApplied { services, checks, .. } = &record.event {
        filing.configure(services, checks);
    }
    Ok(filing)
}

/// Returns the engine time in the unit of the journal.
pub(super) fn micros(record: &Record) -> i64 {
    i64::try_from(record.at.monotonic.as_micros()).unwrap_or(i64::MAX)
}

/// Returns a number as SQLite keeps it. None of ours comes near the limit: a record a nanosecond takes 292 years.
pub(crate) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
