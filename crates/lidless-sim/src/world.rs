//! What goes on outside? Services with processes, and what a probe finds of them.
//!
//! The world outlives lidless: a crash of lidless changes nothing here but the acts that it did with its own hands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lidless_core::check::{CheckFailure, CheckOutcome, FailureKind};

use crate::act::{ActKey, Job};
use crate::chain::Chain;
use crate::rng::Rng;
use crate::scenario::{FATAL_EXIT, NAMES, is_managed};
use crate::schedule::{Happening, Schedule};

/// Everything that is not lidless.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) services: Vec<Service>,
    pub(crate) chain: Chain,
    /// Messages that somebody took: the id and the text.
    pub(crate) taken: BTreeSet<(u64, String)>,
    /// Until then most probes cannot be made: our own trouble.
    pub(crate) blind_until: Duration,
    /// Nothing goes wrong any more.
    pub(crate) calm: bool,
    /// How often each act took effect.
    pub(crate) acts: BTreeMap<ActKey, u32>,
    /// What must not happen, and did.
    pub(crate) broken: Option<String>,
    pub(crate) count: u64,
    /// Of a probe that fails for no reason.
    flap: u32,
}

/// A real service.
#[derive(Debug)]
pub(crate) struct Service {
    /// lidless runs its process; else a service manager does, and serialises what it is asked.
    pub(crate) managed: bool,
    /// Those alive.
    pub(crate) instances: Vec<Instance>,
    /// When the newest instance was started.
    pub(crate) started_at: Duration,
    /// The exit code of the last one that ended.
    pub(crate) exit: i32,
    /// Until then no restart helps.
    pub(crate) unhealable_until: Duration,
    /// Until then each new instance dies soon.
    pub(crate) crash_loop_until: Duration,
    /// Until then its actuator cannot be reached.
    pub(crate) actuator_down_until: Duration,
    /// What ails the running instance, and until when.
    pub(crate) ails: Option<(Ailment, Duration)>,
    /// Acts under way.
    pub(crate) jobs: BTreeMap<u64, Job>,
}

/// A process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instance {
    pub(crate) id: u64,
    ready_at: Duration,
}

/// What can ail an instance; a restart mends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ailment {
    /// It answers with errors.
    Errors,
    /// It doesn't answer.
    Hangs,
    /// Only its second check fails.
    Half,
}

impl World {
    pub(crate) fn new(seed: u64, flap: u32) -> World {
        let mut world = World {
            rng: Rng::new(seed, 2),
            services: NAMES.iter().map(|name| Service::new(is_managed(name))).collect(),
            chain: Chain::default(),
            taken: BTreeSet::new(),
            blind_until: Duration::ZERO,
            calm: false,
            acts: BTreeMap::new(),
            broken: None,
            count: 0,
            flap,
        };
        for service in &mut world.services {
            if !service.managed {
                service.instances.push(Instance { id: 0, ready_at: Duration::ZERO });
            }
        }
        world
    }

    /// Makes a probe; returns how long it takes and what it finds.
    pub(crate) fn probe(
        &mut self,
        service: usize,
        kind: &str,
        timeout: Duration,
        now: Duration,
    ) -> (Duration, CheckOutcome) {
        let quick = self.rng.millis(1, 50).min(timeout / 2);
        if now < self.blind_until && self.rng.chance(8_000) {
            return (quick, CheckOutcome::Inconclusive { reason: "too many open files".to_owned() });
        }
        let flap = !self.calm && self.rng.chance(self.flap);
        let service = &self.services[service];
        let found = service.instances.last();
        let fail = |latency, kind, detail: &str| {
            let failure = CheckFailure { latency, ..CheckFailure::new(kind, detail) };
            (latency, CheckOutcome::Fail { latency, failure })
        };
        if kind == "process" {
            if found.is_some() {
                return (quick, CheckOutcome::Pass { latency: quick });
            }
            let failure = CheckFailure::new(FailureKind::NotRunning, "it ended").certain();
            let failure = failure.with_exit_code(Some(service.exit));
            return (quick, CheckOutcome::Fail { latency: quick, failure });
        }
        if found.is_none_or(|instance| now < instance.ready_at) {
            return fail(quick, FailureKind::Refused, "connection refused");
        }
        if now < service.unhealable_until || flap {
            return fail(quick, FailureKind::Status, "status 500");
        }
        match service.ails.filter(|(_, until)| now < *until) {
            Some((Ailment::Errors, _)) => fail(quick, FailureKind::Status, "status 503"),
            Some((Ailment::Half, _)) if kind == "tcp" => fail(quick, FailureKind::Content, "no greeting"),
            Some((Ailment::Hangs, _)) => {
                let late = if self.rng.chance(1_000) { self.rng.millis(1, 300) } else { Duration::ZERO };
                fail(timeout + late, FailureKind::Timeout, "no answer in time")
            }
            Some((Ailment::Half, _)) | None => (quick, CheckOutcome::Pass { latency: quick }),
        }
    }

