//! What does a step of a run call, and what is it told? Made from what the run has pinned, anew for each attempt.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lidless_core::event::{Confirmation, Outcome};
use lidless_core::pipeline::plan::{Class, StepCall, StepSpec};
use lidless_core::pipeline::run::{Phase, Run};
use lidless_core::state::State;
use lidless_drivers::check::BoxFuture;
use lidless_drivers::child::CommandSpec;
use lidless_drivers::step::exec::{ExecStep, ExecStepSettings};
use lidless_drivers::step::leftovers;
use lidless_drivers::step::unit::Units;
use lidless_drivers::step::when::When;
use lidless_drivers::step::{Answer, Call, FailureClass, Found, Host, Log, Step, Undoes};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use super::effects::Attempt;
use super::handle::{Keep, Message};
use crate::config::settings;

/// How long nobody asks again where a step in doubt did not say.
const ASK_AGAIN: std::time::Duration = std::time::Duration::from_secs(5);

/// How long what an earlier lidless left running may take to be gone once it is killed.
const LEFTOVERS_MAX: std::time::Duration = std::time::Duration::from_secs(5);
/// More than this of what a run has to say is not kept.
const LOG_MAX: u64 = 1024 * 1024;

/// A step, and what it is told.
pub(super) struct Calling {
    pub(super) step: Arc<dyn Step>,
    pub(super) call: Call,
    pub(super) log: RunHost,
}

/// Returns what an attempt at a step of a run calls; an `Err` says why this lidless cannot do it.
pub(super) fn calling(
    run: &Run,
    of: Attempt,
    logs: &Path,
    messages: &mpsc::WeakSender<Message>,
    units: Option<&Arc<Units>>,
) -> Result<Calling, String> {
    let spec = run.spec(of.step).ok_or("the run has no such step")?;
    let StepCall::External { kind, settings } = &spec.call else {
        return Err(format!("{} is not a step that is called", spec.name));
    };
    let step: Arc<dyn Step> = match kind.as_str() {
        "exec" => exec(settings, spec.class, units.filter(|_| spec.adoptable))?,
        other => return Err(format!("this lidless knows no step of kind `{other}`")),
    };
    let call = call(run, spec, of);
    let log = RunHost { log: RunLog::new(logs, &call), of, messages: messages.clone() };
    Ok(Calling { step, call, log })
}

fn exec(settings: &str, class: Class, units: Option<&Arc<Units>>) -> Result<Arc<dyn Step>, String> {
    let settings: settings::ExecStepSettings =
        serde_json::from_str(settings).map_err(|err| format!("its settings cannot be read: {err}"))?;
    let command = |argv: Vec<String>| CommandSpec {
        argv,
        dir: Some(settings.dir.clone()),
        env: settings.env.clone(),
        ..CommandSpec::default()
    };
    let step = ExecStep::new(ExecStepSettings {
        command: command(settings.command.clone()),
        confirm: settings.confirm.clone().map(command),
        // Who cannot simply do it again must not take a failure for "nothing happened".
        strict: matches!(class, Class::Confirmable | Class::OneShot),
        heartbeat: None,
        handles: false,
    });
    Ok(match units {
        None => Arc::new(step),
        Some(units) => Arc::new(step.outliving(Arc::clone(units))),
    })
}

/// Says whether a step's condition holds.
pub(super) fn weigh(run: &Run, when: &str) -> Result<bool, String> {
    When::parse(when).map_err(|err| err.to_string())?.holds(&inputs(run), &outputs(run))
}

fn inputs(run: &Run) -> Value {
    if run.inputs.is_empty() { Value::Object(Map::new()) } else { json(&run.inputs) }
}

fn outputs(run: &Run) -> Value {
    Value::Object(run.outputs().map(|(name, output)| (name.to_owned(), json(output))).collect())
}

fn handles(run: &Run, step: u32) -> Vec<Value> {
    let handles = run.state(step).map(|state| state.handles.as_slice()).unwrap_or_default();
    handles.iter().map(|handle| json(handle)).collect()
}

fn call(run: &Run, spec: &StepSpec, of: Attempt) -> Call {
    let undoes = spec.undoes.and_then(|undone| {
        let forward = run.spec(undone)?;
        Some(Undoes {
            step: forward.name.clone(),
            idempotency_key: idempotency_key(run, forward),
            output: run.state(undone)?.output.as_deref().map_or(Value::Null, json),
            handles: handles(run, undone),
        })
    });
    Call {
        run: run.id.to_string(),
        pipeline: run.purpose.pipeline().unwrap_or_default().to_owned(),
        step: spec.name.clone(),
        attempt: of.attempt,
        idempotency_key: idempotency_key(run, spec),
        inputs: inputs(run),
        outputs: outputs(run),
        handles: handles(run, of.step),
        undoes,
    }
}

