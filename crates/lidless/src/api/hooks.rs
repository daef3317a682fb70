//! Who may begin a run from elsewhere? Whoever can sign for it: no other check lets a webhook in.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use lidless_core::effect::{Command, Refusal, Reply};
use serde_json::{Map, Value, json};

use super::routes::{Context, lost};
use super::signature::{self, AGE_MAX_S, Signed, only};
use crate::config::{Resolved, Secret};
use crate::runtime::Lost;

/// More than this is no order.
const BODY_MAX: usize = 64 * 1024;
/// A key is a name, not a text.
const KEY_MAX: usize = 200;
/// Deliveries that are taken in a second, in the long run, and at once.
const RATE: f64 = 10.0;
const BURST: f64 = 100.0;
/// More runs of a pipeline than this do not wait for their turn.
const WAITING_MAX: usize = 1_000;
/// So many deliveries can be taken while a signature is good, and a few more.
const SEEN_MAX: usize = 8_192;

/// The pipelines that have a webhook, and what was taken lately.
#[derive(Debug)]
pub struct Hooks {
    secrets: HashMap<String, Secret>,
    lately: Mutex<Lately>,
}

#[derive(Debug)]
struct Lately {
    /// What may still be taken at once, and when that was so.
    room: f64,
    at: Instant,
    /// By signature: until when it is good, and for which key it was used.
    seen: HashMap<String, (i64, String)>,
}

impl Hooks {
    /// Those of a configuration.
    pub fn of(resolved: &Resolved) -> Hooks {
        let secrets = resolved.pipelines.iter().filter_map(|pipeline| {
            let hook = pipeline.hook.as_ref().filter(|hook| !hook.secret.expose().is_empty())?;
            Some((pipeline.name.clone(), hook.secret.clone()))
        });
        let lately = Lately { room: BURST, at: Instant::now(), seen: HashMap::new() };
        Hooks { secrets: secrets.collect(), lately: Mutex::new(lately) }
    }

    /// Whether a signature may be used for a key: who has overheard a delivery must not make another one of it.
    fn is_first_use(&self, signed: &Signed, key: &str, now_s: i64) -> bool {
        let Some(at_s) = signed.at_s else { return true };
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        if lately.seen.len() >= SEEN_MAX {
            lately.seen.retain(|_, (until, _)| *until >= now_s);
        }
        if let Some((_, used)) = lately.seen.get(&signed.hex) {
            return used == key;
        }
        let has_room = lately.seen.len() < SEEN_MAX;
        if has_room {
            lately.seen.insert(signed.hex.clone(), (at_s + AGE_MAX_S, key.to_owned()));
        }
        has_room
    }

    /// Whether one more may be taken now.
    fn take(&self, now: Instant) -> bool {
        let mut lately = self.lately.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(lately.at);
        lately.room = (lately.room + since.as_secs_f64() * RATE).min(BURST);
        lately.at = now;
        let has_room = lately.room >= 1.0;
        if has_room {
            lately.room -= 1.0;
        }
        has_room
    }
}

pub(super) async fn post_hook(
    State(context): State<Context>,
    Path(pipeline): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Some(secret) = context.hooks.secrets.get(&pipeline) else { return unknown() };
    let Ok(body) = axum::body::to_bytes(body, BODY_MAX).await else {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "more than 64 KiB");
    };
    let now_s = jiff::Timestamp::now().as_second();
    let Some(signed) = signature::check(&headers, &body, secret.expose(), now_s) else {
        return unsigned();
    };
    let key = match key(&headers, &signed) {
        Ok(key) => key,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, why),
    };
    if !context.hooks.is_first_use(&signed, &key, now_s) {
        return unsigned();
    }
    if only(&headers, "x-github-event") == Some("ping") {
        return Json(json!({ "pong": true })).into_response();
    }
    let inputs = match inputs(&body) {
        Ok(inputs) => inputs,
        Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
    };
    let name = pipeline.clone();
    let unfinished = context.handle.query(move |view| {
        let runs = view.engine.state().runs.values();
        runs.filter(|run| run.purpose.pipeline() == Some(name.as_str())).count()
    });
    let Ok(unfinished) = unfinished.await else { return lost() };
    if unfinished > WAITING_MAX || !context.hooks.take(Instant::now()) {
        let mut answer = refuse(StatusCode::TOO_MANY_REQUESTS, "too many: try again");
        answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("10"));
        return answer;
    }
    let command = Command::Run {
        pipeline,
        by: "webhook".to_owned(),
        inputs,
        from: None,
        key: Some(key),
        due: None,
        wait: true,
    };
    match context.handle.command(command).await {
        Ok(Reply::Started(run)) => {
            (StatusCode::ACCEPTED, Json(json!({ "run": run.to_string() }))).into_response()
        }
        Ok(Reply::Refused(Refusal::NotFound)) => unknown(),
        Ok(Reply::Refused(_)) => refuse(StatusCode::CONFLICT, "not now"),
        Ok(Reply::Noted) | Err(Lost) => lost(),
    }
}

