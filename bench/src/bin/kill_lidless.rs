//! What does kill -9 of lidless break, in the middle of its healing? Nothing, or this ends with a code other than zero.
//!
//! Five services are broken without pause while lidless itself is killed at random moments. What is looked for: two live
//! instances of one service, an instance restarted that nobody broke, an event that a client has seen and the journal has
//! not, a service that stays unwell, a journal that does not verify.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use lidless_bench::demo::{Fault, Service};
use lidless_bench::figures::Random;
use lidless_bench::journal::{self, Events};
use lidless_bench::process::{self, Marked, wait_until};
use lidless_bench::report::{self, Machine, Table};
use lidless_bench::torment::{Injection, Overlap, inject, overlaps, unprovoked};
use lidless_bench::{Problem, lidless};
use serde::Serialize;

const SERVICES: usize = 5;
const HEALTHY_WITHIN: Duration = Duration::from_secs(30);

/// Kills lidless at random while it heals, and looks for what that broke
#[derive(Debug, Parser)]
struct Args {
    /// How often lidless is killed
    #[arg(long, default_value_t = 200)]
    rounds: u32,
    /// The seed of moments and faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave the directory with config, store and logs behind
    #[arg(long)]
    keep: bool,
}

/// What the watching threads share.
#[derive(Default)]
struct Shared {
    /// No more faults.
    calm: AtomicBool,
    /// No more of anything.
    over: AtomicBool,
    injections: Mutex<Vec<Injection>>,
    seen: Mutex<Seen>,
    overlaps: Mutex<Vec<Overlap>>,
}

