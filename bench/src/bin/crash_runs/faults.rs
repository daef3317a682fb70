//! What is done to it? Runs are begun and resolved; lidless and its steps are killed and stopped, and the disk is filled.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lidless_bench::figures::Random;
use lidless_bench::process::wait_until;
use lidless_bench::{Problem, lidless};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::place::{BACK, PIPELINES, Place, disk};
use crate::{Args, Shared};

/// How long all runs may take to end once nothing is done to them any more.
const OVER_WITHIN: Duration = Duration::from_secs(120);
/// Longer than any time-out of a step, and than the grace after it.
const STOPPED: Duration = Duration::from_secs(8);
/// Longer than any time-out of a step.
const STEP_STOPPED: Duration = Duration::from_secs(3);

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) kills: u32,
    pub(crate) stops: u32,
    pub(crate) fills: u32,
}

/// Begins runs as they find room, and says what became of steps that wait for a person: the truth.
pub(crate) fn ask(place: &Place<'_>, wanted: usize, shared: &Shared) {
    while !shared.over.load(Ordering::SeqCst) {
        let pay = (0..PIPELINES).map(|index| format!("p{index}"));
        for pipeline in pay.chain((0..BACK).map(|index| format!("back{index}"))) {
            if shared.begun.load(Ordering::SeqCst) < wanted
                && place.ask(&["run", &pipeline, "--no-wait"]).is_some()
            {
                shared.begun.fetch_add(1, Ordering::SeqCst);
            }
        }
        let runs = place.ask(&["runs"]).unwrap_or_default();
        let all = || runs["runs"].as_array().into_iter().flatten();
        for run in all().filter(|run| run["state"] == "stuck") {
            drop(run["id"].as_str().and_then(|id| place.ask(&["resume", id])));
        }
        for run in all().filter(|run| run["state"] == "held") {
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

/// Kills the youngest step now and then, or stops it for longer than its time-out.
pub(crate) fn harass_steps(place: &Place<'_>, shared: &Shared, mut random: Random) {
    while !shared.calm.load(Ordering::SeqCst) {
        std::thread::sleep(random.between(Duration::from_millis(50), Duration::from_millis(400)));
        let started = place.lines("started");
        let pid = started.last().and_then(|line| line.rsplit(' ').next()?.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else { continue };
        let own = fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        if !own.contains("book") {
            continue;
        }
        if random.below(6) == 0 {
            if kill_process(pid, Signal::STOP).is_ok() {
                shared.stopped_steps.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(STEP_STOPPED);
                // It is probably gone: lidless ends what is overdue.
                let _gone = kill_process(pid, Signal::CONT);
            }
        } else if kill_process(pid, Signal::KILL).is_ok() {
            shared.killed_steps.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Starts and kills lidless until everything was done to it often enough and all runs have begun; then lets it finish in peace.
pub(crate) fn harass_lidless(
    args: &Args,
    place: &Place<'_>,
    config: &Path,
    small_disk: bool,
    shared: &Shared,
) -> Result<Done, Problem> {
    let mut random = Random::new(args.seed);
    let (mut done, mut told) = (Done::default(), Instant::now());
    let fills = if small_disk { args.fills } else { 0 };
    let enough = |done: &Done| {
        let begun = shared.begun.load(Ordering::SeqCst) >= args.runs;
        begun && done.kills >= args.kills && done.stops >= args.stops && done.fills >= fills
    };
    while !enough(&done) {
        let mut lidless = lidless::serve(place.binary, config)?;
        std::thread::sleep(random.between(Duration::from_millis(20), Duration::from_millis(400)));
        // Spread over the kills.
        if done.stops < args.stops && (done.stops + 1) * args.kills <= (done.kills + 1) * (args.stops + 1) {
            let pid = i32::try_from(lidless.pid()).ok().and_then(Pid::from_raw).ok_or("no pid")?;
            kill_process(pid, Signal::STOP)?;
            std::thread::sleep(STOPPED);
            kill_process(pid, Signal::CONT)?;
            done.stops += 1;
            std::thread::sleep(random.between(Duration::from_millis(20), Duration::from_millis(800)));
        } else if done.fills < fills && (done.fills + 1) * args.kills <= (done.kills + 1) * (fills + 1) {
            let filler = disk(place.dir).join("filler");
            fill(&filler);
            std::thread::sleep(random.between(Duration::from_millis(20), Duration::from_millis(900)));
            // Now and then it dies on a full disk; the next one finds room.
            if random.below(2) == 0 {
                lidless.kill()?;
            }
            fs::remove_file(&filler)?;
            done.fills += 1;
            if lidless.must_live().is_ok() {
                std::thread::sleep(random.between(Duration::from_millis(20), Duration::from_millis(400)));
            } else {
                done.kills += 1;
                continue;
            }
        }
        lidless.must_live()?;
        lidless.kill()?;
        done.kills += 1;
        if told.elapsed() > Duration::from_secs(2) {
            told = Instant::now();
            let begun = shared.begun.load(Ordering::SeqCst);
            println!("killed {} times, {begun} of {} runs begun", done.kills, args.runs);
        }
    }
    shared.calm.store(true, Ordering::SeqCst);
    println!("nothing more is done to it; {OVER_WITHIN:?} for all runs to end");
    let mut lidless = lidless::serve(place.binary, config)?;
    let all_over = wait_until(OVER_WITHIN, Duration::from_millis(50), || {
        place.ask(&["runs"]).is_some_and(|runs| {
            let open = |run: &Value| run["ended"].is_null();
            !runs["runs"].as_array().into_iter().flatten().any(open)
        })
    });
    lidless.must_live()?;
    lidless.stop(Duration::from_secs(20))?;
    if all_over { Ok(done) } else { Err("runs are still open".into()) }
}

/// Takes all the room that there is.
fn fill(filler: &Path) {
    let Ok(mut file) = fs::File::create(filler) else { return };
    for size in [1 << 20, 4096, 1] {
        let block = vec![0; size];
        while file.write_all(&block).is_ok() {}
    }
}
