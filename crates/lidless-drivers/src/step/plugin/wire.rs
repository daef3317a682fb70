//! What do we say to a plugin, and what may it say? One JSON object a line, either way.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::super::answer::one_line;
use super::super::time::moment_in;
use super::super::{Call, Undoes};

/// The most characters of a line that is shown to say what is wrong with it.
const SHOWN_MAX: usize = 80;

/// What a plugin may be asked to do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Op {
    /// Say who it is, and what is wrong with settings.
    Describe,
    /// Say what it would do.
    Plan,
    /// Make ready what it will do, and let nothing out.
    Prepare,
    /// Do it.
    Perform,
    /// Take back what another step did.
    Undo,
    /// Say whether it took effect.
    Confirm,
    /// Say how often it took effect. Only the conformance test asks.
    Count,
}

impl Op {
    /// Says whether something may have left the machine once this was sent.
    pub(super) fn lets_out(self) -> bool {
        match self {
            Op::Perform | Op::Undo => true,
            Op::Describe | Op::Plan | Op::Prepare | Op::Confirm | Op::Count => false,
        }
    }
}

/// What is asked. Its number is given to it when it is sent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) op: Op,
    /// Only `describe` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) protocol: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) settings: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) call: Option<Told>,
    /// What was prepared, and is durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) handle: Option<Value>,
}

/// What a plugin is told of an attempt.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Told {
    run: String,
    pipeline: String,
    step: String,
    attempt: u32,
    pub(super) idempotency_key: String,
    /// RFC 3339, UTC.
    deadline: String,
    inputs: Value,
    outputs: Value,
    pub(super) handles: Vec<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) undoes: Option<ToldUndoes>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ToldUndoes {
    step: String,
    idempotency_key: String,
    output: Value,
    handles: Vec<Value>,
}

impl Told {
    /// Tells of a call that has so much time left.
    pub(super) fn new(call: &Call, left: Duration) -> Told {
        let undoes = |Undoes { step, idempotency_key, output, handles }: &Undoes| ToldUndoes {
            step: step.clone(),
            idempotency_key: idempotency_key.clone(),
            output: output.clone(),
            handles: handles.clone(),
        };
        Told {
            run: call.run.clone(),
            pipeline: call.pipeline.clone(),
            step: call.step.clone(),
            attempt: call.attempt,
            idempotency_key: call.idempotency_key.clone(),
            deadline: moment_in(left),
            inputs: call.inputs.clone(),
            outputs: Value::clone(&call.outputs),
            handles: call.handles.clone(),
            undoes: call.undoes.as_ref().map(undoes),
        }
    }
}

impl Request {
    /// Asks who it is, and what it thinks of these settings of a kind.
    pub(super) fn describe(about: Option<(&str, &Value)>) -> Request {
        let (kind, settings) = about.unzip();
        Request {
            id: 0,
            op: Op::Describe,
            protocol: Some(super::PROTOCOL),
            kind: kind.map(str::to_owned),
            settings: settings.cloned(),
            call: None,
            handle: None,
        }
    }

    /// Asks something about a call, to be answered by then.
    pub(super) fn about(op: Op, (kind, settings): (&str, &Value), call: &Call, deadline: Instant) -> Request {
        let left = deadline.saturating_duration_since(Instant::now());
        Request {
            id: 0,
            op,
            protocol: None,
            kind: Some(kind.to_owned()),
            settings: Some(settings.clone()),
            call: Some(Told::new(call, left)),
            handle: None,
        }
    }

    /// Returns the line that is sent, with its end.
    pub(super) fn line(&self) -> Vec<u8> {
        // Texts are its only keys, so that it cannot fail; a plugin would answer to an empty line with nothing, and be overdue.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// What a plugin says.
#[derive(PartialEq, Debug)]
pub(super) enum Message {
    /// An answer to the request of this number.
    Answer { id: u64, body: Map<String, Value> },
    /// A line for the log of a request, or of all that are in flight.
    Log { id: Option<u64>, text: String },
    /// It is alive.
    Heartbeat,
}

impl Message {
    /// Reads a line. Nothing stands in a blank one. An `Err` says what the plugin did: "wrote a line that is ...".
    pub(super) fn read(line: &[u8]) -> Result<Option<Message>, String> {
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        let wrote = |what: &str| {
            let line = String::from_utf8_lossy(&line[..line.len().min(4 * SHOWN_MAX)]);
            format!("wrote a line that {what}: `{}`", one_line(&line, SHOWN_MAX))
        };
        let mut body: Map<String, Value> =
            serde_json::from_slice(line).map_err(|_| wrote("is no JSON object"))?;
        let id = match body.remove("id") {
            None => None,
            Some(id) => Some(id.as_u64().ok_or_else(|| wrote("has an `id` that is no number of ours"))?),
        };
        match (body.len(), body.get("log"), body.get("heartbeat"), id) {
            (1, Some(Value::String(text)), _, id) => Ok(Some(Message::Log { id, text: text.clone() })),
            (1, _, Some(Value::Bool(true)), _) => Ok(Some(Message::Heartbeat)),
            // What looks like a message and an answer at once would be a lost answer if it were taken for the message.
            (_, None, None, Some(id)) => Ok(Some(Message::Answer { id, body })),
            (_, None, None, None) => Err(wrote("has no `id`")),
            (_, Some(_), ..) => Err(wrote("is neither a `log` of one text nor an answer")),
            (_, _, Some(_), _) => Err(wrote("is neither a `heartbeat` that is true nor an answer")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> String {
        match Message::read(line.as_bytes()) {
            Ok(None) => "nothing".to_owned(),
            Ok(Some(Message::Answer { id, body })) => format!("answer {id} {}", Value::Object(body)),
            Ok(Some(Message::Log { id, text })) => format!("log {id:?} {text}"),
            Ok(Some(Message::Heartbeat)) => "heartbeat".to_owned(),
            Err(error) => error,
        }
    }

    #[test]
    fn a_line_is_one_thing_or_refused() {
        assert_eq!(read(" \r"), "nothing");
        assert_eq!(read(r#"{"id":7,"ok":true}"#), r#"answer 7 {"ok":true}"#);
        assert_eq!(read(r#"{"id":7}"#), "answer 7 {}");
        assert_eq!(read(r#"{"log":"x"}"#), "log None x");
        assert_eq!(read(r#"{"id":7,"log":"x"}"#), "log Some(7) x");
        assert_eq!(read(r#"{"heartbeat":true}"#), "heartbeat");
        assert_eq!(read(r#"{"id":7,"heartbeat":true}"#), "heartbeat");
        for bad in [
            "hello",
            "[1]",
            "{}",
            "{} {}",
            r#"{"ok":true}"#,
            r#"{"id":"7","ok":true}"#,
            r#"{"id":-7,"ok":true}"#,
            r#"{"id":7,"ok":true,"log":"x"}"#,
            r#"{"log":7}"#,
            r#"{"heartbeat":false}"#,
            "{\"id\":7,\"ok\":true",
        ] {
            assert!(read(bad).starts_with("wrote a line that "), "{bad}: {}", read(bad));
        }
        let long = format!("x\x1b{}", "y".repeat(100));
        assert_eq!(read(&long), format!("wrote a line that is no JSON object: `x {}…`", "y".repeat(78)));
    }
}
