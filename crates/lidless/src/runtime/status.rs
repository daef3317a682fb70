//! How do things stand? One document for screens and scripts, read off the engine in one go.

use std::time::Duration;

use lidless_core::id::ServiceId;
use lidless_core::incident::{ClosedIncident, Incident};
use lidless_core::spec::ServiceSpec;
use lidless_core::state::ServiceState;
use lidless_core::time::Now;
use lidless_drivers::process::Orphan;
use serde::{Deserialize, Serialize};

use super::handle::View;
use crate::words;

/// The schema of `Status`.
pub const STATUS_SCHEMA: &str = "lidless/status/1";
/// The schema of `Incidents`.
pub const INCIDENTS_SCHEMA: &str = "lidless/incidents/1";

/// How everything stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The form of this document.
    pub schema: String,
    /// The installation.
    pub site: String,
    /// The version of the daemon.
    pub version: String,
    /// When the daemon started, RFC 3339.
    pub started: String,
    /// Probes ended since then.
    pub probes: u64,
    /// In the configuration's order.
    pub services: Vec<ServiceStatus>,
    /// Why the journal cannot be written, while it cannot.
    pub degraded: Option<String>,
    /// Messages that nobody has taken yet.
    pub owed: usize,
    /// The last durable record.
    pub seq: u64,
    /// Processes that run on though no configured service is theirs.
    #[serde(default)]
    pub orphans: Vec<OrphanStatus>,
}

/// A process without a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OrphanStatus {
    /// The name that its service had.
    pub service: String,
    /// Its pid.
    pub pid: i32,
    /// What it runs.
    pub command: String,
}

/// How one service stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// "up", "suspect", "down", "recovering" or "unknown".
    pub health: String,
    /// Milliseconds since the verdict changed last.
    pub since_ms: u64,
    /// Its checks.
    pub checks: Vec<CheckStatus>,
    /// Its open incident.
    pub incident: Option<IncidentStatus>,
    /// The run that acts on it: "heals inc-7, at VERIFY".
    pub run: Option<String>,
    /// How many heals are left in the window, if it is healed at all.
    pub heals_left: Option<HealsLeft>,
    /// The services that it needs.
    pub depends_on: Vec<String>,
}

/// What is left of a restart budget.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct HealsLeft {
    /// So many.
    pub left: u32,
    /// Of so many.
    pub attempts: u32,
    /// In a window of so many seconds.
    pub per_s: u64,
}

/// How one check stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckStatus {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// What it asks.
    pub asks: String,
    /// The verdict.
    pub health: String,
    /// How long the last answer took.
    pub latency_us: Option<u64>,
    /// What is wrong, while something is.
    pub failure: Option<String>,
}

/// An incident.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IncidentStatus {
    /// "inc-7".
    pub id: String,
    /// Whose.
    pub service: String,
    /// When it was opened, RFC 3339.
    pub opened: String,
    /// When it was closed, RFC 3339.
    pub closed: Option<String>,
    /// From the first sign to the end, or until now.
    pub lasted_ms: u64,
    /// What opened it.
    pub failure: String,
    /// Heals begun for it.
    pub heals: u32,
    /// "healed by run-9", "recovered by itself", "heal held: ...", "gave up, next try in 41 min", "open".
    pub outcome: String,
}

/// Incidents, open ones first, then the last closed, newest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Incidents {
    /// The form of this document.
    pub schema: String,
    /// All of them.
    pub incidents: Vec<IncidentStatus>,
}

/// Reads the status off.
pub fn status(view: &View<'_>) -> Status {
    let state = view.engine.state();
    Status {
        schema: STATUS_SCHEMA.to_owned(),
        site: state.spec.site.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: rfc3339(state.started.wall_ms),
        probes: view.probes,
        services: state.configured().map(|(id, service, spec)| of_service(view, id, service, spec)).collect(),
        degraded: state.degraded.clone(),
        owed: state.outbox.len(),
        seq: view.durable.0,
        orphans: view.orphans.iter().filter(|orphan| orphan.is_there()).map(of_orphan).collect(),
    }
}

fn of_orphan(orphan: &Orphan) -> OrphanStatus {
    OrphanStatus { service: orphan.service.clone(), pid: orphan.pid, command: orphan.command.clone() }
}

