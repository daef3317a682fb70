//! Who may drive a run? The lease is read and written in one transaction.

use std::time::Duration;

use rusqlite::Connection;

use super::Stop;
use super::rows::{LeaseRow, RunRow, next_revision};
use crate::runstore::clock::LeaseTime;
use crate::runstore::error::{AcquireError, LeaseError};
use crate::runstore::record::{Epoch, Lease, Owner, RunKey, RunState};

/// Takes the lease, if nobody else has it.
pub(super) fn acquire(
    conn: &Connection,
    now: &LeaseTime,
    run: &RunKey,
    owner: &Owner,
    ttl: Duration,
) -> Result<Lease, Stop<AcquireError>> {
    if RunRow::find(conn, run)?.is_some_and(|row| row.state == RunState::Ended) {
        return Err(Stop::Answer(AcquireError::Ended));
    }
    let held = LeaseRow::find(conn, run)?.filter(|lease| lease.is_live(now) && lease.owner != *owner);
    if let Some(held) = held {
        return Err(Stop::Answer(AcquireError::Held { by: held.owner }));
    }
    let epoch = Epoch(next_revision(conn)?.0);
    let until = LeaseTime { era: now.era.clone(), since: now.since + ttl };
    LeaseRow { run: run.clone(), owner: owner.clone(), epoch, ttl, until }.write(conn)?;
    Ok(Lease { epoch, ttl })
}

/// Lets the lease last longer.
pub(super) fn renew(
    conn: &Connection,
    now: &LeaseTime,
    run: &RunKey,
    epoch: Epoch,
) -> Result<Duration, Stop<LeaseError>> {
    let mut lease = live(conn, now, run, epoch)?.ok_or(Stop::Answer(LeaseError::Lost))?;
    lease.until.since = now.since + lease.ttl;
    lease.write(conn)?;
    Ok(lease.ttl)
}

/// Gives the lease back.
pub(super) fn release(
    conn: &Connection,
    now: &LeaseTime,
    run: &RunKey,
    epoch: Epoch,
) -> Result<(), Stop<LeaseError>> {
    live(conn, now, run, epoch)?.ok_or(Stop::Answer(LeaseError::Lost))?;
    conn.execute("DELETE FROM run_lease WHERE run = ?1", [run.as_str()])?;
    Ok(())
}

/// Returns the lease, if it is live and has this epoch.
pub(super) fn live<E>(
    conn: &Connection,
    now: &LeaseTime,
    run: &RunKey,
    epoch: Epoch,
) -> Result<Option<LeaseRow>, Stop<E>> {
    Ok(LeaseRow::find(conn, run)?.filter(|lease| lease.epoch == epoch && lease.is_live(now)))
}
