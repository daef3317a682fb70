//! How does a plugin do one step? It prepares, its handle is kept, and only then is it told to perform.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::super::answer::{Strict, find_object, judge_object, one_line, take, text, wrong};
use super::super::{Answer, Call, FailureClass, Found, Host, Log, Step};
use super::ask::Plugin;
use super::error::PluginError;
use super::pending::Reply;
use super::wire::{Op, Request};
use crate::check::BoxFuture;
use crate::check::wording::Short;

/// The most characters of a plan.
const PLAN_MAX: usize = 1000;

/// A step that a plugin does.
#[derive(Clone, Debug)]
pub struct PluginStep {
    plugin: Arc<Plugin>,
    kind: String,
    settings: Value,
    strict: Strict,
}

/// What preparing came to.
pub(super) enum Prepared {
    /// It can be performed, under this handle if there is one.
    Ready(Option<Value>),
    /// There is nothing to perform: it failed, or took effect at an earlier attempt.
    Over(Answer),
}

impl PluginStep {
    /// Prepares a step of a kind of this plugin. `strict` is as in `PluginSettings`.
    pub fn new(plugin: Arc<Plugin>, kind: String, settings: Value, strict: bool) -> Self {
        PluginStep { plugin, kind, settings, strict: Strict(strict) }
    }

    /// The plugin that does it.
    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    async fn ask(
        &self,
        op: Op,
        call: &Call,
        handle: Option<Value>,
        (deadline, within): (Instant, Duration),
        log: &dyn Log,
    ) -> Reply {
        let mut request = Request::about(op, (&self.kind, &self.settings), call, deadline);
        request.handle = handle;
        let who = format!("step `{}` of {}", call.step, call.run);
        self.plugin.ask(request, who, deadline, within, log).await
    }

    async fn attempt(&self, call: &Call, timeout: Duration, host: &dyn Host) -> Answer {
        let time = (Instant::now() + timeout, timeout);
        let op = if call.undoes.is_some() { Op::Undo } else { Op::Perform };
        let kind = match self.plugin.kind(&self.kind, time.0, timeout).await {
            Ok(kind) => kind,
            Err(error) => return failed(&error, Op::Describe),
        };
        if op == Op::Undo && !kind.undoes {
            let error = format!("plugin `{}` cannot undo a `{}`", self.plugin.name(), self.kind);
            return Answer::Failed { error, class: FailureClass::Permanent };
        }
        let mut call = call.clone();
        let mut handle = None;
        if kind.prepares {
            match self.ask(Op::Prepare, &call, None, time, host).await.map(prepared) {
                Ok(Prepared::Ready(prepared)) => handle = prepared,
                Ok(Prepared::Over(answer)) => return answer,
                Err(error) => return failed(&error, Op::Prepare),
            }
        }
        if let Some(handle) = &handle {
            if let Err(error) = keep(handle, time, host).await {
                return Answer::Failed { error, class: FailureClass::Transient };
            }
            call.handles.push(handle.clone());
        }
        match self.ask(op, &call, handle.clone(), time, host).await {
            Ok(body) => with_handle(judge_object(body, self.strict), handle),
            Err(error) => failed(&error, op),
        }
    }

    async fn find(&self, call: &Call, timeout: Duration, log: &dyn Log) -> Found {
        let time = (Instant::now() + timeout, timeout);
        let unknown = |reason, retry_after| Found::StillUnknown { reason, retry_after };
        let asked = async {
            match self.plugin.kind(&self.kind, time.0, timeout).await {
                Ok(kind) if kind.confirms => self.ask(Op::Confirm, call, None, time, log).await.map(Some),
                Ok(_) => Ok(None),
                Err(error) => Err(error),
            }
        };
        match asked.await {
            Ok(Some(body)) => found(body),
            Ok(None) => {
                unknown(format!("plugin `{}` cannot tell of a `{}`", self.plugin.name(), self.kind), None)
            }
            Err(error) => unknown(error.to_string(), error.retry_after()),
        }
    }

