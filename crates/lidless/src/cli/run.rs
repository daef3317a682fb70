//! `lidless run`: has the daemon run a pipeline, and shows an arrow a step, or a cross and the reason.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use lidless_core::event::{Confirmation, Event, Outcome, Record, Verdict};
use serde::Serialize;
use serde_json::{Map, Value};

use super::daemon;
use super::events::{self, Wanted};
use super::exit::{Exit, Failure};
use super::globals::Globals;
use super::output::Mark;
use super::runs;
use crate::api::client::Client;
use crate::api::{EventLine, RunAnswer, RunRequest, Runs};
use crate::words::{output_text, span};

/// Runs a pipeline now and waits until it is over.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lidless run vault\n  lidless run vault --input amount=5 --input dry=true\n  lidless run vault --no-wait\n  \
    lidless run vault --json | tail -n 1\n\n\
    Exit code 0 when every step is done, 1 when a step failed, 5 when you may not, 7 when nobody knows\n\
    whether a step took effect and a person must look, 75 when a run of it is under way already."
)]
pub struct RunArgs {
    /// Which one
    #[arg(value_name = "PIPELINE")]
    pub pipeline: String,
    /// What its steps are given; a value that is JSON is taken as JSON
    #[arg(long = "input", value_name = "NAME=VALUE")]
    pub inputs: Vec<String>,
    /// Begin at this step: those above it are not done
    #[arg(long, value_name = "STEP")]
    pub from: Option<String>,
    /// What it is for: the same key twice is one run
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Wait for its turn where a run of it is under way
    #[arg(long)]
    pub queue: bool,
    /// Do not wait for its end
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait for its end
    #[arg(long, value_name = "TIME", default_value = "1h", conflicts_with = "no_wait")]
    pub timeout: String,
}

/// How it ended, for scripts. The first four keys are a contract of their own.
#[derive(Debug, Serialize)]
struct Report<'a> {
    success: bool,
    #[serde(rename = "failedAt", skip_serializing_if = "Option::is_none")]
    failed_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    run: &'a str,
    schema: &'static str,
    pipeline: &'a str,
    steps: &'a [StepReport],
}

#[derive(Clone, Debug, Serialize)]
struct StepReport {
    name: String,
    /// "done", "failed", "unknown" or "held".
    state: &'static str,
    /// What it put out, where it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Value>,
    text: String,
    took_ms: u64,
}

/// Runs it.
pub fn run(args: &RunArgs, globals: &Globals) -> Exit {
    globals.wait_for(begin(args, globals)).unwrap_or_else(|failure| globals.report(&failure))
}

async fn begin(args: &RunArgs, globals: &Globals) -> Result<Exit, Failure> {
    let timeout = crate::config::units::duration(&args.timeout).map_err(|why| {
        Failure::new(Exit::Usage, format!("--timeout {}: {}", args.timeout, why.message))
            .hint("as --timeout 10m")
    })?;
    let inputs = inputs(&args.inputs)?;
    let client = daemon::find(globals)?;
    let request = RunRequest {
        pipeline: args.pipeline.clone(),
        inputs,
        from: args.from.clone(),
        key: args.key.clone(),
        wait: args.queue,
    };
    match client.post("/v1/run", &request).await? {
        RunAnswer::Refused { why, code } => Err(runs::refused(&client, why, &code).await),
        RunAnswer::Started { run, .. } if args.no_wait => {
            if globals.json() {
                globals.document(&serde_json::json!({ "schema": "lidless/run/1", "run": run }));
            } else {
                globals.print(&format!("{}: {run} began", args.pipeline));
                globals.say(&format!("{} lidless runs {run}", globals.style_err.bold("more:")));
            }
            Ok(Exit::Ok)
        }
        RunAnswer::Started { run, after } => {
            follow(&client, globals, Followed { pipeline: &args.pipeline, run: &run, after, timeout }).await
        }
    }
}

/// Reads `name=value` pairs.
fn inputs(pairs: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut inputs = Map::new();
    for pair in pairs {
        let Some((name, value)) = pair.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            let failure = Failure::new(Exit::Usage, format!("--input {pair} is not of the form NAME=VALUE"));
            return Err(failure.hint("as --input amount=5"));
        };
        let parsed = serde_json::from_str(value).ok();
        // What would be rounded stays as it was typed.
        let parsed = parsed.filter(|parsed| lidless_drivers::step::exact(parsed).is_ok());
        let value = parsed.unwrap_or_else(|| Value::String(value.to_owned()));
        if inputs.insert(name.to_owned(), value).is_some() {
            return Err(Failure::new(Exit::Usage, format!("--input {name} is given twice")));
        }
    }
    Ok(inputs)
}

/// Which run is followed, from where, and for how long.
#[derive(Clone, Copy)]
pub(super) struct Followed<'a> {
    pub(super) pipeline: &'a str,
    pub(super) run: &'a str,
    /// The record before the first of interest.
    pub(super) after: u64,
    pub(super) timeout: Duration,
}

