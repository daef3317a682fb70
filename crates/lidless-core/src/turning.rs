//! What does a turn carry while it is decided? State, the volatile observations beside it, and what was decided so far.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::check::CheckFailure;
use crate::effect::{Effect, Turn};
use crate::event::{Event, Notice, Outcome, Record};
use crate::id::{CheckId, NoticeId, RunId, Seq, ServiceId};
use crate::outbox;
use crate::pipeline::retry;
use crate::state::State;
use crate::time::Now;
use crate::wakes::Wakes;

/// What was observed and may be lost: a crash costs another probe or another question, never a wrong act.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) checks: Vec<Observed>,
    /// Steps about which the world is being asked, and until when an answer is awaited, in engine time.
    pub(crate) asking: BTreeMap<(RunId, u32), Duration>,
    /// Steps whose `when` is being weighed.
    pub(crate) weighing: BTreeSet<(RunId, u32)>,
    /// Steps whose `when` holds.
    pub(crate) weighed: BTreeSet<(RunId, u32)>,
    /// Messages on their way, and until when an answer is awaited, in engine time.
    pub(crate) delivering: BTreeMap<NoticeId, Duration>,
    /// By `ServiceId`: when the last act on it was complete, in engine time.
    pub(crate) acted_at: Vec<Duration>,
    /// Verifications whose time ran out while nobody looked, and until when they have another look, in engine time.
    pub(crate) second_looks: BTreeMap<RunId, Duration>,
    /// Verifications in which everything is well and has to stay so, and since when, in engine time.
    pub(crate) well_since: BTreeMap<RunId, Duration>,
    /// How long lidless was stopped, or the machine slept, while a run's act was under way. The driver's own clock stood
    /// still as well: it answers that much later.
    pub(crate) slept: BTreeMap<(RunId, u32), Duration>,
    /// Runs about services that are over within this turn: the steps that they acted for, and what that means for these.
    pub(crate) acted_for: Vec<(RunId, u32, Outcome)>,
    /// Runs of pipelines, and incidents, that are over within this turn: the record, and whose it was.
    pub(crate) over: Vec<(Seq, Whose)>,
    /// Nothing begins but what a person orders.
    pub(crate) orders_only: bool,
    /// lidless is about to end: nothing more is begun.
    pub(crate) ending: bool,
    /// A run is over within this turn: others may have waited for it.
    pub(crate) admit: bool,
    /// Runs that have begun, and wait for a service that another run acts on.
    pub(crate) blocked: BTreeSet<RunId>,
    /// When what is due.
    pub(crate) wakes: Wakes,
    /// Room for a walk over dependencies; empty of meaning between two of them.
    pub(crate) needed: Vec<ServiceId>,
    /// This is the first start in a boot of the machine, and nothing was brought up in it yet.
    pub(crate) new_boot: bool,
}

/// Whose run or incident is over.
#[derive(Clone, Debug)]
pub(crate) enum Whose {
    Pipeline(String),
    Service(ServiceId),
}

/// The last that was seen of a check.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// How long the last answer took.
    pub latency: Duration,
    /// When the last answer came, in engine time; zero if none did.
    pub at: Duration,
    /// What was wrong the last time, while something is.
    pub failure: Option<CheckFailure>,
    /// "I could not ask" so many times in a row.
    pub inconclusive: u32,
    /// Why nobody could ask the last time, while nobody can.
    pub reason: Option<String>,
    /// When the last probe began that passed, in engine time.
    pub(crate) passed: Duration,
    /// Passed since the last act on the service.
    pub(crate) fresh: bool,
}

/// One turn under way.
pub(crate) struct Turning<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) now: Now,
    pub(crate) seed: u64,
    pub(crate) turn: Turn,
}

