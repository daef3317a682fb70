//! How do the records of a run become a report? A fold, and what a watcher is told on the way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use lidless_core::effect::Refusal;
use lidless_core::event::{Confirmation, Event, Outcome, Record, Verdict};
use lidless_core::id::RunId;
use lidless_core::pipeline::run::{Phase, Run, StepState};
use serde_json::Value;
use tokio::sync::oneshot;

use super::{Report, Seen, StepOutcome, StepReport};
use crate::runtime::follow::Follower;

/// Is told what happens in runs.
pub(super) type Watcher = Arc<dyn Fn(RunId, &Seen) + Send + Sync>;

/// Follows one run to its end, or until it waits for a person.
pub(super) struct Progress {
    run: RunId,
    steps: Vec<StepReport>,
    /// By step: the one that it takes back.
    undoes: Vec<Option<u32>>,
    /// When the first attempt at each step began, in engine time.
    began: Vec<Option<Duration>>,
    watcher: Option<Watcher>,
    /// Whoever waits; none once it was answered.
    to: Option<oneshot::Sender<Result<Report, Refusal>>>,
}

impl Progress {
    /// Returns a follower and what it will say.
    pub(super) fn new(watcher: Option<Watcher>) -> (Progress, oneshot::Receiver<Result<Report, Refusal>>) {
        let (to, end) = oneshot::channel();
        (
            Progress {
                run: RunId(0),
                steps: Vec::new(),
                undoes: Vec::new(),
                began: Vec::new(),
                watcher,
                to: Some(to),
            },
            end,
        )
    }

    fn step(&mut self, index: u32) -> Option<&mut StepReport> {
        self.steps.get_mut(index as usize)
    }

    fn name(&self, index: u32) -> String {
        self.steps.get(index as usize).map(|step| step.name.clone()).unwrap_or_default()
    }

    fn clock(&mut self, index: u32, record: &Record) {
        let began = self.began.get(index as usize).copied().flatten();
        if let (Some(step), Some(began)) = (self.step(index), began) {
            step.took = record.at.monotonic.saturating_sub(began);
        }
    }

    fn see(&mut self, seen: impl FnOnce(&Progress) -> Seen) {
        let Some(watcher) = &self.watcher else { return };
        let seen = seen(self);
        // The watcher's panic is the program's own: it must not take the engine with it.
        if catch_unwind(AssertUnwindSafe(|| watcher(self.run, &seen))).is_err() {
            tracing::error!(run = %self.run, "Whoever watched the run panicked, and watches no more.");
            self.watcher = None;
        }
    }

    fn done(&mut self, index: u32, output: Value) {
        if let Some(step) = self.step(index) {
            (step.outcome, step.error, step.output) = (StepOutcome::Done, None, Some(output.clone()));
        }
        if let Some(step) =
            self.undoes.get(index as usize).copied().flatten().and_then(|step| self.step(step))
        {
            step.outcome = StepOutcome::Undone;
        }
        self.see(|this| Seen::Done { step: this.name(index), output });
    }

    fn not_done(&mut self, index: u32, outcome: StepOutcome, reason: &str) {
        if let Some(step) = self.step(index) {
            (step.outcome, step.error) = (outcome, Some(reason.to_owned()));
        }
    }

    fn doubt(&mut self, index: u32, reason: &str) {
        self.not_done(index, StepOutcome::Unknown, reason);
        self.see(|this| Seen::Unknown { step: this.name(index), reason: reason.to_owned() });
    }

    fn ends(&mut self, at: Option<(String, String)>, held: bool, undone: bool) {
        let success = at.is_none();
        let (failed_at, error) = at.unzip();
        let mut steps = std::mem::take(&mut self.steps);
        let mut undoes = self.undoes.iter();
        // What would have taken a step back and was not begun is nothing that happened.
        steps.retain(|step| {
            undoes.next().is_some_and(Option::is_none) || step.outcome != StepOutcome::NotBegun
        });
        let report = Report { success, failed_at, error, run: self.run, held, undone, steps };
        if let Some(to) = self.to.take() {
            // Whoever asked may have gone; the run went on all the same.
            drop(to.send(Ok(report)));
        }
    }

    fn held(&mut self, index: u32, outcome: StepOutcome, reason: &str) {
        self.not_done(index, outcome, reason);
        let step = self.name(index);
        self.see(|_| Seen::Held { step: step.clone(), reason: reason.to_owned() });
        self.ends(Some((step, reason.to_owned())), true, false);
    }

