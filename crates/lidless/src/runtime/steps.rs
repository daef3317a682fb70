//! What does a step of a run call, and what is it told? Made from what the run has pinned, anew for each attempt.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use blake3::hazmat::{ContextKey, HasherExt as _, hash_derive_key_context};
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
use super::plugins::MarkedPlugins;
use super::run_logs::RunLog;
use crate::config::secret::{SecretError, SecretSource};
use crate::config::settings::{ExecStepSettings, HttpStepSettings, PluginStepSettings};

/// How long nobody asks again where a step in doubt did not say.
const ASK_AGAIN: std::time::Duration = std::time::Duration::from_secs(5);

/// How long what an earlier lidless left running may take to be gone once it is killed.
pub(super) const LEFTOVERS_MAX: std::time::Duration = std::time::Duration::from_secs(5);

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
    outputs: Arc<Value>,
    drivers: &Drivers,
    messages: &mpsc::WeakSender<Message>,
) -> Result<Calling, String> {
    let spec = run.spec(of.step).ok_or("the run has no such step")?;
    let StepCall::External { kind, settings } = &spec.call else {
        return Err(format!("{} is not a step that is called", spec.name));
    };
    let call = call(run, spec, of, outputs);
    let step = match kind.as_str() {
        code::KIND => drivers.code().find(run.purpose.pipeline().unwrap_or_default(), &spec.name)?,
        kind => {
            let units = drivers.units.as_ref().filter(|_| spec.adoptable);
            let left = units.filter(|units| units.may_have(&call.idempotency_key, call.attempt));
            prepare(kind, settings, spec.class, units, &drivers.plugins)
                .or_else(|why| left.and_then(|units| listen(settings, spec.class, units)).ok_or(why))?
        }
    };
    let kept = Mutex::new(call.handles.clone());
    let log = RunHost { log: drivers.run_logs().of(&call), of, messages: messages.clone(), kept };
    Ok(Calling { step, call, log })
}

/// Returns what does a step that is no code of ours; an `Err` says why this lidless cannot do it.
pub(super) fn step(spec: &StepSpec, plugins: &MarkedPlugins) -> Result<Arc<dyn Step>, String> {
    match &spec.call {
        StepCall::External { kind, settings } => prepare(kind, settings, spec.class, None, plugins),
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
    plugins: &MarkedPlugins,
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
        "plugin" => {
            let settings: PluginStepSettings = serde_json::from_str(settings).map_err(unread)?;
            Ok(Arc::new(plugins.step(settings.for_driver(strict, &secret).map_err(missing)?)))
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
pub(super) fn weigh(run: &Run, when: &str, outputs: &Value) -> Result<bool, String> {
    When::parse(when).map_err(|err| err.to_string())?.holds(&inputs(run), outputs)
}

fn inputs(run: &Run) -> Value {
    if run.inputs.is_empty() { Value::Object(Map::new()) } else { json(&run.inputs) }
}

fn handles(run: &Run, step: u32) -> Vec<Value> {
    let handles = run.state(step).map(|state| state.handles.as_slice()).unwrap_or_default();
    handles.iter().map(|handle| json(handle)).collect()
}

pub(super) fn call(run: &Run, spec: &StepSpec, of: Attempt, outputs: Arc<Value>) -> Call {
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
        outputs,
        handles: handles(run, of.step),
        undoes,
        allotted: allotted(run, spec, of.step),
    }
}

/// How long it was given, whatever is left of it.
fn allotted(run: &Run, spec: &StepSpec, step: u32) -> Option<std::time::Duration> {
    if let Phase::InFlight { intent_at, deadline } = run.phase(step) {
        return Some(deadline.saturating_sub(intent_at.monotonic));
    }
    matches!(run.phase(step), Phase::InDoubt { .. }).then_some(spec.timeout)
}

/// What a step put out is JSON; what the engine itself has to say is a text.
pub(super) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// One key for all attempts at a step of a run. Numbers of runs begin anew with a new journal: the time of the run does not.
fn idempotency_key(run: &Run, spec: &StepSpec) -> String {
    static STEP: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context("lidless step key 1"));
    let mut hasher = blake3::Hasher::new_from_context_key(&STEP);
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
