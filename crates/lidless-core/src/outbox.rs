//! What do we owe the world? Messages are state, not shots in the dark: each stays owed until somebody took it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::Notice;
use crate::pipeline::retry;
use crate::spec::Backoff;
use crate::time::{Now, micros};

/// A message that nobody has taken yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Owed {
    /// What it says.
    pub what: Notice,
    /// Since when it is owed.
    pub since: Now,
    /// Failed deliveries so far.
    pub failures: u32,
    /// Not before this, in engine time.
    #[serde(rename = "retry_at_us", with = "micros")]
    pub retry_at: Duration,
}

/// How long a delivery may stay unanswered before it counts as failed: no driver's silence keeps a message for ever.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(120);

const BACKOFF: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(300) };

/// Returns the wait after `failures` failed deliveries: from 1 s to 5 min, and for ever, for it is owed.
pub fn retry_after(failures: u32, seed: u64) -> Duration {
    retry::delay(BACKOFF, failures.max(1), seed)
}
