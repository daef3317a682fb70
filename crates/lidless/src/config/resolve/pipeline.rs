//! What does a run of a pipeline do, in which order, and what begins one? What is pinned in the journal is made here.

use std::collections::HashMap;
use std::sync::Arc;

use lidless_core::pipeline::plan::{Plan, StepSpec};
use lidless_core::spec::PipelineSpec;
use lidless_core::trigger::Trigger;

use super::super::model::{Given, Named, Pipeline, Work};
use super::super::problem::Problem;
use super::super::settings::{HookSettings, PipelineSettings};
use super::{Resolver, dedup};
use crate::schedule;

/// So much of the hash is as good as all of it here, and can be read out.
const DEFINITION_LENGTH: usize = 32;

/// Pipelines by their names.
pub(super) type ByName<'d> = HashMap<&'d str, &'d Named<Pipeline>>;

/// The steps of a run, as they are laid out one by one.
#[derive(Default)]
struct Laid {
    forward: Vec<StepSpec>,
    /// Each with the step that it takes back.
    back: Vec<StepSpec>,
    lock: Option<String>,
}

impl Resolver<'_> {
    /// Fills in a pipeline.
    pub(super) fn pipeline(
        &mut self,
        pipeline: &Named<Pipeline>,
        all: &ByName<'_>,
    ) -> (PipelineSpec, PipelineSettings) {
        let name = &pipeline.name.value;
        let mut laid = Laid::default();
        self.lay_out(pipeline, all, "", &[], &mut laid);
        let Laid { mut forward, back, lock } = laid;
        forward.extend(back);
        let mut plan = Plan::new(forward).unwrap_or_else(|why| {
            // Validation has refused every file in which this could be so.
            self.problems.push(
                Problem::error("config::bug", format!("`{name}` cannot be planned: {why}"))
                    .at(pipeline.name.at, "this pipeline")
                    .help("this is a bug in lidless: please report it"),
            );
            Plan::default()
        });
        (plan.lock, plan.deadline) = (lock, pipeline.value.deadline);
        plan.definition = definition(&plan);
        let hook = pipeline.value.hook.as_ref().map(|source| HookSettings { secret: self.secret(source) });
        (
            PipelineSpec {
                name: name.clone(),
                plan: Arc::new(plan),
                concurrency: pipeline.value.concurrency.as_ref().map_or(1, |count| count.value),
                triggers: self.triggers(&pipeline.value),
            },
            PipelineSettings { name: name.clone(), title: pipeline.value.title.clone(), hook },
        )
    }

    /// Lays a pipeline's steps out behind others; returns those that nothing of it comes after.
    fn lay_out(
        &mut self,
        pipeline: &Named<Pipeline>,
        all: &ByName<'_>,
        prefix: &str,
        begin: &[u32],
        laid: &mut Laid,
    ) -> Vec<u32> {
        if let Some(lock) = &pipeline.value.lock {
            laid.lock = Some(lock.value.clone());
        }
        let mut ends: HashMap<&str, Vec<u32>> = HashMap::new();
        let mut above: Vec<u32> = begin.to_vec();
        let mut last: Vec<u32> = Vec::new();
        for step in &pipeline.value.steps {
            let mut after = match &step.value.after {
                Given::Absent | Given::Broken => above.clone(),
                Given::Good(names) if names.is_empty() => begin.to_vec(),
                Given::Good(names) => {
                    names.iter().filter_map(|name| ends.get(name.value.as_str())).flatten().copied().collect()
                }
            };
            after.sort_unstable();
            after.dedup();
            last.retain(|end| !after.contains(end));
            let end = match &step.value.work {
                Given::Good(Work::Pipeline(name)) => match all.get(name.value.as_str()) {
                    Some(inner) => {
                        let prefix = format!("{prefix}{}/", step.name.value);
                        self.lay_out(inner, all, &prefix, &after, laid)
                    }
                    None => Vec::new(),
                },
                Given::Good(_) | Given::Absent | Given::Broken => {
                    let name = format!("{prefix}{}", step.name.value);
                    let Some(spec) = self.step(step.name.at, name.clone(), &step.value) else { continue };
                    let index = u32::try_from(laid.forward.len()).unwrap_or(u32::MAX);
                    laid.forward.push(StepSpec { after, ..spec });
                    if let Some(undo) = &step.value.undo {
                        let spec = self.step(undo.at, format!("{name}/undo"), &undo.value);
                        laid.back.extend(spec.map(|spec| StepSpec { undoes: Some(index), ..spec }));
                    }
                    vec![index]
                }
            };
            last.extend(&end);
            above.clone_from(&end);
            ends.insert(&step.name.value, end);
        }
        last
    }

    fn triggers(&mut self, pipeline: &Pipeline) -> Vec<Trigger> {
        let mut triggers = Vec::new();
        triggers.extend(pipeline.every.map(|every| Trigger::Every { every }));
        if let Some(cron) = &pipeline.cron {
            let zone = cron.zone.clone().or_else(schedule::own_zone).unwrap_or_else(|| {
                self.problems.push(
                    Problem::error("config::unknown_zone", "this machine's zone has no name")
                        .at(cron.at.at, "by which clock?")
                        .help(format!("write `cron: {{ at: \"{}\", zone: Europe/Lisbon }}`", cron.at.value)),
                );
                String::new()
            });
            let expression = cron.at.value.clone();
            triggers.push(Trigger::Cron { expression, zone, catch_up: cron.catch_up });
        }
        triggers.extend(
            pipeline
                .on_incident
                .as_ref()
                .map(|on| Trigger::Incident { services: dedup(&on.services), when: on.when }),
        );
        triggers.extend(
            pipeline
                .after
                .as_ref()
                .map(|after| Trigger::Run { pipeline: after.pipeline.value.clone(), when: after.when }),
        );
        triggers
    }
}

/// Returns the hash of what a run would do. It takes in all that is pinned, and nothing else of the configuration.
fn definition(plan: &Plan) -> String {
    // A tree of `Value` has its keys in order, whatever the order of fields in the code.
    let canonical = serde_json::to_value(plan).map(|value| value.to_string()).unwrap_or_default();
    let mut hex = blake3::hash(canonical.as_bytes()).to_hex().to_string();
    hex.truncate(DEFINITION_LENGTH);
    hex
}
