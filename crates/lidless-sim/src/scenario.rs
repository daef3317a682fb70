//! What is looked after, and how badly does it go? Everything about a rehearsal that the seed decides beforehand.

use std::sync::Arc;
use std::time::Duration;

use lidless_core::pipeline::plan::{Approve, Class, Plan, StepCall, StepSpec};
use lidless_core::spec::{
    Action, Backoff, Budget, CheckSpec, HealSpec, PipelineSpec, ServiceSpec, Spec, VerifySpec,
};

use crate::rng::Rng;

/// The names of all services that there may be. A later one may need earlier ones.
pub(crate) const NAMES: [&str; 4] = ["db", "api", "web", "edge"];
/// The value pipeline's name.
pub(crate) const YIELD: &str = "yield";
/// An exit code by which a service says "do not restart me".
pub(crate) const FATAL_EXIT: i32 = 42;

/// How badly it goes. Chances are per 10,000.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// How long faults go on.
    pub(crate) chaos: Duration,
    /// How many turns faults go on at most.
    pub(crate) turns_max: u32,
    /// Of a crash, at each crash point.
    pub(crate) crash: u32,
    /// Of a crash, at each crash point while recovering.
    pub(crate) crash_again: u32,
    /// The mean wait between two faults of the world, in milliseconds.
    pub(crate) fault_every_ms: u64,
    /// Of an answer that is lost, late, or "unknown", for each act and step.
    pub(crate) lost: u32,
    /// Of an act or a step that plainly fails.
    pub(crate) refused: u32,
    /// Of a message that is not taken.
    pub(crate) undelivered: u32,
    /// Of a single probe that fails though nothing is wrong.
    pub(crate) flap: u32,
    /// Of a full disk, at each fault.
    pub(crate) full: u32,
    /// Of a new configuration, at each fault.
    pub(crate) reload: u32,
    /// Of a restart by hand, at each fault.
    pub(crate) by_hand: u32,
    /// Of an orderly stop, at each fault.
    pub(crate) stop: u32,
    /// Of a machine that sleeps for a while, at each fault.
    pub(crate) sleep: u32,
    /// COMPOUND is declared idempotent though the chain honours no keys: the mutation that must be caught.
    pub(crate) repeatable_value: bool,
}

impl Scenario {
    pub(crate) fn new(rng: &mut Rng, repeatable_value: bool) -> Scenario {
        Scenario {
            chaos: rng.millis(60_000, 1_500_000),
            turns_max: rng.small(100, 1_000),
            crash: *rng.pick(&[0, 20, 50, 100, 300]),
            crash_again: *rng.pick(&[0, 200, 1_500]),
            fault_every_ms: *rng.pick(&[3_000, 10_000, 30_000, 60_000]),
            lost: *rng.pick(&[0, 500, 2_000, 4_000]),
            refused: *rng.pick(&[0, 500, 2_000]),
            undelivered: *rng.pick(&[0, 1_000, 5_000]),
            flap: *rng.pick(&[0, 0, 20, 200]),
            full: *rng.pick(&[0, 0, 300, 1_500]),
            reload: *rng.pick(&[0, 300, 1_000]),
            by_hand: *rng.pick(&[0, 300, 1_000]),
            stop: *rng.pick(&[0, 100, 500]),
            sleep: *rng.pick(&[0, 0, 100, 400]),
            repeatable_value,
        }
    }

    /// Returns a configuration: other services, or the same ones looked after otherwise.
    pub(crate) fn spec(&self, rng: &mut Rng) -> Spec {
        let mut services: Vec<ServiceSpec> = Vec::new();
        let wanted = rng.small(1, 4);
        for name in NAMES {
            let keep = rng.chance(if wanted >= 3 { 9_000 } else { 4_500 });
            if keep || (services.is_empty() && name == NAMES[3]) {
                let earlier: Vec<String> = services.iter().map(|service| service.name.clone()).collect();
                services.push(service(rng, name, &earlier));
            }
        }
        let host_budget = rng.chance(4_000).then(|| {
            let per = Duration::from_secs(rng.range(60, 300));
            Budget { attempts: rng.small(1, 8), per }
        });
        let compound = if self.repeatable_value { Class::Idempotent } else { Class::Confirmable };
        let steps = vec![
            step(rng, "HEALTH_CHECK", Class::Pure, false),
            step(rng, "REBALANCE", Class::Idempotent, false),
            step(rng, "COMPOUND", compound, true),
            step(rng, "HARVEST", Class::OneShot, true),
        ];
        let plan = Arc::new(self.plan(rng, steps));
        let pipelines = vec![PipelineSpec { name: YIELD.to_owned(), plan, ..PipelineSpec::default() }];
        Spec { site: "rehearsal".to_owned(), services, host_budget, pipelines }
    }

