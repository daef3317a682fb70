//! What does an event do to a run? Which are legal where, and what each changes.

use std::sync::Arc;

use crate::event::{Confirmation, Event, Outcome};
use crate::pipeline::plan::{Class, StepCall};
use crate::pipeline::run::{Phase, Run, StepState, Turned};
use crate::time::Now;

type Legal = Result<(), &'static str>;

impl Run {
    /// Changes state as `event`, one of this run's, says. An `Err` names why the event is illegal here.
    pub(crate) fn apply(&mut self, at: Now, event: &Event) -> Legal {
        match event {
            Event::StepIntent { step, attempt, deadline, .. } => {
                let plan = Arc::clone(&self.plan);
                let spec = plan.step(*step).ok_or("no such step")?;
                if *attempt != self.at(*step)?.attempt + 1 {
                    return Err("the attempt is not the next one");
                }
                // In a run that goes forward no more, a step in doubt may be done once more to know what it did.
                let settles = self.goes_nowhere()
                    && spec.class == Class::Idempotent
                    && (matches!(self.phase(*step), Phase::InDoubt { .. })
                        || (matches!(self.phase(*step), Phase::Waiting { .. })
                            && self.owes_an_answer(*step)));
                if !settles {
                    if !self.ready.contains(step) && spec.undoes.is_none() {
                        return Err("an intent while the step may not begin");
                    }
                    self.expect(*step, |phase| matches!(phase, Phase::Idle | Phase::Waiting { .. }))?;
                }
                let phase = match spec.call {
                    StepCall::Verify { settle, .. } => Phase::Verifying {
                        since: at.monotonic,
                        from: at.monotonic + settle,
                        deadline: *deadline,
                    },
                    StepCall::Wait { .. } => Phase::Resting { until: *deadline },
                    StepCall::Act { .. }
                    | StepCall::Require { .. }
                    | StepCall::Nothing
                    | StepCall::Service { .. }
                    | StepCall::External { .. } => Phase::InFlight { intent_at: at, deadline: *deadline },
                };
                let in_doubt = matches!(self.phase(*step), Phase::InDoubt { .. });
                let state = self.at(*step)?;
                state.doubt |= in_doubt;
                state.attempt = *attempt;
                state.first = state.first.or(Some(at.monotonic));
                self.begun = true;
                self.enter(*step, phase)
            }
            Event::StepHandle { step, attempt, handle, .. } => {
                self.expect_attempt(*step, *attempt)?;
                self.expect(*step, |phase| matches!(phase, Phase::InFlight { .. }))?;
                self.at(*step)?.handles.push(Arc::clone(handle));
                Ok(())
            }
            Event::StepOutcome { step, attempt, outcome, .. } => {
                self.expect_attempt(*step, *attempt)?;
                let intent_at = match self.phase(*step) {
                    Phase::InFlight { intent_at, .. } => *intent_at,
                    Phase::Verifying { .. } | Phase::Resting { .. } | Phase::Calling { .. } => at,
                    Phase::Idle
                    | Phase::Waiting { .. }
                    | Phase::Awaiting { .. }
                    | Phase::InDoubt { .. }
                    | Phase::Failed { .. }
                    | Phase::Held { .. }
                    | Phase::Stuck { .. }
                    | Phase::Parked { .. }
                    | Phase::Applied
                    | Phase::Undone
                    | Phase::Skipped { .. } => return Err("an outcome without an attempt in flight"),
                };
                match outcome {
                    Outcome::Applied { output } => self.applied(*step, Some(output)),
                    Outcome::Found { .. } => self.applied(*step, None),
                    Outcome::NotApplied { reason }
                    | Outcome::Refused { reason }
                    | Outcome::Unavailable { reason } => {
                        self.at(*step)?.doubt = false;
                        self.enter(*step, Phase::Failed { reason: reason.clone() })
                    }
                    Outcome::Missing { reason } => {
                        // Nothing was tried.
                        self.at(*step)?.forgiven += 1;
                        self.enter(*step, Phase::Parked { reason: reason.clone() })
                    }
                    Outcome::Unknown { reason } => self.enter(
                        *step,
                        Phase::InDoubt { intent_at, asked: 0, ask_at: at.monotonic, reason: reason.clone() },
                    ),
                }
            }
            Event::StepConfirmed { step, attempt, answer, .. } => {
                self.expect_attempt(*step, *attempt)?;
                let adoptable = self.spec(*step).is_some_and(|spec| spec.adoptable);
                let Phase::InDoubt { asked, ask_at, reason: doubt, .. } = &mut self.at(*step)?.phase else {
                    return Err("a confirmation of a step that is not in doubt");
                };
                match answer {
                    Confirmation::Applied { evidence, output } => {
                        let output = output.as_ref().unwrap_or(evidence).clone();
                        self.applied(*step, Some(&output))
                    }
                    Confirmation::NotApplied { evidence } => {
                        let reason = format!("{doubt}; {evidence}");
                        self.at(*step)?.doubt = false;
                        self.enter(*step, Phase::Failed { reason })
                    }
                    Confirmation::Failed { reason, .. } => {
                        let reason = reason.clone();
                        self.at(*step)?.doubt = false;
                        self.enter(*step, Phase::Failed { reason })
                    }
                    Confirmation::StillUnknown { reason, retry_after } => {
                        // That nothing is left of it is no reason for the doubt.
                        if adoptable && *asked == 0 {
                            *doubt = format!("{doubt}; {reason}");
                        } else {
                            doubt.clone_from(reason);
                        }
                        *asked += 1;
                        *ask_at = at.monotonic + *retry_after;
                        Ok(())
                    }
                }
            }
            Event::StepRetry { step, not_before, .. } => {
                self.expect(*step, |phase| {
                    matches!(
                        phase,
                        Phase::Failed { .. }
                            | Phase::InDoubt { .. }
                            | Phase::Verifying { .. }
                            | Phase::Parked { .. }
                    )
                })?;
                if matches!(self.phase(*step), Phase::InDoubt { .. }) {
                    self.at(*step)?.doubt = true;
                }
                self.enter(*step, Phase::Waiting { until: *not_before })
            }
            Event::StepLeftToVerify { step, .. } => {
                self.expect(*step, |phase| matches!(phase, Phase::InDoubt { .. }))?;
                self.applied(*step, None)
            }
            Event::StepHeld { step, reason, .. } => {
                self.expect(*step, |phase| matches!(phase, Phase::InDoubt { .. }))?;
                self.enter(*step, Phase::Held { reason: reason.clone() })
            }
            Event::StepStuck { step, reason, .. } => {
                self.expect(*step, |phase| {
                    matches!(
                        phase,
                        Phase::Failed { .. } | Phase::Idle | Phase::Waiting { .. } | Phase::InDoubt { .. }
                    )
                })?;
                if self.turned.as_ref().is_some_and(|turned| !turned.undoing) {
                    self.turned = None;
                }
                self.enter(*step, Phase::Stuck { reason: reason.clone() })
            }
            Event::StepFailed { step, reason, .. } => {
                self.expect(*step, |phase| {
                    matches!(
                        phase,
                        Phase::Idle
                            | Phase::Waiting { .. }
                            | Phase::Awaiting { .. }
                            | Phase::Resting { .. }
                            | Phase::InDoubt { .. }
                            | Phase::Failed { .. }
                            | Phase::Stuck { .. }
                            | Phase::Parked { .. }
                    )
                })?;
                self.enter(*step, Phase::Failed { reason: reason.clone() })
            }
            Event::StepSkipped { step, reason, .. } => {
                self.expect(*step, |phase| matches!(phase, Phase::Idle))?;
                self.begun = true;
                self.settled(*step, Phase::Skipped { reason: reason.clone() })
            }
            Event::StepAwaits { step, until, .. } => {
                self.expect(*step, |phase| matches!(phase, Phase::Idle))?;
                self.begun = true;
                self.enter(*step, Phase::Awaiting { until: *until })
            }
            Event::StepApproved { step, .. } => {
                self.expect(*step, |phase| matches!(phase, Phase::Awaiting { .. }))?;
                self.at(*step)?.approved = true;
                self.enter(*step, Phase::Idle)?;
                self.ready.insert(*step);
                Ok(())
            }
            Event::StepResolved { step, applied, evidence, by, .. } => {
                self.expect(*step, |phase| {
                    matches!(
                        phase,
                        Phase::Held { .. }
                            | Phase::InDoubt { .. }
                            | Phase::Stuck { .. }
                            | Phase::Parked { .. }
                    )
                })?;
                if *applied {
                    self.applied(*step, None)
                } else {
                    let reason = format!("{by} says that it had no effect: {evidence}");
                    self.at(*step)?.doubt = false;
                    self.enter(*step, Phase::Failed { reason })
                }
            }
            Event::CancelAsked { .. } => {
                self.cancelled = true;
                Ok(())
            }
            Event::RunTurned { step, reason, undo, .. } => {
                let down_to = u32::try_from(self.plan.forward().len()).unwrap_or(u32::MAX);
                self.turned = Some(Turned { step: *step, reason: reason.clone(), undoing: *undo, down_to });
                self.ready.clear();
                // What nothing was done for yet is not begun any more.
                let idle: Vec<u32> =
                    self.open.iter().copied().filter(|step| self.can_be_left(*step)).collect();
                idle.into_iter().try_for_each(|step| self.enter(step, Phase::Idle))
            }
            Event::RunResumed { .. } => self.resumed(at),
            Event::Started { .. }
            | Event::Stopped { .. }
            | Event::Marked
            | Event::ConfigApplied { .. }
            | Event::HealthChanged { .. }
            | Event::IncidentOpened { .. }
            | Event::IncidentMerged { .. }
            | Event::IncidentClosed { .. }
            | Event::HealHeld { .. }
            | Event::BackedOff { .. }
            | Event::GaveUp { .. }
            | Event::RunCreated { .. }
            | Event::RunFinished { .. }
            | Event::TriggerMissed { .. }
            | Event::NoticeOwed { .. }
            | Event::NoticeDelivered { .. }
            | Event::NoticeFailed { .. }
            | Event::Intervention { .. }
            | Event::StoreDegraded { .. }
            | Event::StoreRecovered => Err("not an event of a run"),
        }
    }

