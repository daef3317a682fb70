//! Does each pipeline make sense? Its names, and each of its steps; what looks further lies beside this.

use std::collections::HashMap;

use lidless_core::pipeline::plan::Class;

use super::super::model::{ConfirmBy, Document, Given, Named, Step, Work};
use super::super::node::{Place, Sp};
use super::super::problem::Problem;
use super::{calls, doubt, order, triggers};

/// Reports steps that have one name, that need what is not there, or that could do harm after a crash.
pub(super) fn check(document: &Document, problems: &mut Vec<Problem>) {
    if document.pipelines.is_empty() {
        return;
    }
    for pipeline in &document.pipelines {
        let mut names: HashMap<&str, Place> = HashMap::new();
        for step in &pipeline.value.steps {
            match names.get(step.name.value.as_str()) {
                Some(first) => problems.push(same_name(&pipeline.name.value, &step.name, *first)),
                None => drop(names.insert(&step.name.value, step.name.at)),
            }
            one(&step.name.value, &step.value, problems);
            if let Some(undo) = &step.value.undo {
                let name = format!("{}/undo", step.name.value);
                one(&name, &undo.value, problems);
                way_back(&name, &undo.value, undo.at, problems);
                pivot(step, undo.at, problems);
            }
        }
        order::check(&pipeline.value.steps, problems);
        if let (Some(lock), Some(concurrency)) = (&pipeline.value.lock, &pipeline.value.concurrency)
            && concurrency.value > 1
        {
            problems.push(
                Problem::warning("config::no_effect", "`concurrency` has no effect beside `lock`")
                    .at(concurrency.at, "more than one at once")
                    .at(lock.at, "one at a time")
                    .help("remove one of them"),
            );
        }
    }
    calls::check(document, problems);
    triggers::check(document, problems);
}

/// Reports what is wrong with one step, or with what takes one back, by itself.
fn one(name: &str, step: &Step, problems: &mut Vec<Problem>) {
    doubt::check(name, step, problems);
    let (Given::Good(work), Given::Good(confirm)) = (&step.work, &step.confirm) else { return };
    let (is, by, help) = match (work, &confirm.by) {
        (Work::Exec(_), ConfirmBy::Http(_)) => {
            ("a command", "a request", "write `confirm: { exec: [PROGRAM] }`, a command that only looks")
        }
        (Work::Http(_), ConfirmBy::Exec(_)) => (
            "done over HTTP",
            "a command",
            "write `confirm: { http: { url: URL } }`, a request that changes nothing",
        ),
        (Work::Exec(_), ConfirmBy::Exec(_))
        | (Work::Http(_), ConfirmBy::Http(_))
        | (Work::Require(_) | Work::Nothing | Work::Wait(_) | Work::Service(..) | Work::Pipeline(_), _) => {
            return;
        }
    };
    problems.push(
        Problem::error("config::confirm_of_other_kind", format!("`{name}` is {is}, and asked about by {by}"))
            .at(confirm.at, "of another kind than the step")
            .help(help),
    );
}

/// Reports what cannot take a step back: it must be called outside, and change something.
fn way_back(name: &str, undo: &Step, at: Place, problems: &mut Vec<Problem>) {
    let does = match undo.work.good() {
        None | Some(Work::Exec(_) | Work::Http(_)) => None,
        Some(Work::Require(_)) => Some("only asks whether services are well"),
        Some(Work::Nothing) => Some("waits for a person"),
        Some(Work::Wait(_)) => Some("lets time go by"),
        Some(Work::Service(..)) => Some("acts on a service"),
        Some(Work::Pipeline(_)) => Some("is another pipeline"),
    };
    if let Some(does) = does {
        problems.push(
            Problem::error("config::no_way_back", format!("`{name}` {does}: that takes nothing back"))
                .at(at, "what is to take the step back")
                .help("write `undo: { exec: [PROGRAM] }` or `undo: { http: { url: URL } }`"),
        );
    }
    if let Given::Good(Sp { value: Class::Pure, at }) = &undo.class {
        problems.push(
            Problem::error("config::no_way_back", format!("`{name}` is pure: that takes nothing back"))
                .at(*at, "pure means that it changes nothing")
                .help("remove `class: pure`"),
        );
    }
}

fn pivot(step: &Named<Step>, undo: Place, problems: &mut Vec<Problem>) {
    let Some(pivot) = step.value.pivot else { return };
    problems.push(
        Problem::error(
            "config::pivot_undone",
            format!("`{}` can be taken back, and leaves no way back", step.name.value),
        )
        .at(pivot, "no way back behind this step")
        .at(undo, "the way back")
        .help("remove `pivot`, or remove `undo`"),
    );
}

fn same_name(pipeline: &str, name: &Sp<String>, first: Place) -> Problem {
    Problem::error("config::duplicate_step", format!("`{pipeline}` has two steps `{}`", name.value))
        .at(name.at, "the second one")
        .at(first, "the first one")
        .help("give one of them another name: a run and its failures are told by step")
}
