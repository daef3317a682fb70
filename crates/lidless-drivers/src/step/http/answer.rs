//! What does an answer of a server say about the effect of a step?

use hyper::header::{CONTENT_TYPE, RETRY_AFTER};
use serde_json::{Map, Value};

use super::request::Reply;
use super::settings::{Expect, HttpStepError, OutputSettings};
use super::template::{Template, Written, follow, parts};
use crate::check::http::{BODY_MAX, StatusWanted, contains};
use crate::check::wording::{self, Bytes};
use crate::step::answer::{Strict, exact};
use crate::step::last::{ANSWER_MAX, too_long};
use crate::step::{Answer, Call, FailureClass};

/// What a wanted answer looks like, ready to be filled.
pub(super) struct Wanted {
    status: StatusWanted,
    contains: Option<Template>,
}

/// The same for one call.
pub(super) struct WantedNow<'a> {
    pub(super) status: &'a StatusWanted,
    contains: Option<String>,
}

impl Wanted {
    /// Reads what a user says; `place` is the name of it.
    pub(super) fn new(expect: &Expect, place: &str) -> Result<Wanted, HttpStepError> {
        let contains = expect.contains.as_deref().map(Template::parse).transpose();
        let contains =
            contains.map_err(|misread| HttpStepError::template(format!("{place}.contains"), misread))?;
        Ok(Wanted { status: expect.status.clone(), contains })
    }

    /// Puts a call's values in.
    pub(super) fn fill(&self, call: &Call) -> Result<WantedNow<'_>, String> {
        let contains =
            self.contains.as_ref().map(|contains| contains.fill(call, Written::Plainly)).transpose()?;
        Ok(WantedNow { status: &self.status, contains })
    }

    /// Returns what it asks of a call.
    pub(super) fn ways(&self) -> impl Iterator<Item = &super::template::Way> {
        self.contains.iter().flat_map(Template::ways)
    }
}

