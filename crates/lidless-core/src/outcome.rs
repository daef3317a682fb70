//! How does an attempt at a step end, what does the world say of one in doubt, and how does a run end?

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::micros;

/// What became of an attempt at a step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Outcome {
    /// It took effect.
    Applied {
        /// What it has to say: "new process 4711".
        output: String,
    },
    /// It was so already, and nothing was done: a process that lives was adopted. There is no act to be judged.
    Found {
        /// What was found.
        output: String,
    },
    /// It had no effect, neither by this nor by an earlier attempt.
    NotApplied {
        /// Why.
        reason: String,
    },
    /// It had no effect, and trying again would not help.
    Refused {
        /// Why.
        reason: String,
    },
    /// It could not even be tried (D-Bus dead, say): this never counts as an attempt at healing.
    Unavailable {
        /// Why.
        reason: String,
    },
    /// Nothing here can do it: the implementation is missing. It had no effect, and may be tried again once it is there.
    Missing {
        /// What is missing.
        reason: String,
    },
    /// Nobody knows yet.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// What the world says of a step in doubt.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Confirmation {
    /// It took effect.
    Applied {
        /// How we know.
        evidence: String,
        /// What it put out, where whoever was asked could tell.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<String>,
    },
    /// It did not, and never will.
    NotApplied {
        /// How we know.
        evidence: String,
    },
    /// It did not, by its own word: it went on while lidless was away, and its failure is one like any other.
    Failed {
        /// Why.
        reason: String,
        /// Trying again would not help.
        for_good: bool,
    },
    /// Ask again later.
    StillUnknown {
        /// Why.
        reason: String,
        /// When to ask again.
        #[serde(rename = "retry_after_us", with = "micros")]
        retry_after: Duration,
    },
}

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Verdict {
    /// Every step was applied.
    Done,
    /// A step failed; those before it stay applied.
    Failed {
        /// The index of the step.
        step: u32,
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A step failed, and everything applied before it that can be taken back was.
    Undone {
        /// The index of the step.
        step: u32,
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// A person ended it before this step.
    Cancelled {
        /// The index of the step that was not begun.
        step: u32,
        /// Its name.
        name: String,
    },
}
