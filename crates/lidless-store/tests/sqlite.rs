//! Does the SQLite journal keep to itself: one owner, its own files, its own versions, readers beside it?
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use lidless_core::check::{CheckFailure, FailureKind};
use lidless_core::event::{Because, Event, Record};
use lidless_core::health::Health;
use lidless_core::id::{CheckId, IncidentId, Seq, ServiceId};
use lidless_core::spec::Spec;
use lidless_core::time::Now;
use lidless_store::conformance::records;
use lidless_store::{EventFilter, Journal, JournalError, SqliteJournal, SqliteReader, verify};
use rusqlite::Connection;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn only_the_owner_can_read_what_is_created() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("state/lidless/journal.db");
    let mut journal = SqliteJournal::open(&path).unwrap();
    journal.append(&records(1, 3)).unwrap();
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for suffix in ["", "-wal", "-shm", ".lock"] {
        assert_eq!(mode(Path::new(&format!("{}{suffix}", path.display()))), 0o600, "{suffix}");
    }
}

#[test]
fn a_second_opener_is_told_who_has_the_journal() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("journal.db");
    let first = SqliteJournal::open(&path).unwrap();
    let err = SqliteJournal::open(&path).unwrap_err();
    assert_eq!(
        err.to_string(),
        format!("journal `{}` is in use by process {}", path.display(), std::process::id())
    );
    let JournalError::Locked { holder, .. } = &err else { panic!("{err:?}") };
    assert!(holder.since_ms.is_some());
    assert!(err.hint().is_some());
    drop(first);
    SqliteJournal::open(&path).unwrap();
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("journal.db");
    drop(SqliteJournal::open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let before = fs::read(&path).unwrap();
    let err = SqliteJournal::open(&path).unwrap_err();
    assert!(matches!(err, JournalError::SchemaTooNew { found: 7, known: 1, .. }), "{err}");
    assert!(matches!(SqliteReader::open(&path), Err(JournalError::SchemaTooNew { .. })));
    assert!(before == fs::read(&path).unwrap());
}

#[test]
fn another_file_is_refused_and_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let text = root.path().join("notes.txt");
    fs::write(&text, "remember the milk\n".repeat(100)).unwrap();
    let database = root.path().join("other.db");
    Connection::open(&database).unwrap().execute_batch("CREATE TABLE other (a)").unwrap();
    for path in [&text, &database] {
        let before = fs::read(path).unwrap();
        assert!(matches!(SqliteJournal::open(path), Err(JournalError::NotAJournal { .. })));
        assert!(matches!(SqliteReader::open(path), Err(JournalError::NotAJournal { .. })));
        assert!(before == fs::read(path).unwrap());
    }
    let missing = root.path().join("missing.db");
    assert!(matches!(SqliteReader::open(&missing), Err(JournalError::NotFound { .. })));
    assert!(!missing.exists());
}

#[test]
fn a_corrupt_snapshot_falls_back_to_the_one_before_and_then_to_replay() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("journal.db");
    let mut journal = SqliteJournal::open(&path).unwrap();
    journal.append(&records(1, 20)).unwrap();
    journal.save_snapshot(Seq(5), b"five").unwrap();
    journal.save_snapshot(Seq(10), b"ten").unwrap();
    journal.save_snapshot(Seq(15), b"fifteen").unwrap();
    assert_eq!(journal.load_snapshot().unwrap(), Some((Seq(15), b"fifteen".to_vec())));
    let conn = Connection::open(&path).unwrap();
    conn.execute("UPDATE snapshot SET state = x'00' WHERE seq = 15", []).unwrap();
    assert_eq!(journal.load_snapshot().unwrap(), Some((Seq(10), b"ten".to_vec())));
    // Taken from a journal with another history.
    conn.execute("UPDATE snapshot SET chain = zeroblob(32) WHERE seq = 10", []).unwrap();
    assert_eq!(journal.load_snapshot().unwrap(), None);
}

fn at(seq: u64, event: Event) -> Record {
    Record { seq: Seq(seq), at: Now::default(), event }
}

