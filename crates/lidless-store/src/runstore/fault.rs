//! What if the store fails, or the way to it? Wraps one and makes what changes something go wrong, as a script says.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lidless_core::id::Seq;

use super::clock::ManualClock;
use super::error::{AcquireError, AppendError, LeaseError, ReadError, StoreError, WatchError};
use super::port::RunStore;
use super::record::{Batch, Epoch, Lease, LogPage, Owner, Revision, RunFilter, RunKey, RunPage, WatchPage};

/// What goes wrong with one call that would change something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It is done, and the answer is lost.
    AckLost,
    /// It is not done, and the caller cannot know that.
    RequestLost,
    /// An append arrives only after so many more calls, and the caller has given up waiting. Another call: as a lost one.
    Late(u8),
    /// It takes that long, by the script's clock, before it is done.
    Delay(Duration),
    /// The store cannot be reached: it is not done, and the caller knows.
    FailBefore,
    /// There is no space: it is not done, and the caller knows.
    Full,
    /// The caller's process ends before it is done: this handle answers nothing any more.
    CrashBefore,
    /// The caller's process ends after it is done.
    CrashAfter,
}

impl Fault {
    /// One of each, for a random script: what is late or slow is so by a little.
    pub const EACH: [Fault; 8] = [
        Fault::AckLost,
        Fault::RequestLost,
        Fault::Late(1),
        Fault::Delay(Duration::from_millis(1)),
        Fault::FailBefore,
        Fault::Full,
        Fault::CrashBefore,
        Fault::CrashAfter,
    ];
}

/// The faults to come, shared by all handles of a store and the test that plans them.
#[derive(Clone, Debug, Default)]
pub struct FaultScript(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    next: VecDeque<Option<Fault>>,
    /// A random source, and one call in how many fails once what was planned is used up.
    random: Option<(u64, u64)>,
    clock: Option<ManualClock>,
    /// Requests on their way, and after how many calls they arrive: also when their sender is gone by then.
    late: Vec<(u8, Batch)>,
    calls: u64,
    faults: u64,
}

impl FaultScript {
    /// Begins a script in which nothing goes wrong, and slow calls take time on `clock`.
    pub fn new(clock: &ManualClock) -> Self {
        FaultScript(Arc::new(Mutex::new(Script { clock: Some(clock.clone()), ..Script::default() })))
    }

    /// Lets one call in `one_in` fail, as the seed decides.
    pub fn random(clock: &ManualClock, seed: u64, one_in: u64) -> Self {
        let script = FaultScript::new(clock);
        script.script().random = Some((seed, one_in.max(1)));
        script
    }

    /// Plans a fault for the call after those planned so far.
    pub fn then(&self, fault: Fault) -> &Self {
        self.script().next.push_back(Some(fault));
        self
    }

    /// Plans `count` calls without a fault.
    pub fn then_pass(&self, count: usize) -> &Self {
        self.script().next.extend(std::iter::repeat_n(None, count));
        self
    }

    /// Returns how many calls would have changed something, and how many of them met a fault.
    pub fn counts(&self) -> (u64, u64) {
        let script = self.script();
        (script.calls, script.faults)
    }

    fn draw(&self) -> Option<Fault> {
        let mut script = self.script();
        script.calls += 1;
        let fault = match (script.next.pop_front(), &mut script.random) {
            (Some(planned), _) => planned,
            (None, Some((state, one_in))) => {
                *state =
                    state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let pick = *state >> 33;
                let which = (pick / *one_in) as usize % Fault::EACH.len();
                (pick % *one_in == 0).then(|| Fault::EACH[which])
            }
            (None, None) => None,
        };
        script.faults += u64::from(fault.is_some());
        fault
    }

    /// Returns the requests that arrive with this call.
    fn due(&self) -> Vec<Batch> {
        let mut script = self.script();
        for (calls, _) in &mut script.late {
            *calls = calls.saturating_sub(1);
        }
        script.late.extract_if(.., |(calls, _)| *calls == 0).map(|(_, batch)| batch).collect()
    }

