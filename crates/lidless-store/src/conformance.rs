//! Does a journal keep its promises? The cases that every implementation passes, alone and behind a fault-injecting wrapper.
//!
//! A *place* is where a journal lives; opening it again finds what was left there. The cases repeat what failed by a fault
//! (full, I/O, lost acknowledgement) as the writer would, so that they also run on journals that fail on their own.
//! A case panics where a promise is broken: this module is for tests.

use std::time::Duration;

use lidless_core::event::{Event, Record};
use lidless_core::id::{Seq, ServiceId};
use lidless_core::time::Now;

use crate::{Fault, FaultJournal, FaultPlan, Journal, JournalError, MemoryJournal};

/// How often one append is repeated before the journal counts as broken.
const TRIES_MAX: u32 = 100;

/// Opens the journal of a place.
pub type Open = Box<dyn FnMut() -> Result<Box<dyn Journal>, JournalError> + Send>;

/// Makes a fresh, empty place and returns how its journal is opened.
pub type Factory<'a> = &'a mut dyn FnMut() -> Open;

/// One promise.
pub type Case = fn(Factory<'_>);

/// The promises.
pub const CASES: &[(&str, Case)] = &[
    ("a new journal is empty", a_new_journal_is_empty),
    ("what was appended is replayed in order", appended_is_replayed_in_order),
    ("a batch is kept whole or not at all", a_batch_is_all_or_none),
    ("the same record twice is there once", twice_is_once),
    ("another record at the same place is refused", another_record_is_refused),
    ("a record out of sequence is refused", out_of_sequence_is_refused),
    ("after a lost acknowledgement the batch can be repeated", a_lost_ack_is_settled),
    ("an acknowledged record is there after reopening", acked_survives_reopening),
    ("snapshot and replay give what replay gives", snapshot_and_replay_agree),
    ("only the two newest snapshots are kept, and the newest is given", the_newest_snapshot_is_given),
    ("a full disk loses nothing", a_full_disk_loses_nothing),
    ("an I/O error poisons the handle until it is reopened", an_io_error_poisons),
];

/// Runs every case, each on a fresh place.
pub fn suite(factory: Factory<'_>) {
    for (name, case) in CASES {
        // The test harness shows it where the case fails.
        println!("case: {name}");
        case(factory);
    }
}

/// Returns a record; the same `seq` and `flavour` give the same one.
pub fn record(seq: u64, flavour: u64) -> Record {
    let at = Now {
        monotonic: Duration::from_micros(seq * 1_000 + flavour),
        wall_ms: 1_700_000_000_000 + seq as i64,
    };
    let event = match seq % 3 {
        0 => Event::Marked,
        1 => Event::Stopped {
            why: format!("\"quoted\"\n{flavour} \u{1f441} {}", "x".repeat((seq % 50) as usize)),
        },
        _ => Event::Intervention {
            by: "somebody".into(),
            service: ServiceId((seq % 5) as u32),
            what: format!("turned it off and on, {flavour} times"),
        },
    };
    Record { seq: Seq(seq), at, event }
}

/// Returns the records from `from` to `to`.
pub fn records(from: u64, to: u64) -> Vec<Record> {
    (from..=to).map(|seq| record(seq, 0)).collect()
}

/// A journal in use: it is reopened when it must be.
pub struct Session {
    open: Open,
    journal: Box<dyn Journal>,
}

impl Session {
    /// Opens the journal of a place.
    pub fn new(mut open: Open) -> Self {
        let journal = open().expect("the journal opens");
        Session { open, journal }
    }

    /// Drops the handle and opens another.
    pub fn reopen(&mut self) {
        // The lock must be free first.
        self.journal = Box::new(MemoryJournal::new());
        self.journal = (self.open)().expect("the journal opens again");
    }

    /// Appends, and repeats what a fault made fail.
    pub fn put(&mut self, batch: &[Record]) -> Result<Seq, JournalError> {
        for _ in 0..TRIES_MAX {
            match self.journal.append(batch) {
                Err(JournalError::Full { .. }) => {}
                Err(JournalError::AckLost { .. } | JournalError::Io { .. }) => self.reopen(),
                done => return done,
            }
        }
        panic!("the journal still fails after {TRIES_MAX} tries");
    }

    /// Returns all records from `from` on.
    pub fn read(&mut self, from: u64) -> Vec<Record> {
        let mut seen = Vec::new();
        let last =
            self.journal.replay(Seq(from), &mut |record| seen.push(record)).expect("the journal replays");
        let end = self.journal.last().expect("the journal has an end").map_or(Seq(0), |(seq, _)| seq);
        assert_eq!(last, end, "replay and last name the same end");
        seen
    }

    /// Returns the handle.
    pub fn journal(&mut self) -> &mut dyn Journal {
        self.journal.as_mut()
    }
}

fn a_new_journal_is_empty(factory: Factory<'_>) {
    let mut session = Session::new(factory());
    assert_eq!(session.read(1), []);
    assert_eq!(session.journal().last().expect("last"), None);
    assert_eq!(session.journal().load_snapshot().expect("snapshot"), None);
    assert_eq!(session.put(&[]).expect("an empty batch"), Seq(0));
}

fn appended_is_replayed_in_order(factory: Factory<'_>) {
    let mut session = Session::new(factory());
    assert_eq!(session.put(&records(1, 1)).expect("append"), Seq(1));
    assert_eq!(session.put(&records(2, 40)).expect("append"), Seq(40));
    assert_eq!(session.put(&[]).expect("append"), Seq(40));
    assert_eq!(session.read(0), records(1, 40));
    assert_eq!(session.read(17), records(17, 40));
    assert_eq!(session.read(40), records(40, 40));
    assert_eq!(session.read(41), []);
    assert_eq!(session.read(1_000), []);
    let last = record(40, 0);
    assert_eq!(session.journal().last().expect("last"), Some((last.seq, last.at)));
}

fn a_batch_is_all_or_none(factory: Factory<'_>) {
    let mut session = Session::new(factory());
    session.put(&records(1, 3)).expect("append");
    let mut holed = records(4, 8);
    holed.remove(2);
    assert!(matches!(
        session.put(&holed),
        Err(JournalError::OutOfSequence { expected: Seq(6), got: Seq(7), .. })
    ));
    assert_eq!(session.read(1), records(1, 3));
    // Half of it is there already, and the half that is new would do.
    let mut half_wrong = records(3, 6);
    half_wrong[0] = record(3, 9);
    assert!(matches!(session.put(&half_wrong), Err(JournalError::Conflict { seq: Seq(3), .. })));
    assert_eq!(session.read(1), records(1, 3));
}

fn twice_is_once(factory: Factory<'_>) {
    let mut session = Session::new(factory());
    session.put(&records(1, 5)).expect("append");
    assert_eq!(session.put(&records(1, 5)).expect("all again"), Seq(5));
    assert_eq!(session.put(&records(2, 3)).expect("some again"), Seq(5));
    assert_eq!(session.put(&records(4, 7)).expect("some again, some new"), Seq(7));
    session.reopen();
    assert_eq!(session.put(&records(6, 8)).expect("again after reopening"), Seq(8));
    assert_eq!(session.read(1), records(1, 8));
}

fn another_record_is_refused(factory: Factory<'_>) {
    let mut session = Session::new(factory());
    session.put(&records(1, 5)).expect("append");
    assert!(matches!(session.put(&[record(2, 1)]), Err(JournalError::Conflict { seq: Seq(2), .. })));
    assert_eq!(session.read(1), records(1, 5));
    assert_eq!(session.put(&records(6, 6)).expect("the handle goes on"), Seq(6));
}

fn out_of_sequence_is_refused(factory: Factory<'_>) {
    let mut session = Session::new(factory());
    for wrong in [records(2, 2), records(0, 1), vec![record(1, 0), record(1, 0)]] {
        assert!(matches!(session.put(&wrong), Err(JournalError::OutOfSequence { .. })));
    }
    session.put(&records(1, 5)).expect("append");
    assert!(matches!(
        session.put(&records(7, 8)),
        Err(JournalError::OutOfSequence { expected: Seq(6), got: Seq(7), .. })
    ));
    assert_eq!(session.read(1), records(1, 5));
}

fn a_lost_ack_is_settled(factory: Factory<'_>) {
    for fault in [Fault::LostBefore, Fault::LostAfter, Fault::IoBefore, Fault::IoAfter] {
        let plan = FaultPlan::new();
        let mut session = Session::new(behind(factory(), &plan));
        session.put(&records(1, 3)).expect("append");
        plan.then(fault);
        // Which error it is depends on who failed first where the journal has faults of its own.
        assert!(session.journal().append(&records(4, 6)).is_err(), "the planned fault happens");
        session.reopen();
        let last = session.journal().last().expect("last").map(|(seq, _)| seq);
        assert!(last == Some(Seq(3)) || last == Some(Seq(6)), "all of the batch or none: {last:?}");
        assert_eq!(session.put(&records(4, 6)).expect("repeated"), Seq(6));
        assert_eq!(session.read(1), records(1, 6));
    }
}

fn acked_survives_reopening(factory: Factory<'_>) {
    let mut session = Session::new(factory());
    for from in (1..=30).step_by(3) {
        let acked = session.put(&records(from, from + 2)).expect("append");
        session.reopen();
        assert_eq!(session.journal().last().expect("last").map(|(seq, _)| seq), Some(acked));
        assert_eq!(session.read(1), records(1, acked.0));
    }
}

fn snapshot_and_replay_agree(factory: Factory<'_>) {
    let mut session = Session::new(factory());
    session.put(&records(1, 20)).expect("append");
    let state = fold(&session.read(1));
    session.journal().save_snapshot(Seq(20), &state).expect("save");
    session.put(&records(21, 33)).expect("append");
    session.reopen();
    let (at, state) = session.journal().load_snapshot().expect("load").expect("there is one");
    assert_eq!(at, Seq(20));
    let mut shorter: Vec<Record> = serde_json::from_slice(&state).expect("the state is as it was saved");
    shorter.extend(session.read(at.0 + 1));
    assert_eq!(fold(&shorter), fold(&session.read(1)));
}

fn the_newest_snapshot_is_given(factory: Factory<'_>) {
    let mut session = Session::new(factory());
    session.put(&records(1, 10)).expect("append");
    assert!(session.journal().save_snapshot(Seq(11), b"of the future").is_err());
    assert!(session.journal().save_snapshot(Seq(0), b"of nothing").is_err());
    for at in [3, 9, 6] {
        session.journal().save_snapshot(Seq(at), format!("at {at}").as_bytes()).expect("save");
    }
    session.journal().save_snapshot(Seq(9), b"at 9, again").expect("save");
    session.reopen();
    assert_eq!(session.journal().load_snapshot().expect("load"), Some((Seq(9), b"at 9, again".to_vec())));
}

fn a_full_disk_loses_nothing(factory: Factory<'_>) {
    let plan = FaultPlan::new();
    let mut session = Session::new(behind(factory(), &plan));
    session.put(&records(1, 3)).expect("append");
    plan.then(Fault::Full).then(Fault::Full);
    for _ in 0..2 {
        assert!(matches!(session.journal().append(&records(4, 9)), Err(JournalError::Full { .. })));
        assert_eq!(session.read(1), records(1, 3));
    }
    // The same handle.
    assert_eq!(session.put(&records(4, 9)).expect("append"), Seq(9));
    assert_eq!(session.read(1), records(1, 9));
}

fn an_io_error_poisons(factory: Factory<'_>) {
    let plan = FaultPlan::new();
    let mut session = Session::new(behind(factory(), &plan));
    session.put(&records(1, 3)).expect("append");
    plan.then(Fault::IoBefore);
    for _ in 0..3 {
        assert!(matches!(session.journal().append(&records(4, 4)), Err(JournalError::Io { .. })));
    }
    session.journal().reopen().expect("the journal opens again in place");
    session.put(&records(4, 4)).expect("append after reopening");
    assert_eq!(session.read(1), records(1, 4));
}

/// One step of a random history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Append so many new records.
    Append(u8),
    /// Append the last so many again, and one more.
    Again(u8),
    /// Append beyond the end.
    Gap(u8),
    /// Append another record in place of one that is there.
    Conflict(u8),
    /// The next append fails so.
    Fault(Fault),
    /// Close and open.
    Reopen,
    /// Save a snapshot, so many records before the end.
    Snapshot(u8),
    /// Replay, from so many records before the end.
    Replay(u8),
}

