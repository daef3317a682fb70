//! Does one drive a run, and one only?

use std::thread;

use super::Place;
use super::session::{Session, assert_log, batch, key, owner};
use crate::runstore::error::{AcquireError, AppendError, LeaseError};
use crate::runstore::record::{Epoch, RunKey, RunState};

/// Lets eight acquire at once; returns the winner and its epoch after comparing what the others were told.
fn race(place: &Place, run: &RunKey) -> (u64, Epoch) {
    let results: Vec<_> = thread::scope(|scope| {
        let racers: Vec<_> = (10..18)
            .map(|number| scope.spawn(move || (number, Session::new(place).acquire(run, &owner(number)))))
            .collect();
        racers.into_iter().map(|racer| racer.join().expect("it answers")).collect()
    });
    let mut winners =
        results.iter().filter_map(|(number, result)| Some((*number, result.as_ref().ok()?.epoch)));
    let winner = winners.next().expect("one wins");
    assert_eq!(winners.next(), None, "and nobody else");
    for (_, result) in &results {
        match result {
            Ok(_) => {}
            Err(AcquireError::Held { by }) => assert_eq!(*by, owner(winner.0)),
            Err(err) => panic!("{err:?}"),
        }
    }
    winner
}

pub(super) fn one_of_two_wins(place: &Place) {
    let (mut one, mut two) = (Session::new(place), Session::new(place));
    one.take(&key(1), 1);
    let err = two.acquire(&key(1), &owner(2)).expect_err("it is taken");
    assert!(matches!(&err, AcquireError::Held { by } if *by == owner(1)), "{err:?}");
    two.take(&key(2), 2);
    race(place, &key(3));
}

pub(super) fn a_stale_epoch_is_refused(place: &Place) {
    let (mut one, mut two) = (Session::new(place), Session::new(place));
    let run = key(1);
    let old = one.take(&run, 1);
    let first = batch(&run, old, 1, 2, 0);
    one.put(&first).expect("append");
    place.pass(place.ttl * 2);
    let new = two.take(&run, 2);
    assert!(new > old, "{new:?} after {old:?}");
    for epoch in [old, Epoch(0), Epoch(new.0 + 1)] {
        let err = one.put(&batch(&run, epoch, 3, 1, 1)).expect_err("fenced");
        assert!(matches!(err, AppendError::Fenced), "{err:?}");
        assert!(matches!(one.renew(&run, epoch), Err(LeaseError::Lost)));
        match one.store().release(&run, epoch) {
            Err(LeaseError::Lost | LeaseError::Unknown) => {}
            // By a fault of the store's own; a handle that is dead now is opened again by what follows.
            Err(LeaseError::Failed(err)) => assert!(err.is_retryable(), "{err}"),
            Ok(()) => panic!("it was not the owner's to give back"),
        }
    }
    // Another run's epoch is none of this one's.
    let other = one.take(&key(2), 1);
    assert!(matches!(one.put(&batch(&run, other, 3, 1, 1)), Err(AppendError::Fenced)));
    let second = batch(&run, new, 3, 1, 2);
    two.put(&second).expect("append");
    assert_log(&two.log(&run), &[first, second]);
}

pub(super) fn expiry_hands_over_once(place: &Place) {
    let mut one = Session::new(place);
    let run = key(1);
    let mut last = one.take(&run, 1);
    for _ in 0..3 {
        place.pass(place.ttl / 2);
        let err = Session::new(place).acquire(&run, &owner(2)).expect_err("it lasts still");
        assert!(matches!(err, AcquireError::Held { .. }), "{err:?}");
        place.pass(place.ttl);
        let (_, epoch) = race(place, &run);
        assert!(epoch > last, "{epoch:?} after {last:?}");
        assert!(matches!(one.renew(&run, last), Err(LeaseError::Lost)));
        last = epoch;
    }
}

