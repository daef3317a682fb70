//! What begins next in a run? Takes it forward until it must wait for something.

use std::sync::Arc;
use std::time::Duration;

use crate::effect::Effect;
use crate::event::{Event, Notice, Outcome, Verdict};
use crate::id::RunId;
use crate::pipeline::plan::{Approve, Purpose, StepCall, StepSpec, act_and_verify};
use crate::pipeline::run::{Phase, Run};
use crate::pipeline::{settle, start, undo};
use crate::policy;
use crate::spec::Action;
use crate::time::{span, whole_micros};
use crate::turning::Turning;

/// How long past its deadline an effect may stay unanswered before the engine gives up waiting for the driver.
pub(crate) const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// Why a run ends whose service is not looked after any more.
pub(crate) const LEFT: &str = "the service left the configuration";

/// Takes a run forward, or back where it has turned: begins what may begin, or finishes it.
pub(crate) fn advance(t: &mut Turning<'_>, id: RunId) {
    // A loop, not a recursion: a pipeline may have any number of steps that need not wait.
    loop {
        let Some(run) = t.state.runs.get(&id) else { return };
        if run.left == 0 && run.turned.is_none() {
            t.emit(Event::RunFinished { run: id, verdict: Verdict::Done });
            return;
        }
        if run.turned.is_some() || run.cancelled {
            if undo::turn(t, id) {
                continue;
            }
            return;
        }
        if !may_go_on(t, id) {
            return;
        }
        let mut from = 0;
        while let Some(step) = next_ready(t, id, from) {
            // What becomes ready by it stands behind it.
            from = step + 1;
            begin(t, id, step);
        }
        let over = t.state.runs.get(&id).is_none_or(|run| run.left > 0 && run.turned.is_none());
        if over {
            return;
        }
    }
}

fn next_ready(t: &Turning<'_>, id: RunId, from: u32) -> Option<u32> {
    let run = t.state.runs.get(&id).filter(|run| run.turned.is_none() && !run.cancelled)?;
    run.ready.range(from..).next().copied()
}

/// Whether a run has its turn. One whose time is over while it waits for it ends here.
fn may_go_on(t: &mut Turning<'_>, id: RunId) -> bool {
    let Some(run) = t.state.runs.get(&id) else { return false };
    if start::has_its_turn(t, run) {
        return true;
    }
    if let (Some(step), Some(why)) = (run.ready.first().copied(), out_of_time(t, run, None)) {
        undo::give_up(t, id, step, why);
        return t.state.runs.get(&id).is_some_and(|run| run.turned.is_some());
    }
    false
}

/// Begins a step, if nothing stands against it.
pub(crate) fn begin(t: &mut Turning<'_>, id: RunId, step: u32) {
    let Some(run) = t.state.runs.get(&id) else { return };
    let (Some(spec), Some(state)) = (run.spec(step), run.state(step)) else { return };
    if run.purpose.service().is_some_and(|service| t.state.service_spec(service).is_none()) {
        return undo::give_up(t, id, step, LEFT.to_owned());
    }
    if let Some(why) = out_of_time(t, run, Some(step)) {
        return undo::give_up(t, id, step, why);
    }
    if matches!(state.phase, Phase::Waiting { until } if t.now.monotonic < until) {
        return;
    }
    if waits_for_the_journal(t, spec) || t.scratch.ending {
        return;
    }
    let first = state.tried() == 0 && !state.approved;
    let untried = state.attempt == 0;
    let plan = Arc::clone(&run.plan);
    let Some(spec) = plan.step(step) else { return };
    if first {
        // Once it has held, it is not asked again.
        if let Some(when) = &spec.when
            && untried
            && !t.scratch.weighed.contains(&(id, step))
        {
            if t.scratch.weighing.insert((id, step)) {
                t.effect(Effect::Weigh { run: id, step, when: when.clone() });
            }
            return;
        }
        if let Some(approve) = &spec.approve {
            return ask_a_person(t, id, step, &spec.name, approve);
        }
    }
    intend(t, id, step, spec);
}

