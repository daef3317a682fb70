//! Is what steps require, act on and take up there, and can it be done? Services and other pipelines.

use std::collections::{BTreeMap, HashMap};

use lidless_core::spec::Action;

use super::super::model::{Document, Given, Named, Run, Service, Work};
use super::super::node::{Place, Sp};
use super::super::problem::Problem;
use super::super::units::nearest;
use super::dependencies::{SUGGESTIONS_MAX, cycles, suggest};

/// More steps than this in one pipeline, with those that it takes up, are a mistake.
const STEPS_MAX: usize = 20_000;

/// Reports steps whose services or pipelines are not there, or cannot do what is asked.
pub(super) fn check(document: &Document, problems: &mut Vec<Problem>) {
    let services: HashMap<&str, &Named<Service>> =
        document.services.iter().map(|service| (service.name.value.as_str(), service)).collect();
    let mut unknown = 0;
    for pipeline in &document.pipelines {
        for step in &pipeline.value.steps {
            let undo = step.value.undo.as_ref().and_then(|undo| undo.value.work.good());
            for work in step.value.work.good().into_iter().chain(undo) {
                let of = step.name.value.as_str();
                match work {
                    Work::Require(healthy) => {
                        for (at, name) in healthy.iter().enumerate() {
                            if !services.contains_key(name.value.as_str()) {
                                unknown += 1;
                                let what = format!("`{of}` requires a service that does not exist");
                                problems.push(no_service(document, what, name, "healthy", unknown));
                            } else if healthy[..at].iter().any(|other| other.value == name.value) {
                                problems.push(
                                    Problem::warning(
                                        "config::no_effect",
                                        format!("`{}` is named twice", name.value),
                                    )
                                    .at(name.at, "once is enough")
                                    .help("remove it"),
                                );
                            }
                        }
                    }
                    Work::Service(action, name) => match services.get(name.value.as_str()) {
                        None => {
                            unknown += 1;
                            let what = format!("`{of}` acts on a service that does not exist");
                            problems.push(no_service(document, what, name, action.word(), unknown));
                        }
                        Some(service) => acts(of, *action, name, service, problems),
                    },
                    Work::Nothing | Work::Wait(_) | Work::Pipeline(_) | Work::Exec(_) | Work::Http(_) => {}
                    Work::Plugin(plugin) => problems.extend(no_plugin(document, of, &plugin.name)),
                }
            }
        }
    }
    within_each_other(document, problems);
}

/// Says that there is no such service; `count` of these were found so far.
pub(super) fn no_service(
    document: &Document,
    what: String,
    name: &Sp<String>,
    key: &str,
    count: usize,
) -> Problem {
    let problem = Problem::error("config::unknown_service", what).at(name.at, "no service has this name");
    let others = document.services.iter().filter(|_| count <= SUGGESTIONS_MAX);
    suggest(problem, others, &name.value, key)
}

fn no_plugin(document: &Document, of: &str, name: &Sp<String>) -> Option<Problem> {
    let mut names = document.plugins.iter().map(|plugin| plugin.name.value.as_str());
    if names.clone().any(|known| known == name.value) {
        return None;
    }
    let help = match nearest(&name.value, &mut names) {
        Some(near) => format!("write `{near}`"),
        None => {
            format!("say at the top what it is: `plugins: {{ {}: {{ command: [PROGRAM] }} }}`", name.value)
        }
    };
    let what = format!("`{of}` is done by a plugin that does not exist");
    Some(Problem::error("config::unknown_plugin", what).at(name.at, "no plugin has this name").help(help))
}

fn acts(of: &str, action: Action, name: &Sp<String>, service: &Named<Service>, problems: &mut Vec<Problem>) {
    let word = action.word();
    match &service.value.run {
        Given::Broken | Given::Good(Run::Process(_) | Run::Systemd(_)) => {}
        Given::Absent => problems.push(
            Problem::error("config::nothing_acts", format!("nothing can {word} `{}`", name.value))
                .at(name.at, format!("`{of}` is to {word} it"))
                .at(service.name.at, "no `run` in this service")
                .help("add `run: { systemd: UNIT }`, `run: { process: ... }` or `run: { exec: ... }` to it"),
        ),
        Given::Good(Run::Exec(exec)) => {
            if action == Action::Reload && exec.reload.is_none() {
                problems.push(
                    Problem::error(
                        "config::cannot_reload",
                        format!("`{}` has no command for a reload", name.value),
                    )
                    .at(name.at, "asks for a reload")
                    .at(exec.restart[0].at, "only a `restart` command here")
                    .help("add `reload: [...]` under `run.exec`, or write `restart`"),
                );
            }
        }
    }
}

