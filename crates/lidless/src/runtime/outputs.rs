//! What have the steps of a run put out? Read once, and shared by all the attempts that are told of it.
//!
//! Each step may use what all the steps before it gave: to read that anew for each would take a pipeline of ten thousand steps
//! fifty million readings.

use std::collections::HashMap;
use std::sync::Arc;

use lidless_core::id::RunId;
use lidless_core::pipeline::plan::{StepCall, StepSpec};
use lidless_core::pipeline::run::Run;
use serde_json::{Map, Value};

use super::code;
use super::steps::json;

/// What fewer steps have put out is quicker read than remembered.
const FEW: usize = 32;

/// The outputs of long runs.
#[derive(Debug, Default)]
pub(super) struct Outputs(HashMap<RunId, Known>);

#[derive(Debug)]
struct Known {
    /// By step: whether its output is in it.
    has: Vec<bool>,
    outputs: Arc<Value>,
}

impl Outputs {
    /// Returns what the steps of a run have put out, as one of them sees it. The steps of a pipeline that was taken up lie under its
    /// name; one of them sees its own first, as it would if the pipeline ran by itself.
    pub(super) fn of(&mut self, run: &Run, step: u32) -> Arc<Value> {
        let all = self.all(run);
        let spec = run.spec(step);
        let name =
            spec.map(|spec| spec.undoes.and_then(|undone| run.spec(undone)).unwrap_or(spec).name.as_str());
        match name.and_then(|name| name.rsplit_once('/')) {
            None => all,
            Some((path, _)) => Arc::new(seen_from(&all, path)),
        }
    }

    fn all(&mut self, run: &Run) -> Arc<Value> {
        if run.steps.len() < FEW {
            let mut few = Known::of(run);
            few.learn(run);
            return few.outputs;
        }
        let known = self.0.entry(run.id).or_insert_with(|| Known::of(run));
        known.learn(run);
        Arc::clone(&known.outputs)
    }

    /// Forgets a run that is over.
    pub(super) fn forget(&mut self, run: RunId) {
        self.0.remove(&run);
    }
}

impl Known {
    fn of(run: &Run) -> Known {
        Known { has: vec![false; run.steps.len()], outputs: Arc::new(Value::Object(Map::new())) }
    }

    fn learn(&mut self, run: &Run) {
        let steps = run.plan.steps().iter().zip(&run.steps).zip(&mut self.has);
        for ((spec, state), has) in steps.filter(|(_, has)| !**has) {
            // Copied only where an attempt is under way beside the next one.
            if let Some(output) = &state.output
                && let Value::Object(outputs) = Arc::make_mut(&mut self.outputs)
            {
                put(outputs, spec, json(output));
                *has = true;
            }
        }
    }
}

/// Puts an output where the steps that come after find it.
fn put(outputs: &mut Map<String, Value>, spec: &StepSpec, output: Value) {
    // What takes a step back is no part of it, and a program's own steps are called as the program likes.
    let is_code = matches!(&spec.call, StepCall::External { kind, .. } if kind == code::KIND);
    let (path, last) = match spec.name.rsplit_once('/') {
        Some((path, last)) if spec.undoes.is_none() && !is_code => (Some(path), last),
        Some(_) | None => (None, spec.name.as_str()),
    };
    let mut at = outputs;
    for part in path.into_iter().flat_map(|path| path.split('/')) {
        let inner = at.entry(part).or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(inner) = inner else { return };
        at = inner;
    }
    at.insert(last.to_owned(), output);
}

fn seen_from(all: &Value, path: &str) -> Value {
    let mut own = all.as_object();
    let mut seen = own.cloned().unwrap_or_default();
    for part in path.split('/') {
        own = own.and_then(|own| own.get(part)).and_then(Value::as_object);
        seen.extend(own.cloned().unwrap_or_default());
    }
    Value::Object(seen)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use lidless_core::pipeline::plan::{Plan, Purpose, StepSpec};
    use lidless_core::time::Now;
    use serde_json::json;

    use super::*;

    fn run(steps: usize) -> Run {
        let steps = (0..steps).map(|index| StepSpec { name: format!("S{index}"), ..StepSpec::default() });
        let purpose = Purpose::Pipeline { name: "long".to_owned(), by: String::new() };
        Run::new(RunId(1), purpose, Arc::new(Plan::in_a_row(steps.collect())), Now::default())
    }

    #[test]
    fn each_attempt_is_told_all_that_was_put_out_before_it_and_nothing_changes_for_those_under_way() {
        for steps in [2, FEW] {
            let (mut outputs, mut run) = (Outputs::default(), run(steps));
            assert_eq!(*outputs.of(&run, 1), json!({}));
            run.steps[0].output = Some(Arc::from("1"));
            let first = outputs.of(&run, 1);
            run.steps[1].output = Some(Arc::from("no JSON"));
            assert_eq!(*outputs.of(&run, 1), json!({ "S0": 1, "S1": "no JSON" }));
            assert_eq!(*first, json!({ "S0": 1 }));
            outputs.forget(run.id);
            assert!(outputs.0.is_empty());
        }
    }
}
