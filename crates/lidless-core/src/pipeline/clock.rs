//! What do time, and a crash, change about a run?

use std::time::Duration;

use crate::effect::Effect;
use crate::event::{Confirmation, Event, Outcome};
use crate::id::RunId;
use crate::pipeline::drive::{self, ANSWER_GRACE};
use crate::pipeline::plan::{Class, StepCall, StepSpec};
use crate::pipeline::run::{Phase, Run};
use crate::pipeline::{settle, undo};
use crate::time::span;
use crate::turning::Turning;

/// Takes up a run after a crash of lidless: what was in flight is in doubt now.
pub(crate) fn recover(t: &mut Turning<'_>, id: RunId) {
    let Some(run) = t.state.runs.get(&id) else { return };
    // It was decided on an answer that is old by now, and nothing of it was begun.
    if !run.begun && settle::looks_again(&run.purpose) {
        return undo::give_up(t, id, 0, "lidless ended before it began".to_owned());
    }
    let count = u32::try_from(run.steps.len()).unwrap_or(u32::MAX);
    let turned = run.turned.is_some();
    let again = |phase: &Phase| phase.is_open() || (!turned && matches!(phase, Phase::Failed { .. }));
    let steps: Vec<u32> = (0..count).filter(|step| again(run.phase(*step))).collect();
    for step in steps {
        recover_step(t, id, step);
    }
    drive::advance(t, id);
}

fn recover_step(t: &mut Turning<'_>, id: RunId, step: u32) {
    let Some(run) = t.state.runs.get(&id) else { return };
    let Some(state) = run.state(step) else { return };
    let attempt = state.attempt;
    match &state.phase {
        Phase::InFlight { .. } => {
            let reason = "lidless ended while it was under way".to_owned();
            settle::take(t, id, step, attempt, Outcome::Unknown { reason });
        }
        Phase::Calling { run: of } if !t.state.runs.contains_key(of) => {
            let reason = format!("{of} is over, and its end is not on record");
            settle::take(t, id, step, attempt, Outcome::Unknown { reason });
        }
        Phase::Verifying { .. } | Phase::Parked { .. } => {
            let not_before = t.now.monotonic;
            t.emit(Event::StepRetry { run: id, step, not_before });
        }
        Phase::InDoubt { .. } => settle::doubt(t, id, step),
        Phase::Failed { reason } => {
            let reason = reason.clone();
            settle::retry_or_give_up(t, id, step, reason, false);
        }
        Phase::Idle
        | Phase::Waiting { .. }
        | Phase::Awaiting { .. }
        | Phase::Resting { .. }
        | Phase::Calling { .. }
        | Phase::Held { .. }
        | Phase::Stuck { .. }
        | Phase::Applied
        | Phase::Undone
        | Phase::Skipped { .. } => {}
    }
}

/// Whether a step waits for whoever acts on its service: the end of that takes it up.
fn service_is_busy(t: &Turning<'_>, spec: &StepSpec) -> bool {
    let StepCall::Service { service, .. } = &spec.call else { return false };
    t.state.service_named(service).is_some_and(|id| t.state.services[id.index()].run.is_some())
}

/// Takes a run up that waited for the journal.
pub(crate) fn mended(t: &mut Turning<'_>, id: RunId) {
    let Some(run) = t.state.runs.get(&id) else { return };
    let in_doubt = run.open_steps().filter(|(_, phase)| matches!(phase, Phase::InDoubt { .. }));
    let in_doubt: Vec<u32> = in_doubt.map(|(step, _)| step).collect();
    for step in in_doubt {
        settle::doubt(t, id, step);
    }
    drive::advance(t, id);
}

/// Looks whether what parked steps need is there by now.
pub(crate) fn unpark(t: &mut Turning<'_>, id: RunId) {
    let Some(run) = t.state.runs.get(&id) else { return };
    let parked = run.open_steps().filter(|(_, phase)| matches!(phase, Phase::Parked { .. }));
    let parked: Vec<u32> = parked.map(|(step, _)| step).collect();
    for step in &parked {
        let not_before = t.now.monotonic;
        t.emit(Event::StepRetry { run: id, step: *step, not_before });
    }
    if !parked.is_empty() {
        drive::advance(t, id);
    }
}

/// Looks whether time alone moves a run.
pub(crate) fn tick(t: &mut Turning<'_>, id: RunId) {
    let Some(run) = t.state.runs.get(&id) else { return };
    if wake(t, run).is_none_or(|at| t.now.monotonic < at) {
        return;
    }
    let steps: Vec<u32> = run.open.iter().copied().collect();
    for step in steps {
        let Some(run) = t.state.runs.get(&id) else { return };
        if wake_of(t, run, step).is_some_and(|at| t.now.monotonic >= at) {
            tick_step(t, id, step);
        }
    }
    drive::advance(t, id);
}

