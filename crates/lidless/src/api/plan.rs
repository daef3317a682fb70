//! What would a run of a pipeline do? Asked by those who may also begin it: steps may look outside to tell.

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::gate::Peer;
use super::routes::{Context, lost};
use super::runs::{RunRequest, refuse, refused};
use crate::runtime::Lost;
use crate::runtime::plan::{self, StepPlan};

/// The schema of `Planned`.
const PLAN_SCHEMA: &str = "lidless/plan/1";

/// What a run would do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Planned {
    /// The form of this document.
    pub schema: String,
    /// The pipeline.
    pub pipeline: String,
    /// Its steps, in order.
    pub steps: Vec<StepPlan>,
}

/// What became of the question.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum PlanAnswer {
    /// The plan.
    Planned(Planned),
    /// It would not begin.
    Refused {
        /// Why, for people.
        why: String,
        /// "not_found", "not_now", "bad_input" or "forbidden".
        code: String,
    },
}

pub(super) async fn post_plan(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(RunRequest { pipeline, inputs, from, .. }): Json<RunRequest>,
) -> Response {
    if !peer.may_operate() {
        let why = format!("{} may not ask: only root and the user that runs lidless may", peer.name());
        return refuse(StatusCode::FORBIDDEN, "forbidden", why);
    }
    if let Err(why) = inputs.values().try_for_each(lidless_drivers::step::exact) {
        return refuse(StatusCode::BAD_REQUEST, "bad_input", why);
    }
    let inputs = if inputs.is_empty() { String::new() } else { Value::Object(inputs).to_string() };
    let name = pipeline.clone();
    let draft = context.handle.query(move |view| plan::draft(view, &name, &inputs, from.as_deref()));
    match draft.await {
        Ok(Ok(draft)) => {
            let (schema, steps) = (PLAN_SCHEMA.to_owned(), draft.ask().await);
            Json(PlanAnswer::Planned(Planned { schema, pipeline, steps })).into_response()
        }
        Ok(Err(refusal)) => {
            let (code, why) = refused(&refusal, &format!("pipeline `{pipeline}`"));
            refuse(StatusCode::CONFLICT, code, why)
        }
        Err(Lost) => lost(),
    }
}
