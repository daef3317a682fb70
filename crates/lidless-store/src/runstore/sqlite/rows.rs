//! What does a row's hash cover? All of it; and a record's also the record before it.
//!
//! A row that does not fit its hash is never believed: a flipped bit in a lease could let two write, one in a log could
//! repeat a step.

use std::time::Duration;

use lidless_core::id::Seq;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Stop;
use crate::runstore::clock::LeaseTime;
use crate::runstore::error::Place;
use crate::runstore::record::{Epoch, LogRecord, Owner, RecordId, Revision, RunKey, RunState};
use crate::sqlite::{Hash, to_sql};

const UNSOUND: &str = "its hash does not match its content";

/// Hashes fields, each with its length: no two rows give the same bytes.
fn sum(context: &str, fields: &[&[u8]]) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for field in fields {
        hasher.update(&(field.len() as u64).to_le_bytes()).update(field);
    }
    *hasher.finalize().as_bytes()
}

/// A column that should be a number of ours. What is none fits no hash.
fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(u64::MAX))
}

/// Where the store is.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreRow {
    pub(super) revision: Revision,
    pub(super) trimmed: Revision,
}

impl StoreRow {
    fn sum(self) -> Hash {
        sum("lidless runs 1: store", &[&self.revision.0.to_le_bytes(), &self.trimmed.0.to_le_bytes()])
    }
}

pub(super) fn insert_store(conn: &Connection, row: StoreRow) -> rusqlite::Result<()> {
    let sum = row.sum();
    let values = params![to_sql(row.revision.0), to_sql(row.trimmed.0), sum.as_slice()];
    conn.execute("INSERT INTO store VALUES (1, ?1, ?2, 0, ?3)", values).map(|_| ())
}

pub(super) fn read_store<E>(conn: &Connection) -> Result<StoreRow, Stop<E>> {
    let found = conn
        .prepare("SELECT revision, trimmed, sum FROM store WHERE one = 1")?
        .query_row([], |row| {
            let store = StoreRow { revision: Revision(number(row, 0)?), trimmed: Revision(number(row, 1)?) };
            Ok((store, row.get::<_, Vec<u8>>(2)?))
        })
        .optional()?;
    match found {
        Some((store, kept)) if store.sum() == kept.as_slice() => Ok(store),
        Some(_) => Err(Stop::Corrupt(Place::default(), "its position does not match its hash")),
        None => Err(Stop::Corrupt(Place::default(), "its position is missing")),
    }
}

pub(super) fn write_store(conn: &Connection, row: StoreRow) -> rusqlite::Result<()> {
    let sum = row.sum();
    let values = params![to_sql(row.revision.0), to_sql(row.trimmed.0), sum.as_slice()];
    conn.prepare("UPDATE store SET revision = ?1, trimmed = ?2, sum = ?3 WHERE one = 1")?
        .execute(values)
        .map(|_| ())
}

/// Goes on by one position and returns that.
pub(super) fn next_revision<E>(conn: &Connection) -> Result<Revision, Stop<E>> {
    let store = read_store(conn)?;
    let revision = store.revision.next();
    write_store(conn, StoreRow { revision, ..store })?;
    Ok(revision)
}

/// A run's own row.
#[derive(Clone, Debug)]
pub(super) struct RunRow {
    pub(super) run: RunKey,
    pub(super) state: RunState,
    pub(super) last: Seq,
    /// That of the last record.
    pub(super) revision: Revision,
    /// Whether its records are still there.
    pub(super) kept: bool,
    /// The hash of the last record.
    pub(super) tip: Vec<u8>,
}

impl RunRow {
    pub(super) const COLUMNS: &'static str = "run, state, last, revision, kept, tip, sum";

    fn sum(&self) -> Hash {
        let fields: [&[u8]; 6] = [
            self.run.as_str().as_bytes(),
            state_name(self.state).as_bytes(),
            &self.last.0.to_le_bytes(),
            &self.revision.0.to_le_bytes(),
            &[u8::from(self.kept)],
            &self.tip,
        ];
        sum("lidless runs 1: run", &fields)
    }

    /// Reads the current row, of which [`RunRow::COLUMNS`] were selected.
    pub(super) fn read<E>(row: &Row<'_>) -> Result<RunRow, Stop<E>> {
        let name: String = row.get(0)?;
        let unsound = || Stop::Corrupt(Place::run(&name), UNSOUND);
        let read = RunRow {
            run: RunKey::new(&name).map_err(|_| unsound())?,
            state: state_named(&row.get::<_, String>(1)?).ok_or_else(unsound)?,
            last: Seq(number(row, 2)?),
            revision: Revision(number(row, 3)?),
            kept: row.get::<_, i64>(4)? == 1,
            tip: row.get(5)?,
        };
        let kept: Vec<u8> = row.get(6)?;
        match read.sum() == kept.as_slice() {
            true => Ok(read),
            false => Err(unsound()),
        }
    }

    pub(super) fn find<E>(conn: &Connection, run: &RunKey) -> Result<Option<RunRow>, Stop<E>> {
        let query = format!("SELECT {} FROM run WHERE run = ?1", RunRow::COLUMNS);
        let mut statement = conn.prepare(&query)?;
        let mut rows = statement.query([run.as_str()])?;
        rows.next()?.map(RunRow::read).transpose()
    }

