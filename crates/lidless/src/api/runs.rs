//! What can be asked of pipelines and their runs?

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use lidless_core::effect::{Command, Refusal, Reply};
use lidless_core::event::Verdict;
use lidless_core::id::RunId;
use lidless_core::pipeline::run::{Phase, Run};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::gate::Peer;
use super::routes::{Context, lost};
use crate::runtime::status::rfc3339;
use crate::runtime::{Lost, View};

/// The schema of `Runs`.
const RUNS_SCHEMA: &str = "lidless/runs/1";

/// Asks for a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunRequest {
    /// The pipeline's name.
    pub pipeline: String,
    /// What its steps are given.
    #[serde(default)]
    pub inputs: Map<String, Value>,
    /// The step at which it begins, if not with the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The same key twice is one run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether it waits its turn where one is under way; else it is refused.
    #[serde(default)]
    pub wait: bool,
}

/// Asks for something to be done with a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunOrder {
    /// "run-9".
    pub run: String,
    /// What.
    #[serde(flatten)]
    pub what: RunWhat,
}

/// What can be done with a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum RunWhat {
    /// Go on at the step that failed.
    Resume,
    /// Begin no further step.
    Cancel,
    /// Say yes, or no, to a step that waits for it.
    Approve {
        /// The step's name; none where only one waits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
        /// An answer other than yes: why not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        no: Option<String>,
    },
    /// Say what became of a step that waits for a person.
    Resolve {
        /// The step's name.
        step: String,
        /// Whether it took effect.
        applied: bool,
        /// How one knows.
        evidence: String,
    },
}

/// What became of either.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum RunAnswer {
    /// The run began, or goes on.
    Started {
        /// "run-9".
        run: String,
        /// The last record before it.
        after: u64,
    },
    /// Nothing was done.
    Refused {
        /// Why, for people.
        why: String,
        /// "not_found", "busy", "not_now", "bad_input" or "forbidden".
        code: String,
    },
}

/// Runs of pipelines: those under way first, then the last that ended, newest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Runs {
    /// The form of this document.
    pub schema: String,
    /// The pipelines of the configuration.
    pub pipelines: Vec<String>,
    /// All of them.
    pub runs: Vec<RunStatus>,
}

/// How one run stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunStatus {
    /// "run-9".
    pub id: String,
    /// What it runs.
    pub pipeline: String,
    /// Who asked for it.
    pub by: String,
    /// When it was created, RFC 3339.
    pub created: String,
    /// When it ended, RFC 3339.
    pub ended: Option<String>,
    /// "running", "waiting", "queued", "approval", "in_doubt", "held", "stuck", "parked", "undoing"; or "done", "failed",
    /// "undone" or "cancelled".
    pub state: String,
    /// The step that it is at, or at which it ended; none where all are done.
    pub at: Option<String>,
    /// Why it stands where it does.
    pub reason: Option<String>,
    /// All its steps, in order; behind them those that take them back.
    pub steps: Vec<StepStatus>,
}

/// How one step of a run stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepStatus {
    /// Its name.
    pub name: String,
    /// "idle", "waiting", "approval", "resting", "running", "in_doubt", "failed", "held", "stuck", "parked", "done", "undone" or
    /// "skipped".
    pub state: String,
    /// Why it stands where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Attempts begun.
    pub attempts: u32,
    /// What it put out, where it said something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// The step that it takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<String>,
    /// From its first attempt to where it is settled, where one run is asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
}

pub(super) async fn get_runs(State(context): State<Context>) -> Response {
    context.handle.query(runs).await.map_or_else(|Lost| lost(), |runs| Json(runs).into_response())
}

/// Reads the runs off.
pub fn runs(view: &View<'_>) -> Runs {
    let state = view.engine.state();
    let open = state.runs.values().rev().filter_map(|run| status(run, None));
    let ended = state.ended.iter().rev().filter_map(|ended| {
        let status = status(&ended.run, Some(&ended.verdict))?;
        Some(RunStatus { ended: Some(rfc3339(ended.ended.wall_ms)), ..status })
    });
    Runs {
        schema: RUNS_SCHEMA.to_owned(),
        pipelines: state.spec.pipelines.iter().map(|pipeline| pipeline.name.clone()).collect(),
        runs: open.chain(ended).collect(),
    }
}

