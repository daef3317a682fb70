//! What becomes of runs when the disk is really full, really fails, or lies?
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "support/small_disk.rs"]
mod small_disk;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use lidless_core::id::Seq;
use lidless_store::runstore::conformance::{batch, key, owner};
use lidless_store::runstore::{
    AppendError, Epoch, LogRecord, ManualClock, Patience, ReadError, Revision, RunFilter, RunState, RunStore,
    SqliteRunStore, StoreError, WatchError, append_settled,
};
use rusqlite::Connection;
use small_disk::{DIRECTORY, OWN_MOUNTS, child, succeed};

const TTL: std::time::Duration = std::time::Duration::from_secs(10);

fn open(path: &Path) -> SqliteRunStore {
    SqliteRunStore::open(path, Arc::new(ManualClock::new())).unwrap()
}

fn log(store: &mut SqliteRunStore) -> Vec<LogRecord> {
    let mut log: Vec<LogRecord> = Vec::new();
    loop {
        let page = store.read(&key(1), Seq(log.len() as u64 + 1), 1_000).unwrap();
        log.extend(page.records);
        if log.len() as u64 == page.last.0 {
            return log;
        }
    }
}

/// Compares the log with batches of `step` records, by one owner.
fn assert_batches(log: &[LogRecord], epoch: Epoch, step: u64, end: u64) {
    assert_eq!(log.len() as u64, end);
    for record in log {
        let first = (record.seq.0 - 1) / step * step + 1;
        let index = usize::try_from(record.seq.0 - first).unwrap();
        let wrote = &batch(&key(1), epoch, first, step, 0).entries[index];
        assert_eq!((record.epoch, record.id, &record.body), (epoch, wrote.id, &wrote.body));
    }
}

fn child_path() -> Option<PathBuf> {
    Some(PathBuf::from(std::env::var_os(DIRECTORY)?).join("runs.db"))
}

#[test]
fn on_a_full_disk_nothing_is_written_and_it_goes_on_when_there_is_space() {
    let directory = tempfile::tempdir().unwrap();
    let mount = format!("mount -t tmpfs -o size=1m none '{}'", directory.path().display());
    // The namespace that holds the small disk ends with the child, and the disk with it.
    let can = Command::new(OWN_MOUNTS[0]).args(&OWN_MOUNTS[1..]).args(["sh", "-c", &mount]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        println!("skipped: mounting a small disk needs root (CAP_SYS_ADMIN) and `unshare`");
        return;
    }
    succeed(&child(&OWN_MOUNTS, &mount, "child_fills_its_disk_with_runs", directory.path()));
}

#[test]
fn child_fills_its_disk_with_runs() {
    let Some(path) = child_path() else { return };
    let ballast = path.with_file_name("ballast");
    fs::write(&ballast, vec![0; 300_000]).unwrap();
    let (mut store, mut other) = (open(&path), open(&path));
    let epoch = store.acquire(&key(1), &owner(1), TTL).unwrap().epoch;
    let mut end = 0;
    let err = loop {
        match store.append(&batch(&key(1), epoch, end + 1, 10, 0)) {
            Ok(seq) => end = seq.0,
            Err(err) => break err,
        }
    };
    assert!(matches!(err, AppendError::Failed(StoreError::Full { .. })), "{err:?}");
    assert!(end >= 10, "some of it fitted");
    for _ in 0..3 {
        let err = store.append(&batch(&key(1), epoch, end + 1, 10, 0)).unwrap_err();
        assert!(matches!(err, AppendError::Failed(StoreError::Full { .. })), "{err:?}");
        // Nothing of it is seen by anybody.
        assert_batches(&log(&mut store), epoch, 10, end);
        assert_batches(&log(&mut other), epoch, 10, end);
    }
    // The same handle, once there is space.
    fs::remove_file(&ballast).unwrap();
    store.append(&batch(&key(1), epoch, end + 1, 10, 0)).unwrap();
    drop((store, other));
    assert_batches(&log(&mut open(&path)), epoch, 10, end + 10);
    println!("done");
}

#[test]
fn an_io_error_leaves_whole_batches_and_everything_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    // Writing beyond the limit fails with EFBIG, which SQLite reports as an I/O error, like EIO.
    let limit = "trap '' XFSZ && ulimit -f 400";
    succeed(&child(&["env"], limit, "child_meets_an_io_error_in_a_run", directory.path()));
    let path = directory.path().join("runs.db");
    let acked = fs::read_to_string(directory.path().join("acked")).unwrap();
    let (epoch, acked) = acked.split_once(' ').unwrap();
    let (epoch, acked): (Epoch, u64) = (Epoch(epoch.parse().unwrap()), acked.parse().unwrap());
    let mut store = open(&path);
    let there = log(&mut store);
    let end = there.len() as u64;
    assert!(end == acked || end == acked + 10, "{acked} were acknowledged, {end} are there");
    assert_batches(&there, epoch, 10, end);
    // What was unknown is settled without the limit.
    let batch = batch(&key(1), epoch, acked + 1, 10, 0);
    append_settled(&mut store, &batch, Patience { tries_max: 1, pause: &mut |_| {} }).unwrap();
    assert_batches(&log(&mut store), epoch, 10, acked + 10);
}

