//! Does the writer keep everything in order, together, and through trouble?
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use lidless_core::event::Record;
use lidless_core::id::{Seq, ServiceId};
use lidless_store::conformance::{record, records};
use lidless_store::{
    CloseError, Fault, FaultJournal, FaultPlan, Journal, JournalError, MemoryDisk, MemoryJournal,
    SqliteJournal, Writer, WriterEvent, WriterOptions,
};

/// Longer than any of this takes, shorter than a person's patience.
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    disk: MemoryDisk,
    plan: FaultPlan,
    writer: Writer,
    events: Receiver<WriterEvent>,
}

fn bench(options: WriterOptions) -> Bench {
    let (disk, plan) = (MemoryDisk::default(), FaultPlan::new());
    let (say, events) = mpsc::channel();
    let writer = Writer::spawn(open(&disk, &plan), options, move |event| say.send(event).unwrap()).unwrap();
    Bench { disk, plan, writer, events }
}

fn open(disk: &MemoryDisk, plan: &FaultPlan) -> Box<dyn Journal> {
    Box::new(FaultJournal::new(MemoryJournal::on(disk), plan))
}

fn quick() -> WriterOptions {
    WriterOptions { retry_every: Duration::from_millis(5), ..WriterOptions::default() }
}

impl Bench {
    /// Returns what is said until `seq` is durable, in short.
    fn until_durable(&self, seq: u64) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut said = Vec::new();
        loop {
            let event = self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap();
            said.push(short(&event));
            if matches!(event, WriterEvent::Durable(durable) if durable >= Seq(seq)) {
                return said;
            }
        }
    }

    fn next(&self) -> String {
        short(&self.events.recv_timeout(PATIENCE).unwrap())
    }

    fn kept(&self) -> Vec<Record> {
        kept(&mut MemoryJournal::on(&self.disk))
    }
}

fn kept(journal: &mut dyn Journal) -> Vec<Record> {
    let mut kept = Vec::new();
    journal.replay(Seq(1), &mut |record| kept.push(record)).unwrap();
    kept
}

fn short(event: &WriterEvent) -> String {
    match event {
        WriterEvent::Durable(seq) => format!("durable {seq}"),
        WriterEvent::Failed(JournalError::Full { .. }) => "full".into(),
        WriterEvent::Failed(JournalError::Io { .. }) => "io".into(),
        WriterEvent::Failed(JournalError::AckLost { .. }) => "lost".into(),
        WriterEvent::Failed(err) => err.to_string(),
        WriterEvent::Recovered => "recovered".into(),
        WriterEvent::SnapshotSaved(seq) => format!("snapshot {seq}"),
        WriterEvent::SnapshotFailed(err) => format!("no snapshot: {err}"),
        WriterEvent::Dropped { from, expected } => format!("dropped {from}, expected {expected}"),
    }
}

#[test]
fn what_is_submitted_becomes_durable_in_order() {
    let bench = bench(WriterOptions::default());
    for seq in 1..=500 {
        bench.writer.submit(records(seq, seq)).unwrap();
    }
    bench.until_durable(500);
    assert_eq!(bench.kept(), records(1, 500));
    bench.writer.close(PATIENCE).unwrap();
}

#[test]
fn closing_makes_everything_durable() {
    let bench = bench(WriterOptions::default());
    for seq in 1..=100 {
        bench.writer.submit(records(seq, seq)).unwrap();
    }
    bench.writer.snapshot(Seq(90), b"ninety".to_vec()).unwrap();
    let disk = bench.disk.clone();
    bench.writer.close(PATIENCE).unwrap();
    assert_eq!(kept(&mut MemoryJournal::on(&disk)), records(1, 100));
    assert_eq!(MemoryJournal::on(&disk).load_snapshot().unwrap(), Some((Seq(90), b"ninety".to_vec())));
}

#[test]
fn a_full_disk_is_said_once_and_nothing_is_lost() {
    let bench = bench(quick());
    for _ in 0..4 {
        bench.plan.then(Fault::Full);
    }
    bench.writer.submit(records(1, 3)).unwrap();
    assert_eq!(bench.next(), "full");
    bench.writer.submit(records(4, 6)).unwrap();
    assert_eq!(bench.until_durable(6).last().unwrap(), "durable 6");
    assert_eq!(bench.next(), "recovered");
    assert_eq!(bench.kept(), records(1, 6));
}

#[test]
fn a_batch_is_never_split_over_two_transactions() {
    let bench = bench(quick());
    bench.plan.then(Fault::Full);
    bench.writer.submit(records(1, 5_000)).unwrap();
    assert_eq!(bench.next(), "full");
    bench.writer.submit(records(5_001, 10_000)).unwrap();
    bench.writer.submit(records(10_001, 10_002)).unwrap();
    bench.writer.submit(records(10_003, 30_000)).unwrap();
    let said = bench.until_durable(30_000);
    let ends = ["durable 5000", "durable 10000", "durable 10002", "durable 30000"];
    assert!(said.iter().all(|said| ends.contains(&said.as_str()) || said == "recovered"), "{said:?}");
}

#[test]
fn the_journal_stays_locked_while_it_is_reopened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.db");
    let plan = FaultPlan::new();
    for _ in 0..3 {
        plan.then(Fault::IoBefore);
    }
    let journal = FaultJournal::new(SqliteJournal::open(&path).unwrap(), &plan);
    let (say, events) = mpsc::channel();
    let other = path.clone();
    let on_event = move |event: WriterEvent| {
        let locked = matches!(SqliteJournal::open(&other), Err(JournalError::Locked { .. }));
        say.send((short(&event), locked)).unwrap();
    };
    let writer = Writer::spawn(Box::new(journal), quick(), on_event).unwrap();
    writer.submit(records(1, 3)).unwrap();
    writer.close(PATIENCE).ok();
    let said: Vec<_> = events.iter().collect();
    assert!(said.iter().any(|(said, _)| said == "io"), "{said:?}");
    assert!(said.iter().all(|(_, locked)| *locked), "{said:?}");
}

