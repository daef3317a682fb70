//! How does a command of the owner's do a step? It gets the call as JSON, and its last JSON object or its exit code is the answer.
//!
//! **In.** One JSON object in one line on standard input: `run`, `step`, `attempt`, `idempotency_key`, `deadline` (RFC 3339,
//! UTC), `inputs` and `outputs`; where there are any `handles`, a list, oldest first; and for a step that takes another back
//! `undoes`, an object with its `step`, `idempotency_key`, `output` and `handles`. A shell script needs no JSON: `LIDLESS_RUN`,
//! `LIDLESS_STEP`, `LIDLESS_ATTEMPT`, `LIDLESS_IDEMPOTENCY_KEY` and, to take back, `LIDLESS_UNDOES` and `LIDLESS_UNDOES_KEY` are
//! in its environment. It need not read its input.
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
//! | writes no line for as long as `heartbeat` | killed; failed, unknown |
//!
//! **What a failure leaves behind** is killed with it: its process group, and whatever else carries its key, though it left the
//! group. Who succeeds may leave somebody behind who left the group. The deadline and the heartbeat are monotonic time: only
//! what the command is told, `deadline`, is a moment of the wall clock.
//!
//! **A handle is kept while it works** where the settings say `handles`: its input then stays open after the first line. It
//! writes `{"handle": ...}`, a signed transaction and its hash say, in a line of its own of at most 64 KiB, and lets the thing
//! out only after it has read `{"kept": true}`. From then on, whatever happens, `confirm` is told that handle. After
//! `{"kept": false, "error": "..."}` nothing may leave. Such a line is no answer. Who reads its input to the end would wait for
//! ever: read a line.
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

use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::answer::{Said, Strict, find, judge};
use super::leftovers::Carriers;
use super::output::{Lines, Tail};
use super::talk::talk;
use super::time::moment_in;
use super::unit::{Followed, Units};
use super::{Answer, Call, FailureClass, Found, Host, Log, Step};
use crate::check::BoxFuture;
use crate::check::wording::Short;
use crate::child::stream::{self, Limits, Stream, run_streamed};
use crate::child::{CommandSpec, Ended, Leftovers, SpawnError};
use crate::process::launch::chain;

/// Where a command finds the key of its attempt; by it, too, what an attempt left behind is found.
pub(super) const KEY_VARIABLE: &str = "LIDLESS_IDEMPOTENCY_KEY";

/// A command that is asked gets at least so much time, or is asked another time.
const CONFIRM_MIN: Duration = Duration::from_secs(1);

/// How long a handle may take to be kept when the command has ended already.
const KEEP_MAX: Duration = Duration::from_secs(1);

/// What a step by command runs, and how its failures are read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExecStepSettings {
    /// Does it. What it leaves behind when it succeeds is its own choice: see `Leftovers`.
    pub command: CommandSpec,
    /// Says whether an attempt took effect. What it leaves behind is killed: it is a question.
    pub confirm: Option<CommandSpec>,
    /// Whether the step must not be done twice (it is confirmable or one-shot): a failure that does not say so itself may have
    /// come after the effect.
    pub strict: bool,
    /// It must write a line at least this often, on either stream, or it is killed.
    pub heartbeat: Option<Duration>,
    /// Whether it may have handles kept while it works. Its input then stays open until its end.
    pub handles: bool,
}

/// Runs a command to do a step, and perhaps another to ask what became of it.
#[derive(Clone, Debug)]
pub struct ExecStep {
    command: CommandSpec,
    confirm: Option<CommandSpec>,
    strict: Strict,
    heartbeat: Option<Duration>,
    handles: bool,
    units: Option<Arc<Units>>,
}

impl ExecStep {
    /// Prepares a step.
    pub fn new(settings: ExecStepSettings) -> Self {
        let ask = |command| CommandSpec { leftovers: Leftovers::Kill, ..command };
        ExecStep {
            command: settings.command,
            confirm: settings.confirm.map(ask),
            strict: Strict(settings.strict),
            heartbeat: settings.heartbeat,
            handles: settings.handles,
            units: None,
        }
    }

    /// Lets its attempts outlive us where they can. Who has handles to keep, or must give signs of life, does not: both need
    /// somebody who listens.
    #[must_use]
    pub fn outliving(mut self, units: Arc<Units>) -> Self {
        self.units = Some(units).filter(|_| self.heartbeat.is_none() && !self.handles);
        self
    }

