//! What does an event say to people? One line each, with names in place of ids.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use lidless_core::event::{Because, Confirmation, Event, Outcome, Record, Verdict};
use lidless_core::health::Health;
use lidless_core::id::{CheckId, IncidentId, RunId, ServiceId};
use lidless_core::pipeline::plan::{Plan, Purpose};
use lidless_core::state::{ENDED_MAX, State};
pub use lidless_core::time::span;

/// More characters than this of what a step put out are in the journal only.
const OUTPUT_MAX: usize = 200;

/// Names for the ids in records, learnt from the records themselves.
#[derive(Clone, Debug, Default)]
pub struct Names {
    services: Vec<String>,
    checks: Vec<(ServiceId, String)>,
    incidents: BTreeMap<IncidentId, ServiceId>,
    runs: BTreeMap<RunId, (Option<ServiceId>, Arc<Plan>)>,
    /// Those that may be resumed, oldest first.
    failed: VecDeque<RunId>,
}

/// A record in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// The record.
    pub record: Record,
    /// The service that it is about.
    pub service: Option<String>,
    /// The check that it is about.
    pub check: Option<String>,
    /// One line for people.
    pub text: String,
}

impl Names {
    /// Returns the names that a state knows; records after it may be told.
    pub fn of(state: &State) -> Names {
        let incidents = state.incidents.values().map(|incident| (incident.id, incident.service));
        let runs = state.runs.values().chain(state.ended.iter().map(|ended| &ended.run));
        let runs = runs.map(|run| (run.id, (run.purpose.service(), Arc::clone(&run.plan))));
        let failed = state.ended.iter().filter(|ended| matches!(ended.verdict, Verdict::Failed { .. }));
        Names {
            services: state.services.iter().map(|service| service.name.clone()).collect(),
            checks: state.checks.iter().map(|check| (check.service, check.name.clone())).collect(),
            incidents: incidents.collect(),
            runs: runs.collect(),
            failed: failed.map(|ended| ended.run.id).collect(),
        }
    }

    /// Puts the next record into words. Records must come in order.
    pub fn tell(&mut self, record: Record) -> Told {
        self.tell_where(record, true)
    }

    /// As `tell`; without the line where nobody reads it.
    pub fn tell_where(&mut self, record: Record, is_read: bool) -> Told {
        self.learn(&record.event);
        let (service, check) = self.about(&record.event);
        let text = if is_read { self.line(&record.event, record.at.monotonic) } else { String::new() };
        match &record.event {
            // One that failed may be resumed, unless many more have ended since.
            Event::RunFinished { run, verdict: Verdict::Failed { .. } } if service.is_none() => {
                self.failed.push_back(*run);
                if self.failed.len() > ENDED_MAX {
                    let oldest = self.failed.pop_front();
                    oldest.map(|run| self.runs.remove(&run));
                }
            }
            Event::RunResumed { run, .. } => self.failed.retain(|failed| failed != run),
            Event::RunFinished { run, .. } => drop(self.runs.remove(run)),
            Event::IncidentClosed { incident, .. } => {
                self.incidents.remove(incident);
            }
            _ => {}
        }
        Told {
            service: service.map(|id| self.service(id).to_owned()),
            check: check.map(|id| self.check(id).to_owned()),
            record,
            text,
        }
    }

    fn learn(&mut self, event: &Event) {
        match event {
            Event::ConfigApplied { spec, services, checks } => {
                for ((service, id), check_ids) in spec.services.iter().zip(services).zip(checks) {
                    put(&mut self.services, id.index(), service.name.clone());
                    for (check, check_id) in service.checks.iter().zip(check_ids) {
                        put(&mut self.checks, check_id.index(), (*id, check.name.clone()));
                    }
                }
            }
            Event::IncidentOpened { incident, service, .. } => {
                self.incidents.insert(*incident, *service);
            }
            Event::RunCreated { run, purpose, plan, .. } => {
                self.runs.insert(*run, (purpose.service(), Arc::clone(plan)));
            }
            _ => {}
        }
    }

