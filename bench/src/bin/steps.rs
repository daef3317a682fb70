//! How many durable steps a second does a pipeline in a Rust program do, against the disk, SQLite itself, and Restate?
//!
//! A pipeline of four steps that do nothing, on a store in SQLite, with 1 and with 64 runs at once. Before and after each
//! measurement the disk is asked what it can do just then: on a shared machine it changes by the second, and only ratios within a
//! round hold.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use lidless::{Context, Pipeline, StepError};
use lidless_bench::peers::restate;
use lidless_bench::report::{self, Machine, Table};
use lidless_bench::{Problem, disk, process};
use serde::Serialize;
use serde_json::{Value, json};

const STEPS: f64 = 4.0;
/// An intent and an outcome: what a step has to append if each were appended alone.
const RECORDS: f64 = 2.0;
const MANY: usize = 64;

/// Measures durable steps a second
#[derive(Debug, Parser)]
struct Args {
    /// How often everything is measured; the table shows the middle
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// How long each measurement takes, in seconds
    #[arg(long, default_value_t = 1)]
    seconds: u64,
    /// Measure lidless and the disk alone
    #[arg(long)]
    alone: bool,
}

/// One round: everything a second.
#[derive(Clone, Debug, Serialize)]
struct Round {
    /// Just before and just after the next, in the mean.
    synced_writes: f64,
    steps_one: f64,
    steps_many: f64,
    /// Records, of 64 writers: just before and just after the one above, in the mean.
    sqlite_group: f64,
    restate_one: Option<f64>,
    restate_many: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Results {
    machine: Machine,
    restate: Result<String, String>,
    rounds: Vec<Round>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("steps failed: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Problem> {
    let machine = Machine::look();
    process::clean_up_on_signals()?;
    let time = Duration::from_secs(args.seconds);
    let found = if args.alone { Err("not asked for".to_owned()) } else { restate::find() };
    if let Err(why) = &found {
        println!("Restate is skipped: {why}");
    }
    // On the disk of the checkout: /tmp may be memory.
    let target = report::workspace().join("target");
    std::fs::create_dir_all(&target)?;
    let mut rounds = Vec::new();
    for number in 1..=args.rounds.max(1) {
        println!("round {number} of {} ...", args.rounds.max(1));
        let dir = tempfile::tempdir_in(&target)?;
        let dir = dir.path();
        let before = disk::synced_writes_per_s(dir, time)?;
        let steps_one = steps_per_s(dir, 1, time)?;
        let synced_writes = f64::midpoint(before, disk::synced_writes_per_s(dir, time)?);
        let before = disk::group_commits_per_s(dir, MANY, time)?;
        let steps_many = steps_per_s(dir, MANY, time)?;
        let sqlite_group = f64::midpoint(before, disk::group_commits_per_s(dir, MANY, time)?);
        let (mut restate_one, mut restate_many) = (None, None);
        if let Ok(found) = &found {
            let restate = restate::start(found, dir)?;
            // Node warms up: its first seconds are not its best.
            restate.runs_per_s(8, Duration::from_secs(3))?;
            restate_one = Some(STEPS * restate.runs_per_s(1, time)?);
            restate_many = Some(STEPS * restate.runs_per_s(MANY, time)?);
        }
        let round = Round { synced_writes, steps_one, steps_many, sqlite_group, restate_one, restate_many };
        rounds.push(round);
    }
    print(&rounds);
    let restate = found.map(|dir| restate::version(&dir));
    report::write("steps", &Results { machine, restate, rounds })
}

async fn check_health(_: Context) -> Result<Value, StepError> {
    Ok(json!({ "well": true }))
}

async fn rebalance(_: Context) -> Result<Value, StepError> {
    Ok(json!({ "shifted": 420 }))
}

async fn compound(_: Context) -> Result<Value, StepError> {
    Ok(json!({ "amount": 137_000_000 }))
}

async fn harvest(context: Context) -> Result<Value, StepError> {
    context.output("COMPOUND")
}

/// Has so many tasks run the pipeline one time after the other, on a new store.
fn steps_per_s(dir: &Path, runs_at_once: usize, time: Duration) -> Result<f64, Problem> {
    let store = dir.join(format!("lidless-{runs_at_once}.db"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (runs, took) = runtime.block_on(async {
        let vault = Pipeline::new("vault")
            .step("HEALTH_CHECK", check_health)
            .step("REBALANCE", rebalance)
            .step("COMPOUND", compound)
            .step("HARVEST", harvest)
            .store(store)
            .open()
            .await?;
        let began = Instant::now();
        let tasks: Vec<_> = (0..runs_at_once)
            .map(|_| {
                let vault = vault.clone();
                tokio::spawn(async move {
                    let mut runs = 0_u64;
                    while began.elapsed() < time {
                        let report = vault.run(()).await?;
                        if !report.success {
                            return Err(format!("{report}: {:?}", report.error).into());
                        }
                        runs += 1;
                    }
                    Ok::<_, Problem>(runs)
                })
            })
            .collect();
        let mut runs = 0;
        for task in tasks {
            runs += task.await??;
        }
        let took = began.elapsed();
        vault.close().await?;
        Ok::<_, Problem>((runs, took))
    })?;
    Ok(STEPS * runs as f64 / took.as_secs_f64())
}

fn middle(rounds: &[Round], of: impl Fn(&Round) -> Option<f64>) -> Option<f64> {
    let mut values: Vec<f64> = rounds.iter().filter_map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn print(rounds: &[Round]) {
    let mut table = Table::new(&["the middle of all rounds", "1 run", "64 runs", "wanted"]);
    let number = |of: fn(&Round) -> Option<f64>| {
        middle(rounds, of).map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"))
    };
    let ratio = |of: fn(&Round) -> Option<f64>| {
        middle(rounds, of).map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
    };
    let none = String::new;
    let mut row = |cells: [String; 4]| table.row(cells.to_vec());
    row(["synced writes a second".to_owned(), number(|round| Some(round.synced_writes)), none(), none()]);
    row([
        "steps a second".to_owned(),
        number(|round| Some(round.steps_one)),
        number(|round| Some(round.steps_many)),
        none(),
    ]);
    row([
        "two records a step / synced writes".to_owned(),
        ratio(|round| Some(RECORDS * round.steps_one / round.synced_writes)),
        none(),
        "0.50 at 1".to_owned(),
    ]);
    row([
        "SQLite's own group commit, records a second".to_owned(),
        none(),
        number(|round| Some(round.sqlite_group)),
        none(),
    ]);
    row([
        "two records a step / SQLite's own".to_owned(),
        none(),
        ratio(|round| Some(RECORDS * round.steps_many / round.sqlite_group)),
        "0.75 at 64".to_owned(),
    ]);
    row([
        "Restate, steps a second".to_owned(),
        number(|round| round.restate_one),
        number(|round| round.restate_many),
        none(),
    ]);
    row([
        "lidless / Restate".to_owned(),
        ratio(|round| Some(round.steps_one / round.restate_one?)),
        ratio(|round| Some(round.steps_many / round.restate_many?)),
        "10 at 64".to_owned(),
    ]);
    table.print();
}
