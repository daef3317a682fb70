//! What can be asked of a running lidless? Each route reads the engine or asks it for one thing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use lidless_core::effect::{Command, Refusal, Reply};
use lidless_core::event::Record;
use lidless_core::id::{RunId, Seq};
use lidless_store::{EventFilter, SqliteReader};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::gate::Peer;
use super::hooks::{self, Hooks};
use super::host;
use super::plan;
use super::runs;
use crate::runtime::status::{self, rfc3339};
use crate::runtime::{Handle, Lost};
use crate::story;
use crate::telemetry;
use crate::words::{Names, Told};

/// How many records are read from the journal in one go.
const PAGE: usize = 1_000;
/// From the head of a question to that of its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// So many records before the first wanted one are read for names only. What is open now is known to the engine; this is for
/// what was open then and has ended since. What began even earlier is told without its service.
const LEARN_FROM: u64 = 2_000;
/// Those that may follow events at once: each holds a connection, and takes a copy of every record.
pub(super) const FOLLOWERS_MAX: usize = 32;

/// What the routes work on.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) handle: Handle,
    pub(super) journal: Option<PathBuf>,
    /// Ends those that follow events: they never end by themselves.
    pub(super) stop: CancellationToken,
    /// Room for those that follow events.
    pub(super) followers: Arc<Semaphore>,
    /// Those that may begin runs from elsewhere.
    pub(super) hooks: Arc<Hooks>,
}

/// A record on the wire and on a terminal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventLine {
    /// The form of this document.
    pub schema: String,
    /// The record's position.
    pub seq: u64,
    /// When, RFC 3339.
    pub time: String,
    /// The service that it is about.
    pub service: Option<String>,
    /// The check that it is about.
    pub check: Option<String>,
    /// One line for people.
    pub text: String,
    /// The record as it stands in the journal.
    pub record: Record,
}

impl From<Told> for EventLine {
    fn from(told: Told) -> EventLine {
        EventLine {
            schema: "lidless/event/1".to_owned(),
            seq: told.record.seq.0,
            time: rfc3339(told.record.at.wall_ms),
            service: told.service,
            check: told.check,
            text: told.text,
            record: told.record,
        }
    }
}

/// Asks for a restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestartRequest {
    /// The service's name.
    pub service: String,
    /// Also when the budget is spent.
    pub force: bool,
}

/// What became of a request for a restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum RestartAnswer {
    /// A run was created.
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
        /// "not_found", "no_actuator", "busy", "budget_spent" or "forbidden".
        code: String,
    },
}

/// What is served on loopback TCP, where any page in a browser can ask.
pub(super) fn web(context: Context) -> axum::Router {
    let ours = public(context.clone()).layer(axum::middleware::from_fn(host::only_ours));
    // Webhooks come by way of a proxy that serves another name; a page in a browser cannot sign.
    asked_once(ours.merge(signed(context)))
}

/// Routes that let in whoever can sign, and nobody else.
fn signed(context: Context) -> axum::Router {
    axum::Router::new().route("/v1/hooks/{pipeline}", post(hooks::post_hook)).with_state(context)
}

/// All routes: on the Unix socket.
pub(super) fn local(context: Context) -> axum::Router {
    let routes = axum::Router::new()
        .route("/v1/status", get(get_status))
        .route("/v1/incidents", get(get_incidents))
        .route("/v1/events", get(get_events))
        .route("/v1/restart", post(post_restart))
        .route("/v1/run", post(runs::post_run))
        .route("/v1/plan", post(plan::post_plan))
        .route("/v1/runs", get(runs::get_runs).post(runs::post_order))
        .with_state(context.clone());
    asked_once(routes.merge(public(context.clone())).merge(signed(context)))
}

/// Routes that only read and carry no secrets: also on loopback TCP.
fn public(context: Context) -> axum::Router {
    axum::Router::new().route("/healthz", get(healthz)).route("/metrics", get(metrics)).with_state(context)
}

