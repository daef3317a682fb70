//! What breaks in the middle of pipelines that move value? Nothing, or this ends with a code other than zero.
//!
//! Pipelines of real commands run while lidless is killed at random moments, and the commands too; while lidless and commands
//! are stopped for longer than any time-out, and the disk below the journal is full. Each effect is a line in a ledger with its
//! idempotency key. What is looked for: a key booked twice, a run that says that it is done and has no line, a line of a run
//! that nobody knows, a run that was undone and is not, a run that never ends, a journal that does not verify.

mod faults;
mod place;
mod sum;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use clap::Parser;
use lidless_bench::figures::Random;
use lidless_bench::process::{self, Marked};
use lidless_bench::report::{self, Machine, Table};
use lidless_bench::{Problem, lidless};
use serde::Serialize;

use faults::{ask, harass_lidless, harass_steps};
use place::{BOOK, Place, configuration, disk};
use sum::summing_up;

/// We run with mounts of our own, so that a small disk of ours is nobody else's.
const INSIDE: &str = "LIDLESS_BENCH_OWN_MOUNTS";
/// How large that disk is.
const DISK: &str = "size=48m";

/// Kills lidless at random while pipelines move value, and looks for what that broke
#[derive(Debug, Parser)]
struct Args {
    /// How often lidless is killed, at least
    #[arg(long, default_value_t = 500)]
    kills: u32,
    /// How many runs are begun
    #[arg(long, default_value_t = 300)]
    runs: usize,
    /// How often lidless is stopped for longer than any time-out
    #[arg(long, default_value_t = 8)]
    stops: u32,
    /// How often the disk is filled
    #[arg(long, default_value_t = 40)]
    fills: u32,
    /// The seed of moments
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave the directory with config, store and ledger behind
    #[arg(long)]
    keep: bool,
    /// Mutation: the step lies when it is asked whether it booked. This must be caught
    #[arg(long)]
    mutate_lying_confirm: bool,
}

#[derive(Debug, Serialize)]
struct Results {
    machine: Machine,
    seed: u64,
    kills_of_lidless: u32,
    stops_of_lidless: u32,
    full_disks: u32,
    kills_of_steps: usize,
    stops_of_steps: usize,
    runs: usize,
    done: usize,
    undone: usize,
    failed: usize,
    steps_resolved_by_hand: usize,
    effects: usize,
    attempts_that_began: usize,
    took_s: f64,
    verify: String,
    violations: Vec<String>,
}

#[derive(Default)]
struct Shared {
    begun: AtomicUsize,
    resolved: AtomicUsize,
    killed_steps: AtomicUsize,
    stopped_steps: AtomicUsize,
    /// No more kills.
    calm: AtomicBool,
    /// Every run is over.
    over: AtomicBool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("crash_runs failed: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool, Problem> {
    let small_disk = own_mounts();
    process::clean_up_on_signals()?;
    let binary = lidless::binary()?;
    let machine = Machine::look();
    let dir = tempfile::Builder::new().prefix("lidless-runs-").disable_cleanup(args.keep).tempdir()?;
    let steps = Marked::new(format!("{}/book", dir.path().display()));
    let script = match args.mutate_lying_confirm {
        true => BOOK.replace("if grep -q", "if false && grep -q"),
        false => BOOK.to_owned(),
    };
    let config = configuration(dir.path(), &script)?;
    let small_disk = small_disk && mount(&disk(dir.path()))?;
    if !small_disk {
        println!("skipped: filling the disk needs root (CAP_SYS_ADMIN) and `unshare`");
    }
    let place = Place { binary: &binary, dir: dir.path() };
    let shared = Shared::default();
    let began = Instant::now();
    let done = std::thread::scope(|scope| {
        scope.spawn(|| ask(&place, args.runs, &shared));
        scope.spawn(|| harass_steps(&place, &shared, Random::new(args.seed + 1)));
        let ended = harass_lidless(args, &place, &config, small_disk, &shared);
        shared.calm.store(true, Ordering::SeqCst);
        shared.over.store(true, Ordering::SeqCst);
        ended
    })?;
    let results = summing_up(args, &place, machine, done, began.elapsed(), &shared)?;
    drop(steps);
    print(&results);
    report::write("crash_runs", &results)?;
    if args.keep {
        println!("kept {}", dir.path().display());
    }
    Ok(results.violations.is_empty())
}

fn print(results: &Results) {
    let mut table = Table::new(&["what", "count"]);
    let mut row = |what: &str, count: String| table.row(vec![what.to_owned(), count]);
    row("kills of lidless", results.kills_of_lidless.to_string());
    row("stops of lidless, 8 s each", results.stops_of_lidless.to_string());
    row("times that the disk was full", results.full_disks.to_string());
    row("kills of steps", results.kills_of_steps.to_string());
    row("stops of steps, 3 s each", results.stops_of_steps.to_string());
    row("runs", results.runs.to_string());
    row("  done", results.done.to_string());
    row("  undone", results.undone.to_string());
    row("  failed, the step named", results.failed.to_string());
    row("attempts that began", results.attempts_that_began.to_string());
    row("effects", results.effects.to_string());
    row("steps resolved by hand", results.steps_resolved_by_hand.to_string());
    row("seconds", format!("{:.0}", results.took_s));
    row("violations", results.violations.len().to_string());
    table.print();
    println!("store verify: {}", results.verify);
    for violation in results.violations.iter().take(20) {
        println!("VIOLATION: {violation}");
    }
}

/// Begins anew with mounts of our own; false where that cannot be had.
fn own_mounts() -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let unshare = ["--mount", "--propagation", "private"];
    let can = Command::new("unshare").args(unshare).arg("true").output();
    let (Ok(true), Ok(own)) = (can.map(|can| can.status.success()), std::env::current_exe()) else {
        return false;
    };
    let mut anew = Command::new("unshare");
    anew.args(unshare).arg(own).args(std::env::args_os().skip(1)).env(INSIDE, "1");
    // Comes back only where it failed.
    eprintln!("unshare: {}", anew.exec());
    false
}

/// Puts a small disk below the journal.
fn mount(at: &std::path::Path) -> Result<bool, Problem> {
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "none"]).arg(at).status()?;
    Ok(mount.success())
}