/// Shows a run until it is over, or waits for a person.
pub(super) async fn follow(
    client: &Client,
    globals: &Globals,
    Followed { pipeline, run, after, timeout }: Followed<'_>,
) -> Result<Exit, Failure> {
    // One that is resumed was created long ago, and only there its steps are named.
    let known: Runs = client.get("/v1/runs").await?;
    let known = known.runs.into_iter().find(|status| status.id == run).map(|status| status.steps);
    let (of, names) = known.map_or((0, Vec::new()), |steps| {
        let of = steps.iter().filter(|step| step.undoes.is_none()).count();
        (of, steps.into_iter().map(|step| step.name).collect())
    });
    if !globals.json() {
        globals.print(&format!("{}  {run}", globals.style.bold(pipeline)));
    }
    // Kept outside of the future, so that what was seen is known even when the time is up.
    let seen = RefCell::new(Seen::new(globals, run, names, of));
    let wanted = Wanted { after: Some(after), follow: true, ..Wanted::default() };
    let following = events::from_daemon(client, &wanted, |line| seen.borrow_mut().take(&line));
    let followed = tokio::time::timeout(timeout, following).await;
    let Seen { end, steps, .. } = seen.into_inner();
    let report = |success, failed_at, error| Report {
        success,
        failed_at,
        error,
        run,
        schema: "lidless/run/1",
        pipeline,
        steps: &steps,
    };
    match (followed, &end) {
        (_, Some(End::Over(Verdict::Done))) => {
            if globals.json() {
                globals.document(&report(true, None, None));
            }
            Ok(Exit::Ok)
        }
        (_, Some(End::Over(Verdict::Failed { step, name, reason }))) => {
            if globals.json() {
                globals.document(&report(false, Some(name), Some(reason)));
                return Ok(Exit::Unhealthy);
            }
            let failure =
                Failure::new(Exit::Unhealthy, format!("{run} failed at {name} (step {} of {of})", step + 1));
            Err(failure.hint(format!("what is done stays done; go on at {name}: lidless resume {run}")))
        }
        (_, Some(End::Over(Verdict::Undone { step, name, reason }))) => {
            if globals.json() {
                globals.document(&report(false, Some(name), Some(reason)));
                return Ok(Exit::Unhealthy);
            }
            let what =
                format!("{run} failed at {name} (step {} of {of}), and what was done is undone", step + 1);
            Err(Failure::new(Exit::Unhealthy, what).hint(format!("begin anew: lidless run {pipeline}")))
        }
        (_, Some(End::Stuck { name, reason })) => {
            if globals.json() {
                globals.document(&report(false, Some(name), Some(reason)));
                return Ok(Exit::Unhealthy);
            }
            let failure =
                Failure::new(Exit::Unhealthy, format!("{run} is stuck at {name} and waits for a person"));
            Err(failure.hint(format!(
                "try {name} again: lidless resume {run}; or leave it: lidless cancel {run}; or say that you did it \
                 by hand: lidless resolve {run} {name} --applied --evidence 'how you know'"
            )))
        }
        (_, Some(End::Over(Verdict::Cancelled { name, .. }))) => {
            if globals.json() {
                globals.document(&report(false, Some(name), Some("cancelled")));
                return Ok(Exit::Unhealthy);
            }
            Err(Failure::new(Exit::Unhealthy, format!("{run} was cancelled before {name}")))
        }
        (_, Some(End::Held { name, reason })) => {
            if globals.json() {
                globals.document(&report(false, Some(name), Some(reason)));
                return Ok(Exit::Unknown);
            }
            let failure = Failure::new(Exit::Unknown, format!("nobody knows whether {name} took effect"));
            Err(failure.hint(format!(
                "look, then: lidless resolve {run} {name} --applied --evidence 'how you know' (or --not-applied)"
            )))
        }
        (Err(_), None) => {
            let failure = Failure::new(Exit::TryAgain, format!("{run} is not over after {}", span(timeout)));
            Err(failure.hint(format!("it goes on: lidless runs {run}")))
        }
        (Ok(Err(failure)), None) if failure.exit != Exit::Unreachable => Err(failure),
        (Ok(_), None) => {
            let failure = Failure::new(Exit::Unreachable, format!("lidless ended before {run} did"));
            Err(failure.hint(format!("the next lidless goes on with it: lidless runs {run}")))
        }
    }
}

/// How far it is of interest to whoever waits.
enum End {
    Over(Verdict),
    Held { name: String, reason: String },
    Stuck { name: String, reason: String },
}

/// Watches one run go by.
struct Seen<'a> {
    globals: &'a Globals,
    run: &'a str,
    names: Vec<String>,
    width: usize,
    /// Somebody sees what is under way.
    terminal: bool,
    /// When each attempt under way began.
    began: BTreeMap<u32, Duration>,
    steps: Vec<StepReport>,
    end: Option<End>,
}

