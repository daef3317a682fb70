//! How does a run store behave? The model: maps and vectors, nothing that could fail, and no clock but the one it is given.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lidless_core::id::Seq;

use super::clock::{LeaseClock, LeaseTime};
use super::error::{AcquireError, AppendError, LeaseError, ReadError, StoreError, WatchError};
use super::port::RunStore;
use super::record::{
    Batch, Epoch, Lease, LeaseView, LogPage, LogRecord, Owner, PAGE_MAX, PageLimit, Revision, RunFilter,
    RunHead, RunKey, RunPage, RunState, WatchPage,
};

/// What survives a [`MemoryRunStore`]: clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct MemoryRunDisk(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    kept: Mutex<Kept>,
    grown: Condvar,
}

#[derive(Debug, Default)]
struct Kept {
    revision: Revision,
    trimmed: Revision,
    runs: BTreeMap<RunKey, Run>,
    leases: BTreeMap<RunKey, Held>,
}

#[derive(Debug)]
struct Run {
    state: RunState,
    last: Seq,
    log: Vec<LogRecord>,
}

#[derive(Debug)]
struct Held {
    owner: Owner,
    epoch: Epoch,
    ttl: Duration,
    until: LeaseTime,
}

/// A run store in memory.
pub struct MemoryRunStore {
    disk: MemoryRunDisk,
    clock: Arc<dyn LeaseClock>,
}

impl MemoryRunStore {
    /// Opens the store on `disk`, with what others left and leave there.
    pub fn on(disk: &MemoryRunDisk, clock: Arc<dyn LeaseClock>) -> Self {
        MemoryRunStore { disk: disk.clone(), clock }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing in here panics half-way through a change.
        self.disk.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn is_live(&self, now: &LeaseTime) -> bool {
        self.until.era == now.era && self.until.since > now.since
    }
}

impl Kept {
    /// Returns the lease of a run, if it is live.
    fn lease(&self, run: &RunKey, now: &LeaseTime) -> Option<&Held> {
        self.leases.get(run).filter(|held| held.is_live(now))
    }

    fn state(&self, run: &RunKey) -> Option<RunState> {
        self.runs.get(run).map(|run| run.state)
    }

    fn is_held(&self, run: &RunKey, epoch: Epoch, now: &LeaseTime) -> bool {
        self.lease(run, now).is_some_and(|held| held.epoch == epoch)
    }

    fn watch(&self, from: Revision, limit: usize) -> WatchPage {
        let logs = self.runs.values().flat_map(|run| &run.log);
        let mut coming: Vec<&LogRecord> = logs.filter(|record| record.revision >= from).collect();
        coming.sort_by_key(|record| (record.revision, record.seq));
        let (mut records, mut page) = (Vec::<LogRecord>::new(), PageLimit::new(limit));
        for record in coming {
            let begun = records.last().is_some_and(|last| last.revision == record.revision);
            if page.is_reached() && !begun {
                return WatchPage { records, next: record.revision };
            }
            page.count(record);
            records.push(record.clone());
        }
        WatchPage { records, next: self.revision.next().max(from) }
    }
}

impl RunStore for MemoryRunStore {
    fn acquire(&mut self, run: &RunKey, owner: &Owner, ttl: Duration) -> Result<Lease, AcquireError> {
        let mut kept = self.kept();
        let now = self.clock.now();
        if kept.state(run) == Some(RunState::Ended) {
            return Err(AcquireError::Ended);
        }
        if let Some(held) = kept.lease(run, &now).filter(|held| held.owner != *owner) {
            return Err(AcquireError::Held { by: held.owner.clone() });
        }
        kept.revision = kept.revision.next();
        let epoch = Epoch(kept.revision.0);
        let until = LeaseTime { since: now.since + ttl, ..now };
        kept.leases.insert(run.clone(), Held { owner: owner.clone(), epoch, ttl, until });
        Ok(Lease { epoch, ttl })
    }

    fn renew(&mut self, run: &RunKey, epoch: Epoch) -> Result<Duration, LeaseError> {
        let mut kept = self.kept();
        let now = self.clock.now();
        let held = kept.leases.get_mut(run).filter(|held| held.epoch == epoch && held.is_live(&now));
        let held = held.ok_or(LeaseError::Lost)?;
        held.until.since = now.since + held.ttl;
        Ok(held.ttl)
    }

    fn release(&mut self, run: &RunKey, epoch: Epoch) -> Result<(), LeaseError> {
        let mut kept = self.kept();
        if !kept.is_held(run, epoch, &self.clock.now()) {
            return Err(LeaseError::Lost);
        }
        kept.leases.remove(run);
        Ok(())
    }

