//! What do logs and metrics say? Both come from the journal's records, so that a counter and the ledger cannot disagree.

use std::collections::BTreeMap;

use lidless_core::event::{Event, Verdict};
use lidless_core::health::Health;
use lidless_core::pipeline::plan::Purpose;
use lidless_core::state::State;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tracing::Level;

use crate::runtime::View;
use crate::words::Told;

/// Whether anybody reads the line that `log` writes of an event. To put it into words is not free.
pub fn is_read(event: &Event) -> bool {
    match event {
        Event::GaveUp { .. } | Event::StepHeld { .. } | Event::StoreDegraded { .. } => {
            tracing::enabled!(Level::ERROR)
        }
        Event::IncidentOpened { .. } | Event::HealHeld { .. } | Event::NoticeFailed { .. } => {
            tracing::enabled!(Level::WARN)
        }
        Event::Marked => tracing::enabled!(Level::DEBUG),
        _ => tracing::enabled!(Level::INFO),
    }
}

/// Writes a record to the log.
pub fn log(told: &Told) {
    let (seq, text) = (told.record.seq.0, told.text.as_str());
    let service = told.service.as_deref().unwrap_or("");
    let check = told.check.as_deref().unwrap_or("");
    match &told.record.event {
        Event::GaveUp { .. } | Event::StepHeld { .. } | Event::StoreDegraded { .. } => {
            tracing::error!(seq, service, text, "A person should look.");
        }
        Event::IncidentOpened { .. } | Event::HealHeld { .. } | Event::NoticeFailed { .. } => {
            tracing::warn!(seq, service, check, text, "Event.");
        }
        Event::HealthChanged { .. } => tracing::info!(seq, service, check, text, "Health changed."),
        Event::Marked => tracing::debug!(seq, text, "Event."),
        _ => tracing::info!(seq, service, text, "Event."),
    }
}

/// What the records since the start add up to.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    incidents: BTreeMap<String, u64>,
    /// By service and whether the heal was verified.
    heals: BTreeMap<(String, bool), u64>,
    interventions: BTreeMap<String, u64>,
    /// Runs that are heals, so that their end can be counted.
    healing: BTreeMap<u64, String>,
    records: u64,
}

impl Counters {
    /// Begins with nothing counted. A heal that is under way already counts when it ends.
    pub fn begin(state: &State) -> Counters {
        let heals = state.runs.values().filter_map(|run| match &run.purpose {
            Purpose::Heal { service, .. } => {
                Some((run.id.0, state.services.get(service.index())?.name.clone()))
            }
            Purpose::BringUp { .. }
            | Purpose::Manual { .. }
            | Purpose::Pipeline { .. }
            | Purpose::Step { .. } => None,
        });
        Counters { healing: heals.collect(), ..Counters::default() }
    }

