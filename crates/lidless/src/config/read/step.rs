//! What does one step say, beside what it calls?

use lidless_core::pipeline::plan::{Approve, Class};
use lidless_drivers::step::when::When;

use super::super::model::{Confirm, ConfirmBy, Given, Step, Work};
use super::super::node::{Entry, Node, Sp};
use super::super::problem::Problem;
use super::super::shape;
use super::super::units::{self, Refused, nearest};
use super::fields::{Fields, Reader};
use super::service::given;
use super::{call, request};

/// What goes with something that lidless does not call itself.
const OF_A_CALL: [&str; 9] =
    ["retry", "timeout", "confirm", "class", "once", "value", "undo", "pivot", "approve"];

/// Reads a step; what is unusable is reported and left out.
pub(super) fn step(reader: &mut Reader<'_>, name: &str, node: &Node) -> Step {
    let Some(fields) = reader.fields(node, &shape::STEP, name) else {
        return Step { work: Given::Broken, after: Given::Broken, ..Step::default() };
    };
    let chosen = fields.chosen();
    let work = match chosen.as_slice() {
        [entry] if entry.key.value == "require" => require(reader, &entry.node),
        [entry] => call::call(reader, &entry.node, &shape::CALL),
        [] if fields.get("approve").is_some() => Some(Work::Nothing),
        _ => None,
    };
    let only = only(&fields, &chosen);
    if let Some((of, beside)) = &only {
        // What else it says has to go, so nothing more is said about that.
        not_for(reader, &fields, of, beside);
    }
    let goes = |key: &str| only.as_ref().is_none_or(|(_, beside)| beside.contains(&key));
    let step = Step {
        work: work.map_or(Given::Broken, Given::Good),
        after: given(fields.get("after"), |_| reader.texts(&fields, "after")),
        when: reader.parsed(&fields, "when", when),
        approve: fields.get("approve").filter(|_| goes("approve")).and_then(|node| approve(reader, node)),
        value: fields.entry("value").filter(|_| goes("value")).map(|entry| {
            reader.fields(&entry.node, &shape::VALUE, "value");
            entry.key.at
        }),
        pivot: (reader.boolean(&fields, "pivot") == Some(true) && goes("pivot"))
            .then(|| fields.entry("pivot").map(|entry| entry.key.at))
            .flatten(),
        ..Step::default()
    };
    let step = repeated(reader, &fields, step, &goes);
    let undo = fields.entry("undo").filter(|_| goes("undo"));
    let undo = undo.map(|entry| Sp { value: Box::new(undo_of(reader, entry, &step)), at: entry.key.at });
    Step { undo, ..step }
}

/// Reads what a step and its undo say in common about doing it again.
fn repeated(reader: &mut Reader<'_>, fields: &Fields<'_>, step: Step, goes: &dyn Fn(&str) -> bool) -> Step {
    let retry = fields.get("retry").filter(|_| goes("retry"));
    let retry = retry.and_then(|node| reader.fields(node, &shape::RETRY, "retry"));
    let backoff = retry.as_ref().and_then(|retry| reader.parsed(retry, "backoff", units::duration_range));
    Step {
        attempts: retry.as_ref().and_then(|retry| reader.whole(retry, "attempts")),
        backoff: backoff.map(|backoff| backoff.value),
        within: retry.as_ref().and_then(|retry| reader.duration(retry, "within")),
        timeout: if goes("timeout") { reader.duration(fields, "timeout") } else { None },
        confirm: match fields.entry("confirm").filter(|_| goes("confirm")) {
            None => Given::Absent,
            Some(entry) => confirm(reader, entry).map_or(Given::Broken, Given::Good),
        },
        class: if goes("class") { class_of(reader, fields) } else { Given::Absent },
        ..step
    }
}

/// Reads `undo`. What moved value is brought back by what moves value.
fn undo_of(reader: &mut Reader<'_>, entry: &Entry, forward: &Step) -> Step {
    let broken = Step { work: Given::Broken, ..Step::default() };
    let Some(fields) = reader.fields(&entry.node, &shape::UNDO, "undo") else { return broken };
    let chosen = fields.chosen();
    let work = match chosen.as_slice() {
        [entry] if entry.key.value == "call" => call::call(reader, &entry.node, &shape::UNDO_CALL),
        [_] => call::read(reader, &fields),
        _ => None,
    };
    let step = Step {
        work: work.map_or(Given::Broken, Given::Good),
        value: forward.value.map(|_| entry.key.at),
        ..Step::default()
    };
    let only = only(&fields, &chosen);
    if let Some((of, beside)) = &only {
        not_for(reader, &fields, of, beside);
    }
    repeated(reader, &fields, step, &|key| only.as_ref().is_none_or(|(_, beside)| beside.contains(&key)))
}

