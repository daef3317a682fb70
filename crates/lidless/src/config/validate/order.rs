//! Does each step come after steps that stand above it, and look only at what is there by then?

use std::collections::HashMap;

use super::super::model::{Given, Named, Step};
use super::super::node::{Place, Sp};
use super::super::problem::Problem;
use super::super::units::nearest;

/// Reports steps that wait for, or look at, what cannot be done by then.
pub(super) fn check(steps: &[Named<Step>], problems: &mut Vec<Problem>) {
    let mut at: HashMap<&str, usize> = HashMap::new();
    for (index, step) in steps.iter().enumerate() {
        at.entry(step.name.value.as_str()).or_insert(index);
    }
    let before = right_before(steps, &at);
    for (index, step) in steps.iter().enumerate() {
        let above = &steps[..index];
        if let Given::Good(after) = &step.value.after {
            for (place, name) in after.iter().enumerate() {
                if let Some(problem) =
                    misplaced(step, name, at.get(name.value.as_str()).copied(), above, "waits for")
                {
                    problems.push(problem);
                } else if after[..place].iter().any(|other| other.value == name.value) {
                    problems.push(
                        Problem::warning("config::no_effect", format!("`{}` is named twice", name.value))
                            .at(name.at, "once is enough")
                            .help("remove it"),
                    );
                }
            }
        }
        let Some(when) = &step.value.when else { continue };
        let mut named: Vec<&str> = when.value.1.steps();
        named.sort_unstable();
        named.dedup();
        for name in named {
            let name = Sp { value: name.to_owned(), at: when.at };
            let found = at.get(name.value.as_str()).copied();
            match (misplaced(step, &name, found, above, "looks at"), found) {
                (Some(problem), _) => problems.push(problem),
                (None, Some(found)) if !is_over(found, index, &before) => {
                    problems.push(not_before(step, &name, steps[found].name.at));
                }
                (None, Some(_) | None) => {}
            }
        }
    }
}

/// For each step, those that it comes right after.
fn right_before(steps: &[Named<Step>], at: &HashMap<&str, usize>) -> Vec<Vec<usize>> {
    let direct = steps.iter().enumerate().map(|(index, step)| match &step.value.after {
        Given::Absent | Given::Broken => index.checked_sub(1).into_iter().collect(),
        Given::Good(after) => {
            let named = after.iter().filter_map(|name| at.get(name.value.as_str()).copied());
            named.filter(|other| *other < index).collect()
        }
    });
    direct.collect()
}

/// Whether a step is over when a later one begins. Found out where it is asked: of ten thousand steps in a row, all that are over
/// by each would be fifty million.
fn is_over(earlier: usize, later: usize, before: &[Vec<usize>]) -> bool {
    let (mut seen, mut open) = (vec![false; later - earlier], before[later].clone());
    while let Some(step) = open.pop() {
        if step == earlier {
            return true;
        }
        // What stands above it comes after none that it is asked about.
        if step > earlier && !std::mem::replace(&mut seen[step - earlier], true) {
            open.extend(&before[step]);
        }
    }
    false
}

/// Says what is wrong with the name of a step that should stand above.
fn misplaced(
    step: &Named<Step>,
    name: &Sp<String>,
    found: Option<usize>,
    above: &[Named<Step>],
    does: &str,
) -> Option<Problem> {
    let (of, called) = (&step.name.value, &name.value);
    let index = above.len();
    match found {
        Some(found) if found < index => None,
        Some(found) if found == index => Some(
            Problem::error("config::step_below", format!("`{of}` {does} itself"))
                .at(name.at, "the step itself")
                .help("name steps above it"),
        ),
        Some(_) => Some(
            Problem::error("config::step_below", format!("`{of}` {does} `{called}`, which stands below it"))
                .at(name.at, "stands below")
                .help(format!("move `{called}` above `{of}`: a step comes after steps above it only")),
        ),
        None => {
            let near = nearest(called, above.iter().map(|step| step.name.value.as_str()));
            let problem =
                Problem::error("config::unknown_step", format!("`{of}` names a step that does not exist"))
                    .at(name.at, format!("no step is named `{called}`"));
            Some(problem.help(match near {
                Some(near) => format!("write `{near}`"),
                None => "name a step above it".to_owned(),
            }))
        }
    }
}

fn not_before(step: &Named<Step>, name: &Sp<String>, other: Place) -> Problem {
    let (of, called) = (&step.name.value, &name.value);
    Problem::error(
        "config::not_before",
        format!("`{of}` looks at what `{called}` put out, and does not come after it"),
    )
    .at(name.at, "may not be there yet")
    .at(other, "may still be at work by then")
    .help(format!("add `{called}` to `after` of `{of}`"))
}