fn status(run: &Run, verdict: Option<&Verdict>) -> Option<RunStatus> {
    let lidless_core::pipeline::plan::Purpose::Pipeline { name, by } = &run.purpose else { return None };
    let focus = run.focus();
    let (state, reason) = match verdict {
        Some(Verdict::Done) => ("done", None),
        Some(Verdict::Failed { reason, .. }) => ("failed", Some(reason.clone())),
        Some(Verdict::Undone { reason, .. }) => ("undone", Some(reason.clone())),
        Some(Verdict::Cancelled { .. }) => ("cancelled", None),
        None => match phase_of(run.focus_phase()) {
            ("idle", _) if !run.begun => ("queued", None),
            ("idle" | "running", _) if run.turned.as_ref().is_some_and(|turned| turned.undoing) => {
                ("undoing", None)
            }
            ("idle" | "resting", _) => ("running", None),
            (state, reason) => (state, reason.map(str::to_owned)),
        },
    };
    let at = match verdict {
        Some(
            Verdict::Failed { step, .. } | Verdict::Undone { step, .. } | Verdict::Cancelled { step, .. },
        ) => Some(*step),
        Some(Verdict::Done) => None,
        None => focus,
    };
    let steps = run.plan.steps().iter().zip(&run.steps).map(|(spec, stands)| {
        let (state, reason) = phase_of(&stands.phase);
        StepStatus {
            name: spec.name.clone(),
            state: state.to_owned(),
            reason: reason.map(str::to_owned),
            attempts: stands.attempt,
            output: stands.output.as_deref().map(output),
            undoes: spec.undoes.and_then(|of| Some(run.spec(of)?.name.clone())),
            took_ms: None,
        }
    });
    Some(RunStatus {
        id: run.id.to_string(),
        pipeline: name.clone(),
        by: by.clone(),
        created: rfc3339(run.created.wall_ms),
        ended: None,
        state: state.to_owned(),
        at: at.and_then(|at| Some(run.spec(at)?.name.clone())),
        reason,
        steps: steps.collect(),
    })
}

/// The word for where a step stands, and why it does.
fn phase_of(phase: &Phase) -> (&'static str, Option<&str>) {
    match phase {
        Phase::Idle => ("idle", None),
        Phase::Waiting { .. } => ("waiting", None),
        Phase::Awaiting { .. } => ("approval", None),
        Phase::Resting { .. } => ("resting", None),
        Phase::Calling { .. } | Phase::InFlight { .. } | Phase::Verifying { .. } => ("running", None),
        Phase::InDoubt { reason, .. } => ("in_doubt", Some(reason)),
        Phase::Failed { reason } => ("failed", Some(reason)),
        Phase::Held { reason } => ("held", Some(reason)),
        Phase::Stuck { reason } => ("stuck", Some(reason)),
        Phase::Parked { reason } => ("parked", Some(reason)),
        Phase::Applied => ("done", None),
        Phase::Undone => ("undone", None),
        Phase::Skipped { reason } => ("skipped", Some(reason)),
    }
}

fn output(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

pub(super) async fn post_run(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(RunRequest { pipeline, inputs, from, key, wait }): Json<RunRequest>,
) -> Response {
    if let Err(why) = inputs.values().try_for_each(lidless_drivers::step::exact) {
        return refuse(StatusCode::BAD_REQUEST, "bad_input", why);
    }
    let inputs = if inputs.is_empty() { String::new() } else { Value::Object(inputs).to_string() };
    let what = format!("pipeline `{pipeline}`");
    let command = Command::Run { pipeline, by: peer.name(), inputs, from, key, due: None, wait };
    give(&context, &peer, &what, command).await
}

/// Reads "run-9", or its number.
pub fn named(name: &str) -> Option<RunId> {
    name.strip_prefix("run-").unwrap_or(name).parse().ok().map(RunId)
}

pub(super) async fn post_order(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(RunOrder { run: name, what }): Json<RunOrder>,
) -> Response {
    let called = format!("run `{name}`");
    let Some(run) = named(&name) else {
        return refuse(StatusCode::NOT_FOUND, "not_found", format!("there is no {called}"));
    };
    let by = peer.name();
    let command = match what {
        RunWhat::Resume => Command::Resume { run, by },
        RunWhat::Cancel => Command::Cancel { run, by },
        RunWhat::Approve { step, no } => Command::Approve { run, step, no, by },
        RunWhat::Resolve { step, applied, evidence } => Command::Resolve { run, step, applied, evidence, by },
    };
    give(&context, &peer, &called, command).await
}

async fn give(context: &Context, peer: &Peer, what: &str, command: Command) -> Response {
    if !peer.may_operate() {
        let why =
            format!("{} may look, but not act: only root and the user that runs lidless may", peer.name());
        return refuse(StatusCode::FORBIDDEN, "forbidden", why);
    }
    let Ok(after) = context.handle.query(|view| view.engine.state().seq.0).await else { return lost() };
    match context.handle.command(command).await {
        Ok(Reply::Started(run)) => Json(RunAnswer::Started { run: run.to_string(), after }).into_response(),
        Ok(Reply::Refused(refusal)) => {
            let (code, why) = refused(&refusal, what);
            refuse(StatusCode::CONFLICT, code, why)
        }
        Ok(Reply::Noted) | Err(Lost) => lost(),
    }
}

/// Says why something about a pipeline or a run is refused: the code, and the words for people.
pub fn refused(refusal: &Refusal, what: &str) -> (&'static str, String) {
    match refusal {
        Refusal::NotFound => ("not_found", format!("there is no {what}")),
        Refusal::Busy(run) => ("busy", format!("{run} of that pipeline is under way")),
        Refusal::NotNow(why) => ("not_now", format!("{what}: {why}")),
        Refusal::NoActuator | Refusal::BudgetSpent { .. } => {
            ("not_now", format!("{what} must not be touched now"))
        }
    }
}

pub(super) fn refuse(status: StatusCode, code: &str, why: String) -> Response {
    (status, Json(RunAnswer::Refused { why, code: code.to_owned() })).into_response()
}