pub(super) fn renewing(place: &Place) {
    let (mut one, mut two) = (Session::new(place), Session::new(place));
    let run = key(1);
    let epoch = one.take(&run, 1);
    for _ in 0..5 {
        place.pass(place.ttl / 2);
        assert!(one.renew(&run, epoch).expect("it is held") >= place.ttl);
        assert!(two.acquire(&run, &owner(2)).is_err(), "it was renewed");
    }
    one.put(&batch(&run, epoch, 1, 1, 0)).expect("it is held");
    place.pass(place.ttl * 2);
    // Nobody has taken it, and yet it is over.
    assert!(matches!(one.renew(&run, epoch), Err(LeaseError::Lost)));
    assert!(matches!(one.put(&batch(&run, epoch, 2, 1, 0)), Err(AppendError::Fenced)));
    let taken = two.take(&run, 2);
    assert!(matches!(one.renew(&run, epoch), Err(LeaseError::Lost)));
    two.renew(&run, taken).expect("the new one is held");
}

pub(super) fn asking_again_fences(place: &Place) {
    let mut one = Session::new(place);
    let run = key(1);
    let before = one.take(&run, 1);
    let after = one.take(&run, 1);
    assert!(after > before);
    assert!(matches!(one.put(&batch(&run, before, 1, 1, 0)), Err(AppendError::Fenced)));
    assert!(matches!(one.renew(&run, before), Err(LeaseError::Lost)));
    one.put(&batch(&run, after, 1, 1, 0)).expect("append");
}

pub(super) fn released_is_free(place: &Place) {
    let (mut one, mut two) = (Session::new(place), Session::new(place));
    let run = key(1);
    let epoch = one.take(&run, 1);
    one.release(&run, epoch).expect("it is held");
    let err = one.put(&batch(&run, epoch, 1, 1, 0)).expect_err("it was given back");
    assert!(matches!(err, AppendError::Fenced), "{err:?}");
    assert!(two.take(&run, 2) > epoch);
    // Its own epoch does not come back either.
    let epoch = two.take(&key(2), 2);
    two.release(&key(2), epoch).expect("it is held");
    assert!(two.take(&key(2), 2) > epoch);
}

pub(super) fn a_paused_owner_is_fenced(place: &Place) {
    let (mut old, mut new) = (Session::new(place), Session::new(place));
    let run = key(1);
    let stale = old.take(&run, 1);
    let first = batch(&run, stale, 1, 3, 0);
    old.put(&first).expect("append");
    // The old owner has decided what comes next, and is stopped before it can say so.
    let late = batch(&run, stale, 4, 2, 1);
    place.pass(place.ttl * 2);
    let err = old.put(&late).expect_err("its lease is over, though nobody else has one");
    assert!(matches!(err, AppendError::Fenced), "{err:?}");
    let epoch = new.take(&run, 2);
    assert!(matches!(old.put(&late), Err(AppendError::Fenced)));
    let second = batch(&run, epoch, 4, 2, 2);
    new.put(&second).expect("append");
    for wrong in [late.clone(), batch(&run, stale, 6, 1, 1)] {
        assert!(matches!(old.put(&wrong), Err(AppendError::Fenced)));
    }
    let third = batch(&run, epoch, 6, 1, 3);
    new.put(&third).expect("append");
    assert_log(&new.log(&run), &[first, second, third]);
}

pub(super) fn an_ended_run_is_not_acquired(place: &Place) {
    let mut one = Session::new(place);
    let run = key(1);
    let epoch = one.take(&run, 1);
    let mut end = batch(&run, epoch, 1, 1, 0);
    end.state = RunState::Ended;
    one.put(&end).expect("append");
    assert!(matches!(one.acquire(&run, &owner(1)), Err(AcquireError::Ended)));
    one.release(&run, epoch).expect("it is held still");
    assert!(matches!(one.acquire(&run, &owner(2)), Err(AcquireError::Ended)));
}
