//! Where does a run stand? Its state, and which events may change it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::{Confirmation, Event, Outcome, Verdict};
use crate::id::RunId;
use crate::pipeline::plan::{Purpose, StepCall, StepSpec};
use crate::time::{Now, micros};

/// An unfinished run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Its name.
    pub id: RunId,
    /// Why it exists.
    pub purpose: Purpose,
    /// Its plan, pinned.
    pub steps: Vec<StepSpec>,
    /// When it was created.
    pub created: Now,
    /// What it was given, as a JSON object; empty for nothing.
    #[serde(default)]
    pub inputs: String,
    /// What its steps put out, by index.
    #[serde(default)]
    pub outputs: BTreeMap<u32, String>,
    /// Somebody wants it to end.
    #[serde(default)]
    pub cancelled: bool,
    /// The step that it is at.
    pub at: u32,
    /// Attempts begun at that step. It only grows, also over a resumption, so that the outside may fence by it.
    pub attempt: u32,
    /// Those of them that were before the run was resumed, and don't count any more.
    #[serde(default)]
    pub forgiven: u32,
    /// Where that step stands.
    pub phase: Phase,
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

/// Where the current step of a run stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Phase {
    /// It may begin; or, past the last step, the run may finish.
    Ready,
    /// Its next attempt waits.
    Waiting {
        /// Until when, in engine time.
        #[serde(rename = "until_us", with = "micros")]
        until: Duration,
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
    /// The attempt had no effect; what follows (a retry, the end) is decided in the same turn.
    Failed {
        /// Why.
        reason: String,
    },
    /// A person must decide.
    Held {
        /// Why.
        reason: String,
    },
}

impl Run {
    /// How many attempts at the present step count.
    pub fn tried(&self) -> u32 {
        self.attempt - self.forgiven
    }

    /// Returns the step that the run is at; none once all are applied.
    pub fn step(&self) -> Option<&StepSpec> {
        self.steps.get(self.at as usize)
    }

    /// Whether an act on the service is under way, so that answers about the service mean nothing.
    pub fn is_acting(&self) -> bool {
        !matches!(self.phase, Phase::Verifying { .. } | Phase::Held { .. })
    }

