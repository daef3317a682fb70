//! What does it take to be an actuator? An act within a deadline, and an honest answer about an act in doubt.

pub mod exec;
mod inflight;
pub mod judged;
pub mod process;
pub mod systemd;

use std::time::Duration;

use lidless_core::event::{Confirmation, Outcome};
use lidless_core::spec::Action;
use lidless_core::time::Now;

use crate::check::BoxFuture;

/// Changes one service.
pub trait Actuator: Send + Sync {
    /// Does it. Ends within `timeout`.
    ///
    /// `Applied` only when the act itself is known to be complete (the new process runs, the job was done); whether the
    /// symptom cleared is for the checks to say. `Unavailable` when it could not even be tried. `Unknown` when it may or may
    /// not have taken effect. Acts on one service are done one at a time.
    fn perform(&self, action: Action, timeout: Duration) -> BoxFuture<'_, Outcome>;

    /// Says whether an act that was intended at `intent_at` took effect. Read-only, repeatable.
    fn confirm(&self, action: Action, intent_at: Now, timeout: Duration) -> BoxFuture<'_, Confirmation>;
}