#[test]
fn child_meets_an_io_error_in_a_run() {
    let Some(path) = child_path() else { return };
    let mut store = open(&path);
    let epoch = store.acquire(&key(1), &owner(1), TTL).unwrap().epoch;
    let (mut acked, mut errors) = (0, 0);
    // Opened afresh, the log is emptied into the file, which may grow so far too: only then nothing goes on.
    while errors < 5 {
        let batch = batch(&key(1), epoch, acked + 1, 10, 0);
        match append_settled(&mut store, &batch, Patience { tries_max: 2, pause: &mut |_| {} }) {
            Ok(seq) => (acked, errors) = (seq.0, 0),
            Err(AppendError::Unknown | AppendError::Failed(StoreError::Unavailable { .. })) => errors += 1,
            Err(err) => panic!("{err:?}"),
        }
        fs::write(path.with_file_name("acked"), format!("{} {acked}", epoch.0)).unwrap();
    }
    println!("done");
}

fn trace(script: &str) -> [&str; 7] {
    ["strace", "-f", "-qq", "-o", "/dev/null", "-e", script]
}

fn can_trace() -> bool {
    let can = Command::new("strace").args(&trace("trace=none")[1..]).arg("true").output();
    let can = can.is_ok_and(|output| output.status.success());
    if !can {
        println!("skipped: letting fsync fail needs `strace`, and the right to trace");
    }
    can
}

#[test]
fn failing_fsyncs_are_settled() {
    let directory = tempfile::tempdir().unwrap();
    if !can_trace() {
        return;
    }
    // From the twentieth on every seventh fails, also while the store is opened again because of the one before.
    let failing = trace("inject=fsync:error=EIO:when=20+7");
    succeed(&child(&failing, "true", "child_settles_failing_fsyncs", directory.path()));
    assert_eq!(log(&mut open(&directory.path().join("runs.db"))).len(), 300);
}

#[test]
fn child_settles_failing_fsyncs() {
    let Some(path) = child_path() else { return };
    // A second process would do no harm either; a second handle shares the fate of the log.
    let (mut store, mut other) = (open(&path), open(&path));
    let epoch = store.acquire(&key(1), &owner(1), TTL).unwrap().epoch;
    let mut unknown = 0;
    for first in (1..=300).step_by(3) {
        let batch = batch(&key(1), epoch, first, 3, 0);
        loop {
            match store.append(&batch) {
                Ok(_) => break,
                Err(AppendError::Failed(err)) if err.is_retryable() => {}
                Err(AppendError::Unknown) => {
                    unknown += 1;
                    append_settled(&mut store, &batch, Patience { tries_max: 20, pause: &mut |_| {} })
                        .unwrap();
                    break;
                }
                Err(err) => panic!("{err:?}"),
            }
        }
        assert_batches(&log(&mut other), epoch, 3, first + 2);
    }
    assert!(unknown > 5, "{unknown} were unknown");
    println!("done");
}

#[test]
fn what_was_not_there_after_a_failed_fsync_does_not_come_back() {
    let directory = tempfile::tempdir().unwrap();
    if !can_trace() {
        return;
    }
    // One fsync fails, and the process dies soon after.
    let failing = trace("inject=fsync:error=EIO:when=25");
    let output = child(&failing, "true", "child_dies_after_a_failed_fsync", directory.path());
    let out = String::from_utf8_lossy(&output.stdout);
    let seen =
        out.lines().find_map(|line| line.strip_prefix("seen ")).unwrap_or_else(|| panic!("{output:?}"));
    let end = log(&mut open(&directory.path().join("runs.db"))).len();
    assert_eq!(seen, end.to_string());
}

#[test]
fn child_dies_after_a_failed_fsync() {
    let Some(path) = child_path() else { return };
    let mut store = open(&path);
    let epoch = store.acquire(&key(1), &owner(1), TTL).unwrap().epoch;
    // One who reads the newest keeps the log from being begun anew, and from being read anew.
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM run_log;").unwrap();
    for first in (1..).step_by(3) {
        match store.append(&batch(&key(1), epoch, first, 3, 0)) {
            Ok(_) => reader.execute_batch("END; BEGIN; SELECT count(*) FROM run_log;").unwrap(),
            Err(AppendError::Unknown) => {
                println!("seen {}", log(&mut store).len());
                // Nothing is closed in order.
                std::process::abort();
            }
            Err(err) => panic!("{err:?}"),
        }
    }
}

