//! What can this disk do, whatever is built upon it? One synced write after the other, and SQLite's own group commit.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::Problem;

/// The size of a record, as the design measured with.
const RECORD: usize = 256;
/// The file is overwritten in turn: as long as the writes that fit in it, so that no write makes it grow.
const RECORDS: u64 = 65_536;

/// Overwrites records in a file that is as long as it will ever be, each followed by `fdatasync`; returns how many a second.
pub fn synced_writes_per_s(dir: &Path, time: Duration) -> Result<f64, Problem> {
    let file = File::options().create(true).truncate(true).write(true).read(true).open(dir.join("probe"))?;
    let chunk = vec![1; 1 << 20];
    for at in 0..(RECORDS * RECORD as u64) >> 20 {
        file.write_all_at(&chunk, at << 20)?;
    }
    file.sync_all()?;
    let record = [2; RECORD];
    let began = Instant::now();
    let mut count = 0;
    while began.elapsed() < time {
        file.write_all_at(&record, count % RECORDS * RECORD as u64)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// Has `writers` threads wait for one record of their own after the other, made durable by one committer that takes all there
/// are; returns how many records a second. WAL, `synchronous=FULL`, an index, no hash chain: plain SQLite.
pub fn group_commits_per_s(dir: &Path, writers: usize, time: Duration) -> Result<f64, Problem> {
    let path = dir.join("group.db");
    for name in ["group.db", "group.db-wal", "group.db-shm"] {
        drop(std::fs::remove_file(dir.join(name)));
    }
    let conn = Connection::open(path)?;
    conn.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
         CREATE TABLE record (seq INTEGER PRIMARY KEY, ts INTEGER, amount INTEGER, body BLOB);
         CREATE INDEX record_ts ON record (ts, amount);",
    )?;
    let (send, inbox) = mpsc::sync_channel::<SyncSender<()>>(writers);
    let ends = Instant::now() + time;
    let threads: Vec<_> = (0..writers)
        .map(|_| {
            let send = send.clone();
            std::thread::spawn(move || {
                let (durable, wait) = mpsc::sync_channel(1);
                let mut count = 0_u64;
                while Instant::now() < ends && send.send(durable.clone()).is_ok() && wait.recv().is_ok() {
                    count += 1;
                }
                count
            })
        })
        .collect();
    drop(send);
    let began = Instant::now();
    commit(&conn, &inbox)?;
    let took = began.elapsed();
    let counts = threads.into_iter().map(|thread| thread.join().map_err(|_| "a writer panicked"));
    let count = counts.sum::<Result<u64, _>>()?;
    Ok(count as f64 / took.as_secs_f64())
}

fn commit(conn: &Connection, inbox: &Receiver<SyncSender<()>>) -> Result<(), Problem> {
    let body = [3_u8; RECORD];
    let mut insert = conn.prepare("INSERT INTO record VALUES (?1, ?2, ?3, ?4)")?;
    let mut seq = 0_i64;
    while let Ok(first) = inbox.recv() {
        let batch: Vec<_> = std::iter::once(first).chain(inbox.try_iter()).collect();
        let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
        for _ in &batch {
            seq += 1;
            insert.execute(params![seq, seq, seq, body.as_slice()])?;
        }
        transaction.commit()?;
        for durable in batch {
            // Whoever waited may have come to its end.
            let _ended = durable.send(());
        }
    }
    Ok(())
}