    fn about(&self, event: &Event) -> (Option<ServiceId>, Option<CheckId>) {
        let of_check = |id: &CheckId| (self.checks.get(id.index()).map(|(service, _)| *service), Some(*id));
        let of_run = |id: &RunId| (self.runs.get(id).and_then(|(service, _)| *service), None);
        match event {
            Event::HealthChanged { check, .. }
            | Event::IncidentOpened { check, .. }
            | Event::IncidentMerged { check, .. } => of_check(check),
            Event::IncidentClosed { incident, .. }
            | Event::HealHeld { incident, .. }
            | Event::BackedOff { incident, .. }
            | Event::GaveUp { incident, .. } => (self.incidents.get(incident).copied(), None),
            Event::RunCreated { run, .. }
            | Event::StepIntent { run, .. }
            | Event::StepHandle { run, .. }
            | Event::StepStuck { run, .. }
            | Event::StepFailed { run, .. }
            | Event::StepSkipped { run, .. }
            | Event::StepAwaits { run, .. }
            | Event::StepApproved { run, .. }
            | Event::RunTurned { run, .. }
            | Event::StepOutcome { run, .. }
            | Event::StepConfirmed { run, .. }
            | Event::StepRetry { run, .. }
            | Event::StepLeftToVerify { run, .. }
            | Event::StepHeld { run, .. }
            | Event::StepResolved { run, .. }
            | Event::CancelAsked { run, .. }
            | Event::RunResumed { run, .. }
            | Event::RunFinished { run, .. } => of_run(run),
            Event::Intervention { service, .. } => (Some(*service), None),
            Event::NoticeOwed { what, .. } => {
                (what.incident().and_then(|incident| self.incidents.get(&incident).copied()), None)
            }
            Event::Started { .. }
            | Event::Stopped { .. }
            | Event::Marked
            | Event::ConfigApplied { .. }
            | Event::TriggerMissed { .. }
            | Event::NoticeDelivered { .. }
            | Event::NoticeFailed { .. }
            | Event::StoreDegraded { .. }
            | Event::StoreRecovered => (None, None),
        }
    }

    fn service(&self, id: ServiceId) -> &str {
        self.services.get(id.index()).map_or("?", String::as_str)
    }

    fn check(&self, id: CheckId) -> &str {
        self.checks.get(id.index()).map_or("?", |(_, name)| name.as_str())
    }

    fn step(&self, run: RunId, step: u32) -> &str {
        let step = self.runs.get(&run).and_then(|(_, plan)| plan.step(step));
        step.map_or("?", |step| step.name.as_str())
    }

    /// Returns the line. Engine times in it are told as waits from `now`, the record's own time.
    fn line(&self, event: &Event, now: Duration) -> String {
        match event {
            Event::Started { version, .. } => format!("lidless {version} started"),
            Event::Stopped { why } => format!("lidless stopped: {why}"),
            Event::Marked => "still watching".to_owned(),
            Event::ConfigApplied { spec, .. } => {
                let checks: usize = spec.services.iter().map(|service| service.checks.len()).sum();
                format!("configuration in force: {} services, {checks} checks", spec.services.len())
            }
            Event::HealthChanged { to, failure, reason, .. } => {
                let why = failure.as_ref().map(|failure| &failure.detail).or(reason.as_ref());
                let count = match to {
                    Health::Suspect { fails } => format!(" ({fails})"),
                    Health::Recovering { passes } => format!(" ({passes})"),
                    Health::Unknown | Health::Up | Health::Down => String::new(),
                };
                let why = why.map_or_else(String::new, |why| format!(": {why}"));
                format!("{}{count}{why}", to.word())
            }
            Event::IncidentOpened { incident, failure, .. } => {
                format!("{incident} opened: {}", failure.detail)
            }
            Event::IncidentMerged { incident, failure, .. } => {
                format!("{incident} joined: {}", failure.detail)
            }
            Event::IncidentClosed { incident, healed_by: Some(run), .. } => {
                format!("{incident} closed, healed by {run}")
            }
            Event::IncidentClosed { incident, healed_by: None, .. } => {
                format!("{incident} closed, recovered by itself")
            }
            Event::HealHeld { because, .. } => {
                format!("heal held: {}", because_text(because, |id| self.service(id).to_owned()))
            }
            Event::BackedOff { until, .. } => {
                format!("next heal not before {}", span(until.saturating_sub(now)))
            }
            Event::GaveUp { attempts, retry_at, .. } => {
                format!("gave up after {attempts} heals; next try in {}", span(retry_at.saturating_sub(now)))
            }
            Event::RunCreated { run, purpose, plan, .. } => {
                let steps: Vec<_> = plan.forward().iter().map(|step| step.name.as_str()).collect();
                format!("{run} {}: {}", purpose_text(purpose), steps.join(" → "))
            }
            Event::StepIntent { run, step, .. } => format!("→ {}", self.step(*run, *step)),
            Event::StepOutcome { outcome, .. } => outcome_text(outcome),
            Event::StepConfirmed { answer, .. } => match answer {
                Confirmation::Applied { evidence, .. } => format!("looked it up: done ({evidence})"),
                Confirmation::NotApplied { evidence } => format!("looked it up: not done ({evidence})"),
                Confirmation::Failed { reason, .. } => format!("looked it up: failed ({reason})"),
                Confirmation::StillUnknown { reason, .. } => {
                    format!("looked it up: still unknown ({reason})")
                }
            },
            Event::StepRetry { not_before, .. } => {
                format!("again in {}", span(not_before.saturating_sub(now)))
            }
            Event::StepLeftToVerify { .. } => "outcome unknown: the checks will tell".to_owned(),
            Event::StepHandle { step, run, handle, .. } => {
                format!("{} is about to let out {}", self.step(*run, *step), short(handle))
            }
            Event::StepHeld { reason, .. } => format!("waits for a person: {reason}"),
            Event::StepStuck { run, step, reason } => {
                format!("{} is stuck and waits for a person: {reason}", self.step(*run, *step))
            }
            Event::StepFailed { run, step, reason } => {
                format!("{} given up: {reason}", self.step(*run, *step))
            }
            Event::StepSkipped { run, step, reason } => {
                format!("{} skipped: {reason}", self.step(*run, *step))
            }
            Event::StepAwaits { run, step, until } => {
                let left = span(until.saturating_sub(now));
                format!("{} waits {left} for a person's yes", self.step(*run, *step))
            }
            Event::StepApproved { run, step, by } => format!("{by} approved {}", self.step(*run, *step)),
            Event::RunTurned { run, undo: true, .. } => format!("{run} is undone"),
            Event::RunTurned { run, undo: false, .. } => {
                format!("{run} begins no further step; what is under way is settled first")
            }
            Event::TriggerMissed { pipeline, count, why, .. } => {
                let times = if *count == 1 { "a run".to_owned() } else { format!("{count} runs") };
                format!("{times} of {pipeline} missed: {why}")
            }
            Event::StepResolved { applied: true, evidence, by, .. } => {
                format!("{by}: it was done ({evidence})")
            }
            Event::StepResolved { applied: false, evidence, by, .. } => {
                format!("{by}: it was not done ({evidence})")
            }
            Event::CancelAsked { run, by } => format!("{by} cancels {run}"),
            Event::RunResumed { run, by } => format!("{run} goes on, asked for by {by}"),
            Event::RunFinished { run, verdict: Verdict::Cancelled { name, .. } } => {
                format!("{run} cancelled before {name}")
            }
            Event::RunFinished { run, verdict: Verdict::Done } => format!("{run} done"),
            Event::RunFinished { run, verdict: Verdict::Undone { name, reason, .. } } => {
                format!("{run} undone after {name} failed: {reason}")
            }
            Event::RunFinished { run, verdict: Verdict::Failed { name, reason, .. } } => {
                format!("{run} failed at {name}: {reason}")
            }
            Event::NoticeOwed { notice, .. } => format!("{notice} owed"),
            Event::NoticeDelivered { notice } => format!("{notice} delivered"),
            Event::NoticeFailed { notice, reason, .. } => format!("{notice} not delivered: {reason}"),
            Event::Intervention { by, what, .. } => format!("{by}: {what}"),
            Event::StoreDegraded { reason } => format!("journal cannot be written: {reason}"),
            Event::StoreRecovered => "journal written again, nothing lost".to_owned(),
        }
    }
}

