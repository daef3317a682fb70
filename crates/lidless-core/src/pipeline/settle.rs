//! What does an answer mean for a step? Applied goes on, a proven "no effect" may be tried again, and doubt is put to the
//! world before anything else.

use std::time::Duration;

use crate::event::{Confirmation, Event, Notice, Outcome, Verdict};
use crate::health::Health;
use crate::id::RunId;
use crate::pipeline::plan::{Class, Purpose, StepCall};
use crate::pipeline::run::{Phase, Run};
use crate::pipeline::{drive, retry, undo};
use crate::time::whole_micros;
use crate::turning::{Observed, Turning};

/// Whoever is asked about a step in doubt is asked again after this at the latest, whatever they say.
const ASK_WITHIN: Duration = Duration::from_secs(3_600);
/// A requirement that was not met is not looked at again sooner.
const REQUIRE_AGAIN: Duration = Duration::from_millis(250);

/// Takes the answer to an attempt. A stale one (of an attempt that is no longer in flight) is dropped.
pub(crate) fn performed(t: &mut Turning<'_>, id: RunId, step: u32, attempt: u32, outcome: Outcome) {
    let current = t.state.runs.get(&id).and_then(|run| run.state(step)).is_some_and(|state| {
        state.attempt == attempt
            && matches!(state.phase, Phase::InFlight { .. } | Phase::Verifying { .. } | Phase::Calling { .. })
    });
    if current {
        take(t, id, step, attempt, outcome);
        drive::advance(t, id);
    }
}

/// Takes what became of an attempt; whoever calls takes the run on.
pub(crate) fn take(t: &mut Turning<'_>, id: RunId, step: u32, attempt: u32, outcome: Outcome) {
    t.emit(Event::StepOutcome { run: id, step, attempt, outcome: outcome.clone() });
    match outcome {
        Outcome::Applied { .. } => note_act(t, id, step),
        // It had come up before: it needs no time to settle, and what is wrong with it now is for a heal, at once.
        Outcome::Found { .. } if was_judged(t, id) => {
            t.emit(Event::RunFinished { run: id, verdict: Verdict::Done });
        }
        Outcome::Found { .. } => {}
        Outcome::NotApplied { reason } => retry_or_give_up(t, id, step, reason, false),
        Outcome::Refused { reason } | Outcome::Unavailable { reason } => undo::give_up(t, id, step, reason),
        Outcome::Missing { reason } => {
            let name = t.state.runs.get(&id).and_then(|run| run.spec(step)).map(|spec| spec.name.clone());
            t.owe(Notice::RunHeld { run: id, step: name.unwrap_or_default(), reason });
        }
        Outcome::Unknown { .. } => doubt(t, id, step),
    }
}

/// Takes what the world said of a step in doubt.
pub(crate) fn confirmed(t: &mut Turning<'_>, id: RunId, step: u32, attempt: u32, answer: Confirmation) {
    let current = t
        .state
        .runs
        .get(&id)
        .and_then(|run| run.state(step))
        .is_some_and(|state| state.attempt == attempt && matches!(state.phase, Phase::InDoubt { .. }));
    if !current {
        return;
    }
    t.scratch.asking.remove(&(id, step));
    let answer = match answer {
        Confirmation::StillUnknown { reason, retry_after } => {
            Confirmation::StillUnknown { reason, retry_after: whole_micros(retry_after).min(ASK_WITHIN) }
        }
        Confirmation::Applied { .. } | Confirmation::NotApplied { .. } | Confirmation::Failed { .. } => {
            answer
        }
    };
    t.emit(Event::StepConfirmed { run: id, step, attempt, answer: answer.clone() });
    match answer {
        Confirmation::Applied { .. } => note_act(t, id, step),
        // Just before a heal acts it looks once more: the answer that asked for this one is old by now.
        Confirmation::NotApplied { evidence } if looks_again_before_acting(t, id) => {
            undo::give_up(t, id, step, evidence);
        }
        Confirmation::NotApplied { evidence } => retry_or_give_up(t, id, step, evidence, true),
        Confirmation::Failed { reason, for_good: false } => retry_or_give_up(t, id, step, reason, false),
        Confirmation::Failed { reason, for_good: true } => undo::give_up(t, id, step, reason),
        Confirmation::StillUnknown { .. } => doubt(t, id, step),
    }
    drive::advance(t, id);
}

