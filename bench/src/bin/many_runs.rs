//! Does memory stay small when there is much to remember? Pipelines of ten thousand steps, a thousand runs at once, killed half
//! way.
//!
//! Each case runs in a process of its own, whose peak is the kernel's own figure (`VmHWM`). One half way through is killed with
//! SIGKILL, and a second one finishes what it left.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use lidless::{Context, Pipeline, StepError};
use lidless_bench::process::wait_until;
use lidless_bench::report::{self, Machine, Table};
use lidless_bench::{Problem, lidless as daemon, process};
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// More than this no process may have had in memory.
const PEAK_MAX_MIB: f64 = 200.0;
const RUN_STEPS: usize = 4;
/// A step of commands costs a process each: longer than this nobody waits for all of them.
const COMMANDS_WITHIN: Duration = Duration::from_secs(600);

/// Measures memory where there are many steps, or many runs
#[derive(Debug, Parser)]
struct Args {
    /// Steps of the long pipeline
    #[arg(long, default_value_t = 10_000)]
    steps: usize,
    /// Runs at once
    #[arg(long, default_value_t = 1_000)]
    runs: usize,
    /// How often all of them run again
    #[arg(long, default_value_t = 3)]
    again: usize,
    /// Leave out the cases in which `lidless serve` runs a command for each step
    #[arg(long)]
    library: bool,
    /// For the bench itself: be the process that is measured
    #[arg(long, hide = true)]
    child: Option<Case>,
    #[arg(long, hide = true)]
    store: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Case {
    Steps,
    Runs,
}

/// What one process had to say at its end, or what was seen of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Peak {
    case: String,
    peak_mib: f64,
    seconds: f64,
    records: u64,
    journal_mib: f64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match (args.child, &args.store) {
        (Some(case), Some(store)) => be(case, &args, store).map(|()| true),
        _ => run(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("many_runs failed: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool, Problem> {
    let machine = Machine::look();
    process::clean_up_on_signals()?;
    let target = report::workspace().join("target");
    std::fs::create_dir_all(&target)?;
    let mut peaks = Vec::new();
    for (case, word) in [(Case::Steps, "steps"), (Case::Runs, "runs")] {
        let dir = tempfile::tempdir_in(&target)?;
        let whole = of_library(args, case, word, &dir.path().join("whole.db"), false)?;
        peaks.push(Peak { case: format!("library, {word}"), ..whole });
        let store = dir.path().join("killed.db");
        let half = of_library(args, case, word, &store, true)?;
        peaks.push(Peak { case: format!("library, {word}, until killed half way"), ..half });
        let rest = of_library(args, case, word, &store, false)?;
        peaks.push(Peak { case: format!("library, {word}, the one after"), ..rest });
    }
    if !args.library {
        let dir = tempfile::tempdir_in(&target)?;
        of_commands(args, dir.path(), &mut peaks)?;
    }
    let mut table = Table::new(&["case", "peak MiB", "seconds", "records", "journal MiB"]);
    for peak in &peaks {
        let Peak { case, peak_mib, seconds, records, journal_mib } = peak;
        table.row(vec![
            case.clone(),
            format!("{peak_mib:.1}"),
            format!("{seconds:.1}"),
            records.to_string(),
            format!("{journal_mib:.1}"),
        ]);
    }
    table.print();
    report::write(
        "many_runs",
        &serde_json::json!({ "machine": machine, "limit_mib": PEAK_MAX_MIB, "peaks": peaks }),
    )?;
    let over: Vec<_> = peaks.iter().filter(|peak| peak.peak_mib > PEAK_MAX_MIB).collect();
    for peak in &over {
        eprintln!("{}: {:.1} MiB are more than {PEAK_MAX_MIB}", peak.case, peak.peak_mib);
    }
    Ok(over.is_empty())
}

/// Runs a case in a child; with `kill` only until half of it is done. The child prints how many steps are done, and at last its peak.
fn of_library(args: &Args, case: Case, word: &str, store: &Path, kill: bool) -> Result<Peak, Problem> {
    println!("library, {word}{} ...", if kill { ", killed half way" } else { "" });
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--child", word, "--store"]).arg(store);
    for (name, value) in [("--steps", args.steps), ("--runs", args.runs), ("--again", args.again)] {
        command.arg(name).arg(value.to_string());
    }
    let began = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let half = match case {
        Case::Steps => args.steps / 2,
        Case::Runs => args.runs * RUN_STEPS / 2,
    };
    let output = child.stdout.take().ok_or("a child without output")?;
    let (mut peak_mib, mut killed) = (0.0, false);
    for line in BufReader::new(output).lines() {
        let line = line?;
        if kill && !killed && line.parse::<usize>().is_ok_and(|done| done >= half) {
            peak_mib = peak(child.id())?;
            child.kill()?;
            killed = true;
        } else if let Some(said) = line.strip_prefix("peak ") {
            peak_mib = said.parse()?;
        }
    }
    let status = child.wait()?;
    if killed != kill || (!kill && !status.success()) {
        return Err(format!("the process that runs {word} ended with {status}").into());
    }
    let seconds = began.elapsed().as_secs_f64();
    let (records, journal_mib) = journal(store)?;
    Ok(Peak { case: String::new(), peak_mib, seconds, records, journal_mib })
}

/// The process that is measured.
fn be(case: Case, args: &Args, store: &Path) -> Result<(), Problem> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match case {
        Case::Steps => runtime.block_on(steps(args.steps, store))?,
        Case::Runs => runtime.block_on(runs(args, store))?,
    }
    println!("peak {}", peak(std::process::id())?);
    Ok(())
}

/// Counts the steps that are done, and says so now and then.
#[derive(Clone, Default)]
struct Done(Arc<AtomicUsize>);

impl Done {
    fn count(&self) {
        let done = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(100) {
            println!("{done}");
        }
    }
}

async fn steps(count: usize, store: &Path) -> Result<(), Problem> {
    let done = Done::default();
    let mut pipeline = Pipeline::new("long").store(store);
    for index in 0..count {
        let done = done.clone();
        pipeline = pipeline.step(format!("STEP_{index}"), move |context: Context| {
            let done = done.clone();
            async move {
                done.count();
                // Each needs what the one before has put out.
                let before: usize = match index {
                    0 => 0,
                    _ => context.output(&format!("STEP_{}", index - 1))?,
                };
                Ok::<_, StepError>(before + 1)
            }
        });
    }
    let composed = pipeline.open().await?;
    let settled = composed.settled().await?;
    let report = match settled.into_iter().next() {
        Some(report) => report,
        None => composed.run(()).await?,
    };
    let last = report.steps.last().and_then(|step| step.output.clone());
    if !report.success || last != Some(count.into()) {
        return Err(format!("{report}: {:?}, {last:?}", report.error).into());
    }
    Ok(composed.close().await?)
}

/// All at once, and all again; where an earlier process left some, those first.
async fn runs(args: &Args, store: &Path) -> Result<(), Problem> {
    let (count, done) = (args.runs, Done::default());
    // The first step of each waits for all the others: they are under way at once.
    let (all, gate) = watch::channel(0_usize);
    let all = Arc::new(all);
    let mut pipeline = Pipeline::new("many").store(store).concurrency(u32::try_from(count)?);
    for name in ["HEALTH_CHECK", "REBALANCE", "COMPOUND", "HARVEST"] {
        let (done, all, gate) = (done.clone(), Arc::clone(&all), gate.clone());
        pipeline = pipeline.step(name, move |context: Context| {
            let (done, all, mut gate) = (done.clone(), Arc::clone(&all), gate.clone());
            async move {
                let round: usize = context.input("round")?;
                if context.step() == "HEALTH_CHECK" {
                    all.send_modify(|began| *began += 1);
                    gate.wait_for(|began| *began >= (round + 1) * count).await?;
                }
                done.count();
                Ok::<_, StepError>(format!("{} is done in {}", context.step(), context.run()))
            }
        });
    }
    let composed = pipeline.open().await?;
    // Those of an earlier process do not come all at once.
    all.send_modify(|began| *began = count);
    for report in composed.settled().await? {
        if !report.success {
            return Err(format!("{report}: {:?}", report.error).into());
        }
    }
    all.send_modify(|began| *began = 0);
    for round in 0..=args.again {
        let tasks: Vec<_> = (0..count)
            .map(|number| {
                let composed = composed.clone();
                let inputs = serde_json::json!({ "round": round, "number": number });
                tokio::spawn(async move { composed.run(inputs).await })
            })
            .collect();
        for task in tasks {
            let report = task.await??;
            if !report.success {
                return Err(format!("{report}: {:?}", report.error).into());
            }
        }
    }
    Ok(composed.close().await?)
}

/// The same through the daemon, where each step is a command, each run waits for the one before, and has a key: in the end more of
/// them than are remembered.
fn of_commands(args: &Args, dir: &Path, peaks: &mut Vec<Peak>) -> Result<(), Problem> {
    let binary = daemon::binary()?;
    let config = dir.join("lidless.yaml");
    let mut text = format!(
        "version: 1\nsite: bench\nweb: off\nstore: {{ path: \"{}\" }}\npipelines:\n  many:\n    steps:\n",
        daemon::store(dir).display()
    );
    let step = |name: String| format!("      - {name}: {{ call: {{ exec: [\"true\"] }} }}\n");
    (0..RUN_STEPS).for_each(|index| text += &step(format!("STEP_{index}")));
    text += "  long:\n    steps:\n";
    (0..args.steps).for_each(|index| text += &step(format!("STEP_{index}")));
    std::fs::write(&config, text)?;
    let mut lidless = daemon::serve(&binary, &config)?;
    let socket = format!("unix:{}", dir.join("lidless.sock").display());
    let client = |args: &[&str]| -> Result<bool, Problem> {
        let output =
            Command::new(&binary).args(["--connect", &socket]).args(args).stdin(Stdio::null()).output()?;
        Ok(output.status.success())
    };
    if !wait_until(Duration::from_secs(60), Duration::from_millis(50), || {
        client(&["status"]).unwrap_or(false)
    }) {
        return Err(format!("lidless does not answer: {}", lidless.last_words()).into());
    }
    println!("commands, {} runs ...", args.runs);
    let mut began = Instant::now();
    let mut records = journal(&daemon::store(dir))?.0;
    let mut note = |lidless: &process::Guarded, case: &str, began: Instant| -> Result<(), Problem> {
        let (now, journal_mib) = journal(&daemon::store(dir))?;
        let seconds = began.elapsed().as_secs_f64();
        let case = format!("lidless serve, {case}");
        peaks.push(Peak {
            case,
            peak_mib: peak(lidless.pid())?,
            seconds,
            records: now - records,
            journal_mib,
        });
        records = now;
        Ok(())
    };
    let of_run = 2 + 2 * RUN_STEPS as u64;
    let written =
        |runs: usize| journal(&daemon::store(dir)).is_ok_and(|found| found.0 >= runs as u64 * of_run);
    for number in 0..args.runs {
        if !client(&["run", "many", "--queue", "--no-wait", "--key", &format!("key-{number}")])? {
            return Err("a run was not taken".into());
        }
    }
    let pause = Duration::from_millis(100);
    wait_until(COMMANDS_WITHIN, pause, || written(args.runs / 2));
    note(&lidless, "runs, until killed half way", began)?;
    lidless.kill()?;
    began = Instant::now();
    lidless = daemon::serve(&binary, &config)?;
    if !wait_until(COMMANDS_WITHIN, pause, || written(args.runs)) {
        return Err(format!("the runs do not end: {}", lidless.last_words()).into());
    }
    note(&lidless, "runs, the one after", began)?;
    began = Instant::now();
    // All keys again, and as many new ones.
    for number in 0..2 * args.runs {
        if !client(&["run", "many", "--queue", "--no-wait", "--key", &format!("key-{number}")])? {
            return Err("a run was not taken".into());
        }
    }
    if !wait_until(COMMANDS_WITHIN, pause, || written(2 * args.runs)) {
        return Err(format!("the runs do not end: {}", lidless.last_words()).into());
    }
    note(&lidless, "runs, all again and as many more", began)?;
    println!("commands, {} steps ...", args.steps);
    began = Instant::now();
    if !client(&["run", "long", "--timeout", "10m"])? {
        return Err(format!("the long run is not done: {}", lidless.last_words()).into());
    }
    note(&lidless, "steps", began)?;
    lidless.stop(Duration::from_secs(20))?;
    Ok(())
}

/// The most that a process has had in memory.
fn peak(pid: u32) -> Result<f64, Problem> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// How many records there are, and what the journal takes on the disk.
fn journal(store: &Path) -> Result<(u64, f64), Problem> {
    let conn = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    conn.busy_timeout(Duration::from_secs(5))?;
    let records: Option<i64> = conn.query_row("SELECT max(seq) FROM journal", [], |row| row.get(0))?;
    let bytes: u64 = ["", "-wal"]
        .iter()
        .filter_map(|end| {
            let mut name = store.as_os_str().to_owned();
            name.push(end);
            std::fs::metadata(name).ok()
        })
        .map(|about| about.len())
        .sum();
    Ok((u64::try_from(records.unwrap_or(0))?, bytes as f64 / f64::from(1 << 20)))
}
