//! What happened? The records of the journal: every screen, report and alert is a fold of these.
//!
//! An event carries its results, not its reasons for them: `apply` computes nothing that `handle` has decided, so that a
//! replay under a newer version of lidless ends in the same state.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::check::CheckFailure;
use crate::health::Health;
use crate::id::{CheckId, IncidentId, NoticeId, RunId, Seq, ServiceId};
pub use crate::notice::Notice;
pub use crate::outcome::{Confirmation, Outcome, Verdict};
use crate::pipeline::plan::{Purpose, StepSpec};
use crate::spec::Spec;
use crate::time::{Now, micros};

/// One line of the journal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its position; without gaps.
    pub seq: Seq,
    /// When the engine decided it.
    #[serde(flatten)]
    pub at: Now,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What can happen.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// lidless began to watch. Between the record before this one and this one nothing was measured.
    Started {
        /// Identifies the boot of the machine.
        boot: String,
        /// The version of lidless.
        version: String,
    },
    /// lidless stopped in good order.
    Stopped {
        /// Why.
        why: String,
    },
    /// Nothing happened, and lidless was there to see it.
    Marked,
    /// A configuration took effect.
    ConfigApplied {
        /// The whole of it.
        spec: Arc<Spec>,
        /// The id of each of its services, in its order. An old name keeps its id.
        services: Vec<ServiceId>,
        /// The ids of each service's checks, in its order.
        checks: Vec<Vec<CheckId>>,
    },
    /// The debounced verdict on a check changed.
    HealthChanged {
        /// Which check.
        check: CheckId,
        /// Before.
        from: Health,
        /// After.
        to: Health,
        /// What was wrong, where something was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<CheckFailure>,
        /// Why nobody knows, where nobody does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A service went down.
    IncidentOpened {
        /// The new incident.
        incident: IncidentId,
        /// Whose.
        service: ServiceId,
        /// The check that found it.
        check: CheckId,
        /// The first failure of the row that ended in `Down`, in engine time.
        #[serde(rename = "first_sign_us", with = "micros")]
        first_sign: Duration,
        /// What was wrong.
        failure: CheckFailure,
    },
    /// A further check of the same service went down: the same incident.
    IncidentMerged {
        /// Which incident.
        incident: IncidentId,
        /// The further check.
        check: CheckId,
        /// What was wrong.
        failure: CheckFailure,
    },
    /// Every check of the incident passes again.
    IncidentClosed {
        /// Which incident.
        incident: IncidentId,
        /// The check whose pass completed the recovery; none where the service left the configuration.
        verified_by: Option<CheckId>,
        /// The run that mended it; none where it recovered by itself.
        healed_by: Option<RunId>,
    },
    /// A heal is due but must not be done now. Written on change of the reason only.
    HealHeld {
        /// Which incident.
        incident: IncidentId,
        /// Why not.
        because: Because,
    },
    /// The next heal waits.
    BackedOff {
        /// Which incident.
        incident: IncidentId,
        /// Until when, in engine time.
        #[serde(rename = "until_us", with = "micros")]
        until: Duration,
    },
    /// The budget is spent. A visible state: one more try follows at `retry_at`, and each `retry_after` from then on.
    GaveUp {
        /// Which incident.
        incident: IncidentId,
        /// Heals done within the window.
        attempts: u32,
        /// The next slow try, in engine time.
        #[serde(rename = "retry_at_us", with = "micros")]
        retry_at: Duration,
    },
    /// A run was created. Its plan is pinned here.
    RunCreated {
        /// The new run.
        run: RunId,
        /// Why it exists.
        purpose: Purpose,
        /// Its steps.
        steps: Vec<StepSpec>,
        /// What it was given, as a JSON object; empty for nothing.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        inputs: String,
    },
    /// A step is about to take effect. **Invariant:** durable before the effect.
    StepIntent {
        /// Which run.
        run: RunId,
        /// Which step, from 0.
        step: u32,
        /// Which attempt, from 1.
        attempt: u32,
        /// When the attempt ends at the latest, in engine time.
        #[serde(rename = "deadline_us", with = "micros")]
        deadline: Duration,
    },
    /// What became of an attempt.
    StepOutcome {
        /// Which run.
        run: RunId,
        /// Which step.
        step: u32,
        /// Which attempt.
        attempt: u32,
        /// What.
        outcome: Outcome,
    },
    /// The world was asked about a step in doubt.
    StepConfirmed {
        /// Which run.
        run: RunId,
        /// Which step.
        step: u32,
        /// Which attempt.
        attempt: u32,
        /// What it said.
        answer: Confirmation,
    },
    /// Another attempt follows.
    StepRetry {
        /// Which run.
        run: RunId,
        /// Which step.
        step: u32,
        /// When, in engine time.
        #[serde(rename = "not_before_us", with = "micros")]
        not_before: Duration,
    },
    /// Nobody could tell whether an act took effect, and the next step verifies the symptom itself: go on to it.
    StepLeftToVerify {
        /// Which run.
        run: RunId,
        /// Which step.
        step: u32,
    },
    /// The run waits for a person.
    StepHeld {
        /// Which run.
        run: RunId,
        /// Which step.
        step: u32,
        /// Why.
        reason: String,
    },
    /// A person said what became of a step that waits for one.
    StepResolved {
        /// Which run.
        run: RunId,
        /// Which step.
        step: u32,
        /// Whether it took effect.
        applied: bool,
        /// How they know.
        evidence: String,
        /// Who.
        by: String,
    },
    /// A person wants the run to end: no further step begins.
    CancelAsked {
        /// Which run.
        run: RunId,
        /// Who.
        by: String,
    },
    /// A run that had failed goes on at the step that failed.
    RunResumed {
        /// Which run.
        run: RunId,
        /// Who asked for it.
        by: String,
    },
    /// The run is over.
    RunFinished {
        /// Which run.
        run: RunId,
        /// How it ended.
        verdict: Verdict,
    },
    /// We owe the world a message.
    NoticeOwed {
        /// The new message.
        notice: NoticeId,
        /// What it says.
        what: Notice,
    },
    /// The message was taken.
    NoticeDelivered {
        /// Which message.
        notice: NoticeId,
    },
    /// The message was not taken; it stays owed.
    NoticeFailed {
        /// Which message.
        notice: NoticeId,
        /// Why.
        reason: String,
        /// When it is tried again, in engine time.
        #[serde(rename = "retry_at_us", with = "micros")]
        retry_at: Duration,
    },
    /// A person did something by hand.
    Intervention {
        /// Who.
        by: String,
        /// To what.
        service: ServiceId,
        /// What.
        what: String,
    },
    /// The journal cannot be written: value-moving work stops, watching and healing go on.
    StoreDegraded {
        /// Why.
        reason: String,
    },
    /// The journal can be written again, and everything held back is in it.
    StoreRecovered,
}

