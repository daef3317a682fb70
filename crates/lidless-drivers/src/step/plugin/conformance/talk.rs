//! How does the conformance test talk to a plugin? Line by line, as the driver would, and also as it never would.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use super::super::split::Splitter;
use super::super::wire::{Message, Request};
use super::super::{NAME_VARIABLE, PROTOCOL};
use crate::check::wording::{Bytes, Short, first_line};
use crate::child::CommandSpec;
use crate::child::lasting::{Happening, Lasting};
use crate::child::stream::Stream;
use crate::process::launch::chain;
use crate::step::last::ANSWER_MAX;
use crate::step::output::LINE_MAX;

/// How long an answer, a start and an end may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A plugin that runs. Dropped, it is killed.
pub(super) struct Talk {
    child: Lasting,
    answers: Splitter,
    complaints: Splitter,
    last_complaint: String,
    last_id: u64,
    /// Answers that nobody has waited for yet.
    early: BTreeMap<u64, Map<String, Value>>,
    /// Requests that it owes an answer.
    owed: Vec<u64>,
}

impl Talk {
    /// Starts it.
    pub(super) async fn begin(command: &CommandSpec) -> Result<Talk, String> {
        let mut command = command.clone();
        command.env.insert(NAME_VARIABLE.to_owned(), "conformance".to_owned());
        let child = Lasting::start(&command, PATIENCE).await.map_err(|err| chain(&err))?;
        Ok(Talk {
            child,
            answers: Splitter::new(ANSWER_MAX),
            complaints: Splitter::new(LINE_MAX),
            last_complaint: String::new(),
            last_id: 0,
            early: BTreeMap::new(),
            owed: Vec::new(),
        })
    }

    /// Sends a line, whatever it is.
    pub(super) async fn say(&mut self, line: &[u8]) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let mut rest = line;
        while !rest.is_empty() {
            match timeout_at(deadline, self.child.happens(rest)).await {
                Err(_) => return Err(format!("it did not read its input for {}", Short(PATIENCE))),
                Ok(Happening::Took(length)) => rest = &rest[length..],
                Ok(other) => self.happened(other).await?,
            }
        }
        Ok(())
    }

    /// Sends a request, and returns its number.
    pub(super) async fn send(&mut self, request: Request) -> Result<u64, String> {
        let request = serde_json::to_value(request).map_err(|err| err.to_string())?;
        self.send_value(request).await
    }

    pub(super) async fn send_value(&mut self, request: Value) -> Result<u64, String> {
        self.send_at_once(&[request]).await?;
        Ok(self.last_id)
    }

    /// Sends requests in one write, and returns the number of the last of them.
    pub(super) async fn send_at_once(&mut self, requests: &[Value]) -> Result<u64, String> {
        let mut lines = String::new();
        for request in requests {
            self.last_id += 1;
            self.owed.push(self.last_id);
            let mut request = request.clone();
            request["id"] = json!(self.last_id);
            lines.push_str(&format!("{request}\n"));
        }
        self.say(lines.as_bytes()).await?;
        Ok(self.last_id)
    }

    /// Waits for an answer.
    pub(super) async fn answer(&mut self, id: u64) -> Result<Map<String, Value>, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(body) = self.early.remove(&id) {
                return Ok(body);
            }
            match timeout_at(deadline, self.child.happens(&[])).await {
                Err(_) => return Err(format!("it did not answer within {}", Short(PATIENCE))),
                Ok(happening) => self.happened(happening).await?,
            }
        }
    }

    pub(super) async fn ask(&mut self, request: Request) -> Result<Map<String, Value>, String> {
        let id = self.send(request).await?;
        self.answer(id).await
    }

    pub(super) async fn describe(
        &mut self,
        about: Option<(&str, &Value)>,
    ) -> Result<Map<String, Value>, String> {
        self.ask(Request::describe(about)).await
    }

    /// Asks once more: whatever it had said too much comes before the answer.
    pub(super) async fn is_in_order(&mut self) -> Result<(), String> {
        let body = self.describe(None).await?;
        match body.get("protocol").and_then(Value::as_u64) {
            Some(PROTOCOL) => Ok(()),
            Some(_) | None => Err("it describes itself another way than before".to_owned()),
        }
    }

    /// Kills it, as a crash of the machine would.
    pub(super) async fn kill(self) {
        self.child.end().await;
    }

    /// Closes its input, and says whether it then ends in time.
    pub(super) async fn ends(mut self) -> Result<(), String> {
        self.child.close_input();
        let deadline = Instant::now() + PATIENCE;
        // It may close its output long before it ends.
        loop {
            match timeout_at(deadline, self.child.happens(&[])).await {
                Err(_) => {
                    self.child.end().await;
                    return Err(format!("it still ran {} after its input was closed", Short(PATIENCE)));
                }
                Ok(Happening::Exited) => return Ok(()),
                Ok(Happening::Said(Stream::Stdout, length)) if length > 0 => self.read(length)?,
                Ok(Happening::Said(..) | Happening::Took(_) | Happening::Deaf) => {}
            }
        }
    }

    async fn happened(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Took(_) => Ok(()),
            Happening::Said(Stream::Stderr, length) => {
                let lines = self.complaints.push(self.child.said(Stream::Stderr, length));
                self.complain(lines);
                Ok(())
            }
            Happening::Said(Stream::Stdout, length) if length > 0 => self.read(length),
            Happening::Said(Stream::Stdout, _) | Happening::Deaf | Happening::Exited => {
                let has_ended = happening == Happening::Exited || self.child.ends_now().await;
                let mut lines = Vec::new();
                self.child.drain(Stream::Stderr, |piece| lines.extend(self.complaints.push(piece)));
                self.complain(lines);
                let end = if has_ended { "it ended" } else { "it closed its input or its output" };
                match &*self.last_complaint {
                    "" => Err(format!("{end} before it answered")),
                    complaint => Err(format!("{end} before it answered: {complaint}")),
                }
            }
        }
    }

    fn complain(&mut self, lines: Vec<Vec<u8>>) {
        let last = lines.iter().rev().map(|line| first_line(line)).find(|line| !line.is_empty());
        self.last_complaint = last.unwrap_or(std::mem::take(&mut self.last_complaint));
    }

    fn read(&mut self, length: usize) -> Result<(), String> {
        let lines = self.answers.push(self.child.said(Stream::Stdout, length));
        for line in lines {
            match Message::read(&line).map_err(|what| format!("it {what}"))? {
                None | Some(Message::Heartbeat | Message::Log { .. }) => {}
                Some(Message::Answer { id, body }) => {
                    if !self.owed.contains(&id) {
                        let what = if id <= self.last_id { "twice" } else { ", which there is not" };
                        return Err(format!("it answered request {id} {what}"));
                    }
                    self.owed.retain(|owed| *owed != id);
                    self.early.insert(id, body);
                }
            }
        }
        if self.answers.is_over {
            return Err(format!("it wrote a line of over {}", Bytes(ANSWER_MAX)));
        }
        Ok(())
    }
}
