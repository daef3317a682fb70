//! What is in a run's log? Read in order, with every hash and every link checked on the way.

use lidless_core::id::Seq;
use rusqlite::{Connection, params};

use super::Stop;
use super::rows::{LogRow, RunRow, hash_at};
use crate::runstore::error::{Place, ReadError};
use crate::runstore::record::{LogPage, PageLimit, RunKey};
use crate::sqlite::{GENESIS, to_sql};

/// Reads a page of one run.
pub(super) fn read(
    conn: &Connection,
    run: &RunKey,
    from: Seq,
    limit: usize,
) -> Result<LogPage, Stop<ReadError>> {
    let Some(head) = RunRow::find(conn, run)? else {
        return Ok(LogPage { records: Vec::new(), last: Seq(0) });
    };
    if !head.kept {
        return Err(Stop::Answer(ReadError::Compacted));
    }
    let missing = |seq| Stop::Corrupt(Place::record(run, seq), "it is missing");
    let from = from.max(Seq(1));
    let (mut records, mut page) = (Vec::new(), PageLimit::new(limit));
    if from > head.last {
        return Ok(LogPage { records, last: head.last });
    }
    let mut prev = match Seq(from.0 - 1) {
        Seq(0) => GENESIS.to_vec(),
        before => hash_at(conn, run, before)?.ok_or_else(|| missing(before))?,
    };
    let query = format!("SELECT {} FROM run_log WHERE run = ?1 AND seq >= ?2 ORDER BY seq", LogRow::COLUMNS);
    let mut statement = conn.prepare(&query)?;
    let mut rows = statement.query(params![run.as_str(), to_sql(from.0)])?;
    let mut expected = from;
    while expected <= head.last && !page.is_reached() {
        let row = rows.next()?.ok_or_else(|| missing(expected))?;
        let row = LogRow::read(row)?;
        if row.record.seq != expected || row.record.run != *run {
            return Err(missing(expected));
        }
        if row.prev != prev {
            let why = "it does not follow the record before it";
            return Err(Stop::Corrupt(Place::record(run, expected), why));
        }
        if expected == head.last && row.hash != head.tip {
            let why = "it is not the record that the run ended with when it was written";
            return Err(Stop::Corrupt(Place::record(run, expected), why));
        }
        prev = row.hash;
        page.count(&row.record);
        records.push(row.record);
        expected = expected.next();
    }
    Ok(LogPage { records, last: head.last })
}
