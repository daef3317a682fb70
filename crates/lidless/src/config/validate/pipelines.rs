//! Can each step keep its promise: is what it requires there, and may it be repeated when nobody knows what it did?

use std::collections::{HashMap, HashSet};

use lidless_core::pipeline::plan::Class;

use super::super::model::{Document, Given, Named, Step, Work};
use super::super::node::{Place, Sp};
use super::super::problem::Problem;
use super::dependencies::{SUGGESTIONS_MAX, suggest};

/// Reports steps that have one name, that require what is not there, or that could do harm after a crash.
pub(super) fn check(document: &Document, problems: &mut Vec<Problem>) {
    if document.pipelines.is_empty() {
        return;
    }
    let services: HashSet<&str> =
        document.services.iter().map(|service| service.name.value.as_str()).collect();
    let mut unknown = 0;
    for pipeline in &document.pipelines {
        let mut names: HashMap<&str, Place> = HashMap::new();
        for step in &pipeline.value.steps {
            match names.get(step.name.value.as_str()) {
                Some(first) => problems.push(same_name(&pipeline.name.value, &step.name, *first)),
                None => drop(names.insert(&step.name.value, step.name.at)),
            }
            doubt(step, problems);
            repetition(step, problems);
            let Given::Good(Work::Require(healthy)) = &step.value.work else { continue };
            for (at, name) in healthy.iter().enumerate() {
                if !services.contains(name.value.as_str()) {
                    unknown += 1;
                    let problem = Problem::error(
                        "config::unknown_service",
                        format!("`{}` requires a service that does not exist", step.name.value),
                    )
                    .at(name.at, "no service has this name");
                    let others = document.services.iter().filter(|_| unknown <= SUGGESTIONS_MAX);
                    problems.push(suggest(problem, others, &name.value, "healthy"));
                } else if healthy[..at].iter().any(|other| other.value == name.value) {
                    problems.push(
                        Problem::warning("config::no_effect", format!("`{}` is named twice", name.value))
                            .at(name.at, "once is enough")
                            .help("remove it"),
                    );
                }
            }
        }
    }
}

fn same_name(pipeline: &str, name: &Sp<String>, first: Place) -> Problem {
    Problem::error("config::duplicate_step", format!("`{pipeline}` has two steps `{}`", name.value))
        .at(name.at, "the second one")
        .at(first, "the first one")
        .help("give one of them another name: a run and its failures are told by step")
}

/// Holds `class`, `confirm` and `value` against each other: what happens when an answer is lost must be clear beforehand.
fn doubt(step: &Named<Step>, problems: &mut Vec<Problem>) {
    let name = &step.name.value;
    let Step { class, confirm, value, .. } = &step.value;
    match (class, confirm) {
        (Given::Good(Sp { value: Class::Confirmable, at }), Given::Absent) => problems.push(
            Problem::error("config::nothing_to_confirm", format!("`{name}` is confirmable and has no `confirm`"))
                .at(*at, "who would be asked?")
                .help("add `confirm: { exec: [PROGRAM] }`, which looks whether it took effect, or choose another class"),
        ),
        (
            Given::Good(Sp { value: class @ (Class::Pure | Class::Idempotent | Class::OneShot), at }),
            Given::Good(confirm),
        ) => {
            let word = word(*class);
            problems.push(
                Problem::error("config::class_and_confirm", format!("`{name}` is {word} and has a `confirm`"))
                    .at(*at, "with this class it is never asked")
                    .at(confirm.at, "who is asked")
                    .help(format!("remove `class: {word}`: a step with `confirm` is confirmable; or remove `confirm`")),
            );
        }
        (Given::Absent | Given::Good(Sp { value: Class::Pure | Class::Idempotent, .. }), Given::Absent) => {
            if let Some(at) = value {
                let confirm = "`confirm: { exec: [PROGRAM] }`, which looks whether it did";
                let help = match class.good() {
                    None => format!("add {confirm}; or `class: one_shot`: then it is never repeated, and a person decides"),
                    Some(class) => format!(
                        "in place of `class: {}`, write {confirm}; or `class: one_shot`: then it is never repeated, and a person decides",
                        word(class.value)
                    ),
                };
                problems.push(
                    Problem::error("config::value_in_doubt", format!("`{name}` could move value twice"))
                        .at(*at, "moves value, and nobody could tell after a crash whether it did")
                        .help(help),
                );
            }
        }
        (Given::Good(Sp { value: Class::OneShot, .. }), Given::Absent)
        | (Given::Good(Sp { value: Class::Confirmable, .. }) | Given::Absent, Given::Good(_))
        | (Given::Broken, _)
        | (_, Given::Broken) => {}
    }
}

fn repetition(step: &Named<Step>, problems: &mut Vec<Problem>) {
    let (Given::Good(Sp { value: Class::OneShot, at: class }), Some(attempts)) =
        (&step.value.class, &step.value.attempts)
    else {
        return;
    };
    if attempts.value > 1 {
        problems.push(
            Problem::error("config::one_shot_repeated", format!("`{}` is one_shot and has a `retry`", step.name.value))
                .at(attempts.at, "a one-shot step is never repeated")
                .at(*class, "one-shot here")
                .help("remove `retry`; or, in place of `class: one_shot`, add `confirm: { exec: [PROGRAM] }`, which looks whether it took effect"),
        );
    }
}

/// The word of the file.
fn word(class: Class) -> &'static str {
    match class {
        Class::Pure => "pure",
        Class::Idempotent => "idempotent",
        Class::Confirmable => "confirmable",
        Class::OneShot => "one_shot",
    }
}
