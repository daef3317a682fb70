//! What does the engine know durably? The fold of the journal, and nothing else.
//!
//! **Invariant:** `State` changes only in `State::apply`; recovery is `apply` over the journal.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::health::Health;
use crate::id::{CheckId, IncidentId, NoticeId, RunId, Seq, ServiceId};
use crate::incident::{ClosedIncident, Incident};
use crate::outbox::Owed;
use crate::pipeline::queue::Queue;
use crate::pipeline::run::{EndedRun, Run};
use crate::spec::{CheckSpec, ServiceSpec, Spec};
use crate::time::{Now, micros};
use crate::trigger::Schedule;

/// How many closed incidents are kept at hand; the journal has them all.
pub const CLOSED_MAX: usize = 64;

/// How many runs that are over are kept at hand, and can be resumed; the journal has them all.
pub const ENDED_MAX: usize = 32;

/// So many steps they may have together, save for the last.
pub const ENDED_STEPS_MAX: usize = 4_096;

/// How many triggers are remembered.
pub const KEYS_MAX: usize = 1_024;

/// Everything that survives a crash. Written and read whole by `kept` alone.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// The last record applied.
    pub seq: Seq,
    /// When that was.
    pub at: Now,
    /// The boot in which lidless last started.
    pub boot: String,
    /// When lidless last started.
    pub started: Now,
    /// Whether it was started and has not stopped in good order.
    pub running: bool,
    /// The configuration in force.
    pub spec: Arc<Spec>,
    /// By `ServiceId`.
    pub services: Vec<ServiceState>,
    /// By `CheckId`.
    pub checks: Vec<CheckState>,
    /// The open ones.
    pub incidents: BTreeMap<IncidentId, Incident>,
    /// The last ones that closed, newest last.
    pub closed: VecDeque<ClosedIncident>,
    /// The unfinished ones.
    pub runs: BTreeMap<RunId, Run>,
    /// The last pipelines' runs that are over, newest last.
    #[serde(default)]
    pub ended: VecDeque<EndedRun>,
    /// What has triggered runs, oldest first: the same trigger twice is one run.
    #[serde(default)]
    pub keys: VecDeque<(Arc<str>, RunId)>,
    /// How far the schedules of pipelines have come, by the pipeline's name.
    #[serde(default)]
    pub schedules: BTreeMap<String, Schedule>,
    /// What we owe the world.
    pub outbox: BTreeMap<NoticeId, Owed>,
    /// When heals of any service began, in engine time, within the host's window.
    pub host_heals: Moments,
    /// The next free id.
    pub next_incident: u64,
    /// The next free id.
    pub next_run: u64,
    /// The next free id.
    pub next_notice: u64,
    /// Why the journal cannot be written, while it cannot.
    pub degraded: Option<String>,
    /// The unfinished runs by their turn. Derived.
    #[serde(skip)]
    pub(crate) queue: Queue,
}

/// What is known of one service.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ServiceState {
    /// Its name.
    pub name: String,
    /// Where it stands in `State::spec`; none once it left the configuration.
    pub index: Option<u32>,
    /// Its checks, in the spec's order.
    pub checks: Vec<CheckId>,
    /// Its open incident.
    pub incident: Option<IncidentId>,
    /// The run that acts on it.
    pub run: Option<RunId>,
    /// When heals of it began, in engine time, within its budget's window.
    pub heals: Moments,
    /// No heal before this, in engine time.
    #[serde(rename = "not_before_us", with = "micros")]
    pub not_before: Duration,
    /// The budget is spent: the next slow try, in engine time.
    #[serde(default, rename = "given_up_us", with = "crate::time::micros_opt")]
    pub given_up: Option<Duration>,
    /// How often in a row the actuator was not available, or an act of a heal proved to have had no effect.
    pub unavailable: u32,
}

/// What is known of one check.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CheckState {
    /// Whose.
    pub service: ServiceId,
    /// Its name within the service.
    pub name: String,
    /// Where it stands in the service's spec; none once it left the configuration.
    pub index: Option<u32>,
    /// The debounced verdict.
    pub health: Health,
    /// Since when.
    pub since: Now,
    /// The first failure of the present row, in engine time.
    #[serde(rename = "first_sign_us", with = "micros")]
    pub first_sign: Duration,
}

impl State {
    /// Returns the service with this name, if it is configured.
    pub fn service_named(&self, name: &str) -> Option<ServiceId> {
        let found =
            self.services.iter().position(|service| service.index.is_some() && service.name == name)?;
        Some(ServiceId(u32::try_from(found).expect("ids are dense u32")))
    }

    /// Returns the spec of a service, if it is configured.
    pub fn service_spec(&self, id: ServiceId) -> Option<&ServiceSpec> {
        self.spec.services.get(self.services.get(id.index())?.index? as usize)
    }

    /// Returns the spec of a check, if it is configured.
    pub fn check_spec(&self, id: CheckId) -> Option<&CheckSpec> {
        let check = self.checks.get(id.index())?;
        self.service_spec(check.service)?.checks.get(check.index? as usize)
    }