    /// Begins at a step: those above it are not done.
    pub(crate) fn skip_to(&mut self, from: u32) -> Legal {
        if from == 0 {
            return Ok(());
        }
        let name = self.spec(from).ok_or("no such step")?.name.clone();
        (0..from).try_for_each(|step| {
            self.settled(step, Phase::Skipped { reason: format!("the run began at {name}") })
        })
    }

    /// A run of its own acts for a step.
    pub(crate) fn calls(&mut self, step: u32, run: crate::id::RunId) -> Legal {
        self.expect(step, |phase| matches!(phase, Phase::InFlight { .. }))?;
        self.enter(step, Phase::Calling { run })
    }

    /// Goes on where it failed: what is applied or skipped stays so.
    fn resumed(&mut self, at: Now) -> Legal {
        self.clock_from = at.monotonic;
        if self.turned.as_ref().is_some_and(|turned| turned.undoing) {
            let waits = |phase: &Phase| matches!(phase, Phase::Stuck { .. } | Phase::Parked { .. });
            let waiting = self.open_steps().filter(|(_, phase)| waits(phase)).map(|(step, _)| step);
            let waiting: Vec<u32> = waiting.collect();
            if waiting.is_empty() {
                return Err("a run resumed that waits for nobody");
            }
            return waiting.into_iter().try_for_each(|step| self.forgive(step, at));
        }
        let (mut again, count) = (false, u32::try_from(self.plan.forward().len()).unwrap_or(u32::MAX));
        for step in 0..count {
            if matches!(
                self.phase(step),
                Phase::Failed { .. } | Phase::Waiting { .. } | Phase::Stuck { .. } | Phase::Parked { .. }
            ) {
                again = true;
                self.forgive(step, at)?;
            }
        }
        if !again && self.turned.is_none() {
            return Err("a run resumed that has not failed");
        }
        (self.turned, self.cancelled) = (None, false);
        for step in 0..count {
            let (idle, free) = (matches!(self.phase(step), Phase::Idle), self.may_follow(step));
            if idle && free {
                self.ready.insert(step);
            }
        }
        Ok(())
    }

