//! What does a step send over HTTP, and which answer means what?

use std::collections::BTreeMap;

use lidless_drivers::step::http::BodySettings;
use serde_json::Number;

use super::super::model::{ConfirmHttp, Expectation, Request, StepHttp};
use super::super::node::{Node, Value};
use super::super::problem::Problem;
use super::super::shape;
use super::super::units::Refused;
use super::check::{headers, statuses};
use super::fields::{Fields, Reader};
use super::forms;
use super::service::secrets;
use crate::config::model::Text;

/// Reads `call.http`.
pub(super) fn http(reader: &mut Reader<'_>, node: &Node) -> Option<StepHttp> {
    let fields = opened(reader, node, &shape::CALL_HTTP)?;
    let tls = fields.get("tls").and_then(|node| reader.fields(node, &shape::TLS, "tls"));
    let request = request(reader, &fields);
    let http = StepHttp {
        key_header: reader.parsed(&fields, "key_header", key_header).map(|header| header.value),
        expect: expectation(reader, &fields, "expect"),
        not_applied_on: not_applied_on(reader, &fields),
        output: texts_by_name(reader, &fields, "output"),
        tls_verify: tls.as_ref().and_then(|tls| reader.boolean(tls, "verify")),
        ca_file: tls.as_ref().and_then(|tls| reader.text(tls, "ca_file")),
        request: Request {
            url: String::new(),
            method: None,
            headers: Vec::new(),
            body: None,
            places: BTreeMap::new(),
        },
    };
    Some(StepHttp { request: request?, ..http })
}

/// Reads `confirm.http`.
pub(super) fn confirm(reader: &mut Reader<'_>, node: &Node) -> Option<ConfirmHttp> {
    let fields = opened(reader, node, &shape::CONFIRM_HTTP)?;
    let request = request(reader, &fields);
    let applied = expectation(reader, &fields, "applied");
    let not_applied = expectation(reader, &fields, "not_applied");
    let output = texts_by_name(reader, &fields, "output");
    Some(ConfirmHttp { request: request?, applied, not_applied, output })
}

fn opened<'n>(reader: &mut Reader<'_>, node: &'n Node, shape: &'static shape::Shape) -> Option<Fields<'n>> {
    if let Value::Text(text) = &node.value {
        // The text may hold a password: never repeat one.
        let url = if text.contains('@') { "URL" } else { text };
        reader.wrong_type(node, "http", "a map", &format!("write `http: {{ url: \"{url}\" }}`"));
        return None;
    }
    reader.fields(node, shape, "http")
}

fn request(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Request> {
    let url = reader.parsed(fields, "url", url);
    let request = Request {
        url: String::new(),
        method: reader.parsed(fields, "method", forms::method).map(|method| method.value),
        headers: headers(reader, fields),
        body: body(reader, fields),
        places: BTreeMap::new(),
    };
    let url = url?;
    let mut places = BTreeMap::from([("url", url.at)]);
    places.extend(fields.entry("headers").map(|entry| ("headers", entry.key.at)));
    let body = ["body", "json", "form"].iter().find_map(|name| fields.entry(name));
    places.extend(body.map(|entry| ("body", entry.key.at)));
    Some(Request { url: url.value, places, ..request })
}

/// Checks a URL as far as it stands there: what the placeholders become is not known yet.
fn url(text: &str) -> Result<String, Refused> {
    if let Some(at) = text.find("{{") {
        let host = text.find("://").map_or(0, |at| at + 3);
        let end = text[at..].find("}}").map_or(text.len(), |end| at + end + 2);
        if !text.get(host..at).is_some_and(|before| before.contains(['/', '?'])) {
            let help = "write the host out; a value may stand in the path and in the query";
            let refused = Refused::new("has a placeholder before its path", "would choose the server", help);
            return Err(refused.part(at..end));
        }
    }
    let mut tried = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        tried.push_str(before);
        tried.push('0');
        rest = after.split_once("}}").map_or("", |(_, after)| after);
    }
    tried.push_str(rest);
    match forms::url(&tried) {
        Ok(_) => Ok(text.to_owned()),
        // Its places are those of another text.
        Err(refused) if tried != text && !refused.secret => Err(Refused { part: None, ..refused }),
        Err(refused) => Err(refused),
    }
}

