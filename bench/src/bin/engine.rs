//! How many unchanged outcomes a second does the core take on one core, and does it allocate for them?
//!
//! Ten thousand checks in turn: all up and passing, all down and failing (without a heal, and with one that waits), and none
//! that can be asked. That is what nearly every outcome in the life of a watcher is. No journal, no sockets, no runtime: the
//! pure engine alone.

use std::alloc::System;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use lidless_bench::Problem;
use lidless_bench::figures::Summary;
use lidless_bench::report::{self, Machine, Table};
use lidless_core::check::{CheckFailure, CheckOutcome, FailureKind};
use lidless_core::effect::{Effect, Input, Turn};
use lidless_core::engine::Engine;
use lidless_core::event::Outcome;
use lidless_core::health::Health;
use lidless_core::id::{CheckId, ServiceId};
use lidless_core::spec::{Action, Backoff, Budget, CheckSpec, HealSpec, ServiceSpec, Spec, VerifySpec};
use lidless_core::time::Now;
use serde::Serialize;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

/// Counts every allocation of the process; the crate's, for `unsafe` is forbidden in ours.
#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const GOAL_PER_S: f64 = 1_000_000.0;
/// Longer than any measurement, in engine time.
const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// Services that others need: the one that they name, and what that one needs. Their checks are not measured.
const NEEDED: u32 = 2;

/// Measures the pure engine on outcomes that change nothing
#[derive(Debug, Parser)]
struct Args {
    /// Checks, one to a service
    #[arg(long, default_value_t = 10_000)]
    checks: u32,
    /// Outcomes of each kind
    #[arg(long, default_value_t = 5_000_000)]
    outcomes: u64,
}

#[derive(Debug, Serialize)]
struct Row {
    what: &'static str,
    outcomes: u64,
    outcomes_per_s: f64,
    /// One round over all checks, in seconds.
    round: Summary,
    allocations: usize,
    reallocations: usize,
    allocations_per_outcome: f64,
}

#[derive(Debug, Serialize)]
struct Results {
    machine: Machine,
    checks: u32,
    goal_per_s: f64,
    rows: Vec<Row>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        // The rate depends on the machine and is only printed; allocations do not.
        Ok(false) => {
            eprintln!("engine: unchanged outcomes were not free of allocations");
            ExitCode::FAILURE
        }
        Err(problem) => {
            eprintln!("engine failed: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool, Problem> {
    let machine = Machine::look();
    let pass = || CheckOutcome::Pass { latency: Duration::from_millis(3) };
    let fail = || CheckOutcome::Fail {
        latency: Duration::from_millis(3),
        failure: CheckFailure::new(FailureKind::Status, "status 500, wanted below 400"),
    };
    let cannot_ask = || CheckOutcome::Inconclusive { reason: "name not resolved within 1 s".to_owned() };
    let mut rows = Vec::new();
    let mut watch = Watch::begin(args.checks, Heals::Never, &pass)?;
    watch.must_all_be("up", |health| health == Health::Up)?;
    rows.push(watch.measure("pass while up", args.outcomes, &pass, false)?);
    rows.push(watch.measure("pass while up, with probe_plan", args.outcomes, &pass, true)?);
    watch.settle(&fail);
    watch.must_all_be("down", |health| health == Health::Down)?;
    rows.push(watch.measure("fail while down, no heal", args.outcomes, &fail, false)?);
    watch.settle(&cannot_ask);
    watch.must_all_be("unknown", |health| health == Health::Unknown)?;
    rows.push(watch.measure("cannot ask while unknown", args.outcomes, &cannot_ask, false)?);
    for (what, heals) in [
        ("fail while down, heal in backoff", Heals::Alone),
        ("fail while down, heal in backoff, with depends_on", Heals::Depending),
    ] {
        let mut watch = Watch::begin(args.checks, heals, &pass)?;
        watch.settle(&fail);
        watch.must_all_be("down", |health| health == Health::Down)?;
        watch.must_all_wait()?;
        rows.push(watch.measure(what, args.outcomes, &fail, false)?);
    }
    print(&rows);
    let clean = rows.iter().all(|row| row.allocations + row.reallocations == 0);
    report::write("engine", &Results { machine, checks: args.checks, goal_per_s: GOAL_PER_S, rows })?;
    Ok(clean)
}

/// What is done about a service that is down.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heals {
    /// Nothing.
    Never,
    /// A restart, which does not help and is not repeated for a long time.
    Alone,
    /// The same, for services that need others.
    Depending,
}

/// An engine and its clock.
struct Watch {
    engine: Engine,
    checks: u32,
    now: Now,
    pace: Duration,
}

impl Watch {
    fn begin(checks: u32, heals: Heals, outcome: &dyn Fn() -> CheckOutcome) -> Result<Watch, Problem> {
        // One outcome a second for each check, so that engine time goes by as it would.
        let pace = Duration::from_secs(1) / checks.max(1);
        let now = Now { monotonic: Duration::from_secs(1), wall_ms: 1_700_000_000_000 };
        let mut watch = Watch { engine: Engine::new(1), checks, now, pace };
        watch.handle(Input::Started { boot: "bench".to_owned(), version: "0".to_owned() });
        watch.handle(Input::ConfigLoaded(Arc::new(spec(checks, heals))));
        watch.settle(outcome);
        Ok(watch)
    }