/// What a step put out is JSON; what the engine itself has to say is a text.
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// One key for all attempts at a step of a run. Numbers of runs begin anew with a new journal: the time of the run does not.
fn idempotency_key(run: &Run, spec: &StepSpec) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("lidless step key 1");
    hasher.update(&run.id.0.to_le_bytes());
    hasher.update(&run.created.wall_ms.to_le_bytes());
    hasher.update(&run.created.monotonic.as_nanos().to_le_bytes());
    hasher.update(run.purpose.pipeline().unwrap_or_default().as_bytes());
    hasher.update(&[0]);
    hasher.update(spec.name.as_bytes());
    let mut hex = hasher.finalize().to_hex().to_string();
    hex.truncate(32);
    hex
}

/// Ends what steps in doubt have left running when an earlier lidless died: until then it could still take effect, whatever
/// somebody is told meanwhile. What can still be asked for its own answer is left alone.
pub(super) fn end_leftovers(state: &State, units: Option<&Units>) {
    let adoptable = |step: &Doubtful<'_>| {
        let open = matches!(step.phase, Phase::InFlight { .. } | Phase::InDoubt { .. });
        step.spec.adoptable && open && units.is_some_and(|units| units.may_have(&step.key, step.attempt))
    };
    let keys: Vec<String> = in_doubt(state).filter(|step| !adoptable(step)).map(|step| step.key).collect();
    for pid in leftovers::end(&keys, LEFTOVERS_MAX) {
        tracing::error!(pid, "A step of an earlier lidless cannot be ended, and may still take effect.");
    }
}

/// The attempts, by key and number, of which something may still have to be read.
pub(super) fn unsettled(state: &State) -> Vec<(String, u32)> {
    in_doubt(state).map(|step| (step.key, step.attempt)).collect()
}

struct Doubtful<'s> {
    spec: &'s StepSpec,
    phase: &'s Phase,
    key: String,
    attempt: u32,
}

fn in_doubt(state: &State) -> impl Iterator<Item = Doubtful<'_>> {
    let open =
        state.runs.values().flat_map(|run| run.open_steps().map(move |(step, phase)| (run, step, phase)));
    let is =
        |phase: &Phase| matches!(phase, Phase::InFlight { .. } | Phase::InDoubt { .. } | Phase::Held { .. });
    open.filter(move |(_, _, phase)| is(phase)).filter_map(|(run, step, phase)| {
        let spec = run.spec(step).filter(|spec| matches!(spec.call, StepCall::External { .. }))?;
        Some(Doubtful { spec, phase, key: idempotency_key(run, spec), attempt: run.state(step)?.attempt })
    })
}

/// What an answer means for the run.
pub(super) fn outcome(answer: Answer) -> Outcome {
    match answer {
        Answer::Applied { output, .. } => Outcome::Applied { output: output.to_string() },
        Answer::Failed { error: reason, class } => match class {
            FailureClass::Transient => Outcome::NotApplied { reason },
            FailureClass::Permanent => Outcome::Refused { reason },
            FailureClass::Unknown => Outcome::Unknown { reason },
        },
    }
}

/// What was found out means for the run.
pub(super) fn confirmation(found: Found) -> Confirmation {
    match found {
        Found::Applied { output, evidence } => {
            Confirmation::Applied { evidence, output: Some(output.to_string()) }
        }
        Found::NotApplied { evidence } => Confirmation::NotApplied { evidence },
        Found::Failed { error, for_good } => Confirmation::Failed { reason: error, for_good },
        Found::StillUnknown { reason, retry_after } => {
            Confirmation::StillUnknown { reason, retry_after: retry_after.unwrap_or(ASK_AGAIN) }
        }
    }
}

/// Where the words of a run's steps go: to our log, and to a file of the run's own.
pub(super) struct RunLog {
    run: String,
    step: String,
    path: PathBuf,
    file: Mutex<Option<File>>,
}

impl RunLog {
    fn new(folder: &Path, call: &Call) -> RunLog {
        let path = folder.join(format!("{}.log", call.run));
        RunLog { run: call.run.clone(), step: call.step.clone(), path, file: Mutex::new(None) }
    }

    /// A run without words has no file.
    fn open(&self) -> Option<File> {
        std::fs::create_dir_all(self.path.parent()?).ok()?;
        OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path).ok()
    }
}

/// What an attempt at a step may ask of us.
pub(super) struct RunHost {
    log: RunLog,
    of: Attempt,
    messages: mpsc::WeakSender<Message>,
}

impl Log for RunHost {
    fn line(&self, line: &str) {
        self.log.line(line);
    }
}

impl Host for RunHost {
    fn keep<'a>(&'a self, handle: &'a Value) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let ending = || "lidless is ending".to_owned();
            let messages = self.messages.upgrade().ok_or_else(ending)?;
            let (reply, kept) = oneshot::channel();
            let keep = Keep { of: self.of, handle: handle.to_string(), reply };
            messages.send(Message::Keep(keep)).await.map_err(|_| ending())?;
            kept.await.map_err(|_| ending())?
        })
    }
}

impl Log for RunLog {
    fn line(&self, line: &str) {
        tracing::info!(run = %self.run, step = %self.step, line, "Said.");
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_none() {
            *file = self.open();
        }
        if let Some(file) = &mut *file {
            let full = file.metadata().is_ok_and(|meta| meta.len() > LOG_MAX);
            // A full disk costs the words, not the step.
            if !full {
                drop(writeln!(file, "{} {line}", self.step));
            }
        }
    }
}
