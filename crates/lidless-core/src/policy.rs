//! An incident is open: what may be done about it now? Budgets, backoff, holds and giving up.
//!
//! **Invariant:** a heal is keyed to an incident and begins only in a turn that brought a failing answer of that
//! incident, so that it never acts on a message, on a memory, or on something that has recovered meanwhile.

use std::time::Duration;

use crate::event::{Because, Event, Notice, Outcome, Verdict};
use crate::id::{IncidentId, ServiceId};
use crate::incident::Incident;
use crate::pipeline::plan::{Purpose, act_and_verify};
use crate::pipeline::{retry, start};
use crate::spec::Backoff;
use crate::state::State;
use crate::turning::Turning;

/// What policy chose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Remedy {
    /// Heal now.
    Heal,
    /// Not before this, in engine time.
    Wait(Duration),
    /// It must not be done, for this reason.
    Hold(Because),
    /// The budget is spent: tell somebody, and try slowly.
    GiveUp {
        /// Heals done within the window.
        attempts: u32,
        /// The next slow try, in engine time.
        retry_at: Duration,
    },
}

/// What the last act or verification of a heal came to.
pub(crate) enum Ended {
    /// Its outcome came in.
    Answered(Outcome),
    /// It was in doubt, and the world says that it had no effect.
    ProvedUndone {
        /// How we know.
        evidence: String,
    },
}

/// The wait after an actuator was not available; it is not the service's fault, so it has no budget.
const UNAVAILABLE: Backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(60) };
/// After a heal that did not work, at least this long, whatever the configuration says: no storm of restarts.
const FAILED: Backoff = Backoff { min: Duration::from_millis(100), max: Duration::from_secs(5) };
/// So many times in a row, and somebody is told.
const UNAVAILABLE_TOLD: u32 = 3;

/// Decides about an incident whose service nobody acts on. `room` is only there to be used again.
pub fn decide(state: &State, incident: &Incident, now: Duration, room: &mut Vec<ServiceId>) -> Remedy {
    let service = &state.services[incident.service.index()];
    let spec = state.service_spec(incident.service);
    let Some(heal) = spec.and_then(|spec| spec.heal.as_ref()) else { return Remedy::Hold(Because::NoHeal) };
    if let Some(code) = incident.exit_code.filter(|code| heal.never_on_exit.contains(code)) {
        return Remedy::Hold(Because::ExitCode { code });
    }
    if let Some(service) = dependency_down(state, incident.service, room) {
        return Remedy::Hold(Because::DependencyDown { service });
    }
    if let Some(retry_at) = service.given_up.filter(|retry_at| now < *retry_at) {
        return Remedy::Wait(retry_at);
    }
    let attempts = service.heals.within(now, heal.budget.per);
    if attempts >= heal.budget.attempts && service.given_up.is_none() {
        return Remedy::GiveUp { attempts, retry_at: now + heal.retry_after };
    }
    if now < service.not_before {
        return Remedy::Wait(service.not_before);
    }
    match state.spec.host_budget {
        Some(host) if state.host_heals.within(now, host.per) >= host.attempts => {
            Remedy::Hold(Because::HostBudgetSpent)
        }
        Some(_) | None => Remedy::Heal,
    }
}

/// Returns a service that this one needs, directly or not, and that has an incident.
///
/// Every failing answer of what is down comes through here: those seen are kept in room that is used again, not in new one.
fn dependency_down(state: &State, service: ServiceId, seen: &mut Vec<ServiceId>) -> Option<ServiceId> {
    if state.service_spec(service)?.depends_on.is_empty() {
        return None;
    }
    seen.clear();
    seen.push(service);
    let mut at = 0;
    while let Some(current) = seen.get(at).copied() {
        at += 1;
        for name in state.service_spec(current).map(|spec| spec.depends_on.as_slice()).unwrap_or_default() {
            let Some(needed) = state.service_named(name) else { continue };
            if state.incident_of(needed).is_some() {
                return Some(needed);
            }
            if !seen.contains(&needed) {
                seen.push(needed);
            }
        }
    }
    None
}

/// When the budgets have room again for an act on a service, in engine time; none where they have it now.
pub(crate) fn budget_spent(t: &Turning<'_>, service: ServiceId) -> Option<Duration> {
    let own = t.state.service_spec(service)?.heal.as_ref().map(|heal| heal.budget);
    let (now, state) = (t.now.monotonic, &t.state.services[service.index()]);
    let budgets = [(own, &state.heals), (t.state.spec.host_budget, &t.state.host_heals)];
    let spent = budgets.into_iter().filter_map(|(budget, heals)| {
        let budget = budget.filter(|budget| heals.within(now, budget.per) >= budget.attempts)?;
        Some(heals.free_at(budget.attempts, budget.per))
    });
    spent.max()
}