    /// Takes the next record.
    pub fn count(&mut self, told: &Told) {
        self.records += 1;
        let service = || told.service.clone().unwrap_or_default();
        match &told.record.event {
            Event::IncidentOpened { .. } => *self.incidents.entry(service()).or_default() += 1,
            Event::Intervention { .. } => *self.interventions.entry(service()).or_default() += 1,
            Event::RunCreated { run, purpose: Purpose::Heal { .. }, .. } => {
                self.healing.insert(run.0, service());
            }
            Event::RunFinished { run, verdict } => {
                if let Some(service) = self.healing.remove(&run.0) {
                    *self.heals.entry((service, *verdict == Verdict::Done)).or_default() += 1;
                }
            }
            _ => {}
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfService {
    service: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfCheck {
    service: String,
    check: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfHeal {
    service: String,
    verified: &'static str,
}

/// Returns the metrics as OpenMetrics text.
pub fn open_metrics(view: &View<'_>) -> String {
    let mut registry = Registry::with_prefix("lidless");
    let up = Family::<OfCheck, Gauge>::default();
    let latency = Family::<OfCheck, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
    let open = Family::<OfService, Gauge>::default();
    let state = view.engine.state();
    for (id, service, spec) in state.configured() {
        let name = &service.name;
        open.get_or_create(&OfService { service: name.clone() })
            .set(i64::from(state.incident_of(id).is_some()));
        for (check, spec) in service.checks.iter().zip(&spec.checks) {
            let labels = OfCheck { service: name.clone(), check: spec.name.clone() };
            match state.checks[check.index()].health {
                // Absent is unknown: a gauge that says 0 would call it down.
                Health::Unknown => {}
                Health::Up | Health::Suspect { .. } => drop(up.get_or_create(&labels).set(1)),
                Health::Down | Health::Recovering { .. } => drop(up.get_or_create(&labels).set(0)),
            }
            if let Some(seen) = view.engine.observed(*check).filter(|seen| !seen.at.is_zero()) {
                latency.get_or_create(&labels).set(seen.latency.as_secs_f64());
            }
        }
    }
    let incidents = Family::<OfService, Counter>::default();
    for (service, count) in &view.counters.incidents {
        incidents.get_or_create(&OfService { service: service.clone() }).inc_by(*count);
    }
    let interventions = Family::<OfService, Counter>::default();
    for (service, count) in &view.counters.interventions {
        interventions.get_or_create(&OfService { service: service.clone() }).inc_by(*count);
    }
    let heals = Family::<OfHeal, Counter>::default();
    for ((service, verified), count) in &view.counters.heals {
        let verified = if *verified { "yes" } else { "no" };
        heals.get_or_create(&OfHeal { service: service.clone(), verified }).inc_by(*count);
    }
    let single = |value: i64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(value);
        gauge
    };
    let counted = |value: u64| {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        counter
    };
    registry.register(
        "check_up",
        "1 while the check is up or only suspect, 0 while it is down; absent while unknown",
        up,
    );
    registry.register_with_unit("check_latency", "How long the last answer took", Unit::Seconds, latency);
    registry.register("incident_open", "1 while the service has an open incident", open);
    registry.register("incidents", "Incidents opened since lidless started", incidents);
    registry.register("heals", "Heals ended since lidless started, by whether they were verified", heals);
    registry.register("interventions", "What people did by hand since lidless started", interventions);
    registry.register("probes", "Probes ended since lidless started", counted(view.probes));
    registry.register(
        "records",
        "Records made durable since lidless started",
        counted(view.counters.records),
    );
    registry.register("outbox_owed", "Messages that nobody has taken yet", single(count(state.outbox.len())));
    registry.register("runs_unfinished", "Runs under way", single(count(state.runs.len())));
    registry.register(
        "journal_degraded",
        "1 while the journal cannot be written",
        single(i64::from(state.degraded.is_some())),
    );
    registry.register(
        "journal_seq",
        "The last durable record",
        single(i64::try_from(view.durable.0).unwrap_or(i64::MAX)),
    );
    let mut text = String::new();
    if let Err(err) = encode(&mut text, &registry) {
        tracing::error!(error = %err, "Metrics not encodable; this is a bug in lidless.");
    }
    text
}

fn count(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use lidless_core::check::{CheckFailure, CheckOutcome, FailureKind};
    use lidless_core::effect::{Effect, Input};
    use lidless_core::engine::Engine;
    use lidless_core::event::Outcome;
    use lidless_core::id::CheckId;
    use lidless_core::spec::{Action, Backoff, Budget, CheckSpec, HealSpec, ServiceSpec, Spec};
    use lidless_core::time::Now;

    use super::*;
    use crate::words::Names;

    fn spec() -> Spec {
        let check = CheckSpec { fail_after: 1, recover_after: 1, ..CheckSpec::default() };
        let heal = HealSpec {
            action: Action::Restart,
            budget: Budget { attempts: 3, per: Duration::from_secs(60) },
            backoff: Backoff { min: Duration::ZERO, max: Duration::ZERO },
            retry_after: Duration::from_secs(60),
            never_on_exit: Vec::new(),
        };
        let service = ServiceSpec {
            name: "app".to_owned(),
            checks: vec![check],
            heal: Some(heal),
            ..ServiceSpec::default()
        };
        Spec { services: vec![service], ..Spec::default() }
    }

    #[test]
    fn a_heal_that_began_before_a_restart_of_lidless_counts_when_it_ends() {
        let mut engine = Engine::new(1);
        let now = Now { monotonic: Duration::from_secs(1), wall_ms: 0 };
        engine.handle(now, Input::Started { boot: "boot".to_owned(), version: "0".to_owned() });
        engine.handle(now, Input::ConfigLoaded(Arc::new(spec())));
        let failure = CheckFailure::new(FailureKind::Refused, "connection refused");
        let outcome = CheckOutcome::Fail { latency: Duration::ZERO, failure };
        let down = engine.handle(now, Input::Probed { check: CheckId(0), began: now.monotonic, outcome });
        let Some(Effect::Perform { run, step, attempt, .. }) = down.effects.first().cloned() else {
            panic!("no heal: {down:?}")
        };
        // Here lidless starts anew, and counts from nothing.
        let mut counters = Counters::begin(engine.state());
        let mut names = Names::of(engine.state());
        let outcome = Outcome::NotApplied { reason: "it does not help".to_owned() };
        for record in engine.handle(now, Input::Performed { run, step, attempt, outcome }).events {
            counters.count(&names.tell(record));
        }
        assert_eq!(counters.heals, BTreeMap::from([(("app".to_owned(), false), 1)]));
    }
}
