//! What may a user say about a step over HTTP?

use std::fmt;

use super::body::BodySettings;
use super::template::Misread;
use crate::check::http::{HttpSettingsError, StatusWanted, TlsSettings};

/// The header that carries the key, unless the settings say otherwise.
const KEY_HEADER: &str = "Idempotency-Key";

/// What a step over HTTP sends, and how its answer is read.
///
/// `Debug` shows no header, no body and no URL: any of them may hold a secret.
#[derive(Clone, PartialEq)]
pub struct HttpStepSettings {
    /// Does it.
    pub request: HttpRequestSettings,
    /// The header that carries the idempotency key; `None`: it is not sent by itself.
    pub key_header: Option<String>,
    /// What an answer looks like that says "done".
    pub expect: Expect,
    /// Statuses by which this server says that it did nothing: `[409, 422, 429]`. Whoever lists one knows that.
    pub not_applied_on: Vec<u16>,
    /// What later steps may use of the answer.
    pub output: OutputSettings,
    /// Says whether an attempt took effect.
    pub confirm: Option<HttpConfirmSettings>,
    /// Whether the step must not be done twice (it is confirmable or one-shot): an error may have come after the effect.
    pub strict: bool,
    /// How certificates are judged.
    pub tls: TlsSettings,
}

/// What is asked to find out whether an attempt took effect.
#[derive(Clone, PartialEq)]
pub struct HttpConfirmSettings {
    /// The question. It must change nothing.
    pub request: HttpRequestSettings,
    /// What an answer looks like that says "it did".
    pub applied: Option<Expect>,
    /// What an answer looks like that says "it did not, and never will".
    ///
    /// With neither, the body must be what a `confirm` command answers: `{"applied": true, "evidence": "..."}`.
    pub not_applied: Option<Expect>,
    /// What later steps may use of an answer that says "it did".
    pub output: OutputSettings,
}

/// One request. The URL, its headers and its body are templates: `{{ inputs.amount }}`.
#[derive(Clone, PartialEq)]
pub struct HttpRequestSettings {
    /// The method.
    pub method: String,
    /// `http://` or `https://`. Values in it are percent-encoded; none may stand before the path.
    pub url: String,
    /// More headers. One named as one of ours replaces it.
    pub headers: Vec<(String, HeaderSource)>,
    /// What it carries.
    pub body: Option<BodySettings>,
}

/// Where a header's value comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum HeaderSource {
    /// A template.
    Template(String),
    /// A secret: sent as it is, and never shown, also where the server sends it back.
    Secret(String),
}

/// What an answer must look like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expect {
    /// Its status: 200 to 299.
    pub status: StatusWanted,
    /// A text that its body must contain: a template.
    pub contains: Option<String>,
}

impl Default for Expect {
    fn default() -> Self {
        Expect { status: StatusWanted::Within(vec![200..=299]), contains: None }
    }
}

/// What later steps may use of an answer.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum OutputSettings {
    /// The body: an object as it is; of anything else the first line, as `text`.
    #[default]
    Body,
    /// So many fields, each with where it stands: `body.items.0.id`, `headers.location` or `status`. One that is not there is a
    /// broken answer.
    Select(Vec<(String, String)>),
}

impl HttpRequestSettings {
    /// Returns the settings of a request without headers and body.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        HttpRequestSettings { method: method.into(), url: url.into(), headers: Vec::new(), body: None }
    }
}

impl HttpStepSettings {
    /// Returns the settings of a strict `POST`.
    pub fn new(url: impl Into<String>) -> Self {
        HttpStepSettings {
            request: HttpRequestSettings::new("POST", url),
            key_header: Some(KEY_HEADER.to_owned()),
            expect: Expect::default(),
            not_applied_on: Vec::new(),
            output: OutputSettings::default(),
            confirm: None,
            strict: true,
            tls: TlsSettings::default(),
        }
    }
}

impl HttpConfirmSettings {
    /// Returns the settings of a `GET` that is answered as a `confirm` command answers.
    pub fn new(url: impl Into<String>) -> Self {
        HttpConfirmSettings {
            request: HttpRequestSettings::new("GET", url),
            applied: None,
            not_applied: None,
            output: OutputSettings::default(),
        }
    }
}

impl fmt::Debug for HttpStepSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpStepSettings")
            .field("request", &self.request)
            .field("key_header", &self.key_header)
            .field("expect", &self.expect)
            .field("not_applied_on", &self.not_applied_on)
            .field("confirm", &self.confirm)
            .field("strict", &self.strict)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for HttpConfirmSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConfirmSettings")
            .field("request", &self.request)
            .field("applied", &self.applied)
            .field("not_applied", &self.not_applied)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for HttpRequestSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequestSettings").field("method", &self.method).finish_non_exhaustive()
    }
}

impl fmt::Debug for HeaderSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeaderSource::Template(_) => "Template",
            HeaderSource::Secret(_) => "Secret",
        })
    }
}

/// Why a step over HTTP cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum HttpStepError {
    /// Something with placeholders cannot be read.
    #[error("`{place}` is no good template at byte {at}: {reason}")]
    Template {
        /// Which: `url`, `headers.X-Key`, `body.to.0`, `confirm.url`.
        place: String,
        /// At which byte of it.
        at: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A request cannot be made of it.
    #[error("`{place}` cannot be sent")]
    Request {
        /// Which: `request` or `confirm`.
        place: String,
        /// What is wrong with it.
        #[source]
        err: HttpSettingsError,
    },
    /// A way into an answer leads nowhere.
    #[error("`{place}` is `{way}`: {reason}")]
    Output {
        /// Which: `output.id`.
        place: String,
        /// What stands there.
        way: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A status is both "done" and "nothing done", or says neither.
    #[error("status {status} cannot be in `not_applied_on`: {reason}")]
    NotApplied {
        /// The status.
        status: u16,
        /// Why not.
        reason: &'static str,
    },
}

impl HttpStepError {
    pub(super) fn template(place: impl Into<String>, Misread { at, reason }: Misread) -> Self {
        HttpStepError::Template { place: place.into(), at, reason }
    }
}
