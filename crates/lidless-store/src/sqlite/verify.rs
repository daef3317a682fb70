//! Is the journal what was written? Walks every row beside a running daemon, and names the first broken one.
//!
//! Told apart: a changed row, a rewritten row with a fitting hash of its own, rows missing in the middle, rows missing at
//! the end, a file that is cut short, damage to SQLite's own structure, an unsound snapshot. What cannot be told: an end
//! that was cut off by somebody who also rewrote the head.

use std::path::Path;

use lidless_core::event::Record;
use lidless_core::id::Seq;
use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, Row, Statement, TransactionBehavior};

use super::append::{micros, to_sql};
use super::chain::GENESIS;
use super::fail::Named;
use super::file::{CutShort, cut_short, explain};
use super::mark::{self, Acknowledged};
use super::open::{open_reader, read_head};
use super::problem::{Problem, VerifyError, VerifyReport};
use super::replay::{RawRow, at};
use super::schema::{self, Identity};
use super::{snapshot, wal};
use crate::{JournalError, filing};

/// Rows in one read transaction: a longer one would keep the daemon's log from being emptied.
const ROWS_PER_TRANSACTION: usize = 4096;

/// Problems listed; the first is what counts.
const PROBLEMS_MAX: usize = 100;

/// Verifies the journal at `path` without changing it. `progress` is told how many rows are done, of how many.
pub fn verify(path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, VerifyError> {
    let mut walk = Walk {
        path,
        report: VerifyReport::default(),
        prev: GENESIS.to_vec(),
        next: Seq(1),
        probing: true,
        cut: None,
        // Before the first look at the journal, which a daemon may be writing.
        mark: mark::read(path),
    };
    match walk.run(progress) {
        Ok(()) => {}
        Err(err) => walk.stopped(err)?,
    }
    Ok(walk.report)
}

struct Walk<'a> {
    path: &'a Path,
    report: VerifyReport,
    /// The hash of the row before.
    prev: Vec<u8>,
    /// The row that should come.
    next: Seq,
    /// Whether the indexes are asked for each row: until one is found damaged.
    probing: bool,
    /// What is missing of the file, where it could be opened all the same.
    cut: Option<CutShort>,
    /// What must be there, because it was acknowledged.
    mark: Option<Acknowledged>,
}

