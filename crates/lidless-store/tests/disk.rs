//! What happens when the disk is really full, or really fails?
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "support/small_disk.rs"]
mod small_disk;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use lidless_core::id::Seq;
use lidless_store::conformance::records;
use lidless_store::{Journal, JournalError, SqliteJournal, Writer, WriterEvent, WriterOptions, verify};
use small_disk::{DIRECTORY, OWN_MOUNTS, child, succeed};

/// Longer than any of this takes, shorter than a person's patience.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_full_disk_loses_nothing_and_is_written_again_when_there_is_space() {
    let directory = tempfile::tempdir().unwrap();
    let mount = format!("mount -t tmpfs -o size=1m none '{}'", directory.path().display());
    let can = Command::new(OWN_MOUNTS[0]).args(&OWN_MOUNTS[1..]).args(["sh", "-c", &mount]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        println!("skipped: mounting a small disk needs root (CAP_SYS_ADMIN) and `unshare`");
        return;
    }
    succeed(&child(&OWN_MOUNTS, &mount, "child_fills_its_disk", directory.path()));
    succeed(&child(&OWN_MOUNTS, &mount, "child_writes_through_a_full_disk", directory.path()));
}

#[test]
fn child_fills_its_disk() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let path = Path::new(&directory).join("journal.db");
    let ballast = Path::new(&directory).join("ballast");
    fs::write(&ballast, vec![0; 300_000]).unwrap();
    let mut journal = SqliteJournal::open(&path).unwrap();
    let mut end = 0;
    let err = loop {
        match journal.append(&records(end + 1, end + 10)) {
            Ok(seq) => end = seq.0,
            Err(err) => break err,
        }
    };
    assert!(matches!(err, JournalError::Full { .. }), "{err:?}");
    assert!(end >= 10, "some of it fitted");
    // It stays so, and reading goes on.
    assert!(matches!(journal.append(&records(end + 1, end + 10)), Err(JournalError::Full { .. })));
    let mut seen = Vec::new();
    journal.replay(Seq(1), &mut |record| seen.push(record)).unwrap();
    assert_eq!(seen, records(1, end));
    assert_eq!(verify(&path, &mut |_, _| {}).unwrap().problems, []);
    // The same handle, once there is space.
    fs::remove_file(&ballast).unwrap();
    assert_eq!(journal.append(&records(end + 1, end + 10)).unwrap(), Seq(end + 10));
    drop(journal);
    let mut journal = SqliteJournal::open(&path).unwrap();
    assert_eq!(journal.last().unwrap().unwrap().0, Seq(end + 10));
    assert_eq!(verify(&path, &mut |_, _| {}).unwrap().rows, end + 10);
    println!("done");
}

#[test]
fn child_writes_through_a_full_disk() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let path = Path::new(&directory).join("journal.db");
    let ballast = Path::new(&directory).join("ballast");
    fs::write(&ballast, vec![0; 500_000]).unwrap();
    let (writer, events) = start_writer(&path);
    let deadline = Instant::now() + PATIENCE;
    let wait = || events.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap();
    let mut end = 0;
    loop {
        writer.submit(records(end + 1, end + 10)).unwrap();
        end += 10;
        match wait() {
            WriterEvent::Durable(Seq(seq)) if seq == end => {}
            WriterEvent::Failed(JournalError::Full { .. }) => break,
            other => panic!("{other:?}"),
        }
    }
    // What happens meanwhile waits in memory.
    writer.submit(records(end + 1, end + 50)).unwrap();
    fs::remove_file(&ballast).unwrap();
    loop {
        match wait() {
            WriterEvent::Recovered => break,
            WriterEvent::Durable(_) => {}
            other => panic!("{other:?}"),
        }
    }
    writer.close(PATIENCE).unwrap();
    let report = verify(&path, &mut |_, _| {}).unwrap();
    assert_eq!((report.rows, report.problems), (end + 50, vec![]));
    println!("done");
}