    fn forgive(&mut self, step: u32, at: Now) -> Legal {
        if self.owes_an_answer(step) {
            // An earlier attempt is in doubt: the next one is to tell, whatever else there is to be asked.
            let state = self.at(step)?;
            (state.forgiven, state.first) = (state.attempt.saturating_sub(1), None);
            return self.enter(step, Phase::Waiting { until: at.monotonic });
        }
        let state = self.at(step)?;
        (state.forgiven, state.first, state.approved) = (state.attempt, None, false);
        self.enter(step, Phase::Idle)
    }

    fn applied(&mut self, step: u32, output: Option<&str>) -> Legal {
        let spec = self.spec(step).ok_or("no such step")?;
        let undoes = spec.undoes;
        let says = matches!(
            spec.call,
            StepCall::External { .. } | StepCall::Require { .. } | StepCall::Service { .. }
        );
        let state = self.at(step)?;
        state.doubt = false;
        if let Some(output) = output.filter(|_| says) {
            state.output = Some(Arc::from(output));
        }
        match undoes {
            None => self.settled(step, Phase::Applied),
            Some(other) => {
                self.enter(step, Phase::Applied)?;
                self.enter(other, Phase::Undone)?;
                if let Some(turned) = &mut self.turned {
                    turned.down_to = other;
                }
                Ok(())
            }
        }
    }

