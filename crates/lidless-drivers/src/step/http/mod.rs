//! How is a step done over HTTP? One request with the idempotency key, and its status is the answer.
//!
//! **Out.** The URL, its headers and its body are templates over the call: `{{ inputs.amount }}`,
//! `{{ outputs.REBALANCE.shifted }}`, `{{ key }}`, `{{ run }}`, `{{ pipeline }}`, `{{ step }}`, `{{ attempt }}`,
//! `{{ handles.0 }}`, and for a step that takes another back `{{ undoes.step }}`, `{{ undoes.key }}`, `{{ undoes.output.id }}`,
//! `{{ undoes.handles.0 }}`. In a URL and in a form a value is percent-encoded, and none can choose the server; a header with a
//! line break in it is not sent. A value that is not there, or `null`, is an error before anything is sent. The header
//! `Idempotency-Key` is sent by itself.
//!
//! **In.** One connection, one request, no retry, no redirect: as in the http check, whose connections these are.
//!
//! | the server | the step is | strict |
//! |---|---|---|
//! | is not reached: no address, no connection, no TLS | failed, transient | failed, transient |
//! | was sent something, and then the answer is lost, broken or late | failed, unknown | failed, unknown |
//! | answers as `expect` says (2xx) | applied | applied |
//! | does so, with an output that cannot be used (see below) | failed, unknown | failed, unknown |
//! | answers with the right status, without what the body must contain | failed, transient | failed, unknown |
//! | answers 2xx where another status is wanted | failed, unknown | failed, unknown |
//! | answers 408, 425, 429, 5xx | failed, transient | failed, unknown |
//! | answers 409, 3xx, or below 200 | failed, permanent | failed, unknown |
//! | answers any other 4xx: it refused | failed, permanent | failed, permanent |
//! | answers with a status in `not_applied_on` | failed, transient if it is 408, 425, 429 or 5xx, else permanent | the same |
//!
//! `strict` is for who must not do it twice: a server may have done it before it came to say 500. Who knows that his does not
//! lists the status in `not_applied_on`.
//!
//! **Output.** A body that is a JSON object, or `text`, the first line of any other. With `output`, what stands at
//! `body.items.0.id`, `headers.location` or `status`; the body then must be JSON, and have it. 1 MiB of a body is read, and
//! 64 KiB of output are taken. A body of a JSON type that is no JSON is an answer half lost.
//!
//! **Asked whether it took effect**, another request is sent. Where its answer is as `applied` says, it did; where it is as
//! `not_applied` says, it did not, and never will; where it is as both say, or as neither, nobody knows yet. With neither given
//! the body must be, with a status of 2xx, what a `confirm` command answers: see `exec`.
//!
//! Nothing that is shown has a query, a header's value or a body that was sent in it, and no secret that was sent back.

mod answer;
mod body;
mod request;
mod settings;
mod template;

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

pub use self::body::BodySettings;
pub use self::settings::{
    Expect, HeaderSource, HttpConfirmSettings, HttpRequestSettings, HttpStepError, HttpStepSettings,
    OutputSettings,
};

use self::answer::{Output, Wanted, WantedNow, judge, retry_after, said};
use self::request::{Asked, Asking, Ready, Reply};
use super::answer::{Strict, settle};
use super::{Answer, Call, FailureClass, Found, Host, Log, Step};
use crate::check::BoxFuture;
use crate::check::http::TlsConfigs;

/// Does a step with one request, and perhaps asks with another what became of it.
pub struct HttpStep {
    asking: Asking,
    wanted: Wanted,
    not_applied_on: Vec<u16>,
    output: Output,
    confirm: Option<Confirm>,
    strict: Strict,
}

/// How it is found out whether an attempt took effect.
struct Confirm {
    asking: Asking,
    applied: Option<Wanted>,
    not_applied: Option<Wanted>,
    output: Output,
}

impl HttpStep {
    /// Prepares a step. All that can be wrong in a template is told here.
    pub fn new(settings: &HttpStepSettings) -> Result<Self, HttpStepError> {
        HttpStep::with_tls(settings, &TlsConfigs::default())
    }

    /// Prepares a step that shares its certificate authorities with others: see `HttpCheck::with_tls`.
    pub fn with_tls(settings: &HttpStepSettings, shared: &TlsConfigs) -> Result<Self, HttpStepError> {
        let wrong = |status| {
            if settings.expect.status.holds(status) {
                Some("`expect` takes it for done")
            } else if !(300..=599).contains(&status) {
                Some("it is none by which a server says that it did nothing")
            } else {
                None
            }
        };
        for status in settings.not_applied_on.iter().copied() {
            if let Some(reason) = wrong(status) {
                return Err(HttpStepError::NotApplied { status, reason });
            }
        }
        let asking =
            Asking::new(&settings.request, settings.key_header.as_deref(), "", &settings.tls, shared)?;
        let confirm = |confirm: &HttpConfirmSettings| {
            let wanted = |expect: &Option<Expect>, place| {
                expect.as_ref().map(|expect| Wanted::new(expect, place)).transpose()
            };
            Ok(Confirm {
                asking: Asking::new(&confirm.request, None, "confirm.", &settings.tls, shared)?,
                applied: wanted(&confirm.applied, "confirm.applied")?,
                not_applied: wanted(&confirm.not_applied, "confirm.not_applied")?,
                output: Output::new(&confirm.output, "confirm.output")?,
            })
        };
        Ok(HttpStep {
            asking,
            wanted: Wanted::new(&settings.expect, "expect")?,
            not_applied_on: settings.not_applied_on.clone(),
            output: Output::new(&settings.output, "output")?,
            confirm: settings.confirm.as_ref().map(confirm).transpose()?,
            strict: Strict(settings.strict),
        })
    }

