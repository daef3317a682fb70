//! When will time alone move something? Known of each run, and looked at again only where something changed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::engine::MARK_EVERY;
use crate::event::Event;
use crate::id::RunId;
use crate::outbox;
use crate::pipeline::{clock, start};
use crate::turning::Turning;

/// When runs, messages and schedules are due, in engine time.
#[derive(Debug)]
pub(crate) struct Wakes {
    of: BTreeMap<RunId, Duration>,
    by_time: BTreeSet<(Duration, RunId)>,
    /// Runs that may be due at another time by now.
    touched: Vec<RunId>,
    /// All of them may.
    all: bool,
    /// When the next message is due, once it is known; none is due for an inner `None`.
    pub(crate) owed: Option<Option<Duration>>,
    /// When the next schedule is due, likewise.
    pub(crate) schedule: Option<Option<Duration>>,
}

impl Default for Wakes {
    fn default() -> Wakes {
        Wakes {
            of: BTreeMap::new(),
            by_time: BTreeSet::new(),
            touched: Vec::new(),
            all: true,
            owed: None,
            schedule: None,
        }
    }
}

impl Wakes {
    /// Takes note of what an event may change.
    pub(crate) fn see(&mut self, event: &Event) {
        match event {
            Event::Started { .. }
            | Event::Stopped { .. }
            | Event::ConfigApplied { .. }
            | Event::StoreDegraded { .. }
            | Event::StoreRecovered => *self = Wakes::default(),
            Event::TriggerMissed { .. } => self.schedule = None,
            Event::NoticeOwed { .. } | Event::NoticeDelivered { .. } | Event::NoticeFailed { .. } => {
                self.owed = None;
            }
            Event::RunCreated { run, .. } => {
                self.schedule = None;
                self.touch(*run);
            }
            Event::StepIntent { run, .. }
            | Event::StepHandle { run, .. }
            | Event::StepOutcome { run, .. }
            | Event::StepConfirmed { run, .. }
            | Event::StepRetry { run, .. }
            | Event::StepLeftToVerify { run, .. }
            | Event::StepHeld { run, .. }
            | Event::StepStuck { run, .. }
            | Event::StepFailed { run, .. }
            | Event::StepSkipped { run, .. }
            | Event::StepAwaits { run, .. }
            | Event::StepApproved { run, .. }
            | Event::StepResolved { run, .. }
            | Event::CancelAsked { run, .. }
            | Event::RunTurned { run, .. }
            | Event::RunResumed { run, .. }
            | Event::RunFinished { run, .. } => self.touch(*run),
            Event::Marked
            | Event::HealthChanged { .. }
            | Event::IncidentOpened { .. }
            | Event::IncidentMerged { .. }
            | Event::IncidentClosed { .. }
            | Event::HealHeld { .. }
            | Event::BackedOff { .. }
            | Event::GaveUp { .. }
            | Event::Intervention { .. } => {}
        }
    }

    /// A run may be due at another time.
    pub(crate) fn touch(&mut self, run: RunId) {
        if self.touched.last() != Some(&run) {
            self.touched.push(run);
        }
    }

    /// All runs may be due at another time.
    pub(crate) fn touch_all(&mut self) {
        self.all = true;
    }

    /// Whether anything is to be looked at again.
    pub(crate) fn is_stale(&self) -> bool {
        self.all || !self.touched.is_empty() || self.owed.is_none() || self.schedule.is_none()
    }

    /// Takes the runs that are to be looked at again; none for all of them.
    pub(crate) fn take_touched(&mut self) -> Option<Vec<RunId>> {
        if std::mem::take(&mut self.all) {
            self.touched.clear();
            self.of.clear();
            self.by_time.clear();
            return None;
        }
        self.touched.sort_unstable();
        self.touched.dedup();
        Some(std::mem::take(&mut self.touched))
    }

    /// Gives the room back that `take_touched` took.
    pub(crate) fn put_back(&mut self, mut touched: Vec<RunId>) {
        touched.clear();
        self.touched = touched;
    }

    /// Notes when a run is due.
    pub(crate) fn set(&mut self, run: RunId, wake: Option<Duration>) {
        let before = match wake {
            Some(wake) => self.of.insert(run, wake),
            None => self.of.remove(&run),
        };
        if before == wake {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, run));
        }
        if let Some(wake) = wake {
            self.by_time.insert((wake, run));
        }
    }

    /// When the first run is due.
    pub(crate) fn first(&self) -> Option<Duration> {
        self.by_time.first().map(|(wake, _)| *wake)
    }

    /// The runs that are due, oldest first; none where that is not known.
    pub(crate) fn due(&self, now: Duration) -> Option<Vec<RunId>> {
        if self.all {
            return None;
        }
        let due = self.by_time.range(..=(now, RunId(u64::MAX)));
        let mut due: Vec<RunId> = due.map(|(_, run)| *run).collect();
        due.sort_unstable();
        Some(due)
    }
}

/// Looks again at what may have changed, and returns when `Input::Tick` is due.
pub(crate) fn first(t: &mut Turning<'_>) -> Option<Duration> {
    let all = || t.state.runs.keys().copied().collect();
    let touched = t.scratch.wakes.take_touched().unwrap_or_else(all);
    for run in &touched {
        let wake = t.state.runs.get(run).and_then(|run| clock::wake(t, run));
        t.scratch.wakes.set(*run, wake);
    }
    t.scratch.wakes.put_back(touched);
    debug_assert_eq!(
        t.scratch.wakes.first(),
        t.state.runs.values().filter_map(|run| clock::wake(t, run)).min(),
        "whatever moves a run touches it"
    );
    let due =
        |(id, owed): (&_, &outbox::Owed)| t.scratch.delivering.get(id).copied().unwrap_or(owed.retry_at);
    let owed = t.scratch.wakes.owed.unwrap_or_else(|| t.state.outbox.iter().map(due).min());
    let schedule = t.scratch.wakes.schedule.unwrap_or_else(|| start::wake(t));
    (t.scratch.wakes.owed, t.scratch.wakes.schedule) = (Some(owed), Some(schedule));
    let mark = t.state.running.then(|| t.state.at.monotonic + MARK_EVERY);
    [t.scratch.wakes.first(), owed, schedule, mark].into_iter().flatten().min()
}
