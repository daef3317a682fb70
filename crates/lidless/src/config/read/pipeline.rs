//! What does one entry of `pipelines` say?

use lidless_core::trigger::{CatchUp, IncidentMoment, RunEnd};

use super::super::model::{AfterRun, Cron, Named, OnIncident, Pipeline, Step};
use super::super::node::{Entry, Node, Sp, Value};
use super::super::problem::Problem;
use super::super::shape;
use super::super::units::Refused;
use super::check_name;
use super::fields::{Fields, Reader};
use super::service::secret;
use super::step::step;
use crate::schedule;

const STEP_HELP: &str = "write `- NAME: { call: { exec: [PROGRAM, ARGUMENT] } }`";

/// Reads a pipeline; what is unusable is reported and left out.
pub(super) fn read(reader: &mut Reader<'_>, name: &str, node: &Node) -> Pipeline {
    let Some(fields) = reader.fields(node, &shape::PIPELINE, name) else { return Pipeline::default() };
    Pipeline {
        title: reader.text(&fields, "title").map(|title| title.value),
        steps: fields.get("steps").map(|node| steps(reader, node)).unwrap_or_default(),
        lock: reader.text(&fields, "lock").inspect(|lock| check_name(reader, &lock.value, lock.at)),
        deadline: reader.duration(&fields, "deadline"),
        concurrency: reader.whole(&fields, "concurrency"),
        every: reader.duration(&fields, "every"),
        cron: cron(reader, &fields),
        on_incident: fields.get("on_incident").and_then(|node| on_incident(reader, node)),
        after: fields.get("after").and_then(|node| after_run(reader, node)),
        hook: fields.get("hook").and_then(|node| {
            let hook = reader.fields(node, &shape::HOOK, "hook")?;
            let node = hook.get("secret")?;
            if let Value::Text(_) = &node.value {
                reader.report(
                    Problem::error("config::bare_secret", "`secret` holds a bare text")
                        .at(node.at, "looks like a secret")
                        .conceal(node.at)
                        .help("put it in a credential: `secret: { credential: NAME }`; or `{ file: PATH }`, `{ env: NAME }`"),
                );
                return None;
            }
            Some(Sp { value: secret(reader, node, "secret")?, at: node.at })
        }),
    }
}

fn cron(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Cron> {
    let node = fields.get("cron")?;
    let Value::Map(_) = &node.value else {
        let at = reader.parsed(fields, "cron", calendar)?;
        return Some(Cron { at, zone: None, catch_up: CatchUp::None });
    };
    let fields = reader.fields(node, &shape::CRON, "cron")?;
    let at = reader.parsed(&fields, "at", calendar);
    let zone = reader.parsed(&fields, "zone", |name| match schedule::zone(name) {
        Ok(()) => Ok(name.to_owned()),
        Err(why) => Err(Refused::new(
            "is not a zone that this machine knows",
            why,
            "write a name as in `timedatectl list-timezones`: `Europe/Lisbon`, `UTC`",
        )),
    });
    let words = [("none", CatchUp::None), ("one", CatchUp::One), ("all", CatchUp::All)];
    let catch_up = reader.word(&fields, "catch_up", &words).unwrap_or_default();
    Some(Cron { at: at?, zone: zone.map(|zone| zone.value), catch_up })
}

fn calendar(text: &str) -> Result<String, Refused> {
    match schedule::check(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(why) => Err(Refused::new(
            "is not a calendar of cron",
            why,
            "write minute, hour, day, month and weekday: `0 4 * * *` is 04:00 every day",
        )),
    }
}

fn on_incident(reader: &mut Reader<'_>, node: &Node) -> Option<OnIncident> {
    let fields = reader.fields(node, &shape::ON_INCIDENT, "on_incident")?;
    let services =
        reader.names(&fields, "services", "no service", "write the names of services: `services: [api]`");
    let words = [
        ("opened", IncidentMoment::Opened),
        ("given_up", IncidentMoment::GivenUp),
        ("closed", IncidentMoment::Closed),
    ];
    let when = reader.word(&fields, "when", &words).unwrap_or_default();
    Some(OnIncident { services: services?, when })
}

fn after_run(reader: &mut Reader<'_>, node: &Node) -> Option<AfterRun> {
    let fields = reader.fields(node, &shape::AFTER_RUN, "after")?;
    let pipeline = reader.text(&fields, "pipeline");
    let words = [("done", RunEnd::Done), ("failed", RunEnd::Failed), ("any", RunEnd::Any)];
    let when = reader.word(&fields, "when", &words).unwrap_or_default();
    Some(AfterRun { pipeline: pipeline?, when })
}

fn steps(reader: &mut Reader<'_>, node: &Node) -> Vec<Named<Step>> {
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        Value::Null => &[],
        Value::Text(_) | Value::Map(_) | Value::Broken => {
            let first = if let Value::Map(entries) = &node.value { entries.first() } else { None };
            let help = first.map_or_else(
                || STEP_HELP.to_owned(),
                |first| format!("put a dash in front of each step: `- {}:`", first.key.value),
            );
            reader.wrong_type(node, "steps", "a list", &help);
            return Vec::new();
        }
    };
    if items.is_empty() {
        reader.refused(node.at, "steps", Refused::new("is empty", "no step", STEP_HELP));
    }
    let mut steps = Vec::with_capacity(items.len());
    for item in items {
        read_item(reader, item, &mut steps);
    }
    steps
}

