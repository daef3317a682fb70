//! Does a store answer as the model does, whatever is asked of it in whatever order?

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use lidless_core::id::Seq;

use super::Place;
use super::session::{Session, batch, key, owner};
use crate::runstore::clock::ManualClock;
use crate::runstore::fault::{Fault, FaultScript};
use crate::runstore::memory::{MemoryRunDisk, MemoryRunStore};
use crate::runstore::port::RunStore;
use crate::runstore::record::{Batch, Epoch, Revision, RunFilter, RunState};

/// One step of a random history. Runs and owners are numbers; a small one makes them meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// An owner asks for a run.
    Acquire(u64, u64),
    /// An owner renews the last lease that it had of a run.
    Renew(u64, u64),
    /// An owner gives back the last lease that it had of a run.
    Release(u64, u64),
    /// An owner appends by the last lease that it had.
    Append {
        /// To which run.
        run: u64,
        /// Who.
        owner: u64,
        /// How far from the run's end: 0 continues it.
        off: i8,
        /// How many records.
        count: u64,
        /// Whether they are the same as those that anybody would have there.
        alike: bool,
        /// What becomes of the run.
        state: RunState,
        /// What the first attempt meets.
        fault: Option<Fault>,
    },
    /// A page of a run's log, from so many records before its end.
    Read(u64, u64, usize),
    /// A page of the store's history, from so many revisions before its end.
    Watch(u64, usize),
    /// A page of runs.
    List(RunFilter, u64, usize),
    /// Trim up to so many revisions before the end.
    Trim(u64),
    /// Time passes, in milliseconds.
    Pass(u64),
    /// The machine starts again.
    Reboot,
    /// Close and open.
    Reopen,
}

/// Runs a history on a place and on the model, which share a clock, and compares every answer.
pub fn history(place: &Place, clock: &ManualClock, ops: &[Op]) {
    let script = FaultScript::new(clock);
    let mut session = Session::new(&place.behind(&script));
    let disk = MemoryRunDisk::default();
    let mut model = Session::new(&Place::new(
        {
            let (disk, clock) = (disk.clone(), clock.clone());
            Arc::new(move || {
                Ok(Box::new(MemoryRunStore::on(&disk, Arc::new(clock.clone()))) as Box<dyn RunStore>)
            })
        },
        clock,
    ));
    let mut epochs: BTreeMap<(u64, u64), Epoch> = BTreeMap::new();
    let mut boots = 0;
    for (step, op) in ops.iter().enumerate() {
        let said = |real: &dyn Debug, wanted: &dyn Debug| {
            assert_eq!(format!("{real:?}"), format!("{wanted:?}"), "step {step}: {op:?}");
        };
        let epoch = |run, who| epochs.get(&(run, who)).copied().unwrap_or(Epoch(0));
        match *op {
            Op::Acquire(run, who) => {
                let real = session.acquire(&key(run), &owner(who));
                said(&real, &model.acquire(&key(run), &owner(who)));
                if let Ok(lease) = real {
                    epochs.insert((run, who), lease.epoch);
                }
            }
            Op::Renew(run, who) => {
                let epoch = epoch(run, who);
                said(&session.renew(&key(run), epoch), &model.renew(&key(run), epoch));
            }
            Op::Release(run, who) => {
                let epoch = epoch(run, who);
                said(&session.release(&key(run), epoch), &model.release(&key(run), epoch));
            }
            Op::Append { run, owner, off, count, alike, state, fault } => {
                let last = model.page(&key(run), 1, 1).map_or(0, |page| page.last.0);
                let expect = (last + 1).saturating_add_signed(i64::from(off));
                let flavour = if alike { 0 } else { step as u64 + 1 };
                let fresh = batch(&key(run), epoch(run, owner), expect, count, flavour);
                let fresh = Batch { state, ..fresh };
                // One that no store takes is not even sent.
                if let Some(fault) = fault.filter(|_| fresh.unfit().is_none()) {
                    script.then(fault);
                }
                // The real one first: its fault may take time.
                let real = session.put(&fresh);
                said(&real, &model.put(&fresh));
            }
            Op::Read(run, back, limit) => {
                let last = model.page(&key(run), 1, 1).map_or(Seq(0), |page| page.last);
                let from = last.0.saturating_sub(back);
                said(&session.page(&key(run), from, limit), &model.page(&key(run), from, limit));
            }
            Op::Watch(back, limit) => {
                let from = Revision((model.position().0 + 3).saturating_sub(back));
                said(&session.watch(from, limit), &model.watch(from, limit));
            }
            Op::List(filter, after, limit) => {
                let after = (after > 0).then(|| key(after));
                let (after, limit) = (after.as_ref(), limit.max(1));
                said(&session.list(filter, after, limit), &model.list(filter, after, limit));
            }
            Op::Trim(back) => {
                let watermark = Revision((model.position().0 + 2).saturating_sub(back));
                said(&session.trim(watermark), &model.trim(watermark));
            }
            Op::Pass(ms) => clock.pass(Duration::from_millis(ms)),
            Op::Reboot => {
                boots += 1;
                clock.reboot(&format!("boot {boots}"));
            }
            Op::Reopen => session.reopen(),
        }
    }
    session.reopen();
    assert_eq!(session.runs(RunFilter::All), model.runs(RunFilter::All));
    for head in model.runs(RunFilter::All) {
        let real = format!("{:?}", session.page(&head.run, 1, 1_000));
        assert_eq!(real, format!("{:?}", model.page(&head.run, 1, 1_000)));
    }
    let trimmed = model.trim(Revision(0));
    assert_eq!(session.trim(Revision(0)), trimmed);
    assert_eq!(session.watch_all(trimmed.next(), 3), model.watch_all(trimmed.next(), 5));
}