    /// Changes state as `event`, one of this run's, says. An `Err` names why the event is illegal here.
    pub(crate) fn apply(&mut self, at: Now, event: &Event) -> Result<(), &'static str> {
        match event {
            Event::StepIntent { step, attempt, deadline, .. } => {
                self.expect_step(*step)?;
                if *attempt != self.attempt + 1 {
                    return Err("the attempt is not the next one");
                }
                match self.phase {
                    Phase::Ready | Phase::Waiting { .. } => {}
                    Phase::InFlight { .. }
                    | Phase::Verifying { .. }
                    | Phase::InDoubt { .. }
                    | Phase::Failed { .. }
                    | Phase::Held { .. } => {
                        return Err("an intent while the step is neither ready nor waiting");
                    }
                }
                let spec = self.step().ok_or("an intent after the last step")?;
                self.phase = match spec.call {
                    StepCall::Verify { settle, .. } => Phase::Verifying {
                        since: at.monotonic,
                        from: at.monotonic + settle,
                        deadline: *deadline,
                    },
                    StepCall::Act { .. } | StepCall::Require { .. } | StepCall::External { .. } => {
                        Phase::InFlight { intent_at: at, deadline: *deadline }
                    }
                };
                self.attempt = *attempt;
            }
            Event::StepOutcome { step, attempt, outcome, .. } => {
                self.expect_attempt(*step, *attempt)?;
                let intent_at = match self.phase {
                    Phase::InFlight { intent_at, .. } => intent_at,
                    Phase::Verifying { .. } => at,
                    Phase::Ready
                    | Phase::Waiting { .. }
                    | Phase::InDoubt { .. }
                    | Phase::Failed { .. }
                    | Phase::Held { .. } => return Err("an outcome without an attempt in flight"),
                };
                match outcome {
                    Outcome::Applied { output } => self.put_out(output),
                    Outcome::Found { .. } => self.go_on(),
                    Outcome::NotApplied { reason }
                    | Outcome::Refused { reason }
                    | Outcome::Unavailable { reason } => {
                        self.phase = Phase::Failed { reason: reason.clone() };
                    }
                    Outcome::Unknown { reason } => {
                        self.phase = Phase::InDoubt {
                            intent_at,
                            asked: 0,
                            ask_at: at.monotonic,
                            reason: reason.clone(),
                        };
                    }
                }
            }
            Event::StepConfirmed { step, attempt, answer, .. } => {
                self.expect_attempt(*step, *attempt)?;
                let Phase::InDoubt { asked, ask_at, reason: doubt, .. } = &mut self.phase else {
                    return Err("a confirmation of a step that is not in doubt");
                };
                match answer {
                    Confirmation::Applied { evidence, output } => {
                        let output = output.as_ref().unwrap_or(evidence).clone();
                        self.put_out(&output);
                    }
                    Confirmation::NotApplied { evidence } => {
                        self.phase = Phase::Failed { reason: format!("{doubt}; {evidence}") };
                    }
                    Confirmation::StillUnknown { reason, retry_after } => {
                        *asked += 1;
                        *ask_at = at.monotonic + *retry_after;
                        doubt.clone_from(reason);
                    }
                }
            }
            Event::StepRetry { step, not_before, .. } => {
                self.expect_step(*step)?;
                match self.phase {
                    Phase::Failed { .. } | Phase::InDoubt { .. } | Phase::Verifying { .. } => {}
                    Phase::Ready | Phase::Waiting { .. } | Phase::InFlight { .. } | Phase::Held { .. } => {
                        return Err("a retry of a step that has not ended");
                    }
                }
                self.phase = Phase::Waiting { until: *not_before };
            }
            Event::StepLeftToVerify { step, .. } => {
                self.expect_step(*step)?;
                if !matches!(self.phase, Phase::InDoubt { .. }) {
                    return Err("a step left to verification that is not in doubt");
                }
                self.go_on();
            }
            Event::StepHeld { step, reason, .. } => {
                self.expect_step(*step)?;
                if !matches!(self.phase, Phase::InDoubt { .. }) {
                    return Err("a step held that is not in doubt");
                }
                self.phase = Phase::Held { reason: reason.clone() };
            }
            Event::StepResolved { step, applied, evidence, by, .. } => {
                self.expect_step(*step)?;
                if !matches!(self.phase, Phase::Held { .. } | Phase::InDoubt { .. }) {
                    return Err("a step resolved that was not in doubt");
                }
                if *applied {
                    self.go_on();
                } else {
                    self.phase =
                        Phase::Failed { reason: format!("{by} says that it had no effect: {evidence}") };
                }
            }
            Event::CancelAsked { .. } => self.cancelled = true,
            Event::RunResumed { .. } => {
                if !matches!(self.phase, Phase::Failed { .. }) {
                    return Err("a run resumed that has not failed");
                }
                (self.phase, self.forgiven, self.cancelled) = (Phase::Ready, self.attempt, false);
            }
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
            | Event::NoticeOwed { .. }
            | Event::NoticeDelivered { .. }
            | Event::NoticeFailed { .. }
            | Event::Intervention { .. }
            | Event::StoreDegraded { .. }
            | Event::StoreRecovered => return Err("not an event of a run"),
        }
        Ok(())
    }

    fn put_out(&mut self, output: &str) {
        if let Some(StepCall::External { .. } | StepCall::Require { .. }) = self.step().map(|step| &step.call)
        {
            self.outputs.insert(self.at, output.to_owned());
        }
        self.go_on();
    }

    fn go_on(&mut self) {
        self.at += 1;
        (self.attempt, self.forgiven) = (0, 0);
        self.phase = Phase::Ready;
    }

    fn expect_step(&self, step: u32) -> Result<(), &'static str> {
        if step == self.at { Ok(()) } else { Err("the run is at another step") }
    }

    fn expect_attempt(&self, step: u32, attempt: u32) -> Result<(), &'static str> {
        self.expect_step(step)?;
        if attempt == self.attempt { Ok(()) } else { Err("the run is at another attempt") }
    }
}
