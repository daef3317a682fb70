//! `lidless restart`: restarts a service as a run of the daemon's, and shows each step until it is verified.

use std::cell::RefCell;
use std::time::Duration;

use lidless_core::event::{Event, Outcome, Record, Verdict};
use serde::Serialize;

use super::daemon;
use super::events::{self, Wanted};
use super::exit::{Exit, Failure};
use super::globals::Globals;
use super::output::Mark;
use super::status::unknown_service;
use crate::api::client::Client;
use crate::api::{EventLine, RestartAnswer, RestartRequest};
use crate::runtime::status::Status;
use crate::words::span;

/// Restarts a service and waits until its checks say that it is well.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lidless restart api\n  lidless restart api --force       although the restart budget is spent\n  \
    lidless restart api --no-wait\n\n\
    Exit code 0 when restarted and verified, 1 when the checks do not pass, 5 when you may not,\n\
    6 when it is refused and nothing was done, 75 when a run acts on the service already.\n\
    It is written in the journal as a manual intervention."
)]
pub struct RestartArgs {
    /// Which one
    #[arg(value_name = "SERVICE")]
    pub service: String,
    /// Also when the restart budget is spent
    #[arg(long)]
    pub force: bool,
    /// Do not wait for its end
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait for its end
    #[arg(long, value_name = "TIME", default_value = "10m", conflicts_with = "no_wait")]
    pub timeout: String,
}

/// What became of it, for scripts.
#[derive(Debug, Serialize)]
struct Report<'a> {
    schema: &'static str,
    service: &'a str,
    run: &'a str,
    /// "started", "done" or "failed".
    verdict: &'static str,
    failed_step: Option<String>,
    reason: Option<String>,
    steps: Vec<StepReport>,
}

#[derive(Clone, Debug, Serialize)]
struct StepReport {
    name: String,
    ok: bool,
    text: String,
    took_ms: u64,
}

/// Restarts it.
pub fn run(args: &RestartArgs, globals: &Globals) -> Exit {
    globals.wait_for(restart(args, globals)).unwrap_or_else(|failure| globals.report(&failure))
}

async fn restart(args: &RestartArgs, globals: &Globals) -> Result<Exit, Failure> {
    let timeout = crate::config::units::duration(&args.timeout).map_err(|why| {
        Failure::new(Exit::Usage, format!("--timeout {}: {}", args.timeout, why.message))
            .hint("as --timeout 10m")
    })?;
    let client = daemon::find(globals)?;
    let request = RestartRequest { service: args.service.clone(), force: args.force };
    let (run, after) = match client.post("/v1/restart", &request).await? {
        RestartAnswer::Started { run, after } => (run, after),
        RestartAnswer::Refused { why, code } => return Err(refused(&client, &args.service, why, &code).await),
    };
    let service = args.service.as_str();
    let report = Report {
        schema: "lidless/restart/1",
        service,
        run: &run,
        verdict: "started",
        failed_step: None,
        reason: None,
        steps: Vec::new(),
    };
    if args.no_wait {
        if globals.json() {
            globals.document(&report);
        } else {
            globals.print(&format!("{service}: {run} began"));
            globals
                .say(&format!("{} lidless events -f --service {service}", globals.style_err.bold("more:")));
        }
        return Ok(Exit::Ok);
    }
    if !globals.json() {
        globals.print(&format!("{}  {run}", globals.style.bold(service)));
    }
    // Kept outside of the future, so that what was seen is known even when the time is up.
    let seen = RefCell::new(Follower::new(globals, &run));
    let wanted =
        Wanted { after: Some(after), service: Some(service.to_owned()), follow: true, ..Wanted::default() };
    let following = events::from_daemon(&client, &wanted, |line| seen.borrow_mut().take(&line));
    let followed = tokio::time::timeout(timeout, following).await;
    let Follower { verdict, steps, .. } = seen.into_inner();
    match (followed, verdict) {
        (_, Some(Verdict::Done)) => {
            if globals.json() {
                globals.document(&Report { verdict: "done", steps, ..report });
            }
            Ok(Exit::Ok)
        }
        (_, Some(Verdict::Cancelled { name, .. })) => {
            Err(Failure::new(Exit::Unhealthy, format!("{run} was cancelled before {name}")))
        }
        (_, Some(Verdict::Failed { name, reason, .. } | Verdict::Undone { name, reason, .. })) => {
            if globals.json() {
                let (failed_step, reason) = (Some(name), Some(reason));
                globals.document(&Report { verdict: "failed", failed_step, reason, steps, ..report });
                return Ok(Exit::Unhealthy);
            }
            let failure = Failure::new(Exit::Unhealthy, format!("{run} failed at {name}: {reason}"));
            Err(failure.hint(format!("lidless status {service}")))
        }
        (Err(_), None) => {
            let failure = Failure::new(Exit::TryAgain, format!("{run} is not over after {}", span(timeout)));
            Err(failure.hint(format!("it goes on: lidless events -f --service {service} --after {after}")))
        }
        (Ok(Err(failure)), None) if failure.exit != Exit::Unreachable => Err(failure),
        (Ok(_), None) => {
            let failure = Failure::new(Exit::Unreachable, format!("lidless ended before {run} did"));
            Err(failure.hint(format!("once it is back: lidless events --service {service} --after {after}")))
        }
    }
}