/// Reads the incidents off.
pub fn incidents(view: &View<'_>) -> Incidents {
    let state = view.engine.state();
    let open = state.incidents.values().rev().map(|incident| open_incident(view, incident));
    let closed = state.closed.iter().rev().map(|closed| closed_incident(view, closed));
    Incidents { schema: INCIDENTS_SCHEMA.to_owned(), incidents: open.chain(closed).collect() }
}

/// Writes a wall time as RFC 3339 in UTC.
pub fn rfc3339(wall_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(wall_ms).map_or_else(|_| wall_ms.to_string(), |time| time.to_string())
}

fn of_service(view: &View<'_>, id: ServiceId, service: &ServiceState, spec: &ServiceSpec) -> ServiceStatus {
    let state = view.engine.state();
    let health = state.service_health(id);
    let since = service.checks.iter().map(|check| state.checks[check.index()].since.monotonic);
    let now = view.now.monotonic;
    let run = state.run_of(id).map(|run| {
        let step = run.focus_spec().map_or("its end", |step| step.name.as_str());
        format!("{} at {step}", run.id)
    });
    let heals_left = spec.heal.as_ref().map(|heal| HealsLeft {
        left: heal.budget.attempts.saturating_sub(service.heals.within(now, heal.budget.per)),
        attempts: heal.budget.attempts,
        per_s: heal.budget.per.as_secs(),
    });
    let checks = service.checks.iter().zip(&spec.checks).map(|(check, spec)| {
        let seen = view.engine.observed(*check).filter(|seen| !seen.at.is_zero());
        CheckStatus {
            name: spec.name.clone(),
            kind: spec.kind.clone(),
            asks: spec.asks.clone(),
            health: state.checks[check.index()].health.word().to_owned(),
            latency_us: seen
                .map(|seen| u64::try_from(seen.latency.as_micros()).unwrap_or(u64::MAX))
                .filter(|latency| *latency > 0),
            failure: seen.and_then(|seen| match (&seen.reason, &seen.failure) {
                (Some(reason), _) => Some(format!("could not ask: {reason}")),
                (None, failure) => failure.as_ref().map(|failure| failure.detail.clone()),
            }),
        }
    });
    ServiceStatus {
        name: spec.name.clone(),
        health: health.word().to_owned(),
        since_ms: millis(now.saturating_sub(since.max().unwrap_or_default())),
        checks: checks.collect(),
        incident: state.incident_of(id).map(|incident| open_incident(view, incident)),
        run,
        heals_left,
        depends_on: spec.depends_on.clone(),
    }
}

fn open_incident(view: &View<'_>, incident: &Incident) -> IncidentStatus {
    let state = view.engine.state();
    let service = &state.services[incident.service.index()];
    let now = view.now.monotonic;
    let name = |id: ServiceId| state.services[id.index()].name.clone();
    let outcome = match (&incident.held, service.given_up, service.run) {
        (_, _, Some(run)) => format!("{run} is under way"),
        (Some(because), _, None) => format!("heal held: {}", words::because_text(because, name)),
        (None, Some(at), None) => format!("gave up; next try in {}", words::span(at.saturating_sub(now))),
        (None, None, None) if service.not_before > now => {
            format!("next heal in {}", words::span(service.not_before.saturating_sub(now)))
        }
        (None, None, None) => "open".to_owned(),
    };
    of_incident(view, incident, None, now, outcome)
}

fn closed_incident(view: &View<'_>, closed: &ClosedIncident) -> IncidentStatus {
    let outcome = match closed.healed_by {
        Some(run) => format!("healed by {run}"),
        None => "recovered by itself".to_owned(),
    };
    of_incident(view, &closed.incident, Some(closed.closed), closed.closed.monotonic, outcome)
}

fn of_incident(
    view: &View<'_>,
    incident: &Incident,
    closed: Option<Now>,
    until: Duration,
    outcome: String,
) -> IncidentStatus {
    IncidentStatus {
        id: incident.id.to_string(),
        service: view.engine.state().services[incident.service.index()].name.clone(),
        opened: rfc3339(incident.opened.wall_ms),
        closed: closed.map(|closed| rfc3339(closed.wall_ms)),
        lasted_ms: millis(until.saturating_sub(incident.first_sign)),
        failure: incident.failure.detail.clone(),
        heals: incident.heals,
        outcome,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
