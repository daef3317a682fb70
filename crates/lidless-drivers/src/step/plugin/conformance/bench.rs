//! What is a plugin under test asked with? Keys that nobody has used, and the whole way of a step in one call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::super::description::{Description, Kind, Unfit};
use super::super::step::{Prepared, found, prepared};
use super::super::wire::{Op, Request};
use super::talk::{PATIENCE, Talk};
use crate::child::CommandSpec;
use crate::step::answer::{Strict, judge_object};
use crate::step::{Answer, Call, FailureClass, Found, Undoes};

/// So many keys were used by this process.
static KEYS: AtomicU64 = AtomicU64::new(0);

/// A plugin, and what it is asked with.
pub(super) struct Bench<'a> {
    command: &'a CommandSpec,
    pub(super) kind: &'a Kind,
    pub(super) settings: &'a Value,
    inputs: &'a Value,
}

/// What a plugin did.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Done {
    pub(super) output: Value,
    pub(super) handle: Option<Value>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        command: &'a CommandSpec,
        kind: &'a Kind,
        settings: &'a Value,
        inputs: &'a Value,
    ) -> Self {
        Bench { command, kind, settings, inputs }
    }

    /// Starts the plugin.
    pub(super) async fn begin(&self) -> Result<Talk, String> {
        Talk::begin(self.command).await
    }

    /// A call that nobody has ever made.
    #[expect(clippy::disallowed_methods, reason = "a key of its own, also after a boot of the machine")]
    pub(super) fn call(&self) -> Call {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let count = KEYS.fetch_add(1, Ordering::Relaxed);
        Call {
            run: "run-1".to_owned(),
            pipeline: "conformance".to_owned(),
            step: "step".to_owned(),
            attempt: 1,
            idempotency_key: format!("conformance-{}-{}-{count}", since.as_nanos(), std::process::id()),
            inputs: self.inputs.clone(),
            outputs: Arc::new(json!({})),
            handles: Vec::new(),
            undoes: None,
            allotted: None,
        }
    }

    /// A call that takes back what another did.
    pub(super) fn undo_of(&self, call: &Call, done: &Done) -> Call {
        let undoes = Undoes {
            step: call.step.clone(),
            idempotency_key: call.idempotency_key.clone(),
            output: done.output.clone(),
            handles: call.handles.iter().chain(&done.handle).cloned().collect(),
        };
        Call { undoes: Some(undoes), ..self.call() }
    }

    pub(super) fn request(&self, op: Op, call: &Call, handle: Option<&Value>) -> Request {
        let request = Request::about(op, (&self.kind.name, self.settings), call, Instant::now() + PATIENCE);
        Request { handle: handle.cloned(), ..request }
    }

    /// Prepares. `None` where it has nothing to perform: it says it is done.
    pub(super) async fn prepare(
        &self,
        talk: &mut Talk,
        call: &Call,
    ) -> Result<Option<Option<Value>>, String> {
        let body = talk.ask(self.request(Op::Prepare, call, None)).await?;
        match prepared(body) {
            Prepared::Ready(handle) => Ok(Some(handle)),
            Prepared::Over(Answer::Applied { .. }) => Ok(None),
            Prepared::Over(Answer::Failed { error, .. }) => Err(format!("it does not prepare: {error}")),
        }
    }

    /// Performs, or undoes, under a handle.
    pub(super) async fn perform(
        &self,
        talk: &mut Talk,
        call: &Call,
        handle: Option<&Value>,
    ) -> Result<Answer, String> {
        let op = if call.undoes.is_some() { Op::Undo } else { Op::Perform };
        let mut call = call.clone();
        call.handles.extend(handle.cloned());
        Ok(judge_object(talk.ask(self.request(op, &call, handle)).await?, Strict(true)))
    }

    /// Goes the whole way of a step.
    pub(super) async fn does(&self, talk: &mut Talk, call: &Call) -> Result<Answer, String> {
        let mut handle = None;
        if self.kind.prepares {
            match self.prepare(talk, call).await? {
                Some(prepared) => handle = prepared,
                None => return Err("it says that it is done before it was ever told to perform".to_owned()),
            }
        }
        self.perform(talk, call, handle.as_ref()).await
    }

    /// Asks whether a call took effect.
    pub(super) async fn confirm(&self, talk: &mut Talk, call: &Call) -> Result<Found, String> {
        Ok(found(talk.ask(self.request(Op::Confirm, call, None)).await?))
    }

    /// Asks how often a call took effect, where it can tell.
    pub(super) async fn count(&self, talk: &mut Talk, call: &Call) -> Result<Option<u64>, String> {
        if !self.kind.counts {
            return Ok(None);
        }
        let body = talk.ask(self.request(Op::Count, call, None)).await?;
        let count = body.get("count").and_then(Value::as_u64);
        count.map(Some).ok_or_else(|| format!("it says that it counts, and answers {}", shown(&body)))
    }

    /// Looks that a call took effect so often, by whatever it can tell.
    pub(super) async fn took_effect(&self, talk: &mut Talk, call: &Call, times: u64) -> Result<(), String> {
        if let Some(count) = self.count(talk, call).await?
            && count != times
        {
            return Err(format!("the key took effect {count} times, not {times}"));
        }
        if !self.kind.confirms {
            return Ok(());
        }
        match (times, self.confirm(talk, call).await?) {
            (0, Found::Applied { evidence, .. }) => {
                Err(format!("it confirms what was never performed: {evidence}"))
            }
            (0, Found::NotApplied { .. } | Found::Failed { .. } | Found::StillUnknown { .. }) => Ok(()),
            (_, Found::Applied { .. }) => Ok(()),
            (_, Found::NotApplied { evidence } | Found::Failed { error: evidence, .. }) => {
                Err(format!("it denies what it did: {evidence}"))
            }
            // It may be a while until it can tell.
            (_, Found::StillUnknown { retry_after: Some(_), .. }) => Ok(()),
            (_, Found::StillUnknown { reason, retry_after: None }) => {
                Err(format!("it cannot tell whether it did what it did, nor when it can: {reason}"))
            }
        }
    }
}

/// Reads what it says it is.
pub(super) fn description(body: &Map<String, Value>) -> Result<Description, String> {
    Description::read(body).map_err(|unfit| match unfit {
        Unfit::Protocol(theirs) => format!("it speaks protocol {theirs}"),
        Unfit::Malformed(why) => why,
    })
}

/// Takes what was done, or says that it was not.
pub(super) fn done(answer: Answer) -> Result<Done, String> {
    match answer {
        Answer::Applied { output, handle, .. } => Ok(Done { output, handle }),
        Answer::Failed { error, class } => {
            let class = match class {
                FailureClass::Transient => "transient",
                FailureClass::Permanent => "permanent",
                FailureClass::Unknown => "unknown",
            };
            Err(format!("it fails: {error} ({class})"))
        }
    }
}

fn shown(body: &Map<String, Value>) -> String {
    crate::step::answer::one_line(&serde_json::to_string(body).unwrap_or_default(), 80)
}
