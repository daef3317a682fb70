//! What begins a run, and when has it its turn? Orders, schedules, incidents, and the ends of other runs.

use std::sync::Arc;
use std::time::Duration;

use crate::effect::Refusal;
use crate::event::{Due, Event, Verdict};
use crate::id::{RunId, Seq};
use crate::pipeline::drive;
use crate::pipeline::plan::{Plan, Purpose};
use crate::pipeline::run::Run;
use crate::spec::PipelineSpec;
use crate::time::{span, whole_micros};
use crate::trigger::{IncidentMoment, RunEnd, Trigger};
use crate::turning::{Turning, Whose};

/// How a run of a pipeline is asked for.
#[derive(Debug, Default)]
pub(crate) struct Order {
    pub(crate) by: String,
    pub(crate) inputs: String,
    pub(crate) from: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) due: Option<Due>,
    /// It waits its turn where as many are under way as may be; else it is refused.
    pub(crate) wait: bool,
}

/// Creates a run about a service, and begins it.
pub(crate) fn create(t: &mut Turning<'_>, purpose: Purpose, plan: Plan) -> RunId {
    let run = RunId(t.state.next_run.max(1));
    let (plan, inputs) = (Arc::new(plan), Arc::from(""));
    t.emit(Event::RunCreated { run, purpose, plan, inputs, key: None, due: None, from: None });
    drive::advance(t, run);
    run
}

/// Creates a run of a pipeline and begins it, unless that trigger had its run.
pub(crate) fn order(t: &mut Turning<'_>, pipeline: &str, order: Order) -> Result<RunId, Refusal> {
    let Some(spec) = t.state.spec.pipelines.iter().find(|spec| spec.name == pipeline) else {
        return Err(Refusal::NotFound);
    };
    let Order { by, inputs, from, key, due, wait } = order;
    let key = key.map(|key| format!("{pipeline}/{key}"));
    if let Some(run) = key.as_deref().and_then(|key| t.state.run_with_key(key)) {
        return Ok(run);
    }
    // Whoever orders a run by hand, or hands one in, is told at once that nobody could promise it now.
    if t.state.degraded.is_some() && due.is_none() {
        return Err(Refusal::NotNow("the journal cannot be written, and a run must survive a crash"));
    }
    let from = match from {
        None => None,
        Some(name) => Some(
            spec.plan
                .forward()
                .iter()
                .position(|step| step.name == name)
                .ok_or(Refusal::NotNow("it has no step of that name to begin at"))?,
        ),
    };
    if !wait && let Some(run) = one_too_many(t, spec) {
        return Err(Refusal::Busy(run));
    }
    let (plan, run) = (Arc::clone(&spec.plan), RunId(t.state.next_run.max(1)));
    let purpose = Purpose::Pipeline { name: pipeline.to_owned(), by };
    t.emit(Event::RunCreated {
        run,
        purpose,
        plan,
        inputs: Arc::from(inputs),
        key: key.map(Arc::from),
        due,
        from: from.and_then(|from| u32::try_from(from).ok()),
    });
    drive::advance(t, run);
    Ok(run)
}

/// A run of the pipeline that is in the way of one more.
pub(crate) fn one_too_many(t: &Turning<'_>, spec: &PipelineSpec) -> Option<RunId> {
    t.state.queue.nth(&spec.name, spec.at_once() - 1)
}

/// Whether a run may begin: its lock is free, and no more of its pipeline are under way than may be.
pub(crate) fn has_its_turn(t: &Turning<'_>, run: &Run) -> bool {
    let Some(name) = run.purpose.pipeline().filter(|_| !run.begun) else { return true };
    is_free(t, run) && has_room(t, name, t.state.queue.begun(name))
}

fn is_free(t: &Turning<'_>, run: &Run) -> bool {
    run.plan.lock.as_deref().is_none_or(|lock| !t.state.queue.is_locked(lock))
}

fn has_room(t: &Turning<'_>, pipeline: &str, begun: usize) -> bool {
    let spec = t.state.spec.pipelines.iter().find(|spec| spec.name == pipeline);
    begun < spec.map_or(1, PipelineSpec::at_once)
}

/// The oldest run younger than `after` that may have waited for another to end: for its lock, its place, or the service that it
/// acted on.
pub(crate) fn next_in_line(t: &mut Turning<'_>, after: RunId) -> Option<RunId> {
    let may = |run| t.state.runs.get(&run).is_some_and(|run| is_free(t, run));
    let queued = t.state.queue.next(after, |pipeline, begun| has_room(t, pipeline, begun), may);
    let blocked = t.scratch.blocked.range(RunId(after.0 + 1)..).next().copied();
    let next = queued.into_iter().chain(blocked).min()?;
    t.scratch.blocked.remove(&next);
    Some(next)
}

/// Begins the runs whose moment has come.
pub(crate) fn tick(t: &mut Turning<'_>) {
    if t.scratch.orders_only {
        return;
    }
    let spec = Arc::clone(&t.state.spec);
    for pipeline in &spec.pipelines {
        for trigger in &pipeline.triggers {
            let Trigger::Every { every } = trigger else { continue };
            every_so_often(t, pipeline, whole_micros(*every));
        }
    }
}

