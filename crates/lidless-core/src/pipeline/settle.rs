//! What does an answer mean for a run? Applied goes on, a proven "no effect" may be tried again, and doubt is put to the
//! world before anything else.

use std::time::Duration;

use crate::effect::Effect;
use crate::event::{Confirmation, Event, Outcome, Verdict};
use crate::health::Health;
use crate::id::RunId;
use crate::pipeline::drive::{self, ANSWER_GRACE};
use crate::pipeline::plan::{Class, Purpose, StepCall};
use crate::pipeline::retry;
use crate::pipeline::run::{Phase, Run};
use crate::time::whole_micros;
use crate::turning::{Observed, Turning};

/// Whoever is asked about a step in doubt is asked again after this at the latest, whatever they say.
const ASK_WITHIN: Duration = Duration::from_secs(3_600);
/// A requirement that was not met is not looked at again sooner.
const REQUIRE_AGAIN: Duration = Duration::from_millis(250);

/// Takes the answer to an attempt. A stale one (of an attempt that is no longer in flight) is dropped.
pub(crate) fn performed(t: &mut Turning<'_>, id: RunId, step: u32, attempt: u32, outcome: Outcome) {
    let current = t.state.runs.get(&id).is_some_and(|run| {
        run.at == step
            && run.attempt == attempt
            && matches!(run.phase, Phase::InFlight { .. } | Phase::Verifying { .. })
    });
    if !current {
        return;
    }
    t.emit(Event::StepOutcome { run: id, step, attempt, outcome: outcome.clone() });
    if matches!(outcome, Outcome::Applied { .. }) {
        note_act(t, id, step);
    }
    match outcome {
        Outcome::Applied { .. } => drive::advance(t, id),
        // It had come up before: it needs no time to settle, and what is wrong with it now is for a heal, at once.
        Outcome::Found { .. } if was_judged(t, id) => {
            t.emit(Event::RunFinished { run: id, verdict: Verdict::Done });
        }
        Outcome::Found { .. } => drive::advance(t, id),
        Outcome::NotApplied { reason } => retry_or_fail(t, id, reason, false),
        Outcome::Refused { reason } | Outcome::Unavailable { reason } => drive::fail(t, id, reason),
        Outcome::Unknown { .. } => doubt(t, id),
    }
}

/// Takes what the world said of a step in doubt.
pub(crate) fn confirmed(t: &mut Turning<'_>, id: RunId, step: u32, attempt: u32, answer: Confirmation) {
    let Some(run) = t.state.runs.get(&id) else { return };
    if run.at != step || run.attempt != attempt || !matches!(run.phase, Phase::InDoubt { .. }) {
        return;
    }
    t.scratch.asking.remove(&id);
    let answer = match answer {
        Confirmation::StillUnknown { reason, retry_after } => {
            Confirmation::StillUnknown { reason, retry_after: whole_micros(retry_after).min(ASK_WITHIN) }
        }
        Confirmation::Applied { .. } | Confirmation::NotApplied { .. } => answer,
    };
    t.emit(Event::StepConfirmed { run: id, step, attempt, answer: answer.clone() });
    match answer {
        Confirmation::Applied { .. } => {
            note_act(t, id, step);
            drive::advance(t, id);
        }
        // Just before a heal acts it looks once more: the answer that asked for this one is old by now.
        Confirmation::NotApplied { evidence } if looks_again_before_acting(t, id) => {
            drive::fail(t, id, evidence);
        }
        Confirmation::NotApplied { evidence } => retry_or_fail(t, id, evidence, true),
        Confirmation::StillUnknown { .. } => doubt(t, id),
    }
}

