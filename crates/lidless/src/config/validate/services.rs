//! Do the parts of each service fit together: what runs it, its checks and its heal?

use std::collections::HashMap;

use super::super::model::{Document, Given, Heal, HealOn, Kind, Named, Run, Service};
use super::super::node::Place;
use super::super::problem::Problem;
use super::super::resolve::{PROCESS_CHECK, UNIT_CHECK};

/// Reports what does not fit.
pub(super) fn check(document: &Document, problems: &mut Vec<Problem>) {
    let mut units: HashMap<&str, (&str, Place)> = HashMap::new();
    for service in &document.services {
        heal(service, problems);
        checks(service, problems);
        if let Given::Good(Run::Systemd(unit)) = &service.value.run {
            let name = service.name.value.as_str();
            match units.get(unit.value.as_str()) {
                Some((other, place)) => problems.push(
                    Problem::warning(
                        "config::shared_unit",
                        format!("`{other}` and `{name}` run the same unit"),
                    )
                    .at(unit.at, format!("`{}` again", unit.value))
                    .at(*place, "first here")
                    .help(
                        "a heal of one restarts the other too; make them one service with the checks of both",
                    ),
                ),
                None => {
                    units.insert(&unit.value, (name, unit.at));
                }
            }
        }
    }
}

fn heal(service: &Named<Service>, problems: &mut Vec<Problem>) {
    let Given::Good(Heal::On(heal)) = &service.value.heal else { return };
    let name = &service.name.value;
    match &service.value.run {
        Given::Broken => {}
        Given::Absent => problems.push(
            Problem::error("config::heal_without_run", format!("`{name}` has a `heal` but no `run`"))
                .at(heal.at, "what should this act on?")
                .at(service.name.at, "no `run` in this service")
                .help("add `run: { systemd: UNIT }`, `run: { process: ... }` or `run: { exec: ... }`, or remove `heal`"),
        ),
        Given::Good(Run::Exec(exec)) => {
            if heal.reload && exec.reload.is_none() {
                problems.push(
                    Problem::error("config::cannot_reload", format!("`{name}` has no command for a reload"))
                        .at(heal.at, "asks for a reload")
                        .at(exec.restart[0].at, "only a `restart` command here")
                        .help("add `reload: [...]` under `run.exec`, or heal with `restart`"),
                );
            }
            never_on_exit(heal, "a command's service has no exit code that lidless sees", problems);
        }
        Given::Good(Run::Process(_) | Run::Systemd(_)) => {}
    }
}

fn never_on_exit(heal: &HealOn, why: &str, problems: &mut Vec<Problem>) {
    if let Some(codes) = &heal.never_on_exit {
        problems.push(
            Problem::warning("config::no_effect", "`never_on_exit` has no effect here")
                .at(codes.at, why)
                .help("remove it, or run the service with `process` or `systemd`"),
        );
    }
}

fn checks(service: &Named<Service>, problems: &mut Vec<Problem>) {
    let name = &service.name.value;
    let run = &service.value.run;
    for check in &service.value.checks {
        match &check.value.kind {
            Given::Good(Kind::Process(at))
                if !matches!(run, Given::Broken | Given::Good(Run::Process(_))) =>
            {
                problems.push(
                    Problem::error(
                        "config::no_process",
                        format!("`{name}` has no process for `{}` to look at", check.name.value),
                    )
                    .at(*at, "looks at the process of `run.process`")
                    .at(service.name.at, "no `run.process` in this service")
                    .help(
                        "add `run: { process: { command: [...] } }`, or use another kind, as `tcp` or `exec`",
                    ),
                )
            }
            Given::Good(Kind::Systemd(None, at))
                if !matches!(run, Given::Broken | Given::Good(Run::Systemd(_))) =>
            {
                problems.push(
                    Problem::error(
                        "config::no_unit",
                        format!("`{}` of `{name}` names no unit", check.name.value),
                    )
                    .at(*at, "which unit?")
                    .help("write `systemd: { unit: api.service }`"),
                )
            }
            Given::Absent | Given::Broken | Given::Good(_) => {}
        }
    }
    let implicit = match run {
        Given::Good(Run::Process(_)) => Some((PROCESS_CHECK, "process")),
        Given::Good(Run::Systemd(_)) => Some((UNIT_CHECK, "systemd")),
        Given::Good(Run::Exec(_)) | Given::Absent | Given::Broken => None,
    };
    let Some((implicit, kind)) = implicit else {
        if service.value.checks.is_empty() && matches!(run, Given::Absent | Given::Good(_)) {
            problems.push(
                Problem::warning(
                    "config::nothing_watched",
                    format!("`{name}` has no check: nothing is watched"),
                )
                .at(service.name.at, "no check")
                .help("add `checks: { up: { tcp: { address: 127.0.0.1:80 } } }`, or another kind"),
            );
        }
        return;
    };
    let same_kind = |check: &&Named<super::super::model::Check>| {
        matches!(
            (&check.value.kind, kind),
            (Given::Good(Kind::Process(_)), "process") | (Given::Good(Kind::Systemd(..)), "systemd")
        )
    };
    let clash = service.value.checks.iter().find(|check| check.name.value == implicit);
    let written = service.value.checks.iter().any(|check| same_kind(&check));
    // A broken check may be of the right kind.
    if let Some(clash) = clash.filter(|clash| !written && clash.value.kind.good().is_some()) {
        problems.push(
            Problem::error(
                "config::reserved_name",
                format!("`{implicit}` is the name of a check that lidless adds"),
            )
            .at(clash.name.at, "taken")
            .help(format!("give this one another name, or add a check of the kind `{kind}` yourself")),
        );
    }
}
