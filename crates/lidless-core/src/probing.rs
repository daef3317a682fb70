//! How is a check probed next? Quickly while its health is in question, and not more often than helps.

use std::time::Duration;

use crate::effect::ProbePlan;
use crate::engine::{Engine, MARK_EVERY};
use crate::health::Health;
use crate::id::CheckId;
use crate::pipeline::run::{Phase, Run};

impl Engine {
    /// How to probe a check next.
    pub fn probe_plan(&self, id: CheckId, now: Duration) -> ProbePlan {
        let Some(spec) = self.state.check_spec(id) else {
            return ProbePlan {
                after: MARK_EVERY,
                every: MARK_EVERY,
                hedges: 0,
                timeout: Duration::from_secs(1),
            };
        };
        let check = &self.state.checks[id.index()];
        let service = &self.state.services[check.service.index()];
        let quick = spec.confirm_every.min(spec.every);
        let wanted = |fails: u32| spec.fail_after.saturating_sub(fails + 1);
        // Once all is well after an act, it is watched as ever.
        let run = self.state.run_of(check.service);
        let run = run.filter(|run| !self.scratch.well_since.contains_key(&run.id));
        let (after, hedges) = match (run.map(Run::focus_phase), check.health) {
            // Eager at first, then after a quarter of the time waited so far: a slow starter is not hammered.
            (Some(Phase::Verifying { from, .. }), _) => {
                let waited = now.saturating_sub(*from) / 4;
                (waited.max(quick / 10).min(spec.every), 0)
            }
            (Some(_), _) => (spec.every, 0),
            (None, Health::Suspect { fails }) => (quick, wanted(fails)),
            (None, Health::Recovering { .. }) => (quick, 0),
            (None, Health::Up | Health::Unknown) => (spec.every, wanted(0)),
            (None, Health::Down) => {
                let due = service.not_before.max(service.given_up.unwrap_or_default());
                let until = if due > now { (due - now).max(quick) } else { spec.every };
                (until.min(spec.every), 0)
            }
        };
        ProbePlan { after, every: spec.every, hedges, timeout: spec.timeout }
    }
}
