//! What does it cost to watch many targets, and is each asked in time? lidless beside monit, hung targets included.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use lidless_bench::gaps::Stats;
use lidless_bench::load::{Load, Meter};
use lidless_bench::process::{self, Guarded, wait_until};
use lidless_bench::report::{self, Machine, Table};
use lidless_bench::{Problem, http, lidless, peers};
use serde::Serialize;

const INTERVAL_MS: u32 = 1000;
/// Targets in all, and how many of them hang. monit is not asked about more than 1,000: its cycle is serial.
const SIZES: [(u32, u32); 7] =
    [(1, 0), (100, 0), (1000, 0), (10_000, 0), (100, 5), (1000, 50), (10_000, 500)];
const MONIT_MAX: u32 = 1000;

/// Measures memory, CPU and missed intervals over the number of targets
#[derive(Debug, Parser)]
struct Args {
    /// Only this contestant
    #[arg(long, value_parser = ["lidless", "monit"])]
    only: Option<String>,
    /// Only this number of targets
    #[arg(long)]
    targets: Option<u32>,
    /// Seconds before measuring, once every target has been asked
    #[arg(long, default_value_t = 5)]
    warm_up: u64,
    /// Seconds of measuring
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

#[derive(Debug, Serialize)]
struct Row {
    contestant: &'static str,
    targets: u32,
    hung: u32,
    requests_per_s: f64,
    load: Load,
    /// What the answering process cost meanwhile: it shares the machine.
    target_cpu_percent: f64,
    stats: Stats,
}

#[derive(Debug, Serialize)]
struct Results {
    machine: Machine,
    interval_ms: u32,
    warm_up_s: u64,
    seconds: u64,
    versions: BTreeMap<&'static str, String>,
    rows: Vec<Row>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("scale failed: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Problem> {
    process::clean_up_on_signals()?;
    let machine = Machine::look();
    let monit = peers::monit::find();
    let (mut versions, mut rows) = (BTreeMap::new(), Vec::new());
    if wants(args, "lidless") {
        versions.insert("lidless", lidless::version(&lidless::binary()?));
    }
    if wants(args, "monit") {
        match &monit {
            Some(monit) => drop(versions.insert("monit", peers::monit::version(monit))),
            None => println!("monit: skipped, it is not installed; `{}` installs it", peers::SETUP),
        }
    }
    for (targets, hung) in SIZES {
        if args.targets.is_some_and(|only| only != targets) {
            continue;
        }
        if wants(args, "lidless") {
            let binary = lidless::binary()?;
            rows.push(measure("lidless", targets, hung, args, &|dir, port| {
                lidless::serve(&binary, &lidless::watching(dir, targets, port)?)
            })?);
        }
        if let Some(monit) = monit.as_ref().filter(|_| wants(args, "monit") && targets <= MONIT_MAX) {
            rows.push(measure("monit", targets, hung, args, &|dir, port| {
                peers::monit::watching(monit, dir, targets, port)
            })?);
        }
    }
    print(&rows);
    let (interval_ms, warm_up_s, seconds) = (INTERVAL_MS, args.warm_up, args.seconds);
    report::write("scale", &Results { machine, interval_ms, warm_up_s, seconds, versions, rows })
}

fn wants(args: &Args, name: &str) -> bool {
    args.only.as_ref().is_none_or(|only| only == name)
}

type Start<'a> = &'a dyn Fn(&Path, u16) -> Result<Guarded, Problem>;

fn measure(
    contestant: &'static str,
    targets: u32,
    hung: u32,
    args: &Args,
    start: Start,
) -> Result<Row, Problem> {
    println!("{contestant}: {targets} targets, {hung} of them hung ...");
    let dir = tempfile::Builder::new().prefix("lidless-bench-").tempdir()?;
    let (target, port) = start_target(dir.path(), targets - hung..targets)?;
    control(port, &format!("/__reset?targets={targets}&interval_ms={INTERVAL_MS}"))?;
    let mut watcher = start(dir.path(), port)?;
    // Generous: monit asks nothing for some seconds after its start, and hung targets hold up its whole first cycle.
    let asked = wait_until(Duration::from_secs(90), Duration::from_millis(100), || {
        control(port, "/__stats").is_ok_and(|s| s.well.seen + s.hung.seen == targets)
    });
    watcher.must_live()?;
    if !asked {
        let seen = control(port, "/__stats")?;
        let words = watcher.last_words();
        let seen = seen.well.seen + seen.hung.seen;
        return Err(format!(
            "{contestant} asked {seen} of {targets} targets within 90 s; last words:\n{words}"
        )
        .into());
    }
    std::thread::sleep(Duration::from_secs(args.warm_up));
    let (meter, target_meter) = (Meter::start(watcher.pid())?, Meter::start(target.pid())?);
    control(port, &format!("/__reset?targets={targets}&interval_ms={INTERVAL_MS}"))?;
    std::thread::sleep(Duration::from_secs(args.seconds));
    let stats = control(port, "/__stats")?;
    let (load, target_load) = (meter.stop()?, target_meter.stop()?);
    watcher.must_live()?;
    watcher.stop(Duration::from_secs(20))?;
    let requests_per_s = (stats.well.requests + stats.hung.requests) as f64 / stats.elapsed_s;
    println!(
        "{contestant}: {requests_per_s:.1} requests/s, {:.1} MiB, {:.2} % of a core, {:.2} % of intervals missed",
        load.rss_mib, load.cpu_percent, stats.well.missed_percent
    );
    let target_cpu_percent = target_load.cpu_percent;
    Ok(Row { contestant, targets, hung, requests_per_s, load, target_cpu_percent, stats })
}

fn start_target(dir: &Path, hung: std::ops::Range<u32>) -> Result<(Guarded, u16), Problem> {
    let port = (19_400..19_600)
        .find(|port| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok())
        .ok_or("no free port for the targets")?;
    let mut command = Command::new(std::env::current_exe()?.with_file_name("target"));
    command.args(["--port", &port.to_string(), "--hung", &format!("{}..{}", hung.start, hung.end)]);
    let mut target = Guarded::start("target", &mut command, &dir.join("target.log"))
        .map_err(|err| format!("{err}; run `cargo build --release -p lidless-bench` first"))?;
    if !wait_until(Duration::from_secs(5), Duration::from_millis(5), || control(port, "/__stats").is_ok()) {
        target.must_live()?;
        return Err("the target does not answer".into());
    }
    Ok((target, port))
}

fn control(port: u16, path: &str) -> Result<Stats, Problem> {
    Ok(serde_json::from_str(&http::get(port, path, Duration::from_secs(5))?.body)?)
}

fn print(rows: &[Row]) {
    let columns = [
        "contestant",
        "targets",
        "hung",
        "req/s",
        "RSS MiB",
        "PSS MiB",
        "CPU %",
        "missed %",
        "gap p50 ms",
        "p99",
        "max",
        "target CPU %",
    ];
    let mut table = Table::new(&columns);
    for row in rows {
        let well = &row.stats.well;
        table.row(vec![
            row.contestant.to_owned(),
            row.targets.to_string(),
            row.hung.to_string(),
            format!("{:.1}", row.requests_per_s),
            format!("{:.1}", row.load.rss_mib),
            format!("{:.1}", row.load.pss_mib),
            format!("{:.2}", row.load.cpu_percent),
            format!("{:.2}", well.missed_percent),
            well.gap_ms_p50.to_string(),
            well.gap_ms_p99.to_string(),
            well.gap_ms_max.to_string(),
            format!("{:.1}", row.target_cpu_percent),
        ]);
    }
    table.print();
    println!("missed and gaps are those of the targets that answer; 100 % CPU is one core");
}
