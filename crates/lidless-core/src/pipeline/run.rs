//! Where does a run stand? Its steps, each with a phase of its own, and what may begin next.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::Verdict;
use crate::id::RunId;
use crate::pipeline::plan::{Class, Plan, Purpose, StepCall, StepSpec};
use crate::time::{Now, micros, micros_opt};

/// An unfinished run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Its name.
    pub id: RunId,
    /// Why it exists.
    pub purpose: Purpose,
    /// What it does, pinned. It is kept apart, once for all runs that have it (`kept`).
    #[serde(skip)]
    pub plan: Arc<Plan>,
    /// When it was created.
    pub created: Now,
    /// What it was given, as a JSON object; empty for nothing.
    #[serde(default, skip_serializing_if = "str_is_empty")]
    pub inputs: Arc<str>,
    /// What triggered it: the same trigger twice is one run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Arc<str>>,
    /// By step of the plan.
    pub steps: Vec<StepState>,
    /// It has its turn: it holds its lock, and counts among those of its pipeline under way.
    #[serde(default)]
    pub begun: bool,
    /// From when its time counts, in engine time: its creation, or its last resumption.
    #[serde(default, rename = "clock_from_us", with = "micros")]
    pub clock_from: Duration,
    /// Somebody wants it to end.
    #[serde(default)]
    pub cancelled: bool,
    /// It goes forward no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turned: Option<Turned>,
    /// Steps that may begin, or try again, as soon as nothing stands against it.
    pub ready: BTreeSet<u32>,
    /// Steps that wait for the world, for a person, or for time.
    pub open: BTreeSet<u32>,
    /// How many steps forward are neither applied nor skipped yet.
    pub left: u32,
}

fn str_is_empty(text: &Arc<str>) -> bool {
    text.is_empty()
}

/// A run that goes forward no more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Turned {
    /// The step at which it turned.
    pub step: u32,
    /// Why; none where a person ended it.
    pub reason: Option<String>,
    /// What was applied is being taken back, in reverse.
    pub undoing: bool,
    /// While it is: every step from here on is taken back already, or needs not be.
    pub down_to: u32,
}

/// A pipeline's run that is over; one that failed can be resumed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EndedRun {
    /// As it stood at its end.
    pub run: Run,
    /// How it ended.
    pub verdict: Verdict,
    /// When.
    pub ended: Now,
}

/// How one step of a run stands.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StepState {
    /// Where.
    #[serde(default, skip_serializing_if = "Phase::is_idle")]
    pub phase: Phase,
    /// Attempts begun. It only grows, also over a resumption, so that the outside may fence by it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempt: u32,
    /// Those of them that don't count any more: they were before the run was resumed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub forgiven: u32,
    /// When the first attempt that counts began, in engine time.
    #[serde(default, rename = "first_us", with = "micros_opt", skip_serializing_if = "Option::is_none")]
    pub first: Option<Duration>,
    /// An earlier attempt is in doubt, and another one is to tell.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub doubt: bool,
    /// A person has said yes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approved: bool,
    /// By which its effects can be found, oldest first: all that any attempt was about to let out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handles: Vec<Arc<str>>,
    /// What it put out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Arc<str>>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Where a step of a run stands.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Phase {
    /// It has not begun.
    #[default]
    Idle,
    /// Its next attempt waits.
    Waiting {
        /// Until when, in engine time.
        #[serde(rename = "until_us", with = "micros")]
        until: Duration,
    },
    /// It begins with a person's yes.
    Awaiting {
        /// Until when that counts, in engine time.
        #[serde(rename = "until_us", with = "micros")]
        until: Duration,
    },
    /// Time goes by.
    Resting {
        /// Until when, in engine time.
        #[serde(rename = "until_us", with = "micros")]
        until: Duration,
    },
    /// A run of its own acts on a service for it.
    Calling {
        /// That run.
        run: RunId,
    },
    /// Its intent is durable; the effect may or may not have happened.
    InFlight {
        /// When it was intended.
        intent_at: Now,
        /// When it ends at the latest, in engine time.
        #[serde(rename = "deadline_us", with = "micros")]
        deadline: Duration,
    },
    /// Fresh answers of the checks are awaited.
    Verifying {
        /// When the act was complete: answers to probes begun before it say nothing.
        #[serde(rename = "since_us", with = "micros")]
        since: Duration,
        /// Passes count from here on.
        #[serde(rename = "from_us", with = "micros")]
        from: Duration,
        /// The first failing answer after this ends it.
        #[serde(rename = "deadline_us", with = "micros")]
        deadline: Duration,
    },
    /// Nobody knows whether it took effect.
    InDoubt {
        /// When it was intended.
        intent_at: Now,
        /// How often the world was asked.
        asked: u32,
        /// When to ask next, in engine time.
        #[serde(rename = "ask_at_us", with = "micros")]
        ask_at: Duration,
        /// Why nobody knows.
        reason: String,
    },
    /// It had no effect; unless the run is over, what follows is decided in the same turn.
    Failed {
        /// Why.
        reason: String,
    },
    /// Nobody knows whether it took effect, and a person must find out.
    Held {
        /// Why nobody knows.
        reason: String,
    },
    /// It had no effect, and there is no way on or back without a person.
    Stuck {
        /// Why.
        reason: String,
    },
    /// Nothing here can do it: its implementation is missing. It had no effect.
    Parked {
        /// What is missing.
        reason: String,
    },
    /// It took effect.
    Applied,
    /// It was taken back.
    Undone,
    /// It was not to be done.
    Skipped {
        /// Why.
        reason: String,
    },
}