/// Runs a history on a place and on the model, and compares what they say after each step.
pub fn history(open: Open, ops: &[Op]) {
    let plan = FaultPlan::new();
    let mut session = Session::new(behind(open, &plan));
    let mut model = MemoryJournal::new();
    let mut end = 0_u64;
    for (step, op) in ops.iter().enumerate() {
        let back = |count: u8| end.saturating_sub(u64::from(count));
        let batch = match *op {
            Op::Append(count) => records(end + 1, end + u64::from(count)),
            Op::Again(count) => records(back(count).max(1), end + 1),
            Op::Gap(count) => records(end + 2 + u64::from(count), end + 3 + u64::from(count)),
            Op::Conflict(count) => vec![record(back(count).max(1), 7)],
            Op::Fault(fault) => {
                plan.then(fault);
                continue;
            }
            Op::Reopen => {
                session.reopen();
                continue;
            }
            Op::Snapshot(count) => {
                let (at, state) = (Seq(back(count)), [count, 1, 2, 3]);
                let kept = session.journal().save_snapshot(at, &state);
                assert_eq!(kept.is_ok(), model.save_snapshot(at, &state).is_ok(), "step {step}: {op:?}");
                let (real, wanted) = (session.journal().load_snapshot(), model.load_snapshot());
                assert_eq!(real.expect("load"), wanted.expect("load"), "step {step}: {op:?}");
                continue;
            }
            Op::Replay(count) => {
                let mut wanted = Vec::new();
                model.replay(Seq(back(count)), &mut |record| wanted.push(record)).expect("replay");
                assert_eq!(session.read(back(count)), wanted, "step {step}: {op:?}");
                continue;
            }
        };
        match (session.put(&batch), model.append(&batch)) {
            (Ok(real), Ok(wanted)) => {
                assert_eq!(real, wanted, "step {step}: {op:?}");
                end = wanted.0;
            }
            (Err(real), Err(wanted)) => assert_eq!(
                std::mem::discriminant(&real),
                std::mem::discriminant(&wanted),
                "step {step}: {op:?}: {real}, {wanted}"
            ),
            (real, wanted) => panic!("step {step}: {op:?}: the journal says {real:?}, the model {wanted:?}"),
        }
        assert!(plan.acked() <= Seq(end), "step {step}: only what is there was acknowledged");
        let (real, wanted) = (session.journal().last(), model.last());
        assert_eq!(real.expect("last"), wanted.expect("last"), "step {step}: {op:?}");
    }
    session.reopen();
    let mut wanted = Vec::new();
    model.replay(Seq(1), &mut |record| wanted.push(record)).expect("replay");
    assert_eq!(session.read(1), wanted);
}

fn behind(mut open: Open, plan: &FaultPlan) -> Open {
    let plan = plan.clone();
    Box::new(move || Ok(Box::new(FaultJournal::new(open()?, &plan)) as Box<dyn Journal>))
}

fn fold(records: &[Record]) -> Vec<u8> {
    serde_json::to_vec(records).expect("records have a JSON form")
}