    async fn foresee(
        &self,
        call: &Call,
        timeout: Duration,
        host: &dyn Host,
    ) -> Result<Option<String>, String> {
        let time = (Instant::now() + timeout, timeout);
        let told = |error: PluginError| error.to_string();
        if !self.plugin.kind(&self.kind, time.0, timeout).await.map_err(told)?.plans {
            return Ok(None);
        }
        planned(self.ask(Op::Plan, call, None, time, host).await.map_err(told)?)
    }
}

impl Step for PluginStep {
    fn perform<'a>(&'a self, call: &'a Call, timeout: Duration, host: &'a dyn Host) -> BoxFuture<'a, Answer> {
        Box::pin(self.attempt(call, timeout, host))
    }

    fn confirm<'a>(&'a self, call: &'a Call, timeout: Duration, log: &'a dyn Log) -> BoxFuture<'a, Found> {
        Box::pin(self.find(call, timeout, log))
    }

    fn plan<'a>(
        &'a self,
        call: &'a Call,
        timeout: Duration,
        host: &'a dyn Host,
    ) -> BoxFuture<'a, Result<Option<String>, String>> {
        Box::pin(self.foresee(call, timeout, host))
    }

    /// As the plugin has described itself. One that has not been started yet is given the benefit of the doubt: to be asked in
    /// vain costs nothing.
    fn can_confirm(&self) -> bool {
        self.plugin.described(&self.kind).is_none_or(|kind| kind.confirms)
    }
}

/// Makes a handle durable. **Invariant:** nothing is performed unless this succeeded.
async fn keep(
    handle: &Value,
    (deadline, within): (Instant, Duration),
    host: &dyn Host,
) -> Result<(), String> {
    match timeout_at(deadline, host.keep(handle)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(format!("its handle could not be kept, so nothing was done: {why}")),
        Err(_) => Err(format!("its handle was not kept within {}, so nothing was done", Short(within))),
    }
}

fn failed(error: &PluginError, op: Op) -> Answer {
    Answer::Failed { error: error.to_string(), class: error.class(op) }
}

/// By what was prepared the effect can be found, also where the answer does not say so again.
fn with_handle(answer: Answer, prepared: Option<Value>) -> Answer {
    match answer {
        Answer::Applied { output, amounts, handle } => {
            Answer::Applied { output, amounts, handle: handle.or(prepared) }
        }
        failed @ Answer::Failed { .. } => failed,
    }
}

/// Reads the answer to `prepare`. What cannot be read is permanent: nothing has left.
pub(super) fn prepared(mut body: Map<String, Value>) -> Prepared {
    let malformed = |error| Prepared::Over(Answer::Failed { error, class: FailureClass::Permanent });
    let is_done = match take(&mut body, "done") {
        None | Some(Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(other) => return malformed(wrong("done", &other, "true or false")),
    };
    match judge_object(body, Strict(false)) {
        Answer::Applied { handle, .. } if !is_done => Prepared::Ready(handle),
        over @ (Answer::Applied { .. } | Answer::Failed { .. }) => Prepared::Over(over),
    }
}

/// Reads the answer to `confirm`. "I cannot" is no answer about the attempt.
pub(super) fn found(body: Map<String, Value>) -> Found {
    if body.get("ok") == Some(&Value::Bool(false))
        && let Answer::Failed { error, .. } = judge_object(body.clone(), Strict(false))
    {
        return Found::StillUnknown { reason: error, retry_after: None };
    }
    find_object(body)
}

/// Reads the answer to `plan`.
pub(super) fn planned(mut body: Map<String, Value>) -> Result<Option<String>, String> {
    let plan = text(&mut body, "plan")?;
    match judge_object(body, Strict(false)) {
        Answer::Applied { .. } => Ok(plan.map(|plan| one_line(&plan, PLAN_MAX))),
        Answer::Failed { error, .. } => Err(error),
    }
}