/// Does a step in doubt once more, in a run that goes forward no more: so it is known what must be taken back.
pub(crate) fn again(t: &mut Turning<'_>, id: RunId, step: u32) {
    let plan = t.state.runs.get(&id).map(|run| Arc::clone(&run.plan));
    let spec = plan.as_ref().and_then(|plan| plan.step(step));
    if let Some(spec) = spec.filter(|spec| !waits_for_the_journal(t, spec) && !t.scratch.ending) {
        intend(t, id, step, spec);
    }
}

/// Whether a step must not begin now. **Invariant:** value moves only while its journal can be trusted; and nothing that is
/// called outside is begun without its record. `StoreMended` takes both up again.
pub(crate) fn waits_for_the_journal(t: &Turning<'_>, spec: &StepSpec) -> bool {
    t.state.degraded.is_some() && (spec.value || matches!(spec.call, StepCall::External { .. }))
}

/// Records the intent, and lets it be done.
fn intend(t: &mut Turning<'_>, id: RunId, step: u32, spec: &StepSpec) {
    let Some((attempt, deadline)) = t.state.runs.get(&id).and_then(|run| {
        let state = run.state(step)?;
        Some((state.attempt + 1, deadline(t, run, step, spec)))
    }) else {
        return;
    };
    t.scratch.slept.remove(&(id, step));
    match &spec.call {
        StepCall::Verify { service, settle, .. } => {
            let (service, settle) = (*service, *settle);
            t.emit(Event::StepIntent { run: id, step, attempt, deadline });
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
            t.emit(Event::StepIntent { run: id, step, attempt, deadline });
            let outcome = required(t, healthy);
            settle::take(t, id, step, attempt, outcome);
        }
        StepCall::Nothing => {
            t.emit(Event::StepIntent { run: id, step, attempt, deadline });
            settle::take(t, id, step, attempt, Outcome::Applied { output: String::new() });
        }
        StepCall::Wait { .. } => t.emit(Event::StepIntent { run: id, step, attempt, deadline }),
        StepCall::Service { service, action } => call_service(t, id, (step, attempt), service, *action),
        StepCall::Act { .. } | StepCall::External { .. } => {
            t.emit(Event::StepIntent { run: id, step, attempt, deadline });
            let (name, call) = (spec.name.clone(), spec.call.clone());
            t.effect(Effect::Perform { run: id, step, attempt, name, call, deadline });
        }
    }
}

/// When an attempt that begins now ends at the latest: by its own time, its step's, or the run's.
fn deadline(t: &Turning<'_>, run: &Run, step: u32, spec: &StepSpec) -> Duration {
    let now = t.now.monotonic;
    let own = match spec.call {
        StepCall::Wait { time } => return now + whole_micros(time),
        StepCall::Nothing
        | StepCall::Act { .. }
        | StepCall::Service { .. }
        | StepCall::Verify { .. }
        | StepCall::Require { .. }
        | StepCall::External { .. } => now + spec.timeout,
    };
    if run.owes_an_answer(step) {
        return own;
    }
    let of_step =
        spec.within.map(|within| run.state(step).and_then(|state| state.first).unwrap_or(now) + within);
    let of_run = run.plan.deadline.filter(|_| spec.undoes.is_none()).map(|time| run.clock_from + time);
    [Some(own), of_step, of_run].into_iter().flatten().min().unwrap_or(own)
}

/// Says whose time is over, so that no attempt begins any more. What takes a step back has all the time that it needs.
pub(crate) fn out_of_time(t: &Turning<'_>, run: &Run, step: Option<u32>) -> Option<String> {
    let now = t.now.monotonic;
    let of_step = step.and_then(|step| Some((run.spec(step)?, run.state(step)?)));
    // What may have taken effect is settled first, however late it is.
    if step.is_some_and(|step| run.owes_an_answer(step)) {
        return None;
    }
    if let Some((spec, state)) = of_step {
        if let (Some(within), Some(first)) = (spec.within, state.first)
            && now >= first + within
        {
            return Some(with_last(format!("its time of {} is over", span(within)), &state.phase));
        }
        if spec.undoes.is_some() {
            return None;
        }
    }
    let time = run.plan.deadline.filter(|time| now >= run.clock_from + *time)?;
    Some(format!("the run's time of {} is over", span(time)))
}