    /// Does it as a unit that outlives us; none where it cannot be one.
    async fn in_a_unit(&self, call: &Call, timeout: Duration, log: &dyn Log) -> Option<Answer> {
        let command = introduced(&self.command, call);
        let asked = (call, question(call, timeout));
        let units = self.units.as_ref()?;
        let (answer, ended) = match units.run(&command, asked, timeout, log).await? {
            Followed::Ended(ended, said) => (judge(&ended, said, self.strict, timeout), true),
            Followed::Lost(error) => (Answer::Failed { error, class: FailureClass::Unknown }, false),
        };
        let answer = settled(answer, Carriers::of(call)).await;
        if ended && matches!(answer, Answer::Failed { class: FailureClass::Unknown, .. }) {
            // It has been read to its end: whoever asks about it would learn nothing more.
            units.forget(call).await;
        }
        Some(answer)
    }

    /// Takes the answer of an attempt that has outlived a lidless; an `Err` says what is known of it all the same.
    async fn adopted(&self, call: &Call, timeout: Duration, log: &dyn Log) -> Result<Found, Option<String>> {
        let units = self.units.as_ref().ok_or(None)?;
        let (unit, followed) = units.adopt(call, timeout, log).await.ok_or(None)?;
        let (answer, how) = match followed {
            // How much time it had is for those to know who began it.
            Followed::Ended(ended, _) if ended.timed_out => {
                let error = "not done by its deadline".to_owned();
                (Answer::Failed { error, class: FailureClass::Unknown }, String::new())
            }
            Followed::Ended(ended, said) => {
                let how = ended.code.map_or_else(String::new, |code| format!(", exit {code}"));
                (judge(&ended, said, self.strict, timeout), how)
            }
            Followed::Lost(error) => (Answer::Failed { error, class: FailureClass::Unknown }, String::new()),
        };
        match settled(answer, Carriers::of(call)).await {
            Answer::Applied { output, .. } => {
                Ok(Found::Applied { output, evidence: format!("adopted {unit}{how}") })
            }
            Answer::Failed { error, class } => match class {
                FailureClass::Transient => Ok(Found::Failed { error, for_good: false }),
                FailureClass::Permanent => Ok(Found::Failed { error, for_good: true }),
                FailureClass::Unknown => Err(Some(format!("adopted {unit}: {error}"))),
            },
        }
    }
}

/// Ends what a failure has left behind; what cannot be ended leaves doubt.
async fn settled(answer: Answer, mut leftovers: Carriers) -> Answer {
    match answer {
        applied @ Answer::Applied { .. } => {
            leftovers.spare();
            applied
        }
        Answer::Failed { error, class } => match leftovers.end().await[..] {
            [] => Answer::Failed { error, class },
            [pid, ..] => {
                let error = format!("{error}; process {pid} of it cannot be ended, and may still do it");
                Answer::Failed { error, class: FailureClass::Unknown }
            }
        },
    }
}

impl Step for ExecStep {
    fn perform<'a>(&'a self, call: &'a Call, timeout: Duration, host: &'a dyn Host) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let began = Instant::now();
            if let Some(answer) = self.in_a_unit(call, timeout, host).await {
                return answer;
            }
            let timeout =
                if self.units.is_some() { timeout.saturating_sub(began.elapsed()) } else { timeout };
            // Before the attempt, so that it is dropped after it: the group is killed first.
            let leftovers = Carriers::of(call);
            let limits = Limits { timeout, heartbeat: self.heartbeat };
            let answer = match run(&self.command, call, limits, host, self.handles.then_some(host)).await {
                Ok(Ran { was_silent: true, .. }) => {
                    let silence = Short(self.heartbeat.unwrap_or_default());
                    let error = format!("no sign of life for {silence}");
                    Answer::Failed { error, class: FailureClass::Unknown }
                }
                Ok(Ran { ended, said, was_silent: false }) => {
                    judge(&ended, said, self.strict, call.allotted.unwrap_or(timeout))
                }
                Err(err) => Answer::Failed { error: chain(&err), class: class_of(&err) },
            };
            settled(answer, leftovers).await
        })
    }

    fn confirm<'a>(&'a self, call: &'a Call, timeout: Duration, log: &'a dyn Log) -> BoxFuture<'a, Found> {
        Box::pin(async move {
            let began = Instant::now();
            let unknown = |reason| Found::StillUnknown { reason, retry_after: None };
            let known = match self.adopted(call, timeout, log).await {
                Ok(found) => return found,
                Err(known) => known,
            };
            let Some(command) = &self.confirm else {
                return unknown(known.unwrap_or_else(|| "it has no command that could tell".to_owned()));
            };
            let timeout = timeout.saturating_sub(began.elapsed());
            if let Some(reason) = known.filter(|_| timeout < CONFIRM_MIN) {
                // It has ended: whoever is asked next has all the time.
                return Found::StillUnknown { reason, retry_after: Some(Duration::ZERO) };
            }
            match run(command, call, Limits { timeout, heartbeat: None }, log, None).await {
                Ok(Ran { ended, said, .. }) => find(&ended, said, call.allotted.unwrap_or(timeout)),
                Err(err) => unknown(chain(&err)),
            }
        })
    }

    fn plan<'a>(
        &'a self,
        _call: &'a Call,
        _timeout: Duration,
        _host: &'a dyn Host,
    ) -> BoxFuture<'a, Result<Option<String>, String>> {
        let words: Vec<String> = self.command.argv.iter().map(|word| quoted(word)).collect();
        Box::pin(std::future::ready(Ok(Some(format!("run {}", words.join(" "))))))
    }

    fn can_confirm(&self) -> bool {
        self.confirm.is_some()
    }

    fn end<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Some(units) = &self.units {
                units.end(call).await;
            }
        })
    }

    fn forget<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Some(units) = &self.units {
                units.forget(call).await;
            }
        })
    }
}