/// Reads one item of `steps`: a map whose only key is the step's name.
fn read_item(reader: &mut Reader<'_>, item: &Node, steps: &mut Vec<Named<Step>>) {
    let entries = match &item.value {
        Value::Map(entries) => entries.as_slice(),
        Value::Broken => return,
        Value::Text(_) | Value::Null | Value::List(_) => &[],
    };
    let Some((first, others)) = entries.split_first() else {
        let stands = if let Value::Map(_) = item.value { "an empty map" } else { item.value.noun() };
        return reader.report(
            Problem::error("config::wrong_type", "each step must be a map with one key: its name")
                .at(item.at, format!("{stands} stands here"))
                .help(STEP_HELP),
        );
    };
    // A single key may be a step that somebody named `retry`; `call` and its like are too likely to be what they say.
    if is_key(first) && (!others.is_empty() || says_what(first)) {
        return reader.report(
            Problem::error("config::unnamed_step", "a step has no name")
                .at(first.key.at, "no name in front of this")
                .help(format!("write `- NAME:`, and `{}` below it, further in", first.key.value)),
        );
    }
    let Some(second) = others.first() else { return steps.push(named(reader, first, &first.node)) };
    if others.iter().all(is_key) {
        let name = &first.key.value;
        reader.report(
            Problem::error(
                "config::misplaced_key",
                format!("`{}` stands beside a step's name", second.key.value),
            )
            .at(second.key.at, "not further in than the name")
            .at(first.key.at, "the step's name")
            .help(format!(
                "indent `{}` and what follows it by two more spaces, below `{name}:`",
                second.key.value
            )),
        );
        // Read as it was meant, so that what else is wrong with it is told too.
        let meant = Node { value: Value::Map(others.to_vec()), at: first.key.at };
        let node = if first.node.value == Value::Null { &meant } else { &first.node };
        return steps.push(named(reader, first, node));
    }
    reader.report(
        Problem::error("config::two_steps_in_one", "a step has more than one name")
            .at(second.key.at, "and another")
            .at(first.key.at, "one name")
            .help(format!("begin each step with a dash: `- {}:`", second.key.value)),
    );
    for entry in entries {
        steps.push(named(reader, entry, &entry.node));
    }
}

/// Whether this is a key of a step rather than the name of one.
fn is_key(entry: &Entry) -> bool {
    let name = entry.key.value.as_str();
    shape::STEP.keys.iter().any(|key| key.name == name) || shape::STEP.later.contains(&name)
}

/// Whether this key alone makes a step.
fn says_what(entry: &Entry) -> bool {
    let name = entry.key.value.as_str();
    shape::STEP.one_of.contains(&name) || shape::STEP.keys.iter().any(|key| key.alone && key.name == name)
}

fn named(reader: &mut Reader<'_>, entry: &Entry, node: &Node) -> Named<Step> {
    check_name(reader, &entry.key.value, entry.key.at);
    Named { name: entry.key.clone(), value: step(reader, &entry.key.value, node) }
}