fn key_header(text: &str) -> Result<Option<String>, Refused> {
    if text == "off" {
        return Ok(None);
    }
    match text.parse::<hyper::header::HeaderName>() {
        Ok(_) => Ok(Some(text.to_owned())),
        Err(_) => Err(Refused::new(
            "cannot name a header",
            "not a header's name",
            "write a name, as `Idempotency-Key`, or `off`",
        )),
    }
}

fn body(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<BodySettings> {
    let given: Vec<_> = ["body", "json", "form"].iter().filter_map(|name| fields.entry(name)).collect();
    if let [first, second, ..] = given.as_slice() {
        reader.report(
            Problem::error(
                "config::two_bodies",
                format!("a request has both `{}` and `{}`", first.key.value, second.key.value),
            )
            .at(second.key.at, "and this one")
            .at(first.key.at, "this one")
            .help("keep one of `body`, `json` and `form`"),
        );
        return None;
    }
    let [entry] = given.as_slice() else { return None };
    match entry.key.value.as_str() {
        "body" => {
            let text = reader.parsed(fields, "body", |text| Ok(text.to_owned()))?;
            Some(BodySettings::Text(text.value))
        }
        "json" => json(reader, &entry.node).map(BodySettings::Json),
        _ => texts_by_name(reader, fields, "form").map(BodySettings::Form),
    }
}

/// Reads what is sent as JSON: here, and nowhere else, a number without quotes is a number.
fn json(reader: &mut Reader<'_>, node: &Node) -> Option<serde_json::Value> {
    use serde_json::Value as Json;
    match &node.value {
        Value::Broken => None,
        Value::Null => Some(Json::Null),
        Value::List(items) => {
            let items: Vec<_> = items.iter().map(|item| json(reader, item)).collect();
            items.into_iter().collect::<Option<Vec<_>>>().map(Json::Array)
        }
        Value::Map(entries) => {
            let pairs: Vec<_> = entries
                .iter()
                .map(|entry| Some((entry.key.value.clone(), json(reader, &entry.node)?)))
                .collect();
            pairs.into_iter().collect::<Option<serde_json::Map<_, _>>>().map(Json::Object)
        }
        Value::Text(text) if !reader.is_bare(node, text) => Some(Json::String(text.clone())),
        Value::Text(text) => match serde_json::from_str::<Json>(text) {
            Ok(Json::Number(number)) if !is_exact(&number, text) => {
                let help = format!("write it as a text, `\"{text}\"`: other readers of JSON round it too");
                reader.refused(
                    node.at,
                    "json",
                    Refused::new("has a number that would be rounded", "this number", help),
                );
                None
            }
            Ok(scalar @ (Json::Number(_) | Json::Bool(_))) => Some(scalar),
            Ok(Json::Null | Json::String(_) | Json::Array(_) | Json::Object(_)) | Err(_) => {
                Some(Json::String(text.clone()))
            }
        },
    }
}

fn is_exact(number: &Number, text: &str) -> bool {
    number.to_string() == text
}

fn expectation(reader: &mut Reader<'_>, fields: &Fields<'_>, name: &str) -> Option<Expectation> {
    let node = fields.get(name)?;
    let answer = reader.fields(node, &shape::ANSWER, name)?;
    let status = statuses(reader, &answer, "status");
    let contains = reader.text(&answer, "contains").map(|text| text.value);
    Some(Expectation { status, contains })
}

fn not_applied_on(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Vec<u16> {
    let ranges = statuses(reader, fields, "not_applied_on").unwrap_or_default();
    ranges.into_iter().flatten().collect()
}

/// Reads names to texts, none of them secret.
fn texts_by_name(reader: &mut Reader<'_>, fields: &Fields<'_>, name: &str) -> Option<Vec<(String, String)>> {
    let node = fields.get(name)?;
    let mut plain = Vec::new();
    for (key, text) in secrets(reader, node, name, |_, _| {}) {
        match text {
            Text::Plain(text) => plain.push((key, text)),
            Text::Secret(source) => reader.report(
                Problem::error("config::secret_in_step", format!("`{key}` is a secret, in `{name}`"))
                    .at(source.at, "would be kept in the journal")
                    .help("a secret may stand in `headers`, and in `env` of a command"),
            ),
        }
    }
    Some(plain)
}
