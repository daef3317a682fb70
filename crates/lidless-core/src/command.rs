//! What may a person ask of the engine, and when is it refused?

use crate::effect::{Command, Refusal, Reply};
use crate::engine::moving;
use crate::event::{Event, Verdict};
use crate::id::{RunId, ServiceId};
use crate::pipeline::plan::{Purpose, act_and_verify};
use crate::pipeline::run::{Phase, Run};
use crate::pipeline::{drive, settle};
use crate::spec::Action;
use crate::turning::Turning;

/// Does what a person asks for, or says why not.
pub(crate) fn given(t: &mut Turning<'_>, command: Command) -> Reply {
    match command {
        Command::Restart { service, by, force } => {
            restart(t, service, by, force).map_or_else(Reply::Refused, Reply::Started)
        }
        Command::Run { pipeline, by, inputs } => {
            let Some(spec) = t.state.spec.pipelines.iter().find(|spec| spec.name == pipeline) else {
                return Reply::Refused(Refusal::NotFound);
            };
            let steps = spec.steps.clone();
            let same =
                |purpose: &Purpose| matches!(purpose, Purpose::Pipeline { name, .. } if *name == pipeline);
            if let Some(run) = t.state.runs.values().find(|run| same(&run.purpose)) {
                return Reply::Refused(Refusal::Busy(run.id));
            }
            Reply::Started(drive::create_with(t, Purpose::Pipeline { name: pipeline, by }, steps, inputs))
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
    let ended = t.state.ended.iter().find(|ended| ended.run.id == id).ok_or(Refusal::NotFound)?;
    match ended.verdict {
        Verdict::Failed { .. } => {}
        Verdict::Done => return Err(Refusal::NotNow("it is done")),
        Verdict::Cancelled { .. } => return Err(Refusal::NotNow("it was cancelled")),
    }
    let same = |run: &&Run| run.purpose.pipeline() == ended.run.purpose.pipeline();
    if let Some(other) = t.state.runs.values().find(same) {
        return Err(Refusal::Busy(other.id));
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
    if run.cancelled {
        return Err(Refusal::NotNow("it is being cancelled already"));
    }
    let waits = matches!(run.phase, Phase::Ready | Phase::Waiting { .. });
    t.emit(Event::CancelAsked { run: id, by });
    if waits {
        drive::cancel(t, id);
    }
    Ok(())
}

fn resolve(
    t: &mut Turning<'_>,
    id: RunId,
    step: &str,
    says: (bool, String),
    by: String,
) -> Result<(), Refusal> {
    let run = t.state.runs.get(&id).ok_or(Refusal::NotFound)?;
    if run.step().is_none_or(|spec| spec.name != step) {
        return Err(Refusal::NotNow("the run is not at that step"));
    }
    // Also before the last question was asked: whoever knows need not wait.
    if !matches!(run.phase, Phase::Held { .. } | Phase::InDoubt { .. }) {
        return Err(Refusal::NotNow("nobody is in doubt about the step"));
    }
    let at = run.at;
    settle::resolved(t, id, at, says, by);
    Ok(())
}

fn restart(t: &mut Turning<'_>, service: ServiceId, by: String, force: bool) -> Result<RunId, Refusal> {
    let spec = t.state.service_spec(service).ok_or(Refusal::NotFound)?;
    let own = spec.heal.as_ref().map(|heal| heal.budget);
    if !spec.restartable {
        return Err(Refusal::NoActuator);
    }
    let state = &t.state.services[service.index()];
    if let Some(run) = state.run {
        return Err(Refusal::Busy(run));
    }
    let now = t.now.monotonic;
    let budgets = [(own, &state.heals), (t.state.spec.host_budget, &t.state.host_heals)];
    let spent = budgets.into_iter().filter_map(|(budget, heals)| {
        let budget = budget.filter(|budget| heals.within(now, budget.per) >= budget.attempts)?;
        Some(heals.free_at(budget.attempts, budget.per))
    });
    if let Some(until) = spent.max().filter(|_| !force) {
        return Err(Refusal::BudgetSpent { until });
    }
    let steps = act_and_verify(service, spec, Action::Restart);
    t.emit(Event::Intervention { by: by.clone(), service, what: "restart".to_owned() });
    Ok(drive::create(t, Purpose::Manual { service, by }, steps))
}
