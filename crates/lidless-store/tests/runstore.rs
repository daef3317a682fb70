//! Do run stores in memory and on SQLite keep the same promises, also when they, or the way to them, fail?
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lidless_store::runstore::conformance::{Op, Place, Rival, history, settle_under, suite};
use lidless_store::runstore::{
    Fault, FaultScript, LeaseClock, ManualClock, MemoryRunDisk, MemoryRunStore, RunFilter, RunState,
    RunStore, SqliteRunStore,
};
use proptest::prelude::*;
use tempfile::TempDir;

fn in_memory(clock: &ManualClock) -> Place {
    let (disk, lease_clock): (_, Arc<dyn LeaseClock>) = (MemoryRunDisk::default(), Arc::new(clock.clone()));
    let open = move || Ok(Box::new(MemoryRunStore::on(&disk, Arc::clone(&lease_clock))) as Box<dyn RunStore>);
    Place::new(Arc::new(open), clock)
}

fn on_sqlite(directory: &TempDir, clock: &ManualClock) -> Place {
    static PLACES: AtomicU64 = AtomicU64::new(0);
    let path = directory.path().join(format!("{}.db", PLACES.fetch_add(1, Ordering::Relaxed)));
    let clock_of_leases: Arc<dyn LeaseClock> = Arc::new(clock.clone());
    let open =
        move || Ok(Box::new(SqliteRunStore::open(&path, Arc::clone(&clock_of_leases))?) as Box<dyn RunStore>);
    Place::new(Arc::new(open), clock)
}

#[test]
fn memory_conforms() {
    suite(&mut || in_memory(&ManualClock::new()));
}

#[test]
fn memory_conforms_with_faults() {
    let (mut calls, mut faults) = (0, 0);
    for seed in 0..20 {
        let mut scripts = Vec::new();
        suite(&mut || {
            let clock = ManualClock::new();
            let script = FaultScript::random(&clock, seed, 4);
            scripts.push(script.clone());
            in_memory(&clock).behind(&script)
        });
        for (called, failed) in scripts.iter().map(FaultScript::counts) {
            (calls, faults) = (calls + called, faults + failed);
        }
    }
    assert!(faults > calls / 8, "{faults} of {calls} calls met a fault");
}

#[test]
fn sqlite_conforms() {
    let directory = tempfile::tempdir().unwrap();
    suite(&mut || on_sqlite(&directory, &ManualClock::new()));
}

#[test]
fn sqlite_conforms_with_faults() {
    for seed in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        suite(&mut || {
            let clock = ManualClock::new();
            on_sqlite(&directory, &clock).behind(&FaultScript::random(&clock, seed, 4))
        });
    }
}

/// What one attempt can meet.
fn attempts() -> Vec<Option<Fault>> {
    let late = [0, 2, 3, 4].map(Fault::Late);
    Fault::EACH.into_iter().chain(late).map(Some).chain([None]).collect()
}

/// Who may come between, and when.
fn rivals() -> Vec<Option<Rival>> {
    let rival = |before| [false, true].map(|appends| Some(Rival { before, appends }));
    [None].into_iter().chain((0..4).flat_map(rival)).collect()
}

#[test]
fn whatever_three_attempts_meet_an_append_is_settled() {
    let mut count = 0;
    for (one, two, three) in attempts().iter().flat_map(|one| {
        attempts()
            .into_iter()
            .flat_map(move |two| attempts().into_iter().map(move |three| (*one, two, three)))
    }) {
        for rival in rivals() {
            settle_under(&in_memory(&ManualClock::new()), &[one, two, three], rival);
            count += 1;
        }
    }
    assert_eq!(count, 13 * 13 * 13 * 9);
}

#[test]
fn whatever_one_attempt_meets_an_append_to_sqlite_is_settled() {
    let directory = tempfile::tempdir().unwrap();
    for attempt in attempts() {
        for rival in rivals() {
            settle_under(&on_sqlite(&directory, &ManualClock::new()), &[attempt], rival);
        }
    }
}

fn states() -> impl Strategy<Value = RunState> {
    prop_oneof![6 => Just(RunState::Active), 1 => Just(RunState::Held), 1 => Just(RunState::Ended)]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let (run, owner) = (1..4_u64, 1..4_u64);
    let fault = prop::option::of(prop::sample::select(
        [Fault::Late(0), Fault::Late(3), Fault::Delay(Duration::from_secs(20))]
            .into_iter()
            .chain(Fault::EACH)
            .collect::<Vec<_>>(),
    ));
    let off = prop_oneof![8 => Just(0_i8), 3 => -4..0_i8, 1 => Just(1_i8)];
    let append = (run.clone(), owner.clone(), off, 0..5_u64, any::<bool>(), states(), fault).prop_map(
        |(run, owner, off, count, alike, state, fault)| Op::Append {
            run,
            owner,
            off,
            count,
            alike,
            state,
            fault,
        },
    );
    let filter =
        prop_oneof![Just(RunFilter::All), Just(RunFilter::Claimable), states().prop_map(RunFilter::In),];
    let op = prop_oneof![
        5 => (run.clone(), owner.clone()).prop_map(|(run, owner)| Op::Acquire(run, owner)),
        2 => (run.clone(), owner.clone()).prop_map(|(run, owner)| Op::Renew(run, owner)),
        1 => (run.clone(), owner).prop_map(|(run, owner)| Op::Release(run, owner)),
        12 => append,
        2 => (run, 0..12_u64, 0..6_usize).prop_map(|(run, back, limit)| Op::Read(run, back, limit)),
        2 => (0..20_u64, 0..6_usize).prop_map(|(back, limit)| Op::Watch(back, limit)),
        1 => (filter, 0..4_u64, 0..4_usize).prop_map(|(filter, after, limit)| Op::List(filter, after, limit)),
        1 => (0..12_u64).prop_map(Op::Trim),
        2 => (1..12_000_u64).prop_map(Op::Pass),
        1 => Just(Op::Reboot),
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(op, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_history_on_memory_with_faults_agrees_with_the_model(ops in ops()) {
        let clock = ManualClock::new();
        history(&in_memory(&clock), &clock, &ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_history_on_sqlite_with_faults_agrees_with_the_model(ops in ops()) {
        let (directory, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
        history(&on_sqlite(&directory, &clock), &clock, &ops);
    }
}
