//! What does one entry of `services` say?

use super::super::model::{Given, Heal, HealOn, Named, Process, Run, RunExec, Service, Text};
use super::super::node::{Node, Sp, Value};
use super::super::problem::Problem;
use super::super::secret::SecretSource;
use super::super::shape::{self, SECRET};
use super::super::units::{self, Refused, Signal};
use super::fields::{Fields, Reader};
use super::{check, forms, is_off};

/// Reads a service; what is unusable is reported and left out.
pub(super) fn read(reader: &mut Reader<'_>, name: &str, node: &Node) -> Service {
    let Some(fields) = reader.fields(node, &shape::SERVICE, name) else {
        return Service { run: Given::Broken, heal: Given::Broken, ..Service::default() };
    };
    Service {
        title: reader.text(&fields, "title").map(|title| title.value),
        run: given(fields.get("run"), |node| run(reader, node)),
        depends_on: reader.texts(&fields, "depends_on").unwrap_or_default(),
        checks: (reader.named(&fields, "checks").iter())
            .map(|entry| Named {
                name: entry.key.clone(),
                value: check::read(reader, &entry.key.value, &entry.node),
            })
            .collect(),
        heal: given(fields.get("heal"), |node| heal(reader, node)),
    }
}

/// Reads a part that may be absent.
pub(super) fn given<T>(node: Option<&Node>, read: impl FnOnce(&Node) -> Option<T>) -> Given<T> {
    match node {
        None => Given::Absent,
        Some(node) => read(node).map_or(Given::Broken, Given::Good),
    }
}

fn run(reader: &mut Reader<'_>, node: &Node) -> Option<Run> {
    let fields = reader.fields(node, &shape::RUN, "run")?;
    let chosen = fields.chosen();
    let [entry] = chosen.as_slice() else { return None };
    match entry.key.value.as_str() {
        "process" => process(reader, &entry.node).map(|process| Run::Process(Box::new(process))),
        "systemd" => reader.parsed(&fields, "systemd", forms::unit).map(Run::Systemd),
        _ => {
            let exec = reader.fields(&entry.node, &shape::RUN_EXEC, "exec")?;
            let restart = reader.argv(&exec, "restart");
            let reload = given_argv(reader, &exec, "reload");
            let timeout = reader.duration(&exec, "timeout");
            Some(Run::Exec(RunExec { restart: restart?, reload: reload?, timeout }))
        }
    }
}

/// Reads a command that may be absent; the outer `None` says that it is there and unusable.
fn given_argv(reader: &mut Reader<'_>, fields: &Fields<'_>, name: &str) -> Option<Option<Vec<Sp<String>>>> {
    match fields.get(name) {
        None => Some(None),
        Some(_) => reader.argv(fields, name).map(Some),
    }
}

fn process(reader: &mut Reader<'_>, node: &Node) -> Option<Process> {
    let fields = reader.fields(node, &shape::PROCESS, "process")?;
    let stop = fields.get("stop").and_then(|node| reader.fields(node, &shape::STOP, "stop"));
    let mut signal = |fields: &Fields<'_>, name: &str| {
        reader.parsed(fields, name, Signal::parse).map(|signal| signal.value)
    };
    let stop_signal = stop.as_ref().and_then(|stop| signal(stop, "signal"));
    let reload_signal = signal(&fields, "reload_signal");
    let command = reader.argv(&fields, "command");
    let process = Process {
        command: Vec::new(),
        dir: reader.text(&fields, "dir"),
        user: reader.text(&fields, "user").map(|user| user.value),
        env: env(reader, &fields),
        log: reader.text(&fields, "log"),
        stop_signal,
        stop_within: stop.as_ref().and_then(|stop| reader.duration(stop, "within")),
        stop_kill: stop.as_ref().and_then(|stop| reader.boolean(stop, "kill")),
        dead_for: reader.duration(&fields, "dead_for"),
        reload_signal,
    };
    Some(Process { command: command?, ..process })
}