    fn pass(&self, time: Duration) {
        if let Some(clock) = &self.script().clock {
            clock.pass(time);
        }
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run store that fails as its script says.
pub struct FaultStore<S> {
    inner: S,
    script: FaultScript,
    crashed: bool,
}

/// How a call went that met its fault.
enum Met<T> {
    Done(T),
    Unknown,
    Failed(StoreError),
}

impl<S: RunStore> FaultStore<S> {
    /// Wraps `inner`.
    pub fn new(inner: S, script: &FaultScript) -> Self {
        FaultStore { inner, script: script.clone(), crashed: false }
    }

    /// Delivers what is due; refuses everything after a crash.
    fn begin(&mut self) -> Result<(), StoreError> {
        for batch in self.script.due() {
            // Nobody waits for the answer any more.
            let _ = self.inner.append(&batch);
        }
        match self.crashed {
            true => Err(unavailable("its user has crashed")),
            false => Ok(()),
        }
    }

    /// Does what changes something, or what the script makes of it. `late` is what can arrive later.
    fn meet<T>(&mut self, late: Option<&Batch>, act: impl FnOnce(&mut S) -> T) -> Met<T> {
        if let Err(err) = self.begin() {
            return Met::Failed(err);
        }
        match self.script.draw() {
            None => Met::Done(act(&mut self.inner)),
            Some(Fault::AckLost) => {
                act(&mut self.inner);
                Met::Unknown
            }
            Some(Fault::RequestLost) => Met::Unknown,
            Some(Fault::Late(calls)) => {
                self.script.script().late.extend(late.map(|batch| (calls.saturating_add(1), batch.clone())));
                Met::Unknown
            }
            Some(Fault::Delay(time)) => {
                self.script.pass(time);
                Met::Done(act(&mut self.inner))
            }
            Some(Fault::FailBefore) => Met::Failed(unavailable("planned fault")),
            Some(Fault::Full) => Met::Failed(StoreError::Full { store: name() }),
            Some(Fault::CrashBefore) => {
                self.crashed = true;
                Met::Unknown
            }
            Some(Fault::CrashAfter) => {
                act(&mut self.inner);
                self.crashed = true;
                Met::Unknown
            }
        }
    }
}

impl<S: RunStore> RunStore for FaultStore<S> {
    fn acquire(&mut self, run: &RunKey, owner: &Owner, ttl: Duration) -> Result<Lease, AcquireError> {
        match self.meet(None, |inner| inner.acquire(run, owner, ttl)) {
            Met::Done(result) => result,
            Met::Unknown => Err(AcquireError::Unknown),
            Met::Failed(err) => Err(err.into()),
        }
    }

    fn renew(&mut self, run: &RunKey, epoch: Epoch) -> Result<Duration, LeaseError> {
        match self.meet(None, |inner| inner.renew(run, epoch)) {
            Met::Done(result) => result,
            Met::Unknown => Err(LeaseError::Unknown),
            Met::Failed(err) => Err(err.into()),
        }
    }

    fn release(&mut self, run: &RunKey, epoch: Epoch) -> Result<(), LeaseError> {
        match self.meet(None, |inner| inner.release(run, epoch)) {
            Met::Done(result) => result,
            Met::Unknown => Err(LeaseError::Unknown),
            Met::Failed(err) => Err(err.into()),
        }
    }

    fn append(&mut self, batch: &Batch) -> Result<Seq, AppendError> {
        match self.meet(Some(batch), |inner| inner.append(batch)) {
            Met::Done(result) => result,
            Met::Unknown => Err(AppendError::Unknown),
            Met::Failed(err) => Err(err.into()),
        }
    }

    fn read(&mut self, run: &RunKey, from: Seq, limit: usize) -> Result<LogPage, ReadError> {
        self.begin()?;
        self.inner.read(run, from, limit)
    }

    fn list(
        &mut self,
        filter: RunFilter,
        after: Option<&RunKey>,
        limit: usize,
    ) -> Result<RunPage, StoreError> {
        self.begin()?;
        self.inner.list(filter, after, limit)
    }

    fn watch(&mut self, from: Revision, limit: usize, patience: Duration) -> Result<WatchPage, WatchError> {
        self.begin()?;
        self.inner.watch(from, limit, patience)
    }

    fn trim(&mut self, watermark: Revision) -> Result<Revision, StoreError> {
        match self.meet(None, |inner| inner.trim(watermark)) {
            Met::Done(result) => result,
            // It has no word for "unknown": an error of a trim always may be one that came after it was done.
            Met::Unknown => Err(unavailable("planned fault")),
            Met::Failed(err) => Err(err),
        }
    }
}

fn name() -> String {
    "(fault)".to_owned()
}

fn unavailable(why: &'static str) -> StoreError {
    StoreError::Unavailable { store: name(), action: "reach", source: why.into() }
}