impl Event {
    /// The run that it is about, if it is about one.
    pub fn run(&self) -> Option<RunId> {
        match self {
            Event::RunCreated { run, .. }
            | Event::StepIntent { run, .. }
            | Event::StepOutcome { run, .. }
            | Event::StepConfirmed { run, .. }
            | Event::StepRetry { run, .. }
            | Event::StepLeftToVerify { run, .. }
            | Event::StepHeld { run, .. }
            | Event::StepResolved { run, .. }
            | Event::CancelAsked { run, .. }
            | Event::RunResumed { run, .. }
            | Event::RunFinished { run, .. } => Some(*run),
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
            | Event::NoticeOwed { .. }
            | Event::NoticeDelivered { .. }
            | Event::NoticeFailed { .. }
            | Event::Intervention { .. }
            | Event::StoreDegraded { .. }
            | Event::StoreRecovered => None,
        }
    }
}

/// Why a heal that is due is not done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Because {
    /// A service that it depends on has an incident.
    DependencyDown {
        /// Which one.
        service: ServiceId,
    },
    /// All services together have used up the host's budget.
    HostBudgetSpent,
    /// Its configuration names no way to heal it.
    NoHeal,
    /// The process ended with a code by which it says "do not restart me".
    ExitCode {
        /// The code.
        code: i32,
    },
}