fn start_writer(path: &Path) -> (Writer, mpsc::Receiver<WriterEvent>) {
    let journal = Box::new(SqliteJournal::open(path).unwrap());
    let options = WriterOptions { retry_every: Duration::from_millis(20), ..WriterOptions::default() };
    let (say, events) = mpsc::channel();
    let writer = Writer::spawn(journal, options, move |event| say.send(event).unwrap()).unwrap();
    (writer, events)
}

#[test]
fn failing_fsyncs_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let trace = |script: &'static str| ["strace", "-f", "-qq", "-o", "/dev/null", "-e", script];
    let can = Command::new("strace").args(&trace("trace=none")[1..]).arg("true").output();
    if !can.is_ok_and(|output| output.status.success()) {
        println!("skipped: letting fsync fail needs `strace`, and the right to trace");
        return;
    }
    // From the fifteenth on every seventh fails, also while the journal is reopened because of the one before.
    let failing = trace("inject=fsync:error=EIO:when=15+7");
    succeed(&child(&failing, "true", "child_writes_through_failing_fsyncs", directory.path()));
    let report = verify(&directory.path().join("journal.db"), &mut |_, _| {}).unwrap();
    assert_eq!((report.rows, report.problems), (300, vec![]));
}

#[test]
fn child_writes_through_failing_fsyncs() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let path = Path::new(&directory).join("journal.db");
    let (writer, events) = start_writer(&path);
    let deadline = Instant::now() + PATIENCE;
    let (mut failed, mut recovered) = (0, 0);
    for end in (3..=300).step_by(3) {
        writer.submit(records(end - 2, end)).unwrap();
        loop {
            match events.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap() {
                WriterEvent::Durable(Seq(seq)) if seq == end => break,
                WriterEvent::Failed(JournalError::Io { .. }) => failed += 1,
                WriterEvent::Recovered => recovered += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    writer.close(PATIENCE).unwrap();
    recovered += events.iter().filter(|event| matches!(event, WriterEvent::Recovered)).count();
    assert!(failed > 5, "{failed} failures");
    assert_eq!(failed, recovered);
    println!("done");
}

#[test]
fn a_failing_disk_poisons_the_handle_and_nothing_acknowledged_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    // Writing beyond the limit fails with EFBIG, which SQLite reports as an I/O error, like EIO.
    let limit = "trap '' XFSZ && ulimit -f 400";
    succeed(&child(&["env"], limit, "child_meets_an_io_error", directory.path()));
    // Without the limit, all that was acknowledged is there.
    let path = directory.path().join("journal.db");
    let acked: u64 = fs::read_to_string(directory.path().join("acked")).unwrap().parse().unwrap();
    let mut journal = SqliteJournal::open(&path).unwrap();
    assert_eq!(journal.last().unwrap().unwrap().0, Seq(acked));
    journal.append(&records(acked + 1, acked + 10)).unwrap();
    drop(journal);
    let report = verify(&path, &mut |_, _| {}).unwrap();
    assert_eq!((report.rows, report.problems), (acked + 10, vec![]));
}

#[test]
fn child_meets_an_io_error() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let path = Path::new(&directory).join("journal.db");
    let mut journal = SqliteJournal::open(&path).unwrap();
    let mut end = 0;
    let err = loop {
        match journal.append(&records(end + 1, end + 10)) {
            Ok(seq) => end = seq.0,
            Err(err) => break err,
        }
    };
    assert!(matches!(err, JournalError::Io { .. }), "{err:?}");
    // Poisoned: even what would fit is refused.
    for _ in 0..3 {
        let err = journal.append(&records(end + 1, end + 1)).unwrap_err();
        assert!(matches!(err, JournalError::Io { .. }), "{err:?}");
    }
    assert!(matches!(journal.last(), Err(JournalError::Io { .. })));
    // Reopened under the same lock it goes on: the log was emptied into the file.
    journal.reopen().unwrap();
    assert_eq!(journal.last().unwrap().unwrap().0, Seq(end));
    assert!(matches!(SqliteJournal::open(&path), Err(JournalError::Locked { .. })));
    end = journal.append(&records(end + 1, end + 1)).unwrap().0;
    fs::write(Path::new(&directory).join("acked"), end.to_string()).unwrap();
    println!("done");
}
