//! What are the steps of a run, in which order may they begin, and what may be done with each?

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{RunId, ServiceId};
use crate::spec::{Action, Backoff, ServiceSpec};
use crate::time::{micros, micros_opt};

/// Everything that a run has pinned: a new configuration changes no run under way.
///
/// Steps stand in an order in which they could run one by one; each names those that it comes after. Steps that take others
/// back (`undoes`) stand behind them all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// The definition's hash, as text; empty for what is not of the configuration.
    pub definition: String,
    /// One run at a time across every plan with this lock.
    pub lock: Option<String>,
    /// From the run's creation: no step begins later.
    pub deadline: Option<Duration>,
    steps: Vec<StepSpec>,
    /// By step: those that come right after it. Derived.
    next: Vec<Vec<u32>>,
    /// By step: the one that takes it back. Derived.
    undone_by: Vec<Option<u32>>,
    /// Those that come after none. Derived.
    first: Vec<u32>,
    /// How many steps go forward. Derived.
    forward: u32,
}

/// A plan as it is written down.
#[derive(Serialize, Deserialize)]
struct Written<S> {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    definition: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lock: Option<String>,
    #[serde(default, rename = "deadline_us", with = "micros_opt", skip_serializing_if = "Option::is_none")]
    deadline: Option<Duration>,
    steps: S,
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (definition, lock) = (self.definition.clone(), self.lock.clone());
        Written { definition, lock, deadline: self.deadline, steps: &self.steps }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Plan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Plan, D::Error> {
        let written = Written::<Vec<StepSpec>>::deserialize(deserializer)?;
        let plan = Plan::new(written.steps).map_err(serde::de::Error::custom)?;
        Ok(Plan { definition: written.definition, lock: written.lock, deadline: written.deadline, ..plan })
    }
}

impl Plan {
    /// Makes a plan of steps. An `Err` names the rule that they break: a step comes after, or takes back, earlier ones only.
    pub fn new(steps: Vec<StepSpec>) -> Result<Plan, &'static str> {
        let mut plan = Plan {
            next: vec![Vec::new(); steps.len()],
            undone_by: vec![None; steps.len()],
            ..Plan::default()
        };
        for (index, step) in (0_u32..).zip(&steps) {
            let earlier = |other: &u32| *other < index && steps[*other as usize].undoes.is_none();
            if !step.after.iter().all(earlier) {
                return Err("a step comes after one that does not stand above it");
            }
            match step.undoes {
                Some(other) if !earlier(&other) => {
                    return Err("a step takes back one that does not stand above it");
                }
                Some(_) if !matches!(step.call, StepCall::External { .. }) => {
                    return Err("what takes a step back is called outside");
                }
                Some(_) if step.class == Class::Pure => {
                    return Err("what takes a step back changes something: it is not pure");
                }
                Some(_) if step.when.is_some() || step.approve.is_some() => {
                    return Err("what takes a step back waits for no condition and for nobody");
                }
                Some(other) => plan.undone_by[other as usize] = Some(index),
                None => {
                    plan.forward += 1;
                    if step.after.is_empty() {
                        plan.first.push(index);
                    }
                    for other in &step.after {
                        plan.next[*other as usize].push(index);
                    }
                }
            }
        }
        plan.steps = steps;
        Ok(plan)
    }

    /// Makes a plan of steps that run one by one, whatever they say they come after.
    pub fn in_a_row(mut steps: Vec<StepSpec>) -> Plan {
        for (index, step) in (0_u32..).zip(&mut steps) {
            (step.after, step.undoes) = (index.checked_sub(1).into_iter().collect(), None);
        }
        Plan::new(steps).unwrap_or_default()
    }

    /// All steps: those that go forward, then those that take them back.
    pub fn steps(&self) -> &[StepSpec] {
        &self.steps
    }

    /// Those that go forward.
    pub fn forward(&self) -> &[StepSpec] {
        &self.steps[..self.forward as usize]
    }

    /// Returns a step.
    pub fn step(&self, index: u32) -> Option<&StepSpec> {
        self.steps.get(index as usize)
    }

    /// The steps that come right after one.
    pub fn next(&self, index: u32) -> &[u32] {
        self.next.get(index as usize).map_or(&[], Vec::as_slice)
    }

    /// The step that takes one back, if there is one.
    pub fn undone_by(&self, index: u32) -> Option<u32> {
        *self.undone_by.get(index as usize)?
    }

    /// The steps that come after none.
    pub(crate) fn first(&self) -> &[u32] {
        &self.first
    }

    /// Whether a step, once applied, leaves no way back: it says so, or it moves value that nothing brings back.
    pub(crate) fn is_pivot(&self, index: u32) -> bool {
        self.step(index).is_some_and(|step| step.pivot || (step.value && self.undone_by(index).is_none()))
    }
}

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
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub value: bool,
    /// Once it is applied there is no way back: the run goes forward from there, or waits for a person.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pivot: bool,
    /// The steps that must be over before it begins; none: it begins at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<u32>,
    /// The step that it takes back. It then begins only when the run is undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<u32>,
    /// It is skipped where this expression over inputs and outputs does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Arc<str>>,
    /// It begins only with a person's yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approve: Option<Approve>,
    /// Attempts in all, at least 1; more than one only after a proven "no effect".
    pub attempts_max: u32,
    /// The wait between attempts.
    pub backoff: Backoff,
    /// The deadline of one attempt.
    #[serde(rename = "timeout_us", with = "micros")]
    pub timeout: Duration,
    /// From its first attempt: no further one begins later.
    #[serde(default, rename = "within_us", with = "micros_opt", skip_serializing_if = "Option::is_none")]
    pub within: Option<Duration>,
    /// How often doubt is put to the world before a person is asked.
    pub confirms_max: u32,
    /// An attempt may outlive lidless: one in doubt is asked for its own answer once, before the class decides.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adoptable: bool,
}