impl WantedNow<'_> {
    /// Says what an answer lacks.
    pub(super) fn judge(&self, reply: &Reply) -> Result<(), String> {
        if !self.status.holds(reply.status) {
            return Err(format!("{}, wanted {}", said(reply), self.status));
        }
        match &self.contains {
            Some(needle) if !contains(&reply.body, needle.as_bytes()) => {
                Err(format!("status {}, and the body does not contain `{needle}`", reply.status))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Returns the statuses after which nobody looks at the body.
    pub(super) fn by_status(&self, output: &Output) -> Option<&StatusWanted> {
        (self.contains.is_none() && !output.needs_body()).then_some(self.status)
    }
}

/// Says what became of an attempt.
pub(super) fn judge(
    reply: &Reply,
    wanted: &WantedNow<'_>,
    not_applied_on: &[u16],
    output: &Output,
    strict: Strict,
) -> Answer {
    if wanted.status.holds(reply.status) {
        return match wanted.judge(reply) {
            Err(error) => Answer::Failed { error, class: strict.or(FailureClass::Transient) },
            Ok(()) => match output.of(reply) {
                Ok(output) => Answer::Applied { output, amounts: Vec::new(), handle: None },
                // The server said that it is done: only what it gave is lost.
                Err(error) => Answer::Failed { error, class: FailureClass::Unknown },
            },
        };
    }
    let again = match reply.status {
        408 | 425 | 429 | 500..=599 => FailureClass::Transient,
        _ => FailureClass::Permanent,
    };
    let class = match reply.status {
        status if not_applied_on.contains(&status) => again,
        200..=299 => FailureClass::Unknown,
        // Timed out, in conflict (perhaps with an earlier attempt), too early, too many: it may have been done all the same.
        408 | 409 | 425 | 429 => strict.or(again),
        400..=499 => again,
        _ => strict.or(again),
    };
    let error = match reply.status {
        300..=399 => format!("{}; a step follows no redirect", said(reply)),
        _ => said(reply),
    };
    Answer::Failed { error: with_delay(error, reply), class }
}

/// Returns the status, and what the server says about it.
pub(super) fn said(reply: &Reply) -> String {
    let field = |object: &Map<String, Value>| {
        let texts = ["error", "message", "detail", "title", "reason"].iter().filter_map(|name| {
            let value = object.get(*name)?;
            value.as_str().or_else(|| value.get("message")?.as_str())
        });
        texts.map(|text| wording::first_line(text.as_bytes())).find(|text| !text.is_empty())
    };
    let object = serde_json::from_slice::<Map<String, Value>>(&reply.body).ok();
    // A page for people has nothing in its first line.
    let is_page = |line: &String| line.starts_with('<');
    let line = || first_line(&reply.body).filter(|line| !is_page(line));
    match object.as_ref().and_then(field).or_else(line) {
        Some(words) => format!("status {}: {words}", reply.status),
        None => format!("status {}", reply.status),
    }
}

/// Returns after how many seconds the server wants to be asked again, where it says so. After a day, whatever it says.
pub(super) fn retry_after(reply: &Reply) -> Option<u64> {
    const DAY: u64 = 86_400;
    let seconds: u64 = reply.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(seconds.min(DAY))
}

fn with_delay(error: String, reply: &Reply) -> String {
    match retry_after(reply) {
        Some(seconds) => format!("{error} (it wants to be asked again after {seconds} s)"),
        None => error,
    }
}

fn first_line(body: &[u8]) -> Option<String> {
    body.split(|byte| *byte == b'\n').map(wording::first_line).find(|line| !line.is_empty())
}

/// What later steps may use of an answer.
pub(super) enum Output {
    Body,
    Select(Vec<(String, Pick)>),
}

/// Where a field of the output stands in an answer.
pub(super) enum Pick {
    Status,
    Header(String),
    Body(Vec<String>),
}

impl Output {
    /// Reads what a user says; `place` is the name of it.
    pub(super) fn new(settings: &OutputSettings, place: &str) -> Result<Output, HttpStepError> {
        let OutputSettings::Select(fields) = settings else { return Ok(Output::Body) };
        let field = |(name, way): &(String, String)| match Pick::parse(way) {
            Ok(pick) => Ok((name.clone(), pick)),
            Err(reason) => {
                Err(HttpStepError::Output { place: format!("{place}.{name}"), way: way.clone(), reason })
            }
        };
        fields.iter().map(field).collect::<Result<_, _>>().map(Output::Select)
    }

    fn needs_body(&self) -> bool {
        match self {
            Output::Body => true,
            Output::Select(fields) => fields.iter().any(|(_, pick)| matches!(pick, Pick::Body(_))),
        }
    }

    /// Takes it from an answer.
    pub(super) fn of(&self, reply: &Reply) -> Result<Value, String> {
        let output = match self {
            Output::Body => whole(reply)?,
            Output::Select(fields) => {
                let body = if self.needs_body() { Some(json(reply)?) } else { None };
                let field = |(name, pick): &(String, Pick)| {
                    Ok((name.clone(), pick.of(reply, body.as_ref().unwrap_or(&Value::Null))?))
                };
                Value::Object(fields.iter().map(field).collect::<Result<_, String>>()?)
            }
        };
        exact(&output)?;
        let length = output.to_string().len();
        if length > ANSWER_MAX {
            return Err(format!("{}; `output` can take a part of it", too_long(length)));
        }
        Ok(output)
    }
}

impl Pick {
    fn parse(way: &str) -> Result<Pick, String> {
        let parts = parts(way)?;
        match &*parts {
            [root] if root == "status" => Ok(Pick::Status),
            [root, name] if root == "headers" => Ok(Pick::Header(name.clone())),
            [root, rest @ ..] if root == "body" => Ok(Pick::Body(rest.to_vec())),
            [..] => Err("it begins with `body`, or is `headers.NAME` or `status`".to_owned()),
        }
    }

    fn of(&self, reply: &Reply, body: &Value) -> Result<Value, String> {
        match self {
            Pick::Status => Ok(Value::from(reply.status)),
            Pick::Header(name) => match reply.headers.get(name).map(|value| value.as_bytes()) {
                Some(value) => Ok(Value::String(wording::first_line(value))),
                None => Err(format!("its answer has no header `{name}`")),
            },
            Pick::Body(parts) => {
                let found = follow(body, parts).filter(|value| !value.is_null());
                found.cloned().ok_or_else(|| format!("its answer has no `body.{}`", parts.join(".")))
            }
        }
    }
}

/// Returns the body as an object.
fn whole(reply: &Reply) -> Result<Value, String> {
    let is_object = reply.body.trim_ascii_start().starts_with(b"{");
    if is_object || says_json(reply) {
        match json(reply) {
            Ok(object @ Value::Object(_)) => return Ok(object),
            Ok(_) => {}
            // Half an answer is no answer; what only looks like JSON is a text.
            Err(error) if reply.is_cut || says_json(reply) => return Err(error),
            Err(_) => {}
        }
    }
    let text = first_line(&reply.body).map(|line| ("text".to_owned(), Value::String(line)));
    Ok(Value::Object(text.into_iter().collect()))
}

fn json(reply: &Reply) -> Result<Value, String> {
    if reply.is_cut {
        return Err(format!("its answer is over {} long", Bytes(BODY_MAX)));
    }
    if reply.body.trim_ascii().is_empty() && !says_json(reply) {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&reply.body).map_err(|err| format!("its answer is not JSON: {err}"))
}

fn says_json(reply: &Reply) -> bool {
    let kind = reply.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    // 201 and 204 often keep the type and have no body.
    !reply.body.is_empty() && (kind.eq_ignore_ascii_case("application/json") || kind.ends_with("+json"))
}