/// Decides about a step in doubt by its class. **Invariant:** nothing but a confirmation repeats a confirmable step, and
/// nothing at all repeats a one-shot step.
pub(crate) fn doubt(t: &mut Turning<'_>, id: RunId) {
    let Some(run) = t.state.runs.get(&id) else { return };
    let (Phase::InDoubt { asked, ask_at, reason, .. }, Some(spec)) = (&run.phase, run.step()) else { return };
    let reason = reason.clone();
    match spec.class {
        Class::Pure if run.cancelled => drive::cancel(t, id),
        Class::Idempotent if run.cancelled => {
            drive::fail(t, id, format!("cancelled, and nobody knows whether it took effect: {reason}"));
        }
        Class::Pure | Class::Idempotent
            if run.tried() < spec.attempts_max.saturating_add(spec.confirms_max) =>
        {
            // The first time at once: it was lost, not refused.
            let wait = retry::delay(spec.backoff, run.tried().saturating_sub(1), t.jitter());
            let (step, not_before) = (run.at, t.now.monotonic + wait);
            t.emit(Event::StepRetry { run: id, step, not_before });
            drive::advance(t, id);
        }
        Class::Pure | Class::Idempotent if spec.value => drive::hold(t, id, reason),
        Class::Pure | Class::Idempotent => drive::fail(t, id, reason),
        Class::Confirmable if *asked < spec.confirms_max => {
            if t.now.monotonic >= *ask_at && !t.scratch.asking.contains_key(&id) {
                drive::ask(t, id);
            }
        }
        // Nobody can tell whether an act took effect; where the symptom is verified next, that is what counts.
        Class::Confirmable if leads_to_verify(run) => {
            let step = run.at;
            t.emit(Event::StepLeftToVerify { run: id, step });
            drive::advance(t, id);
        }
        // Nobody waits for an answer that will not come: the service would be out of reach for as long.
        Class::Confirmable if matches!(spec.call, StepCall::Act { .. }) && !spec.value => {
            drive::fail(t, id, format!("nobody can tell whether it took effect: {reason}"));
        }
        Class::Confirmable | Class::OneShot => drive::hold(t, id, reason),
    }
}

/// Takes up a run after a crash of lidless: what was in flight is in doubt now.
pub(crate) fn recover(t: &mut Turning<'_>, id: RunId) {
    let Some(run) = t.state.runs.get(&id) else { return };
    let (step, attempt) = (run.at, run.attempt);
    match &run.phase {
        Phase::InFlight { .. } => {
            let reason = "lidless ended while it was under way".to_owned();
            performed(t, id, step, attempt, Outcome::Unknown { reason });
        }
        Phase::Verifying { .. } => {
            let not_before = t.now.monotonic;
            t.emit(Event::StepRetry { run: id, step, not_before });
            drive::advance(t, id);
        }
        Phase::InDoubt { .. } => doubt(t, id),
        Phase::Failed { reason } => {
            let reason = reason.clone();
            retry_or_fail(t, id, reason, false);
        }
        // It was decided on an answer that is old by now, and nothing of it was begun.
        Phase::Ready if step == 0 && attempt == 0 && looks_again(&run.purpose) => {
            drive::fail(t, id, "lidless ended before it began".to_owned());
        }
        Phase::Ready | Phase::Waiting { .. } => drive::advance(t, id),
        Phase::Held { .. } => {}
    }
}

/// Takes a person's word on a step that waits for one.
pub(crate) fn resolved(t: &mut Turning<'_>, id: RunId, step: u32, says: (bool, String), by: String) {
    let (applied, evidence) = says;
    t.scratch.asking.remove(&id);
    t.emit(Event::StepResolved { run: id, step, applied, evidence: evidence.clone(), by });
    if applied {
        drive::advance(t, id);
    } else {
        retry_or_fail(t, id, evidence, true);
    }
}

/// Looks whether time alone moves a run.
pub(crate) fn tick(t: &mut Turning<'_>, id: RunId) {
    let Some(run) = t.state.runs.get(&id) else { return };
    let (step, attempt) = (run.at, run.attempt);
    if wake(t, run).is_none_or(|at| t.now.monotonic < at) {
        return;
    }
    match &run.phase {
        Phase::InFlight { .. } => {
            let reason = "no answer by the deadline".to_owned();
            performed(t, id, step, attempt, Outcome::Unknown { reason });
        }
        Phase::Verifying { .. } if nobody_looked(t, run) => {
            let Some(service) = run.purpose.service() else { return };
            let at = t.now.monotonic;
            let until = at + slowest_probe(t, run) + ANSWER_GRACE;
            t.scratch.second_looks.insert(id, until);
            t.effect(Effect::ProbeAt { service, at });
        }
        Phase::Verifying { .. } => {
            let reason = not_verified(t, run);
            let judged = anything_failed(t, run);
            let outcome = if judged { Outcome::NotApplied { reason } } else { Outcome::Unknown { reason } };
            performed(t, id, step, attempt, outcome);
        }
        Phase::InDoubt { .. } if t.scratch.asking.contains_key(&id) => {
            // It counts as asked, so that a driver that never answers ends at a person and not in silence.
            let (reason, retry_after) = ("no answer to the question".to_owned(), Duration::ZERO);
            confirmed(t, id, step, attempt, Confirmation::StillUnknown { reason, retry_after });
        }
        Phase::InDoubt { .. } => doubt(t, id),
        Phase::Ready | Phase::Waiting { .. } => drive::advance(t, id),
        Phase::Failed { .. } | Phase::Held { .. } => {}
    }
}

