//! How did a run go? What the program that asked for it gets to know, while it goes on and at its end.

use std::fmt;
use std::time::Duration;

use lidless_core::id::RunId;
use serde::Serialize;
use serde_json::Value;

/// How a run ended.
///
/// Printed, it says `{ success: true }` or `{ success: false, failedAt: HARVEST }`; as JSON, everything.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// Every step is done.
    pub success: bool,
    /// The step at which it ended, where it did not succeed.
    #[serde(rename = "failedAt", skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<String>,
    /// Why, with all its causes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Which run.
    pub run: RunId,
    /// It is not over, and cannot go on by itself. Mostly nobody knows whether `failed_at` took effect: a person must find out,
    /// and say so ([`Composed::resolve`](crate::Composed::resolve)). Until then nothing is done again. Or the program has no such
    /// step any more: one that has goes on with it.
    pub held: bool,
    /// What was done before it was taken back, all of it.
    pub undone: bool,
    /// Its steps, in their order; behind them those that have taken one back.
    pub steps: Vec<StepReport>,
}

impl Report {
    /// How one step stands.
    pub fn step(&self, name: &str) -> Option<&StepReport> {
        self.steps.iter().find(|step| step.name == name)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.failed_at {
            Some(step) => write!(f, "{{ success: {}, failedAt: {step} }}", self.success),
            None => write!(f, "{{ success: {} }}", self.success),
        }
    }
}

/// How a step of a run stands.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct StepReport {
    /// Its name.
    pub name: String,
    /// What became of it.
    pub outcome: StepOutcome,
    /// What it put out, where it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Why it is not done, where it was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Attempts begun that this program has seen.
    pub attempts: u32,
    /// From the first of them to the last answer.
    #[serde(serialize_with = "as_secs")]
    pub took: Duration,
}

/// What became of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    /// It was not begun.
    NotBegun,
    /// It is done.
    Done,
    /// It had no effect, or it does no harm to do it again.
    Failed,
    /// Nobody knows whether it took effect.
    Unknown,
    /// It was done, and taken back.
    Undone,
}

/// Something that happens in a run, for whoever watches ([`Pipeline::watch`](crate::Pipeline::watch)). Printed, it is one line.
#[derive(Clone, PartialEq, Debug)]
pub enum Seen {
    /// An attempt begins: `→ HARVEST`.
    Began {
        /// At which step.
        step: String,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// A step is done: `✓ HARVEST`.
    Done {
        /// Which step.
        step: String,
        /// What it put out.
        output: Value,
    },
    /// An attempt was in vain, and another follows: `✗ HARVEST: gas is above max_fee`.
    Again {
        /// At which step.
        step: String,
        /// Why.
        reason: String,
    },
    /// Nobody knows yet whether a step took effect: `? HARVEST: why`.
    Unknown {
        /// Which step.
        step: String,
        /// Why not.
        reason: String,
    },
    /// The run ended at a step: `✗ HARVEST failed: gas is above max_fee`.
    Failed {
        /// Which step.
        step: String,
        /// Why.
        reason: String,
    },
    /// The run waits for a person: `? HARVEST waits for a person: why`.
    Held {
        /// At which step.
        step: String,
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Seen::Began { step, attempt: 1 } => write!(f, "→ {step}"),
            Seen::Began { step, attempt } => write!(f, "→ {step} (attempt {attempt})"),
            Seen::Done { step, .. } => write!(f, "✓ {step}"),
            Seen::Again { step, reason } => write!(f, "✗ {step}: {reason}"),
            Seen::Unknown { step, reason } => write!(f, "? {step}: {reason}"),
            Seen::Failed { step, reason } => write!(f, "✗ {step} failed: {reason}"),
            Seen::Held { step, reason } => write!(f, "? {step} waits for a person: {reason}"),
        }
    }
}

fn as_secs<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}