/// What makes two deliveries one: what the sender says, or else that they are signed the same.
fn key(headers: &HeaderMap, signed: &Signed) -> Result<String, &'static str> {
    for name in ["idempotency-key", "x-github-delivery"] {
        if !headers.contains_key(name) {
            continue;
        }
        let given = only(headers, name).filter(|key| !key.is_empty() && key.len() <= KEY_MAX);
        return given.map(|key| format!("hook {key}")).ok_or("a key is one text of up to 200 characters");
    }
    Ok(format!("hook signed {}", signed.hex))
}

/// Reads what the run is given, as exactly as `lidless run --input` does.
fn inputs(body: &[u8]) -> Result<String, String> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(String::new());
    }
    let object: Map<String, Value> =
        serde_json::from_slice(body).map_err(|err| format!("not a JSON object: {err}"))?;
    object.values().try_for_each(lidless_drivers::step::exact)?;
    Ok(if object.is_empty() { String::new() } else { Value::Object(object).to_string() })
}

/// A pipeline without a webhook, and none at all, are the same from outside.
fn unknown() -> Response {
    refuse(StatusCode::NOT_FOUND, "no such webhook")
}

/// Whoever cannot sign is not told what was wrong with it.
fn unsigned() -> Response {
    refuse(StatusCode::UNAUTHORIZED, "not signed")
}

fn refuse(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn hooks() -> Hooks {
        let lately = Lately { room: BURST, at: Instant::now(), seen: HashMap::new() };
        Hooks { secrets: HashMap::new(), lately: Mutex::new(lately) }
    }

    #[test]
    fn more_than_is_allowed_must_wait() {
        let (hooks, now) = (hooks(), Instant::now());
        assert_eq!((0..200).filter(|_| hooks.take(now)).count(), 100);
        let later = now + Duration::from_secs(2);
        assert_eq!((0..200).filter(|_| hooks.take(later)).count(), 20);
    }

    #[test]
    fn an_overheard_delivery_makes_no_second_one() {
        let hooks = hooks();
        let signed = Signed { hex: "ab".to_owned(), at_s: Some(1_000) };
        assert!(hooks.is_first_use(&signed, "hook one", 1_000));
        assert!(hooks.is_first_use(&signed, "hook one", 1_001), "the sender tries again");
        assert!(!hooks.is_first_use(&signed, "hook two", 1_002));
        let timeless = Signed { hex: "ab".to_owned(), at_s: None };
        assert!(hooks.is_first_use(&timeless, "hook two", 1_002), "GitHub's form has no time to hold on to");
    }

    #[test]
    fn the_body_is_an_object_or_nothing() {
        assert_eq!(inputs(b" \n"), Ok(String::new()));
        assert_eq!(inputs(b"{}"), Ok(String::new()));
        assert_eq!(inputs(b"{\"a\": 5}"), Ok("{\"a\":5}".to_owned()));
        assert!(inputs(b"[1]").is_err_and(|why| why.contains("not a JSON object")));
        assert!(inputs(b"{\"a\": 20000000000000000001}").is_err(), "it would be rounded");
    }
}
