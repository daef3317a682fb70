//! What did the files say, once types are clear? Everything optional stays optional here: defaults may lie in another file.

mod pipeline;

use std::ops::RangeInclusive;
use std::time::Duration;

use super::node::{Place, Sp};
use super::secret::SecretSource;
use super::units::Signal;
pub use pipeline::*;

/// A part that may be absent, or be there and unusable (and then its problem is already reported).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Given<T> {
    /// Not in the file.
    #[default]
    Absent,
    /// In the file, but wrong: say nothing further about it.
    Broken,
    /// As it should be.
    Good(T),
}

impl<T> Given<T> {
    /// Returns the part if it is usable.
    pub fn good(&self) -> Option<&T> {
        match self {
            Given::Good(value) => Some(value),
            Given::Absent | Given::Broken => None,
        }
    }
}

/// All files together.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// The format's version.
    pub version: Option<Sp<u32>>,
    /// The installation's name.
    pub site: Option<Sp<String>>,
    /// Patterns of further files.
    pub include: Vec<Sp<String>>,
    /// `store`; the place is that of the key.
    pub store: Option<Sp<Store>>,
    /// `web`; `None` inside is `off`.
    pub web: Option<Sp<Option<Web>>>,
    /// `limits`.
    pub limits: Option<Sp<Option<Budget>>>,
    /// `defaults`.
    pub defaults: Option<Sp<Timing>>,
    /// By name.
    pub notify: Vec<Named<Given<Vec<Sp<String>>>>>,
    /// By name.
    pub services: Vec<Named<Service>>,
    /// By name.
    pub pipelines: Vec<Named<Pipeline>>,
}

/// Something that has a name.
#[derive(Clone, Debug)]
pub struct Named<T> {
    /// The name and where it stands.
    pub name: Sp<String>,
    /// What it names.
    pub value: T,
}

/// `store`.
#[derive(Clone, Debug, Default)]
pub struct Store {
    /// The database file.
    pub path: Option<Sp<String>>,
}

/// `web`.
#[derive(Clone, Debug, Default)]
pub struct Web {
    /// The address.
    pub listen: Option<Sp<std::net::SocketAddr>>,
}

/// `attempts` in `per`.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// How many.
    pub attempts: u32,
    /// In a window of this length.
    pub per: Duration,
}

/// What is common to all checks.
#[derive(Clone, Debug, Default)]
pub struct Timing {
    /// The interval.
    pub every: Option<Duration>,
    /// The deadline.
    pub timeout: Option<Duration>,
    /// Failures until down.
    pub fail_after: Option<u32>,
    /// Passes until up.
    pub recover_after: Option<u32>,
    /// The interval while health is in question.
    pub confirm_every: Option<Duration>,
}

/// One service.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// For people.
    pub title: Option<String>,
    /// What runs it.
    pub run: Given<Run>,
    /// Names of services.
    pub depends_on: Vec<Sp<String>>,
    /// By name.
    pub checks: Vec<Named<Check>>,
    /// How it is healed.
    pub heal: Given<Heal>,
}

/// What runs a service.
#[derive(Clone, Debug)]
pub enum Run {
    /// A process of ours.
    Process(Box<Process>),
    /// A unit.
    Systemd(Sp<String>),
    /// Commands.
    Exec(RunExec),
}

/// `run.process`.
#[derive(Clone, Debug)]
pub struct Process {
    /// Program and arguments.
    pub command: Vec<Sp<String>>,
    /// Working directory.
    pub dir: Option<Sp<String>>,
    /// User.
    pub user: Option<String>,
    /// Environment.
    pub env: Vec<(String, Text)>,
    /// Where output goes.
    pub log: Option<Sp<String>>,
    /// The first signal.
    pub stop_signal: Option<Signal>,
    /// Until then.
    pub stop_within: Option<Duration>,
    /// Then killed?
    pub stop_kill: Option<bool>,
    /// The pause between two instances.
    pub dead_for: Option<Duration>,
    /// For a reload.
    pub reload_signal: Option<Signal>,
}

/// `run.exec`.
#[derive(Clone, Debug)]
pub struct RunExec {
    /// Restarts it.
    pub restart: Vec<Sp<String>>,
    /// Reloads it.
    pub reload: Option<Vec<Sp<String>>>,
    /// The longest that either may take.
    pub timeout: Option<Duration>,
}

/// A text, perhaps a secret one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Text {
    /// As written in the file.
    Plain(String),
    /// From elsewhere; not read yet.
    Secret(Sp<SecretSource>),
}

/// One check.
#[derive(Clone, Debug)]
pub struct Check {
    /// What is asked.
    pub kind: Given<Kind>,
    /// How often and how patiently.
    pub timing: Timing,
}

/// What a check asks.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Over HTTP.
    Http(Box<Http>),
    /// A port.
    Tcp(String),
    /// A command.
    Exec(CheckExec),
    /// Our process; the place is that of the key.
    Process(Place),
    /// A unit; none means that of `run`, and the place is that of the key.
    Systemd(Option<Sp<String>>, Place),
}

/// `http`.
#[derive(Clone, Debug)]
pub struct Http {
    /// The URL, checked.
    pub url: String,
    /// The method.
    pub method: Option<String>,
    /// The headers.
    pub headers: Vec<(String, Text)>,
    /// The body.
    pub body: Option<String>,
    /// Statuses that pass.
    pub status: Option<Vec<RangeInclusive<u16>>>,
    /// What the body must contain.
    pub contains: Option<String>,
    /// Whether certificates are verified.
    pub tls_verify: Option<bool>,
    /// Trusted certificates.
    pub ca_file: Option<Sp<String>>,
    /// How much is read.
    pub max_body: Option<u64>,
}

/// `exec` of a check.
#[derive(Clone, Debug)]
pub struct CheckExec {
    /// Program and arguments.
    pub command: Vec<Sp<String>>,
    /// Whether exit code 1 passes.
    pub warning_passes: bool,
    /// Environment.
    pub env: Vec<(String, Text)>,
    /// Working directory.
    pub dir: Option<Sp<String>>,
}

/// `heal`.
#[derive(Clone, Debug)]
pub enum Heal {
    /// Not at all.
    Off,
    /// With limits.
    On(Box<HealOn>),
}

/// `heal` with an action.
#[derive(Clone, Debug)]
pub struct HealOn {
    /// Reload rather than restart?
    pub reload: bool,
    /// Where the action's key stands.
    pub at: Place,
    /// How many.
    pub attempts: Option<u32>,
    /// In what window.
    pub per: Option<Duration>,
    /// First and longest wait.
    pub backoff: Option<(Duration, Duration)>,
    /// The slow retry.
    pub retry_after: Option<Duration>,
    /// Exit codes that forbid a restart, and where they stand.
    pub never_on_exit: Option<Sp<Vec<i32>>>,
    /// How long answers are ignored after the act.
    pub settle: Option<Duration>,
    /// How long the checks must go on passing.
    pub stay: Option<Duration>,
    /// How long the checks have to pass.
    pub within: Option<Duration>,
}
