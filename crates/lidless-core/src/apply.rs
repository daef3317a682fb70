//! How does an event change state? The only place that does; it computes nothing that `handle` decided.

use std::sync::Arc;
use std::time::Duration;

use crate::event::{Confirmation, Due, Event, Outcome, Record, Verdict};
use crate::health::Health;
use crate::id::{CheckId, RunId, ServiceId};
use crate::incident::{ClosedIncident, Incident};
use crate::outbox::Owed;
use crate::pipeline::plan::{Plan, Purpose};
use crate::pipeline::queue::Standing;
use crate::pipeline::run::{EndedRun, Run};
use crate::state::{CLOSED_MAX, ENDED_MAX, ENDED_STEPS_MAX, KEYS_MAX, State};
use crate::time::Now;

/// An event that cannot have happened in this state: the journal is corrupt, or a newer lidless wrote it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IllegalEvent {
    /// The record and its event, as debug text.
    pub record: String,
    /// The last record applied before it.
    pub after: u64,
    /// What is wrong with it.
    pub why: &'static str,
}

impl std::fmt::Display for IllegalEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "illegal event after seq {}: {}: {}", self.after, self.why, self.record)
    }
}

impl std::error::Error for IllegalEvent {}

/// Whether two starts were in one boot of the machine: what they wrote is equal but for the clock's offset at the end.
pub(crate) fn same_boot(one: &str, other: &str) -> bool {
    let boot_id = |text| match str::rsplit_once(text, ['+', '-']) {
        Some((id, offset)) if offset.bytes().all(|byte| byte.is_ascii_digit()) => id,
        Some(_) | None => text,
    };
    boot_id(one) == boot_id(other)
}

impl State {
    /// Applies one record. On `Err` the state must not be used any more.
    pub fn apply(&mut self, record: &Record) -> Result<(), IllegalEvent> {
        let illegal =
            |state: &State, why| IllegalEvent { record: format!("{record:?}"), after: state.seq.0, why };
        if record.seq != self.seq.next() {
            return Err(illegal(self, "the sequence number is not the next one"));
        }
        self.apply_event(record).map_err(|why| illegal(self, why))?;
        self.seq = record.seq;
        self.at = record.at;
        Ok(())
    }

