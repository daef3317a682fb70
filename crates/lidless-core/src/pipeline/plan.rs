//! What are the steps of a run, and what may be done with each?

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::ServiceId;
use crate::spec::{Action, Backoff, ServiceSpec};
use crate::time::micros;

/// One named step, as pinned in the run that executes it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StepSpec {
    /// Unique within the pipeline; what a failure names.
    pub name: String,
    /// What it does.
    pub call: StepCall,
    /// What may be done when nobody knows whether it took effect.
    pub class: Class,
    /// Whether it moves value: then it waits while the journal cannot be trusted.
    #[serde(default)]
    pub value: bool,
    /// Attempts in all, at least 1; more than one only after a proven "no effect".
    pub attempts_max: u32,
    /// The wait between attempts.
    pub backoff: Backoff,
    /// The deadline of one attempt.
    #[serde(rename = "timeout_us", with = "micros")]
    pub timeout: Duration,
    /// How often doubt is put to the world before a person is asked.
    pub confirms_max: u32,
}

/// What a step does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum StepCall {
    /// Ask the service's actuator for an act.
    Act {
        /// Whose actuator.
        service: ServiceId,
        /// Which act.
        action: Action,
    },
    /// Wait until fresh answers of all the service's checks say that it is well.
    Verify {
        /// Whose checks.
        service: ServiceId,
        /// Answers to probes begun earlier than this after the act don't count.
        #[serde(rename = "settle_us", with = "micros")]
        settle: Duration,
        /// Once it is well it must stay so for this long.
        #[serde(default, rename = "stay_us", with = "micros")]
        stay: Duration,
    },
    /// Go on only if all of these services are well. Answered by the engine itself.
    Require {
        /// Their names.
        healthy: Vec<String>,
    },
    /// Call a step implementation outside the engine.
    External {
        /// The word of its kind: "exec".
        kind: String,
        /// Its settings as JSON, without secrets. Pinned with the run, so that a new configuration changes no run under way.
        settings: Arc<str>,
    },
}

/// What a lost answer allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// No effect outside: do it again.
    Pure,
    /// The outside recognises the key: do it again with the same key.
    Idempotent,
    /// The outside can be asked: confirm first.
    Confirmable,
    /// Nobody can tell: a person decides.
    OneShot,
}

/// Why a run exists.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "snake_case")]
pub enum Purpose {
    /// A process that lidless runs is brought up, or adopted.
    BringUp {
        /// Which service.
        service: ServiceId,
    },
    /// An incident is healed.
    Heal {
        /// Which service.
        service: ServiceId,
        /// The incident that the heal is keyed to.
        incident: crate::id::IncidentId,
    },
    /// A person asked for it: a manual intervention.
    Manual {
        /// Which service.
        service: ServiceId,
        /// Who.
        by: String,
    },
    /// A pipeline of the configuration.
    Pipeline {
        /// Its name.
        name: String,
        /// Who or what asked for it.
        by: String,
    },
}

impl Purpose {
    /// The pipeline that it runs, if it is one of the configuration's.
    pub fn pipeline(&self) -> Option<&str> {
        match self {
            Purpose::Pipeline { name, .. } => Some(name),
            Purpose::BringUp { .. } | Purpose::Heal { .. } | Purpose::Manual { .. } => None,
        }
    }

    /// The service whose actuator the run holds, if it is about one.
    pub fn service(&self) -> Option<ServiceId> {
        match self {
            Purpose::BringUp { service }
            | Purpose::Heal { service, .. }
            | Purpose::Manual { service, .. } => Some(*service),
            Purpose::Pipeline { .. } => None,
        }
    }
}

/// Returns the plan `ACTION → VERIFY` for a service: healing is a pipeline like any other.
pub fn act_and_verify(id: ServiceId, service: &ServiceSpec, action: Action) -> Vec<StepSpec> {
    let no_wait = Backoff { min: Duration::ZERO, max: Duration::ZERO };
    let act = StepSpec {
        name: action.word().to_uppercase(),
        call: StepCall::Act { service: id, action },
        // A start adopts what already runs, so doing it again is harmless; a restart would do double harm.
        class: if action == Action::Start { Class::Idempotent } else { Class::Confirmable },
        value: false,
        attempts_max: 1,
        backoff: no_wait,
        timeout: service.act_timeout,
        confirms_max: 3,
    };
    let verify = StepSpec {
        name: "VERIFY".to_owned(),
        call: StepCall::Verify { service: id, settle: service.verify.settle, stay: service.verify.stay },
        class: Class::Pure,
        value: false,
        attempts_max: 1,
        backoff: no_wait,
        timeout: service.verify.settle + service.verify.within + service.verify.stay,
        confirms_max: 0,
    };
    if service.checks.is_empty() { vec![act] } else { vec![act, verify] }
}
