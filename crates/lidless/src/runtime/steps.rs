//! What does a step of a run call, and what is it told? Made from what the run has pinned, anew for each attempt.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use lidless_core::event::{Confirmation, Outcome};
use lidless_core::pipeline::plan::{Class, StepCall, StepSpec};
use lidless_core::pipeline::run::{Phase, Run};
use lidless_core::state::State;
use lidless_drivers::check::BoxFuture;
use lidless_drivers::check::http::TlsConfigs;
use lidless_drivers::step::exec::ExecStep;
use lidless_drivers::step::http::HttpStep;
use lidless_drivers::step::leftovers;
use lidless_drivers::step::unit::Units;
use lidless_drivers::step::when::When;
use lidless_drivers::step::{Answer, Call, FailureClass, Found, Host, Log, Step, Undoes};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use super::code;
use super::drivers::Drivers;
use super::effects::Attempt;
use super::handle::{Keep, Message};
use crate::config::secret::{SecretError, SecretSource};
use crate::config::settings::{ExecStepSettings, HttpStepSettings};

/// How long nobody asks again where a step in doubt did not say.
const ASK_AGAIN: std::time::Duration = std::time::Duration::from_secs(5);

/// How long what an earlier lidless left running may take to be gone once it is killed.
const LEFTOVERS_MAX: std::time::Duration = std::time::Duration::from_secs(5);
/// More than this of what a run has to say is not kept.
const LOG_MAX: u64 = 1024 * 1024;

/// Certificates are read once: that takes too long for the engine's own thread to do it for every step.
static TLS: LazyLock<TlsConfigs> = LazyLock::new(TlsConfigs::default);

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
    drivers: &Drivers,
    messages: &mpsc::WeakSender<Message>,
) -> Result<Calling, String> {
    let spec = run.spec(of.step).ok_or("the run has no such step")?;
    let StepCall::External { kind, settings } = &spec.call else {
        return Err(format!("{} is not a step that is called", spec.name));
    };
    let call = call(run, spec, of);
    let step = match kind.as_str() {
        code::KIND => drivers.code().find(run.purpose.pipeline().unwrap_or_default(), &spec.name)?,
        kind => {
            let units = drivers.units.as_ref().filter(|_| spec.adoptable);
            let left = units.filter(|units| units.may_have(&call.idempotency_key, call.attempt));
            prepare(kind, settings, spec.class, units)
                .or_else(|why| left.and_then(|units| listen(settings, spec.class, units)).ok_or(why))?
        }
    };
    let kept = Mutex::new(call.handles.clone());
    let log = RunHost { log: RunLog::new(drivers.run_logs(), &call), of, messages: messages.clone(), kept };
    Ok(Calling { step, call, log })
}

/// Returns what does a step that is no code of ours; an `Err` says why this lidless cannot do it.
pub(super) fn step(spec: &StepSpec) -> Result<Arc<dyn Step>, String> {
    match &spec.call {
        StepCall::External { kind, settings } => prepare(kind, settings, spec.class, None),
        StepCall::Nothing
        | StepCall::Wait { .. }
        | StepCall::Act { .. }
        | StepCall::Service { .. }
        | StepCall::Verify { .. }
        | StepCall::Require { .. } => Err(format!("{} is not a step that is called", spec.name)),
    }
}

/// Prepares a step from what its run has pinned. Secrets are read here, anew for each attempt: only where they are is pinned.
fn prepare(
    kind: &str,
    settings: &str,
    class: Class,
    units: Option<&Arc<Units>>,
) -> Result<Arc<dyn Step>, String> {
    // Who cannot simply do it again must not take a failure for "nothing happened".
    let strict = matches!(class, Class::Confirmable | Class::OneShot);
    let unread = |err: serde_json::Error| format!("its settings cannot be read: {err}");
    let secret = |source: &SecretSource| source.read().map(|secret| secret.expose().to_owned());
    let missing = |err: SecretError| format!("a secret of it is missing: {err}");
    match kind {
        "exec" => {
            let settings: ExecStepSettings = serde_json::from_str(settings).map_err(unread)?;
            let step = ExecStep::new(settings.for_driver(strict, &secret).map_err(missing)?);
            Ok(match units {
                None => Arc::new(step),
                Some(units) => Arc::new(step.outliving(Arc::clone(units))),
            })
        }
        "http" => {
            let settings: HttpStepSettings = serde_json::from_str(settings).map_err(unread)?;
            let settings = settings.for_driver(strict, &secret).map_err(missing)?;
            let step =
                HttpStep::with_tls(&settings, &TLS).map_err(|err| format!("it cannot be prepared: {err}"))?;
            Ok(Arc::new(step))
        }
        other => Err(format!("this lidless knows no step of kind `{other}`")),
    }
}