    fn apply_event(&mut self, record: &Record) -> Result<(), &'static str> {
        let at = record.at;
        match &record.event {
            Event::Started { boot, .. } => {
                self.forget_what_was_passing(at, !same_boot(&self.boot, boot));
                self.boot.clone_from(boot);
                self.started = at;
                self.running = true;
            }
            Event::Stopped { .. } => self.running = false,
            Event::Marked => {}
            Event::ConfigApplied { spec, services, checks } => self.configure(at, spec, services, checks)?,
            Event::HealthChanged { check, to, .. } => {
                let state = self.checks.get_mut(check.index()).ok_or("no such check")?;
                if !to.is_down() && !matches!(to, Health::Suspect { .. }) {
                    state.first_sign = Duration::ZERO;
                } else if state.first_sign.is_zero() {
                    state.first_sign = at.monotonic;
                }
                state.health = *to;
                state.since = at;
            }
            Event::IncidentOpened { incident, service, check, first_sign, failure } => {
                let state = self.services.get_mut(service.index()).ok_or("no such service")?;
                if state.incident.is_some() {
                    return Err("the service has an open incident");
                }
                state.incident = Some(*incident);
                let opened = Incident {
                    id: *incident,
                    service: *service,
                    opened: at,
                    first_sign: *first_sign,
                    checks: vec![*check],
                    failure: failure.clone(),
                    exit_code: failure.exit_code,
                    held: None,
                    heals: 0,
                    told: Vec::new(),
                };
                self.incidents.insert(*incident, opened);
                self.next_incident = self.next_incident.max(incident.0 + 1);
            }
            Event::IncidentMerged { incident, check, failure } => {
                let incident = self.incidents.get_mut(incident).ok_or("no such incident")?;
                if !incident.checks.contains(check) {
                    incident.checks.push(*check);
                }
                incident.exit_code = failure.exit_code.or(incident.exit_code);
            }
            Event::IncidentClosed { incident, healed_by, .. } => {
                let incident = self.incidents.remove(incident).ok_or("no such incident")?;
                let service = &mut self.services[incident.service.index()];
                service.incident = None;
                service.given_up = None;
                if self.closed.len() == CLOSED_MAX {
                    self.closed.pop_front();
                }
                self.closed.push_back(ClosedIncident { incident, closed: at, healed_by: *healed_by });
            }
            Event::HealHeld { incident, because } => {
                self.incidents.get_mut(incident).ok_or("no such incident")?.held = Some(because.clone());
            }
            Event::BackedOff { incident, until } => {
                let service = self.incidents.get(incident).ok_or("no such incident")?.service;
                self.services[service.index()].not_before = *until;
            }
            Event::GaveUp { incident, retry_at, .. } => {
                let service = self.incidents.get(incident).ok_or("no such incident")?.service;
                self.services[service.index()].given_up = Some(*retry_at);
            }
            Event::RunCreated { run, purpose, plan, inputs, key, due, from } => {
                if let Some(service) = purpose.service() {
                    self.begin_act(service, purpose, at.monotonic, *run)?;
                }
                if let Purpose::Step { of, step, .. } = purpose {
                    self.runs.get_mut(of).ok_or("no such run")?.calls(*step, *run)?;
                }
                let mut created = Run::new(*run, purpose.clone(), self.shared(purpose, plan), at);
                (created.inputs, created.key) = (Arc::clone(inputs), key.clone());
                created.skip_to(from.unwrap_or_default())?;
                self.queue.enter(&created);
                self.runs.insert(*run, created);
                self.next_run = self.next_run.max(run.0 + 1);
                if let Some(key) = key {
                    if self.keys.len() == KEYS_MAX {
                        self.keys.pop_front();
                    }
                    self.keys.push_back((Arc::clone(key), *run));
                }
                if let (Some(due), Some(name)) = (due, purpose.pipeline()) {
                    self.came_to(name, *due);
                }
            }
            Event::TriggerMissed { pipeline, due, .. } => self.came_to(pipeline, *due),
            Event::StepOutcome { run, outcome, .. } => {
                let run = self.move_run(*run, record)?;
                if run.purpose.service().is_some() {
                    let (purpose, created) = (run.purpose.clone(), run.created.monotonic);
                    self.account(&purpose, created, outcome);
                }
            }
            Event::StepConfirmed { run, answer, .. } => {
                let run = self.move_run(*run, record)?;
                if run.purpose.service().is_some() {
                    let (purpose, created) = (run.purpose.clone(), run.created.monotonic);
                    self.account_confirmed(&purpose, created, answer);
                }
            }
            Event::StepIntent { run, .. }
            | Event::StepHandle { run, .. }
            | Event::StepStuck { run, .. }
            | Event::StepFailed { run, .. }
            | Event::StepSkipped { run, .. }
            | Event::StepAwaits { run, .. }
            | Event::StepApproved { run, .. }
            | Event::RunTurned { run, .. }
            | Event::StepRetry { run, .. }
            | Event::StepLeftToVerify { run, .. }
            | Event::StepHeld { run, .. }
            | Event::StepResolved { run, .. }
            | Event::CancelAsked { run, .. } => {
                self.move_run(*run, record)?;
            }
            Event::RunResumed { run, .. } => {
                if self.runs.contains_key(run) {
                    return self.move_run(*run, record).map(drop);
                }
                let at_rest =
                    self.ended.iter().position(|ended| ended.run.id == *run).ok_or("no such run")?;
                let mut ended = self.ended.remove(at_rest).ok_or("no such run")?;
                ended.run.apply(at, &record.event)?;
                self.queue.enter(&ended.run);
                self.runs.insert(*run, ended.run);
            }
            Event::RunFinished { run, verdict } => {
                let mut run = self.runs.remove(run).ok_or("no such run")?;
                self.queue.leave(&run);
                match run.purpose.service() {
                    Some(service) => self.services[service.index()].run = None,
                    None => {
                        run.begun = false;
                        self.ended.push_back(EndedRun { run, verdict: verdict.clone(), ended: at });
                        self.trim_ended();
                    }
                }
            }
            Event::NoticeOwed { notice, what } => {
                let owed = Owed { what: what.clone(), since: at, failures: 0, retry_at: at.monotonic };
                if let Some(incident) = what.incident().and_then(|id| self.incidents.get_mut(&id)) {
                    incident.told.push(what.clone());
                }
                self.outbox.insert(*notice, owed);
                self.next_notice = self.next_notice.max(notice.0 + 1);
            }
            Event::NoticeDelivered { notice } => {
                self.outbox.remove(notice).ok_or("no such notice")?;
            }
            Event::NoticeFailed { notice, retry_at, .. } => {
                let owed = self.outbox.get_mut(notice).ok_or("no such notice")?;
                owed.failures += 1;
                owed.retry_at = *retry_at;
            }
            Event::Intervention { .. } => {}
            Event::StoreDegraded { reason } => self.degraded = Some(reason.clone()),
            Event::StoreRecovered => self.degraded = None,
        }
        Ok(())
    }

    /// Has a run take an event of its own.
    fn move_run(&mut self, id: RunId, record: &Record) -> Result<&mut Run, &'static str> {
        let run = self.runs.get_mut(&id).ok_or("no such run")?;
        let before = Standing::of(run);
        run.apply(record.at, &record.event)?;
        self.queue.moved(run, before);
        Ok(run)
    }

    /// Returns the plan, in the same place as the pipeline's own where it is the same: a thousand runs have one.
    fn shared(&self, purpose: &Purpose, plan: &Arc<Plan>) -> Arc<Plan> {
        let name = purpose.pipeline();
        let own = self.spec.pipelines.iter().find(|spec| Some(spec.name.as_str()) == name);
        let same = own.filter(|own| Arc::ptr_eq(&own.plan, plan) || own.plan == *plan);
        same.map_or_else(|| Arc::clone(plan), |own| Arc::clone(&own.plan))
    }

    fn came_to(&mut self, pipeline: &str, due: Due) {
        let schedule = self.schedules.entry(pipeline.to_owned()).or_default();
        match due {
            Due::Every(moment) => schedule.every = Some(moment),
            Due::Cron(moment) => schedule.cron_ms = schedule.cron_ms.max(Some(moment)),
        }
    }

    fn trim_ended(&mut self) {
        let mut steps: usize = self.ended.iter().map(|ended| ended.run.steps.len()).sum();
        while self.ended.len() > ENDED_MAX || (self.ended.len() > 1 && steps > ENDED_STEPS_MAX) {
            // One that failed may still be resumed.
            let last = self.ended.len() - 1;
            let settled = |ended: &EndedRun| !matches!(ended.verdict, Verdict::Failed { .. });
            let at = self.ended.iter().take(last).position(settled).unwrap_or(0);
            steps -= self.ended.remove(at).map_or(0, |ended| ended.run.steps.len());
        }
    }

    /// A heal counts in both budgets from the moment it is decided.
    fn begin_act(
        &mut self,
        id: ServiceId,
        purpose: &Purpose,
        now: Duration,
        run: RunId,
    ) -> Result<(), &'static str> {
        let per = self.service_spec(id).and_then(|spec| spec.heal.as_ref()).map(|heal| heal.budget.per);
        let host_per = self.spec.host_budget.map(|budget| budget.per);
        let service = self.services.get_mut(id.index()).ok_or("no such service")?;
        if service.run.is_some() {
            return Err("a run acts on the service already");
        }
        service.run = Some(run);
        match purpose {
            Purpose::Heal { incident, .. } => {
                let incident = self.incidents.get_mut(incident).ok_or("no such incident")?;
                incident.heals += 1;
                incident.held = None;
            }
            Purpose::Manual { .. } | Purpose::Step { .. } => {}
            Purpose::BringUp { .. } | Purpose::Pipeline { .. } => return Ok(()),
        }
        if let Some(per) = per {
            service.heals.push(now, per);
        }
        if let Some(per) = host_per {
            self.host_heals.push(now, per);
        }
        Ok(())
    }

    /// An act that could not be tried is taken back from the budgets.
    fn account(&mut self, purpose: &Purpose, created: Duration, outcome: &Outcome) {
        let Some(service) = purpose.service().map(|id| &mut self.services[id.index()]) else { return };
        match outcome {
            Outcome::Unavailable { .. } => {
                service.unavailable += 1;
                self.take_back(purpose, created);
            }
            Outcome::Applied { .. } | Outcome::Found { .. } => service.unavailable = 0,
            Outcome::NotApplied { .. }
            | Outcome::Refused { .. }
            | Outcome::Missing { .. }
            | Outcome::Unknown { .. } => {}
        }
    }

    /// Takes an act that was never done out of the budgets, and out of what was done for the incident.
    fn take_back(&mut self, purpose: &Purpose, created: Duration) {
        let service = match purpose {
            Purpose::Heal { service, incident } => {
                if let Some(incident) = self.incidents.get_mut(incident) {
                    incident.heals = incident.heals.saturating_sub(1);
                }
                service
            }
            Purpose::Manual { service, .. } | Purpose::Step { service, .. } => service,
            Purpose::BringUp { .. } | Purpose::Pipeline { .. } => return,
        };
        self.services[service.index()].heals.take_back(created);
        self.host_heals.take_back(created);
    }

    /// A heal that proved to have had no effect is taken back like one that could not be tried; it is decided anew.
    fn account_confirmed(&mut self, purpose: &Purpose, created: Duration, answer: &Confirmation) {
        let Some(service) = purpose.service().map(|id| &mut self.services[id.index()]) else { return };
        match (answer, purpose) {
            (Confirmation::Applied { .. }, _) => service.unavailable = 0,
            (Confirmation::NotApplied { .. }, Purpose::Heal { .. }) => {
                service.unavailable += 1;
                // Once. An act that is proved undone again and again is one that does not work, and the budget ends it.
                if service.unavailable == 1 {
                    self.take_back(purpose, created);
                }
            }
            (
                Confirmation::NotApplied { .. },
                Purpose::BringUp { .. }
                | Purpose::Manual { .. }
                | Purpose::Step { .. }
                | Purpose::Pipeline { .. },
            )
            | (Confirmation::Failed { .. } | Confirmation::StillUnknown { .. }, _) => {}
        }
    }

    /// A row of failures does not go on over a time in which nobody asked; nor do waits over a boot of the machine, which
    /// is a restart of everything.
    fn forget_what_was_passing(&mut self, at: Now, new_boot: bool) {
        for (index, check) in self.checks.iter_mut().enumerate() {
            let id = CheckId(u32::try_from(index).unwrap_or(u32::MAX));
            let counted = self.incidents.values().any(|incident| incident.checks.contains(&id));
            // Down without an incident cannot be, and would never open one: whatever led to it, it is asked anew.
            if matches!(check.health, Health::Suspect { .. }) || (check.health.is_down() && !counted) {
                (check.health, check.since, check.first_sign) = (Health::Unknown, at, Duration::ZERO);
            }
        }
        if new_boot {
            for service in &mut self.services {
                (service.given_up, service.not_before) = (None, Duration::ZERO);
            }
        }
    }
}
