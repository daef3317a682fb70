//! What does a run do next? Creates runs and takes them forward until they must wait for something.

use std::time::Duration;

use crate::effect::Effect;
use crate::event::{Event, Notice, Outcome, Verdict};
use crate::health::Health;
use crate::id::RunId;
use crate::pipeline::plan::{Purpose, StepCall, StepSpec};
use crate::pipeline::run::Phase;
use crate::pipeline::settle;
use crate::turning::Turning;

/// How long past its deadline an effect may stay unanswered before the engine gives up waiting for the driver.
pub(crate) const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// Why a run ends whose service is not looked after any more.
pub(crate) const LEFT: &str = "the service left the configuration";

/// Creates a run and begins it.
pub(crate) fn create(t: &mut Turning<'_>, purpose: Purpose, steps: Vec<StepSpec>) -> RunId {
    create_with(t, purpose, steps, String::new())
}

/// Creates a run that was given something, as a JSON object, and begins it.
pub(crate) fn create_with(
    t: &mut Turning<'_>,
    purpose: Purpose,
    steps: Vec<StepSpec>,
    inputs: String,
) -> RunId {
    let run = RunId(t.state.next_run.max(1));
    t.emit(Event::RunCreated { run, purpose, steps, inputs });
    advance(t, run);
    run
}

/// Takes a run forward: begins its next step, or finishes it.
pub(crate) fn advance(t: &mut Turning<'_>, id: RunId) {
    // A loop, not a recursion: a pipeline may have any number of steps that need not wait.
    while begin_next(t, id) {}
}

/// Begins the next step of a run; true where that is done already and the one after it may follow.
fn begin_next(t: &mut Turning<'_>, id: RunId) -> bool {
    let Some(run) = t.state.runs.get(&id) else { return false };
    let due = match run.phase {
        Phase::Ready => true,
        Phase::Waiting { until } => t.now.monotonic >= until,
        Phase::InFlight { .. }
        | Phase::Verifying { .. }
        | Phase::InDoubt { .. }
        | Phase::Failed { .. }
        | Phase::Held { .. } => false,
    };
    if !due {
        return false;
    }
    let Some(spec) = run.step() else {
        t.emit(Event::RunFinished { run: id, verdict: Verdict::Done });
        return false;
    };
    if run.cancelled {
        cancel(t, id);
        return false;
    }
    if run.purpose.service().is_some_and(|service| t.state.service_spec(service).is_none()) {
        fail(t, id, LEFT.to_owned());
        return false;
    }
    if spec.value && t.state.degraded.is_some() {
        // Invariant: value moves only while its journal can be trusted. `StoreMended` comes back here.
        return false;
    }
    let (step, attempt) = (run.at, run.attempt + 1);
    let (name, call) = (spec.name.clone(), spec.call.clone());
    let deadline = t.now.monotonic + spec.timeout;
    t.scratch.slept.remove(&id);
    t.emit(Event::StepIntent { run: id, step, attempt, deadline });
    match call {
        StepCall::Verify { service, settle, .. } => {
            for check in t.state.services[service.index()].checks.clone() {
                // What was seen before the act says nothing about it.
                let seen = t.observed(check);
                (seen.fresh, seen.failure, seen.reason) = (false, None, None);
            }
            t.scratch.second_looks.remove(&id);
            t.scratch.well_since.remove(&id);
            t.effect(Effect::ProbeAt { service, at: t.now.monotonic + settle });
        }
        StepCall::Require { healthy } => {
            let outcome = required(t, &healthy);
            if matches!(outcome, Outcome::Applied { .. }) {
                t.emit(Event::StepOutcome { run: id, step, attempt, outcome });
                return true;
            }
            settle::performed(t, id, step, attempt, outcome);
        }
        StepCall::Act { .. } | StepCall::External { .. } => {
            t.effect(Effect::Perform { run: id, step, attempt, name, call, deadline });
        }
    }
    false
}

/// Ends a run that somebody cancelled, before the step that it is at.
pub(crate) fn cancel(t: &mut Turning<'_>, id: RunId) {
    let Some((step, name)) = t.state.runs.get(&id).and_then(|run| Some((run.at, run.step()?.name.clone())))
    else {
        return;
    };
    t.emit(Event::RunFinished { run: id, verdict: Verdict::Cancelled { step, name } });
}

/// Says whether the services are well. "Nobody knows" is no yes.
fn required(t: &Turning<'_>, healthy: &[String]) -> Outcome {
    let unwell = healthy.iter().filter_map(|name| {
        let Some(id) = t.state.service_named(name) else { return Some(format!("{name} is not configured")) };
        let health = t.state.service_health(id);
        let failing = t.state.incident_of(id).map(|incident| format!(": {}", incident.failure.detail));
        match health {
            Health::Up | Health::Suspect { .. } if failing.is_none() => None,
            _ => Some(format!("{name} is {}{}", health.word(), failing.unwrap_or_default())),
        }
    });
    let unwell: Vec<_> = unwell.collect();
    if unwell.is_empty() {
        Outcome::Applied { output: format!("healthy: {}", healthy.join(", ")) }
    } else {
        Outcome::NotApplied { reason: unwell.join("; ") }
    }
}

/// Ends a run at the step that it is at.
pub(crate) fn fail(t: &mut Turning<'_>, id: RunId, reason: String) {
    let Some(run) = t.state.runs.get(&id) else { return };
    let name = run.step().map_or_else(String::new, |step| step.name.clone());
    let step = run.at;
    t.emit(Event::RunFinished { run: id, verdict: Verdict::Failed { step, name, reason } });
}

/// Puts a step in doubt to the world.
pub(crate) fn ask(t: &mut Turning<'_>, id: RunId) {
    let Some(run) = t.state.runs.get(&id) else { return };
    let (Phase::InDoubt { intent_at, .. }, Some(spec)) = (&run.phase, run.step()) else { return };
    let effect = Effect::Confirm {
        run: id,
        step: run.at,
        attempt: run.attempt,
        name: spec.name.clone(),
        call: spec.call.clone(),
        intent_at: *intent_at,
        deadline: t.now.monotonic + spec.timeout,
    };
    t.scratch.asking.insert(id, t.now.monotonic + spec.timeout + ANSWER_GRACE);
    t.effect(effect);
}

/// Stops a run until a person decides, and tells one.
pub(crate) fn hold(t: &mut Turning<'_>, id: RunId, reason: String) {
    let Some(run) = t.state.runs.get(&id) else { return };
    let step = run.at;
    let name = run.step().map_or_else(String::new, |step| step.name.clone());
    t.emit(Event::StepHeld { run: id, step, reason: reason.clone() });
    t.owe(Notice::RunHeld { run: id, step: name, reason });
}
