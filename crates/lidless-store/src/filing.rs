//! In what form is a record kept, and under which kind and service is it filed?
//!
//! The body is the record's JSON. Kind and service are derived from it, so that "all incidents" and "everything about
//! this service" are index reads. Most events name a check, an incident or a run rather than a service; [`Filing`]
//! remembers whose those are.

use std::collections::BTreeMap;
use std::path::Path;

use lidless_core::event::{Event, Notice, Record};
use lidless_core::id::{CheckId, IncidentId, NoticeId, RunId, ServiceId};

use crate::JournalError;

/// How many incidents, runs and notices are remembered each, of those that are not over; others are looked up in the journal.
pub(crate) const REMEMBERED_MAX: usize = 16_384;

/// Returns the word by which an event is filed and filtered; it is the `event` field of its JSON.
pub fn kind(event: &Event) -> &'static str {
    match event {
        Event::Started { .. } => "started",
        Event::Stopped { .. } => "stopped",
        Event::Marked => "marked",
        Event::ConfigApplied { .. } => "config_applied",
        Event::HealthChanged { .. } => "health_changed",
        Event::IncidentOpened { .. } => "incident_opened",
        Event::IncidentMerged { .. } => "incident_merged",
        Event::IncidentClosed { .. } => "incident_closed",
        Event::HealHeld { .. } => "heal_held",
        Event::BackedOff { .. } => "backed_off",
        Event::GaveUp { .. } => "gave_up",
        Event::RunCreated { .. } => "run_created",
        Event::StepIntent { .. } => "step_intent",
        Event::StepHandle { .. } => "step_handle",
        Event::StepOutcome { .. } => "step_outcome",
        Event::StepConfirmed { .. } => "step_confirmed",
        Event::StepRetry { .. } => "step_retry",
        Event::StepLeftToVerify { .. } => "step_left_to_verify",
        Event::StepHeld { .. } => "step_held",
        Event::StepStuck { .. } => "step_stuck",
        Event::StepFailed { .. } => "step_failed",
        Event::StepSkipped { .. } => "step_skipped",
        Event::StepAwaits { .. } => "step_awaits",
        Event::StepApproved { .. } => "step_approved",
        Event::StepResolved { .. } => "step_resolved",
        Event::CancelAsked { .. } => "cancel_asked",
        Event::RunTurned { .. } => "run_turned",
        Event::RunResumed { .. } => "run_resumed",
        Event::TriggerMissed { .. } => "trigger_missed",
        Event::RunFinished { .. } => "run_finished",
        Event::NoticeOwed { .. } => "notice_owed",
        Event::NoticeDelivered { .. } => "notice_delivered",
        Event::NoticeFailed { .. } => "notice_failed",
        Event::Intervention { .. } => "intervention",
        Event::StoreDegraded { .. } => "store_degraded",
        Event::StoreRecovered => "store_recovered",
    }
}

/// Writes the form that is kept.
pub(crate) fn encode(path: &Path, record: &Record) -> Result<String, JournalError> {
    serde_json::to_string(record).map_err(|source| JournalError::Encode {
        path: path.to_owned(),
        seq: record.seq,
        source,
    })
}

/// What a service is found by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Subject {
    /// Through the record that opened it.
    Incident(IncidentId),
    /// Through the record that created it.
    Run(RunId),
    /// Through the record that owes it.
    Notice(NoticeId),
}

impl Subject {
    /// Returns the kind of the record that introduced the subject, the field that names it there, and its number.
    pub(crate) fn introduced_by(self) -> (&'static str, &'static str, u64) {
        match self {
            Subject::Incident(id) => ("incident_opened", "$.incident", id.0),
            Subject::Run(id) => ("run_created", "$.run", id.0),
            Subject::Notice(id) => ("notice_owed", "$.notice", id.0),
        }
    }
}

/// Whose checks, incidents, runs and notices are these?
#[derive(Debug, Default)]
pub(crate) struct Filing {
    checks: BTreeMap<CheckId, ServiceId>,
    subjects: [BTreeMap<u64, Option<ServiceId>>; 3],
    /// Whether what the journal introduced last is among them.
    warm: [bool; 3],
}