impl Phase {
    fn is_idle(&self) -> bool {
        matches!(self, Phase::Idle)
    }

    /// Whether it waits for the world, for a person, or for time.
    pub fn is_open(&self) -> bool {
        match self {
            Phase::Awaiting { .. }
            | Phase::Resting { .. }
            | Phase::Calling { .. }
            | Phase::InFlight { .. }
            | Phase::Verifying { .. }
            | Phase::InDoubt { .. }
            | Phase::Held { .. }
            | Phase::Stuck { .. }
            | Phase::Parked { .. } => true,
            Phase::Idle
            | Phase::Waiting { .. }
            | Phase::Failed { .. }
            | Phase::Applied
            | Phase::Undone
            | Phase::Skipped { .. } => false,
        }
    }

    /// Whether what comes after it may begin.
    pub fn is_settled(&self) -> bool {
        matches!(self, Phase::Applied | Phase::Skipped { .. })
    }

    /// Whether only a person can take it further.
    pub fn waits_for_a_person(&self) -> bool {
        matches!(self, Phase::Held { .. } | Phase::Stuck { .. } | Phase::Awaiting { .. })
    }
}

impl StepState {
    /// How many attempts count.
    pub fn tried(&self) -> u32 {
        self.attempt - self.forgiven
    }
}

impl Run {
    /// Returns a run that has not begun.
    pub fn new(id: RunId, purpose: Purpose, plan: Arc<Plan>, created: Now) -> Run {
        let steps = vec![StepState::default(); plan.steps().len()];
        let (ready, left) = (plan.first().iter().copied().collect(), plan.forward().len());
        Run {
            id,
            purpose,
            plan,
            created,
            inputs: Arc::from(""),
            key: None,
            steps,
            begun: false,
            clock_from: created.monotonic,
            cancelled: false,
            turned: None,
            ready,
            open: BTreeSet::new(),
            left: u32::try_from(left).unwrap_or(u32::MAX),
        }
    }

    /// The plan of a step.
    pub fn spec(&self, step: u32) -> Option<&StepSpec> {
        self.plan.step(step)
    }

    /// How a step stands.
    pub fn state(&self, step: u32) -> Option<&StepState> {
        self.steps.get(step as usize)
    }

    /// Where a step stands; a step that there is not has not begun.
    pub fn phase(&self, step: u32) -> &Phase {
        self.state(step).map_or(&Phase::Idle, |state| &state.phase)
    }

    /// The step that people look at: the first that waits for something, else the one that turned the run, else the next.
    pub fn focus(&self) -> Option<u32> {
        let open = self.open.first().or_else(|| self.ready.first()).copied();
        match &self.turned {
            Some(turned) if !turned.undoing => open.or(Some(turned.step)),
            Some(_) | None => open,
        }
    }

    /// The phase of the step that people look at.
    pub fn focus_phase(&self) -> &Phase {
        self.focus().map_or(&Phase::Idle, |step| self.phase(step))
    }

    /// The step that people look at.
    pub fn focus_spec(&self) -> Option<&StepSpec> {
        self.spec(self.focus()?)
    }

