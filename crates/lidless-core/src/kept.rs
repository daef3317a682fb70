//! In what form is a state kept? Each plan once, however many runs have it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::RunId;
use crate::pipeline::plan::Plan;
use crate::pipeline::queue::Queue;
use crate::pipeline::run::Run;
use crate::state::State;

/// A state to be written.
#[derive(Debug, Serialize)]
pub struct Keeping<'s> {
    state: &'s State,
    /// Those of runs that are not the present one of a pipeline.
    plans: Vec<&'s Plan>,
    /// By run: the pipelines of the configuration come first, then `plans`.
    plan_of: Vec<(RunId, usize)>,
}

/// A state that was read.
#[derive(Debug, Deserialize)]
pub struct Kept {
    state: State,
    plans: Vec<Arc<Plan>>,
    plan_of: Vec<(RunId, usize)>,
}

impl<'s> Keeping<'s> {
    /// Returns the form in which a state is written.
    pub fn of(state: &'s State) -> Keeping<'s> {
        let pipelines = state.spec.pipelines.iter().map(|pipeline| Arc::as_ptr(&pipeline.plan));
        let mut known: BTreeMap<*const Plan, usize> = BTreeMap::new();
        for (index, plan) in pipelines.enumerate() {
            known.entry(plan).or_insert(index);
        }
        let (mut plans, count) = (Vec::new(), state.spec.pipelines.len());
        let runs = state.runs.values().chain(state.ended.iter().map(|ended| &ended.run));
        let plan_of = runs.map(|run| {
            let index = known.entry(Arc::as_ptr(&run.plan)).or_insert_with(|| {
                plans.push(&*run.plan);
                count + plans.len() - 1
            });
            (run.id, *index)
        });
        let plan_of = plan_of.collect();
        Keeping { state, plans, plan_of }
    }
}

impl Kept {
    /// Returns the state. An `Err` says why it cannot be one.
    pub fn restore(self) -> Result<State, &'static str> {
        let Kept { mut state, plans, plan_of } = self;
        let pipelines: Vec<_> = state.spec.pipelines.iter().map(|spec| Arc::clone(&spec.plan)).collect();
        let plan_of: BTreeMap<RunId, usize> = plan_of.into_iter().collect();
        let give = |run: &mut Run| {
            let index = *plan_of.get(&run.id).ok_or("a run without a plan")?;
            let own = pipelines.get(index).or_else(|| plans.get(index.checked_sub(pipelines.len())?));
            run.plan = Arc::clone(own.ok_or("a plan that there is not")?);
            if run.plan.steps().len() == run.steps.len() { Ok(()) } else { Err("a run of another plan") }
        };
        state.runs.values_mut().try_for_each(give)?;
        state.ended.iter_mut().map(|ended| &mut ended.run).try_for_each(give)?;
        state.queue = Queue::of(state.runs.values());
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::{Command, Input};
    use crate::engine::Engine;
    use crate::pipeline::plan::StepSpec;
    use crate::spec::{PipelineSpec, Spec};
    use crate::time::Now;

    fn plan(name: &str) -> Arc<Plan> {
        let wait = crate::pipeline::plan::StepCall::Wait { time: std::time::Duration::from_secs(60) };
        Arc::new(Plan::in_a_row(vec![StepSpec { name: name.to_owned(), call: wait, ..StepSpec::default() }]))
    }

    fn engine() -> Engine {
        let mut engine = Engine::new(0);
        engine.handle(Now::default(), Input::Started { boot: String::new(), version: String::new() });
        for name in ["OLD", "NEW"] {
            let pipeline = PipelineSpec {
                name: "vault".to_owned(),
                plan: plan(name),
                concurrency: 10,
                ..PipelineSpec::default()
            };
            let spec = Spec { pipelines: vec![pipeline], ..Spec::default() };
            engine.handle(Now::default(), Input::ConfigLoaded(Arc::new(spec)));
            for _ in 0..2 {
                let run = Command::Run {
                    pipeline: "vault".to_owned(),
                    by: String::new(),
                    inputs: String::new(),
                    from: None,
                    key: None,
                    due: None,
                    wait: false,
                };
                engine.handle(Now::default(), Input::Command(run));
            }
        }
        engine
    }

    #[test]
    fn runs_share_their_plan_also_after_they_were_read_and_each_is_written_once() {
        let engine = engine();
        let text = serde_json::to_string(&Keeping::of(engine.state())).unwrap();
        assert_eq!((text.matches("OLD").count(), text.matches("NEW").count()), (1, 1), "{text}");
        let state = serde_json::from_str::<Kept>(&text).unwrap().restore().unwrap();
        assert_eq!(state, *engine.state());
        let plans: Vec<_> = state.runs.values().map(|run| Arc::as_ptr(&run.plan)).collect();
        assert!(plans[0] == plans[1] && plans[2] == plans[3], "{plans:?}");
        assert_eq!(plans[2], Arc::as_ptr(&state.spec.pipelines[0].plan));
    }

    #[test]
    fn a_run_whose_plan_is_missing_is_no_state() {
        let keeping = engine();
        let mut keeping = Keeping::of(keeping.state());
        keeping.plan_of.pop();
        let text = serde_json::to_string(&keeping).unwrap();
        let kept = serde_json::from_str::<Kept>(&text).unwrap();
        assert_eq!(kept.restore().err(), Some("a run without a plan"));
    }
}
