//! How is a pipeline put together? Named steps in their order, what is said about each, and where its runs are remembered.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use lidless_core::id::RunId;
use lidless_core::pipeline::plan::{Class, Plan, StepCall, StepSpec};
use lidless_core::spec::PipelineSpec;
use serde::Serialize;
use serde_json::Value;

use super::code::Code;
use super::composed::Composed;
use super::options::{StepOptions, opts};
use super::progress::Watcher;
use super::step::{IntoStep, Made};
use super::{PipelineError, Report, Seen};
use crate::runtime::code::{CodeSteps, KIND};

/// A pipeline of steps that are code of this program. Must be run within a tokio runtime that has its timer on.
///
/// See the [crate's own page](crate) for a first one.
#[must_use = "nothing is done before `run` or `open`"]
pub struct Pipeline {
    name: String,
    steps: Vec<(String, Made, StepOptions)>,
    inputs: BTreeMap<String, Value>,
    concurrency: u32,
    pub(super) store: Option<PathBuf>,
    pub(super) watcher: Option<Watcher>,
}

impl Pipeline {
    /// Begins a pipeline without steps.
    pub fn new(name: impl Into<String>) -> Pipeline {
        Pipeline {
            name: name.into(),
            steps: Vec::new(),
            inputs: BTreeMap::new(),
            concurrency: u32::MAX,
            store: None,
            watcher: None,
        }
    }

    /// Adds a step: an `async` function of a [`Context`](crate::Context), or a [`Step`](crate::Step).
    pub fn step<Form>(self, name: impl Into<String>, step: impl IntoStep<Form>) -> Pipeline {
        self.step_with(name, opts(), step)
    }

    /// Adds a step of which more is to be said.
    pub fn step_with<Form>(
        mut self,
        name: impl Into<String>,
        options: StepOptions,
        step: impl IntoStep<Form>,
    ) -> Pipeline {
        self.steps.push((name.into(), step.into_step(), options));
        self
    }

    /// Gives [`Pipeline::run`] an input.
    pub fn input(mut self, name: impl Into<String>, value: impl Into<Value>) -> Pipeline {
        self.inputs.insert(name.into(), value.into());
        self
    }

    /// Remembers runs in this file: whoever opens it after a crash settles and finishes what was under way. Without a store
    /// nothing outlives the program.
    pub fn store(mut self, path: impl Into<PathBuf>) -> Pipeline {
        self.store = Some(path.into());
        self
    }

    /// How many runs of it may be unfinished at once; a further one is refused. Default: as many as are asked for.
    pub fn concurrency(mut self, max: u32) -> Pipeline {
        self.concurrency = max.max(1);
        self
    }

    /// Has somebody told what happens, as soon as it is durable and before it has consequences. Called on the engine's own task,
    /// so it must not block.
    pub fn watch(mut self, watcher: impl Fn(RunId, &Seen) + Send + Sync + 'static) -> Pipeline {
        self.watcher = Some(Arc::new(watcher));
        self
    }

    /// Runs it once, and waits for its end. With a store, first finishes what an earlier program left unfinished.
    pub async fn run(mut self) -> Result<Report, PipelineError> {
        let inputs = std::mem::take(&mut self.inputs);
        let composed = self.open().await?;
        let report = match composed.settled_or_held().await {
            Ok(_) => composed.run(inputs).await,
            Err(err) => Err(err),
        };
        composed.close().await?;
        report
    }

    /// Goes on with a run of an earlier program at the step at which it failed, and waits for its end.
    pub async fn resume(self, run: RunId) -> Result<Report, PipelineError> {
        let composed = self.open().await?;
        // It may just have been under way.
        let settled = composed.settled().await;
        let report = match settled.map(|reports| reports.into_iter().find(|report| report.run == run)) {
            Ok(Some(report)) => Ok(report),
            Ok(None) => composed.resume(run).await,
            Err(err) => Err(err),
        };
        composed.close().await?;
        report
    }

    /// Makes it ready for many runs, also at once. With a store, takes up what an earlier program left unfinished.
    pub async fn open(self) -> Result<Composed, PipelineError> {
        Composed::open(self).await
    }

    /// Says what is wrong with it, without running it.
    pub fn check(&self) -> Result<(), PipelineError> {
        let pipeline = || self.name.clone();
        if self.steps.is_empty() {
            return Err(PipelineError::NoSteps { pipeline: pipeline() });
        }
        let mut names = HashSet::new();
        for (step, made, options) in &self.steps {
            let is_new = names.insert(step.as_str());
            let step = || step.clone();
            if !is_new {
                return Err(PipelineError::SameName { pipeline: pipeline(), step: step() });
            }
            let class = class(made, options);
            match class {
                Class::Pure | Class::Idempotent if options.value => {
                    return Err(PipelineError::Value { pipeline: pipeline(), step: step() });
                }
                Class::Confirmable if !can_confirm(made, options) => {
                    return Err(PipelineError::NoConfirm { pipeline: pipeline(), step: step() });
                }
                Class::Pure | Class::Idempotent | Class::Confirmable | Class::OneShot => {}
            }
        }
        Ok(())
    }