impl Walk<'_> {
    fn run(&mut self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), JournalError> {
        let mut conn = open_reader(self.path)?;
        let identity = match schema::identify(&conn, self.path) {
            Err(JournalError::Corrupt { .. }) => {
                // It lets SQLite read a file with fewer pages than its header names, as far as that goes. The connection
                // stays read-only.
                conn.execute_batch("PRAGMA writable_schema = ON").named(self.path, "read")?;
                let identity = schema::identify(&conn, self.path)?;
                self.cut = cut_short(self.path);
                identity
            }
            identity => identity?,
        };
        match identity {
            Identity::Journal => {}
            Identity::Empty => return Err(JournalError::NotAJournal { path: self.path.to_owned() }),
        }
        while !self.slice(&mut conn, progress)? {}
        self.snapshots(&conn)?;
        if let Some(CutShort { bytes, pages_expected }) = self.cut {
            self.problem(Problem::CutShort { bytes, pages_expected, row: None });
        }
        Ok(())
    }

    /// Walks one slice; true when it was the last.
    fn slice(
        &mut self,
        conn: &mut Connection,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<bool, JournalError> {
        let path = self.path;
        let transaction =
            conn.transaction_with_behavior(TransactionBehavior::Deferred).named(path, "read")?;
        // Head and rows are of one moment, also while the daemon writes.
        let (head_seq, head_hash) = read_head(&transaction, path)?;
        let query = format!(
            "SELECT {}, kind, wall_ms, mono_us FROM journal WHERE seq >= ?1 ORDER BY seq LIMIT ?2",
            RawRow::COLUMNS
        );
        let mut probes = Probes::prepare(&transaction).named(path, "read")?;
        let mut statement = transaction.prepare(&query).named(path, "read")?;
        let limit = i64::try_from(ROWS_PER_TRANSACTION).unwrap_or(i64::MAX);
        let mut rows = statement.query([to_sql(self.next.0), limit]).named(path, "read")?;
        let mut count = 0;
        while let Some(row) = rows.next().map_err(|err| at(path, self.next, err))? {
            count += 1;
            let seq = Seq(row.get::<_, i64>(0).ok().and_then(|seq| u64::try_from(seq).ok()).unwrap_or(0));
            let read = RawRow::read(row);
            // What is beyond the cut reads as zeros, and there is no sense in listing those.
            let lost =
                self.cut.is_some() && !read.as_ref().is_ok_and(|raw| seq == self.next && raw.is_sound());
            if lost || seq < self.next {
                let why = format!("row {seq} comes where row {} should", self.next);
                return Err(JournalError::Corrupt { path: path.to_owned(), seq: Some(self.next), why });
            }
            match read {
                Ok(raw) => {
                    let sound = self.row(&raw, row);
                    if sound && self.probing && self.cut.is_none() && !probes.find(row).unwrap_or(false) {
                        self.probing = false;
                        self.problem(Problem::Unindexed { row: raw.seq });
                    }
                }
                Err(err @ rusqlite::Error::SqliteFailure(..)) => return Err(at(path, self.next, err)),
                // A type that was never written there: a flipped bit in the row's own header.
                Err(_) => self.unreadable(seq),
            }
        }
        drop(rows);
        progress(self.report.rows, head_seq.0.max(self.report.rows));
        if count == ROWS_PER_TRANSACTION {
            return Ok(false);
        }
        self.end(head_seq, &head_hash);
        Ok(true)
    }

    /// Checks one row; true where its content is as it was written.
    fn row(&mut self, raw: &RawRow, row: &Row<'_>) -> bool {
        let gap = self.step_to(raw.seq);
        let mut sound = raw.is_sound();
        if !sound {
            self.problem(Problem::Changed { row: raw.seq });
        } else {
            // After a gap the link is broken for a reason that was named already. The link itself is sound, so that the
            // blame goes to the row before.
            if raw.prev != self.prev && !gap && self.report.rows > 0 {
                let before = Seq(raw.seq.0 - 1);
                if !self.blamed(before) {
                    self.problem(Problem::Rewritten { row: before });
                }
            } else if raw.prev != self.prev && !gap {
                self.problem(Problem::Rewritten { row: raw.seq });
            }
            let other = |mark: Acknowledged| mark.seq == raw.seq && mark.hash.as_slice() != raw.hash;
            if self.mark.is_some_and(other) && !self.blamed(raw.seq) {
                self.problem(Problem::Rewritten { row: raw.seq });
            }
            let fault = derived(raw, row);
            sound = fault.is_none();
            fault.into_iter().for_each(|fault| self.problem(fault));
        }
        self.prev.clone_from(&raw.hash);
        self.count(raw.seq);
        sound
    }

    fn unreadable(&mut self, seq: Seq) {
        self.step_to(seq);
        self.problem(Problem::Changed { row: seq });
        self.prev = Vec::new();
        self.count(seq);
    }

    /// Notes the rows missing before `seq`; true where there are some.
    fn step_to(&mut self, seq: Seq) -> bool {
        if seq <= self.next {
            return false;
        }
        self.problem(Problem::Missing { from: self.next, to: Seq(seq.0 - 1) });
        true
    }

    fn count(&mut self, seq: Seq) {
        self.report.rows += 1;
        self.report.first.get_or_insert(seq);
        self.report.last = Some(seq);
        self.report.chain_head = self.prev.as_slice().try_into().unwrap_or(GENESIS);
        self.next = seq.next();
    }

    fn end(&mut self, head_seq: Seq, head_hash: &[u8]) {
        let last = self.report.last.unwrap_or(Seq(0));
        if last < head_seq {
            self.problem(Problem::TailMissing { from: last.next(), to: head_seq });
        } else if last > head_seq {
            self.problem(Problem::Surplus { from: head_seq.next() });
        } else if self.prev != head_hash && !self.blamed(last) {
            self.problem(Problem::Rewritten { row: last });
        }
        if let Some(mark) = self.mark.filter(|mark| mark.seq > last.max(head_seq)) {
            let (from, damaged) = (last.max(head_seq).next(), wal::is_damaged(self.path));
            self.problem(Problem::LogLost { from, to: mark.seq, damaged });
        }
    }

    fn snapshots(&mut self, conn: &Connection) -> Result<(), JournalError> {
        for seq in snapshot::positions(conn, self.path)? {
            let fault = match snapshot::read(conn, self.path, seq) {
                // Replaced by a newer one since the list was read.
                Ok(None) => continue,
                Ok(Some(raw)) => {
                    raw.fault(snapshot::record_hash(conn, self.path, seq)?.as_deref()).map(str::to_owned)
                }
                Err(JournalError::Corrupt { why, .. }) => Some(why),
                Err(err) => return Err(err),
            };
            match fault {
                None => self.report.snapshots_ok += 1,
                Some(why) => self.problem(Problem::Snapshot { at: seq, why }),
            }
        }
        Ok(())
    }

    /// Says what it means that the walk could not go on.
    fn stopped(&mut self, err: JournalError) -> Result<(), VerifyError> {
        // Only where SQLite gave up: while a daemon moves pages into the file, its length alone means nothing.
        let in_doubt = matches!(
            err,
            JournalError::Corrupt { .. } | JournalError::NotAJournal { .. } | JournalError::Io { .. }
        );
        let cut = if in_doubt { cut_short(self.path) } else { None };
        match (cut, explain(self.path, err)) {
            (Some(CutShort { bytes, pages_expected }), _) => {
                self.problem(Problem::CutShort { bytes, pages_expected, row: Some(self.next) });
            }
            (None, JournalError::Corrupt { why, .. }) => {
                self.problem(Problem::Malformed { row: self.next, why })
            }
            (None, source) => return Err(VerifyError::Read { path: self.path.to_owned(), source }),
        }
        Ok(())
    }

    /// Returns whether the last problem noted already names this row.
    fn blamed(&self, row: Seq) -> bool {
        match self.report.problems.last() {
            Some(
                Problem::Changed { row: named }
                | Problem::Rewritten { row: named }
                | Problem::Column { row: named, .. }
                | Problem::Undecodable { row: named, .. },
            ) => *named == row,
            Some(
                Problem::Missing { .. }
                | Problem::TailMissing { .. }
                | Problem::LogLost { .. }
                | Problem::Surplus { .. }
                | Problem::Unindexed { .. }
                | Problem::CutShort { .. }
                | Problem::Malformed { .. }
                | Problem::Snapshot { .. },
            )
            | None => false,
        }
    }

    fn problem(&mut self, problem: Problem) {
        if self.report.problems.len() < PROBLEMS_MAX {
            self.report.problems.push(problem);
        }
    }
}

