//! What does the answer of a probe count for? A hedge's beside its probe's; a time-out while we were late, for nothing.

use std::time::Duration;

use lidless_core::check::{CheckOutcome, FailureKind};
use lidless_core::effect::Input;
use lidless_core::id::CheckId;
use lidless_core::time::Now;

use super::dispatcher::Daemon;
use super::scheduler::Confirmed;

impl Daemon {
    pub(super) fn probed(&mut self, now: Now, check: CheckId, began: Duration, outcome: CheckOutcome) {
        self.answered(now, check, began, outcome);
        let plan = self.engine.probe_plan(check, now.monotonic);
        self.scheduler.ended(check, now.monotonic, plan);
    }

    fn answered(&mut self, now: Now, check: CheckId, began: Duration, outcome: CheckOutcome) {
        let outcome = self.excuse(began, outcome);
        self.turn_at(now, Input::Probed { check, began, outcome });
    }

    /// A probe that was not a hedge decides what the hedges beside it mean.
    pub(super) fn main_probed(&mut self, now: Now, check: CheckId, began: Duration, outcome: CheckOutcome) {
        let failed = matches!(outcome, CheckOutcome::Fail { .. });
        self.scheduler.main_ended(check, failed);
        self.probed(now, check, began, outcome);
        for (began, outcome) in self.held.remove(&check).unwrap_or_default() {
            if failed {
                self.answered(now, check, began, outcome);
            }
        }
    }

    /// A hedge had less time than the probe that it confirms: its failure counts only beside that one's.
    pub(super) fn hedge_probed(
        &mut self,
        now: Now,
        check: CheckId,
        began: Duration,
        group: u32,
        outcome: CheckOutcome,
    ) {
        let failed = matches!(outcome, CheckOutcome::Fail { .. });
        match self.scheduler.confirmed(check, group) {
            Confirmed::Open if failed => self.held.entry(check).or_default().push((began, outcome)),
            Confirmed::Void if failed => {}
            Confirmed::Open | Confirmed::Void | Confirmed::Failed => {
                self.answered(now, check, began, outcome)
            }
        }
        let plan = self.engine.probe_plan(check, now.monotonic);
        self.scheduler.ended(check, now.monotonic, plan);
    }

    /// A time-out while we were late ourselves says nothing about the target.
    fn excuse(&self, began: Duration, outcome: CheckOutcome) -> CheckOutcome {
        match outcome {
            CheckOutcome::Fail { failure, .. }
                if failure.kind == FailureKind::Timeout
                    && !self.late_at.is_zero()
                    && self.late_at >= began =>
            {
                CheckOutcome::Inconclusive {
                    reason: format!("{}, but lidless itself was late", failure.detail),
                }
            }
            CheckOutcome::Pass { .. } | CheckOutcome::Fail { .. } | CheckOutcome::Inconclusive { .. } => {
                outcome
            }
        }
    }
}

/// What a check without a driver answers.
pub(super) fn no_driver() -> CheckOutcome {
    CheckOutcome::Inconclusive { reason: "no driver for this check".to_owned() }
}