/// What clients of lidless were told.
#[derive(Default)]
struct Seen {
    events: Events,
    reads: u32,
    /// How many events they saw, the final reading excepted.
    distinct: usize,
    contradictions: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Results {
    machine: Machine,
    seed: u64,
    kills: u32,
    faults: usize,
    starts: usize,
    events_seen: usize,
    events_in_the_end: usize,
    reads_by_clients: u32,
    healthy_after_s: f64,
    verify: String,
    violations: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("kill_lidless failed: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool, Problem> {
    process::clean_up_on_signals()?;
    let binary = lidless::binary()?;
    let machine = Machine::look();
    let dir = tempfile::Builder::new().prefix("lidless-kill-").disable_cleanup(args.keep).tempdir()?;
    // Before lidless starts, so that it is dropped after: the services outlive lidless, and must not outlive us.
    let instances = Marked::new(format!("{}/app-", dir.path().display()));
    let mut services: Vec<Service> = Vec::new();
    for index in 0..SERVICES {
        let from_port = services.last().map_or(20_000, |s: &Service| s.port + 1);
        services.push(Service::new(dir.path(), &format!("app-{index}"), from_port)?);
    }
    // Time-out and proof are short, for lidless lives 160 ms on average: longer ones would never be over.
    let (every, timeout) = (Duration::from_millis(50), Duration::from_millis(100));
    let (confirm_every, stay) = (Duration::from_millis(20), Duration::from_millis(50));
    let watch = lidless::Watch { every, timeout, confirm_every, fail_after: 2, stay };
    let config = lidless::healing(dir.path(), &binary, &services, watch)?;
    let shared = Shared::default();
    let healthy_after = std::thread::scope(|scope| {
        scope.spawn(|| torment(&services, &shared, Random::new(args.seed + 1)));
        scope.spawn(|| look_for_overlaps(dir.path(), &services, &shared));
        scope.spawn(|| follow(&binary, dir.path(), &shared));
        let ended = kill_and_heal(args, &binary, &config, &services, &shared);
        shared.calm.store(true, Ordering::SeqCst);
        shared.over.store(true, Ordering::SeqCst);
        ended
    })?;
    let mut results = summing_up(args, &binary, dir.path(), machine, healthy_after, &services, &shared);
    let left = instances.find().len();
    if left != SERVICES {
        results.violations.push(format!("{left} instances live in the end, not {SERVICES}"));
    }
    print(&results);
    report::write("kill_lidless", &results)?;
    if args.keep {
        println!("kept {}", dir.path().display());
    }
    Ok(results.violations.is_empty())
}

/// Starts and kills lidless; then lets it heal in peace. Returns how long that took.
fn kill_and_heal(
    args: &Args,
    binary: &Path,
    config: &Path,
    services: &[Service],
    shared: &Shared,
) -> Result<Option<Duration>, Problem> {
    let mut random = Random::new(args.seed);
    let mut told = Instant::now();
    for round in 1..=args.rounds {
        let mut lidless = lidless::serve(binary, config)?;
        std::thread::sleep(random.between(Duration::from_millis(20), Duration::from_millis(300)));
        lidless.must_live()?;
        lidless.kill()?;
        if told.elapsed() > Duration::from_secs(2) {
            told = Instant::now();
            let faults = lock(&shared.injections).len();
            println!(
                "killed {round}/{} times, {faults} faults, {} events seen",
                args.rounds,
                lock(&shared.seen).events.len()
            );
        }
    }
    shared.calm.store(true, Ordering::SeqCst);
    println!("no more faults; {HEALTHY_WITHIN:?} to heal all of them");
    let mut lidless = lidless::serve(binary, config)?;
    let began = Instant::now();
    let well = wait_until(HEALTHY_WITHIN, Duration::from_millis(20), || {
        services.iter().all(|s| lidless_bench::http::is_well(s.port))
    });
    let healthy_after = well.then(|| began.elapsed());
    // Being well is not yet known to be well: the last heals are verified and journalled within a second or so.
    let dir = config.parent().unwrap_or(Path::new("."));
    let mut last = 0;
    // Quiet is a reading that brings nothing new; one that fails only says that lidless does not answer yet.
    wait_until(Duration::from_secs(15), Duration::from_secs(1), || match journal::read(binary, dir, last) {
        Ok(events) => {
            last = events.keys().next_back().copied().unwrap_or(last);
            events.is_empty()
        }
        Err(_) => false,
    });
    lidless.must_live()?;
    lidless.stop(Duration::from_secs(20))?;
    let all = journal::read_store(binary, dir)?;
    println!("the journal holds {} events", all.len());
    compare(&mut lock(&shared.seen), all);
    Ok(healthy_after)
}

/// What was seen must be in the journal; what is in the journal need not have been seen.
fn compare(seen: &mut Seen, all: Events) {
    for (seq, event) in &seen.events {
        match all.get(seq) {
            Some(same) if same == event => {}
            Some(other) => seen.contradictions.push(format!("event {seq} was {event} and is {other}")),
            None => seen.contradictions.push(format!("event {seq} was seen and is lost: {event}")),
        }
    }
    let gap = all.keys().zip(all.keys().skip(1)).find(|(a, b)| *a + 1 != **b);
    if let Some((before, after)) = gap {
        seen.contradictions.push(format!("no events between {before} and {after}"));
    }
    seen.distinct = seen.events.len();
    seen.events = all;
}

fn torment(services: &[Service], shared: &Shared, mut random: Random) {
    while !shared.calm.load(Ordering::SeqCst) {
        std::thread::sleep(random.between(Duration::from_millis(20), Duration::from_millis(150)));
        let index = usize::try_from(random.below(SERVICES as u64)).unwrap_or(0);
        // Those that need no time-out more often: they are healed within one life of lidless.
        let fault = *random.pick(&[
            Fault::Kill,
            Fault::Kill,
            Fault::Kill,
            Fault::Exit,
            Fault::Status500,
            Fault::Status500,
            Fault::Hang,
            Fault::Drip,
        ]);
        if let Some(injection) = inject(services, index, fault) {
            lock(&shared.injections).push(injection);
        }
    }
}

fn look_for_overlaps(dir: &Path, services: &[Service], shared: &Shared) {
    while !shared.over.load(Ordering::SeqCst) {
        let found = overlaps(dir, services);
        lock(&shared.overlaps).extend(found);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads events as clients do, from the last one seen; an unreachable lidless is no answer, not a loss.
fn follow(binary: &Path, dir: &Path, shared: &Shared) {
    while !shared.over.load(Ordering::SeqCst) {
        // Some come again, so that a body that changed would be noticed at once.
        let after = lock(&shared.seen).events.keys().next_back().map_or(0, |last| last.saturating_sub(3));
        if let Ok(new) = journal::read(binary, dir, after) {
            let mut seen = lock(&shared.seen);
            seen.reads += 1;
            for (seq, event) in new {
                if let Some(before) = seen.events.get(&seq).filter(|before| **before != event) {
                    let contradiction = format!("event {seq} was {before} and became {event}");
                    seen.contradictions.push(contradiction);
                } else {
                    seen.events.insert(seq, event);
                }
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn summing_up(
    args: &Args,
    binary: &Path,
    dir: &Path,
    machine: Machine,
    healthy_after: Option<Duration>,
    services: &[Service],
    shared: &Shared,
) -> Results {
    let seen = lock(&shared.seen);
    let mut violations = seen.contradictions.clone();
    for overlap in lock(&shared.overlaps).iter() {
        violations.push(format!(
            "two live instances of app-{}: {} and {}",
            overlap.service, overlap.pids.0, overlap.pids.1
        ));
    }
    let injections = lock(&shared.injections);
    for (index, service) in services.iter().enumerate() {
        violations.extend(service.refused().into_iter().map(|line| format!("app-{index}: {line}")));
        violations.extend(unprovoked(index, service, &injections, &seen.events));
    }
    if healthy_after.is_none() {
        violations.push(format!("not all services were well within {HEALTHY_WITHIN:?}"));
    }
    let verify = match journal::verify(binary, dir) {
        Ok(said) => said.trim().to_owned(),
        Err(problem) => {
            violations.push(problem.to_string());
            "failed".to_owned()
        }
    };
    Results {
        machine,
        seed: args.seed,
        kills: args.rounds,
        faults: injections.len(),
        starts: services.iter().map(|s| s.stamps().len()).sum(),
        events_seen: seen.distinct,
        events_in_the_end: seen.events.len(),
        reads_by_clients: seen.reads,
        healthy_after_s: healthy_after.unwrap_or_default().as_secs_f64(),
        verify,
        violations,
    }
}

fn print(results: &Results) {
    let mut table = Table::new(&["what", "count"]);
    let mut row = |what: &str, count: String| table.row(vec![what.to_owned(), count]);
    row("kills of lidless", results.kills.to_string());
    row("faults injected", results.faults.to_string());
    row("instances started", results.starts.to_string());
    row("reads by clients", results.reads_by_clients.to_string());
    row("events seen by them", results.events_seen.to_string());
    row("events in the journal", results.events_in_the_end.to_string());
    row("all healthy after, s", format!("{:.2}", results.healthy_after_s));
    row("violations", results.violations.len().to_string());
    table.print();
    println!("store verify: {}", results.verify);
    for violation in results.violations.iter().take(20) {
        println!("VIOLATION: {violation}");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