impl<'a> Seen<'a> {
    fn new(globals: &'a Globals, run: &'a str, names: Vec<String>, of: usize) -> Seen<'a> {
        Seen {
            globals,
            run,
            width: names.iter().take(of).map(String::len).max().unwrap_or(0),
            names,
            terminal: !globals.json() && globals.style_err.terminal,
            began: BTreeMap::new(),
            steps: Vec::new(),
            end: None,
        }
    }

    /// Takes the next event; `false` once there is nothing more to wait for.
    fn take(&mut self, line: &EventLine) -> bool {
        let Record { at, event, .. } = &line.record;
        if event.run().is_none_or(|run| run.to_string() != self.run) {
            return true;
        }
        let took =
            |step: &u32| at.monotonic.saturating_sub(self.began.get(step).copied().unwrap_or(at.monotonic));
        match event {
            Event::StepIntent { step, .. } => {
                self.began.insert(*step, at.monotonic);
                if self.terminal {
                    self.globals.redraw(&format!(" → {} ...", self.name(*step)));
                }
            }
            Event::StepOutcome { step, outcome, .. } => match outcome {
                Outcome::Applied { output } | Outcome::Found { output } => {
                    self.done(*step, output, took(step))
                }
                Outcome::NotApplied { reason }
                | Outcome::Refused { reason }
                | Outcome::Unavailable { reason } => {
                    self.step(*step, Mark::Down, "failed", &format!("failed: {reason}"), took(step));
                }
                Outcome::Missing { reason } => {
                    self.step(*step, Mark::Suspect, "parked", &format!("parked: {reason}"), took(step));
                }
                Outcome::Unknown { reason } => {
                    self.step(
                        *step,
                        Mark::Unknown,
                        "unknown",
                        &format!("outcome unknown: {reason}"),
                        took(step),
                    );
                }
            },
            Event::StepConfirmed { step, answer, .. } => match answer {
                Confirmation::Applied { evidence, output } => {
                    let output = output.clone().unwrap_or_default();
                    self.step(*step, Mark::Step, "done", &format!("it was done: {evidence}"), took(step));
                    if let Some(last) = self.steps.last_mut() {
                        last.output = serde_json::from_str(&output).ok();
                    }
                }
                Confirmation::NotApplied { .. }
                | Confirmation::Failed { .. }
                | Confirmation::StillUnknown { .. } => {
                    self.globals.say(&format!("   {}: {}", self.name(*step), line.text));
                }
            },
            Event::StepRetry { step, .. } => {
                self.globals.say(&format!("   {}: {}", self.name(*step), line.text));
            }
            Event::StepHeld { step, reason, .. } => {
                self.end = Some(End::Held { name: self.name(*step), reason: reason.clone() });
            }
            Event::StepStuck { step, reason, .. } => {
                self.end = Some(End::Stuck { name: self.name(*step), reason: reason.clone() });
            }
            Event::StepFailed { step, reason, .. } => {
                self.step(*step, Mark::Down, "failed", &format!("failed: {reason}"), Duration::ZERO);
            }
            Event::StepSkipped { step, reason, .. } => {
                self.step(*step, Mark::None, "skipped", &format!("skipped: {reason}"), Duration::ZERO);
            }
            Event::StepAwaits { step, .. } => {
                self.globals.say(&format!("   {}", line.text));
                self.globals.say(&format!("   say yes: lidless approve {} {}", self.run, self.name(*step)));
            }
            Event::RunFinished { verdict, .. } => self.end = Some(End::Over(verdict.clone())),
            Event::StepResolved { .. }
            | Event::StepApproved { .. }
            | Event::RunTurned { undo: true, .. }
            | Event::RunResumed { .. }
            | Event::CancelAsked { .. } => {
                self.globals.say(&format!("   {}", line.text));
            }
            _ => {}
        }
        self.end.is_none()
    }

    fn name(&self, step: u32) -> String {
        self.names.get(step as usize).cloned().unwrap_or_else(|| format!("step {}", step + 1))
    }

    fn done(&mut self, step: u32, output: &str, took: Duration) {
        self.step(step, Mark::Step, "done", &output_text(output), took);
        if let Some(last) = self.steps.last_mut() {
            last.output = serde_json::from_str(output).ok();
        }
    }

    fn step(&mut self, step: u32, mark: Mark, state: &'static str, text: &str, took: Duration) {
        let name = self.name(step);
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if !self.globals.json() {
            let style = &self.globals.style;
            let (shape, took, width) = (style.mark(mark), style.dim(&span(took)), self.width);
            if self.terminal {
                self.globals.redraw("");
            }
            self.globals.print(format!(" {shape} {name:<width$} {text}   {took}").trim_end());
        }
        self.steps.push(StepReport { name, state, output: None, text: text.to_owned(), took_ms });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_json_is_taken_as_json() {
        let pairs =
            ["a=5", "b=true", "c=x=y", "d=", "e={\"f\":[1]}", "g=20000000000000000001"].map(str::to_owned);
        let read = inputs(&pairs).expect("all are pairs");
        assert_eq!(
            Value::Object(read).to_string(),
            r#"{"a":5,"b":true,"c":"x=y","d":"","e":{"f":[1]},"g":"20000000000000000001"}"#
        );
        for wrong in ["a", "=5"] {
            assert_eq!(inputs(&[wrong.to_owned()]).expect_err(wrong).exit, Exit::Usage);
        }
    }
}
