//! How does a tree of text become a typed document, with every problem found rather than the first one?

mod call;
mod check;
mod fields;
mod forms;
mod lists;
mod pipeline;
mod request;
mod service;
mod step;

use super::model::{Budget, Document, Given, Named, Store, Timing, Web};
use super::node::{Node, Place, Sp, Value};
use super::problem::Problem;
use super::shape;
use fields::{Fields, Reader};

/// What messages call the top of a file.
const THE_FILE: &str = "the file";

/// Reads one file's tree. `text` is the file, for pointing into quoted values.
pub(super) fn document(root: &Node, text: &str, problems: &mut Vec<Problem>) -> Document {
    let mut reader = Reader { text, problems };
    let mut document = Document::default();
    let Some(top) = reader.fields(root, &shape::TOP, THE_FILE) else { return document };
    document.version = reader.whole(&top, "version");
    if let Some(version) = document.version.as_ref().filter(|version| version.value != 1) {
        let label = format!("version {} is not known here", version.value);
        reader.report(
            Problem::error("config::unsupported_version", "this version of the format is not supported")
                .at(version.at, label)
                .help("write `version: 1`, or use a newer lidless"),
        );
    }
    document.site = reader.text(&top, "site");
    document.include = reader.texts(&top, "include").unwrap_or_default();
    document.store =
        top.entry("store").map(|entry| Sp { value: store(&mut reader, &entry.node), at: entry.key.at });
    document.web =
        top.entry("web").map(|entry| Sp { value: web(&mut reader, &entry.node), at: entry.key.at });
    document.limits =
        top.entry("limits").map(|entry| Sp { value: limits(&mut reader, &entry.node), at: entry.key.at });
    document.defaults = top.entry("defaults").map(|entry| {
        let fields = reader.fields(&entry.node, &shape::DEFAULTS, "defaults");
        Sp { value: fields.map(|fields| timing(&mut reader, &fields)).unwrap_or_default(), at: entry.key.at }
    });
    for entry in reader.named(&top, "notify") {
        let fields = reader.fields(&entry.node, &shape::NOTIFY, &entry.key.value);
        let exec = fields.and_then(|fields| reader.argv(&fields, "exec"));
        let value = exec.map_or(Given::Broken, Given::Good);
        document.notify.push(Named { name: entry.key.clone(), value });
    }
    for entry in reader.named(&top, "services") {
        let value = service::read(&mut reader, &entry.key.value, &entry.node);
        document.services.push(Named { name: entry.key.clone(), value });
    }
    for entry in reader.named(&top, "pipelines") {
        let value = pipeline::read(&mut reader, &entry.key.value, &entry.node);
        document.pipelines.push(Named { name: entry.key.clone(), value });
    }
    document
}

fn store(reader: &mut Reader<'_>, node: &Node) -> Store {
    let Some(fields) = reader.fields(node, &shape::STORE, "store") else { return Store::default() };
    Store { path: reader.text(&fields, "path") }
}

fn web(reader: &mut Reader<'_>, node: &Node) -> Option<Web> {
    if is_off(node) {
        return None;
    }
    let Some(fields) = reader.fields(node, &shape::WEB, "web") else { return Some(Web::default()) };
    Some(Web { listen: reader.parsed(&fields, "listen", forms::listen) })
}

fn limits(reader: &mut Reader<'_>, node: &Node) -> Option<Budget> {
    let limits = reader.fields(node, &shape::LIMITS, "limits")?;
    let heals = reader.fields(limits.get("heals")?, &shape::BUDGET, "heals")?;
    let attempts = reader.whole(&heals, "attempts");
    let per = reader.duration(&heals, "per");
    Some(Budget { attempts: attempts?.value, per: per? })
}

/// Reads what is common to all checks, from a check or from `defaults`.
fn timing(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Timing {
    Timing {
        every: reader.duration(fields, "every"),
        timeout: reader.duration(fields, "timeout"),
        fail_after: reader.whole(fields, "fail_after").map(|n| n.value),
        recover_after: reader.whole(fields, "recover_after").map(|n| n.value),
        confirm_every: reader.duration(fields, "confirm_every"),
    }
}

fn is_off(node: &Node) -> bool {
    matches!(&node.value, Value::Text(text) if text == "off")
}

/// Reports names that would not survive in a path, a metric or a command line.
fn check_name(reader: &mut Reader<'_>, name: &str, at: Place) {
    let good_char = |c: char| c.is_ascii_alphanumeric() || "._@-".contains(c);
    let (why, help) = if name.is_empty() {
        ("empty", "give it a name, as `api`".to_owned())
    } else if let Some(bad) = name.chars().find(|c| !good_char(*c)) {
        let label = if bad == ' ' { "a space" } else { "not allowed here" };
        let better: String = name.chars().map(|c| if good_char(c) { c } else { '-' }).collect();
        let better = better.trim_matches(['-', '.']);
        let hint = "names are made of letters, digits and `.`, `_`, `@`, `-`";
        let sayable = name.is_ascii() && (1..=64).contains(&better.len());
        (label, if sayable { format!("write `{better}`; {hint}") } else { hint.to_owned() })
    } else if name.starts_with(['.', '-']) {
        ("begins with a dot or a dash", format!("write `{}`", name.trim_start_matches(['.', '-'])))
    } else if name.len() > 64 {
        ("too long", "at most 64 characters; a longer one for people goes into `title`".to_owned())
    } else {
        return;
    };
    reader.report(
        Problem::error("config::bad_name", format!("`{name}` cannot be a name")).at(at, why).help(help),
    );
}