/// Says that there is no such pipeline.
pub(super) fn no_pipeline(document: &Document, what: String, name: &Sp<String>) -> Problem {
    let near = nearest(&name.value, document.pipelines.iter().map(|other| other.name.value.as_str()));
    let problem = Problem::error("config::unknown_pipeline", what).at(name.at, "no pipeline has this name");
    problem.help(match near {
        Some(near) => format!("write `{near}`"),
        None => format!("add a pipeline `{}`", name.value),
    })
}

/// Looks at pipelines that take up the steps of others.
fn within_each_other(document: &Document, problems: &mut Vec<Problem>) {
    let pipelines = &document.pipelines;
    let index: HashMap<&str, usize> =
        pipelines.iter().enumerate().map(|(at, pipeline)| (pipeline.name.value.as_str(), at)).collect();
    let mut takes: Vec<Vec<(usize, Place)>> = vec![Vec::new(); pipelines.len()];
    for (at, pipeline) in pipelines.iter().enumerate() {
        for step in &pipeline.value.steps {
            let Given::Good(Work::Pipeline(name)) = &step.value.work else { continue };
            match index.get(name.value.as_str()) {
                Some(other) => takes[at].push((*other, name.at)),
                None => {
                    let what = format!("`{}` takes up a pipeline that does not exist", step.name.value);
                    problems.push(no_pipeline(document, what, name));
                }
            }
        }
    }
    let cycles = cycles(&takes);
    if !cycles.is_empty() {
        problems.extend(cycles.iter().map(|cycle| say_cycle(document, cycle)));
        return;
    }
    let mut sums: Vec<Option<Sum<'_>>> = vec![None; pipelines.len()];
    for at in 0..pipelines.len() {
        sum(document, &takes, at, &mut sums, problems);
    }
}

fn say_cycle(document: &Document, cycle: &[(usize, Place)]) -> Problem {
    let name = |at: usize| document.pipelines[at].name.value.as_str();
    let message = match cycle {
        [(only, _)] => format!("`{}` takes up itself", name(*only)),
        _ => format!("`{}` takes up itself, through others", name(cycle[0].0)),
    };
    let mut problem = Problem::error("config::pipeline_in_itself", message);
    for (at, (pipeline, place)) in cycle.iter().enumerate().take(10) {
        let other = name(cycle[(at + 1) % cycle.len()].0);
        problem = problem.at(*place, format!("`{}` takes up `{other}`", name(*pipeline)));
    }
    problem.help("remove one of these: such a run would never end")
}

/// What a pipeline comes to, with those that it takes up.
#[derive(Clone)]
struct Sum<'d> {
    steps: usize,
    locks: BTreeMap<&'d str, Place>,
}

/// Adds up a pipeline. There are no circles, and the file nests no deeper than it has pipelines.
fn sum<'d>(
    document: &'d Document,
    takes: &[Vec<(usize, Place)>],
    at: usize,
    sums: &mut [Option<Sum<'d>>],
    problems: &mut Vec<Problem>,
) {
    let mut open = vec![at];
    // A stack of our own: a chain of pipelines must not overflow the thread's.
    while let Some(at) = open.last().copied() {
        if sums[at].is_some() {
            open.pop();
            continue;
        }
        let missing: Vec<usize> =
            takes[at].iter().map(|(other, _)| *other).filter(|other| sums[*other].is_none()).collect();
        if !missing.is_empty() {
            open.extend(missing);
            continue;
        }
        let pipeline = &document.pipelines[at];
        let mut whole = Sum { steps: pipeline.value.steps.len() - takes[at].len(), locks: BTreeMap::new() };
        if let Some(lock) = &pipeline.value.lock {
            whole.locks.insert(&lock.value, lock.at);
        }
        let mut known = false;
        for (other, place) in &takes[at] {
            let Some(inner) = &sums[*other] else { continue };
            whole.steps = whole.steps.saturating_add(inner.steps);
            known |= inner.locks.len() > 1 || inner.steps > STEPS_MAX;
            for lock in inner.locks.keys() {
                whole.locks.entry(lock).or_insert(*place);
            }
        }
        let name = &pipeline.name.value;
        if !known && whole.steps > STEPS_MAX {
            problems.push(
                Problem::error("config::too_many_steps", format!("`{name}` has more than {STEPS_MAX} steps"))
                    .at(pipeline.name.at, format!("{} with those that it takes up", whole.steps))
                    .help("let one pipeline begin another instead: `after: { pipeline: NAME }`"),
            );
        }
        let mut locks = whole.locks.iter();
        if let (false, Some((one, first)), Some((two, second))) = (known, locks.next(), locks.next()) {
            problems.push(
                Problem::error("config::two_locks", format!("two locks meet in `{name}`: `{one}` and `{two}`"))
                    .at(*second, format!("`{two}` comes from here"))
                    .at(*first, format!("`{one}` comes from here"))
                    .help("a run holds one lock: give both pipelines the same, or let one begin the other with `after`"),
            );
        }
        sums[at] = Some(whole);
        open.pop();
    }
}
