//! What if only the checks may say whether an act helped? An act that failed, or could not be tried, is in doubt until they
//! have spoken.
//!
//! A watchdog script restarts, waits and looks, whatever the restart's exit code was: many a restart fails in its last step
//! and has done its work.

use std::sync::Arc;
use std::time::Duration;

use lidless_core::event::{Confirmation, Outcome};
use lidless_core::spec::Action;
use lidless_core::time::Now;

use super::Actuator;
use crate::check::BoxFuture;

/// An actuator whose failures are left to the checks.
pub struct JudgedByChecks(Arc<dyn Actuator>);

impl JudgedByChecks {
    /// Asks `actuator`, and believes only its successes.
    pub fn new(actuator: Arc<dyn Actuator>) -> JudgedByChecks {
        JudgedByChecks(actuator)
    }
}

impl Actuator for JudgedByChecks {
    fn perform(&self, action: Action, timeout: Duration) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            match self.0.perform(action, timeout).await {
                Outcome::NotApplied { reason }
                | Outcome::Refused { reason }
                | Outcome::Unavailable { reason } => Outcome::Unknown { reason },
                other @ (Outcome::Applied { .. }
                | Outcome::Found { .. }
                | Outcome::Missing { .. }
                | Outcome::Unknown { .. }) => other,
            }
        })
    }

    fn confirm(&self, _action: Action, _intent_at: Now, _timeout: Duration) -> BoxFuture<'_, Confirmation> {
        // At once: a proof that nothing was done would end the heal before the checks are asked.
        let reason = "its effect is for the checks to tell".to_owned();
        Box::pin(async move { Confirmation::StillUnknown { reason, retry_after: Duration::ZERO } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actuator::exec::ExecActuator;
    use crate::child::CommandSpec;

    #[tokio::test]
    async fn a_failure_is_doubt_and_a_success_stays_one() {
        let perform = |script: &str| {
            let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
            let command = CommandSpec { argv, ..CommandSpec::default() };
            let actuator = JudgedByChecks::new(Arc::new(ExecActuator::new(command, None)));
            async move { actuator.perform(Action::Restart, Duration::from_secs(20)).await }
        };
        assert!(matches!(perform("exit 0").await, Outcome::Applied { .. }));
        for (script, code) in [("exit 3", "exit 3"), ("exit 127", "exit 127")] {
            assert_eq!(perform(script).await, Outcome::Unknown { reason: code.to_owned() });
        }
    }
}