    /// The pipeline's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What the engine is to know of it: the steps in a row, and behind them those that take one back.
    pub(super) fn spec(&self) -> PipelineSpec {
        let mut steps = Vec::with_capacity(self.steps.len());
        let mut undos = Vec::new();
        for (index, (name, made, options)) in (0_u32..).zip(&self.steps) {
            let after: Vec<u32> = index.checked_sub(1).into_iter().collect();
            steps.push(StepSpec { after, ..step(name, class(made, options), options) });
            if let Some(undo) = &options.undo {
                let options = undo_options(options);
                // What takes a step back changes something, whatever it says of itself.
                let class = match class(undo, &options) {
                    Class::Pure => Class::Idempotent,
                    class @ (Class::Idempotent | Class::Confirmable | Class::OneShot) => class,
                };
                let spec = step(&undo_name(name), class, &options);
                undos.push(StepSpec { undoes: Some(index), ..spec });
            }
        }
        steps.extend(undos);
        let plan = Plan::new(steps).expect("each comes after, or takes back, one above it");
        PipelineSpec {
            name: self.name.clone(),
            plan: Arc::new(plan),
            concurrency: self.concurrency,
            ..PipelineSpec::default()
        }
    }

    /// What the driver is to call.
    pub(super) fn code(self) -> CodeSteps {
        let mut steps: HashMap<String, Arc<dyn lidless_drivers::step::Step>> = HashMap::new();
        for (name, made, options) in self.steps {
            if let Some(undo) = &options.undo {
                steps.insert(undo_name(&name), Arc::new(code(undo, &undo_options(&options))));
            }
            steps.insert(name, Arc::new(code(&made, &options)));
        }
        CodeSteps::of(&self.name, steps)
    }
}

/// What a failure of it names.
fn undo_name(step: &str) -> String {
    format!("undo {step}")
}

/// An undo has the time and the attempts of its step; who is asked about the one knows nothing of the other.
fn undo_options(options: &StepOptions) -> StepOptions {
    StepOptions { class: None, value: false, confirm: None, undo: None, ..options.clone() }
}

fn step(name: &str, class: Class, options: &StepOptions) -> StepSpec {
    StepSpec {
        name: name.to_owned(),
        call: StepCall::External { kind: KIND.to_owned(), settings: Arc::from("{}") },
        class,
        value: options.value,
        pivot: false,
        after: Vec::new(),
        undoes: None,
        when: None,
        approve: None,
        attempts_max: options.attempts,
        backoff: options.backoff,
        timeout: options.timeout,
        within: None,
        confirms_max: match class {
            Class::Pure | Class::Idempotent | Class::Confirmable => options.tries,
            Class::OneShot => 0,
        },
        adoptable: false,
    }
}

fn code(made: &Made, options: &StepOptions) -> Code {
    Code {
        work: Arc::clone(&made.work),
        confirm: options.confirm.clone(),
        strict: matches!(class(made, options), Class::Confirmable | Class::OneShot),
        timeout: options.timeout,
        can_confirm: can_confirm(made, options),
    }
}

fn class(made: &Made, options: &StepOptions) -> Class {
    let by_confirm = if options.confirm.is_some() { Class::Confirmable } else { Class::Idempotent };
    match made.class {
        // A type that says nothing is no reason not to ask whoever was named.
        Some(Class::Idempotent) | None => options.class.unwrap_or(by_confirm),
        Some(class) => options.class.unwrap_or(class),
    }
}

fn can_confirm(made: &Made, options: &StepOptions) -> bool {
    options.confirm.is_some() || made.class == Some(Class::Confirmable)
}

/// What a run is given: an object, as the journal keeps it; empty for nothing.
pub(super) fn inputs(pipeline: &str, inputs: impl Serialize) -> Result<String, PipelineError> {
    let wrong = |why: String| PipelineError::Inputs { pipeline: pipeline.to_owned(), why };
    match serde_json::to_value(inputs) {
        Ok(Value::Null) => Ok(String::new()),
        Ok(Value::Object(object)) if object.is_empty() => Ok(String::new()),
        Ok(Value::Object(object)) => Ok(Value::Object(object).to_string()),
        Ok(other) => Err(wrong(other.to_string())),
        Err(err) => Err(wrong(err.to_string())),
    }
}