    /// Returns a plan of the steps: one after the other, or the last two side by side; some with a way back, some that wait
    /// for a person, or for something to hold.
    fn plan(&self, rng: &mut Rng, mut steps: Vec<StepSpec>) -> Plan {
        for (index, step) in (0_u32..).zip(&mut steps) {
            step.after = index.checked_sub(1).into_iter().collect();
            if rng.chance(1_000) {
                step.when = Some("1 == 1".into());
            }
            if rng.chance(500) {
                step.approve =
                    Some(Approve { within: Duration::from_secs(rng.range(5, 120)), ask: String::new() });
            }
            if rng.chance(500) {
                step.within = Some(Duration::from_secs(rng.range(1, 60)));
            }
        }
        if rng.chance(4_000) {
            steps[3].after = vec![1];
        }
        for (index, class) in [(1, Class::Idempotent), (2, Class::Confirmable), (3, Class::OneShot)] {
            let forward: &StepSpec = &steps[index as usize];
            if rng.chance(4_000) {
                let undo = step(rng, &format!("{}/undo", forward.name), class, forward.value);
                steps.push(StepSpec { undoes: Some(index), ..undo });
            }
        }
        let mut plan = Plan::new(steps).unwrap_or_default();
        plan.deadline = rng.chance(1_000).then(|| Duration::from_secs(rng.range(5, 120)));
        plan.lock = rng.chance(2_000).then(|| "treasury".to_owned());
        plan
    }

    /// Returns the same configuration with one service looked after otherwise.
    pub(crate) fn touched(&self, rng: &mut Rng, spec: &Spec) -> Spec {
        let mut spec = spec.clone();
        let count = spec.services.len() as u64;
        let at = usize::try_from(rng.next() % count).unwrap_or(0);
        let (head, tail) = spec.services.split_at_mut(at);
        let earlier: Vec<String> = head.iter().map(|service| service.name.clone()).collect();
        if let Some(changed) = tail.first_mut() {
            *changed = service(rng, &changed.name.clone(), &earlier);
        }
        spec
    }
}

/// Whether lidless itself runs the process: a trait of the name, for a process doesn't change hands.
pub(crate) fn is_managed(name: &str) -> bool {
    name == "api" || name == "edge"
}

fn service(rng: &mut Rng, name: &str, earlier: &[String]) -> ServiceSpec {
    let depends_on = earlier.iter().filter(|_| rng.chance(3_000)).cloned().collect();
    let first = if rng.chance(4_000) { "process" } else { "http" };
    let mut checks = vec![check(rng, first)];
    if rng.chance(4_000) {
        checks.push(check(rng, "tcp"));
    }
    let heal = rng.chance(8_500).then(|| HealSpec {
        action: Action::Restart,
        budget: Budget { attempts: rng.small(1, 5), per: Duration::from_secs(rng.range(30, 600)) },
        backoff: Backoff {
            min: *rng.pick(&[Duration::ZERO, Duration::from_millis(500), Duration::from_secs(5)]),
            max: *rng.pick(&[Duration::from_secs(5), Duration::from_secs(60)]),
        },
        retry_after: Duration::from_secs(rng.range(30, 400)),
        never_on_exit: if rng.chance(3_000) { vec![FATAL_EXIT] } else { Vec::new() },
    });
    ServiceSpec {
        name: name.to_owned(),
        depends_on,
        checks,
        managed: is_managed(name),
        restartable: true,
        verify: VerifySpec {
            settle: *rng.pick(&[Duration::ZERO, Duration::from_millis(500), Duration::from_secs(5)]),
            within: Duration::from_secs(rng.range(1, 20)),
            stay: *rng.pick(&[Duration::ZERO, Duration::from_millis(500), Duration::from_secs(3)]),
        },
        heal,
        act_timeout: Duration::from_secs(rng.range(1, 15)),
    }
}

fn check(rng: &mut Rng, kind: &str) -> CheckSpec {
    CheckSpec {
        name: kind.to_owned(),
        kind: kind.to_owned(),
        asks: format!("{kind}, pretended"),
        every: *rng.pick(&[Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)]),
        timeout: rng.millis(300, 3_000),
        confirm_every: *rng.pick(&[Duration::from_millis(100), Duration::from_secs(1)]),
        fail_after: rng.small(1, 4),
        recover_after: rng.small(1, 3),
    }
}

fn step(rng: &mut Rng, name: &str, class: Class, value: bool) -> StepSpec {
    let spec = StepSpec {
        name: name.to_owned(),
        call: StepCall::External { kind: "chain".to_owned(), settings: "{}".into() },
        class,
        value,
        attempts_max: rng.small(1, 3),
        backoff: Backoff { min: Duration::from_millis(500), max: Duration::from_secs(10) },
        timeout: Duration::from_secs(rng.range(2, 20)),
        confirms_max: rng.small(2, 8),
        ..StepSpec::default()
    };
    // Some outlive lidless, whatever their class.
    StepSpec { adoptable: spec.timeout.as_secs().is_multiple_of(3), ..spec }
}
