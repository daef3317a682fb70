//! How does whoever waits for a run hear of its end? An arrow a step, and one exit code for how it ended.

use std::cell::RefCell;
use std::time::Duration;

use lidless_core::event::Verdict;
use serde::Serialize;

use super::super::events::{self, Wanted};
use super::super::exit::{Exit, Failure};
use super::super::globals::Globals;
use super::seen::{End, Seen, StepReport};
use crate::api::client::Client;
use crate::api::{EventLine, Runs};
use crate::words::span;

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

/// Which run is followed, from where, and for how long.
#[derive(Clone, Copy)]
pub(in crate::cli) struct Followed<'a> {
    pub(in crate::cli) pipeline: &'a str,
    pub(in crate::cli) run: &'a str,
    /// The record before the first of interest.
    pub(in crate::cli) after: u64,
    pub(in crate::cli) timeout: Duration,
    /// There is no daemon that could be asked for anything.
    pub(in crate::cli) local: bool,
}

/// Shows a run of the daemon's until it is over, or waits for a person.
pub(in crate::cli) async fn follow(
    client: &Client,
    globals: &Globals,
    followed: Followed<'_>,
) -> Result<Exit, Failure> {
    // One that is resumed was created long ago, and only there its steps are named.
    let known: Runs = client.get("/v1/runs").await?;
    // Of one that is over, all that is still to be told is in the journal.
    let over = known.runs.iter().any(|status| status.id == followed.run && status.ended.is_some());
    let wanted = Wanted { after: Some(followed.after), follow: !over, ..Wanted::default() };
    let listen = async |visit: Visit<'_>| events::from_daemon(client, &wanted, visit).await;
    watch(globals, followed, known, listen).await
}

/// Takes the next event; `false` once no more are wanted.
pub(super) type Visit<'a> = &'a mut dyn FnMut(EventLine) -> bool;

/// Shows a run, of which `listen` tells, until it is over, or waits for a person.
pub(super) async fn watch(
    globals: &Globals,
    Followed { pipeline, run, timeout, local, .. }: Followed<'_>,
    known: Runs,
    listen: impl AsyncFnOnce(Visit<'_>) -> Result<(), Failure>,
) -> Result<Exit, Failure> {
    let known = known.runs.into_iter().find(|status| status.id == run);
    let over = known.clone().filter(|status| status.ended.is_some());
    let known = known.map(|status| status.steps);
    let (of, names) = known.map_or((0, Vec::new()), |steps| {
        let of = steps.iter().filter(|step| step.undoes.is_none()).count();
        (of, steps.into_iter().map(|step| step.name).collect())
    });
    if !globals.json() {
        globals.print(&format!("{}  {run}", globals.style.bold(pipeline)));
    }
    // Kept outside of the future, so that what was seen is known even when the time is up.
    let seen = RefCell::new(Seen::new(globals, run, names, of, local));
    let mut visit = |line: EventLine| seen.borrow_mut().take(&line);
    let followed = tokio::time::timeout(timeout, listen(&mut visit)).await;
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
    let with = if local { "with a daemon (lidless serve) " } else { "" };
    // The key was that of a run that was over long ago.
    if let (Ok(Ok(())), None, Some(over)) = (&followed, &end, &over) {
        let success = over.state == "done";
        if globals.json() {
            globals.document(&report(success, over.at.as_deref(), over.reason.as_deref()));
        } else {
            globals.print(&format!(" {run} was begun for it before: {}", over.state));
            globals.say(&format!("{} lidless explain {run}", globals.style_err.bold("more:")));
        }
        return Ok(if success { Exit::Ok } else { Exit::Unhealthy });
    }
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
            Err(failure.hint(format!("what is done stays done; {with}go on at {name}: lidless resume {run}")))
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
                "{with}try {name} again: lidless resume {run}; or leave it: lidless cancel {run}; or say that you did it \
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
                "{with}look, then: lidless resolve {run} {name} --applied --evidence 'how you know' (or --not-applied)"
            )))
        }
        (_, Some(End::Awaits { name })) => {
            let failure = Failure::new(Exit::TryAgain, format!("{run} waits for a person's yes to {name}"));
            Err(failure.hint(format!("say it {with}by: lidless approve {run} {name}")))
        }
        (Err(_), None) => {
            let failure = Failure::new(Exit::TryAgain, format!("{run} is not over after {}", span(timeout)));
            Err(failure.hint(if local {
                "the next lidless goes on with it".to_owned()
            } else {
                format!("it goes on: lidless runs {run}")
            }))
        }
        (Ok(Err(failure)), None) if failure.exit != Exit::Unreachable => Err(failure),
        (Ok(_), None) => {
            let failure = Failure::new(Exit::Unreachable, format!("lidless ended before {run} did"));
            Err(failure.hint(format!("the next lidless goes on with it: lidless runs {run}")))
        }
    }
}
