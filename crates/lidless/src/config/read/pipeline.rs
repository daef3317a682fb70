//! What does one entry of `pipelines` say?

use std::collections::BTreeMap;

use lidless_core::pipeline::plan::Class;

use super::super::model::{Confirm, Given, Named, Pipeline, Step, StepExec, Text, Work};
use super::super::node::{Entry, Node, Value};
use super::super::problem::Problem;
use super::super::shape;
use super::super::units::{self, Refused, nearest};
use super::check_name;
use super::fields::{Fields, Reader};
use super::service::{env, given};

const STEP_HELP: &str = "write `- NAME: { call: { exec: [PROGRAM, ARGUMENT] } }`";

/// Reads a pipeline; what is unusable is reported and left out.
pub(super) fn read(reader: &mut Reader<'_>, name: &str, node: &Node) -> Pipeline {
    let Some(fields) = reader.fields(node, &shape::PIPELINE, name) else { return Pipeline::default() };
    Pipeline {
        title: reader.text(&fields, "title").map(|title| title.value),
        steps: fields.get("steps").map(|node| steps(reader, node)).unwrap_or_default(),
    }
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
    // A single key may be a step that somebody named `retry`; `call` and `require` are too likely to be what they say.
    if is_key(first) && (!others.is_empty() || shape::STEP.one_of.contains(&first.key.value.as_str())) {
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

fn named(reader: &mut Reader<'_>, entry: &Entry, node: &Node) -> Named<Step> {
    check_name(reader, &entry.key.value, entry.key.at);
    Named { name: entry.key.clone(), value: step(reader, &entry.key.value, node) }
}

fn step(reader: &mut Reader<'_>, name: &str, node: &Node) -> Step {
    let Some(fields) = reader.fields(node, &shape::STEP, name) else {
        return Step { work: Given::Broken, ..Step::default() };
    };
    let chosen = fields.chosen();
    let (work, asks) = match chosen.as_slice() {
        [entry] if entry.key.value == "require" => (require(reader, &entry.node), Some(*entry)),
        [entry] => (call(reader, &entry.node), None),
        _ => (None, None),
    };
    let retry = fields.get("retry").and_then(|node| reader.fields(node, &shape::RETRY, "retry"));
    let backoff = retry.as_ref().and_then(|retry| reader.parsed(retry, "backoff", units::duration_range));
    let step = Step {
        work: work.map_or(Given::Broken, Given::Good),
        attempts: retry.as_ref().and_then(|retry| reader.whole(retry, "attempts")),
        backoff: backoff.map(|backoff| backoff.value),
        ..Step::default()
    };
    if let Some(entry) = asks {
        // What else it says has to go, so nothing more is said about that.
        not_for_require(reader, &fields, entry);
        return step;
    }
    Step {
        timeout: reader.duration(&fields, "timeout"),
        confirm: match fields.entry("confirm") {
            None => Given::Absent,
            Some(entry) => confirm(reader, entry).map_or(Given::Broken, Given::Good),
        },
        class: given(fields.get("class"), |_| reader.parsed(&fields, "class", class)),
        value: fields.entry("value").map(|entry| {
            reader.fields(&entry.node, &shape::VALUE, "value");
            entry.key.at
        }),
        ..step
    }
}

/// Reports what says nothing of a step that only asks lidless itself.
fn not_for_require(reader: &mut Reader<'_>, fields: &Fields<'_>, require: &Entry) {
    for name in ["timeout", "confirm", "class", "value"] {
        let Some(entry) = fields.entry(name) else { continue };
        reader.report(
            Problem::error("config::not_for_require", format!("`{name}` does not go with `require`"))
                .at(entry.key.at, "only for a `call`")
                .at(require.key.at, "lidless answers this itself, at once")
                .help(format!("remove `{name}`; beside `require` there may only be `retry`")),
        );
    }
}

fn require(reader: &mut Reader<'_>, node: &Node) -> Option<Work> {
    let fields = reader.fields(node, &shape::REQUIRE, "require")?;
    let healthy = reader.texts(&fields, "healthy")?;
    if healthy.is_empty() {
        let at = fields.get("healthy").map_or(node.at, |node| node.at);
        let help = "write the names of services: `healthy: [api]`";
        reader.refused(at, "healthy", Refused::new("is empty", "no service", help));
        return None;
    }
    Some(Work::Require(healthy))
}

fn call(reader: &mut Reader<'_>, node: &Node) -> Option<Work> {
    let fields = reader.fields(node, &shape::CALL, "call")?;
    let exec = fields.get("exec")?;
    let Value::Map(_) = &exec.value else {
        let command = reader.argv(&fields, "exec")?;
        return Some(Work::Exec(StepExec { command, dir: None, env: BTreeMap::new(), may_be_unit: true }));
    };
    let fields = reader.fields(exec, &shape::CALL_EXEC, "exec")?;
    let command = reader.argv(&fields, "command");
    let (dir, env) = (reader.text(&fields, "dir"), plain_env(reader, &fields));
    let may_be_unit = reader.parsed(&fields, "unit", unit).is_none_or(|unit| unit.value);
    Some(Work::Exec(StepExec { command: command?, dir, env, may_be_unit }))
}

/// Reads `env` where a secret has no place yet: what a step is given is pinned in the journal.
fn plain_env(reader: &mut Reader<'_>, fields: &Fields<'_>) -> BTreeMap<String, String> {
    let mut plain = BTreeMap::new();
    for (name, text) in env(reader, fields) {
        match text {
            Text::Plain(text) => drop(plain.insert(name, text)),
            Text::Secret(source) => reader.report(
                Problem::error("config::secret_in_step", format!("`{name}` is a secret, in a step"))
                    .at(source.at, "would be kept in the journal")
                    .help("read it in the command itself; secrets in steps come later"),
            ),
        }
    }
    plain
}

fn confirm(reader: &mut Reader<'_>, entry: &Entry) -> Option<Confirm> {
    let fields = reader.fields(&entry.node, &shape::CONFIRM, "confirm")?;
    let exec = reader.argv(&fields, "exec");
    let tries = reader.whole(&fields, "tries").map(|tries| tries.value);
    Some(Confirm { at: entry.key.at, exec: exec?, tries })
}

fn unit(text: &str) -> Result<bool, Refused> {
    match text {
        "auto" => Ok(true),
        "never" => Ok(false),
        _ => Err(Refused::new("says nothing about a unit", "no such word", "write `auto` or `never`")),
    }
}

fn class(text: &str) -> Result<Class, Refused> {
    match text {
        "pure" => Ok(Class::Pure),
        "idempotent" => Ok(Class::Idempotent),
        "confirmable" => Ok(Class::Confirmable),
        "one_shot" => Ok(Class::OneShot),
        _ => {
            let known = ["pure", "idempotent", "confirmable", "one_shot"];
            let help = match nearest(text, known.into_iter()) {
                Some(near) => format!("write `{near}`"),
                None => format!("write one of {}", known.join(", ")),
            };
            Err(Refused::new("is not a class of steps", "no such class", help))
        }
    }
}
