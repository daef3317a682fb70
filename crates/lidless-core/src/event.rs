//! What happened? The records of the journal: every screen, report and alert is a fold of these.
//!
//! An event carries its results, not its reasons for them: `apply` computes nothing that `handle` has decided, so that a
//! replay under a newer version of lidless ends in the same state.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use crate::because::Because;
use crate::check::CheckFailure;
use crate::health::Health;
use crate::id::{CheckId, IncidentId, NoticeId, RunId, Seq, ServiceId};
pub use crate::notice::Notice;
pub use crate::outcome::{Confirmation, Outcome, Verdict};
use crate::pipeline::plan::{Plan, Purpose};
use crate::spec::Spec;
use crate::time::{Now, micros};
pub use crate::trigger::Due;

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
        /// What it does.
        plan: Arc<Plan>,
        /// What it was given, as a JSON object; empty for nothing.
        #[serde(default = "nothing", skip_serializing_if = "is_nothing")]
        inputs: Arc<str>,
        /// What triggered it: the same key twice is one run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Arc<str>>,
        /// The moment of its schedule, if it was that.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        due: Option<Due>,
        /// Steps above this one are not done: it was begun there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<u32>,
    },
    /// A schedule's moment went by without a run.
    TriggerMissed {
        /// Of which pipeline.
        pipeline: String,
        /// Which moment; with more than one, the last.
        due: Due,
        /// How many.
        count: u64,
        /// Why.
        why: String,
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
    /// By this the effect of an attempt can be found again. **Invariant:** durable before what it names leaves the machine.
    StepHandle {
        /// Which run.
        run: RunId,
        /// Which step.
        step: u32,
        /// Which attempt.
        attempt: u32,
        /// The handle, as JSON.
        handle: Arc<str>,
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
    /// A step had no effect, and there is no way on or back without a person.
    StepStuck {
        /// Which run.
        run: RunId,
        /// Which step.
        step: u32,
        /// Why.
        reason: String,
    },
    /// A step is given up without a further attempt. It had no effect, or one that does no harm.
    StepFailed {
        /// Which run.
        run: RunId,
        /// Which step.
        step: u32,
        /// Why.
        reason: String,
    },
    /// A step is not to be done.
    StepSkipped {
        /// Which run.
        run: RunId,
        /// Which step.
        step: u32,
        /// Why not.
        reason: String,
    },
    /// A step waits for a person's yes.
    StepAwaits {
        /// Which run.
        run: RunId,
        /// Which step.
        step: u32,
        /// Until when that counts, in engine time.
        #[serde(rename = "until_us", with = "micros")]
        until: Duration,
    },
    /// A person said yes.
    StepApproved {
        /// Which run.
        run: RunId,
        /// Which step.
        step: u32,
        /// Who.
        by: String,
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
    /// A run goes forward no more: what is under way is settled, then it is taken back, or ends.
    RunTurned {
        /// Which run.
        run: RunId,
        /// The step at which it turned.
        step: u32,
        /// Why; none where a person ended it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// What was applied is taken back from here on.
        undo: bool,
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
            | Event::StepHandle { run, .. }
            | Event::StepStuck { run, .. }
            | Event::StepFailed { run, .. }
            | Event::StepSkipped { run, .. }
            | Event::StepAwaits { run, .. }
            | Event::StepApproved { run, .. }
            | Event::RunTurned { run, .. }
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
            | Event::TriggerMissed { .. }
            | Event::NoticeOwed { .. }
            | Event::NoticeDelivered { .. }
            | Event::NoticeFailed { .. }
            | Event::Intervention { .. }
            | Event::StoreDegraded { .. }
            | Event::StoreRecovered => None,
        }
    }
}

fn nothing() -> Arc<str> {
    Arc::from("")
}

fn is_nothing(text: &Arc<str>) -> bool {
    text.is_empty()
}
