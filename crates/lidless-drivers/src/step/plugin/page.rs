//! Is every example of `docs/step-protocol.md` what the driver sends, and what it takes?

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Deserializer, Value};

use super::super::answer::{Strict, judge_object};
use super::super::{Answer, Found};
use super::description::{Description, problems};
use super::step::{Prepared, found, planned, prepared};
use super::wire::{Message, Op, Request};

/// Every JSON message on the page, with the line at which its block begins.
fn examples() -> Vec<(usize, Value)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/step-protocol.md");
    let page = std::fs::read_to_string(path).expect("the page is there");
    let mut examples = Vec::new();
    let mut block: Option<(usize, String)> = None;
    for (at, line) in page.lines().enumerate() {
        match (&mut block, line) {
            (None, "```json") => block = Some((at + 1, String::new())),
            (None, _) => assert!(!line.starts_with("```"), "line {}: each block is `json`", at + 1),
            (Some((begin, text)), "```") => {
                for message in Deserializer::from_str(text).into_iter() {
                    examples.push((*begin, message.unwrap_or_else(|err| panic!("line {begin}: {err}"))));
                }
                block = None;
            }
            (Some((_, text)), line) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    assert!(block.is_none(), "a block has no end");
    examples
}

/// Reads an answer as the driver reads it. Returns what kind of answer it is.
fn read(op: Op, body: serde_json::Map<String, Value>) -> Result<&'static str, String> {
    let judged = |answer| match answer {
        Answer::Applied { .. } => Ok("applied"),
        Answer::Failed { error, .. } if error.starts_with("its answer") => Err(error),
        Answer::Failed { .. } => Ok("failed"),
    };
    match op {
        Op::Describe => {
            Description::read(&body).map_err(|unfit| format!("{unfit:?}"))?;
            let problems = problems(&mut body.clone())?;
            Ok(if problems.is_empty() { "described" } else { "problems" })
        }
        Op::Plan => planned(body)?.map(|_| "planned").ok_or_else(|| "it has no plan".to_owned()),
        Op::Prepare => match prepared(body) {
            Prepared::Ready(handle) => {
                handle.map(|_| "prepared").ok_or_else(|| "it has no handle".to_owned())
            }
            Prepared::Over(answer) => judged(answer).map(|_| "done"),
        },
        Op::Perform | Op::Undo => judged(judge_object(body, Strict(true))),
        Op::Confirm => match found(body) {
            Found::Applied { .. } => Ok("confirmed"),
            Found::NotApplied { .. } => Ok("denied"),
            Found::Failed { error, .. } => Err(error),
            Found::StillUnknown { retry_after: Some(_), .. } => Ok("not yet"),
            Found::StillUnknown { reason, retry_after: None } => Err(reason),
        },
        Op::Count => body["count"].as_u64().map(|_| "counted").ok_or_else(|| "it has no count".to_owned()),
    }
}

#[test]
fn every_example_of_the_page_is_spoken_here() {
    let mut ops = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (at, example) in examples() {
        if example.get("op").is_some() {
            let request: Request =
                serde_json::from_value(example.clone()).unwrap_or_else(|err| panic!("line {at}: {err}"));
            let sent: Value = serde_json::from_slice(&request.line()).expect("it is JSON");
            assert_eq!(sent, example, "line {at}: this is not what is sent");
            assert_eq!(request.op == Op::Describe, request.protocol == Some(super::PROTOCOL), "line {at}");
            assert_eq!(request.op == Op::Describe, request.call.is_none(), "line {at}");
            let has_handle = matches!(request.op, Op::Perform | Op::Undo);
            assert_eq!(request.handle.is_some(), has_handle, "line {at}");
            if let Some(call) = &request.call {
                assert!(
                    request.handle.is_none() || call.handles.last() == request.handle.as_ref(),
                    "line {at}"
                );
                assert_eq!(call.undoes.is_some(), request.op == Op::Undo, "line {at}");
            }
            ops.insert(request.id, request.op);
            continue;
        }
        let line = serde_json::to_vec(&example).expect("it is JSON");
        let message = Message::read(&line).unwrap_or_else(|error| panic!("line {at}: {error}"));
        seen.insert(match message.expect("it is not blank") {
            Message::Log { id: None, .. } => "log",
            Message::Log { id: Some(_), .. } => "log of one",
            Message::Heartbeat => "heartbeat",
            Message::Answer { id, body } => {
                let op = ops.get(&id).unwrap_or_else(|| panic!("line {at}: nobody asked {id}"));
                read(*op, body).unwrap_or_else(|error| panic!("line {at}: {error}"))
            }
        });
    }
    let all = [Op::Describe, Op::Plan, Op::Prepare, Op::Perform, Op::Undo, Op::Confirm, Op::Count];
    assert_eq!(ops.into_values().collect::<BTreeSet<_>>(), all.into());
    let expected = [
        "applied",
        "confirmed",
        "counted",
        "denied",
        "described",
        "done",
        "failed",
        "heartbeat",
        "log",
        "log of one",
        "not yet",
        "planned",
        "prepared",
        "problems",
    ];
    assert_eq!(seen, expected.into());
}
