//! What do the drivers need to know? Plain settings, one arm a kind, for the runtime to hand on.
//!
//! Unlike the core's `Spec`, these may hold secrets and are never journalled; only those of steps are, and hold none.
//! `==` tells a reload what changed.

mod plugin;
mod steps;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use lidless_core::spec::Spec;

use super::secret::Secret;
use super::units::Signal;
pub use plugin::*;
pub use steps::*;

/// The whole configuration, every default filled in.
#[derive(Clone, PartialEq, Debug)]
pub struct Resolved {
    /// For the engine.
    pub spec: Spec,
    /// For the drivers, in the order of `spec.services`.
    pub services: Vec<ServiceSettings>,
    /// What people call the pipelines, in the order of `spec.pipelines`.
    pub pipelines: Vec<PipelineSettings>,
    /// The database file.
    pub store_path: PathBuf,
    /// Where /metrics and /healthz are served; `None` is off.
    pub web: Option<SocketAddr>,
    /// Who is told.
    pub notify: Vec<NotifySettings>,
}

/// One service's drivers.
#[derive(Clone, PartialEq, Debug)]
pub struct ServiceSettings {
    /// As in the spec.
    pub name: String,
    /// A longer name, for people.
    pub title: Option<String>,
    /// What runs it.
    pub run: Option<RunKind>,
    /// In the order of the spec's checks.
    pub checks: Vec<CheckSettings>,
}

/// One check's driver.
#[derive(Clone, PartialEq, Debug)]
pub struct CheckSettings {
    /// As in the spec.
    pub name: String,
    /// What is asked.
    pub kind: CheckKind,
}

/// What a check asks.
#[derive(Clone, PartialEq, Debug)]
pub enum CheckKind {
    /// Over HTTP.
    Http(Box<HttpCheckSettings>),
    /// Connects to HOST:PORT.
    Tcp(TcpCheckSettings),
    /// Runs a command.
    Exec(ExecCheckSettings),
    /// Looks whether the service's own process lives.
    Process,
    /// Looks whether a unit is active.
    Systemd(SystemdCheckSettings),
}

/// An HTTP request and what a good answer is.
#[derive(Clone, PartialEq, Debug)]
pub struct HttpCheckSettings {
    /// http or https, without user and password.
    pub url: String,
    /// `GET` and so on.
    pub method: String,
    /// Names and values, in order.
    pub headers: Vec<(String, Value)>,
    /// What is sent.
    pub body: Option<String>,
    /// The statuses that pass, at least one range.
    pub status: Vec<RangeInclusive<u16>>,
    /// What the body must contain.
    pub contains: Option<String>,
    /// Whether certificates are verified.
    pub tls_verify: bool,
    /// Trusted certificates, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// How many bytes of the answer are read.
    pub max_body: u64,
}

/// A port.
#[derive(Clone, PartialEq, Debug)]
pub struct TcpCheckSettings {
    /// `HOST:PORT` or `[IPv6]:PORT`.
    pub address: String,
}

/// A command whose exit code is the answer.
#[derive(Clone, PartialEq, Debug)]
pub struct ExecCheckSettings {
    /// Program and arguments, never empty.
    pub command: Vec<String>,
    /// Whether exit code 1 passes.
    pub warning_passes: bool,
    /// Beside lidless's own environment.
    pub env: Vec<(String, Value)>,
    /// The working directory.
    pub dir: PathBuf,
}

/// A unit to look at.
#[derive(Clone, PartialEq, Debug)]
pub struct SystemdCheckSettings {
    /// With its suffix: `api.service`.
    pub unit: String,
}

/// What runs a service.
#[derive(Clone, PartialEq, Debug)]
pub enum RunKind {
    /// A process of ours.
    Process(Box<ProcessSettings>),
    /// A unit.
    Systemd(SystemdSettings),
    /// Commands.
    Exec(ExecSettings),
}

/// A process that lidless runs itself.
#[derive(Clone, PartialEq, Debug)]
pub struct ProcessSettings {
    /// Program and arguments, never empty.
    pub command: Vec<String>,
    /// The working directory.
    pub dir: PathBuf,
    /// The user to run as; `None` is our own.
    pub user: Option<String>,
    /// Beside lidless's own environment.
    pub env: Vec<(String, Value)>,
    /// Where its output is appended.
    pub log: PathBuf,
    /// How it is stopped.
    pub stop: StopSettings,
    /// How long it must be gone before a new one starts.
    pub dead_for: Duration,
    /// What makes it read its configuration anew.
    pub reload_signal: Signal,
}

/// How a process is stopped.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StopSettings {
    /// Sent first.
    pub signal: Signal,
    /// How long it may take.
    pub within: Duration,
    /// Whether it is killed after that.
    pub kill: bool,
}

/// A unit to act on.
#[derive(Clone, PartialEq, Debug)]
pub struct SystemdSettings {
    /// With its suffix: `api.service`.
    pub unit: String,
}

/// Commands that act.
#[derive(Clone, PartialEq, Debug)]
pub struct ExecSettings {
    /// Program and arguments, never empty.
    pub restart: Vec<String>,
    /// Program and arguments, never empty; `None` if it cannot be reloaded.
    pub reload: Option<Vec<String>>,
    /// The longest that either may take.
    pub timeout: Duration,
    /// The working directory: that of the configuration file.
    pub dir: PathBuf,
}

/// What the engine does not need to know of a pipeline.
#[derive(Clone, PartialEq, Debug)]
pub struct PipelineSettings {
    /// As in the spec.
    pub name: String,
    /// A longer name, for people.
    pub title: Option<String>,
    /// Who may ask for a run over HTTP, if anybody may.
    pub hook: Option<HookSettings>,
}

/// By what requests for a run are known to come from somebody who may ask.
#[derive(Clone, PartialEq, Debug)]
pub struct HookSettings {
    /// What they are signed with.
    pub secret: Secret,
}

/// Someone who is told.
#[derive(Clone, PartialEq, Debug)]
pub struct NotifySettings {
    /// Its name.
    pub name: String,
    /// Program and arguments, never empty; gets JSON on its standard input.
    pub exec: Vec<String>,
    /// The working directory: that of the configuration file.
    pub dir: PathBuf,
}

/// A text, perhaps a secret one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// May be shown.
    Plain(String),
    /// Must not be shown.
    Secret(Secret),
}

impl Value {
    /// Returns the text, for the one who sends it. Never log it.
    pub fn expose(&self) -> &str {
        match self {
            Value::Plain(text) => text,
            Value::Secret(secret) => secret.expose(),
        }
    }
}