fn every_so_often(t: &mut Turning<'_>, pipeline: &PipelineSpec, every: Duration) {
    let Some(last) = t.state.schedules.get(&pipeline.name).and_then(|schedule| schedule.every) else {
        return;
    };
    let gone = t.now.monotonic.saturating_sub(last).as_micros() / every.as_micros().max(1);
    let Some(times) = u32::try_from(gone).ok().filter(|times| *times > 0) else { return };
    // Those that came together, after a sleep say, are one.
    let due = Due::Every(last + every * times);
    if let Some(run) = one_too_many(t, pipeline) {
        let why = format!("{run} is under way");
        let count = u64::from(times);
        return t.emit(Event::TriggerMissed { pipeline: pipeline.name.clone(), due, count, why });
    }
    let by = format!("every {}", span(every));
    let ordered = order(t, &pipeline.name, Order { by, due: Some(due), ..Order::default() });
    debug_assert!(ordered.is_ok(), "it is configured, and none is under way");
}

/// When the next run of a schedule begins, in engine time.
pub(crate) fn wake(t: &Turning<'_>) -> Option<Duration> {
    let begins = t.state.running && !t.scratch.orders_only;
    let pipelines = t.state.spec.pipelines.iter().filter(|_| begins);
    let next = pipelines.flat_map(|pipeline| {
        let last = t.state.schedules.get(&pipeline.name).and_then(|schedule| schedule.every);
        pipeline.triggers.iter().filter_map(move |trigger| match trigger {
            Trigger::Every { every } => Some(last? + whole_micros(*every)),
            Trigger::Cron { .. } | Trigger::Incident { .. } | Trigger::Run { .. } => None,
        })
    });
    next.min()
}

/// Begins the runs that wait for what happened in this turn, from an event on; returns how far it came. One event is one run
/// of a pipeline, however often it is told.
pub(crate) fn follow(t: &mut Turning<'_>, from: usize) -> usize {
    let upto = t.turn.events.len();
    let none = t.state.spec.pipelines.iter().all(|pipeline| pipeline.triggers.is_empty());
    if none || t.scratch.orders_only {
        return upto;
    }
    for at in from..upto {
        let Some(record) = t.turn.events.get(at) else { break };
        let happened = match &record.event {
            Event::IncidentOpened { incident, service, .. } => {
                Happened::Incident(*incident, *service, IncidentMoment::Opened)
            }
            Event::GaveUp { incident, .. } | Event::HealHeld { incident, .. } => {
                let Some(open) = t.state.incidents.get(incident) else { continue };
                if matches!(&record.event, Event::HealHeld { because, .. } if because.passes()) {
                    continue;
                }
                Happened::Incident(*incident, open.service, IncidentMoment::GivenUp)
            }
            Event::IncidentClosed { incident, .. } => {
                let Some(Whose::Service(service)) = whose(t, record.seq) else { continue };
                Happened::Incident(*incident, service, IncidentMoment::Closed)
            }
            Event::RunFinished { run, verdict } => {
                let Some(Whose::Pipeline(name)) = whose(t, record.seq) else { continue };
                Happened::Run(*run, record.seq, name, verdict.clone())
            }
            _ => continue,
        };
        begin_what_follows(t, &happened);
    }
    upto
}

fn whose(t: &Turning<'_>, seq: Seq) -> Option<Whose> {
    t.scratch.over.iter().find(|(of, _)| *of == seq).map(|(_, whose)| whose.clone())
}

enum Happened {
    Incident(crate::id::IncidentId, crate::id::ServiceId, IncidentMoment),
    /// One that is resumed ends again: each end counts.
    Run(RunId, Seq, String, Verdict),
}

fn begin_what_follows(t: &mut Turning<'_>, happened: &Happened) {
    let spec = Arc::clone(&t.state.spec);
    for pipeline in &spec.pipelines {
        for trigger in &pipeline.triggers {
            let why = match (trigger, happened) {
                (Trigger::Incident { services, when }, Happened::Incident(incident, service, moment))
                    if when == moment =>
                {
                    let name = t.state.services.get(service.index()).map(|service| service.name.as_str());
                    name.filter(|name| services.iter().any(|known| known == name)).map(|name| {
                        (format!("{incident} {}", word(*moment)), format!("{incident} of {name}"))
                    })
                }
                (Trigger::Run { pipeline, when }, Happened::Run(run, seq, name, verdict))
                    if pipeline == name && counts(*when, verdict) =>
                {
                    Some((format!("{run} ended {seq}"), format!("the end of {run} of {name}")))
                }
                (Trigger::Incident { .. } | Trigger::Run { .. }, _)
                | (Trigger::Every { .. } | Trigger::Cron { .. }, _) => None,
            };
            let Some((key, by)) = why else { continue };
            let order = Order { by, key: Some(key), wait: true, ..Order::default() };
            let ordered = self::order(t, &pipeline.name, order);
            debug_assert!(ordered.is_ok(), "it is configured, and waits its turn");
        }
    }
}

fn word(moment: IncidentMoment) -> &'static str {
    match moment {
        IncidentMoment::Opened => "opened",
        IncidentMoment::GivenUp => "given up",
        IncidentMoment::Closed => "closed",
    }
}

fn counts(when: RunEnd, verdict: &Verdict) -> bool {
    match (when, verdict) {
        (RunEnd::Any, _) | (RunEnd::Done, Verdict::Done) => true,
        (RunEnd::Failed, Verdict::Failed { .. } | Verdict::Undone { .. }) => true,
        (RunEnd::Done | RunEnd::Failed, _) => false,
    }
}
