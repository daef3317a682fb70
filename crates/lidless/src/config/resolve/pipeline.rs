//! What does a run of a pipeline do, with every default filled in? What is pinned in the journal is made here.

use std::sync::Arc;
use std::time::Duration;

use lidless_core::pipeline::plan::{Class, Plan, StepCall, StepSpec};
use lidless_core::spec::{Backoff, PipelineSpec};

use super::super::model::{Confirm, Given, Named, Pipeline, Step, StepExec, Work};
use super::super::problem::Problem;
use super::super::settings::{ExecStepSettings, PipelineSettings};
use super::{MINUTE, Resolver, dedup};

const REQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
const TRIES: u32 = 10;

impl Resolver<'_> {
    /// Fills in a pipeline.
    pub(super) fn pipeline(&mut self, pipeline: &Named<Pipeline>) -> (PipelineSpec, PipelineSettings) {
        let name = &pipeline.name.value;
        let steps = pipeline.value.steps.iter().filter_map(|step| self.step(step)).collect();
        let plan = Arc::new(Plan::in_a_row(steps));
        (
            PipelineSpec { name: name.clone(), plan, ..PipelineSpec::default() },
            PipelineSettings { name: name.clone(), title: pipeline.value.title.clone() },
        )
    }

    fn step(&mut self, step: &Named<Step>) -> Option<StepSpec> {
        let (name, step) = (&step.name, &step.value);
        let confirm = step.confirm.good();
        let class = match (&step.work, step.class.good()) {
            (Given::Good(Work::Require(_)), _) => Class::Pure,
            (_, Some(class)) => class.value,
            (_, None) if confirm.is_some() => Class::Confirmable,
            // An idempotent step that moves value was refused: nobody is paid twice by a default.
            (_, None) => Class::Idempotent,
        };
        let (call, timeout) = match &step.work {
            Given::Good(Work::Require(healthy)) => {
                (StepCall::Require { healthy: dedup(healthy) }, REQUIRE_TIMEOUT)
            }
            Given::Good(Work::Exec(exec)) => {
                let settings = self.exec_step(name.at, exec, confirm);
                let json = match serde_json::to_string(&settings) {
                    Ok(json) => json,
                    Err(err) => {
                        // The one thing that JSON cannot hold: a directory whose name is not UTF-8.
                        self.problems.push(
                            Problem::error(
                                "config::not_utf8",
                                format!("`{}` cannot be journalled: {err}", name.value),
                            )
                            .at(name.at, "this step")
                            .help("write `dir:` with a path that is UTF-8"),
                        );
                        return None;
                    }
                };
                let call = StepCall::External { kind: "exec".to_owned(), settings: Arc::from(json) };
                (call, step.timeout.unwrap_or(MINUTE))
            }
            Given::Absent | Given::Broken => return None,
        };
        let (min, max) = step.backoff.unwrap_or((Duration::from_secs(1), MINUTE));
        let adoptable = matches!(&step.work, Given::Good(Work::Exec(exec)) if exec.may_be_unit);
        let tries = confirm.map_or(0, |confirm| confirm.tries.unwrap_or(TRIES));
        Some(StepSpec {
            name: name.value.clone(),
            call,
            class,
            value: step.value.is_some(),
            attempts_max: step.attempts.as_ref().map_or(1, |attempts| attempts.value),
            backoff: Backoff { min, max },
            timeout,
            confirms_max: match class {
                Class::Confirmable => tries,
                // Doing it again is how such a step is settled after a crash: as often as one would ask.
                Class::Pure | Class::Idempotent => TRIES,
                Class::OneShot => 0,
            },
            adoptable,
            ..StepSpec::default()
        })
    }

    fn exec_step(&self, at: super::Place, exec: &StepExec, confirm: Option<&Confirm>) -> ExecStepSettings {
        ExecStepSettings {
            command: self.argv(&exec.command),
            dir: exec.dir.as_ref().map_or_else(|| self.dir(at).to_owned(), |path| self.path(path)),
            env: exec.env.clone(),
            confirm: confirm.map(|confirm| self.argv(&confirm.exec)),
        }
    }
}
