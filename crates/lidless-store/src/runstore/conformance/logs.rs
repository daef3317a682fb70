//! Is a log what its owners appended: each batch once, whole, in order?

use lidless_core::id::Seq;

use super::Place;
use super::session::{Session, assert_log, batch, key};
use crate::runstore::clock::ManualClock;
use crate::runstore::error::{AppendError, StoreError};
use crate::runstore::fault::{Fault, FaultScript};
use crate::runstore::record::{
    BATCH_MAX, BODY_BYTES_MAX, Batch, Entry, PAGE_MAX, RecordId, Revision, RunState,
};

pub(super) fn twice_is_once(place: &Place) {
    let mut one = Session::new(place);
    let run = key(1);
    let epoch = one.take(&run, 1);
    let first = batch(&run, epoch, 1, 3, 0);
    assert_eq!(one.put(&first).expect("append"), Seq(3));
    // The bare append says that the slot is taken; settled, it says that this very batch has it.
    match one.store().append(&first) {
        Err(AppendError::SeqTaken { last: Seq(3) } | AppendError::Unknown | AppendError::Failed(_)) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(one.put(&first).expect("it is there"), Seq(3));
    one.reopen();
    assert_eq!(one.put(&first).expect("it is there"), Seq(3));
    for other in [batch(&run, epoch, 1, 3, 1), batch(&run, epoch, 3, 2, 1), batch(&run, epoch, 2, 1, 1)] {
        let err = one.put(&other).expect_err("another record is there");
        assert!(matches!(err, AppendError::SeqTaken { last: Seq(3) }), "{err:?}");
    }
    // It is there in part, which no append of ours can have done.
    let longer = batch(&run, epoch, 1, 4, 0);
    assert!(matches!(one.put(&longer), Err(AppendError::SeqTaken { .. })));
    assert_log(&one.log(&run), &[first]);
}

pub(super) fn all_or_none(place: &Place) {
    let mut one = Session::new(place);
    let run = key(1);
    let epoch = one.take(&run, 1);
    let mut there = Vec::new();
    let mut next = 1;
    for (count, flavour) in [(1, 0), (BATCH_MAX as u64, 1), (7, 2)] {
        let gap = batch(&run, epoch, next + 1, count, flavour);
        let err = one.put(&gap).expect_err("it leaves a gap");
        assert!(matches!(err, AppendError::Gap { last } if last == Seq(next - 1)), "{err:?}");
        assert_log(&one.log(&run), &there);
        there.push(batch(&run, epoch, next, count, flavour));
        next += count;
        one.put(there.last().expect("one was pushed")).expect("append");
        assert_log(&one.log(&run), &there);
    }
    for fault in [Fault::AckLost, Fault::RequestLost, Fault::CrashBefore, Fault::CrashAfter] {
        let script = FaultScript::new(&ManualClock::new());
        let mut failing = Session::new(&place.behind(&script));
        let fresh = batch(&run, epoch, next, 5, next);
        script.then(fault);
        assert!(failing.store().append(&fresh).is_err(), "the planned fault happens");
        let log = one.log(&run).len() as u64;
        assert!(log == next - 1 || log == next + 4, "all of it or nothing: {log}");
        one.put(&fresh).expect("append");
        there.push(fresh);
        next += 5;
        assert_log(&one.log(&run), &there);
    }
}

pub(super) fn order(place: &Place) {
    let (mut one, mut two) = (Session::new(place), Session::new(place));
    let runs = [key(2), key(1), key(3)];
    let epochs: Vec<_> = runs.iter().map(|run| one.take(run, 1)).collect();
    let mut there: Vec<Vec<Batch>> = vec![Vec::new(); 3];
    let mut all = Vec::new();
    for turn in 0..12_u64 {
        let which = (turn * turn % 3) as usize;
        let next = there[which].last().map_or(1, |batch| batch.last().0 + 1);
        let fresh = batch(&runs[which], epochs[which], next, 1 + turn % 3, turn);
        // One owner, whichever handle it uses.
        let session = if turn % 2 == 0 { &mut one } else { &mut two };
        session.put(&fresh).expect("append");
        all.extend(fresh.entries.iter().map(|entry| entry.id));
        there[which].push(fresh);
    }
    for (run, batches) in runs.iter().zip(&there) {
        assert_log(&one.log(run), batches);
    }
    let seen = two.watch_all(Revision(1), 4);
    assert_eq!(seen.iter().map(|record| record.id).collect::<Vec<_>>(), all);
    assert!(seen.is_sorted_by_key(|record| (record.revision, record.seq)));
}

pub(super) fn acked_survives_reopening(place: &Place) {
    let mut one = Session::new(place);
    let run = key(1);
    let epoch = one.take(&run, 1);
    let mut there = Vec::new();
    for from in (1..30).step_by(3) {
        there.push(batch(&run, epoch, from, 3, 0));
        one.put(there.last().expect("one was pushed")).expect("append");
        one.reopen();
        assert_log(&one.log(&run), &there);
        // Also from there on only.
        let page = one.page(&run, from, 100).expect("read");
        assert_eq!((page.records.len(), page.records[0].seq, page.last), (3, Seq(from), Seq(from + 2)));
    }
    // The lease is part of what was acknowledged.
    one.renew(&run, epoch).expect("it is held");
}

pub(super) fn full_is_not_written(place: &Place) {
    let script = FaultScript::new(&ManualClock::new());
    let mut one = Session::new(&place.behind(&script));
    let run = key(1);
    let epoch = one.take(&run, 1);
    let first = batch(&run, epoch, 1, 3, 0);
    one.put(&first).expect("append");
    let second = batch(&run, epoch, 4, 6, 0);
    script.then(Fault::Full).then(Fault::Full);
    for _ in 0..2 {
        let err = one.store().append(&second).expect_err("full");
        assert!(matches!(err, AppendError::Failed(StoreError::Full { .. })), "{err:?}");
        assert_log(&one.log(&run), std::slice::from_ref(&first));
    }
    // The same handle.
    one.put(&second).expect("append");
    assert_log(&one.log(&run), &[first, second]);
}

pub(super) fn ended_takes_nothing(place: &Place) {
    let mut one = Session::new(place);
    let run = key(1);
    let epoch = one.take(&run, 1);
    let mut end = batch(&run, epoch, 1, 2, 0);
    end.state = RunState::Ended;
    one.put(&end).expect("append");
    for other in [batch(&run, epoch, 3, 1, 0), batch(&run, epoch, 1, 1, 1), batch(&run, epoch, 9, 1, 0)] {
        let err = one.put(&other).expect_err("it has ended");
        assert!(matches!(err, AppendError::Ended), "{err:?}");
    }
    // The batch that ended it is settled all the same.
    assert_eq!(one.put(&end).expect("it is there"), Seq(2));
    assert_log(&one.log(&run), &[end]);
}

pub(super) fn unfit_is_refused(place: &Place) {
    let mut one = Session::new(place);
    let run = key(1);
    let epoch = one.take(&run, 1);
    let of = |entries| Batch { run: run.clone(), epoch, expect: Seq(1), entries, state: RunState::Active };
    let entry = |bytes| Entry { id: RecordId([7; 16]), body: vec![b'x'; bytes] };
    let first_of_all = Batch { expect: Seq(0), ..batch(&run, epoch, 1, 1, 0) };
    let too_big = of(vec![entry(BODY_BYTES_MAX), entry(1)]);
    for unfit in [first_of_all, of(vec![]), of(vec![entry(1); BATCH_MAX + 1]), too_big] {
        let err = one.put(&unfit).expect_err("it is unfit");
        assert!(matches!(err, AppendError::Unfit { .. }), "{err:?}");
    }
    assert_eq!(one.log(&run), []);
    let big = of(vec![entry(BODY_BYTES_MAX)]);
    one.put(&big).expect("just fits");
    assert_log(&one.log(&run), &[big]);
}

pub(super) fn pages_are_bounded(place: &Place) {
    let mut one = Session::new(place);
    let run = key(1);
    let epoch = one.take(&run, 1);
    let mut next = 1;
    while next <= PAGE_MAX as u64 + 100 {
        one.put(&batch(&run, epoch, next, BATCH_MAX as u64, 0)).expect("append");
        next += BATCH_MAX as u64;
        one.renew(&run, epoch).expect("it is held");
    }
    let page = one.page(&run, 1, usize::MAX).expect("read");
    assert_eq!((page.records.len(), page.last), (PAGE_MAX, Seq(next - 1)));
    let page = one.watch(Revision(1), usize::MAX).expect("watch");
    assert!((PAGE_MAX..PAGE_MAX + BATCH_MAX).contains(&page.records.len()), "{}", page.records.len());
    assert_eq!(
        one.page(&run, 1, 0).expect("read").records.len(),
        1,
        "a page is never empty for want of a limit"
    );
    // So are they by their bytes.
    let run = key(2);
    let epoch = one.take(&run, 1);
    for seq in 1..=8 {
        let body = vec![b'x'; BODY_BYTES_MAX];
        let mut big = batch(&run, epoch, seq, 1, 0);
        big.entries[0].body = body;
        one.put(&big).expect("append");
    }
    let page = one.page(&run, 1, usize::MAX).expect("read");
    assert!((1..8).contains(&page.records.len()), "{} MiB", page.records.len());
    assert_eq!(one.log(&run).len(), 8);
}