/// Compares the columns that the hash does not cover with the body, which it does.
fn derived(raw: &RawRow, row: &Row<'_>) -> Option<Problem> {
    let record: Record = match serde_json::from_slice(&raw.body) {
        Ok(record) => record,
        Err(err) => return Some(Problem::Undecodable { row: raw.seq, why: err.to_string() }),
    };
    let columns = [
        ("kind", row.get::<_, String>(5).is_ok_and(|kind| kind == filing::kind(&record.event))),
        ("wall_ms", row.get::<_, i64>(6).is_ok_and(|wall_ms| wall_ms == record.at.wall_ms)),
        ("mono_us", row.get::<_, i64>(7).is_ok_and(|mono_us| mono_us == micros(&record))),
    ];
    let (column, _) = columns.into_iter().find(|(_, fits)| !fits)?;
    Some(Problem::Column { row: raw.seq, column })
}

/// Asks the indexes for a row that the table has.
struct Probes<'conn> {
    by_kind: Statement<'conn>,
    by_service: Statement<'conn>,
}

impl<'conn> Probes<'conn> {
    fn prepare(conn: &'conn Connection) -> rusqlite::Result<Self> {
        Ok(Probes {
            by_kind: conn
                .prepare("SELECT 1 FROM journal INDEXED BY journal_by_kind WHERE kind = ?1 AND seq = ?2")?,
            by_service: conn.prepare(
                "SELECT 1 FROM journal INDEXED BY journal_by_service WHERE service = ?1 AND seq = ?2",
            )?,
        })
    }

    fn find(&mut self, row: &Row<'_>) -> rusqlite::Result<bool> {
        let (seq, service): (i64, Option<u32>) = (row.get(0)?, row.get(1)?);
        let kind = row.get_ref(5)?;
        let by_kind = self.by_kind.exists(rusqlite::params![ToSqlOutput::Borrowed(kind), seq])?;
        let by_service = match service {
            Some(service) => self.by_service.exists(rusqlite::params![service, seq])?,
            None => true,
        };
        Ok(by_kind && by_service)
    }
}