    /// The steps whose answers are being awaited or sought, each with its phase.
    pub fn open_steps(&self) -> impl Iterator<Item = (u32, &Phase)> {
        self.open.iter().map(|step| (*step, self.phase(*step)))
    }

    /// Returns the open or ready step with this name.
    pub fn step_named(&self, name: &str) -> Option<u32> {
        let found = self.plan.steps().iter().position(|step| step.name == name)?;
        u32::try_from(found).ok()
    }

    /// What each applied step put out, by the step's name.
    pub fn outputs(&self) -> impl Iterator<Item = (&str, &str)> {
        let with = self.plan.steps().iter().zip(&self.steps);
        with.filter_map(|(spec, state)| Some((spec.name.as_str(), state.output.as_deref()?)))
    }

    /// Whether an act on the service is under way, so that answers about the service mean nothing.
    pub fn is_acting(&self) -> bool {
        !matches!(self.focus_phase(), Phase::Verifying { .. } | Phase::Held { .. } | Phase::Stuck { .. })
    }

    /// Whether a step in doubt may not simply be left: its effect would have to be counted, or taken back.
    pub(crate) fn must_know(&self, step: u32) -> bool {
        let undone_by = self.plan.undone_by(step).is_some();
        self.spec(step).is_some_and(|spec| {
            spec.class != Class::Pure && (spec.value || spec.undoes.is_some() || undone_by)
        })
    }

    /// Whether an earlier attempt at a step is in doubt that may not be left so.
    pub(crate) fn owes_an_answer(&self, step: u32) -> bool {
        self.state(step).is_some_and(|state| state.doubt) && self.must_know(step)
    }

    /// Whether a step waits for something, and nothing was done for it yet: it can be left.
    pub(crate) fn can_be_left(&self, step: u32) -> bool {
        match self.phase(step) {
            Phase::Awaiting { .. } | Phase::Resting { .. } => true,
            Phase::Parked { .. } => !self.owes_an_answer(step),
            Phase::Idle
            | Phase::Waiting { .. }
            | Phase::Calling { .. }
            | Phase::InFlight { .. }
            | Phase::Verifying { .. }
            | Phase::InDoubt { .. }
            | Phase::Failed { .. }
            | Phase::Held { .. }
            | Phase::Stuck { .. }
            | Phase::Applied
            | Phase::Undone
            | Phase::Skipped { .. } => false,
        }
    }

    /// A step whose attempt is in doubt, which waits for the next one that is to tell.
    pub(crate) fn waits_to_tell(&self) -> Option<u32> {
        let steps = 0..u32::try_from(self.plan.forward().len()).unwrap_or(u32::MAX);
        let waits =
            |step: &u32| matches!(self.phase(*step), Phase::Waiting { .. }) && self.owes_an_answer(*step);
        steps.into_iter().find(waits)
    }

    /// Whether it goes forward no more, and is not being taken back either: what is under way is only settled.
    pub(crate) fn goes_nowhere(&self) -> bool {
        self.turned.as_ref().map_or(self.cancelled, |turned| !turned.undoing)
    }

    /// Whether a step that verifies comes right after another.
    pub(crate) fn leads_to_verify(&self, step: u32) -> bool {
        let is_verify =
            |next: &u32| self.spec(*next).is_some_and(|spec| matches!(spec.call, StepCall::Verify { .. }));
        self.plan.next(step).iter().any(is_verify)
    }

    /// What is to be taken back next: the last step that was applied, can be taken back and has not been. With `undoing`.
    pub(crate) fn next_undo(&self) -> Option<u32> {
        let from = self.turned.as_ref().map_or(0, |turned| turned.down_to);
        (0..from).rev().find_map(|step| {
            let undo = self.plan.undone_by(step)?;
            let open = !matches!(self.phase(undo), Phase::Failed { .. });
            (matches!(self.phase(step), Phase::Applied) && open).then_some(undo)
        })
    }

    /// Whether there is something to take back, and whether something applied cannot be.
    pub(crate) fn way_back(&self) -> (bool, Option<u32>) {
        let forward = u32::try_from(self.plan.forward().len()).unwrap_or(u32::MAX);
        let applied = (0..forward).filter(|step| matches!(self.phase(*step), Phase::Applied));
        let (mut any, mut pivot) = (false, None);
        for step in applied {
            any |= self.plan.undone_by(step).is_some();
            pivot = if self.plan.is_pivot(step) { Some(step) } else { pivot };
        }
        (any, pivot)
    }
}