    fn append(&mut self, batch: &Batch) -> Result<Seq, AppendError> {
        if let Some(why) = batch.unfit() {
            return Err(AppendError::Unfit { why });
        }
        let mut kept = self.kept();
        if !kept.is_held(&batch.run, batch.epoch, &self.clock.now()) {
            return Err(AppendError::Fenced);
        }
        if kept.state(&batch.run) == Some(RunState::Ended) {
            return Err(AppendError::Ended);
        }
        let last = kept.runs.get(&batch.run).map_or(Seq(0), |run| run.last);
        if batch.expect <= last {
            return Err(AppendError::SeqTaken { last });
        }
        if batch.expect > last.next() {
            return Err(AppendError::Gap { last });
        }
        kept.revision = kept.revision.next();
        let revision = kept.revision;
        let fresh = Run { state: batch.state, last, log: Vec::new() };
        let run = kept.runs.entry(batch.run.clone()).or_insert(fresh);
        for entry in &batch.entries {
            run.last = run.last.next();
            run.log.push(LogRecord {
                run: batch.run.clone(),
                seq: run.last,
                revision,
                epoch: batch.epoch,
                id: entry.id,
                body: entry.body.clone(),
            });
        }
        run.state = batch.state;
        let last = run.last;
        drop(kept);
        self.disk.0.grown.notify_all();
        Ok(last)
    }

    fn read(&mut self, run: &RunKey, from: Seq, limit: usize) -> Result<LogPage, ReadError> {
        let kept = self.kept();
        let Some(run) = kept.runs.get(run) else { return Ok(LogPage { records: vec![], last: Seq(0) }) };
        if run.log.is_empty() {
            return Err(ReadError::Compacted);
        }
        let (mut records, mut page) = (Vec::new(), PageLimit::new(limit));
        for record in run.log.iter().skip_while(|record| record.seq < from) {
            if page.is_reached() {
                break;
            }
            page.count(record);
            records.push(record.clone());
        }
        Ok(LogPage { records, last: run.last })
    }

    fn list(
        &mut self,
        filter: RunFilter,
        after: Option<&RunKey>,
        limit: usize,
    ) -> Result<RunPage, StoreError> {
        let kept = self.kept();
        let now = self.clock.now();
        let (mut runs, limit) = (Vec::new(), limit.clamp(1, PAGE_MAX));
        for (key, run) in &kept.runs {
            let lease = kept.lease(key, &now);
            let wanted = match filter {
                RunFilter::All => true,
                RunFilter::In(state) => run.state == state,
                RunFilter::Claimable => run.state == RunState::Active && lease.is_none(),
            };
            if !wanted || after.is_some_and(|after| key <= after) {
                continue;
            }
            let lease = lease.map(|held| LeaseView { owner: held.owner.clone(), epoch: held.epoch });
            runs.push(RunHead { run: key.clone(), state: run.state, last: run.last, lease });
            if runs.len() == limit {
                break;
            }
        }
        let full = runs.len() == limit;
        let next = runs.last().filter(|_| full).map(|head| head.run.clone());
        Ok(RunPage { runs, at: kept.revision, next })
    }

    fn watch(&mut self, from: Revision, limit: usize, patience: Duration) -> Result<WatchPage, WatchError> {
        let from = from.max(Revision(1));
        let is_ahead = |kept: &Kept| from > kept.revision.next();
        let mut kept = self.kept();
        if is_ahead(&kept) {
            return Err(WatchError::Ahead { last: kept.revision });
        }
        if !patience.is_zero() {
            let nothing = |kept: &mut Kept| {
                from > kept.trimmed && kept.runs.values().all(|run| run.log.iter().all(|r| r.revision < from))
            };
            let waited = self.disk.0.grown.wait_timeout_while(kept, patience, nothing);
            (kept, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if from <= kept.trimmed {
            return Err(WatchError::Compacted { first: kept.trimmed.next() });
        }
        Ok(kept.watch(from, limit))
    }

    fn trim(&mut self, watermark: Revision) -> Result<Revision, StoreError> {
        let mut kept = self.kept();
        let trimmed = kept.trimmed.max(watermark.min(kept.revision));
        kept.trimmed = trimmed;
        let is_over = |run: &Run| {
            run.state == RunState::Ended && run.log.last().is_some_and(|last| last.revision <= trimmed)
        };
        let Kept { runs, leases, .. } = &mut *kept;
        for (key, run) in runs.iter_mut().filter(|(_, run)| is_over(run)) {
            run.log.clear();
            leases.remove(key);
        }
        drop(kept);
        self.disk.0.grown.notify_all();
        Ok(trimmed)
    }
}
