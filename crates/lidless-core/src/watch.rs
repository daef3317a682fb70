//! What does an answer mean for a service? From outcome to health to incident, and to the verdict on a heal.

use std::time::Duration;

use crate::check::{CheckFailure, CheckOutcome};
use crate::effect::Effect;
use crate::event::{Event, Notice, Outcome};
use crate::health::{self, Answer, Health, Thresholds};
use crate::id::{CheckId, IncidentId, RunId, ServiceId};
use crate::pipeline::plan::StepCall;
use crate::pipeline::run::Phase;
use crate::pipeline::settle;
use crate::time::whole_micros;
use crate::turning::Turning;

/// How an answer is to be read, given what is being done to the service.
enum Reading {
    /// Nobody acts on it.
    Plain,
    /// An act is under way, or the probe began before the last act was complete: it says nothing.
    Void,
    /// It was asked for, to judge an act.
    Verdict { run: RunId, attempt: u32, step: u32, settled: bool, late: bool },
}

/// Takes one answer. Returns whether the service was found failing in an open incident, so that policy must look at it.
///
/// An answer that changes nothing allocates nothing and records nothing.
pub(crate) fn probed(t: &mut Turning<'_>, id: CheckId, began: Duration, outcome: CheckOutcome) -> bool {
    let Some(spec) = t.state.check_spec(id) else { return false };
    let limits = Thresholds { fail_after: spec.fail_after, recover_after: spec.recover_after };
    let service = t.state.checks[id.index()].service;
    let reading = reading(t, service, began);
    let now = t.now.monotonic;
    let seen = t.observed(id);
    seen.at = now;
    if matches!(reading, Reading::Void) {
        return false;
    }
    let (answer, failure) = match outcome {
        CheckOutcome::Pass { latency } => {
            seen.latency = latency;
            seen.failure = None;
            seen.inconclusive = 0;
            seen.reason = None;
            (Answer::Pass, None)
        }
        CheckOutcome::Fail { latency, mut failure } => {
            failure.latency = whole_micros(failure.latency);
            seen.latency = latency;
            seen.inconclusive = 0;
            seen.reason = None;
            (if failure.certain { Answer::FailCertain } else { Answer::Fail }, Some(failure))
        }
        CheckOutcome::Inconclusive { reason } => {
            seen.inconclusive = seen.inconclusive.saturating_add(1);
            let lost = seen.inconclusive >= limits.fail_after && matches!(reading, Reading::Plain);
            if lost && t.state.checks[id.index()].health != Health::Unknown {
                set_health(t, id, Health::Unknown, None, Some(reason.clone()));
            }
            t.observed(id).reason = Some(reason);
            return false;
        }
    };
    match reading {
        Reading::Void => false,
        Reading::Plain => {
            let found = take(t, service, id, answer, failure.as_ref(), limits);
            t.observed(id).failure = failure;
            found
        }
        Reading::Verdict { run, step, attempt, settled, late } => {
            let was = t.state.checks[id.index()].health;
            let proving = t.scratch.well_since.contains_key(&run);
            // An act shakes the service: until all was well once, failures of what was well don't count, but facts do.
            let counts = match answer {
                Answer::Pass => settled,
                Answer::FailCertain => true,
                Answer::Fail => settled && (was.is_down() || proving),
            };
            let found = counts && take(t, service, id, answer, failure.as_ref(), limits);
            let seen = t.observed(id);
            // What is seen while it settles is no verdict.
            seen.failure = failure.filter(|failure| settled || failure.certain);
            seen.fresh = answer == Answer::Pass && settled;
            if seen.fresh {
                seen.passed = began;
            }
            let outcome = match answer {
                Answer::Pass if settled && all_well(t, service) => {
                    if !has_stayed(t, run, service) {
                        return false;
                    }
                    let output = "all checks pass".to_owned();
                    Outcome::Applied { output }
                }
                Answer::FailCertain => Outcome::NotApplied { reason: why_not(t, run) },
                Answer::Fail if late => Outcome::NotApplied { reason: why_not(t, run) },
                Answer::Fail if proving && t.state.checks[id.index()].health == Health::Down => {
                    Outcome::NotApplied { reason: format!("well for a moment only; {}", why_not(t, run)) }
                }
                Answer::Pass | Answer::Fail => return false,
            };
            settle::performed(t, run, step, attempt, outcome);
            found || answer != Answer::Pass
        }
    }
}

/// Whether everything has been well for as long as the run wants to see it, each check by an answer of its own from the end of
/// that time; if not, asks when it could be.
fn has_stayed(t: &mut Turning<'_>, run: RunId, service: ServiceId) -> bool {
    let step = t.state.runs.get(&run).and_then(|run| run.focus_spec());
    let stay = match step.map(|step| &step.call) {
        Some(StepCall::Verify { stay, .. }) => *stay,
        Some(
            StepCall::Nothing
            | StepCall::Wait { .. }
            | StepCall::Act { .. }
            | StepCall::Service { .. }
            | StepCall::Require { .. }
            | StepCall::External { .. },
        )
        | None => Duration::ZERO,
    };
    if stay.is_zero() {
        return true;
    }
    let now = t.now.monotonic;
    match t.scratch.well_since.get(&run).copied() {
        Some(since) => {
            let mut checks = t.state.services[service.index()].checks.iter();
            let passed = |check: &CheckId| t.scratch.checks.get(check.index()).map(|seen| seen.passed);
            checks.all(|check| passed(check).is_some_and(|passed| passed >= since + stay))
        }
        None => {
            t.scratch.well_since.insert(run, now);
            t.effect(Effect::ProbeAt { service, at: now + stay });
            false
        }
    }
}

