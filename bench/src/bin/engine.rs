//! How many unchanged outcomes a second does the core take on one core, and does it allocate for them?
//!
//! Ten thousand checks in turn, first all up and passing, then all down (without a heal) and failing: what nearly every
//! outcome in the life of a watcher is. No journal, no sockets, no runtime: the pure engine alone.

use std::alloc::System;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use lidless_bench::Problem;
use lidless_bench::figures::Summary;
use lidless_bench::report::{self, Machine, Table};
use lidless_core::check::{CheckFailure, CheckOutcome, FailureKind};
use lidless_core::effect::Input;
use lidless_core::engine::Engine;
use lidless_core::health::Health;
use lidless_core::id::CheckId;
use lidless_core::spec::{CheckSpec, ServiceSpec, Spec, VerifySpec};
use lidless_core::time::Now;
use serde::Serialize;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

/// Counts every allocation of the process; the crate's, for `unsafe` is forbidden in ours.
#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const GOAL_PER_S: f64 = 1_000_000.0;

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
    let mut rows = Vec::new();
    let mut watch = Watch::begin(args.checks, &pass)?;
    watch.must_all_be("up", |health| health == Health::Up)?;
    rows.push(watch.measure("pass while up", args.outcomes, &pass, false)?);
    rows.push(watch.measure("pass while up, with probe_plan", args.outcomes, &pass, true)?);
    watch.settle(&fail);
    watch.must_all_be("down", |health| health == Health::Down)?;
    rows.push(watch.measure("fail while down", args.outcomes, &fail, false)?);
    print(&rows);
    let clean = rows.iter().all(|row| row.allocations + row.reallocations == 0);
    report::write("engine", &Results { machine, checks: args.checks, goal_per_s: GOAL_PER_S, rows })?;
    Ok(clean)
}

/// An engine and its clock.
struct Watch {
    engine: Engine,
    checks: u32,
    now: Now,
    pace: Duration,
}

impl Watch {
    fn begin(checks: u32, outcome: &dyn Fn() -> CheckOutcome) -> Result<Watch, Problem> {
        // One outcome a second for each check, so that engine time goes by as it would.
        let pace = Duration::from_secs(1) / checks.max(1);
        let now = Now { monotonic: Duration::from_secs(1), wall_ms: 1_700_000_000_000 };
        let mut watch = Watch { engine: Engine::new(1), checks, now, pace };
        watch.handle(Input::Started { boot: "bench".to_owned(), version: "0".to_owned() });
        watch.handle(Input::ConfigLoaded(Arc::new(spec(checks))));
        watch.settle(outcome);
        Ok(watch)
    }

    /// Repeats an outcome for every check until health has nothing more to learn from it.
    fn settle(&mut self, outcome: &dyn Fn() -> CheckOutcome) {
        for _ in 0..4 {
            for check in 0..self.checks {
                let input = self.probed(check, outcome());
                self.handle(input);
            }
        }
    }

    fn probed(&self, check: u32, outcome: CheckOutcome) -> Input {
        Input::Probed { check: CheckId(check), began: self.now.monotonic, outcome }
    }

    fn handle(&mut self, input: Input) -> usize {
        self.now.monotonic += self.pace;
        self.engine.handle(self.now, input).events.len()
    }

    fn must_all_be(&self, what: &str, is: fn(Health) -> bool) -> Result<(), Problem> {
        let state = self.engine.state();
        match (0..self.checks).find(|check| !is(state.checks[*check as usize].health)) {
            Some(check) => Err(format!("check {check} is not {what}").into()),
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
                events += self.handle(input);
                if with_plan {
                    std::hint::black_box(self.engine.probe_plan(CheckId(check), self.now.monotonic));
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

fn spec(checks: u32) -> Spec {
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
    let service = |id: u32| ServiceSpec {
        name: format!("t{id}"),
        checks: vec![check.clone()],
        verify: VerifySpec { settle: Duration::ZERO, within: Duration::from_secs(30) },
        act_timeout: Duration::from_secs(30),
        ..ServiceSpec::default()
    };
    Spec { site: "bench".to_owned(), services: (0..checks).map(service).collect(), ..Spec::default() }
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