/// Prepares a command only to be asked for the answer of an attempt that has outlived a lidless: that needs none of its secrets,
/// and without it the attempt would be done again beside itself.
fn listen(settings: &str, class: Class, units: &Arc<Units>) -> Option<Arc<dyn Step>> {
    let settings: ExecStepSettings = serde_json::from_str(settings).ok()?;
    let settings = ExecStepSettings { secrets: BTreeMap::new(), confirm: None, ..settings };
    let strict = matches!(class, Class::Confirmable | Class::OneShot);
    let settings =
        settings.for_driver(strict, &|source| source.read().map(|secret| secret.expose().to_owned()));
    Some(Arc::new(ExecStep::new(settings.ok()?).outliving(Arc::clone(units))))
}

/// Says whether a step's condition holds.
pub(super) fn weigh(run: &Run, step: u32, when: &str) -> Result<bool, String> {
    let name = run.spec(step).map(|spec| spec.name.as_str()).unwrap_or_default();
    When::parse(when).map_err(|err| err.to_string())?.holds(&inputs(run), &outputs(run, name))
}

fn inputs(run: &Run) -> Value {
    if run.inputs.is_empty() { Value::Object(Map::new()) } else { json(&run.inputs) }
}

/// What steps put out, as the step of this name sees it. The steps of a pipeline that was taken up lie under its name; one of
/// them sees its own first, as it would if the pipeline ran by itself.
fn outputs(run: &Run, seen_from: &str) -> Value {
    let mut all = Map::new();
    for (spec, state) in run.plan.steps().iter().zip(&run.steps) {
        let Some(output) = state.output.as_deref() else { continue };
        // What takes a step back is no part of it, and a program's own steps are called as the program likes.
        let is_code = matches!(&spec.call, StepCall::External { kind, .. } if kind == code::KIND);
        let is_whole = spec.undoes.is_some() || is_code;
        let mut path: Vec<&str> = if is_whole { vec![&spec.name] } else { spec.name.split('/').collect() };
        let Some(last) = path.pop() else { continue };
        let mut at = &mut all;
        for part in path {
            let inner = at.entry(part).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(inner) = inner else { return Value::Object(Map::new()) };
            at = inner;
        }
        at.insert(last.to_owned(), json(output));
    }
    let mut own = Some(&all);
    let mut nearer = Vec::new();
    let mut path: Vec<&str> = seen_from.split('/').collect();
    path.pop();
    for part in path {
        own = own.and_then(|own| own.get(part)).and_then(Value::as_object);
        nearer.extend(own.cloned());
    }
    for own in nearer {
        all.extend(own);
    }
    Value::Object(all)
}

fn handles(run: &Run, step: u32) -> Vec<Value> {
    let handles = run.state(step).map(|state| state.handles.as_slice()).unwrap_or_default();
    handles.iter().map(|handle| json(handle)).collect()
}

pub(super) fn call(run: &Run, spec: &StepSpec, of: Attempt) -> Call {
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
        outputs: outputs(run, &spec.undoes.and_then(|undone| run.spec(undone)).unwrap_or(spec).name),
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

    /// A run without words has no file, and where nothing is kept there is no folder for one.
    fn open(&self) -> Option<File> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty())?;
        std::fs::create_dir_all(folder).ok()?;
        OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path).ok()
    }
}

/// What an attempt at a step may ask of us.
pub(super) struct RunHost {
    log: RunLog,
    of: Attempt,
    messages: mpsc::WeakSender<Message>,
    /// Handles that are durable already.
    kept: Mutex<Vec<Value>>,
}

impl Log for RunHost {
    fn line(&self, line: &str) {
        self.log.line(line);
    }
}

impl Host for RunHost {
    fn keep<'a>(&'a self, handle: &'a Value) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            if self.kept.lock().unwrap_or_else(PoisonError::into_inner).contains(handle) {
                return Ok(());
            }
            let ending = || "lidless is ending".to_owned();
            let messages = self.messages.upgrade().ok_or_else(ending)?;
            let (reply, kept) = oneshot::channel();
            let keep = Keep { of: self.of, handle: handle.to_string(), reply };
            messages.send(Message::Keep(keep)).await.map_err(|_| ending())?;
            kept.await.map_err(|_| ending())??;
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(handle.clone());
            Ok(())
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
