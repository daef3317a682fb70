//! What was the engine asked to look after? The validated configuration, as far as deciding needs it.
//!
//! How a target is asked or a process started (addresses, commands, credentials) stays with the drivers; nothing here is
//! a secret, for the whole `Spec` is journalled.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::pipeline::plan::Plan;
use crate::time::micros;
use crate::trigger::Trigger;

/// Everything that one engine looks after.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Spec {
    /// The name of the installation, for people.
    pub site: String,
    /// What users depend on. Names are unique.
    pub services: Vec<ServiceSpec>,
    /// Heals of all services together; `None` is no limit.
    #[serde(default)]
    pub host_budget: Option<Budget>,
    /// Named pipelines besides the built-in heal. Names are unique.
    #[serde(default)]
    pub pipelines: Vec<PipelineSpec>,
}

/// One service.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Unique among services.
    pub name: String,
    /// Names of services that it needs: while one of them has an incident, this one's heals are held.
    #[serde(default)]
    pub depends_on: Vec<String>,
    /// What is asked of it. Names are unique within the service.
    pub checks: Vec<CheckSpec>,
    /// Whether lidless itself starts it (a process of its own), so that it is brought up at the start.
    #[serde(default)]
    pub managed: bool,
    /// Whether there is an actuator, so that a person may ask for a restart.
    #[serde(default)]
    pub restartable: bool,
    /// How long a start may take to be verified, and how long a heal may.
    pub verify: VerifySpec,
    /// What may be done when it is down; `None` only watches.
    #[serde(default)]
    pub heal: Option<HealSpec>,
    /// The longest that one act (stop and start) may take.
    #[serde(rename = "act_timeout_us", with = "micros")]
    pub act_timeout: Duration,
}

/// One check of a service.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CheckSpec {
    /// Unique within the service.
    pub name: String,
    /// The word of its kind: "http", "tcp", ...
    pub kind: String,
    /// What it asks, for people, without secrets: "http://127.0.0.1:8080/health".
    pub asks: String,
    /// From the start of one probe to the start of the next.
    #[serde(rename = "every_us", with = "micros")]
    pub every: Duration,
    /// The deadline over the whole probe.
    #[serde(rename = "timeout_us", with = "micros")]
    pub timeout: Duration,
    /// From one probe to the next while health is in question: hysteresis that costs little time.
    #[serde(rename = "confirm_every_us", with = "micros")]
    pub confirm_every: Duration,
    /// Consecutive failures until down, at least 1.
    pub fail_after: u32,
    /// Consecutive passes until up again, at least 1.
    pub recover_after: u32,
}

/// How success is judged after a start or a heal.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct VerifySpec {
    /// Answers are looked at only this long after the act.
    #[serde(rename = "settle_us", with = "micros")]
    pub settle: Duration,
    /// Once all checks pass they must go on for this long: what starts and dies was not healed.
    #[serde(default, rename = "stay_us", with = "micros")]
    pub stay: Duration,
    /// All checks must pass within this time after settling, else the heal did not work.
    #[serde(rename = "within_us", with = "micros")]
    pub within: Duration,
}

/// What may be done about a service that is down.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HealSpec {
    /// The act: restart or reload.
    pub action: Action,
    /// How many heals, for whatever cause.
    pub budget: Budget,
    /// The wait before the second heal within the budget's window, doubling from `min` to `max`.
    pub backoff: Backoff,
    /// After giving up, one more try each such time.
    #[serde(rename = "retry_after_us", with = "micros")]
    pub retry_after: Duration,
    /// Exit codes by which the service says "do not restart me".
    #[serde(default)]
    pub never_on_exit: Vec<i32>,
}

/// At most `attempts` in any window of length `per`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Budget {
    /// How many.
    pub attempts: u32,
    /// The sliding window.
    #[serde(rename = "per_us", with = "micros")]
    pub per: Duration,
}

/// Exponential backoff between two bounds, with jitter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Backoff {
    /// The first wait; zero means that the first retry is immediate.
    #[serde(rename = "min_us", with = "micros")]
    pub min: Duration,
    /// The longest wait, jitter excluded.
    #[serde(rename = "max_us", with = "micros")]
    pub max: Duration,
}

/// What an actuator can be asked to do to a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Start it if it is not running; adopt it if it is.
    Start,
    /// Prove the old instance gone, then start a new one.
    Restart,
    /// Ask the running instance to read its configuration anew.
    Reload,
}

impl Action {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Action::Start => "start",
            Action::Restart => "restart",
            Action::Reload => "reload",
        }
    }
}

/// A pipeline.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PipelineSpec {
    /// Unique among pipelines.
    pub name: String,
    /// What a run does.
    pub plan: Arc<Plan>,
    /// Runs under way at once; zero is one.
    #[serde(default)]
    pub concurrency: u32,
    /// What begins a run, besides a person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<Trigger>,
}

impl PipelineSpec {
    /// Runs under way at once.
    pub fn at_once(&self) -> usize {
        self.concurrency.max(1) as usize
    }
}