    /// Repeats an outcome for every check until health has nothing more to learn from it. No act helps.
    fn settle(&mut self, outcome: &dyn Fn() -> CheckOutcome) {
        for _ in 0..4 {
            for check in 0..self.checks {
                let input = self.probed(check, outcome());
                for effect in self.handle(input).effects {
                    let Effect::Perform { run, step, attempt, .. } = effect else { continue };
                    let outcome = Outcome::NotApplied { reason: "it does not help".to_owned() };
                    self.handle(Input::Performed { run, step, attempt, outcome });
                }
            }
        }
    }

    fn probed(&self, check: u32, outcome: CheckOutcome) -> Input {
        Input::Probed { check: id(check), began: self.now.monotonic, outcome }
    }

    fn handle(&mut self, input: Input) -> Turn {
        self.now.monotonic += self.pace;
        self.engine.handle(self.now, input)
    }

    fn must_all_be(&self, what: &str, is: fn(Health) -> bool) -> Result<(), Problem> {
        let state = self.engine.state();
        match (0..self.checks).find(|check| !is(state.checks[id(*check).index()].health)) {
            Some(check) => Err(format!("check {check} is not {what}").into()),
            None => Ok(()),
        }
    }

    /// A row about heals that wait is worth something only when each has been tried, and waits.
    fn must_all_wait(&self) -> Result<(), Problem> {
        let state = self.engine.state();
        let waits = |service: ServiceId| {
            let tried = state.incident_of(service).is_some_and(|incident| incident.heals > 0);
            tried && state.services[service.index()].not_before > self.now.monotonic + YEAR / 2
        };
        match (0..self.checks).find(|service| !waits(ServiceId(NEEDED + service))) {
            Some(service) => Err(format!("no heal of service {service} waits").into()),
            None => Ok(()),
        }
    }

    fn measure(
        &mut self,
        what: &'static str,
        outcomes: u64,
        outcome: &dyn Fn() -> CheckOutcome,
        with_plan: bool,
    ) -> Result<Row, Problem> {
        println!("{what}: {outcomes} outcomes ...");
        let rounds = (outcomes / u64::from(self.checks)).max(1);
        let (mut times, mut allocations, mut reallocations, mut events) = (Vec::new(), 0, 0, 0);
        for _ in 0..rounds {
            // Built outside the measured part: a failure's text is the driver's work and the driver's allocation.
            let inputs: Vec<Input> = (0..self.checks).map(|check| self.probed(check, outcome())).collect();
            let counted = Region::new(COUNTING);
            let began = Instant::now();
            for (check, input) in (0..self.checks).zip(inputs) {
                events += self.handle(input).events.len();
                if with_plan {
                    std::hint::black_box(self.engine.probe_plan(id(check), self.now.monotonic));
                }
            }
            let (time, change) = (began.elapsed(), counted.change());
            times.push(time);
            allocations += change.allocations;
            reallocations += change.reallocations;
        }
        if events > 0 {
            return Err(format!("{what}: {events} events; these outcomes were to change nothing").into());
        }
        let outcomes = rounds * u64::from(self.checks);
        let round = Summary::of(&times).ok_or("nothing was measured")?;
        let total: Duration = times.iter().sum();
        Ok(Row {
            what,
            outcomes,
            outcomes_per_s: outcomes as f64 / total.as_secs_f64(),
            round,
            allocations,
            reallocations,
            allocations_per_outcome: (allocations + reallocations) as f64 / outcomes as f64,
        })
    }
}

/// The id of a measured check.
fn id(check: u32) -> CheckId {
    CheckId(NEEDED + check)
}

fn spec(checks: u32, heals: Heals) -> Spec {
    let check = CheckSpec {
        name: "health".to_owned(),
        kind: "http".to_owned(),
        asks: "http://127.0.0.1:8080/health".to_owned(),
        every: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        confirm_every: Duration::from_millis(100),
        fail_after: 2,
        recover_after: 2,
    };
    let heal = HealSpec {
        action: Action::Restart,
        budget: Budget { attempts: 1_000, per: YEAR },
        backoff: Backoff { min: YEAR, max: YEAR },
        retry_after: YEAR,
        never_on_exit: Vec::new(),
    };
    let service = |name: String, depends_on: Vec<String>| ServiceSpec {
        name,
        depends_on,
        checks: vec![check.clone()],
        heal: (heals != Heals::Never).then(|| heal.clone()),
        verify: VerifySpec { within: Duration::from_secs(30), ..VerifySpec::default() },
        act_timeout: Duration::from_secs(30),
        ..ServiceSpec::default()
    };
    let of_each = if heals == Heals::Depending { vec!["platform".to_owned()] } else { Vec::new() };
    let mut services =
        vec![service("base".to_owned(), Vec::new()), service("platform".to_owned(), vec!["base".to_owned()])];
    services.extend((0..checks).map(|id| service(format!("t{id}"), of_each.clone())));
    Spec { site: "bench".to_owned(), services, ..Spec::default() }
}

fn print(rows: &[Row]) {
    let mut table =
        Table::new(&["unchanged outcomes", "a second", "/ goal", "ns each", "allocations", "an outcome"]);
    for row in rows {
        table.row(vec![
            row.what.to_owned(),
            format!("{:.0}", row.outcomes_per_s),
            format!("{:.1} x", row.outcomes_per_s / GOAL_PER_S),
            format!("{:.0}", 1e9 / row.outcomes_per_s),
            (row.allocations + row.reallocations).to_string(),
            format!("{:.3}", row.allocations_per_outcome),
        ]);
    }
    table.print();
}
