//! What did a pipeline say? The part of the document below `pipelines`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use lidless_core::pipeline::plan::{Approve, Class};
use lidless_core::spec::Action;
use lidless_core::trigger::{CatchUp, IncidentMoment, RunEnd};
use lidless_drivers::step::http::BodySettings;
use lidless_drivers::step::when::When;

use super::super::node::{Place, Sp};
use super::super::secret::SecretSource;
use super::{Given, Named, Text};

/// One pipeline.
#[derive(Clone, Debug, Default)]
pub struct Pipeline {
    /// For people.
    pub title: Option<String>,
    /// In order.
    pub steps: Vec<Named<Step>>,
    /// One run at a time with this lock.
    pub lock: Option<Sp<String>>,
    /// From a run's creation.
    pub deadline: Option<Duration>,
    /// Runs under way at once.
    pub concurrency: Option<Sp<u32>>,
    /// From one run to the next.
    pub every: Option<Duration>,
    /// A calendar.
    pub cron: Option<Cron>,
    /// Incidents.
    pub on_incident: Option<OnIncident>,
    /// Another pipeline's end.
    pub after: Option<AfterRun>,
    /// Who knows this may ask for a run over HTTP.
    pub hook: Option<Sp<SecretSource>>,
}

/// `cron`.
#[derive(Clone, Debug)]
pub struct Cron {
    /// Where the expression stands, and what it is.
    pub at: Sp<String>,
    /// By which clock.
    pub zone: Option<String>,
    /// Moments that were missed.
    pub catch_up: CatchUp,
}

/// `on_incident`.
#[derive(Clone, Debug)]
pub struct OnIncident {
    /// Names of services, at least one.
    pub services: Vec<Sp<String>>,
    /// At which moment.
    pub when: IncidentMoment,
}

/// `after` of a pipeline.
#[derive(Clone, Debug)]
pub struct AfterRun {
    /// The other one.
    pub pipeline: Sp<String>,
    /// Which ends count.
    pub when: RunEnd,
}

/// One step, or what takes one back.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// What it does.
    pub work: Given<Work>,
    /// Names of steps above; absent is the one right above.
    pub after: Given<Vec<Sp<String>>>,
    /// Where this does not hold it is skipped; as written, and understood.
    pub when: Option<Sp<(String, When)>>,
    /// A person's yes.
    pub approve: Option<Approve>,
    /// How many attempts in all.
    pub attempts: Option<Sp<u32>>,
    /// First and longest wait.
    pub backoff: Option<(Duration, Duration)>,
    /// From the first attempt to the last.
    pub within: Option<Duration>,
    /// The longest that an attempt may take.
    pub timeout: Option<Duration>,
    /// Who is asked whether it took effect.
    pub confirm: Given<Confirm>,
    /// What a lost answer allows.
    pub class: Given<Sp<Class>>,
    /// Where it says that it moves value.
    pub value: Option<Place>,
    /// What takes it back; the place is that of the key.
    pub undo: Option<Sp<Box<Step>>>,
    /// Where it says that there is no way back behind it.
    pub pivot: Option<Place>,
}

/// What a step does.
#[derive(Clone, Debug)]
pub enum Work {
    /// Goes on only if these services are well; at least one.
    Require(Vec<Sp<String>>),
    /// Nothing: a person's yes is all.
    Nothing,
    /// Lets time go by.
    Wait(Duration),
    /// Acts on a service.
    Service(Action, Sp<String>),
    /// Does the steps of another pipeline.
    Pipeline(Sp<String>),
    /// Runs a command.
    Exec(StepExec),
    /// Sends a request.
    Http(Box<StepHttp>),
    /// Asks a plugin.
    Plugin(StepPlugin),
}

/// `call.exec`.
#[derive(Clone, Debug)]
pub struct StepExec {
    /// Program and arguments.
    pub command: Vec<Sp<String>>,
    /// Working directory.
    pub dir: Option<Sp<String>>,
    /// Environment.
    pub env: Vec<(String, Text)>,
    /// A line at least so often.
    pub heartbeat: Option<Duration>,
    /// Whether it has handles kept.
    pub handles: bool,
    /// Whether it may be a unit of systemd's.
    pub may_be_unit: bool,
}

/// `call.plugin`.
#[derive(Clone, Debug)]
pub struct StepPlugin {
    /// Which one.
    pub name: Sp<String>,
    /// Of what it offers.
    pub kind: String,
    /// Whatever it wants to know.
    pub settings: serde_json::Value,
}

/// `call.http`.
#[derive(Clone, Debug)]
pub struct StepHttp {
    /// What is sent.
    pub request: Request,
    /// The header with the key; an inner none is `off`.
    pub key_header: Option<Option<String>>,
    /// What says "done".
    pub expect: Option<Expectation>,
    /// Statuses that say "nothing done".
    pub not_applied_on: Vec<u16>,
    /// What later steps may use.
    pub output: Option<Vec<(String, String)>>,
    /// Whether certificates are verified.
    pub tls_verify: Option<bool>,
    /// Trusted certificates.
    pub ca_file: Option<Sp<String>>,
}

/// One request of a step.
#[derive(Clone, Debug)]
pub struct Request {
    /// The URL, checked as far as it has no placeholders.
    pub url: String,
    /// The method.
    pub method: Option<String>,
    /// The headers.
    pub headers: Vec<(String, Text)>,
    /// The body.
    pub body: Option<BodySettings>,
    /// Where its parts stand, by the names that the driver has for them: `url`, `headers`, `body`.
    pub places: BTreeMap<&'static str, Place>,
}

/// `expect`, `applied` or `not_applied`.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The statuses.
    pub status: Option<Vec<RangeInclusive<u16>>>,
    /// What the body must contain.
    pub contains: Option<String>,
}

/// `confirm`.
#[derive(Clone, Debug)]
pub struct Confirm {
    /// Where the key stands.
    pub at: Place,
    /// How it is asked.
    pub by: ConfirmBy,
    /// How often it is asked.
    pub tries: Option<u32>,
}

/// How it is found out whether a step took effect.
#[derive(Clone, Debug)]
pub enum ConfirmBy {
    /// Program and arguments.
    Exec(Vec<Sp<String>>),
    /// A request.
    Http(Box<ConfirmHttp>),
}

/// `confirm.http`.
#[derive(Clone, Debug)]
pub struct ConfirmHttp {
    /// What is sent.
    pub request: Request,
    /// What says that it did.
    pub applied: Option<Expectation>,
    /// What says that it did not.
    pub not_applied: Option<Expectation>,
    /// What later steps may use.
    pub output: Option<Vec<(String, String)>>,
}
