//! Does a watcher miss nothing, and is what may go gone?

use std::thread;
use std::time::Duration;

use super::Place;
use super::session::{Session, assert_log, batch, key, owner};
use crate::runstore::error::{AcquireError, ReadError, WatchError};
use crate::runstore::record::{Batch, Epoch, Revision, RunFilter, RunKey, RunState};

/// Longer than a watcher waits that is told, and much shorter than a test may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Appends a few batches to each of three runs.
fn fill(session: &mut Session) -> Vec<(RunKey, Epoch)> {
    let runs: Vec<_> = (1..=3).map(|number| (key(number), session.take(&key(number), 1))).collect();
    for turn in 0..4_u64 {
        for (run, epoch) in &runs {
            session.put(&batch(run, *epoch, turn * 2 + 1, 2, turn)).expect("append");
        }
    }
    runs
}

fn ending(run: &RunKey, epoch: Epoch, expect: u64) -> Batch {
    Batch { state: RunState::Ended, ..batch(run, epoch, expect, 1, 9) }
}

pub(super) fn resumes_without_a_gap(place: &Place) {
    let (mut one, mut two) = (Session::new(place), Session::new(place));
    assert_eq!(two.watch_all(Revision(0), 5), []);
    fill(&mut one);
    let all = two.watch_all(Revision(0), 1_000);
    assert_eq!(all.len(), 24);
    let end = two.position();
    for from in 0..=end.0 + 1 {
        for limit in [1, 2, 3, 7, 100] {
            let should: Vec<_> =
                all.iter().filter(|record| record.revision >= Revision(from)).cloned().collect();
            assert_eq!(two.watch_all(Revision(from), limit), should, "from {from}, {limit} at a time");
        }
    }
    // What comes while it pages is seen too, and once.
    let page = two.watch(Revision(1), 5).expect("watch");
    let mut seen = page.records;
    let epoch = one.take(&key(4), 1);
    one.put(&batch(&key(4), epoch, 1, 3, 0)).expect("append");
    two.reopen();
    seen.extend(two.watch_all(page.next, 5));
    assert_eq!(seen.len(), 27);
    assert_eq!(seen[..24], all);
}

pub(super) fn says_what_may_be_gone(place: &Place) {
    let (mut one, mut two) = (Session::new(place), Session::new(place));
    let runs = fill(&mut one);
    let (run, epoch) = &runs[0];
    one.put(&ending(run, *epoch, 9)).expect("append");
    let watermark = one.trim(one_before_end(&mut two));
    assert!(watermark > Revision(1));
    for from in [Revision(0), Revision(1), watermark] {
        let err = two.watch(from, 10).expect_err("something may be gone");
        assert!(matches!(err, WatchError::Compacted { first } if first == watermark.next()), "{err:?}");
        let waiting = two.store().watch(from, 10, PATIENCE);
        assert!(waiting.is_err(), "it is said at once");
    }
    // From there on nothing is missing.
    assert_eq!(two.watch_all(watermark.next(), 10).len(), 1);
    let end = two.position();
    assert_eq!(two.watch_all(end.next(), 10), []);
    let err = two.watch(Revision(end.0 + 2), 10).expect_err("the store has not come so far");
    assert!(matches!(err, WatchError::Ahead { last } if last == end), "{err:?}");
}

fn one_before_end(session: &mut Session) -> Revision {
    let all = session.watch_all(Revision(1), 100);
    let end = all.last().expect("there are records").revision;
    Revision(end.0 - 1)
}

pub(super) fn trimming_keeps(place: &Place) {
    let mut one = Session::new(place);
    let runs = fill(&mut one);
    let before: Vec<_> = runs.iter().map(|(run, _)| one.log(run)).collect();
    let (run, epoch) = &runs[0];
    one.put(&ending(run, *epoch, 9)).expect("append");
    let end = one.position();
    // It ended after that.
    let early = Revision(end.0 - 1);
    assert_eq!(one.trim(early), early);
    assert_eq!(one.log(run).len(), 9);
    // Not back, and not beyond the end.
    assert_eq!(one.trim(Revision(0)), early);
    assert_eq!(one.trim(Revision(end.0 + 100)), end);
    assert!(matches!(one.page(run, 1, 1), Err(ReadError::Compacted)));
    for ((run, epoch), log) in runs.iter().zip(before).skip(1) {
        assert_eq!(one.log(run), log, "what goes on is kept whole");
        one.put(&batch(run, *epoch, 9, 1, 7)).expect("and goes on");
    }
    assert!(matches!(one.acquire(run, &owner(1)), Err(AcquireError::Ended)));
    let ended = one.runs(RunFilter::In(RunState::Ended));
    assert_eq!(ended.iter().map(|head| (&head.run, head.last.0)).collect::<Vec<_>>(), [(run, 9)]);
    // Also after reopening.
    one.reopen();
    assert!(matches!(one.page(run, 1, 1), Err(ReadError::Compacted)));
    assert_eq!(one.trim(Revision(0)), end);
}

pub(super) fn waiting(place: &Place) {
    let mut one = Session::new(place);
    let run = key(1);
    let epoch = one.take(&run, 1);
    let from = one.position().next();
    let fresh = batch(&run, epoch, 1, 2, 0);
    let page = thread::scope(|scope| {
        let watcher = scope.spawn(|| Session::new(place).store().watch(from, 10, PATIENCE));
        one.put(&fresh).expect("append");
        watcher.join().expect("it answers")
    });
    let page = page.expect("nothing fails in a watch");
    assert_log(&page.records, &[fresh]);
    assert!(page.next > from);
}

pub(super) fn listing(place: &Place) {
    let (mut one, mut two) = (Session::new(place), Session::new(place));
    // Taken, and nothing written: no run yet.
    one.take(&key(9), 1);
    for (number, state) in (1..).zip([
        RunState::Active,
        RunState::Held,
        RunState::Ended,
        RunState::Active,
        RunState::Active,
        RunState::Held,
    ]) {
        let run = key(number);
        let epoch = one.take(&run, number);
        one.put(&Batch { state, ..batch(&run, epoch, 1, number, 0) }).expect("append");
        if number == 4 {
            one.release(&run, epoch).expect("it is held");
        }
    }
    let numbers = |session: &mut Session, filter| -> Vec<u64> {
        session.runs(filter).iter().map(|head| head.last.0).collect()
    };
    assert_eq!(numbers(&mut two, RunFilter::All), [1, 2, 3, 4, 5, 6]);
    assert_eq!(numbers(&mut two, RunFilter::In(RunState::Active)), [1, 4, 5]);
    assert_eq!(numbers(&mut two, RunFilter::In(RunState::Held)), [2, 6]);
    assert_eq!(numbers(&mut two, RunFilter::In(RunState::Ended)), [3]);
    assert_eq!(numbers(&mut two, RunFilter::Claimable), [4]);
    let owners: Vec<_> =
        two.runs(RunFilter::All).into_iter().map(|head| head.lease.map(|lease| lease.owner)).collect();
    let who = |number| Some(owner(number));
    assert_eq!(owners, [who(1), who(2), who(3), None, who(5), who(6)]);
    place.pass(place.ttl * 2);
    assert_eq!(numbers(&mut two, RunFilter::Claimable), [1, 4, 5]);
    assert!(two.runs(RunFilter::All).iter().all(|head| head.lease.is_none()));
    two.take(&key(5), 2);
    assert_eq!(numbers(&mut one, RunFilter::Claimable), [1, 4]);
    let page = one.list(RunFilter::Claimable, Some(&key(1)), 5);
    assert_eq!((page.runs.len(), page.next, page.at), (1, None, two.position()));
}