impl Filing {
    /// Returns the service that an event is about, and remembers what the event introduces.
    ///
    /// `look_up` is asked for a subject that was introduced before this process began, or long ago.
    pub(crate) fn service_of<E>(
        &mut self,
        event: &Event,
        look_up: impl FnOnce(Subject) -> Result<Option<ServiceId>, E>,
    ) -> Result<Option<ServiceId>, E> {
        let subject = match event {
            Event::Started { .. }
            | Event::Stopped { .. }
            | Event::Marked
            | Event::TriggerMissed { .. }
            | Event::StoreDegraded { .. }
            | Event::StoreRecovered => return Ok(None),
            Event::ConfigApplied { services, checks, .. } => {
                self.configure(services, checks);
                return Ok(None);
            }
            Event::HealthChanged { check, .. } => return Ok(self.checks.get(check).copied()),
            Event::Intervention { service, .. } => return Ok(Some(*service)),
            Event::IncidentOpened { incident, service, .. } => {
                return Ok(self.remember(Subject::Incident(*incident), Some(*service)));
            }
            Event::RunCreated { run, purpose, .. } => {
                return Ok(self.remember(Subject::Run(*run), purpose.service()));
            }
            Event::NoticeOwed { notice, what } => {
                let service = match what {
                    Notice::GaveUp { service, .. }
                    | Notice::WillNotHeal { service, .. }
                    | Notice::ActuatorUnavailable { service, .. }
                    | Notice::Resolved { service, .. } => Some(*service),
                    Notice::RunHeld { run, .. } | Notice::ApprovalAsked { run, .. } => {
                        self.find(Subject::Run(*run), look_up)?
                    }
                    Notice::StoreDegraded { .. } => None,
                };
                return Ok(self.remember(Subject::Notice(*notice), service));
            }
            Event::IncidentMerged { incident, .. }
            | Event::IncidentClosed { incident, .. }
            | Event::HealHeld { incident, .. }
            | Event::BackedOff { incident, .. }
            | Event::GaveUp { incident, .. } => Subject::Incident(*incident),
            Event::StepIntent { run, .. }
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
            | Event::RunFinished { run, .. } => Subject::Run(*run),
            Event::NoticeDelivered { notice } | Event::NoticeFailed { notice, .. } => {
                Subject::Notice(*notice)
            }
        };
        let service = self.find(subject, look_up)?;
        if matches!(event, Event::RunFinished { .. }) {
            // There is no end to runs, and hardly anything more to come about one that is over.
            let (shelf, number) = shelf_of(subject);
            self.subjects[shelf].remove(&number);
        }
        Ok(service)
    }

    /// Says that nothing is known of what an event is about, nor of others like it: after a start they are better read at once,
    /// for a thousand runs may go on.
    pub(crate) fn is_cold(&self, event: &Event) -> Option<Subject> {
        let subject = subject_of(event)?;
        let (shelf, number) = shelf_of(subject);
        (!self.warm[shelf] && !self.subjects[shelf].contains_key(&number)).then_some(subject)
    }

    /// Takes over whose those are that the journal introduced last, of one kind.
    pub(crate) fn warm(&mut self, kind: Subject, known: Vec<(u64, Option<ServiceId>)>) {
        let (shelf, _) = shelf_of(kind);
        self.warm[shelf] = true;
        for (number, service) in known {
            self.subjects[shelf].entry(number).or_insert(service);
        }
    }

    /// Takes over whose checks are whose from a configuration.
    pub(crate) fn configure(&mut self, services: &[ServiceId], checks: &[Vec<CheckId>]) {
        self.checks = services
            .iter()
            .zip(checks)
            .flat_map(|(service, checks)| checks.iter().map(|check| (*check, *service)))
            .collect();
    }

    fn find<E>(
        &mut self,
        subject: Subject,
        look_up: impl FnOnce(Subject) -> Result<Option<ServiceId>, E>,
    ) -> Result<Option<ServiceId>, E> {
        let (shelf, number) = shelf_of(subject);
        if let Some(service) = self.subjects[shelf].get(&number) {
            return Ok(*service);
        }
        let service = look_up(subject)?;
        Ok(self.remember(subject, service))
    }

    fn remember(&mut self, subject: Subject, service: Option<ServiceId>) -> Option<ServiceId> {
        let (shelf, number) = shelf_of(subject);
        let shelf = &mut self.subjects[shelf];
        shelf.insert(number, service);
        if shelf.len() > REMEMBERED_MAX {
            shelf.pop_first();
        }
        service
    }
}

