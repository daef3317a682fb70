//! Do memory and SQLite keep the same promises, also when their disk fails?
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::atomic::{AtomicU64, Ordering};

use lidless_store::conformance::{Op, Open, history, suite};
use lidless_store::{
    Fault, FaultJournal, FaultPlan, Journal, MemoryDisk, MemoryJournal, SqliteJournal, verify,
};
use proptest::prelude::*;
use tempfile::TempDir;

fn in_memory() -> Open {
    let disk = MemoryDisk::default();
    Box::new(move || Ok(Box::new(MemoryJournal::on(&disk)) as Box<dyn Journal>))
}

fn on_sqlite(directory: &TempDir) -> Open {
    static PLACES: AtomicU64 = AtomicU64::new(0);
    let path = directory.path().join(format!("{}.db", PLACES.fetch_add(1, Ordering::Relaxed)));
    Box::new(move || Ok(Box::new(SqliteJournal::open(&path)?) as Box<dyn Journal>))
}

/// Makes appends fail now and then, in an order that the seed decides; no two in a row at first, so that each is seen.
fn failing(mut open: Open, seed: u64) -> Open {
    const FAULTS: [Fault; 5] =
        [Fault::LostBefore, Fault::LostAfter, Fault::Full, Fault::IoBefore, Fault::IoAfter];
    let plan = FaultPlan::new();
    let mut state = seed;
    for _ in 0..200 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = (state >> 33) as usize;
        plan.then_pass(pick % 3).then(FAULTS[pick / 3 % FAULTS.len()]);
    }
    Box::new(move || Ok(Box::new(FaultJournal::new(open()?, &plan)) as Box<dyn Journal>))
}

#[test]
fn memory_conforms() {
    suite(&mut in_memory);
}

#[test]
fn memory_conforms_with_faults() {
    for seed in 0..20 {
        suite(&mut || failing(in_memory(), seed));
    }
}

#[test]
fn sqlite_conforms() {
    let directory = tempfile::tempdir().unwrap();
    suite(&mut || on_sqlite(&directory));
    for entry in directory.path().read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "db") {
            assert_eq!(verify(&path, &mut |_, _| {}).unwrap().problems, []);
        }
    }
}

#[test]
fn sqlite_conforms_with_faults() {
    let directory = tempfile::tempdir().unwrap();
    for seed in 0..3 {
        suite(&mut || failing(on_sqlite(&directory), seed));
    }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let fault = prop_oneof![
        Just(Fault::LostBefore),
        Just(Fault::LostAfter),
        Just(Fault::Full),
        Just(Fault::IoBefore),
        Just(Fault::IoAfter),
    ];
    let op = prop_oneof![
        4 => (0..20_u8).prop_map(Op::Append),
        2 => (0..30_u8).prop_map(Op::Again),
        1 => (0..5_u8).prop_map(Op::Gap),
        1 => (0..30_u8).prop_map(Op::Conflict),
        3 => fault.prop_map(Op::Fault),
        1 => Just(Op::Reopen),
        2 => (0..40_u8).prop_map(Op::Snapshot),
        1 => (0..40_u8).prop_map(Op::Replay),
    ];
    prop::collection::vec(op, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_history_on_memory_agrees_with_the_model(ops in ops()) {
        history(in_memory(), &ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_history_on_sqlite_agrees_with_the_model(ops in ops()) {
        let directory = tempfile::tempdir().unwrap();
        history(on_sqlite(&directory), &ops);
    }
}
