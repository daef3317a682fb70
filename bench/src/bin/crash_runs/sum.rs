//! What must not have followed? The journal and the ledger, held against each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use lidless_bench::report::Machine;
use lidless_bench::{Problem, journal};
use serde_json::Value;

use crate::faults::Done;
use crate::place::{Place, disk};
use crate::{Args, Results, Shared};

/// What the journal says of a run.
#[derive(Default)]
struct Known {
    done: bool,
    undone: bool,
    over: bool,
    /// Steps that took effect, as far as the run knows.
    applied: BTreeSet<String>,
    names: Vec<String>,
}

/// Adds everything up, and says what is wrong.
pub(crate) fn summing_up(
    args: &Args,
    place: &Place<'_>,
    machine: Machine,
    harm: Done,
    took: Duration,
    shared: &Shared,
) -> Result<Results, Problem> {
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    for event in journal::read_store(place.binary, &disk(place.dir))?.values() {
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
        let booked = |step: &str| ledger.iter().any(|line| run_and_step(line) == (run, step));
        for step in ["PAY", "TAX"] {
            if known.undone && booked(step) != booked(&format!("{step}/undo")) {
                violations.push(format!("{run} says that it was undone, and {step} was not"));
            }
        }
        for step in ["PAY", "SEND", "TAX", "PAY/undo", "TAX/undo"] {
            let booked = booked(step);
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
    let verify = match journal::verify(place.binary, &disk(place.dir)) {
        Ok(said) => said.trim().to_owned(),
        Err(problem) => {
            violations.push(problem.to_string());
            "failed".to_owned()
        }
    };
    let done = known.values().filter(|known| known.done).count();
    let undone = known.values().filter(|known| known.undone).count();
    Ok(Results {
        machine,
        seed: args.seed,
        kills_of_lidless: harm.kills,
        stops_of_lidless: harm.stops,
        full_disks: harm.fills,
        stops_of_steps: shared.stopped_steps.load(Ordering::SeqCst),
        kills_of_steps: shared.killed_steps.load(Ordering::SeqCst),
        runs: known.len(),
        done,
        undone,
        failed: known.len() - done - undone,
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
            let names = record["plan"]["steps"].as_array().into_iter().flatten();
            known.names = names.filter_map(|step| Some(step["name"].as_str()?.to_owned())).collect();
        }
        "step_outcome" if record["outcome"]["is"] == "applied" => drop(known.applied.insert(step(known))),
        "step_confirmed" if record["answer"]["is"] == "applied" => drop(known.applied.insert(step(known))),
        "step_resolved" if record["applied"] == true => drop(known.applied.insert(step(known))),
        "run_finished" => {
            let is = |word| record["verdict"]["is"] == word;
            (known.over, known.done, known.undone) = (true, is("done"), is("undone"));
        }
        _ => {}
    }
}