/// What an event is about that another one has introduced.
fn subject_of(event: &Event) -> Option<Subject> {
    if let Event::IncidentMerged { incident, .. }
    | Event::IncidentClosed { incident, .. }
    | Event::HealHeld { incident, .. }
    | Event::BackedOff { incident, .. }
    | Event::GaveUp { incident, .. } = event
    {
        return Some(Subject::Incident(*incident));
    }
    if let Event::NoticeDelivered { notice } | Event::NoticeFailed { notice, .. } = event {
        return Some(Subject::Notice(*notice));
    }
    event.run().filter(|_| !matches!(event, Event::RunCreated { .. })).map(Subject::Run)
}

fn shelf_of(subject: Subject) -> (usize, u64) {
    match subject {
        Subject::Incident(id) => (0, id.0),
        Subject::Run(id) => (1, id.0),
        Subject::Notice(id) => (2, id.0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const KINDS: [&str; 25] = [
        "started",
        "stopped",
        "marked",
        "config_applied",
        "health_changed",
        "incident_opened",
        "incident_merged",
        "incident_closed",
        "heal_held",
        "backed_off",
        "gave_up",
        "run_created",
        "step_intent",
        "step_outcome",
        "step_confirmed",
        "step_retry",
        "step_left_to_verify",
        "step_held",
        "run_finished",
        "notice_owed",
        "notice_delivered",
        "notice_failed",
        "intervention",
        "store_degraded",
        "store_recovered",
    ];

    /// Every field that any event has; those of other events are passed over.
    fn event(kind: &str) -> Event {
        let text = r#"{"boot":"b","version":"v","why":"w","spec":{"site":"","services":[]},"services":[1,2],
            "checks":[[10],[20]],"check":20,"from":HEALTH,"to":HEALTH,"incident":5,"service":1,"first_sign_us":0,
            "failure":{"kind":"refused","detail":""},"verified_by":null,"healed_by":null,
            "because":{"why":"host_budget_spent"},"until_us":0,"attempts":1,"retry_at_us":0,"run":7,
            "purpose":{"for":"heal","service":1,"incident":5},"plan":{"steps":[]},"step":0,"attempt":1,"deadline_us":0,
            "outcome":{"is":"applied","output":""},"answer":{"is":"applied","evidence":""},"not_before_us":0,
            "reason":"r","verdict":{"is":"done"},"notice":9,"what":WHAT,"by":"me"}"#;
        let health = serde_json::to_string(&lidless_core::health::Health::Up).unwrap();
        let what = if kind == "notice_owed" {
            r#"{"notice":"resolved","incident":5,"service":1}"#
        } else {
            r#""x""#
        };
        let mut value: serde_json::Value =
            serde_json::from_str(&text.replace("HEALTH", &health).replace("WHAT", what)).unwrap();
        value["event"] = kind.into();
        if kind == "run_created" {
            // The step at which it begins, not a verdict.
            value["from"] = serde_json::Value::Null;
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_kind_is_the_event_field_of_the_json() {
        for name in KINDS {
            assert_eq!(kind(&event(name)), name);
        }
    }

    #[test]
    fn every_event_about_something_is_filed_under_its_service() {
        let mut filing = Filing::default();
        let mut unfiled = Vec::new();
        for name in KINDS {
            let service = filing.service_of(&event(name), Err).unwrap();
            match service {
                None => unfiled.push(name),
                // The check is the second service's, everything else is about the first.
                Some(service) => {
                    assert_eq!(service.0, if name == "health_changed" { 2 } else { 1 }, "{name}")
                }
            }
        }
        assert_eq!(
            unfiled,
            ["started", "stopped", "marked", "config_applied", "store_degraded", "store_recovered"]
        );
    }

    #[test]
    fn what_was_introduced_long_ago_is_looked_up_once() {
        let mut filing = Filing::default();
        let mut asked = Vec::new();
        for name in ["heal_held", "gave_up", "step_intent", "run_finished", "notice_failed"] {
            let service = filing.service_of(&event(name), |subject| {
                asked.push(subject);
                Ok::<_, ()>(Some(ServiceId(3)))
            });
            assert_eq!(service, Ok(Some(ServiceId(3))), "{name}");
        }
        let once = [Subject::Incident(IncidentId(5)), Subject::Run(RunId(7)), Subject::Notice(NoticeId(9))];
        assert_eq!(asked, once);
    }
}