    /// A step is over, and those that came after it only may begin.
    fn settled(&mut self, step: u32, phase: Phase) -> Legal {
        self.enter(step, phase)?;
        self.left = self.left.checked_sub(1).ok_or("more steps are over than there are")?;
        if self.turned.is_some() {
            return Ok(());
        }
        let plan = Arc::clone(&self.plan);
        let free = plan.next(step).iter().filter(|next| self.may_follow(**next));
        let free: Vec<u32> = free.copied().collect();
        self.ready.extend(free);
        Ok(())
    }

    fn may_follow(&self, step: u32) -> bool {
        self.spec(step).is_some_and(|spec| spec.after.iter().all(|before| self.phase(*before).is_settled()))
    }

    /// Moves a step to a phase, and keeps the sets of those that wait for something, and of those that may begin.
    fn enter(&mut self, step: u32, phase: Phase) -> Legal {
        if phase.is_open() {
            self.open.insert(step);
        } else {
            self.open.remove(&step);
        }
        let turned = self.turned.is_some();
        if matches!(phase, Phase::Waiting { .. }) && !turned {
            self.ready.insert(step);
        } else {
            self.ready.remove(&step);
        }
        self.at(step)?.phase = phase;
        Ok(())
    }

    fn at(&mut self, step: u32) -> Result<&mut StepState, &'static str> {
        self.steps.get_mut(step as usize).ok_or("no such step")
    }

    fn expect(&self, step: u32, legal: impl Fn(&Phase) -> bool) -> Legal {
        let state = self.state(step).ok_or("no such step")?;
        if legal(&state.phase) { Ok(()) } else { Err("the step does not stand where that could happen") }
    }

    fn expect_attempt(&self, step: u32, attempt: u32) -> Legal {
        let state = self.state(step).ok_or("no such step")?;
        if attempt == state.attempt { Ok(()) } else { Err("the step is at another attempt") }
    }
}
