//! What does one entry of `checks` say?

use super::super::model::{Check, CheckExec, Given, Http, Kind, Text, Timing};
use super::super::node::{Entry, Node, Place, Sp, Value};
use super::super::problem::Problem;
use super::super::shape;
use super::super::units::{self, Refused};
use super::fields::{Fields, Reader};
use super::service::{env, secrets};
use super::{forms, timing};
use std::ops::RangeInclusive;

/// Reads a check; what is unusable is reported and left out.
pub(super) fn read(reader: &mut Reader<'_>, name: &str, node: &Node) -> Check {
    let Some(fields) = reader.fields(node, &shape::CHECK, name) else {
        return Check { kind: Given::Broken, timing: Timing::default() };
    };
    let chosen = fields.chosen();
    let kind = match chosen.as_slice() {
        [entry] => kind(reader, entry),
        _ => None,
    };
    Check { kind: kind.map_or(Given::Broken, Given::Good), timing: timing(reader, &fields) }
}

fn kind(reader: &mut Reader<'_>, entry: &Entry) -> Option<Kind> {
    let node = &entry.node;
    match entry.key.value.as_str() {
        "http" => http(reader, node).map(|http| Kind::Http(Box::new(http))),
        "tcp" => {
            let fields = reader.fields(node, &shape::TCP, "tcp")?;
            reader.parsed(&fields, "address", forms::address).map(|address| Kind::Tcp(address.value))
        }
        "exec" => {
            let fields = reader.fields(node, &shape::CHECK_EXEC, "exec")?;
            let command = reader.argv(&fields, "command");
            let warning = reader.parsed(&fields, "warning", |text| match text {
                "pass" => Ok(true),
                "fail" => Ok(false),
                _ => Err(Refused::new(
                    "must be `pass` or `fail`",
                    "neither",
                    "write what exit code 1 means: `pass` or `fail`",
                )),
            });
            let (env, dir) = (env(reader, &fields), reader.text(&fields, "dir"));
            let warning_passes = warning.is_some_and(|passes| passes.value);
            Some(Kind::Exec(CheckExec { command: command?, warning_passes, env, dir }))
        }
        "process" => {
            reader.fields(node, &shape::CHECK_PROCESS, "process")?;
            Some(Kind::Process(entry.key.at))
        }
        _ => {
            let fields = reader.fields(node, &shape::CHECK_SYSTEMD, "systemd")?;
            let unit = match fields.get("unit") {
                None => None,
                Some(_) => Some(reader.parsed(&fields, "unit", forms::unit)?),
            };
            Some(Kind::Systemd(unit, entry.key.at))
        }
    }
}

fn http(reader: &mut Reader<'_>, node: &Node) -> Option<Http> {
    if let Value::Text(text) = &node.value {
        // The text may hold a password: never repeat one.
        let url = if text.contains('@') { "URL" } else { text };
        reader.wrong_type(node, "http", "a map", &format!("write `http: {{ url: {url} }}`"));
        return None;
    }
    let fields = reader.fields(node, &shape::HTTP, "http")?;
    let url = reader.parsed(&fields, "url", forms::url);
    let expect = fields.get("expect").and_then(|node| expect(reader, node));
    let tls = fields.get("tls").and_then(|node| reader.fields(node, &shape::TLS, "tls"));
    let http = Http {
        url: String::new(),
        method: reader.parsed(&fields, "method", forms::method).map(|method| method.value),
        headers: headers(reader, &fields),
        body: reader.parsed(&fields, "body", |text| Ok(text.to_owned())).map(|body| body.value),
        status: expect.as_ref().and_then(|expect| statuses(reader, expect, "status")),
        contains: expect.as_ref().and_then(|expect| reader.text(expect, "contains")).map(|text| text.value),
        tls_verify: tls.as_ref().and_then(|tls| reader.boolean(tls, "verify")),
        ca_file: tls.as_ref().and_then(|tls| reader.text(tls, "ca_file")),
        max_body: reader.parsed(&fields, "max_body", units::size).map(|size| size.value),
    };
    Some(Http { url: url?.value, ..http })
}

fn expect<'n>(reader: &mut Reader<'_>, node: &'n Node) -> Option<Fields<'n>> {
    if let Value::Text(_) = &node.value {
        let help = "expressions are not supported yet; write `expect: { status: 200..299, contains: ready }`";
        reader.wrong_type(node, "expect", shape::EXPECT.noun, help);
        return None;
    }
    reader.fields(node, &shape::EXPECT, "expect")
}

/// Reads a status, a range of them, or a list of these.
pub(super) fn statuses(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    name: &str,
) -> Option<Vec<RangeInclusive<u16>>> {
    let node = fields.get(name)?;
    let Value::List(items) = &node.value else {
        return reader.parsed(fields, name, units::statuses).map(|range| vec![range.value]);
    };
    if items.is_empty() {
        reader.refused(
            node.at,
            name,
            Refused::new("is empty", "no status would pass", format!("write `{name}: 200..299`")),
        );
    }
    let mut ranges = Vec::with_capacity(items.len());
    for item in items {
        let Value::Text(text) = &item.value else {
            reader.wrong_type(item, name, "a list of statuses", &format!("write `{name}: [200, 204]`"));
            continue;
        };
        match units::statuses(text) {
            Ok(range) => ranges.push(range),
            Err(refused) => reader.refused(item.at, name, refused),
        }
    }
    Some(ranges)
}

/// Reads `headers`, whose values may be secret, and some of which must be.
pub(super) fn headers(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Vec<(String, Text)> {
    let Some(node) = fields.get("headers") else { return Vec::new() };
    let headers = secrets(reader, node, "headers", |reader, name| {
        if name.value.parse::<hyper::header::HeaderName>().is_err() {
            let refused = Refused::new(
                "cannot name a header",
                "not a header's name",
                "write `NAME: value`, as `Accept: application/json`",
            );
            reader.refused(name.at, &name.value, refused);
        }
    });
    for (name, text) in &headers {
        if let Text::Plain(text) = text {
            plain_header(reader, node, &Sp { value: name.clone(), at: node.at }, text);
        }
    }
    headers
}

/// Refuses a secret that stands in the file, and what cannot be sent.
fn plain_header(reader: &mut Reader<'_>, headers: &Node, name: &Sp<String>, text: &str) {
    let at = value_place(headers, &name.value).unwrap_or(name.at);
    if forms::is_secret_header(&name.value) {
        let credential = name.value.to_ascii_lowercase();
        reader.report(
            Problem::error("config::bare_secret", format!("the header `{}` holds a bare text", name.value))
                .at(at, "looks like a secret")
                .conceal(at)
                .help(format!("put it in a credential: `{}: {{ credential: {credential} }}`; or `{{ file: PATH }}`, `{{ env: NAME }}`", name.value)),
        );
    } else if hyper::header::HeaderValue::from_str(text).is_err() {
        reader.refused(
            at,
            &name.value,
            Refused::new("cannot be sent in a header", "not for a header", "write one line of ASCII"),
        );
    }
}

fn value_place(map: &Node, name: &str) -> Option<Place> {
    let Value::Map(entries) = &map.value else { return None };
    entries.iter().find(|entry| entry.key.value == name).map(|entry| entry.node.at)
}
