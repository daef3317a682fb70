//! How does a batch become durable? Fence, state and slot are compared in the transaction that writes it.

use lidless_core::id::Seq;
use rusqlite::{Connection, params};

use super::Stop;
use super::lease::live;
use super::rows::{RunRow, next_revision, record_hash};
use crate::runstore::clock::LeaseTime;
use crate::runstore::error::AppendError;
use crate::runstore::record::{Batch, LogRecord, Revision, RunState};
use crate::sqlite::{GENESIS, to_sql};

/// Appends the batch, if its owner still may.
pub(super) fn append(conn: &Connection, now: &LeaseTime, batch: &Batch) -> Result<Seq, Stop<AppendError>> {
    if live(conn, now, &batch.run, batch.epoch)?.is_none() {
        return Err(Stop::Answer(AppendError::Fenced));
    }
    let mut run = RunRow::find(conn, &batch.run)?.unwrap_or_else(|| RunRow {
        run: batch.run.clone(),
        state: RunState::Active,
        last: Seq(0),
        revision: Revision(0),
        kept: true,
        tip: GENESIS.to_vec(),
    });
    let last = run.last;
    if run.state == RunState::Ended {
        return Err(Stop::Answer(AppendError::Ended));
    }
    if batch.expect <= last {
        return Err(Stop::Answer(AppendError::SeqTaken { last }));
    }
    if batch.expect > last.next() {
        return Err(Stop::Answer(AppendError::Gap { last }));
    }
    run.revision = next_revision(conn)?;
    let mut insert = conn.prepare("INSERT INTO run_log VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    for entry in &batch.entries {
        run.last = run.last.next();
        let record = LogRecord {
            run: batch.run.clone(),
            seq: run.last,
            revision: run.revision,
            epoch: batch.epoch,
            id: entry.id,
            body: entry.body.clone(),
        };
        let hash = record_hash(&run.tip, &record);
        insert.execute(params![
            record.run.as_str(),
            to_sql(record.seq.0),
            to_sql(record.revision.0),
            to_sql(record.epoch.0),
            record.id.0.as_slice(),
            record.body,
            run.tip,
            hash.as_slice(),
        ])?;
        run.tip = hash.to_vec();
    }
    run.state = batch.state;
    run.write(conn)?;
    Ok(run.last)
}