/// A configuration with two services of one check each, and an incident of the second.
fn story() -> Vec<Record> {
    let (check, service, incident) = (CheckId(11), ServiceId(4), IncidentId(1));
    let failure = CheckFailure::new(FailureKind::Refused, "connection refused");
    vec![
        at(
            1,
            Event::ConfigApplied {
                spec: Spec::default().into(),
                services: vec![ServiceId(3), service],
                checks: vec![vec![CheckId(10)], vec![check]],
            },
        ),
        at(
            2,
            Event::HealthChanged {
                check,
                from: Health::Up,
                to: Health::Down,
                failure: Some(failure.clone()),
                reason: None,
            },
        ),
        at(3, Event::IncidentOpened { incident, service, check, first_sign: Default::default(), failure }),
        at(4, Event::Marked),
        at(5, Event::HealHeld { incident, because: Because::HostBudgetSpent }),
    ]
}

#[test]
fn readers_see_what_is_durable_filtered_by_kind_and_service() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("journal.db");
    let mut journal = SqliteJournal::open(&path).unwrap();
    let story = story();
    journal.append(&story).unwrap();
    // What the incident is about is looked up again by a process that did not see it open.
    drop(journal);
    let mut journal = SqliteJournal::open(&path).unwrap();
    let closed = Event::IncidentClosed { incident: IncidentId(1), verified_by: None, healed_by: None };
    journal.append(&[at(6, closed)]).unwrap();
    journal
        .append(&[at(
            7,
            Event::HealthChanged {
                check: CheckId(10),
                from: Health::Unknown,
                to: Health::Up,
                failure: None,
                reason: None,
            },
        )])
        .unwrap();

    let reader = SqliteReader::open(&path).unwrap();
    let seqs = |after, limit, filter: &EventFilter| -> Vec<u64> {
        reader.events(Seq(after), limit, filter).unwrap().iter().map(|record| record.seq.0).collect()
    };
    let all = EventFilter::default();
    assert_eq!(reader.events(Seq(0), 5, &all).unwrap(), story);
    assert_eq!(seqs(2, 2, &all), [3, 4]);
    assert_eq!(seqs(7, 2, &all), [] as [u64; 0]);
    let of_service = |id| EventFilter { service: Some(ServiceId(id)), ..EventFilter::default() };
    assert_eq!(seqs(0, 100, &of_service(4)), [2, 3, 5, 6]);
    assert_eq!(seqs(0, 100, &of_service(3)), [7]);
    let incidents = EventFilter {
        kinds: vec!["incident_opened".into(), "incident_closed".into()],
        service: Some(ServiceId(4)),
    };
    assert_eq!(seqs(0, 100, &incidents), [3, 6]);
    assert_eq!(reader.last().unwrap(), Some((Seq(7), Now::default())));
    assert_eq!(verify(&path, &mut |_, _| {}).unwrap().problems, []);
}

#[test]
fn a_log_torn_at_any_place_gives_whole_batches() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("journal.db");
    let mut journal = SqliteJournal::open(&path).unwrap();
    let mut ends = vec![0];
    for (batch, from) in (1..=40_u64).step_by(4).enumerate() {
        journal.append(&records(from, from + 3)).unwrap();
        ends.push(4 * (batch as u64 + 1));
    }
    let (file, log) = (fs::read(&path).unwrap(), fs::read(root.path().join("journal.db-wal")).unwrap());
    drop(journal);
    let mut seen = Vec::new();
    for length in (0..=log.len()).step_by(1_777).chain([log.len()]) {
        let torn = tempfile::tempdir().unwrap();
        let path = torn.path().join("journal.db");
        fs::write(&path, &file).unwrap();
        fs::write(torn.path().join("journal.db-wal"), &log[..length]).unwrap();
        let mut journal = SqliteJournal::open(&path).unwrap();
        let last = journal.last().unwrap().map_or(0, |(seq, _)| seq.0);
        assert!(ends.contains(&last), "{last} is no end of a batch");
        let mut read = Vec::new();
        journal.replay(Seq(1), &mut |record| read.push(record)).unwrap();
        assert_eq!(read, records(1, last));
        drop(journal);
        assert_eq!(verify(&path, &mut |_, _| {}).unwrap().problems, []);
        seen.push(last);
    }
    assert_eq!((seen.first(), seen.last()), (Some(&0), Some(&40)));
}

#[test]
fn housekeeping_keeps_the_log_small() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("journal.db");
    let mut journal = SqliteJournal::open(&path).unwrap();
    for seq in 1..=2_000 {
        journal.append(&records(seq, seq)).unwrap();
        journal.tidy().unwrap();
    }
    let log = fs::metadata(root.path().join("journal.db-wal")).unwrap().len();
    assert!(log < 8 << 20, "the log has {log} bytes");
}