    /// Returns what its templates ask of a call, each once: `inputs.amount`, `outputs.REBALANCE.shifted`.
    pub fn asks_for(&self) -> Vec<String> {
        let confirm = self.confirm.iter().flat_map(|confirm| {
            let wanted = confirm.applied.iter().chain(&confirm.not_applied).flat_map(Wanted::ways);
            confirm.asking.ways().into_iter().chain(wanted)
        });
        let ways = self.asking.ways().into_iter().chain(self.wanted.ways()).chain(confirm);
        let mut names: Vec<String> = ways.map(ToString::to_string).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn prepare(&self, call: &Call) -> Result<(Ready, WantedNow<'_>), String> {
        let wanted = self.wanted.fill(call)?;
        // What only the question asks for must not turn out to be missing when it is too late.
        if let Some(confirm) = &self.confirm {
            confirm.prepare(call)?;
        }
        Ok((self.asking.fill(call)?, wanted))
    }
}

/// The same for one call.
struct Question<'a> {
    ready: Ready,
    applied: Option<WantedNow<'a>>,
    not_applied: Option<WantedNow<'a>>,
}

impl Confirm {
    fn prepare(&self, call: &Call) -> Result<Question<'_>, String> {
        Ok(Question {
            applied: self.applied.as_ref().map(|wanted| wanted.fill(call)).transpose()?,
            not_applied: self.not_applied.as_ref().map(|wanted| wanted.fill(call)).transpose()?,
            ready: self.asking.fill(call)?,
        })
    }

    async fn ask(&self, call: &Call, timeout: Duration, log: &dyn Log) -> Result<Found, Found> {
        let unknown = |reason| Found::StillUnknown { reason, retry_after: None };
        let Question { ready, applied, not_applied } = self.prepare(call).map_err(unknown)?;
        let shown = ready.shown.clone();
        let reply = match self.asking.send(ready.into_request(), None, timeout).await {
            Asked::Answered(reply) => reply,
            Asked::Lost { reason, .. } => {
                log.line(&format!("{shown}: {reason}"));
                return Err(unknown(reason));
            }
        };
        let words = said(&reply);
        log.line(&format!("{shown}: {words}"));
        let retry_after = retry_after(&reply).map(Duration::from_secs);
        let unknown = |reason| Found::StillUnknown { reason, retry_after };
        let found = match (applied, not_applied) {
            (None, None) => told(&reply).map_err(unknown)?,
            (applied, not_applied) => {
                let is = |wanted: &Option<WantedNow<'_>>| {
                    wanted.as_ref().is_some_and(|wanted| wanted.judge(&reply).is_ok())
                };
                let evidence = format!("{shown}: {words}");
                match (is(&applied), is(&not_applied)) {
                    (true, false) => {
                        Found::Applied { output: self.output.of(&reply).map_err(unknown)?, evidence }
                    }
                    (false, true) => Found::NotApplied { evidence },
                    (true, true) => {
                        unknown(format!("its answer says both that it did and that it did not: {words}"))
                    }
                    (false, false) => {
                        unknown(format!("its answer says neither that it did nor that it did not: {words}"))
                    }
                }
            }
        };
        Ok(found)
    }
}

/// Reads an answer that is written as a `confirm` command's.
fn told(reply: &Reply) -> Result<Found, String> {
    if !(200..=299).contains(&reply.status) {
        return Err(said(reply));
    }
    let object = serde_json::from_slice::<Map<String, Value>>(&reply.body);
    settle(object.map_err(|_| format!("{}: its body is no JSON object", said(reply)))?)
}

impl Step for HttpStep {
    fn perform<'a>(&'a self, call: &'a Call, timeout: Duration, host: &'a dyn Host) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let (ready, wanted) = match self.prepare(call) {
                Ok(prepared) => prepared,
                Err(reason) => {
                    let error = format!("nothing was sent: {reason}");
                    return Answer::Failed { error, class: FailureClass::Permanent };
                }
            };
            let shown = ready.shown.clone();
            let by_status = wanted.by_status(&self.output);
            match self.asking.send(ready.into_request(), by_status, timeout).await {
                Asked::Answered(reply) => {
                    host.line(&format!("{shown}: {}", said(&reply)));
                    judge(&reply, &wanted, &self.not_applied_on, &self.output, self.strict)
                }
                Asked::Lost { reason, sent } => {
                    host.line(&format!("{shown}: {reason}"));
                    let class = if sent { FailureClass::Unknown } else { FailureClass::Transient };
                    Answer::Failed { error: reason, class }
                }
            }
        })
    }

    fn confirm<'a>(&'a self, call: &'a Call, timeout: Duration, log: &'a dyn Log) -> BoxFuture<'a, Found> {
        Box::pin(async move {
            match &self.confirm {
                Some(confirm) => confirm.ask(call, timeout, log).await.unwrap_or_else(|found| found),
                None => {
                    let reason = "it has no request that could tell".to_owned();
                    Found::StillUnknown { reason, retry_after: None }
                }
            }
        })
    }

    fn plan<'a>(
        &'a self,
        call: &'a Call,
        _timeout: Duration,
        _host: &'a dyn Host,
    ) -> BoxFuture<'a, Result<Option<String>, String>> {
        Box::pin(std::future::ready(self.prepare(call).map(|(ready, _)| Some(ready.shown))))
    }

    fn can_confirm(&self) -> bool {
        self.confirm.is_some()
    }
}

impl fmt::Debug for HttpStep {
    // Not derived: headers and bodies may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpStep").finish_non_exhaustive()
    }
}
