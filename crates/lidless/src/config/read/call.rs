//! What does a step call?

use lidless_core::spec::Action;

use super::super::model::{Plugin, StepExec, StepPlugin, Work};
use super::super::node::{Node, Value};
use super::super::shape::{self, Shape};
use super::super::units::Refused;
use super::fields::{Fields, Reader};
use super::request;
use super::service::env;

/// Reads `call`.
pub(super) fn call(reader: &mut Reader<'_>, node: &Node, shape: &'static Shape) -> Option<Work> {
    let fields = reader.fields(node, shape, "call")?;
    read(reader, &fields)
}

/// Reads the one kind of call that is in a map.
pub(super) fn read(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Work> {
    let chosen = fields.chosen();
    let [entry] = chosen.as_slice() else { return None };
    match entry.key.value.as_str() {
        "exec" => exec(reader, fields, &entry.node),
        "http" => request::http(reader, &entry.node).map(|http| Work::Http(Box::new(http))),
        "plugin" => by_plugin(reader, &entry.node).map(Work::Plugin),
        "service" => service(reader, &entry.node),
        "wait" => reader.duration(fields, "wait").map(Work::Wait),
        _ => reader.text(fields, "pipeline").map(Work::Pipeline),
    }
}

fn exec(reader: &mut Reader<'_>, fields: &Fields<'_>, node: &Node) -> Option<Work> {
    let plain = |command| StepExec {
        command,
        dir: None,
        env: Vec::new(),
        heartbeat: None,
        handles: false,
        may_be_unit: true,
    };
    let Value::Map(_) = &node.value else {
        return reader.argv(fields, "exec").map(|command| Work::Exec(plain(command)));
    };
    let fields = reader.fields(node, &shape::CALL_EXEC, "exec")?;
    let command = reader.argv(&fields, "command");
    let exec = StepExec {
        dir: reader.text(&fields, "dir"),
        env: env(reader, &fields),
        heartbeat: reader.duration(&fields, "heartbeat"),
        handles: reader.boolean(&fields, "handles") == Some(true),
        may_be_unit: reader.parsed(&fields, "unit", unit).is_none_or(|unit| unit.value),
        ..plain(Vec::new())
    };
    Some(Work::Exec(StepExec { command: command?, ..exec }))
}

/// Reads an entry of `plugins`.
pub(super) fn plugin(reader: &mut Reader<'_>, name: &str, node: &Node) -> Option<Plugin> {
    let fields = reader.fields(node, &shape::PLUGIN, name)?;
    let command = reader.argv(&fields, "command");
    let (dir, env) = (reader.text(&fields, "dir"), env(reader, &fields));
    let heartbeat = reader.duration(&fields, "heartbeat");
    Some(Plugin { command: command?, dir, env, heartbeat })
}

fn by_plugin(reader: &mut Reader<'_>, node: &Node) -> Option<StepPlugin> {
    let fields = reader.fields(node, &shape::CALL_PLUGIN, "plugin")?;
    let (name, kind) = (reader.text(&fields, "name"), reader.text(&fields, "kind"));
    let settings = match fields.get("settings") {
        None => Some(serde_json::Value::Object(serde_json::Map::new())),
        Some(node) => request::json(reader, node),
    };
    Some(StepPlugin { name: name?, kind: kind?.value, settings: settings? })
}

fn unit(text: &str) -> Result<bool, Refused> {
    match text {
        "auto" => Ok(true),
        "never" => Ok(false),
        _ => Err(Refused::new("says nothing about a unit", "no such word", "write `auto` or `never`")),
    }
}

fn service(reader: &mut Reader<'_>, node: &Node) -> Option<Work> {
    if let Value::Text(name) = &node.value {
        let help = format!("write what is to be done: `service: {{ restart: {name} }}`");
        reader.wrong_type(node, "service", shape::CALL_SERVICE.noun, &help);
        return None;
    }
    let fields = reader.fields(node, &shape::CALL_SERVICE, "service")?;
    let chosen = fields.chosen();
    let [entry] = chosen.as_slice() else { return None };
    let action = match entry.key.value.as_str() {
        "restart" => Action::Restart,
        "reload" => Action::Reload,
        _ => Action::Start,
    };
    reader.text(&fields, &entry.key.value).map(|name| Work::Service(action, name))
}
