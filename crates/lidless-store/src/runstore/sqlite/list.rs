//! Which runs are there, and who drives them?

use rusqlite::{Connection, params};

use super::Stop;
use super::rows::{LeaseRow, RunRow, read_store, state_name};
use crate::runstore::clock::LeaseTime;
use crate::runstore::error::StoreError;
use crate::runstore::record::{LeaseView, PAGE_MAX, RunFilter, RunHead, RunKey, RunPage, RunState};

/// Reads a page of runs.
pub(super) fn list(
    conn: &Connection,
    now: &LeaseTime,
    filter: RunFilter,
    after: Option<&RunKey>,
    limit: usize,
) -> Result<RunPage, Stop<StoreError>> {
    let state = match filter {
        RunFilter::All => None,
        RunFilter::In(state) => Some(state_name(state)),
        RunFilter::Claimable => Some(state_name(RunState::Active)),
    };
    let wanted = match state {
        Some(_) => "state = ?2 AND run > ?1",
        None => "?2 IS NULL AND run > ?1",
    };
    let query = format!("SELECT {} FROM run WHERE {wanted} ORDER BY run", RunRow::COLUMNS);
    let mut statement = conn.prepare(&query)?;
    let mut rows = statement.query(params![after.map_or("", RunKey::as_str), state])?;
    let (mut runs, limit) = (Vec::new(), limit.clamp(1, PAGE_MAX));
    while runs.len() < limit {
        let Some(row) = rows.next()? else { break };
        let row = RunRow::read(row)?;
        // Here and not in the query, so that a lease whose row was damaged hides no run.
        let lease = LeaseRow::find(conn, &row.run)?.filter(|lease| lease.is_live(now));
        let lease = lease.map(|lease| LeaseView { owner: lease.owner, epoch: lease.epoch });
        if filter == RunFilter::Claimable && lease.is_some() {
            continue;
        }
        runs.push(RunHead { run: row.run, state: row.state, last: row.last, lease });
    }
    let full = runs.len() == limit;
    let next = runs.last().filter(|_| full).map(|head| head.run.clone());
    Ok(RunPage { runs, at: read_store(conn)?.revision, next })
}
