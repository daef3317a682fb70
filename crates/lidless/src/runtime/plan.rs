//! What would a run do now? Each step is asked; nothing is done, and nothing recorded.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use lidless_core::effect::Refusal;
use lidless_core::id::RunId;
use lidless_core::pipeline::plan::{Purpose, StepCall, StepSpec};
use lidless_core::pipeline::run::Run;
use lidless_drivers::check::BoxFuture;
use lidless_drivers::step::when::When;
use lidless_drivers::step::{Call, Host, Log, Step};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::code;
use super::effects::Attempt;
use super::handle::View;
use super::outputs::Outputs;
use super::steps;
use crate::words::span;

/// How long a step may think about what it would do.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What one step would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepPlan {
    /// Its name.
    pub name: String,
    /// What would become of it.
    pub would: Would,
    /// One line for people: "would run ./book".
    pub text: String,
}

/// What would become of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Would {
    /// It would be done.
    Do,
    /// It would be done if what its `when` asks holds by then.
    Depend,
    /// It would be skipped.
    Skip,
    /// It would fail, or wait for somebody to help.
    Fail,
    /// Nobody can tell before it is its turn.
    Unknown,
}

/// A plan that steps outside may still have to be asked about.
pub struct Draft(Vec<Line>);

enum Line {
    Said(StepPlan),
    Ask { name: String, would: Would, before: String, behind: String, step: Arc<dyn Step>, call: Box<Call> },
}

/// Reads off what a run with these inputs would begin with; an `Err` says why it would not begin at all.
pub fn draft(view: &View<'_>, pipeline: &str, inputs: &str, from: Option<&str>) -> Result<Draft, Refusal> {
    let state = view.engine.state();
    let spec = state.spec.pipelines.iter().find(|spec| spec.name == pipeline).ok_or(Refusal::NotFound)?;
    let from = match from {
        None => 0,
        Some(from) => {
            let found = spec.plan.forward().iter().position(|step| step.name == from);
            found.ok_or(Refusal::NotNow("it has no step of that name to begin at"))?
        }
    };
    let purpose = Purpose::Pipeline { name: pipeline.to_owned(), by: String::new() };
    let mut run = Run::new(RunId(state.next_run.max(1)), purpose, Arc::clone(&spec.plan), view.now);
    run.inputs = Arc::from(inputs);
    let given = if inputs.is_empty() { "{}" } else { inputs };
    let given: Value = serde_json::from_str(given).unwrap_or_default();
    let lines = (0_u32..).zip(spec.plan.forward()).map(|(index, step)| {
        let name = step.name.clone();
        let said = |would, text| Line::Said(StepPlan { name: name.clone(), would, text });
        if (index as usize) < from {
            let first = &spec.plan.forward()[from].name;
            return said(Would::Skip, format!("would be skipped: the run begins at {first}"));
        }
        let (would, behind) = match condition(step, &given) {
            Condition::Holds => (Would::Do, String::new()),
            Condition::Open(when) => (Would::Depend, format!(", if {when}")),
            Condition::Fails(when) => return said(Would::Skip, format!("would be skipped: not {when}")),
            Condition::Wrong(why) => return said(Would::Fail, format!("would fail: {why}")),
        };
        let before = step.approve.as_ref().map_or_else(String::new, |approve| {
            let ask = if approve.ask.is_empty() { String::new() } else { format!(": {}", approve.ask) };
            format!("would ask a person, for {}{ask}; then ", span(approve.within))
        });
        let does = |what: String| said(would, format!("{before}would {what}{behind}"));
        match &step.call {
            StepCall::Nothing => does("go on".to_owned()),
            StepCall::Wait { time } => does(format!("wait {}", span(*time))),
            StepCall::Service { service, action } => {
                does(format!("{} {service}, and wait until it is well", action.word()))
            }
            StepCall::Act { action, .. } => does(format!("{} the service", action.word())),
            StepCall::Verify { .. } => does("wait until the service is well".to_owned()),
            StepCall::Require { healthy } => {
                let unwell = state.unwell(healthy);
                if unwell.is_empty() {
                    does(format!("go on (healthy: {})", healthy.join(", ")))
                } else {
                    said(Would::Fail, format!("would fail now: {}", unwell.join("; ")))
                }
            }
            StepCall::External { kind, .. } if kind == code::KIND => does("call its function".to_owned()),
            StepCall::External { .. } => match steps::step(step, view.plugins) {
                Ok(implementation) => {
                    let of = Attempt { run: run.id, step: index, attempt: 1 };
                    let call = Box::new(steps::call(&run, step, of, Outputs::default().of(&run, of.step)));
                    Line::Ask { name, would, before, behind, step: implementation, call }
                }
                Err(why) => said(Would::Fail, format!("would be parked: {why}")),
            },
        }
    });
    Ok(Draft(lines.collect()))
}

enum Condition {
    Holds,
    Open(String),
    Fails(String),
    Wrong(String),
}

/// Whether a step's condition holds, as far as what the run is given tells.
fn condition(step: &StepSpec, inputs: &Value) -> Condition {
    let Some(text) = step.when.as_deref() else { return Condition::Holds };
    match When::parse(text) {
        Err(err) => Condition::Wrong(err.to_string()),
        Ok(when) if !when.steps().is_empty() => Condition::Open(text.to_owned()),
        Ok(when) => match when.holds(inputs, &Value::Object(serde_json::Map::new())) {
            Ok(true) => Condition::Holds,
            Ok(false) => Condition::Fails(text.to_owned()),
            Err(why) => Condition::Wrong(why),
        },
    }
}

impl Draft {
    /// Asks the steps, one after the other.
    pub async fn ask(self) -> Vec<StepPlan> {
        let mut plans = Vec::with_capacity(self.0.len());
        for line in self.0 {
            plans.push(match line {
                Line::Said(plan) => plan,
                Line::Ask { name, would, before, behind, step, call } => {
                    let (would, text) = match ask(step.as_ref(), &call).await {
                        Ok(Some(text)) => (would, format!("{before}would {text}{behind}")),
                        Ok(None) => (would, format!("{before}would be called, and tells no more{behind}")),
                        Err(why) => (Would::Unknown, format!("{before}cannot tell yet: {why}{behind}")),
                    };
                    StepPlan { name, would, text }
                }
            });
        }
        plans
    }
}

async fn ask(step: &dyn Step, call: &Call) -> Result<Option<String>, String> {
    let asking = AssertUnwindSafe(step.plan(call, ANSWER_WITHIN, &Nobody)).catch_unwind();
    match tokio::time::timeout(ANSWER_WITHIN, asking).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err("a bug in lidless: the step panicked".to_owned()),
        Err(_) => Err(format!("it did not answer within {}", span(ANSWER_WITHIN))),
    }
}

/// Keeps nothing: a plan lets nothing out.
struct Nobody;

impl Log for Nobody {
    fn line(&self, line: &str) {
        tracing::debug!(line, "Said while it was asked what it would do.");
    }
}

impl Host for Nobody {
    fn keep<'a>(&'a self, _handle: &'a Value) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(std::future::ready(Err("nothing is let out of a plan".to_owned())))
    }
}