/// Acts on what was decided. Called in a turn that brought a failing answer of the service's incident.
pub(crate) fn consider(t: &mut Turning<'_>, service: ServiceId) {
    if t.scratch.orders_only || t.state.services[service.index()].run.is_some() {
        return;
    }
    let Some(incident) = t.state.incident_of(service) else { return };
    let (id, held) = (incident.id, incident.held.clone());
    match decide(t.state, incident, t.now.monotonic, &mut t.scratch.needed) {
        Remedy::Heal => {
            let Some(spec) = t.state.service_spec(service) else { return };
            let Some(heal) = &spec.heal else { return };
            let plan = act_and_verify(service, spec, heal.action);
            start::create(t, Purpose::Heal { service, incident: id }, plan);
        }
        Remedy::Wait(_) => {}
        Remedy::Hold(because) if held.as_ref() == Some(&because) => {}
        Remedy::Hold(because) => {
            t.emit(Event::HealHeld { incident: id, because: because.clone() });
            let needs_person = match because {
                Because::NoHeal | Because::ExitCode { .. } | Because::HostBudgetSpent => true,
                // The dependency's own incident tells; a second message would be about the same thing.
                Because::DependencyDown { .. } => false,
            };
            if needs_person {
                tell(t, id, Notice::WillNotHeal { incident: id, service, because });
            }
        }
        Remedy::GiveUp { attempts, retry_at } => give_up(t, id, service, attempts, retry_at),
    }
}

/// Plans the next heal after one has ended.
pub(crate) fn after_heal(t: &mut Turning<'_>, service: ServiceId, verdict: &Verdict, last: Option<&Ended>) {
    let Some(incident) = t.state.incident_of(service) else { return };
    let (id, heals) = (incident.id, incident.heals);
    let state = &t.state.services[service.index()];
    let (now, jitter) = (t.now.monotonic, t.jitter());
    let Some(heal) = t.state.service_spec(service).and_then(|spec| spec.heal.clone()) else { return };
    let attempts = state.heals.within(now, heal.budget.per);
    let untried = match last {
        Some(Ended::Answered(Outcome::Unavailable { reason })) => Some((reason, 0)),
        // Not the service's fault either, and nothing is waited for but a fresh answer. Once: an actuator that loses every
        // act would be asked without end.
        Some(Ended::ProvedUndone { evidence }) if state.unavailable == 1 => Some((evidence, 1)),
        Some(Ended::ProvedUndone { .. }) => None,
        Some(Ended::Answered(
            Outcome::Applied { .. }
            | Outcome::Found { .. }
            | Outcome::NotApplied { .. }
            | Outcome::Refused { .. }
            | Outcome::Missing { .. }
            | Outcome::Unknown { .. },
        ))
        | None => None,
    };
    if let Some((reason, free)) = untried {
        let unavailable = state.unavailable;
        let wait = retry::delay(UNAVAILABLE, unavailable.saturating_sub(free), jitter);
        if !wait.is_zero() {
            t.emit(Event::BackedOff { incident: id, until: now + wait });
        }
        if unavailable >= UNAVAILABLE_TOLD {
            tell(t, id, Notice::ActuatorUnavailable { incident: id, service, reason: reason.clone() });
        }
        return;
    }
    // Nobody could judge it: it counts as done, and whether that was the last one is decided on a failing answer.
    let judged = !matches!(last, Some(Ended::Answered(Outcome::Unknown { .. })));
    let failed = matches!(verdict, Verdict::Failed { .. });
    let slow = state.given_up.is_some();
    if failed && (slow || (judged && attempts >= heal.budget.attempts)) {
        return give_up(t, id, service, attempts, now + heal.retry_after);
    }
    let floor = if failed { retry::delay(FAILED, heals, jitter) } else { Duration::ZERO };
    let wait = retry::delay(heal.backoff, attempts, jitter).max(floor);
    // Also after one that worked: a service that crashes again and again is not hammered.
    if !wait.is_zero() {
        t.emit(Event::BackedOff { incident: id, until: now + wait });
    }
}

fn give_up(t: &mut Turning<'_>, incident: IncidentId, service: ServiceId, attempts: u32, retry_at: Duration) {
    t.emit(Event::GaveUp { incident, attempts, retry_at });
    tell(t, incident, Notice::GaveUp { incident, service, attempts });
}

/// Tells somebody, unless they were told the same of this incident. That it is held does not stand for that it is given up.
fn tell(t: &mut Turning<'_>, incident: IncidentId, what: Notice) {
    if t.state.incidents.get(&incident).is_some_and(|incident| !incident.was_told(&what)) {
        t.owe(what);
    }
}
