//! What does kill -9 break in the middle of pipelines that move value? Nothing, or this ends with a code other than zero.
//!
//! Pipelines of real commands run while lidless is killed at random moments, and the commands too. Each effect is a line in a
//! ledger with its idempotency key. What is looked for: a key booked twice, a run that says that it is done and has no line,
//! a line of a run that nobody knows, a run that never ends, a journal that does not verify.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use lidless_bench::figures::Random;
use lidless_bench::process::{self, Marked, wait_until};
use lidless_bench::report::{self, Machine, Table};
use lidless_bench::{Problem, journal, lidless};
use serde::Serialize;
use serde_json::Value;

const PIPELINES: usize = 6;
const OVER_WITHIN: Duration = Duration::from_secs(120);

/// The step: takes its time, books its key, takes its time again, answers. Asked with `--look`, and not finding the key, it
/// fences the attempt off before it says "no": a "no" must stay true, though the attempt's process may still be on its way.
const BOOK: &str = r#"#!/bin/sh
mine="$LIDLESS_RUN $LIDLESS_STEP"
exec 9>lock
if [ "$1" = --look ]; then
  flock 9
  if grep -q "^$mine $LIDLESS_IDEMPOTENCY_KEY$" ledger 2>/dev/null; then
    echo '{"applied":true,"evidence":"in the ledger"}'
  else
    echo "$mine $LIDLESS_ATTEMPT" >> fenced
    echo '{"applied":false,"evidence":"not in the ledger, and fenced off"}'
  fi
  exit
fi
echo "$mine $$" >> started
sleep 0.0$(( $$ % 7 ))
flock 9
grep -q "^$mine $LIDLESS_ATTEMPT$" fenced 2>/dev/null && exit 1
echo "$mine $LIDLESS_IDEMPOTENCY_KEY" >> ledger
flock -u 9
sleep 0.0$(( $$ % 5 ))
echo '{"ok":true}'
"#;

/// A person who looks does the same for the one attempt of a one-shot step.
const LOOK: &str = r#"exec 9>lock; flock 9
if grep -q "^$1 " ledger 2>/dev/null; then echo yes; else echo "$1 1" >> fenced; echo no; fi"#;

/// Kills lidless at random while pipelines move value, and looks for what that broke
#[derive(Debug, Parser)]
struct Args {
    /// How often lidless is killed, at least
    #[arg(long, default_value_t = 500)]
    kills: u32,
    /// How many runs are begun
    #[arg(long, default_value_t = 300)]
    runs: usize,
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
    kills_of_steps: usize,
    runs: usize,
    done: usize,
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
    let place = Place { binary: &binary, dir: dir.path() };
    let shared = Shared::default();
    let began = Instant::now();
    let kills = std::thread::scope(|scope| {
        scope.spawn(|| ask(&place, args.runs, &shared));
        scope.spawn(|| kill_steps(&place, &shared, Random::new(args.seed + 1)));
        let ended = kill_lidless(args, &place, &config, &shared);
        shared.calm.store(true, Ordering::SeqCst);
        shared.over.store(true, Ordering::SeqCst);
        ended
    })?;
    let results = summing_up(args, &place, machine, kills, began.elapsed(), &shared)?;
    drop(steps);
    print(&results);
    report::write("crash_runs", &results)?;
    if args.keep {
        println!("kept {}", dir.path().display());
    }
    Ok(results.violations.is_empty())
}

fn configuration(dir: &Path, text_of_script: &str) -> Result<PathBuf, Problem> {
    let script = dir.join("book");
    fs::write(&script, text_of_script)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let mut text = format!(
        "version: 1\nsite: bench\nweb: off\nstore: {{ path: \"{}\" }}\npipelines:\n",
        lidless::store(dir).display()
    );
    for index in 0..PIPELINES {
        text.push_str(&format!(
            "  p{index}:\n    steps:\n      - LOOK: {{ call: {{ exec: [\"true\"] }}, class: pure }}\n      \
             - PAY: {{ call: {{ exec: [./book] }}, confirm: {{ exec: [./book, --look], tries: 1000 }}, retry: {{ attempts: 5, \
             backoff: 10ms..50ms }}, value: {{}} }}\n      \
             - SEND: {{ call: {{ exec: [./book] }}, class: one_shot, value: {{}} }}\n      \
             - TELL: {{ call: {{ exec: [\"true\"] }} }}\n"
        ));
    }
    let path = dir.join("lidless.yaml");
    fs::write(&path, text)?;
    Ok(path)
}

