//! What has come since? Batches in the order of the store; or that some may be gone.

use std::time::{Duration, Instant};

use lidless_core::id::Seq;
use rusqlite::Connection;

use super::Stop;
use super::rows::{LogRow, hash_at, read_store};
use crate::runstore::error::{Place, WatchError};
use crate::runstore::record::{LogRecord, PageLimit, Revision, WatchPage};
use crate::sqlite::{GENESIS, to_sql};

/// Between two looks: SQLite tells no other process that something has come.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until there is something, or patience ends.
pub(super) fn wait(
    patience: Duration,
    mut look: impl FnMut() -> Result<WatchPage, WatchError>,
) -> Result<WatchPage, WatchError> {
    let begun = Instant::now();
    loop {
        let page = look()?;
        let left = patience.saturating_sub(begun.elapsed());
        if !page.records.is_empty() || left.is_zero() {
            return Ok(page);
        }
        std::thread::sleep(left.min(PAUSE));
    }
}

/// Reads a page of the store from revision `from` on.
pub(super) fn watch(conn: &Connection, from: Revision, limit: usize) -> Result<WatchPage, Stop<WatchError>> {
    let store = read_store(conn)?;
    let from = from.max(Revision(1));
    if from > store.revision.next() {
        return Err(Stop::Answer(WatchError::Ahead { last: store.revision }));
    }
    if from <= store.trimmed {
        return Err(Stop::Answer(WatchError::Compacted { first: store.trimmed.next() }));
    }
    let query =
        format!("SELECT {} FROM run_log WHERE revision >= ?1 ORDER BY revision, seq", LogRow::COLUMNS);
    let mut statement = conn.prepare(&query)?;
    let mut rows = statement.query([to_sql(from.0)])?;
    let (mut records, mut page) = (Vec::<LogRecord>::new(), PageLimit::new(limit));
    while let Some(row) = rows.next()? {
        let LogRow { record, prev, .. } = LogRow::read(row)?;
        let begun = records.last().is_some_and(|last| last.revision == record.revision);
        if page.is_reached() && !begun {
            return Ok(WatchPage { records, next: record.revision });
        }
        // A row that was deleted is missed by the next one of its run.
        let before = match Seq(record.seq.0.saturating_sub(1)) {
            Seq(0) => Some(GENESIS.to_vec()),
            before => hash_at(conn, &record.run, before)?,
        };
        if before != Some(prev) {
            let why = "it does not follow the record before it";
            return Err(Stop::Corrupt(Place::record(&record.run, record.seq), why));
        }
        page.count(&record);
        records.push(record);
    }
    Ok(WatchPage { records, next: store.revision.next() })
}
