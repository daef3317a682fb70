//! How does a command of the owner's do a step? It gets the call as JSON, and its last JSON object or its exit code is the answer.
//!
//! **In.** One JSON object in one line on standard input: `run`, `step`, `attempt`, `idempotency_key`, `deadline` (RFC 3339,
//! UTC), `inputs` and `outputs`. A shell script needs no JSON: `LIDLESS_RUN`, `LIDLESS_STEP`, `LIDLESS_ATTEMPT` and
//! `LIDLESS_IDEMPOTENCY_KEY` are in its environment. It need not read its input.
//!
//! **Out.** The last JSON object on standard output that begins a line and ends one, in one line or over several:
//!
//! ```json
//! {"ok": true, "output": {}, "amounts": [{"asset": "EUR", "minor": -1250}], "handle": "0xabc"}
//! {"ok": false, "error": "why", "class": "transient"}
//! ```
//!
//! Everything but `ok` may be missing or null. `class` is `transient` (the default), `permanent` or `unknown`. An object
//! without `ok` is the output itself when the exit code is 0.
//!
//! | the command | is |
//! |---|---|
//! | says `ok: true` and ends with 0 | applied |
//! | says `ok: true` and ends with another code | failed, unknown |
//! | says `ok: false` | failed, with the class that it says |
//! | says nothing, ends with 0 | applied; `output.text` is its first line |
//! | cannot be started | failed, permanent: nothing ran; transient where the machine had no room |
//! | says nothing, ends with 126 or 127 | failed, permanent; strict: unknown |
//! | says nothing, ends with another code | failed, transient; strict: unknown |
//! | says something of a wrong type, or over 64 KiB | failed, permanent; strict: unknown |
//! | is killed by a signal, or at the deadline | failed, unknown |
//!
//! **Asked whether it took effect**, the `confirm` command gets the same input and answers with one of:
//!
//! ```json
//! {"applied": true, "evidence": "order 4711 is booked", "output": {}}
//! {"applied": false, "evidence": "the bank does not know the key, 1 h after its deadline"}
//! {"applied": null, "retry_after": "5s", "reason": "not final yet"}
//! ```
//!
//! Anything else, any exit code but 0, and an answer without evidence means that nobody knows yet.

use std::time::Duration;

use rustix::io::Errno;
use serde_json::json;

use super::answer::{Said, Strict, find, judge};
use super::output::{Lines, Tail};
use super::time::moment_in;
use super::{Answer, Call, FailureClass, Found, Host, Log, Step};
use crate::check::BoxFuture;
use crate::child::stream::{Stream, run_streamed};
use crate::child::{CommandSpec, Ended, Leftovers, SpawnError};
use crate::process::launch::chain;

/// Where a command finds the key of its attempt; by it, too, what an attempt left behind is found.
pub(super) const KEY_VARIABLE: &str = "LIDLESS_IDEMPOTENCY_KEY";

/// What a step by command runs, and how its failures are read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExecStepSettings {
    /// Does it. What it leaves behind is its own choice: see `Leftovers`.
    pub command: CommandSpec,
    /// Says whether an attempt took effect. What it leaves behind is killed: it is a question.
    pub confirm: Option<CommandSpec>,
    /// Whether the step must not be done twice (it is confirmable or one-shot): a failure that does not say so itself may have
    /// come after the effect.
    pub strict: bool,
}

/// Runs a command to do a step, and perhaps another to ask what became of it.
#[derive(Clone, Debug)]
pub struct ExecStep {
    command: CommandSpec,
    confirm: Option<CommandSpec>,
    strict: Strict,
}

impl ExecStep {
    /// Prepares a step.
    pub fn new(settings: ExecStepSettings) -> Self {
        let ask = |command| CommandSpec { leftovers: Leftovers::Kill, ..command };
        ExecStep {
            command: settings.command,
            confirm: settings.confirm.map(ask),
            strict: Strict(settings.strict),
        }
    }
}

impl Step for ExecStep {
    fn perform<'a>(&'a self, call: &'a Call, timeout: Duration, host: &'a dyn Host) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            match run(&self.command, call, timeout, host).await {
                Ok((ended, said)) => judge(&ended, said, self.strict, timeout),
                Err(err) => Answer::Failed { error: chain(&err), class: class_of(&err) },
            }
        })
    }

    fn confirm<'a>(&'a self, call: &'a Call, timeout: Duration, log: &'a dyn Log) -> BoxFuture<'a, Found> {
        Box::pin(async move {
            let unknown = |reason| Found::StillUnknown { reason, retry_after: None };
            let Some(command) = &self.confirm else {
                return unknown("it has no command that could tell".to_owned());
            };
            match run(command, call, timeout, log).await {
                Ok((ended, said)) => find(&ended, said, timeout),
                Err(err) => unknown(chain(&err)),
            }
        })
    }

    fn can_confirm(&self) -> bool {
        self.confirm.is_some()
    }
}

fn class_of(err: &SpawnError) -> FailureClass {
    match err {
        // The machine had no room for it just then.
        SpawnError::Start { err, .. }
            if matches!(
                Errno::from_io_error(err),
                Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE)
            ) =>
        {
            FailureClass::Transient
        }
        SpawnError::Empty | SpawnError::Directory { .. } | SpawnError::Start { .. } => {
            FailureClass::Permanent
        }
        // It may have run until it was killed for not being watched, or for coming back late.
        SpawnError::Watch { .. } | SpawnError::Hung { .. } => FailureClass::Unknown,
    }
}

async fn run(
    command: &CommandSpec,
    call: &Call,
    timeout: Duration,
    log: &dyn Log,
) -> Result<(Ended, Said), SpawnError> {
    let command = introduced(command, call);
    let question = question(call, timeout);
    let mut stdout = Tail::default();
    let mut lines = Lines::new(log);
    let ended = run_streamed(&command, question.as_bytes(), timeout, |stream, piece| match stream {
        Stream::Stdout => stdout.push(piece),
        Stream::Stderr => lines.push(piece),
    })
    .await?;
    Ok((ended, Said { stdout, complaint: lines.end() }))
}

/// Returns the command with what a shell script wants to know in its environment.
fn introduced(command: &CommandSpec, call: &Call) -> CommandSpec {
    let mut command = command.clone();
    let ours = [
        ("LIDLESS_RUN", call.run.clone()),
        ("LIDLESS_STEP", call.step.clone()),
        ("LIDLESS_ATTEMPT", call.attempt.to_string()),
        (KEY_VARIABLE, call.idempotency_key.clone()),
    ];
    command.env.extend(ours.map(|(name, value)| (name.to_owned(), value)));
    command
}

/// Returns the call in one line, so that a shell script can `read` it.
fn question(call: &Call, timeout: Duration) -> String {
    let call = json!({
        "run": call.run,
        "step": call.step,
        "attempt": call.attempt,
        "idempotency_key": call.idempotency_key,
        "deadline": moment_in(timeout),
        "inputs": call.inputs,
        "outputs": call.outputs,
    });
    format!("{call}\n")
}