    /// Lets something go wrong with a service.
    pub(crate) fn fault(&mut self, now: Duration, schedule: &mut Schedule) -> &'static str {
        let at = usize::try_from(self.rng.next() % NAMES.len() as u64).unwrap_or(0);
        let until = now + self.rng.millis(1_000, 300_000);
        let dice = self.rng.range(0, 99);
        let exit = *self.rng.pick(&[0, 1, 139, FATAL_EXIT]);
        let service = &mut self.services[at];
        match dice {
            0..30 => {
                for instance in service.instances.clone() {
                    schedule.at(now, Happening::Dies { service: at, instance: instance.id, exit });
                }
                "a process dies"
            }
            30..45 => {
                service.ails = Some((Ailment::Errors, until));
                "errors"
            }
            45..60 => {
                service.ails = Some((Ailment::Hangs, until + Duration::from_secs(3600)));
                "a hang"
            }
            60..68 => {
                service.ails = Some((Ailment::Half, until));
                "half of it fails"
            }
            68..76 => {
                service.unhealable_until = until;
                "no restart helps"
            }
            76..84 => {
                service.crash_loop_until = until;
                for instance in service.instances.clone() {
                    schedule.at(now, Happening::Dies { service: at, instance: instance.id, exit });
                }
                "a crash loop"
            }
            84..92 => {
                self.blind_until = now + self.rng.millis(1_000, 60_000);
                "lidless is blind"
            }
            _ => {
                service.actuator_down_until = until;
                "an actuator is down"
            }
        }
    }

    /// Ends all troubles that time would end.
    pub(crate) fn calm_down(&mut self, now: Duration) {
        self.calm = true;
        self.blind_until = now;
        for service in &mut self.services {
            service.unhealable_until = service.unhealable_until.min(now);
            service.crash_loop_until = service.crash_loop_until.min(now);
            service.actuator_down_until = service.actuator_down_until.min(now);
        }
    }

    /// Starts a new instance, whether or not there is one.
    pub(crate) fn spawn(&mut self, at: usize, now: Duration, schedule: &mut Schedule) {
        self.count += 1;
        let id = self.count;
        let ready_at = now + self.rng.millis(0, 3_000);
        let dies = (now < self.services[at].crash_loop_until).then(|| now + self.rng.millis(50, 6_000));
        let service = &mut self.services[at];
        service.instances.push(Instance { id, ready_at });
        service.started_at = now;
        service.ails = None;
        if let Some(dies) = dies {
            schedule.at(dies, Happening::Dies { service: at, instance: id, exit: 1 });
        }
        if service.instances.len() > 1 {
            self.broken = Some(format!("(4) two instances of `{}` are alive at once", NAMES[at]));
        }
    }

    pub(crate) fn dies(&mut self, at: usize, instance: u64, exit: i32) {
        let service = &mut self.services[at];
        if service.instances.iter().any(|alive| alive.id == instance) {
            service.instances.retain(|alive| alive.id != instance);
            service.exit = exit;
        }
    }
}

impl Service {
    fn new(managed: bool) -> Service {
        Service {
            managed,
            instances: Vec::new(),
            started_at: Duration::ZERO,
            exit: 0,
            unhealable_until: Duration::ZERO,
            crash_loop_until: Duration::ZERO,
            actuator_down_until: Duration::ZERO,
            ails: None,
            jobs: BTreeMap::new(),
        }
    }
}