/// Where everything is.
#[derive(Clone, Copy)]
struct Place<'a> {
    binary: &'a Path,
    dir: &'a Path,
}

impl Place<'_> {
    /// Asks lidless something; none where it does not answer, or refuses.
    fn ask(&self, arguments: &[&str]) -> Option<Value> {
        let mut command = Command::new(self.binary);
        command.arg("--config").arg(self.dir.join("lidless.yaml")).args(arguments).arg("--json");
        let output = command.output().ok()?;
        output.status.success().then(|| serde_json::from_slice(&output.stdout).ok())?
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Whether a step of a run took effect; if not, it never will.
    fn look(&self, run: &str, step: &str) -> Option<bool> {
        let mut command = Command::new("sh");
        command.args(["-c", LOOK, "look", &format!("{run} {step}")]).current_dir(self.dir);
        match command.output().ok()?.stdout.as_slice() {
            b"yes\n" => Some(true),
            b"no\n" => Some(false),
            _ => None,
        }
    }
}

/// Begins runs as they find room, and says what became of steps that wait for a person: the truth.
fn ask(place: &Place<'_>, wanted: usize, shared: &Shared) {
    while !shared.over.load(Ordering::SeqCst) {
        for index in 0..PIPELINES {
            if shared.begun.load(Ordering::SeqCst) < wanted
                && place.ask(&["run", &format!("p{index}"), "--no-wait"]).is_some()
            {
                shared.begun.fetch_add(1, Ordering::SeqCst);
            }
        }
        let runs = place.ask(&["runs"]).unwrap_or_default();
        for run in runs["runs"].as_array().into_iter().flatten().filter(|run| run["state"] == "held") {
            let (Some(id), Some(step)) = (run["id"].as_str(), run["at"].as_str()) else { continue };
            let Some(booked) = place.look(id, step) else { continue };
            let says = if booked { "--applied" } else { "--not-applied" };
            let mut command = Command::new(place.binary);
            command.arg("--config").arg(place.dir.join("lidless.yaml"));
            command.args(["resolve", id, step, says, "--evidence", "the ledger", "--json"]);
            // Its exit code is that of the run; whether it was taken is seen in the next round.
            if command.output().is_ok() {
                shared.resolved.fetch_add(1, Ordering::SeqCst);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Kills the youngest step now and then.
fn kill_steps(place: &Place<'_>, shared: &Shared, mut random: Random) {
    while !shared.calm.load(Ordering::SeqCst) {
        std::thread::sleep(random.between(Duration::from_millis(50), Duration::from_millis(400)));
        let started = place.lines("started");
        let pid = started.last().and_then(|line| line.rsplit(' ').next()?.parse().ok());
        let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) else { continue };
        let own = fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        if own.contains("book") && rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok() {
            shared.killed_steps.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Starts and kills lidless until it was killed often enough and all runs have begun; then lets it finish in peace.
fn kill_lidless(args: &Args, place: &Place<'_>, config: &Path, shared: &Shared) -> Result<u32, Problem> {
    let mut random = Random::new(args.seed);
    let (mut kills, mut told) = (0, Instant::now());
    while kills < args.kills || shared.begun.load(Ordering::SeqCst) < args.runs {
        let mut lidless = lidless::serve(place.binary, config)?;
        std::thread::sleep(random.between(Duration::from_millis(20), Duration::from_millis(400)));
        lidless.must_live()?;
        lidless.kill()?;
        kills += 1;
        if told.elapsed() > Duration::from_secs(2) {
            told = Instant::now();
            let begun = shared.begun.load(Ordering::SeqCst);
            println!("killed {kills} times, {begun} of {} runs begun", args.runs);
        }
    }
    shared.calm.store(true, Ordering::SeqCst);
    println!("no more kills; {OVER_WITHIN:?} for all runs to end");
    let mut lidless = lidless::serve(place.binary, config)?;
    let all_over = wait_until(OVER_WITHIN, Duration::from_millis(50), || {
        place.ask(&["runs"]).is_some_and(|runs| {
            let open = |run: &Value| run["ended"].is_null();
            !runs["runs"].as_array().into_iter().flatten().any(open)
        })
    });
    lidless.must_live()?;
    lidless.stop(Duration::from_secs(20))?;
    if all_over { Ok(kills) } else { Err("runs are still open".into()) }
}

/// What the journal says of a run.
#[derive(Default)]
struct Known {
    done: bool,
    over: bool,
    /// Steps that took effect, as far as the run knows.
    applied: BTreeSet<String>,
    names: Vec<String>,
}

fn summing_up(
    args: &Args,
    place: &Place<'_>,
    machine: Machine,
    kills: u32,
    took: Duration,
    shared: &Shared,
) -> Result<Results, Problem> {
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    for event in journal::read_store(place.binary, place.dir)?.values() {
        learn(&mut known, &event["record"]);
    }
    let ledger = place.lines("ledger");
    let mut violations = Vec::new();
    let mut times: BTreeMap<&str, u32> = BTreeMap::new();
    for line in &ledger {
        *times.entry(line).or_default() += 1;
        let (run, step) = run_and_step(line);
        if !known.contains_key(run) {
            violations.push(format!("{run}, which nobody knows, did {step}"));
        }
    }
    violations.extend(
        times
            .iter()
            .filter(|(_, times)| **times > 1)
            .map(|(line, times)| format!("booked {times} times: {line}")),
    );
    for (run, known) in &known {
        if !known.over {
            violations.push(format!("{run} never ended"));
        }
        for step in ["PAY", "SEND"] {
            let booked = ledger.iter().any(|line| run_and_step(line) == (run, step));
            match (known.applied.contains(step), booked) {
                (true, false) => violations.push(format!("{run} says that {step} is done, and it is not")),
                (false, true) => violations.push(format!("{run} does not know that {step} was done")),
                (true, true) | (false, false) => {}
            }
        }
    }
    if known.len() < args.runs {
        violations.push(format!("{} runs are on record, and {} were acknowledged", known.len(), args.runs));
    }
    let verify = match journal::verify(place.binary, place.dir) {
        Ok(said) => said.trim().to_owned(),
        Err(problem) => {
            violations.push(problem.to_string());
            "failed".to_owned()
        }
    };
    let done = known.values().filter(|known| known.done).count();
    Ok(Results {
        machine,
        seed: args.seed,
        kills_of_lidless: kills,
        kills_of_steps: shared.killed_steps.load(Ordering::SeqCst),
        runs: known.len(),
        done,
        failed: known.len() - done,
        steps_resolved_by_hand: shared.resolved.load(Ordering::SeqCst),
        effects: ledger.len(),
        attempts_that_began: place.lines("started").len(),
        took_s: took.as_secs_f64(),
        verify,
        violations,
    })
}

fn run_and_step(line: &str) -> (&str, &str) {
    let mut words = line.split(' ');
    (words.next().unwrap_or_default(), words.next().unwrap_or_default())
}

fn learn(known: &mut BTreeMap<String, Known>, record: &Value) {
    let Some(run) = record["run"].as_u64().map(|run| format!("run-{run}")) else { return };
    let known = known.entry(run).or_default();
    let step = |known: &Known| {
        let at = usize::try_from(record["step"].as_u64().unwrap_or_default()).unwrap_or_default();
        known.names.get(at).cloned().unwrap_or_default()
    };
    match record["event"].as_str().unwrap_or_default() {
        "run_created" => {
            let names = record["steps"].as_array().into_iter().flatten();
            known.names = names.filter_map(|step| Some(step["name"].as_str()?.to_owned())).collect();
        }
        "step_outcome" if record["outcome"]["is"] == "applied" => drop(known.applied.insert(step(known))),
        "step_confirmed" if record["answer"]["is"] == "applied" => drop(known.applied.insert(step(known))),
        "step_resolved" if record["applied"] == true => drop(known.applied.insert(step(known))),
        "run_finished" => (known.over, known.done) = (true, record["verdict"]["is"] == "done"),
        _ => {}
    }
}

fn print(results: &Results) {
    let mut table = Table::new(&["what", "count"]);
    let mut row = |what: &str, count: String| table.row(vec![what.to_owned(), count]);
    row("kills of lidless", results.kills_of_lidless.to_string());
    row("kills of steps", results.kills_of_steps.to_string());
    row("runs", results.runs.to_string());
    row("  done", results.done.to_string());
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