/// One question a connection: kept open for more, it would hold its place in silence.
fn asked_once(routes: axum::Router) -> axum::Router {
    routes.layer(axum::middleware::from_fn(
        async |ConnectInfo(peer): ConnectInfo<Peer>, request: Request, next: Next| {
            peer.has_asked();
            // The body of the question is read in here, too; that of the answer is not written in here.
            let answer = tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await;
            let mut answer = answer
                .unwrap_or_else(|_| (StatusCode::REQUEST_TIMEOUT, "not asked in time\n").into_response());
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            answer
        },
    ))
}

async fn healthz(State(context): State<Context>) -> Response {
    match context.handle.query(|view| view.engine.state().degraded.clone()).await {
        Ok(None) => "ok\n".into_response(),
        Ok(Some(reason)) => {
            (StatusCode::OK, format!("degraded: the journal cannot be written: {reason}\n")).into_response()
        }
        Err(Lost) => lost(),
    }
}

async fn metrics(State(context): State<Context>) -> Response {
    const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match context.handle.query(telemetry::open_metrics).await {
        Ok(text) => ([(header::CONTENT_TYPE, KIND)], text).into_response(),
        Err(Lost) => lost(),
    }
}

async fn get_status(State(context): State<Context>) -> Response {
    context
        .handle
        .query(status::status)
        .await
        .map_or_else(|Lost| lost(), |status| Json(status).into_response())
}

async fn get_incidents(State(context): State<Context>) -> Response {
    let incidents = context.handle.query(status::incidents).await;
    incidents.map_or_else(|Lost| lost(), |incidents| Json(incidents).into_response())
}

async fn post_restart(
    State(context): State<Context>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(request): Json<RestartRequest>,
) -> Response {
    let refuse = |status: StatusCode, code: &str, why: String| {
        (status, Json(RestartAnswer::Refused { why, code: code.to_owned() })).into_response()
    };
    if !peer.may_operate() {
        let why = format!(
            "{} may look, but not restart: only root and the user that runs lidless may",
            peer.name()
        );
        return refuse(StatusCode::FORBIDDEN, "forbidden", why);
    }
    let name = request.service.clone();
    let found = context.handle.query(move |view| {
        let state = view.engine.state();
        (state.service_named(&name), state.seq.0, view.now.monotonic)
    });
    let (id, after, now) = match found.await {
        Ok((Some(id), after, now)) => (id, after, now),
        Ok((None, ..)) => {
            let why = format!("there is no service `{}`", request.service);
            return refuse(StatusCode::NOT_FOUND, "not_found", why);
        }
        Err(Lost) => return lost(),
    };
    let command = Command::Restart { service: id, by: peer.name(), force: request.force };
    let service = request.service;
    match context.handle.command(command).await {
        Ok(Reply::Started(run)) => {
            Json(RestartAnswer::Started { run: run.to_string(), after }).into_response()
        }
        Ok(Reply::Refused(refusal)) => {
            let (code, why) = match refusal {
                Refusal::NotFound => ("not_found", format!("there is no service `{service}`")),
                Refusal::NoActuator => {
                    ("no_actuator", format!("nothing in the configuration says how to restart `{service}`"))
                }
                Refusal::Busy(run) => ("busy", format!("{run} is acting on `{service}` already")),
                Refusal::NotNow(why) => ("not_now", why.to_owned()),
                Refusal::BudgetSpent { until } => {
                    let wait = crate::words::span(until.saturating_sub(now));
                    ("budget_spent", format!("the restart budget of `{service}` is spent for {wait}"))
                }
            };
            refuse(StatusCode::CONFLICT, code, why)
        }
        Ok(Reply::Noted) | Err(Lost) => lost(),
    }
}

/// Which events are wanted.
#[derive(Debug, Deserialize)]
struct EventsQuery {
    after: Option<u64>,
    #[serde(default)]
    follow: bool,
    service: Option<String>,
    since_ms: Option<i64>,
    /// Only what is of the story of this run, "run-9" or its number.
    run: Option<String>,
}

