//! What may a person ask of the engine, and when is it refused?

use crate::effect::{Command, Effect, Refusal, Reply};
use crate::engine::moving;
use crate::event::{Event, Verdict};
use crate::id::{RunId, ServiceId};
use crate::pipeline::plan::{Purpose, act_and_verify};
use crate::pipeline::run::Phase;
use crate::pipeline::start::{self, Order};
use crate::pipeline::{drive, settle, undo};
use crate::policy;
use crate::spec::Action;
use crate::turning::Turning;

/// Does what a person asks for, or says why not.
pub(crate) fn given(t: &mut Turning<'_>, command: Command) -> Reply {
    match command {
        Command::Restart { service, by, force } => {
            restart(t, service, by, force).map_or_else(Reply::Refused, Reply::Started)
        }
        Command::Run { pipeline, by, inputs, from, key, due, wait } => {
            let order = Order { by, inputs, from, key, due, wait };
            start::order(t, &pipeline, order).map_or_else(Reply::Refused, Reply::Started)
        }
        Command::Miss { pipeline, due, count, why } => {
            t.emit(Event::TriggerMissed { pipeline, due, count, why });
            Reply::Noted
        }
        Command::Approve { run, step, no, by } => {
            by_hand(t, run, |t| approve(t, run, step.as_deref(), no, by))
        }
        Command::Resume { run, by } => by_hand(t, run, |t| resume(t, run, by)),
        Command::Cancel { run, by } => by_hand(t, run, |t| cancel(t, run, by)),
        Command::Resolve { run, step, applied, evidence, by } => {
            by_hand(t, run, |t| resolve(t, run, &step, (applied, evidence), by))
        }
    }
}

