//! What does it take to be a check? One probe within one deadline, and perhaps a signal that something changed.

pub mod exec;
pub mod http;
pub mod nagios;
pub mod process;
pub mod systemd;
pub mod tcp;

mod reach;
mod resolve;
mod verdict;
pub(crate) mod wording;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use lidless_core::check::CheckOutcome;

/// A future that can be kept without naming its type.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Asks one question of one target.
pub trait Check: Send + Sync {
    /// Asks once. Ends within `timeout`, whatever the target does; never panics on what the target sends.
    ///
    /// Several probes of one check may run at once.
    fn probe(&self, timeout: Duration) -> BoxFuture<'_, CheckOutcome>;

    /// Waits until the target has probably changed, so that a probe now is worth it.
    ///
    /// `None` where the kind has no such signal. A signal is a hint, never an answer: the probe that follows decides.
    /// The future must be cancel-safe; it may end early, but must not end at once again and again.
    fn changed(&self) -> Option<BoxFuture<'_, ()>> {
        None
    }
}