    fn answered(&mut self, index: u32, outcome: &Outcome) {
        match outcome {
            Outcome::Applied { output } | Outcome::Found { output } => self.done(index, json(output)),
            Outcome::NotApplied { reason }
            | Outcome::Refused { reason }
            | Outcome::Unavailable { reason } => self.not_done(index, StepOutcome::Failed, reason),
            // It goes on once whoever can do it opens the store.
            Outcome::Missing { reason } => self.held(index, StepOutcome::Failed, reason),
            Outcome::Unknown { reason } => self.doubt(index, reason),
        }
    }

    fn confirmed(&mut self, index: u32, answer: &Confirmation) {
        match answer {
            Confirmation::Applied { evidence, output } => {
                self.done(index, json(output.as_ref().unwrap_or(evidence)));
            }
            Confirmation::NotApplied { evidence: reason } | Confirmation::Failed { reason, .. } => {
                self.not_done(index, StepOutcome::Failed, reason);
            }
            Confirmation::StillUnknown { reason, .. } => self.doubt(index, reason),
        }
    }

    fn over(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Done => self.ends(None, false, false),
            Verdict::Failed { step, name, reason } | Verdict::Undone { step, name, reason } => {
                self.not_done(*step, StepOutcome::Failed, reason);
                self.see(|_| Seen::Failed { step: name.clone(), reason: reason.clone() });
                let undone = matches!(verdict, Verdict::Undone { .. });
                self.ends(Some((name.clone(), reason.clone())), false, undone);
            }
            Verdict::Cancelled { name, .. } => {
                self.ends(Some((name.clone(), "cancelled".to_owned())), false, false);
            }
        }
    }
}

impl Follower for Progress {
    fn begins(&mut self, run: &Run) {
        self.run = run.id;
        let known = run.plan.steps().iter().zip(&run.steps);
        self.steps = known.map(|(spec, state)| stands(&spec.name, state)).collect();
        self.undoes = run.plan.steps().iter().map(|spec| spec.undoes).collect();
        self.began = vec![None; self.steps.len()];
        // What was told before we came is not told again.
        let waits = run.open_steps().find_map(|(step, phase)| match phase {
            Phase::Held { reason } => Some((step, StepOutcome::Unknown, reason.clone())),
            Phase::Stuck { reason } => Some((step, StepOutcome::Failed, reason.clone())),
            _ => None,
        });
        if let Some((step, outcome, reason)) = waits {
            self.held(step, outcome, &reason);
        }
    }

    fn refused(&mut self, why: Refusal) {
        if let Some(to) = self.to.take() {
            drop(to.send(Err(why)));
        }
    }

    fn hears(&mut self, record: &Record) -> bool {
        if self.to.is_none() {
            return false;
        }
        match &record.event {
            Event::StepIntent { step: index, attempt, .. } => {
                if let Some(began) = self.began.get_mut(*index as usize) {
                    began.get_or_insert(record.at.monotonic);
                }
                if let Some(step) = self.step(*index) {
                    step.attempts += 1;
                }
                self.see(|this| Seen::Began { step: this.name(*index), attempt: *attempt });
            }
            Event::StepOutcome { step: index, outcome, .. } => {
                self.clock(*index, record);
                self.answered(*index, outcome);
            }
            Event::StepConfirmed { step: index, answer, .. } => {
                self.clock(*index, record);
                self.confirmed(*index, answer);
            }
            Event::StepRetry { step: index, .. } => {
                let reason = self.step(*index).and_then(|step| step.error.clone()).unwrap_or_default();
                self.see(|this| Seen::Again { step: this.name(*index), reason });
            }
            Event::StepResolved { step, applied: true, evidence, .. } => self.done(*step, json(evidence)),
            Event::StepResolved { step, applied: false, evidence, .. } => {
                self.not_done(*step, StepOutcome::Failed, evidence);
            }
            Event::StepHeld { step, reason, .. } => self.held(*step, StepOutcome::Unknown, reason),
            Event::StepStuck { step, reason, .. } => self.held(*step, StepOutcome::Failed, reason),
            Event::StepFailed { step, reason, .. } => self.not_done(*step, StepOutcome::Failed, reason),
            Event::RunFinished { verdict, .. } => self.over(verdict),
            _ => {}
        }
        self.to.is_some()
    }
}

/// How a step stands that was followed by nobody before.
fn stands(name: &str, state: &StepState) -> StepReport {
    let applied = matches!(state.phase, Phase::Applied);
    let undone = matches!(state.phase, Phase::Undone);
    StepReport {
        name: name.to_owned(),
        outcome: match (applied, undone) {
            (true, _) => StepOutcome::Done,
            (_, true) => StepOutcome::Undone,
            (false, false) => StepOutcome::NotBegun,
        },
        output: state.output.as_deref().filter(|_| applied).map(json),
        error: None,
        attempts: 0,
        took: Duration::ZERO,
    }
}

/// What a step put out is JSON; what the engine itself or a person has to say is a text.
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}