async fn get_events(State(context): State<Context>, Query(query): Query<EventsQuery>) -> Response {
    let Some(journal) = context.journal.clone() else {
        return (StatusCode::NOT_FOUND, "this lidless keeps no journal\n").into_response();
    };
    let following = match query.follow.then(|| Arc::clone(&context.followers).try_acquire_owned()).transpose()
    {
        Ok(following) => following,
        Err(_) => {
            let why = format!("{FOLLOWERS_MAX} follow events already: end one of them first\n");
            return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
        }
    };
    // Listen first, then read: what is written meanwhile is heard, and told apart by its position.
    let feed = query.follow.then(|| context.handle.listen());
    let known = context.handle.query(|view| (view.durable, Names::of(view.engine.state())));
    let Ok((durable, names)) = known.await else { return lost() };
    let run = query.run.as_deref().map(|name| runs::named(name).unwrap_or_default());
    let after = query.after.unwrap_or(0);
    let reading = Reading {
        journal: Arc::from(journal.as_path()),
        names,
        at: Seq(after.min(durable.0).saturating_sub(LEARN_FROM)),
        after: Seq(after),
        upto: durable,
        service: query.service,
        since_ms: query.since_ms.unwrap_or(i64::MIN),
        run,
        feed,
        stop: context.stop.clone(),
        _following: following,
    };
    let lines = stream::unfold(Some(reading), |reading| async {
        let mut reading = reading?;
        match reading.next().await {
            Ok(None) => None,
            Ok(Some(lines)) => Some((Ok(lines), Some(reading))),
            Err(err) => Some((Err(err), None)),
        }
    });
    ([(header::CONTENT_TYPE, "application/jsonl")], Body::from_stream(lines)).into_response()
}

/// A reader under way: first the journal, then the feed. Names are those of now, and learnt from what is read.
struct Reading {
    journal: Arc<Path>,
    names: Names,
    at: Seq,
    after: Seq,
    upto: Seq,
    service: Option<String>,
    since_ms: i64,
    run: Option<RunId>,
    feed: Option<Receiver<Arc<Told>>>,
    stop: CancellationToken,
    _following: Option<OwnedSemaphorePermit>,
}

impl Reading {
    /// Returns the next lines, perhaps none of them wanted; `None` at the end.
    async fn next(&mut self) -> Result<Option<String>, std::io::Error> {
        if self.at < self.upto {
            let (journal, at) = (Arc::clone(&self.journal), self.at);
            let page = tokio::task::spawn_blocking(move || page(&journal, at)).await;
            let page = page.map_err(std::io::Error::other)?.map_err(std::io::Error::other)?;
            if page.is_empty() {
                self.upto = self.at;
            }
            let mut lines = String::new();
            for record in page {
                self.at = record.seq;
                let told = self.names.tell(record);
                self.write(told, &mut lines);
            }
            return Ok(Some(lines));
        }
        let Some(feed) = &mut self.feed else { return Ok(None) };
        let told = tokio::select! {
            told = feed.recv() => told,
            () = self.stop.cancelled() => return Ok(None),
        };
        match told {
            Ok(told) if told.record.seq == self.at.next() => {
                self.at = told.record.seq;
                let told = self.names.tell(told.record.clone());
                let mut lines = String::new();
                self.write(told, &mut lines);
                Ok(Some(lines))
            }
            Ok(told) if told.record.seq <= self.at => Ok(Some(String::new())),
            // Something between was missed: it is in the journal.
            Ok(told) => {
                self.upto = told.record.seq;
                Ok(Some(String::new()))
            }
            Err(RecvError::Lagged(missed)) => {
                self.upto = Seq(self.at.0 + missed);
                Ok(Some(String::new()))
            }
            Err(RecvError::Closed) => Ok(None),
        }
    }

    fn write(&self, told: Told, lines: &mut String) {
        let wanted = told.record.seq > self.after
            && told.record.at.wall_ms >= self.since_ms
            && self.run.is_none_or(|run| story::is_about(&told.record.event, run))
            && self.service.as_ref().is_none_or(|name| told.service.as_ref() == Some(name));
        if wanted && let Ok(line) = serde_json::to_string(&EventLine::from(told)) {
            lines.push_str(&line);
            lines.push('\n');
        }
    }
}

fn page(journal: &Path, after: Seq) -> Result<Vec<Record>, lidless_store::JournalError> {
    SqliteReader::open(journal)?.events(after, PAGE, &EventFilter::default())
}

pub(super) fn lost() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "lidless is ending\n").into_response()
}