#[test]
fn each_lost_answer_is_settled_by_reopening() {
    for fault in [Fault::LostBefore, Fault::LostAfter, Fault::IoBefore, Fault::IoAfter] {
        let bench = bench(quick());
        let name = if matches!(fault, Fault::LostBefore | Fault::LostAfter) { "lost" } else { "io" };
        bench.plan.then(fault);
        bench.writer.submit(records(1, 3)).unwrap();
        assert_eq!(bench.until_durable(3), [name, "durable 3"], "{fault:?}");
        assert_eq!(bench.next(), "recovered");
        // A second time at once: now it waits.
        bench.plan.then(fault).then(fault).then(fault);
        bench.writer.submit(records(4, 9)).unwrap();
        assert_eq!(bench.until_durable(9), [name, "durable 9"], "{fault:?}");
        assert_eq!(bench.kept(), records(1, 9));
        bench.writer.close(PATIENCE).unwrap();
    }
}

#[test]
fn a_full_backlog_keeps_the_oldest_and_leaves_no_gap() {
    let options = WriterOptions { backlog_max: 5, retry_every: Duration::from_secs(3600), ..quick() };
    let bench = bench(options);
    bench.plan.then(Fault::Full);
    bench.writer.submit(records(1, 3)).unwrap();
    assert_eq!(bench.next(), "full");
    bench.writer.submit(records(4, 5)).unwrap();
    bench.writer.submit(records(6, 8)).unwrap();
    assert_eq!(bench.next(), "dropped 6, expected 6");
    bench.writer.submit(records(9, 9)).unwrap();
    let disk = bench.disk.clone();
    match bench.writer.close(PATIENCE) {
        Err(CloseError::NotDurable { records: 4, from: Seq(6) }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(kept(&mut MemoryJournal::on(&disk)), records(1, 5));
    let rest: Vec<String> = bench.events.iter().map(|event| short(&event)).collect();
    assert_eq!(rest, ["durable 5", "recovered"], "said once");
}

#[test]
fn what_does_not_continue_the_journal_is_dropped_until_something_does() {
    let bench = bench(quick());
    bench.writer.submit(records(1, 3)).unwrap();
    bench.until_durable(3);
    bench.writer.submit(records(5, 6)).unwrap();
    assert_eq!(bench.next(), "dropped 5, expected 4");
    bench.writer.submit(records(4, 4)).unwrap();
    assert_eq!(bench.next(), "durable 4");
    assert_eq!(bench.kept(), records(1, 4));
}

#[test]
fn a_batch_with_a_gap_is_dropped_whole() {
    let bench = bench(quick());
    let mut holed = records(1, 5);
    holed.remove(2);
    bench.writer.submit(holed).unwrap();
    assert_eq!(bench.next(), "dropped 1, expected 1");
    bench.writer.submit(records(1, 2)).unwrap();
    assert_eq!(bench.next(), "durable 2");
}

#[test]
fn a_journal_changed_by_somebody_else_stops_nothing_for_ever() {
    let bench = bench(quick());
    bench.writer.submit(records(1, 3)).unwrap();
    bench.until_durable(3);
    MemoryJournal::on(&bench.disk).append(&[record(4, 77)]).unwrap();
    bench.writer.submit(records(4, 5)).unwrap();
    assert_eq!(bench.next(), "dropped 4, expected 5");
    assert_eq!(bench.next(), "journal `(memory)` already holds another record 4");
    assert_eq!(bench.next(), "recovered");
    bench.writer.submit(records(5, 6)).unwrap();
    assert_eq!(bench.next(), "durable 6");
}

#[test]
fn closing_says_what_could_not_be_kept() {
    let bench = bench(quick());
    for _ in 0..1_000_000 {
        bench.plan.then(Fault::Full);
    }
    bench.writer.submit(records(1, 3)).unwrap();
    match bench.writer.close(PATIENCE) {
        Err(CloseError::NotDurable { records: 3, from: Seq(1) }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_panicking_listener_ends_the_writer_and_submit_says_so() {
    let disk = MemoryDisk::default();
    let journal = open(&disk, &FaultPlan::new());
    let writer = Writer::spawn(journal, quick(), |_| panic!("a listener that panics, as planned")).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut seq = 1;
    while writer.submit(records(seq, seq)).is_ok() {
        assert!(Instant::now() < deadline);
        seq += 1;
    }
    assert!(matches!(writer.close(PATIENCE), Err(CloseError::Panicked)));
}

#[test]
fn many_writers_share_one_fsync() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.db");
    let (say, events) = mpsc::channel();
    let journal = Box::new(SqliteJournal::open(&path).unwrap());
    let writer =
        Writer::spawn(journal, WriterOptions::default(), move |event| say.send(event).unwrap()).unwrap();
    let all: Vec<Record> = (1..=2_000).map(|seq| record(seq, u64::from(ServiceId(1).0))).collect();
    for record in &all {
        writer.submit(vec![record.clone()]).unwrap();
    }
    writer.close(PATIENCE).unwrap();
    let acks = events.iter().filter(|event| matches!(event, WriterEvent::Durable(_))).count();
    assert!(acks < 1_000, "{acks} transactions for 2000 records");
    assert_eq!(kept(&mut SqliteJournal::open(&path).unwrap()), all);
}