fn with_last(text: String, phase: &Phase) -> String {
    let Phase::Failed { reason } = phase else { return text };
    format!("{text}; the last attempt: {reason}")
}

fn ask_a_person(t: &mut Turning<'_>, id: RunId, step: u32, name: &str, approve: &Approve) {
    let until = t.now.monotonic + whole_micros(approve.within);
    t.emit(Event::StepAwaits { run: id, step, until });
    t.owe(Notice::ApprovalAsked { run: id, step: name.to_owned(), ask: approve.ask.clone() });
}

/// Lets a run of its own act on a service: within its budget, alone on its actuator.
fn call_service(t: &mut Turning<'_>, id: RunId, (step, attempt): (u32, u32), name: &str, action: Action) {
    let found = t.state.service_named(name).and_then(|service| {
        let spec = t.state.service_spec(service)?;
        Some((service, spec.restartable, act_and_verify(service, spec, action)))
    });
    let now = t.now.monotonic;
    let refused = match &found {
        None => Some(Outcome::Refused { reason: format!("{name} is not configured") }),
        Some((_, false, _)) => {
            Some(Outcome::Refused { reason: format!("{name} has no `run`: nothing can act on it") })
        }
        // It has its turn once that run is over.
        Some((service, ..)) if t.state.services[service.index()].run.is_some() => {
            t.scratch.blocked.insert(id);
            return;
        }
        Some((service, ..)) => policy::budget_spent(t, *service)
            .map(|_| Outcome::NotApplied { reason: format!("the restart budget for {name} is spent") }),
    };
    let time = found.as_ref().map(|(.., plan)| plan.steps().iter().map(|step| step.timeout).sum());
    let deadline = now + time.unwrap_or(Duration::ZERO) + ANSWER_GRACE;
    t.emit(Event::StepIntent { run: id, step, attempt, deadline });
    match (refused, found) {
        (None, Some((service, _, plan))) => {
            start::create(t, Purpose::Step { service, of: id, step }, plan);
        }
        (Some(outcome), _) => settle::take(t, id, step, attempt, outcome),
        (None, None) => {}
    }
}

/// Says whether the services are well. "Nobody knows" is no yes.
fn required(t: &Turning<'_>, healthy: &[String]) -> Outcome {
    let unwell = t.state.unwell(healthy);
    if unwell.is_empty() {
        Outcome::Applied { output: format!("healthy: {}", healthy.join(", ")) }
    } else {
        Outcome::NotApplied { reason: unwell.join("; ") }
    }
}

/// Puts a step in doubt to the world.
pub(crate) fn ask(t: &mut Turning<'_>, id: RunId, step: u32) {
    let Some(run) = t.state.runs.get(&id) else { return };
    let (Some(spec), Some(state)) = (run.spec(step), run.state(step)) else { return };
    let Phase::InDoubt { intent_at, .. } = &state.phase else { return };
    let effect = Effect::Confirm {
        run: id,
        step,
        attempt: state.attempt,
        name: spec.name.clone(),
        call: spec.call.clone(),
        intent_at: *intent_at,
        deadline: t.now.monotonic + spec.timeout,
    };
    t.scratch.asking.insert((id, step), t.now.monotonic + spec.timeout + ANSWER_GRACE);
    t.effect(effect);
}

/// Stops a step until a person finds out what became of it, and tells one.
pub(crate) fn hold(t: &mut Turning<'_>, id: RunId, step: u32, reason: String) {
    let Some(name) = t.state.runs.get(&id).and_then(|run| Some(run.spec(step)?.name.clone())) else { return };
    t.emit(Event::StepHeld { run: id, step, reason: reason.clone() });
    t.owe(Notice::RunHeld { run: id, step: name, reason });
}
