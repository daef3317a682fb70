//! How long from a fault to a new process that listens? lidless beside monit and supervisord, in one run.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lidless_bench::demo::{Fault, Service, nanoseconds};
use lidless_bench::figures::{Random, Summary};
use lidless_bench::process::{self, Guarded, Marked};
use lidless_bench::report::{self, Machine, Table};
use lidless_bench::{Problem, lidless, peers};
use serde::Serialize;

/// `lidless-fast` is lidless with every 50 ms, time-out 200 ms: its floor beside monit's floor.
const CONTESTANTS: [&str; 4] = ["lidless", "lidless-fast", "monit", "supervisord"];
const FAULTS: [Fault; 4] = [Fault::Kill, Fault::Status500, Fault::Hang, Fault::Drip];
/// Whoever has not reacted by then is said never to.
const NEVER: Duration = Duration::from_secs(30);
/// A wait that says "never" is long, and its answer does not vary.
const PEER_DRIPS_MAX: usize = 2;
const NEEDLESS_MAX: usize = 20;

/// Measures the time from an injected fault to a new process that listens
#[derive(Debug, Parser)]
struct Args {
    /// Only this contestant
    #[arg(long, value_parser = CONTESTANTS)]
    only: Option<String>,
    /// Rounds per fault for lidless
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Rounds per fault for the others
    #[arg(long, default_value_t = 5)]
    peers_rounds: usize,
    /// The seed of the phases
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Somebody who watches a service. The fields are dropped in their order: the watcher ends before what it would restart.
struct Contestant {
    name: &'static str,
    version: String,
    watcher: Guarded,
    service: Service,
    rounds: usize,
    /// Restarts of a service that was well.
    needless: usize,
    /// From being well to the next fault: it must have settled, and the phase must be random over its cycle.
    pause: (Duration, Duration),
    _instances: Marked,
    _helpers: Marked,
    _dir: tempfile::TempDir,
}

#[derive(Debug, Serialize)]
struct Row {
    contestant: &'static str,
    fault: &'static str,
    summary: Option<Summary>,
    /// How often nothing happened within `never_after_s`.
    never: usize,
    samples_s: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Results {
    machine: Machine,
    seed: u64,
    never_after_s: u64,
    versions: BTreeMap<&'static str, String>,
    /// Restarts of a service that was well, by contestant.
    needless_restarts: BTreeMap<&'static str, usize>,
    rows: Vec<Row>,
    /// How many times longer the median of a peer is, by fault and peer.
    ratios: BTreeMap<String, f64>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("reaction failed: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Problem> {
    process::clean_up_on_signals()?;
    process::adopt_orphans()?;
    let binary = lidless::binary()?;
    let machine = Machine::look();
    let mut random = Random::new(args.seed);
    let (mut rows, mut versions, mut needless_restarts) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for name in CONTESTANTS {
        if args.only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let Some(mut contestant) = start(name, &binary, args)? else { continue };
        println!("{name}: {}", contestant.version);
        versions.insert(contestant.name, contestant.version.clone());
        for fault in FAULTS {
            rows.push(measure(&mut contestant, fault, &mut random)?);
        }
        needless_restarts.insert(contestant.name, contestant.needless);
        // In good order, so that supervisord can end its own; whatever stays is killed on drop.
        contestant.watcher.stop(Duration::from_secs(10))?;
    }
    let ratios = ratios(&rows);
    print(&rows, &ratios);
    let never_after_s = NEVER.as_secs();
    let seed = args.seed;
    report::write(
        "reaction",
        &Results { machine, seed, never_after_s, versions, needless_restarts, rows, ratios },
    )
}

fn start(name: &'static str, binary: &Path, args: &Args) -> Result<Option<Contestant>, Problem> {
    let skip = || println!("{name}: skipped, it is not installed; `{}` installs it", peers::SETUP);
    let dir = tempfile::Builder::new().prefix("lidless-bench-").tempdir()?;
    let at = dir.path();
    let millis = Duration::from_millis;
    let service = Service::new(at, "app", 19_000)?;
    let (version, watcher, rounds, pause) = match name {
        "monit" => {
            let Some(monit) = peers::monit::find() else {
                skip();
                return Ok(None);
            };
            // It takes some 7 s after a start until it tests a port again.
            let watcher = peers::monit::healing(&monit, at, binary, &service)?;
            (peers::monit::version(&monit), watcher, args.peers_rounds, (millis(8000), millis(9500)))
        }
        "supervisord" => {
            let Some(bin) = peers::supervisord::find() else {
                skip();
                return Ok(None);
            };
            let watcher = peers::supervisord::healing(&bin, at, binary, &service)?;
            (peers::supervisord::version(&bin), watcher, args.peers_rounds, (millis(2000), millis(7000)))
        }
        // The floor of monit is a second each; ours lies lower. Both still ask twice before they act, monit does not.
        _ => {
            let (every, timeout, confirm_every) = match name {
                "lidless-fast" => (millis(50), millis(200), millis(20)),
                _ => (millis(200), millis(1000), millis(100)),
            };
            let stay = millis(1000);
            let watch = lidless::Watch { every, timeout, confirm_every, fail_after: 2, stay };
            let config = lidless::healing(at, binary, std::slice::from_ref(&service), watch)?;
            (
                lidless::version(binary),
                lidless::serve(binary, &config)?,
                args.rounds,
                // Longer than a heal has to stay well (1 s): what breaks before is the same heal's failure, and backs off.
                (millis(1300), millis(2000)),
            )
        }
    };
    let instances = Marked::new(service.stamp.display().to_string());
    let helpers = Marked::new(format!("127.0.0.1:{}/health", service.port));
    Ok(Some(Contestant {
        name,
        version,
        watcher,
        service,
        rounds,
        needless: 0,
        pause,
        _instances: instances,
        _helpers: helpers,
        _dir: dir,
    }))
}

fn measure(contestant: &mut Contestant, fault: Fault, random: &mut Random) -> Result<Row, Problem> {
    let is_peer = !contestant.name.starts_with("lidless");
    let rounds = if is_peer && fault == Fault::Drip {
        contestant.rounds.min(PEER_DRIPS_MAX)
    } else {
        contestant.rounds
    };
    let (mut samples, mut never) = (Vec::new(), 0);
    for round in 1..=rounds {
        let sample = inject(contestant, fault, random)?;
        let shown = sample.map_or(format!("never within {NEVER:?}"), |s| format!("{:.3} s", s.as_secs_f64()));
        println!("{} {} {round}/{rounds}: {shown}", contestant.name, fault.word());
        match sample {
            Some(sample) => samples.push(sample),
            None => never += 1,
        }
    }
    Ok(Row {
        contestant: contestant.name,
        fault: fault.word(),
        summary: Summary::of(&samples),
        never,
        samples_s: samples.iter().map(Duration::as_secs_f64).collect(),
    })
}

fn inject(
    contestant: &mut Contestant,
    fault: Fault,
    random: &mut Random,
) -> Result<Option<Duration>, Problem> {
    let service = contestant.service.clone();
    if !service.wait_until_well(Duration::from_secs(60)) {
        contestant.watcher.must_live()?;
        let words = contestant.watcher.last_words();
        return Err(format!(
            "{}: the service was not well within 60 s; last words:\n{words}",
            contestant.name
        )
        .into());
    }
    let known = service.stamps().len();
    let (min, max) = contestant.pause;
    std::thread::sleep(random.between(min, max));
    contestant.watcher.must_live()?;
    if service.stamps().len() != known {
        // supervisord does: httpok asks during the second in which it restarts, and restarts once more.
        println!("{} restarted a service that was well; once more", contestant.name);
        contestant.needless += 1;
        if contestant.needless > NEEDLESS_MAX {
            return Err(format!("{} does not let the service be", contestant.name).into());
        }
        return inject(contestant, fault, random);
    }
    let began = nanoseconds();
    service.inflict(fault)?;
    let new = service.wait_for_start(known, NEVER);
    if new.is_none() {
        service.mend();
    }
    Ok(new.map(|stamp| Duration::from_nanos(stamp.at.saturating_sub(began))))
}

fn ratios(rows: &[Row]) -> BTreeMap<String, f64> {
    let mut ratios = BTreeMap::new();
    for ours in rows.iter().filter(|r| r.contestant.starts_with("lidless")) {
        for theirs in rows.iter().filter(|r| !r.contestant.starts_with("lidless") && r.fault == ours.fault) {
            if let (Some(a), Some(b)) = (ours.summary, theirs.summary) {
                ratios.insert(key(theirs.contestant, ours.contestant, ours.fault), b.median_s / a.median_s);
            }
        }
    }
    ratios
}

fn key(theirs: &str, ours: &str, fault: &str) -> String {
    format!("{theirs} / {ours}, {fault}")
}

fn print(rows: &[Row], ratios: &BTreeMap<String, f64>) {
    let mut table = Table::new(&[
        "fault to listening, s",
        "fault",
        "min",
        "median",
        "max",
        "n",
        "never",
        "/ lidless",
        "/ lidless-fast",
    ]);
    for row in rows {
        let cell = |pick: fn(&Summary) -> f64| {
            row.summary.as_ref().map_or("-".into(), |s| format!("{:.3}", pick(s)))
        };
        let ratio = |ours: &str| {
            ratios.get(&key(row.contestant, ours, row.fault)).map_or("-".into(), |r| format!("{r:.1} x"))
        };
        table.row(vec![
            row.contestant.to_owned(),
            row.fault.to_owned(),
            cell(|s| s.min_s),
            cell(|s| s.median_s),
            cell(|s| s.max_s),
            row.summary.map_or(0, |s| s.n).to_string(),
            row.never.to_string(),
            ratio("lidless"),
            ratio("lidless-fast"),
        ]);
    }
    table.print();
}