#[test]
fn any_change_of_a_row_is_found_when_it_is_read() {
    let changes = [
        "UPDATE run_log SET body = CAST(x'00' || substr(body, 2) AS BLOB) WHERE seq = 3",
        "UPDATE run_log SET id = zeroblob(16) WHERE seq = 3",
        "UPDATE run_log SET epoch = epoch + 1 WHERE seq = 3",
        "UPDATE run_log SET revision = revision + 1 WHERE seq = 3",
        "UPDATE run_log SET prev = zeroblob(32) WHERE seq = 3",
        "UPDATE run_log SET hash = zeroblob(32) WHERE seq = 3",
        "UPDATE run_log SET seq = 300 WHERE seq = 3",
        "UPDATE run_log SET run = 'run-0009' WHERE seq = 3",
        "DELETE FROM run_log WHERE seq = 3",
        "DELETE FROM run_log WHERE seq = 9",
        "UPDATE run SET last = 8",
        "UPDATE run SET last = 10",
        "UPDATE run SET state = 'held'",
        "UPDATE run SET state = 'hold'",
        "UPDATE run SET tip = zeroblob(32)",
        "UPDATE run SET kept = 0",
    ];
    for change in changes {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("runs.db");
        let mut store = open(&path);
        let epoch = store.acquire(&key(1), &owner(1), TTL).unwrap().epoch;
        for first in [1, 4, 7] {
            store.append(&batch(&key(1), epoch, first, 3, 0)).unwrap();
        }
        assert_eq!(Connection::open(&path).unwrap().execute(change, []).unwrap(), 1, "{change}");
        let err = store.read(&key(1), Seq(1), 100).unwrap_err();
        assert!(matches!(&err, ReadError::Failed(StoreError::Corrupt { .. })), "{change}: {err:?}");
        assert!(err.to_string().contains("run `run-0001`") || change.contains("run-0009"), "{change}: {err}");
        // A watch finds what is in its way; the run's own row and what is missing at its end are not.
        if change.contains("seq = 3") {
            let err = store.watch(Revision(1), 100, std::time::Duration::ZERO).unwrap_err();
            assert!(matches!(&err, WatchError::Failed(StoreError::Corrupt { .. })), "{change}: {err:?}");
        }
    }
}

#[test]
fn a_changed_lease_or_position_lets_nobody_write() {
    let changes = [
        "UPDATE run_lease SET epoch = epoch + 1",
        "UPDATE run_lease SET owner = 'host-2:4711'",
        "UPDATE run_lease SET until_us = until_us + 1",
        "UPDATE run_lease SET era = 'other'",
        "UPDATE store SET revision = revision - 1",
        "UPDATE store SET trimmed = 1",
        "DELETE FROM store",
    ];
    for change in changes {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("runs.db");
        let mut store = open(&path);
        let epoch = store.acquire(&key(1), &owner(1), TTL).unwrap().epoch;
        store.append(&batch(&key(1), epoch, 1, 3, 0)).unwrap();
        assert_eq!(Connection::open(&path).unwrap().execute(change, []).unwrap(), 1, "{change}");
        let err = store.append(&batch(&key(1), epoch, 4, 1, 0)).unwrap_err();
        assert!(matches!(err, AppendError::Failed(StoreError::Corrupt { .. })), "{change}: {err:?}");
        assert!(store.list(RunFilter::Claimable, None, 1).is_err(), "{change}");
    }
}

#[test]
fn it_keeps_to_its_own_files() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("state/runs.db");
    let mut store = open(&path);
    store.acquire(&key(1), &owner(1), TTL).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for suffix in ["", "-wal", "-shm"] {
        assert_eq!(mode(Path::new(&format!("{}{suffix}", path.display()))), 0o600, "{suffix}");
    }
    drop(store);
    // A newer one, the journal, text, and another database are left alone.
    let journal = root.path().join("journal.db");
    drop(lidless_store::SqliteJournal::open(&journal).unwrap());
    let text = root.path().join("notes.txt");
    fs::write(&text, "remember the milk\n".repeat(100)).unwrap();
    let empty = root.path().join("empty.db");
    fs::write(&empty, "").unwrap();
    for other in [&journal, &text, &empty] {
        let before = fs::read(other).unwrap();
        let err = SqliteRunStore::open(other, Arc::new(ManualClock::new())).err().unwrap();
        assert!(matches!(err, StoreError::NotARunStore { .. } | StoreError::Corrupt { .. }), "{err:?}");
        assert!(before == fs::read(other).unwrap());
    }
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let err = SqliteRunStore::open(&path, Arc::new(ManualClock::new())).err().unwrap();
    assert!(matches!(err, StoreError::SchemaTooNew { found: 7, known: 1, .. }), "{err:?}");
    // The journal takes no run store for one of its own.
    assert!(lidless_store::SqliteJournal::open(&path).is_err());
}

#[test]
fn trimming_many_runs_takes_several_steps() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(&directory.path().join("runs.db"));
    for run in 1..=250 {
        let epoch = store.acquire(&key(run), &owner(1), TTL).unwrap().epoch;
        let mut end = batch(&key(run), epoch, 1, 1, 0);
        end.state = RunState::Ended;
        store.append(&end).unwrap();
    }
    let end = store.list(RunFilter::All, None, 1).unwrap().at;
    assert_eq!(store.trim(Revision(end.0 - 1)).unwrap(), Revision(end.0 - 1));
    let kept = (1..=250).filter(|run| store.read(&key(*run), Seq(1), 1).is_ok()).collect::<Vec<_>>();
    assert_eq!(kept, [250]);
}