impl Default for StepSpec {
    fn default() -> StepSpec {
        StepSpec {
            name: String::new(),
            call: StepCall::Nothing,
            class: Class::Idempotent,
            value: false,
            pivot: false,
            after: Vec::new(),
            undoes: None,
            when: None,
            approve: None,
            attempts_max: 1,
            backoff: Backoff { min: Duration::ZERO, max: Duration::ZERO },
            timeout: Duration::from_secs(60),
            within: None,
            confirms_max: 3,
            adoptable: false,
        }
    }
}

/// A person's yes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Approve {
    /// It counts only if it comes within this time.
    #[serde(rename = "within_us", with = "micros")]
    pub within: Duration,
    /// What the person is asked, besides the step's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ask: String,
}

/// What a step does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum StepCall {
    /// Nothing: it is there for its `approve`, or for what comes after it.
    Nothing,
    /// Let time go by.
    Wait {
        /// How much.
        #[serde(rename = "time_us", with = "micros")]
        time: Duration,
    },
    /// Ask the service's actuator for an act.
    Act {
        /// Whose actuator.
        service: ServiceId,
        /// Which act.
        action: Action,
    },
    /// Act on a service as a run of its own: within its budget, alone on its actuator, and verified by its checks.
    Service {
        /// Its name.
        service: String,
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
    /// A step of a pipeline's run acts on a service.
    Step {
        /// Which service.
        service: ServiceId,
        /// Whose step.
        of: RunId,
        /// Which step.
        step: u32,
    },
}

impl Purpose {
    /// The pipeline that it runs, if it is one of the configuration's.
    pub fn pipeline(&self) -> Option<&str> {
        match self {
            Purpose::Pipeline { name, .. } => Some(name),
            Purpose::BringUp { .. }
            | Purpose::Heal { .. }
            | Purpose::Manual { .. }
            | Purpose::Step { .. } => None,
        }
    }

    /// The service whose actuator the run holds, if it is about one.
    pub fn service(&self) -> Option<ServiceId> {
        match self {
            Purpose::BringUp { service }
            | Purpose::Heal { service, .. }
            | Purpose::Manual { service, .. }
            | Purpose::Step { service, .. } => Some(*service),
            Purpose::Pipeline { .. } => None,
        }
    }
}

/// Returns the plan `ACTION → VERIFY` for a service: healing is a pipeline like any other.
pub fn act_and_verify(id: ServiceId, service: &ServiceSpec, action: Action) -> Plan {
    let act = StepSpec {
        name: action.word().to_uppercase(),
        call: StepCall::Act { service: id, action },
        // A start adopts what already runs, so doing it again is harmless; a restart would do double harm.
        class: if action == Action::Start { Class::Idempotent } else { Class::Confirmable },
        timeout: service.act_timeout,
        ..StepSpec::default()
    };
    let verify = StepSpec {
        name: "VERIFY".to_owned(),
        call: StepCall::Verify { service: id, settle: service.verify.settle, stay: service.verify.stay },
        class: Class::Pure,
        timeout: service.verify.settle + service.verify.within + service.verify.stay,
        confirms_max: 0,
        ..StepSpec::default()
    };
    Plan::in_a_row(if service.checks.is_empty() { vec![act] } else { vec![act, verify] })
}