fn why_not(t: &Turning<'_>, run: RunId) -> String {
    t.state.runs.get(&run).map_or_else(String::new, |run| settle::not_verified(t, run))
}

fn reading(t: &Turning<'_>, service: ServiceId, began: Duration) -> Reading {
    // Also when the run is over by now: a slow probe of the old instance must not condemn the new one.
    if t.scratch.acted_at.get(service.index()).is_some_and(|acted_at| began < *acted_at) {
        return Reading::Void;
    }
    let Some(run) = t.state.run_of(service) else { return Reading::Plain };
    let Some(step) = run.focus() else { return Reading::Void };
    match run.phase(step) {
        Phase::Verifying { since, .. } if began < *since => Reading::Void,
        Phase::Verifying { from, deadline, .. } => Reading::Verdict {
            run: run.id,
            step,
            attempt: run.steps[step as usize].attempt,
            settled: began >= *from,
            late: began >= *from && t.now.monotonic >= *deadline,
        },
        Phase::Held { .. } | Phase::Stuck { .. } => Reading::Plain,
        Phase::Idle
        | Phase::Waiting { .. }
        | Phase::Awaiting { .. }
        | Phase::Resting { .. }
        | Phase::Calling { .. }
        | Phase::InFlight { .. }
        | Phase::InDoubt { .. }
        | Phase::Failed { .. }
        | Phase::Parked { .. }
        | Phase::Applied
        | Phase::Undone
        | Phase::Skipped { .. } => Reading::Void,
    }
}

/// Moves health, and opens or joins an incident. Returns whether the answer failed within an open incident.
fn take(
    t: &mut Turning<'_>,
    service: ServiceId,
    id: CheckId,
    answer: Answer,
    failure: Option<&CheckFailure>,
    limits: Thresholds,
) -> bool {
    let incident =
        t.state.incident_of(service).filter(|incident| incident.checks.contains(&id)).map(|i| i.id);
    let from = t.state.checks[id.index()].health;
    let to = health::next(from, answer, limits, incident.is_some());
    if to == from {
        if let (Some(incident), Some(failure)) = (incident, failure.filter(|failure| failure.certain)) {
            died_again(t, incident, id, failure);
        }
        return answer != Answer::Pass && incident.is_some();
    }
    set_health(t, id, to, failure, None);
    let Some(failure) = failure else { return false };
    match (to, incident) {
        (Health::Down, None) => open(t, service, id, failure),
        (Health::Down, Some(incident)) => died_again(t, incident, id, failure),
        (Health::Unknown | Health::Up | Health::Suspect { .. } | Health::Recovering { .. }, _) => {}
    }
    to == Health::Down
}

/// Records that the process ended with another code than the last: it may be one that says "do not restart me".
fn died_again(t: &mut Turning<'_>, incident: IncidentId, check: CheckId, failure: &CheckFailure) {
    let known = t.state.incidents.get(&incident).and_then(|incident| incident.exit_code);
    if failure.exit_code.is_some() && failure.exit_code != known {
        t.emit(Event::IncidentMerged { incident, check, failure: failure.clone() });
    }
}

fn set_health(
    t: &mut Turning<'_>,
    check: CheckId,
    to: Health,
    failure: Option<&CheckFailure>,
    reason: Option<String>,
) {
    let from = t.state.checks[check.index()].health;
    if from != to {
        t.emit(Event::HealthChanged { check, from, to, failure: failure.cloned(), reason });
    }
}

fn open(t: &mut Turning<'_>, service: ServiceId, check: CheckId, failure: &CheckFailure) {
    let failure = failure.clone();
    if let Some(incident) = t.state.services[service.index()].incident {
        return t.emit(Event::IncidentMerged { incident, check, failure });
    }
    let incident = IncidentId(t.state.next_incident.max(1));
    let first_sign = t.state.checks[check.index()].first_sign;
    t.emit(Event::IncidentOpened { incident, service, check, first_sign, failure });
}

/// Whether every check of the service is up and has passed since the act.
fn all_well(t: &Turning<'_>, service: ServiceId) -> bool {
    t.state.services[service.index()].checks.iter().all(|check| {
        t.state.checks[check.index()].health == Health::Up
            && t.scratch.checks.get(check.index()).is_some_and(|seen| seen.fresh)
    })
}

/// Closes the service's incident if all its checks are up or left the configuration, and nobody is acting on the service.
pub(crate) fn close_if_recovered(
    t: &mut Turning<'_>,
    service: ServiceId,
    verified_by: Option<CheckId>,
    healed_by: Option<RunId>,
) {
    if t.state.services[service.index()].run.is_some() {
        return;
    }
    let Some(incident) = t.state.incident_of(service) else { return };
    let well = incident.checks.iter().all(|check| {
        let check = &t.state.checks[check.index()];
        check.index.is_none() || check.health == Health::Up
    });
    if well {
        close(t, service, verified_by, healed_by);
    }
}

/// Closes the service's incident, tells whoever was told of it, and lets go of what waited for it.
pub(crate) fn close(
    t: &mut Turning<'_>,
    service: ServiceId,
    verified_by: Option<CheckId>,
    healed_by: Option<RunId>,
) {
    let Some(incident) = t.state.incident_of(service) else { return };
    let (incident, told) = (incident.id, !incident.told.is_empty());
    if told {
        t.owe(Notice::Resolved { incident, service });
    }
    t.emit(Event::IncidentClosed { incident, verified_by, healed_by });
    // Heals that were held by a dependency need a fresh answer before they may begin: ask at once.
    let at = t.now.monotonic;
    let waiting: Vec<_> =
        t.state.incidents.values().filter(|i| i.held.is_some()).map(|i| i.service).collect();
    for service in waiting {
        t.effect(Effect::ProbeAt { service, at });
    }
}