/// What may stand beside a choice that lidless does by itself; none for one that is called.
fn only<'n>(fields: &Fields<'n>, chosen: &[&'n Entry]) -> Option<(&'n Entry, &'static [&'static str])> {
    let [entry] = chosen else {
        let entry =
            chosen.is_empty().then(|| fields.key("approve").and_then(|_| fields.entry("approve")))??;
        return Some((entry, &["approve", "pivot"]));
    };
    if entry.key.value == "require" {
        return Some((entry, &["approve", "retry"]));
    }
    let super::super::node::Value::Map(called) = &entry.node.value else { return None };
    let [kind] = called.as_slice() else { return None };
    match kind.key.value.as_str() {
        "wait" => Some((kind, &["approve", "pivot"])),
        "pipeline" => Some((kind, &[])),
        "service" => Some((kind, &["approve", "retry", "undo", "pivot"])),
        _ => None,
    }
}

/// Reports what says nothing of such a step.
fn not_for(reader: &mut Reader<'_>, fields: &Fields<'_>, of: &Entry, beside: &[&str]) {
    let kind = &of.key.value;
    let why = match kind.as_str() {
        "require" => "lidless answers this itself, at once",
        "wait" => "only time goes by",
        "service" => "a run of its own, with its checks for an answer",
        "pipeline" => "its steps say this of themselves",
        _ => "a person's yes is all there is to it",
    };
    let has = |name: &&str| fields.key(name).is_some();
    let rest = ["after", "when"].iter().chain(beside).filter(|name| has(name) && **name != kind);
    let rest: Vec<String> = rest.map(|key| format!("`{key}`")).collect();
    let refused = OF_A_CALL.iter().copied().filter(|name| has(name) && !beside.contains(name));
    // Whether the steps of another pipeline are to be done cannot be said of one of them.
    let refused = refused.chain(["when"].into_iter().filter(|_| kind == "pipeline"));
    let rest = if kind == "pipeline" { "`after`".to_owned() } else { rest.join(", ") };
    for name in refused {
        let Some(entry) = fields.entry(name) else { continue };
        reader.report(
            Problem::error("config::not_for_kind", format!("`{name}` does not go with `{kind}`"))
                .at(entry.key.at, "says nothing here")
                .at(of.key.at, why)
                .help(format!("remove `{name}`; beside `{kind}` there may only be {rest}")),
        );
    }
}

fn require(reader: &mut Reader<'_>, node: &Node) -> Option<Work> {
    let fields = reader.fields(node, &shape::REQUIRE, "require")?;
    let help = "write the names of services: `healthy: [api]`";
    reader.names(&fields, "healthy", "no service", help).map(Work::Require)
}

fn approve(reader: &mut Reader<'_>, node: &Node) -> Option<Approve> {
    let fields = reader.fields(node, &shape::APPROVE, "approve")?;
    let within = reader.duration(&fields, "within");
    let ask = reader.text(&fields, "ask").map(|ask| ask.value).unwrap_or_default();
    Some(Approve { within: within?, ask })
}

fn confirm(reader: &mut Reader<'_>, entry: &Entry) -> Option<Confirm> {
    let fields = reader.fields(&entry.node, &shape::CONFIRM, "confirm")?;
    let tries = reader.whole(&fields, "tries").map(|tries| tries.value);
    let by = match fields.get("http") {
        Some(node) => request::confirm(reader, node).map(|http| ConfirmBy::Http(Box::new(http))),
        None => reader.argv(&fields, "exec").map(ConfirmBy::Exec),
    };
    Some(Confirm { at: entry.key.at, by: by?, tries })
}

/// Reads `class`, or `once`, which is short for one of two.
fn class_of(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Given<Sp<Class>> {
    let written = given(fields.get("class"), |_| reader.parsed(fields, "class", class));
    let once = reader.boolean(fields, "once") == Some(true);
    let Some(entry) = fields.entry("once").filter(|_| once) else { return written };
    if let Some(class) = fields.entry("class") {
        reader.report(
            Problem::error("config::class_twice", "`once` and `class` say the same thing twice")
                .at(entry.key.at, "one way to say it")
                .at(class.key.at, "and another")
                .help("keep one of them; `once: true` is `confirmable` with `confirm`, else `one_shot`"),
        );
        return Given::Broken;
    }
    let value = if fields.get("confirm").is_some() { Class::Confirmable } else { Class::OneShot };
    Given::Good(Sp { value, at: entry.key.at })
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

fn when(text: &str) -> Result<(String, When), Refused> {
    match When::parse(text) {
        Ok(when) => Ok((text.to_owned(), when)),
        Err(err) => {
            let at = text.char_indices().nth(err.at).map_or(text.len(), |(at, _)| at);
            let end = text[at..].chars().next().map_or(at, |char| at + char.len_utf8());
            let help = "write a comparison, as `inputs.amount > 0` or `outputs.STEP.ok == true && inputs.dry != true`";
            // The rest of such a sentence says what to write, and so does the help.
            let why = err.why.split_once(": write").map_or(err.why.as_str(), |(why, _)| why);
            let refused = Refused::new("is not a condition", why, help);
            // Of what is missing at the end there is nothing to point at but all of it.
            Err(if at < end { refused.part(at..end) } else { refused })
        }
    }
}
