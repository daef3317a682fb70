//! What does a run keep of how its steps are called? Settings that are journalled as JSON, and hold no secret: only where one is.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use lidless_drivers::check::http::{StatusWanted, TlsSettings};
use lidless_drivers::child::CommandSpec;
use lidless_drivers::step::{exec, http};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::secret::{SecretError, SecretSource};

/// A step that runs a command.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ExecStepSettings {
    /// Program and arguments, never empty.
    pub command: Vec<String>,
    /// The working directory.
    pub dir: PathBuf,
    /// Beside lidless's own environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The same, secret: where each is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretSource>,
    /// Program and arguments, never empty: asks whether the command took effect.
    #[serde(default)]
    pub confirm: Option<Vec<String>>,
    /// It writes a line at least so often.
    #[serde(default, rename = "heartbeat_ms", skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<u64>,
    /// It has handles kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub handles: bool,
}

/// A step over HTTP.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct HttpStepSettings {
    /// What is sent.
    pub request: HttpRequestSettings,
    /// The header that carries the key; none where it is not sent by itself.
    pub key_header: Option<String>,
    /// What says "done".
    pub expect: HttpAnswerSettings,
    /// Statuses that say "nothing done".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_applied_on: Vec<u16>,
    /// What later steps may use; none is the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Vec<(String, String)>>,
    /// How it is asked whether it took effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<HttpConfirmSettings>,
    /// Whether certificates are verified.
    pub tls_verify: bool,
    /// Trusted certificates, in place of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// One request; its texts are templates.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct HttpRequestSettings {
    /// The method.
    pub method: String,
    /// The URL.
    pub url: String,
    /// Names and values, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, HeaderSettings)>,
    /// What it carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<HttpBodySettings>,
}

/// A header's value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeaderSettings {
    /// A template.
    Text(String),
    /// Where a secret is.
    Secret(SecretSource),
}

/// What a request carries.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpBodySettings {
    /// A text.
    Text(String),
    /// JSON.
    Json(Value),
    /// A form.
    Form(Vec<(String, String)>),
}

/// What an answer must look like.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HttpAnswerSettings {
    /// Ranges of statuses, each with its first and its last.
    pub status: Vec<(u16, u16)>,
    /// What the body must contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contains: Option<String>,
}

/// How it is asked over HTTP whether a step took effect.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct HttpConfirmSettings {
    /// What is sent.
    pub request: HttpRequestSettings,
    /// What says that it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<HttpAnswerSettings>,
    /// What says that it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_applied: Option<HttpAnswerSettings>,
    /// What later steps may use; none is the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Vec<(String, String)>>,
}

/// How a secret is read: when the step is called, not before.
pub type ReadSecret<'a> = &'a dyn Fn(&SecretSource) -> Result<String, SecretError>;

impl ExecStepSettings {
    /// Returns what the driver takes. `strict`: it must not be done twice.
    pub fn for_driver(
        self,
        strict: bool,
        read: ReadSecret<'_>,
    ) -> Result<exec::ExecStepSettings, SecretError> {
        let mut env = self.env;
        for (name, source) in &self.secrets {
            env.insert(name.clone(), read(source)?);
        }
        let command = |argv: Vec<String>| CommandSpec {
            argv,
            dir: Some(self.dir.clone()),
            env: env.clone(),
            ..CommandSpec::default()
        };
        Ok(exec::ExecStepSettings {
            command: command(self.command.clone()),
            confirm: self.confirm.clone().map(command),
            strict,
            heartbeat: self.heartbeat.map(Duration::from_millis),
            handles: self.handles,
        })
    }
}

impl HttpStepSettings {
    /// Returns what the driver takes. `strict`: it must not be done twice.
    pub fn for_driver(
        self,
        strict: bool,
        read: ReadSecret<'_>,
    ) -> Result<http::HttpStepSettings, SecretError> {
        let confirm = match self.confirm {
            None => None,
            Some(confirm) => Some(http::HttpConfirmSettings {
                request: confirm.request.for_driver(read)?,
                applied: confirm.applied.map(HttpAnswerSettings::for_driver),
                not_applied: confirm.not_applied.map(HttpAnswerSettings::for_driver),
                output: output(confirm.output),
            }),
        };
        Ok(http::HttpStepSettings {
            request: self.request.for_driver(read)?,
            key_header: self.key_header,
            expect: self.expect.for_driver(),
            not_applied_on: self.not_applied_on,
            output: output(self.output),
            confirm,
            strict,
            tls: TlsSettings { verify: self.tls_verify, ca_file: self.ca_file },
        })
    }
}

impl HttpRequestSettings {
    fn for_driver(self, read: ReadSecret<'_>) -> Result<http::HttpRequestSettings, SecretError> {
        let mut headers = Vec::with_capacity(self.headers.len());
        for (name, value) in self.headers {
            let value = match value {
                HeaderSettings::Text(text) => http::HeaderSource::Template(text),
                HeaderSettings::Secret(source) => http::HeaderSource::Secret(read(&source)?),
            };
            headers.push((name, value));
        }
        let body = self.body.map(|body| match body {
            HttpBodySettings::Text(text) => http::BodySettings::Text(text),
            HttpBodySettings::Json(value) => http::BodySettings::Json(value),
            HttpBodySettings::Form(fields) => http::BodySettings::Form(fields),
        });
        Ok(http::HttpRequestSettings { method: self.method, url: self.url, headers, body })
    }
}

impl HttpAnswerSettings {
    /// Makes one of ranges.
    pub fn new(status: &[RangeInclusive<u16>], contains: Option<String>) -> HttpAnswerSettings {
        let status = status.iter().map(|range| (*range.start(), *range.end())).collect();
        HttpAnswerSettings { status, contains }
    }

    fn for_driver(self) -> http::Expect {
        let ranges = self.status.into_iter().map(|(first, last)| first..=last).collect();
        http::Expect { status: StatusWanted::Within(ranges), contains: self.contains }
    }
}

fn output(fields: Option<Vec<(String, String)>>) -> http::OutputSettings {
    fields.map_or(http::OutputSettings::Body, http::OutputSettings::Select)
}
