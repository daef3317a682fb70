//! Is an append that is in doubt settled, whatever happens, also to an owner who is deposed meanwhile?

use super::Place;
use super::session::{Session, assert_log, batch, key};
use crate::runstore::clock::ManualClock;
use crate::runstore::error::AppendError;
use crate::runstore::fault::{Fault, FaultScript};
use crate::runstore::settle::{Patience, append_settled};

/// Another owner, who comes before a certain try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rival {
    /// Before which try it takes over; the first is 0.
    pub before: u32,
    /// Whether it appends at once.
    pub appends: bool,
}

/// What may be said, and must then be so.
const TRIES: u32 = 4;

/// Appends a batch while its attempts meet `faults`, and perhaps a rival takes the run over; compares what is said with
/// what is there, and goes on to be there.
pub fn settle_under(place: &Place, faults: &[Option<Fault>], rival: Option<Rival>) {
    let script = FaultScript::new(&ManualClock::new());
    let (mut one, mut two) = (Session::new(&place.behind(&script)), Session::new(place));
    let run = key(1);
    let epoch = one.take(&run, 1);
    let first = batch(&run, epoch, 1, 1, 0);
    one.put(&first).expect("append");
    for fault in faults {
        match fault {
            Some(fault) => script.then(*fault),
            None => script.then_pass(1),
        };
    }
    let ours = batch(&run, epoch, 2, 3, 1);
    let (mut came, mut theirs) = (false, None);
    let mut take_over = |count: u32| {
        if rival.is_some_and(|rival| rival.before == count) {
            came = true;
            place.pass(place.ttl * 2);
            let epoch = two.take(&run, 2);
            if rival.is_some_and(|rival| rival.appends) {
                let next = two.log(&run).len() as u64 + 1;
                let fresh = batch(&run, epoch, next, 2, 2);
                two.put(&fresh).expect("append");
                theirs = Some(fresh);
            }
        }
    };
    take_over(0);
    let said = append_settled(one.store(), &ours, Patience { tries_max: TRIES, pause: &mut take_over });
    // Whatever is still on its way arrives now.
    for _ in 0..10 {
        let _ = one.store().read(&run, lidless_core::id::Seq(1), 1);
    }
    one.reopen();
    let (log, why) = (one.log(&run), format!("{faults:?} {rival:?} {said:?}"));
    let count = log.iter().filter(|record| record.id == ours.entries[0].id).count();
    assert!(count <= 1, "never twice: {why}");
    match &said {
        Ok(seq) => assert_eq!((count, *seq), (1, ours.last()), "it is there: {why}"),
        Err(AppendError::Unknown) => {}
        Err(_) => assert_eq!(count, 0, "it is not there: {why}"),
    }
    let mut should = vec![first];
    should.extend((count == 1).then(|| ours.clone()));
    should.extend(theirs.clone());
    assert_log(&log, &should);
    // Settled again, without faults: what was unknown becomes known, and what was known stays.
    let again = one.put(&ours);
    match (&said, &again) {
        (Ok(before), Ok(after)) => assert_eq!(before, after, "{why}"),
        (Err(_), Ok(_)) => assert!(!came || count == 1, "a lost lease stays lost: {why}"),
        (Err(_), Err(_)) => {
            assert!(came && count == 0, "nothing stands in the way: {why}, {again:?}")
        }
        (Ok(_), Err(err)) => panic!("it was there: {why}, {err}"),
    }
    let there = one.log(&run).iter().filter(|record| record.id == ours.entries[0].id).count();
    assert_eq!(there, usize::from(again.is_ok()), "{why}");
}

pub(super) fn unknown_is_settled(place: &Place) {
    // One place for all: each fault has its own run.
    let script = FaultScript::new(&ManualClock::new());
    let mut one = Session::new(&place.behind(&script));
    for (number, fault) in (1..).zip(Fault::EACH.into_iter().chain((0..5).map(Fault::Late))) {
        let run = key(number);
        let epoch = one.take(&run, 1);
        let first = batch(&run, epoch, 1, 2, 0);
        one.put(&first).expect("append");
        let second = batch(&run, epoch, 3, 2, 0);
        script.then(fault);
        assert_eq!(one.put(&second).expect("settled"), second.last(), "{fault:?}");
        let third = batch(&run, epoch, 5, 1, 0);
        one.put(&third).expect("append");
        for _ in 0..5 {
            one.page(&run, 1, 1).expect("what is late arrives");
        }
        assert_log(&one.log(&run), &[first, second, third]);
    }
}
