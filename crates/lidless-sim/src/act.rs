//! What becomes of an act on a service? It takes effect, fails, is lost, or comes late; and what can be found out later.
//!
//! What lidless does with its own hands (a managed process) ends with lidless and at the deadline; what a service
//! manager was asked to do goes on, but the manager never does two things at once.

use std::time::Duration;

use lidless_core::event::{Confirmation, Outcome};
use lidless_core::id::RunId;
use lidless_core::spec::Action;

use crate::scenario::{NAMES, Scenario};
use crate::schedule::{Happening, Schedule, Stage};
use crate::world::World;

/// Which act: the run, when it was created (a run that was never durable gives its number to another), the step.
pub(crate) type ActKey = (RunId, Duration, u32);

/// An act under way.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    key: ActKey,
    action: Action,
    /// It will take effect; else it breaks off half-way.
    takes_effect: bool,
}

/// When an answer comes, and which; `None` never comes.
pub(crate) type Answer = Option<(Duration, Outcome)>;

impl World {
    /// Begins an act.
    pub(crate) fn act(
        &mut self,
        scenario: &Scenario,
        schedule: &mut Schedule,
        at: usize,
        (key, action): (ActKey, Action),
        (now, deadline): (Duration, Duration),
    ) -> Answer {
        let soon = now + self.rng.millis(1, 300);
        if now < self.services[at].actuator_down_until {
            return Some((soon, Outcome::Unavailable { reason: "the bus is dead".to_owned() }));
        }
        if !self.calm && self.rng.chance(scenario.refused) {
            return Some((soon, Outcome::NotApplied { reason: "no such unit".to_owned() }));
        }
        let fate = Fate::draw(self, scenario);
        let service = &mut self.services[at];
        let adopts = service.managed && action == Action::Start && !service.instances.is_empty();
        if adopts {
            let outcome = Outcome::Found { output: "adopted".to_owned() };
            return fate.answer(soon, deadline, outcome);
        }
        if service.managed && !service.jobs.is_empty() {
            self.broken = Some(format!("(4) two acts on `{}` are under way at once", NAMES[at]));
        }
        // A manager drops what it was doing for what it is asked now.
        service.jobs.clear();
        let takes = match fate {
            Fate::Slow(takes) => takes,
            Fate::Fine | Fate::Unknown { .. } | Fate::Silent { .. } | Fate::Late(_) => {
                self.rng.millis(10, 900)
            }
        };
        let ends = now + takes;
        self.count += 1;
        let job = self.count;
        let takes_effect = !matches!(fate, Fate::Unknown { done: false } | Fate::Silent { done: false });
        let service = &mut self.services[at];
        service.jobs.insert(job, Job { key, action, takes_effect });
        if service.managed {
            schedule.at(now + takes / 2, Happening::Act { service: at, job, stage: Stage::Stops });
            schedule.at(deadline, Happening::Act { service: at, job, stage: Stage::Cut });
        }
        schedule.at(ends, Happening::Act { service: at, job, stage: Stage::Starts });
        if ends >= deadline {
            return Some((deadline, Outcome::Unknown { reason: "not done by the deadline".to_owned() }));
        }
        fate.answer(ends, deadline, Outcome::Applied { output: "a new process".to_owned() })
    }

    /// Takes an act a stage further.
    pub(crate) fn act_goes_on(
        &mut self,
        schedule: &mut Schedule,
        at: usize,
        job: u64,
        stage: Stage,
        now: Duration,
    ) {
        let service = &mut self.services[at];
        let Some(found) = service.jobs.get(&job).cloned() else { return };
        match stage {
            Stage::Stops => service.instances.clear(),
            Stage::Cut => {
                service.jobs.remove(&job);
            }
            Stage::Starts => {
                service.jobs.remove(&job);
                if !found.takes_effect {
                    return;
                }
                if !service.managed {
                    service.instances.clear();
                }
                self.spawn(at, now, schedule);
                if found.action == Action::Restart {
                    let times = self.acts.entry(found.key).or_default();
                    *times += 1;
                    if *times > 1 {
                        self.broken = Some(format!("(4) {} restarted `{}` twice", found.key.0, NAMES[at]));
                    }
                }
            }
        }
    }

    /// lidless is gone: what it did with its own hands stops where it is.
    pub(crate) fn lidless_died(&mut self) {
        for service in self.services.iter_mut().filter(|service| service.managed) {
            service.jobs.clear();
        }
    }

    /// Says whether an act took effect.
    pub(crate) fn confirm_act(
        &mut self,
        scenario: &Scenario,
        at: usize,
        intent_at: Duration,
    ) -> Confirmation {
        let retry_after = self.rng.millis(500, 4_000);
        if !self.services[at].jobs.is_empty() {
            return Confirmation::StillUnknown { reason: "a job is under way".to_owned(), retry_after };
        }
        if !self.calm && self.rng.chance(scenario.lost) {
            return Confirmation::StillUnknown { reason: "the bus is dead".to_owned(), retry_after };
        }
        if self.services[at].started_at >= intent_at {
            Confirmation::Applied { evidence: "it was started after the intent".to_owned(), output: None }
        } else {
            Confirmation::NotApplied { evidence: "it is older than the intent".to_owned() }
        }
    }
}

/// What chance has in store for an act or a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It goes well.
    Fine,
    /// The answer is "I don't know".
    Unknown { done: bool },
    /// No answer ever.
    Silent { done: bool },
    /// It is done in time, but the answer comes this long after the deadline.
    Late(Duration),
    /// It takes this long, deadline or not.
    Slow(Duration),
}

impl Fate {
    pub(crate) fn draw(world: &mut World, scenario: &Scenario) -> Fate {
        if world.calm || !world.rng.chance(scenario.lost) {
            return Fate::Fine;
        }
        let done = world.rng.chance(5_000);
        match world.rng.range(0, 3) {
            0 => Fate::Unknown { done },
            1 => Fate::Silent { done },
            2 => Fate::Late(world.rng.millis(0, 12_000)),
            _ => Fate::Slow(world.rng.millis(500, 40_000)),
        }
    }

    pub(crate) fn answer(self, ends: Duration, deadline: Duration, outcome: Outcome) -> Answer {
        match self {
            Fate::Fine | Fate::Slow(_) => Some((ends, outcome)),
            Fate::Unknown { .. } => {
                Some((ends, Outcome::Unknown { reason: "the answer was lost".to_owned() }))
            }
            Fate::Silent { .. } => None,
            Fate::Late(late) => Some((deadline + late, outcome)),
        }
    }
}
