//! Does everything mend once faults stop? The calm after the storm, how long it may take, and what is still wrong.

use std::fmt::Write as _;
use std::time::Duration;

use lidless_core::effect::{Command, Input};
use lidless_core::event::Because;
use lidless_core::health::Health;
use lidless_core::pipeline::run::Phase;

use crate::driver::{Crash, Sim};
use crate::scenario::NAMES;
use crate::schedule::Happening;

impl Sim {
    /// Faults stop; from now on everything must mend within a time that follows from the configuration.
    pub(crate) fn calm_down(&mut self) {
        self.trace(|sim| format!("{:>12.3} * faults stop", sim.now.as_secs_f64()));
        self.world.calm_down(self.now);
        self.schedule.at(self.now, Happening::Room);
        self.schedule.at(self.now + Duration::from_secs(20), Happening::Person);
        let mut patience = Duration::from_secs(3_600);
        for service in &self.spec.services {
            let heal =
                service.heal.as_ref().map(|heal| heal.retry_after + heal.budget.per).unwrap_or_default();
            let verify = service.verify.settle + service.verify.within;
            patience += heal + (service.act_timeout + verify) * 2 + Duration::from_secs(120);
        }
        patience += self.spec.host_budget.map(|budget| budget.per * 2).unwrap_or_default();
        self.until = Some(self.now + patience);
    }

    /// Where the machine says that it needs a person, one comes.
    pub(crate) fn person(&mut self) -> Result<(), Crash> {
        self.schedule.at(self.now + Duration::from_secs(20), Happening::Person);
        if !self.alive {
            return Ok(());
        }
        let state = self.engine.state();
        let needy: Vec<_> = state
            .configured()
            .filter(|(id, service, _)| {
                let held = state.incident_of(*id).and_then(|incident| incident.held.as_ref());
                let for_person = match held {
                    Some(Because::NoHeal | Because::ExitCode { .. }) => true,
                    Some(Because::DependencyDown { .. } | Because::HostBudgetSpent) | None => false,
                };
                for_person && service.run.is_none()
            })
            .map(|(id, _, _)| id)
            .collect();
        for service in needy {
            self.feed(Input::Command(Command::Restart { service, by: "ann".to_owned(), force: true }))?;
        }
        self.bookkeeper()
    }

    /// Somebody looks at the chain, and says what became of steps that wait for that.
    pub(crate) fn bookkeeper(&mut self) -> Result<(), Crash> {
        let runs = self.engine.state().runs.values();
        let waits = runs.flat_map(|run| run.open_steps().map(move |(step, phase)| (run, step, phase)));
        let waits = waits.filter(|(_, _, phase)| phase.waits_for_a_person());
        let waits: Vec<_> = waits
            .filter_map(|(run, step, phase)| {
                Some((run.id, step, run.spec(step)?.name.clone(), phase.clone()))
            })
            .collect();
        for (run, at, step, phase) in waits {
            let (by, evidence) = ("ann".to_owned(), "I looked".to_owned());
            let command = match phase {
                Phase::Awaiting { .. } => {
                    let no = self.rng.chance(2_000).then(String::new);
                    Command::Approve { run, step: Some(step), no, by }
                }
                Phase::Stuck { .. } if self.rng.chance(6_000) => Command::Resume { run, by },
                Phase::Stuck { .. } => Command::Cancel { run, by },
                _ => {
                    let Some(applied) = self.world.truth(self.key(run, at)) else { continue };
                    Command::Resolve { run, step, applied, evidence, by }
                }
            };
            self.feed(Input::Command(command))?;
        }
        Ok(())
    }

    pub(crate) fn all_well(&self) -> bool {
        let state = self.engine.state();
        state.incidents.is_empty()
            && state.outbox.is_empty()
            && state.degraded.is_none()
            && !self.journal.held_back()
            && state.runs.is_empty()
            && state.configured().all(|(id, _, spec)| {
                let real = NAMES.iter().position(|name| *name == spec.name);
                state.service_health(id) == Health::Up
                    && real.is_some_and(|at| self.world.services[at].instances.len() == 1)
            })
    }

    pub(crate) fn what_is_wrong(&self) -> String {
        let state = self.engine.state();
        let mut text = format!("wake {:?}; degraded {:?}", self.engine.next_wake(), state.degraded);
        for (id, service, spec) in state.configured() {
            let real = NAMES.iter().position(|name| *name == spec.name);
            let alive = real.map_or(0, |at| self.world.services[at].instances.len());
            let health = state.service_health(id).word();
            let _ = write!(text, "; {id} `{}` is {health} with {alive} instances", service.name);
        }
        for incident in state.incidents.values() {
            let (id, service, held) = (incident.id, incident.service, &incident.held);
            let _ = write!(text, "; {id} of {service} after {} heals, held {held:?}", incident.heals);
            let _ = write!(text, ", checks {:?}", incident.checks);
        }
        for run in state.runs.values() {
            let _ = write!(text, "; {} for {:?}", run.id, run.purpose);
            for (step, phase) in run.open_steps() {
                let _ = write!(text, ", step {step} {phase:?}");
            }
            let _ = write!(text, ", ready {:?}, turned {:?}", run.ready, run.turned);
        }
        if !state.outbox.is_empty() {
            let _ = write!(text, "; owed {:?}", state.outbox);
        }
        text
    }
}
