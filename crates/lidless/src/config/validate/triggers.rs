//! Does each trigger wait for something that there is, and never for what it begins itself?

use std::collections::{HashMap, HashSet};

use super::super::model::Document;
use super::super::node::Place;
use super::super::problem::Problem;
use super::calls::{no_pipeline, no_service};
use super::dependencies::cycles;

/// Reports triggers that never come, and those that never end.
pub(super) fn check(document: &Document, problems: &mut Vec<Problem>) {
    let services: HashSet<&str> =
        document.services.iter().map(|service| service.name.value.as_str()).collect();
    let pipelines = &document.pipelines;
    let index: HashMap<&str, usize> =
        pipelines.iter().enumerate().map(|(at, pipeline)| (pipeline.name.value.as_str(), at)).collect();
    let mut waits: Vec<Vec<(usize, Place)>> = vec![Vec::new(); pipelines.len()];
    let mut unknown = 0;
    for (at, pipeline) in pipelines.iter().enumerate() {
        let of = &pipeline.name.value;
        for name in pipeline.value.on_incident.iter().flat_map(|on| &on.services) {
            if !services.contains(name.value.as_str()) {
                unknown += 1;
                let what = format!("`{of}` waits for incidents of a service that does not exist");
                problems.push(no_service(document, what, name, "services", unknown));
            }
        }
        let Some(after) = &pipeline.value.after else { continue };
        match index.get(after.pipeline.value.as_str()) {
            Some(other) => waits[at].push((*other, after.pipeline.at)),
            None => {
                let what = format!("`{of}` comes after a pipeline that does not exist");
                problems.push(no_pipeline(document, what, &after.pipeline));
            }
        }
    }
    for cycle in cycles(&waits) {
        problems.push(say_cycle(document, &cycle));
    }
}

fn say_cycle(document: &Document, cycle: &[(usize, Place)]) -> Problem {
    let name = |at: usize| document.pipelines[at].name.value.as_str();
    let first = name(cycle[0].0);
    let message = match cycle {
        [_] => format!("`{first}` begins itself anew, for ever"),
        _ => format!("`{first}` begins itself anew, through others, for ever"),
    };
    let mut problem = Problem::error("config::trigger_cycle", message);
    for (at, (pipeline, place)) in cycle.iter().enumerate().take(10) {
        let other = name(cycle[(at + 1) % cycle.len()].0);
        problem = problem.at(*place, format!("`{}` comes after `{other}`", name(*pipeline)));
    }
    problem.help("remove one of these; what is to come again and again takes `every` or `cron`")
}
