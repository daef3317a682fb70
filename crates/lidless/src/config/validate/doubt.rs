//! May a step be repeated when nobody knows what it did, and does somebody know?

use lidless_core::pipeline::plan::Class;

use super::super::model::{Given, Step, Work};
use super::super::node::Sp;
use super::super::problem::Problem;

/// Reports what could do harm after a crash.
pub(super) fn check(name: &str, step: &Step, problems: &mut Vec<Problem>) {
    doubt(name, step, problems);
    repetition(name, step, problems);
}

/// Who could look whether such a step took effect, as it is written.
fn looker(step: &Step) -> &'static str {
    match &step.work {
        Given::Good(Work::Http(_)) => "`confirm: { http: { url: URL } }`",
        Given::Good(_) | Given::Absent | Given::Broken => "`confirm: { exec: [PROGRAM] }`",
    }
}

/// Holds `class`, `confirm` and `value` against each other: what happens when an answer is lost must be clear beforehand.
fn doubt(name: &str, step: &Step, problems: &mut Vec<Problem>) {
    let Step { class, confirm, value, .. } = step;
    match (class, confirm) {
        (Given::Good(Sp { value: Class::Confirmable, at }), Given::Absent) => problems.push(
            Problem::error(
                "config::nothing_to_confirm",
                format!("`{name}` is confirmable and has no `confirm`"),
            )
            .at(*at, "who would be asked?")
            .help(format!(
                "add {}, which looks whether it took effect, or choose another class",
                looker(step)
            )),
        ),
        (
            Given::Good(Sp { value: class @ (Class::Pure | Class::Idempotent | Class::OneShot), at }),
            Given::Good(confirm),
        ) => {
            let word = word(*class);
            problems.push(
                Problem::error(
                    "config::class_and_confirm",
                    format!("`{name}` is {word} and has a `confirm`"),
                )
                .at(*at, "with this class it is never asked")
                .at(confirm.at, "who is asked")
                .help(format!(
                    "remove `class: {word}`: a step with `confirm` is confirmable; or remove `confirm`"
                )),
            );
        }
        (Given::Absent | Given::Good(Sp { value: Class::Pure | Class::Idempotent, .. }), Given::Absent) => {
            if let Some(at) = value {
                let confirm = format!("{}, which looks whether it did", looker(step));
                let help = match class.good() {
                    None => format!(
                        "add {confirm}; or `once: true`: then it is never repeated, and a person decides"
                    ),
                    Some(class) => format!(
                        "in place of `class: {}`, write {confirm}; or `once: true`: then it is never repeated, and a person decides",
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

fn repetition(name: &str, step: &Step, problems: &mut Vec<Problem>) {
    let (Given::Good(Sp { value: Class::OneShot, at: class }), Some(attempts)) =
        (&step.class, &step.attempts)
    else {
        return;
    };
    if attempts.value > 1 {
        problems.push(
            Problem::error("config::one_shot_repeated", format!("`{name}` is one_shot and has a `retry`"))
                .at(attempts.at, "a one-shot step is never repeated")
                .at(*class, "one-shot here")
                .help(format!("remove `retry`; or add {}, which looks whether it took effect", looker(step))),
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