/// Reads `env`, whose values may be secret.
pub(super) fn env(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Vec<(String, Text)> {
    let Some(node) = fields.get("env") else { return Vec::new() };
    secrets(reader, node, "env", |reader, entry| {
        let name = &entry.value;
        if name.is_empty() || name.contains(['=', '\0']) || name.contains(char::is_whitespace) {
            let refused = Refused::new(
                "cannot name a variable",
                "not a variable's name",
                "write `NAME: value`, as `LOG: info`",
            );
            reader.refused(entry.at, name, refused);
        }
    })
}

/// Reads a map of names to texts or secrets.
/// Reads where a secret is kept.
pub(super) fn secrets(
    reader: &mut Reader<'_>,
    node: &Node,
    called: &str,
    mut check_name: impl FnMut(&mut Reader<'_>, &Sp<String>),
) -> Vec<(String, Text)> {
    let entries = match &node.value {
        Value::Map(entries) => entries.as_slice(),
        Value::Null => &[],
        Value::Text(_) | Value::List(_) | Value::Broken => {
            reader.wrong_type(
                node,
                called,
                "a map of names to texts",
                &format!("write `{called}: {{ NAME: value }}`"),
            );
            &[]
        }
    };
    let mut pairs = Vec::with_capacity(entries.len());
    for entry in entries {
        check_name(reader, &entry.key);
        let name = &entry.key.value;
        match &entry.node.value {
            Value::Text(text) if text.contains('\0') => {
                reader.refused(entry.node.at, name, Refused::new("holds a zero byte", "here", "remove it"));
            }
            Value::Text(text) => pairs.push((name.clone(), Text::Plain(text.clone()))),
            Value::Map(_) => {
                if let Some(source) = secret(reader, &entry.node, name) {
                    pairs.push((name.clone(), Text::Secret(Sp { value: source, at: entry.node.at })));
                }
            }
            Value::Null | Value::List(_) | Value::Broken => {
                let help = format!(
                    "write `{name}: value`; an empty text is `\"\"`, a secret `{{ credential: NAME }}`"
                );
                reader.wrong_type(&entry.node, name, "a text or a secret", &help);
            }
        }
    }
    pairs
}

/// Reads where a secret is kept.
pub(super) fn secret(reader: &mut Reader<'_>, node: &Node, called: &str) -> Option<SecretSource> {
    let fields = reader.fields(node, &SECRET, called)?;
    let chosen = fields.chosen();
    let [entry] = chosen.as_slice() else { return None };
    let kind = entry.key.value.as_str();
    let name = reader.parsed(&fields, kind, |text| match kind {
        _ if text.is_empty() => {
            Err(Refused::new("is empty", "expected a name", format!("write `{kind}: NAME`")))
        }
        "credential" if text.contains('/') || text.starts_with('.') => {
            Err(Refused::new("is a path", "expected a name", "write the credential's name, or `file: PATH`"))
        }
        "env" if text.starts_with('$') => Err(Refused::new(
            "has a `$`",
            "only the name",
            format!("write `env: {}`", text.trim_start_matches('$')),
        )),
        _ => Ok(text.to_owned()),
    })?;
    Some(match kind {
        "credential" => SecretSource::Credential(name.value),
        "file" => SecretSource::File(name.value.into()),
        _ => SecretSource::Env(name.value),
    })
}

fn heal(reader: &mut Reader<'_>, node: &Node) -> Option<Heal> {
    if is_off(node) {
        return Some(Heal::Off);
    }
    if let Value::Text(text) = &node.value {
        let help = match text.as_str() {
            "restart" | "reload" => format!("write `heal: {{ {text}: {{}} }}`"),
            "false" | "no" | "none" => "write `heal: off`".to_owned(),
            _ => "write `heal: { restart: { attempts: 3, per: 15m } }`, or `heal: off`".to_owned(),
        };
        reader.wrong_type(node, "heal", "a map or `off`", &help);
        return None;
    }
    let fields = reader.fields(node, &shape::HEAL, "heal")?;
    let verify = fields.get("verify").and_then(|node| reader.fields(node, &shape::VERIFY, "verify"));
    let settle = verify.as_ref().and_then(|verify| reader.duration(verify, "settle"));
    let stay = verify.as_ref().and_then(|verify| reader.duration(verify, "stay"));
    let within = verify.as_ref().and_then(|verify| reader.duration(verify, "within"));
    let chosen = fields.chosen();
    let [entry] = chosen.as_slice() else { return None };
    let limits = reader.fields(&entry.node, &shape::ATTEMPTS, &entry.key.value)?;
    Some(Heal::On(Box::new(HealOn {
        reload: entry.key.value == "reload",
        at: entry.key.at,
        attempts: reader.whole(&limits, "attempts").map(|n| n.value),
        per: reader.duration(&limits, "per"),
        backoff: reader.parsed(&limits, "backoff", units::duration_range).map(|range| range.value),
        retry_after: reader.duration(&limits, "retry_after"),
        never_on_exit: exit_codes(reader, &limits),
        settle,
        stay,
        within,
    })))
}

fn exit_codes(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Sp<Vec<i32>>> {
    let at = fields.entry("never_on_exit")?.key.at;
    let mut codes = Vec::new();
    for code in reader.texts(fields, "never_on_exit")? {
        match code.value.parse::<u8>() {
            Ok(number) => codes.push(i32::from(number)),
            Err(_) => reader.report(
                Problem::error("config::bad_value", format!("`{}` is not an exit code", code.value))
                    .at(code.at, "not an exit code")
                    .help("an exit code is a number from 0 to 255"),
            ),
        }
    }
    Some(Sp { value: codes, at })
}