/// Returns when time alone will move a run.
pub(crate) fn wake(t: &Turning<'_>, run: &Run) -> Option<Duration> {
    match &run.phase {
        // Time alone does not help it: `StoreMended` takes it up again.
        Phase::Waiting { .. } if t.state.degraded.is_some() && run.step().is_some_and(|step| step.value) => {
            None
        }
        Phase::Waiting { until } => Some(*until),
        Phase::InFlight { deadline, .. } => {
            let slept = t.scratch.slept.get(&run.id).copied().unwrap_or_default();
            Some(*deadline + slept + ANSWER_GRACE)
        }
        Phase::Verifying { deadline, .. } => {
            let second = t.scratch.second_looks.get(&run.id).copied();
            Some(second.unwrap_or(*deadline + slowest_probe(t, run) + ANSWER_GRACE))
        }
        Phase::InDoubt { ask_at, .. } => Some(t.scratch.asking.get(&run.id).copied().unwrap_or(*ask_at)),
        Phase::Ready | Phase::Failed { .. } | Phase::Held { .. } => None,
    }
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
fn anything_failed(t: &Turning<'_>, run: &Run) -> bool {
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
    let call = t.state.runs.get(&id).and_then(|run| run.steps.get(step as usize)).map(|step| &step.call);
    if let Some(StepCall::Act { service, .. }) = call {
        let service = *service;
        t.acted(service);
    }
}

/// Whether an act of such a run that proved to have had no effect is not done again, but decided anew.
pub(crate) fn looks_again(purpose: &Purpose) -> bool {
    match purpose {
        Purpose::Heal { .. } => true,
        Purpose::BringUp { .. } | Purpose::Manual { .. } | Purpose::Pipeline { .. } => false,
    }
}

fn looks_again_before_acting(t: &Turning<'_>, id: RunId) -> bool {
    t.state.runs.get(&id).is_some_and(|run| looks_again(&run.purpose))
}

/// Whether a verification's time ran out while no check was asked: the machine slept, or lidless was stopped. Then time
/// alone proves nothing, once.
fn nobody_looked(t: &Turning<'_>, run: &Run) -> bool {
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
fn slowest_probe(t: &Turning<'_>, run: &Run) -> Duration {
    let checks =
        run.purpose.service().and_then(|id| t.state.service_spec(id)).map(|spec| spec.checks.as_slice());
    checks.unwrap_or_default().iter().map(|check| check.timeout).max().unwrap_or_default()
}

fn retry_or_fail(t: &mut Turning<'_>, id: RunId, reason: String, was_in_doubt: bool) {
    let Some(run) = t.state.runs.get(&id) else { return };
    let Some(spec) = run.step() else { return };
    if run.cancelled {
        return drive::cancel(t, id);
    }
    // An attempt that was cut off and then proved to have had no effect was no attempt of the plan's.
    let attempts_max = spec.attempts_max.saturating_add(if was_in_doubt { spec.confirms_max } else { 0 });
    if run.tried() >= attempts_max {
        return drive::fail(t, id, reason);
    }
    let floor = match spec.call {
        StepCall::Require { .. } => REQUIRE_AGAIN,
        StepCall::Act { .. } | StepCall::Verify { .. } | StepCall::External { .. } => Duration::ZERO,
    };
    let (step, wait) = (run.at, retry::delay(spec.backoff, run.tried(), t.jitter()).max(floor));
    let not_before = t.now.monotonic + wait;
    t.emit(Event::StepRetry { run: id, step, not_before });
    drive::advance(t, id);
}

fn leads_to_verify(run: &Run) -> bool {
    run.steps.get(run.at as usize + 1).is_some_and(|next| matches!(next.call, StepCall::Verify { .. }))
}