/// Decides about a step in doubt by its class; whoever calls takes the run on. **Invariant:** nothing but a confirmation
/// repeats a confirmable step, and nothing at all repeats a one-shot step.
pub(crate) fn doubt(t: &mut Turning<'_>, id: RunId, step: u32) {
    let Some(run) = t.state.runs.get(&id) else { return };
    let (Some(spec), Some(state)) = (run.spec(step), run.state(step)) else { return };
    let Phase::InDoubt { asked, ask_at, reason, .. } = &state.phase else { return };
    let reason = reason.clone();
    let leaves = run.goes_nowhere();
    // What may have to be taken back, or counted, must be known; where that is harmless, by doing it once more.
    let must_know = run.must_know(step);
    let tries_left = state.tried() < spec.attempts_max.saturating_add(spec.confirms_max);
    let asks = t.now.monotonic >= *ask_at && !t.scratch.asking.contains_key(&(id, step));
    // What may still be under way is not done again beside itself, whatever its class would allow.
    if spec.adoptable && *asked == 0 {
        if asks {
            drive::ask(t, id, step);
        }
        return;
    }
    match spec.class {
        // Nothing is lost by not knowing.
        Class::Pure if leaves => t.emit(Event::StepFailed { run: id, step, reason }),
        Class::Idempotent if leaves && must_know && tries_left => drive::again(t, id, step),
        Class::Idempotent if leaves && !must_know => {
            let why = format!("cancelled, and nobody knows whether it took effect: {reason}");
            undo::give_up(t, id, step, why);
        }
        Class::Pure | Class::Idempotent if tries_left && !leaves => {
            // The first time at once: it was lost, not refused.
            let wait = retry::delay(spec.backoff, state.tried().saturating_sub(1), t.jitter());
            let not_before = t.now.monotonic + wait;
            t.emit(Event::StepRetry { run: id, step, not_before });
        }
        Class::Idempotent if must_know => drive::hold(t, id, step, reason),
        Class::Pure | Class::Idempotent => undo::give_up(t, id, step, reason),
        Class::Confirmable if *asked < spec.confirms_max => {
            if asks {
                drive::ask(t, id, step);
            }
        }
        // Nobody can tell whether an act took effect; where the symptom is verified next, that is what counts.
        Class::Confirmable if run.leads_to_verify(step) => {
            t.emit(Event::StepLeftToVerify { run: id, step });
        }
        // Nobody waits for an answer that will not come: the service would be out of reach for as long.
        Class::Confirmable if matches!(spec.call, StepCall::Act { .. }) && !spec.value => {
            let why = format!("nobody can tell whether it took effect: {reason}");
            undo::give_up(t, id, step, why);
        }
        Class::Confirmable | Class::OneShot => drive::hold(t, id, step, reason),
    }
}

/// Takes a person's word on a step that waits for one.
pub(crate) fn resolved(t: &mut Turning<'_>, id: RunId, step: u32, says: (bool, String), by: String) {
    let (applied, evidence) = says;
    t.scratch.asking.remove(&(id, step));
    t.emit(Event::StepResolved { run: id, step, applied, evidence: evidence.clone(), by });
    if !applied {
        retry_or_give_up(t, id, step, evidence, true);
    }
    drive::advance(t, id);
}

/// Decides whether a step that had no effect is tried again; whoever calls takes the run on.
pub(crate) fn retry_or_give_up(
    t: &mut Turning<'_>,
    id: RunId,
    step: u32,
    reason: String,
    was_in_doubt: bool,
) {
    let Some(run) = t.state.runs.get(&id) else { return };
    let (Some(spec), Some(state)) = (run.spec(step), run.state(step)) else { return };
    // The run ends without it; that it had no effect is all that counts.
    if run.goes_nowhere() {
        return;
    }
    // An attempt that was cut off and then proved to have had no effect was no attempt of the plan's.
    let attempts_max = spec.attempts_max.saturating_add(if was_in_doubt { spec.confirms_max } else { 0 });
    if state.tried() >= attempts_max {
        return undo::give_up(t, id, step, reason);
    }
    if let Some(why) = drive::out_of_time(t, run, Some(step)) {
        return undo::give_up(t, id, step, why);
    }
    let floor = match spec.call {
        StepCall::Require { .. } => REQUIRE_AGAIN,
        StepCall::Nothing
        | StepCall::Wait { .. }
        | StepCall::Act { .. }
        | StepCall::Service { .. }
        | StepCall::Verify { .. }
        | StepCall::External { .. } => Duration::ZERO,
    };
    let wait = retry::delay(spec.backoff, state.tried(), t.jitter()).max(floor);
    let not_before = t.now.monotonic + wait;
    t.emit(Event::StepRetry { run: id, step, not_before });
}