/// Lets a person move a run, and draws the conclusions.
fn by_hand(
    t: &mut Turning<'_>,
    run: RunId,
    act: impl FnOnce(&mut Turning<'_>) -> Result<(), Refusal>,
) -> Reply {
    let mut result = Ok(());
    moving(t, run, |t| result = act(t));
    result.map_or_else(Reply::Refused, |()| Reply::Started(run))
}

fn resume(t: &mut Turning<'_>, id: RunId, by: String) -> Result<(), Refusal> {
    if let Some(run) = t.state.runs.get(&id) {
        // One under way can only be helped where it is stuck.
        let waits = |phase: &Phase| matches!(phase, Phase::Stuck { .. } | Phase::Parked { .. });
        if !run.open_steps().any(|(_, phase)| waits(phase)) {
            return Err(Refusal::NotNow("it is under way, and waits for nobody to resume it"));
        }
        if run.goes_nowhere() {
            return Err(Refusal::NotNow("it is ending"));
        }
    } else {
        let ended = t.state.ended.iter().find(|ended| ended.run.id == id).ok_or(Refusal::NotFound)?;
        match ended.verdict {
            Verdict::Failed { .. } => {}
            Verdict::Done => return Err(Refusal::NotNow("it is done")),
            Verdict::Undone { .. } => return Err(Refusal::NotNow("it was undone: begin a new one")),
            Verdict::Cancelled { .. } => return Err(Refusal::NotNow("it was cancelled")),
        }
        if ended.run.turned.as_ref().is_some_and(|turned| turned.undoing) {
            return Err(Refusal::NotNow("some of it was undone: begin a new one"));
        }
        let name = ended.run.purpose.pipeline();
        let spec = t.state.spec.pipelines.iter().find(|spec| Some(spec.name.as_str()) == name);
        let other = match spec {
            Some(spec) => start::one_too_many(t, spec),
            None => t.state.runs.values().find(|run| run.purpose.pipeline() == name).map(|run| run.id),
        };
        if let Some(other) = other {
            return Err(Refusal::Busy(other));
        }
    }
    t.emit(Event::RunResumed { run: id, by });
    drive::advance(t, id);
    Ok(())
}

fn cancel(t: &mut Turning<'_>, id: RunId, by: String) -> Result<(), Refusal> {
    let run = t.state.runs.get(&id).ok_or(Refusal::NotFound)?;
    if run.purpose.service().is_some() {
        return Err(Refusal::NotNow("it is an act on a service, and ends by itself"));
    }
    let undoes = |step| run.spec(step).is_some_and(|spec| spec.undoes.is_some());
    let stuck = run.open_steps().find_map(|(step, phase)| {
        let (reason, left) = match phase {
            Phase::Stuck { reason } => (reason, true),
            Phase::Parked { reason } => (reason, undoes(step) && !run.owes_an_answer(step)),
            Phase::Idle
            | Phase::Waiting { .. }
            | Phase::Awaiting { .. }
            | Phase::Resting { .. }
            | Phase::Calling { .. }
            | Phase::InFlight { .. }
            | Phase::Verifying { .. }
            | Phase::InDoubt { .. }
            | Phase::Failed { .. }
            | Phase::Held { .. }
            | Phase::Applied
            | Phase::Undone
            | Phase::Skipped { .. } => return None,
        };
        left.then(|| (step, reason.clone()))
    });
    if stuck.is_none() && run.cancelled {
        return Err(Refusal::NotNow("it is being cancelled already"));
    }
    if stuck.is_none() && run.turned.as_ref().is_some_and(|turned| turned.undoing) {
        return Err(Refusal::NotNow("it is being undone already"));
    }
    let in_flight = run.open_steps().filter(|(_, phase)| matches!(phase, Phase::InFlight { .. }));
    let in_flight: Vec<_> = in_flight.map(|(step, _)| (step, run.steps[step as usize].attempt)).collect();
    t.emit(Event::CancelAsked { run: id, by });
    for (step, attempt) in in_flight {
        t.effect(Effect::Interrupt { run: id, step, attempt });
    }
    if let Some((step, reason)) = stuck {
        t.emit(Event::StepFailed { run: id, step, reason });
    }
    drive::advance(t, id);
    Ok(())
}

fn resolve(
    t: &mut Turning<'_>,
    id: RunId,
    name: &str,
    says: (bool, String),
    by: String,
) -> Result<(), Refusal> {
    let run = t.state.runs.get(&id).ok_or(Refusal::NotFound)?;
    let Some(step) = run.step_named(name) else { return Err(Refusal::NotNow("it has no such step")) };
    let undoes = run.spec(step).is_some_and(|spec| spec.undoes.is_some());
    match run.phase(step) {
        // Also before the last question was asked: whoever knows need not wait.
        Phase::Held { .. } | Phase::InDoubt { .. } => {}
        Phase::Parked { .. } if run.owes_an_answer(step) || (says.0 && undoes) => {}
        Phase::Stuck { .. } if says.0 => {}
        Phase::Stuck { .. } => {
            return Err(Refusal::NotNow("that it had no effect is known: resume the run, or cancel it"));
        }
        Phase::Idle
        | Phase::Waiting { .. }
        | Phase::Awaiting { .. }
        | Phase::Resting { .. }
        | Phase::Calling { .. }
        | Phase::InFlight { .. }
        | Phase::Verifying { .. }
        | Phase::Parked { .. }
        | Phase::Failed { .. }
        | Phase::Applied
        | Phase::Undone
        | Phase::Skipped { .. } => return Err(Refusal::NotNow("nobody is in doubt about the step")),
    }
    settle::resolved(t, id, step, says, by);
    Ok(())
}

fn approve(
    t: &mut Turning<'_>,
    id: RunId,
    name: Option<&str>,
    no: Option<String>,
    by: String,
) -> Result<(), Refusal> {
    let run = t.state.runs.get(&id).ok_or(Refusal::NotFound)?;
    let awaiting = run.open_steps().filter(|(_, phase)| matches!(phase, Phase::Awaiting { .. }));
    let awaiting: Vec<u32> = awaiting.map(|(step, _)| step).collect();
    let called = |step: &&u32| run.spec(**step).is_some_and(|spec| Some(spec.name.as_str()) == name);
    let step = match (name, awaiting.as_slice()) {
        (Some(_), awaiting) => awaiting.iter().find(called).copied(),
        (None, [step]) => Some(*step),
        (None, []) => None,
        (None, _) => return Err(Refusal::NotNow("several of its steps wait: name one")),
    };
    let Some(step) = step else { return Err(Refusal::NotNow("no such step of it waits for a yes")) };
    match no {
        None => t.emit(Event::StepApproved { run: id, step, by }),
        Some(why) => {
            let why = if why.is_empty() { format!("{by} said no") } else { format!("{by} said no: {why}") };
            undo::give_up(t, id, step, why);
        }
    }
    drive::advance(t, id);
    Ok(())
}

fn restart(t: &mut Turning<'_>, service: ServiceId, by: String, force: bool) -> Result<RunId, Refusal> {
    let spec = t.state.service_spec(service).ok_or(Refusal::NotFound)?;
    if !spec.restartable {
        return Err(Refusal::NoActuator);
    }
    if let Some(run) = t.state.services[service.index()].run {
        return Err(Refusal::Busy(run));
    }
    let plan = act_and_verify(service, spec, Action::Restart);
    if let Some(until) = policy::budget_spent(t, service).filter(|_| !force) {
        return Err(Refusal::BudgetSpent { until });
    }
    t.emit(Event::Intervention { by: by.clone(), service, what: "restart".to_owned() });
    Ok(start::create(t, Purpose::Manual { service, by }, plan))
}