fn tick_step(t: &mut Turning<'_>, id: RunId, step: u32) {
    let Some(run) = t.state.runs.get(&id) else { return };
    let (Some(state), Some(spec)) = (run.state(step), run.spec(step)) else { return };
    let attempt = state.attempt;
    match &state.phase {
        Phase::InFlight { .. } => {
            let reason = "no answer by the deadline".to_owned();
            settle::take(t, id, step, attempt, Outcome::Unknown { reason });
        }
        Phase::Verifying { .. } if settle::nobody_looked(t, run) => {
            let Some(service) = run.purpose.service() else { return };
            let at = t.now.monotonic;
            let until = at + settle::slowest_probe(t, run) + ANSWER_GRACE;
            t.scratch.second_looks.insert(id, until);
            t.effect(Effect::ProbeAt { service, at });
        }
        Phase::Verifying { .. } => {
            let reason = settle::not_verified(t, run);
            let judged = settle::anything_failed(t, run);
            let outcome = if judged { Outcome::NotApplied { reason } } else { Outcome::Unknown { reason } };
            settle::take(t, id, step, attempt, outcome);
        }
        Phase::InDoubt { .. } if t.scratch.asking.contains_key(&(id, step)) => {
            // It counts as asked, so that a driver that never answers ends at a person and not in silence.
            let (reason, retry_after) = ("no answer to the question".to_owned(), Duration::ZERO);
            settle::confirmed(t, id, step, attempt, Confirmation::StillUnknown { reason, retry_after });
        }
        Phase::InDoubt { .. } => settle::doubt(t, id, step),
        Phase::Awaiting { until } => {
            let within = spec.approve.as_ref().map(|approve| approve.within).unwrap_or_default();
            let why = match drive::out_of_time(t, run, None) {
                Some(why) if t.now.monotonic < *until => why,
                Some(_) | None => format!("nobody approved it within {}", span(within)),
            };
            undo::give_up(t, id, step, why);
        }
        Phase::Resting { until } if t.now.monotonic >= *until => {
            settle::take(t, id, step, attempt, Outcome::Applied { output: String::new() });
        }
        Phase::Resting { .. } => {
            if let Some(why) = drive::out_of_time(t, run, Some(step)) {
                undo::give_up(t, id, step, why);
            }
        }
        Phase::Idle
        | Phase::Waiting { .. }
        | Phase::Calling { .. }
        | Phase::Failed { .. }
        | Phase::Held { .. }
        | Phase::Stuck { .. }
        | Phase::Parked { .. }
        | Phase::Applied
        | Phase::Undone
        | Phase::Skipped { .. } => {}
    }
}

/// Returns when time alone will move a run.
pub(crate) fn wake(t: &Turning<'_>, run: &Run) -> Option<Duration> {
    let open = run.open.iter().filter_map(|step| wake_of(t, run, *step));
    let forward = !run.cancelled && run.turned.is_none();
    let ready = run.ready.iter().filter(|_| forward).filter_map(|step| wake_of(t, run, *step));
    let turned = run.turned.as_ref().filter(|turned| turned.undoing);
    let back = turned.and_then(|_| run.next_undo()).filter(|undo| !run.open.contains(undo));
    let back = back.and_then(|undo| wake_of(t, run, undo));
    // A run that waits for its turn is told by the clock when that comes too late.
    let waits = !run.ready.is_empty() && forward && !stopped(t, run);
    let late = run.plan.deadline.filter(|_| waits).map(|time| run.clock_from + time);
    open.chain(ready).chain(back).chain(late).min()
}

/// Whether time alone helps nothing that a run could begin next: it waits for the journal (`StoreMended` takes it up), or has
/// to be settled first, however late it is.
fn stopped(t: &Turning<'_>, run: &Run) -> bool {
    let waits = |step: u32| run.spec(step).is_some_and(|spec| drive::waits_for_the_journal(t, spec));
    run.ready.iter().all(|step| waits(*step) || run.owes_an_answer(*step))
}

fn wake_of(t: &Turning<'_>, run: &Run, step: u32) -> Option<Duration> {
    let spec = run.spec(step)?;
    let of_run = run.plan.deadline.map(|time| run.clock_from + time);
    match run.phase(step) {
        // Time alone does not help it: `StoreMended` takes it up again.
        Phase::Waiting { .. } if drive::waits_for_the_journal(t, spec) || service_is_busy(t, spec) => None,
        Phase::Waiting { until } => Some(*until),
        Phase::Awaiting { until } | Phase::Resting { until } => {
            Some(of_run.map_or(*until, |of_run| of_run.min(*until)))
        }
        Phase::InFlight { deadline, .. } => {
            let slept = t.scratch.slept.get(&(run.id, step)).copied().unwrap_or_default();
            Some(*deadline + slept + ANSWER_GRACE)
        }
        Phase::Verifying { deadline, .. } => {
            let second = t.scratch.second_looks.get(&run.id).copied();
            Some(second.unwrap_or(*deadline + settle::slowest_probe(t, run) + ANSWER_GRACE))
        }
        // It is done once more to tell, as soon as the journal can be written.
        Phase::InDoubt { asked, .. }
            if drive::waits_for_the_journal(t, spec)
                && spec.class == Class::Idempotent
                && !(spec.adoptable && *asked == 0) =>
        {
            None
        }
        Phase::InDoubt { ask_at, .. } => {
            Some(t.scratch.asking.get(&(run.id, step)).copied().unwrap_or(*ask_at))
        }
        Phase::Idle
        | Phase::Calling { .. }
        | Phase::Failed { .. }
        | Phase::Held { .. }
        | Phase::Stuck { .. }
        | Phase::Parked { .. }
        | Phase::Applied
        | Phase::Undone
        | Phase::Skipped { .. } => None,
    }
}