impl Turning<'_> {
    /// Records an event and applies it, so that what is decided next already sees it.
    pub(crate) fn emit(&mut self, event: Event) {
        let record = Record { seq: self.state.seq.next(), at: self.now, event };
        self.note_end(&record);
        if self.about_service(&record.event) {
            // Steps of other runs may wait for that service, or no longer.
            self.scratch.wakes.touch_all();
        }
        self.state.apply(&record).expect("the engine decides legal events only");
        self.scratch.wakes.see(&record.event);
        self.turn.events.push(record);
    }

    /// Whether a run that acts on a service begins or ends by this.
    fn about_service(&self, event: &Event) -> bool {
        if let Event::RunCreated { purpose, .. } = event {
            return purpose.service().is_some();
        }
        let Event::RunFinished { run, .. } = event else { return false };
        self.state.runs.get(run).is_some_and(|run| run.purpose.service().is_some())
    }

    /// Keeps whose it was that ends by this record: afterwards the state may have forgotten.
    fn note_end(&mut self, record: &Record) {
        let whose = match &record.event {
            Event::RunFinished { run, .. } => self.state.runs.get(run).and_then(|run| {
                let name = run.purpose.pipeline()?;
                Some(Whose::Pipeline(name.to_owned()))
            }),
            Event::IncidentClosed { incident, .. } => {
                self.state.incidents.get(incident).map(|incident| Whose::Service(incident.service))
            }
            _ => None,
        };
        self.scratch.over.extend(whose.map(|whose| (record.seq, whose)));
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.turn.effects.push(effect);
    }

    /// Owes the world a message, and asks for its delivery.
    pub(crate) fn owe(&mut self, what: Notice) {
        let notice = NoticeId(self.state.next_notice.max(1));
        self.emit(Event::NoticeOwed { notice, what });
        self.deliver(notice);
    }

    /// Asks for the delivery of a message.
    pub(crate) fn deliver(&mut self, notice: NoticeId) {
        self.scratch.delivering.insert(notice, self.now.monotonic + outbox::ANSWER_WITHIN);
        self.scratch.wakes.owed = None;
        self.effect(Effect::Deliver { notice });
    }

    /// Notes that an act on a service is complete: answers to probes begun before it say nothing.
    pub(crate) fn acted(&mut self, service: ServiceId) {
        let acted_at = &mut self.scratch.acted_at;
        if service.index() >= acted_at.len() {
            acted_at.resize(service.index() + 1, Duration::ZERO);
        }
        acted_at[service.index()] = self.now.monotonic;
    }

    /// Returns random-looking bits that are the same whenever the same turn is decided again.
    pub(crate) fn jitter(&self) -> u64 {
        retry::mix(self.seed ^ retry::mix(self.state.seq.0))
    }

    /// Forgets what was passing about a run that is over.
    pub(crate) fn forget_run(&mut self, run: RunId) {
        let scratch = &mut *self.scratch;
        forget_steps(&mut scratch.asking, run);
        forget_steps(&mut scratch.slept, run);
        while let Some(step) = of_run(scratch.weighing.range((run, 0)..).next(), run) {
            scratch.weighing.remove(&step);
        }
        while let Some(step) = of_run(scratch.weighed.range((run, 0)..).next(), run) {
            scratch.weighed.remove(&step);
        }
        scratch.blocked.remove(&run);
        scratch.second_looks.remove(&run);
        scratch.well_since.remove(&run);
    }

    pub(crate) fn observed(&mut self, check: CheckId) -> &mut Observed {
        if check.index() >= self.scratch.checks.len() {
            self.scratch.checks.resize_with(check.index() + 1, Observed::default);
        }
        &mut self.scratch.checks[check.index()]
    }
}

fn forget_steps<T>(of: &mut BTreeMap<(RunId, u32), T>, run: RunId) {
    while let Some(step) = of_run(of.range((run, 0)..).next().map(|(step, _)| step), run) {
        of.remove(&step);
    }
}

fn of_run(step: Option<&(RunId, u32)>, run: RunId) -> Option<(RunId, u32)> {
    step.copied().filter(|(of, _)| *of == run)
}