    pub(super) fn write(&self, conn: &Connection) -> rusqlite::Result<()> {
        conn.prepare("INSERT OR REPLACE INTO run VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute(params![
                self.run.as_str(),
                state_name(self.state),
                to_sql(self.last.0),
                to_sql(self.revision.0),
                i64::from(self.kept),
                self.tip,
                self.sum().as_slice(),
            ])
            .map(|_| ())
    }
}

/// The name of a state in the file.
pub(super) fn state_name(state: RunState) -> &'static str {
    match state {
        RunState::Active => "active",
        RunState::Held => "held",
        RunState::Ended => "ended",
    }
}

fn state_named(name: &str) -> Option<RunState> {
    [RunState::Active, RunState::Held, RunState::Ended].into_iter().find(|state| state_name(*state) == name)
}

/// A lease, live or over.
#[derive(Clone, Debug)]
pub(super) struct LeaseRow {
    pub(super) run: RunKey,
    pub(super) owner: Owner,
    pub(super) epoch: Epoch,
    pub(super) ttl: Duration,
    pub(super) until: LeaseTime,
}

impl LeaseRow {
    pub(super) fn is_live(&self, now: &LeaseTime) -> bool {
        self.until.era == now.era && self.until.since > now.since
    }

    fn sum(&self) -> Hash {
        let fields: [&[u8]; 6] = [
            self.run.as_str().as_bytes(),
            self.owner.as_str().as_bytes(),
            &self.epoch.0.to_le_bytes(),
            &micros(self.ttl).to_le_bytes(),
            self.until.era.as_bytes(),
            &micros(self.until.since).to_le_bytes(),
        ];
        sum("lidless runs 1: lease", &fields)
    }

    pub(super) fn find<E>(conn: &Connection, run: &RunKey) -> Result<Option<LeaseRow>, Stop<E>> {
        let query = "SELECT owner, epoch, ttl_us, era, until_us, sum FROM run_lease WHERE run = ?1";
        let mut statement = conn.prepare(query)?;
        let mut rows = statement.query([run.as_str()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let unsound = || Stop::Corrupt(Place::run(run.as_str()), "the hash of its lease does not match");
        let lease = LeaseRow {
            run: run.clone(),
            owner: Owner::new(&row.get::<_, String>(0)?).map_err(|_| unsound())?,
            epoch: Epoch(number(row, 1)?),
            ttl: Duration::from_micros(number(row, 2)?),
            until: LeaseTime { era: row.get(3)?, since: Duration::from_micros(number(row, 4)?) },
        };
        let kept: Vec<u8> = row.get(5)?;
        match lease.sum() == kept.as_slice() {
            true => Ok(Some(lease)),
            false => Err(unsound()),
        }
    }

    pub(super) fn write(&self, conn: &Connection) -> rusqlite::Result<()> {
        conn.prepare("INSERT OR REPLACE INTO run_lease VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute(params![
                self.run.as_str(),
                self.owner.as_str(),
                to_sql(self.epoch.0),
                to_sql(micros(self.ttl)),
                self.until.era,
                to_sql(micros(self.until.since)),
                self.sum().as_slice(),
            ])
            .map(|_| ())
    }
}

/// Whole microseconds, as the file keeps them; longer than it can is cut.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs())
}

/// A record, and the hashes that chain it.
#[derive(Debug)]
pub(super) struct LogRow {
    pub(super) record: LogRecord,
    pub(super) prev: Vec<u8>,
    pub(super) hash: Vec<u8>,
}

impl LogRow {
    pub(super) const COLUMNS: &'static str = "run, seq, revision, epoch, id, body, prev, hash";

    /// Reads the current row, of which [`LogRow::COLUMNS`] were selected.
    pub(super) fn read<E>(row: &Row<'_>) -> Result<LogRow, Stop<E>> {
        let name: String = row.get(0)?;
        let seq = Seq(number(row, 1)?);
        let unsound = || Stop::Corrupt(Place { run: Some(name.clone()), seq: Some(seq) }, UNSOUND);
        let record = LogRecord {
            run: RunKey::new(&name).map_err(|_| unsound())?,
            seq,
            revision: Revision(number(row, 2)?),
            epoch: Epoch(number(row, 3)?),
            id: RecordId(row.get::<_, Vec<u8>>(4)?.try_into().map_err(|_| unsound())?),
            body: row.get(5)?,
        };
        let (prev, hash): (Vec<u8>, Vec<u8>) = (row.get(6)?, row.get(7)?);
        match record_hash(&prev, &record) == hash.as_slice() {
            true => Ok(LogRow { record, prev, hash }),
            false => Err(unsound()),
        }
    }
}

/// Returns the hash of a record that follows the one with the hash `prev`.
pub(super) fn record_hash(prev: &[u8], record: &LogRecord) -> Hash {
    let fields: [&[u8]; 7] = [
        prev,
        record.run.as_str().as_bytes(),
        &record.seq.0.to_le_bytes(),
        &record.revision.0.to_le_bytes(),
        &record.epoch.0.to_le_bytes(),
        &record.id.0,
        &record.body,
    ];
    sum("lidless runs 1: record", &fields)
}

/// Returns the hash of the record in a slot, as it is kept.
pub(super) fn hash_at(conn: &Connection, run: &RunKey, seq: Seq) -> rusqlite::Result<Option<Vec<u8>>> {
    conn.prepare("SELECT hash FROM run_log WHERE run = ?1 AND seq = ?2")?
        .query_row(params![run.as_str(), to_sql(seq.0)], |row| row.get(0))
        .optional()
}