    /// Returns the verdict on a service: down if any check is, else unknown if any check is, else up.
    pub fn service_health(&self, id: ServiceId) -> Health {
        let mut verdict = Health::Up;
        let Some(service) = self.services.get(id.index()) else { return Health::Unknown };
        for check in &service.checks {
            match self.checks[check.index()].health {
                Health::Down => return Health::Down,
                Health::Recovering { passes } => verdict = Health::Recovering { passes },
                Health::Unknown if !verdict.is_down() => verdict = Health::Unknown,
                Health::Suspect { fails } if verdict == Health::Up => verdict = Health::Suspect { fails },
                Health::Unknown | Health::Up | Health::Suspect { .. } => {}
            }
        }
        if service.checks.is_empty() { Health::Unknown } else { verdict }
    }

    /// Says of which of these services it is not known that they are well, and why: "nobody knows" is no yes.
    pub fn unwell(&self, names: &[String]) -> Vec<String> {
        let unwell = names.iter().filter_map(|name| {
            let Some(id) = self.service_named(name) else { return Some(format!("{name} is not configured")) };
            let health = self.service_health(id);
            let failing = self.incident_of(id).map(|incident| format!(": {}", incident.failure.detail));
            match health {
                Health::Up | Health::Suspect { .. } if failing.is_none() => None,
                Health::Up
                | Health::Suspect { .. }
                | Health::Down
                | Health::Recovering { .. }
                | Health::Unknown => {
                    Some(format!("{name} is {}{}", health.word(), failing.unwrap_or_default()))
                }
            }
        });
        unwell.collect()
    }

    /// Returns the incident that is open for a service.
    pub fn incident_of(&self, id: ServiceId) -> Option<&Incident> {
        self.incidents.get(&self.services.get(id.index())?.incident?)
    }

    /// Returns the run that acts on a service.
    pub fn run_of(&self, id: ServiceId) -> Option<&Run> {
        self.runs.get(&self.services.get(id.index())?.run?)
    }

    /// Returns the run that had this trigger.
    pub fn run_with_key(&self, key: &str) -> Option<RunId> {
        self.keys.iter().rev().find(|(known, _)| &**known == key).map(|(_, run)| *run)
    }

    /// Returns the services in the configuration's order, with their ids.
    pub fn configured(&self) -> impl Iterator<Item = (ServiceId, &ServiceState, &ServiceSpec)> {
        let ids = 0..u32::try_from(self.services.len()).expect("ids are dense u32");
        let mut all: Vec<_> = ids
            .map(ServiceId)
            .filter_map(|id| Some((id, &self.services[id.index()], self.service_spec(id)?)))
            .collect();
        all.sort_by_key(|(_, state, _)| state.index);
        all.into_iter()
    }
}

/// Moments within a sliding window, oldest first, in engine time.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moments(VecDeque<u64>);

impl Moments {
    /// Adds a moment and forgets those older than the window.
    pub fn push(&mut self, now: Duration, per: Duration) {
        let now_us = whole_micros(now);
        let oldest = now_us.saturating_sub(whole_micros(per));
        while self.0.front().is_some_and(|moment| *moment < oldest) {
            self.0.pop_front();
        }
        self.0.push_back(now_us);
    }

    /// Takes a moment back: it turned out not to count. Another's moment stays, if this one was never added.
    pub fn take_back(&mut self, moment: Duration) {
        let moment_us = whole_micros(moment);
        if let Some(at) = self.0.iter().rposition(|known| *known == moment_us) {
            self.0.remove(at);
        }
    }

    /// Counts the moments in `(now - per, now]`.
    pub fn within(&self, now: Duration, per: Duration) -> u32 {
        let now_us = whole_micros(now);
        let window = whole_micros(per);
        let count = self.0.iter().rev().take_while(|moment| now_us.saturating_sub(**moment) < window).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Returns when the window will hold fewer than `attempts` moments.
    pub fn free_at(&self, attempts: u32, per: Duration) -> Duration {
        let Some(moment) = self.0.iter().rev().nth(attempts.saturating_sub(1) as usize) else {
            return Duration::ZERO;
        };
        Duration::from_micros(*moment) + per
    }
}

fn whole_micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sliding_window_counts_and_frees() {
        let s = Duration::from_secs;
        let mut moments = Moments::default();
        for at in [10, 20, 30] {
            moments.push(s(at), s(60));
        }
        assert_eq!(moments.within(s(30), s(60)), 3);
        assert_eq!(moments.within(s(70), s(60)), 2, "the one at 10 is just out");
        assert_eq!(moments.free_at(3, s(60)), s(70));
        moments.take_back(s(20));
        moments.take_back(s(25));
        assert_eq!(moments.within(s(30), s(60)), 2);
        assert_eq!(moments.free_at(1, s(60)), s(90), "only the one at 20 was taken back");
    }
}
