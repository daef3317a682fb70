//! What may go? The records of runs that have ended long enough ago; that they have ended stays.

use rusqlite::Connection;

use super::Stop;
use super::rows::{RunRow, StoreRow, read_store, write_store};
use crate::runstore::error::StoreError;
use crate::runstore::record::{Revision, RunState};
use crate::sqlite::to_sql;

/// How many runs one transaction removes the records of.
const STEP: usize = 100;

/// Raises the watermark, removes the records of some runs; returns the watermark, and whether there are more of them.
pub(super) fn trim_some(
    conn: &Connection,
    watermark: Revision,
) -> Result<(Revision, bool), Stop<StoreError>> {
    let store = read_store(conn)?;
    let trimmed = store.trimmed.max(watermark.min(store.revision));
    write_store(conn, StoreRow { trimmed, ..store })?;
    let query = format!(
        "SELECT {} FROM run WHERE state = 'ended' AND kept = 1 AND revision <= ?1 ORDER BY revision LIMIT {STEP}",
        RunRow::COLUMNS
    );
    let mut over: Vec<RunRow> = Vec::new();
    let mut statement = conn.prepare(&query)?;
    let mut rows = statement.query([to_sql(trimmed.0)])?;
    while let Some(row) = rows.next()? {
        over.push(RunRow::read(row)?);
    }
    drop(rows);
    let more = over.len() == STEP;
    for run in over.into_iter().filter(|run| run.state == RunState::Ended) {
        conn.prepare("DELETE FROM run_log WHERE run = ?1")?.execute([run.run.as_str()])?;
        conn.prepare("DELETE FROM run_lease WHERE run = ?1")?.execute([run.run.as_str()])?;
        RunRow { kept: false, ..run }.write(conn)?;
    }
    Ok((trimmed, more))
}
