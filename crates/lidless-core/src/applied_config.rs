//! What does a configuration that takes effect change in the state? Old names keep their ids; a schedule that is new begins now.

use std::sync::Arc;
use std::time::Duration;

use crate::health::Health;
use crate::id::{CheckId, ServiceId};
use crate::spec::Spec;
use crate::state::{CheckState, ServiceState, State};
use crate::time::Now;
use crate::trigger::Trigger;

impl State {
    pub(crate) fn configure(
        &mut self,
        at: Now,
        spec: &Arc<Spec>,
        ids: &[ServiceId],
        check_ids: &[Vec<CheckId>],
    ) -> Result<(), &'static str> {
        if ids.len() != spec.services.len() || check_ids.len() != ids.len() {
            return Err("a configuration with fewer ids than services");
        }
        for service in &mut self.services {
            service.index = None;
            service.checks.clear();
        }
        let asked: Vec<bool> = self.checks.iter_mut().map(|check| check.index.take().is_some()).collect();
        for (index, ((service, id), checks)) in spec.services.iter().zip(ids).zip(check_ids).enumerate() {
            if id.index() >= self.services.len() {
                self.services.resize_with(id.index() + 1, ServiceState::default);
            }
            let state = &mut self.services[id.index()];
            state.name.clone_from(&service.name);
            state.index = Some(u32::try_from(index).map_err(|_| "too many services")?);
            state.checks.clone_from(checks);
            if checks.len() != service.checks.len() {
                return Err("a service with fewer ids than checks");
            }
            for (index, (check, check_id)) in service.checks.iter().zip(checks).enumerate() {
                if check_id.index() >= self.checks.len() {
                    self.checks.resize_with(check_id.index() + 1, CheckState::default);
                }
                let state = &mut self.checks[check_id.index()];
                state.service = *id;
                state.name.clone_from(&check.name);
                state.index = Some(u32::try_from(index).map_err(|_| "too many checks")?);
                if !asked.get(check_id.index()).copied().unwrap_or_default() {
                    // One that comes back was not asked meanwhile: what it said before it left is not known any more,
                    // and a `Down` without an incident would never open one.
                    (state.health, state.since, state.first_sign) = (Health::Unknown, at, Duration::ZERO);
                }
            }
        }
        self.spec = Arc::clone(spec);
        self.schedule(at);
        Ok(())
    }

    /// A schedule that is new counts from now on.
    fn schedule(&mut self, at: Now) {
        let spec = Arc::clone(&self.spec);
        let has = |name: &str, is: fn(&Trigger) -> bool| {
            spec.pipelines.iter().any(|pipeline| pipeline.name == name && pipeline.triggers.iter().any(is))
        };
        let is_every = |trigger: &Trigger| matches!(trigger, Trigger::Every { .. });
        let is_cron = |trigger: &Trigger| matches!(trigger, Trigger::Cron { .. });
        for pipeline in &spec.pipelines {
            if has(&pipeline.name, |_| true) {
                self.schedules.entry(pipeline.name.clone()).or_default();
            }
        }
        self.schedules.retain(|name, schedule| {
            schedule.every = schedule.every.or(Some(at.monotonic)).filter(|_| has(name, is_every));
            schedule.cron_ms = schedule.cron_ms.or(Some(at.wall_ms)).filter(|_| has(name, is_cron));
            schedule.every.is_some() || schedule.cron_ms.is_some()
        });
    }
}
