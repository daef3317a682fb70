//! Does every `depends_on` lead somewhere, and never back to where it began?

use std::collections::HashMap;

use super::super::model::{Document, Named, Service};
use super::super::node::Place;
use super::super::problem::Problem;
use super::super::units::nearest;

/// Looking for a near name costs a pass over all names; after this many, the reader has got the point.
pub(super) const SUGGESTIONS_MAX: usize = 20;

/// Reports unknown names, names given twice and cycles.
pub(super) fn check(document: &Document, problems: &mut Vec<Problem>) {
    let index: HashMap<&str, usize> =
        document.services.iter().enumerate().map(|(at, service)| (service.name.value.as_str(), at)).collect();
    let mut needs: Vec<Vec<(usize, Place)>> = vec![Vec::new(); document.services.len()];
    let mut unknown = 0;
    for (at, service) in document.services.iter().enumerate() {
        for name in &service.value.depends_on {
            match index.get(name.value.as_str()) {
                Some(&need) if needs[at].iter().any(|(known, _)| *known == need) => problems.push(
                    Problem::warning("config::no_effect", format!("`{}` is named twice", name.value))
                        .at(name.at, "once is enough")
                        .help("remove it"),
                ),
                Some(&need) => needs[at].push((need, name.at)),
                None => {
                    unknown += 1;
                    problems.push(unknown_service(
                        document,
                        at,
                        &name.value,
                        name.at,
                        unknown <= SUGGESTIONS_MAX,
                    ));
                }
            }
        }
    }
    for cycle in cycles(&needs) {
        problems.push(say_cycle(document, &cycle));
    }
}

fn unknown_service(document: &Document, service: usize, name: &str, at: Place, suggesting: bool) -> Problem {
    let service = &document.services[service].name.value;
    let problem = Problem::error(
        "config::unknown_service",
        format!("`{service}` depends on a service that does not exist"),
    )
    .at(at, "no service has this name");
    let others = document.services.iter().filter(|other| suggesting && other.name.value != *service);
    suggest(problem, others, name, "depends_on")
}

/// Says what helps against the name of a service that does not exist: the near one of these, or to leave it out of `key`.
pub(super) fn suggest<'d>(
    problem: Problem,
    services: impl Iterator<Item = &'d Named<Service>> + Clone,
    name: &str,
    key: &str,
) -> Problem {
    let near = nearest(name, services.clone().map(|service| service.name.value.as_str()));
    match near.and_then(|near| services.clone().find(|service| service.name.value == near)) {
        Some(near) => problem
            .at(near.name.at, "did you mean this one?")
            .help(format!("write `{}`, or add a service `{name}`", near.name.value)),
        None => problem.help(format!("add a service `{name}`, or remove it from `{key}`")),
    }
}

/// Returns one cycle for each way back that a walk finds: the services in it with the place that names the next one.
pub(super) fn cycles(needs: &[Vec<(usize, Place)>]) -> Vec<Vec<(usize, Place)>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        No,
        Open,
        Done,
    }
    let mut seen = vec![Seen::No; needs.len()];
    let mut found = Vec::new();
    for root in 0..needs.len() {
        if seen[root] != Seen::No {
            continue;
        }
        seen[root] = Seen::Open;
        // A stack of our own: a chain of 10,000 services must not overflow the thread's.
        let mut path: Vec<(usize, usize)> = vec![(root, 0)];
        while let Some((service, next)) = path.last_mut() {
            let Some((need, _)) = needs[*service].get(*next) else {
                seen[*service] = Seen::Done;
                path.pop();
                continue;
            };
            *next += 1;
            match seen[*need] {
                Seen::No => {
                    seen[*need] = Seen::Open;
                    path.push((*need, 0));
                }
                Seen::Open => {
                    let from = path.iter().position(|(service, _)| service == need).unwrap_or(0);
                    let edge = |(service, next): &(usize, usize)| (*service, needs[*service][next - 1].1);
                    found.push(path[from..].iter().map(edge).collect());
                }
                Seen::Done => {}
            }
        }
    }
    found
}

fn say_cycle(document: &Document, cycle: &[(usize, Place)]) -> Problem {
    const NAMED_MAX: usize = 10;
    let name = |at: usize| document.services[at].name.value.as_str();
    let first = name(cycle[0].0);
    if let [(_, at)] = cycle {
        return Problem::error("config::dependency_cycle", format!("`{first}` depends on itself"))
            .at(*at, "itself")
            .help(format!("remove `{first}` from its own `depends_on`"));
    }
    let mut names: Vec<&str> = cycle.iter().take(NAMED_MAX).map(|(service, _)| name(*service)).collect();
    if cycle.len() > NAMED_MAX {
        names.push("...");
    }
    names.push(first);
    let message = format!("services depend on each other in a circle: {}", names.join(" -> "));
    let mut problem = Problem::error("config::dependency_cycle", message);
    for (at, (service, place)) in cycle.iter().enumerate().take(NAMED_MAX) {
        let needed = name(cycle[(at + 1) % cycle.len()].0);
        problem = problem.at(*place, format!("`{}` needs `{needed}`", name(*service)));
    }
    problem.help("remove one of these: in a circle, each would wait for another to be healed first")
}