/// Says why a verification did not succeed: the checks that have not passed, and what they said.
pub(crate) fn not_verified(t: &Turning<'_>, run: &Run) -> String {
    let missing = missing(t, run).map(|(name, seen)| match (&seen.failure, &seen.reason) {
        (Some(failure), _) => format!("{name}: {}", failure.detail),
        (None, Some(reason)) => format!("{name}: could not be asked: {reason}"),
        (None, None) => format!("{name}: no answer"),
    });
    let missing: Vec<_> = missing.collect();
    let word = if anything_failed(t, run) { "still failing" } else { "could not be judged" };
    format!("{word}: {}", missing.join("; "))
}

/// The checks of a run's service that have not passed since the act, by name, and what was seen of them since.
fn missing<'t>(t: &'t Turning<'_>, run: &Run) -> impl Iterator<Item = (&'t str, &'t Observed)> {
    let service = run.purpose.service().map(|service| &t.state.services[service.index()]);
    let checks = service.map(|service| service.checks.as_slice()).unwrap_or_default();
    checks.iter().filter_map(|check| {
        let seen = t.scratch.checks.get(check.index()).filter(|seen| !seen.fresh)?;
        Some((t.state.checks[check.index()].name.as_str(), seen))
    })
}

/// Whether a check has failed since the act. "I could not ask" is no verdict on what was done.
pub(crate) fn anything_failed(t: &Turning<'_>, run: &Run) -> bool {
    missing(t, run).any(|(_, seen)| seen.failure.is_some())
}

/// Whether every check of the run's service has had a verdict, so that its start is over.
fn was_judged(t: &Turning<'_>, id: RunId) -> bool {
    let service = t.state.runs.get(&id).and_then(|run| run.purpose.service());
    service.is_some_and(|service| {
        let checks = &t.state.services[service.index()].checks;
        checks.iter().all(|check| t.state.checks[check.index()].health != Health::Unknown)
    })
}

/// Notes when an act on a service took effect.
fn note_act(t: &mut Turning<'_>, id: RunId, step: u32) {
    let call = t.state.runs.get(&id).and_then(|run| run.spec(step)).map(|step| &step.call);
    if let Some(StepCall::Act { service, .. }) = call {
        let service = *service;
        t.acted(service);
    }
}

/// Whether an act of such a run that proved to have had no effect is not done again, but decided anew.
pub(crate) fn looks_again(purpose: &Purpose) -> bool {
    match purpose {
        Purpose::Heal { .. } => true,
        Purpose::BringUp { .. }
        | Purpose::Manual { .. }
        | Purpose::Pipeline { .. }
        | Purpose::Step { .. } => false,
    }
}

fn looks_again_before_acting(t: &Turning<'_>, id: RunId) -> bool {
    t.state.runs.get(&id).is_some_and(|run| looks_again(&run.purpose))
}

/// Whether a verification's time ran out while no check was asked: the machine slept, or lidless was stopped. Then time
/// alone proves nothing, once.
pub(crate) fn nobody_looked(t: &Turning<'_>, run: &Run) -> bool {
    if t.scratch.second_looks.contains_key(&run.id) {
        return false;
    }
    let Some(service) = run.purpose.service() else { return false };
    let checks = t.state.service_spec(service).map(|spec| spec.checks.as_slice()).unwrap_or_default();
    let patience = checks.iter().map(|check| check.every).max().unwrap_or_default() * 2;
    t.state.services[service.index()].checks.iter().all(|check| {
        let seen = t.scratch.checks.get(check.index()).map(|seen| seen.at).unwrap_or_default();
        t.now.monotonic.saturating_sub(seen) > patience
    })
}

/// A verification ends with an answer; a probe that began just before the deadline may still bring a good one.
pub(crate) fn slowest_probe(t: &Turning<'_>, run: &Run) -> Duration {
    let checks =
        run.purpose.service().and_then(|id| t.state.service_spec(id)).map(|spec| spec.checks.as_slice());
    checks.unwrap_or_default().iter().map(|check| check.timeout).max().unwrap_or_default()
}