/// Says in words what became of an attempt.
pub fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Applied { output } | Outcome::Found { output } => output_text(output),
        Outcome::NotApplied { reason } | Outcome::Refused { reason } => format!("failed: {reason}"),
        Outcome::Unavailable { reason } => format!("could not be tried: {reason}"),
        Outcome::Missing { reason } => format!("parked: {reason}"),
        Outcome::Unknown { reason } => format!("outcome unknown: {reason}"),
    }
}

/// Says in one line what a step put out: a JSON object as its values by name, a text as it is.
pub fn output_text(output: &str) -> String {
    let object = match serde_json::from_str(output) {
        Ok(serde_json::Value::Object(object)) => object,
        Ok(serde_json::Value::String(text)) => return text,
        Ok(serde_json::Value::Null) => return "done".to_owned(),
        _ => return output.to_owned(),
    };
    let value = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let text = match object.get("text") {
        Some(text) if object.len() == 1 => value(text),
        _ if object.is_empty() => "done".to_owned(),
        _ => object.iter().map(|(name, of)| format!("{name}={}", value(of))).collect::<Vec<_>>().join(" "),
    };
    if text.chars().count() > OUTPUT_MAX {
        text.chars().take(OUTPUT_MAX).chain(['…']).collect()
    } else {
        text
    }
}

/// Says in words why a heal is not done.
pub fn because_text(because: &Because, name: impl Fn(ServiceId) -> String) -> String {
    match because {
        Because::DependencyDown { service } => {
            format!("{}, which it depends on, has an incident", name(*service))
        }
        Because::HostBudgetSpent => "the host's budget of heals is spent".to_owned(),
        Because::NoHeal => "its configuration names no heal".to_owned(),
        Because::ExitCode { code } => {
            format!("it ended with exit code {code}, which means: do not restart me")
        }
    }
}

fn purpose_text(purpose: &Purpose) -> String {
    match purpose {
        Purpose::BringUp { .. } => "brings up".to_owned(),
        Purpose::Heal { incident, .. } => format!("heals {incident}"),
        Purpose::Manual { by, .. } => format!("asked for by {by}"),
        Purpose::Pipeline { name, by } => format!("of pipeline {name}, asked for by {by}"),
        Purpose::Step { of, .. } => format!("acts for a step of {of}"),
    }
}

/// The beginning of what may be long.
fn short(text: &str) -> String {
    let start: String = text.chars().take(24).collect();
    if start.len() < text.len() { format!("{start}…") } else { start }
}

fn put<T: Default>(table: &mut Vec<T>, index: usize, value: T) {
    if index >= table.len() {
        table.resize_with(index + 1, T::default);
    }
    table[index] = value;
}