async fn refused(client: &Client, service: &str, why: String, code: &str) -> Failure {
    match code {
        "not_found" => match client.get::<Status>("/v1/status").await {
            Ok(status) => {
                unknown_service(service, status.services.iter().map(|service| service.name.as_str()))
            }
            Err(err) => err.into(),
        },
        "forbidden" => Failure::new(Exit::Permission, why).hint(format!("sudo lidless restart {service}")),
        "busy" => Failure::new(Exit::TryAgain, why).hint(format!("lidless status {service}")),
        "budget_spent" => {
            Failure::new(Exit::Refused, why).hint(format!("all the same: lidless restart {service} --force"))
        }
        "no_actuator" => Failure::new(Exit::Refused, why)
            .hint(format!("add `run` to `{service}` in the configuration: lidless schema")),
        _ => Failure::new(Exit::Refused, why).hint(format!("lidless status {service}")),
    }
}

/// Watches one run go by.
struct Follower<'a> {
    globals: &'a Globals,
    run: &'a str,
    names: Vec<String>,
    began: Duration,
    steps: Vec<StepReport>,
    verdict: Option<Verdict>,
}

impl<'a> Follower<'a> {
    fn new(globals: &'a Globals, run: &'a str) -> Follower<'a> {
        Follower { globals, run, names: Vec::new(), began: Duration::ZERO, steps: Vec::new(), verdict: None }
    }

    /// Takes the next event; `false` once the run is over.
    fn take(&mut self, line: &EventLine) -> bool {
        let Record { at, event, .. } = &line.record;
        if event.run().is_none_or(|run| run.to_string() != self.run) {
            return true;
        }
        match event {
            Event::RunCreated { plan, .. } => {
                self.names = plan.steps().iter().map(|step| step.name.clone()).collect()
            }
            Event::StepIntent { .. } => self.began = at.monotonic,
            Event::StepOutcome { step, outcome, .. } => {
                let took = at.monotonic.saturating_sub(self.began);
                match outcome {
                    Outcome::Applied { .. } | Outcome::Found { .. } => {
                        self.step(*step, Mark::Step, &line.text, took);
                    }
                    Outcome::Unknown { .. } => self.step(*step, Mark::Unknown, &line.text, took),
                    Outcome::NotApplied { .. }
                    | Outcome::Refused { .. }
                    | Outcome::Unavailable { .. }
                    | Outcome::Missing { .. } => {
                        self.step(*step, Mark::Down, &line.text, took);
                    }
                }
            }
            Event::StepConfirmed { step, .. }
            | Event::StepRetry { step, .. }
            | Event::StepLeftToVerify { step, .. }
            | Event::StepHeld { step, .. } => {
                self.step(*step, Mark::None, &line.text, at.monotonic.saturating_sub(self.began));
            }
            Event::RunFinished { verdict, .. } => self.verdict = Some(verdict.clone()),
            _ => {}
        }
        self.verdict.is_none()
    }

    fn step(&mut self, step: u32, mark: Mark, text: &str, took: Duration) {
        let name = self.names.get(step as usize).cloned().unwrap_or_default();
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if !self.globals.json() {
            let style = &self.globals.style;
            let took = style.dim(&span(took));
            self.globals.print(format!(" {} {name:<9} {text}   {took}", style.mark(mark)).trim_end());
        }
        let ok = mark == Mark::Step;
        self.steps.push(StepReport { name, ok, text: text.to_owned(), took_ms });
    }
}