/// As it would be typed in a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''").replace(['\n', '\r'], " "))
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

/// How a command ended, and what it said.
struct Ran {
    ended: Ended,
    said: Said,
    was_silent: bool,
}

/// Runs a command; with `keeper`, it may have handles kept.
async fn run(
    command: &CommandSpec,
    call: &Call,
    limits: Limits,
    log: &dyn Log,
    keeper: Option<&dyn Host>,
) -> Result<Ran, SpawnError> {
    let command = introduced(command, call);
    let first = question(call, limits.timeout).into();
    let mut stdout = Tail::default();
    let mut lines = Lines::new(log);
    let stream::Followed { ended, was_silent } = match keeper {
        None => {
            run_streamed(&command, stream::Said { first, more: None }, limits, |stream, piece| match stream {
                Stream::Stdout => stdout.push(piece),
                Stream::Stderr => lines.push(piece),
            })
            .await?
        }
        Some(host) => {
            let (mut handles, keeper, more) = talk(host);
            let mut keeping = pin!(keeper.keep_all());
            let said = stream::Said { first, more: Some(more) };
            let running = run_streamed(&command, said, limits, |stream, piece| match stream {
                Stream::Stdout => handles.push(piece, &mut stdout),
                Stream::Stderr => lines.push(piece),
            });
            let beside = async {
                keeping.as_mut().await;
                pending::<Infallible>().await
            };
            let followed = tokio::select! {
                followed = running => followed?,
                never = beside => match never {},
            };
            handles.end(&mut stdout);
            // Its last handle may name what it did just before it died.
            if tokio::time::timeout(KEEP_MAX, keeping).await.is_err() {
                log.line("a handle could not be kept in time");
            }
            followed
        }
    };
    Ok(Ran { ended, said: Said { stdout, complaint: lines.end() }, was_silent })
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
    let undoes = call.undoes.iter().flat_map(|undoes| {
        [("LIDLESS_UNDOES", undoes.step.clone()), ("LIDLESS_UNDOES_KEY", undoes.idempotency_key.clone())]
    });
    command.env.extend(ours.into_iter().chain(undoes).map(|(name, value)| (name.to_owned(), value)));
    command
}

/// What a command is told, in alphabetical order.
#[derive(Serialize)]
struct Question<'a> {
    attempt: u32,
    deadline: String,
    #[serde(skip_serializing_if = "<[Value]>::is_empty")]
    handles: &'a [Value],
    idempotency_key: &'a str,
    inputs: &'a Value,
    outputs: &'a Value,
    run: &'a str,
    step: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    undoes: Option<Undone<'a>>,
}

#[derive(Serialize)]
struct Undone<'a> {
    handles: &'a [Value],
    idempotency_key: &'a str,
    output: &'a Value,
    step: &'a str,
}

/// Returns the call in one line, so that a shell script can `read` it.
fn question(call: &Call, timeout: Duration) -> String {
    let undoes = call.undoes.as_ref().map(|undoes| Undone {
        handles: &undoes.handles,
        idempotency_key: &undoes.idempotency_key,
        output: &undoes.output,
        step: &undoes.step,
    });
    let question = Question {
        attempt: call.attempt,
        deadline: moment_in(timeout),
        handles: &call.handles,
        idempotency_key: &call.idempotency_key,
        inputs: &call.inputs,
        outputs: &call.outputs,
        run: &call.run,
        step: &call.step,
        undoes,
    };
    // Texts and values of JSON can be written as JSON.
    let mut line = serde_json::to_string(&question).unwrap_or_default();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_command_is_shown_as_it_would_be_typed() {
        for (word, wanted) in [("./book", "./book"), ("a b", "'a b'"), ("", "''"), ("it's", r"'it'\''s'")] {
            assert_eq!(quoted(word), wanted);
        }
    }
}
