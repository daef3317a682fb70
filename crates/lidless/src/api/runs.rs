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
    /// "running", "waiting", "in_doubt", "held", "done", "failed" or "cancelled".
    pub state: String,
    /// The step that it is at, or at which it ended; none where all are done.
    pub at: Option<String>,
    /// Why it stands where it does.
    pub reason: Option<String>,
    /// All its steps, in order.
    pub steps: Vec<String>,
}

pub(super) async fn get_runs(State(context): State<Context>) -> Response {
    context.handle.query(runs).await.map_or_else(|Lost| lost(), |runs| Json(runs).into_response())
}

fn runs(view: &View<'_>) -> Runs {
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
    let (state, reason) = match (verdict, &run.phase) {
        (Some(Verdict::Done), _) => ("done", None),
        (Some(Verdict::Failed { reason, .. }), _) => ("failed", Some(reason)),
        (Some(Verdict::Cancelled { .. }), _) => ("cancelled", None),
        (None, Phase::InDoubt { reason, .. }) => ("in_doubt", Some(reason)),
        (None, Phase::Held { reason }) => ("held", Some(reason)),
        (None, Phase::Waiting { .. }) => ("waiting", None),
        (None, Phase::Ready | Phase::InFlight { .. } | Phase::Verifying { .. } | Phase::Failed { .. }) => {
            ("running", None)
        }
    };
    Some(RunStatus {
        id: run.id.to_string(),
        pipeline: name.clone(),
        by: by.clone(),
        created: rfc3339(run.created.wall_ms),
        ended: None,
        state: state.to_owned(),
        at: run.step().map(|step| step.name.clone()),
        reason: reason.cloned(),
        steps: run.steps.iter().map(|step| step.name.clone()).collect(),
    })
}

pub(super) async fn post_run(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(RunRequest { pipeline, inputs }): Json<RunRequest>,
) -> Response {
    if let Err(why) = inputs.values().try_for_each(lidless_drivers::step::exact) {
        return refuse(StatusCode::BAD_REQUEST, "bad_input", why);
    }
    let inputs = if inputs.is_empty() { String::new() } else { Value::Object(inputs).to_string() };
    let what = format!("pipeline `{pipeline}`");
    give(&context, &peer, &what, Command::Run { pipeline, by: peer.name(), inputs }).await
}

pub(super) async fn post_order(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(RunOrder { run: name, what }): Json<RunOrder>,
) -> Response {
    let called = format!("run `{name}`");
    let Some(run) = name.strip_prefix("run-").unwrap_or(&name).parse().ok().map(RunId) else {
        return refuse(StatusCode::NOT_FOUND, "not_found", format!("there is no {called}"));
    };
    let by = peer.name();
    let command = match what {
        RunWhat::Resume => Command::Resume { run, by },
        RunWhat::Cancel => Command::Cancel { run, by },
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
            let (code, why) = match refusal {
                Refusal::NotFound => ("not_found", format!("there is no {what}")),
                Refusal::Busy(run) => ("busy", format!("{run} of that pipeline is under way")),
                Refusal::NotNow(why) => ("not_now", format!("{what}: {why}")),
                Refusal::NoActuator | Refusal::BudgetSpent { .. } => {
                    ("not_now", format!("{what} must not be touched now"))
                }
            };
            refuse(StatusCode::CONFLICT, code, why)
        }
        Err(Lost) => lost(),
    }
}

fn refuse(status: StatusCode, code: &str, why: String) -> Response {
    (status, Json(RunAnswer::Refused { why, code: code.to_owned() })).into_response()
}
