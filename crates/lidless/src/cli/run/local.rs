//! `lidless run --local`: how does a run go without a daemon? The same runtime in this process, and everything but the run off.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lidless_core::effect::{Command, Reply};
use lidless_core::health::Health;
use lidless_core::id::RunId;
use lidless_core::pipeline::plan::StepCall;
use lidless_core::pipeline::run::{Phase, Run};
use lidless_drivers::step::exact;
use lidless_store::JournalError;
use serde_json::Value;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::exit::{Exit, Failure};
use super::super::globals::Globals;
use super::super::runs;
use super::super::serve::{boot_failed, tokio_runtime};
use super::super::waiting::{Signals, to_end};
use super::follow::{Followed, Visit, watch};
use super::{RunArgs, inputs, timeout};
use crate::api;
use crate::config::{self, Resolved};
use crate::runtime::{self, BootError, Booted, Handle, Lost, View};
use crate::words::Told;

/// How long checks may take until it is known whether what is required is well.
const CHECKS_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at them.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs it here.
pub(super) fn run(args: &RunArgs, globals: &Globals) -> Exit {
    let loaded = match config::load(&globals.config_paths()) {
        Ok(loaded) => loaded,
        Err(problems) => return globals.config_problems(&problems),
    };
    globals.config_warnings(&loaded.warnings);
    globals.init_log_quiet();
    match tokio_runtime(1) {
        Ok(tokio) => to_end(tokio, local(args, globals, &loaded.resolved)),
        Err(err) => globals.fail(Exit::TryAgain, &format!("cannot start threads: {err}"), None),
    }
}

async fn local(args: &RunArgs, globals: &Globals, resolved: &Resolved) -> Exit {
    let store = &resolved.store_path;
    let state_dir = store.parent().unwrap_or(Path::new(".")).to_owned();
    let Booted { daemon, handle, .. } = match runtime::boot_for_orders(resolved, store, &state_dir) {
        Ok(booted) => booted,
        Err(BootError::Journal(err @ JournalError::Locked { .. })) => {
            let hint = format!("let it do it: lidless run {}, without --local", args.pipeline);
            return globals.fail_with(Exit::Unreachable, &err, Some(&hint));
        }
        Err(err) => return boot_failed(globals, &err),
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(daemon.run(stop.clone()));
    let (run, signal) = (Cell::new(None), Cell::new(None));
    let work = Local { args, globals, resolved, handle: &handle, run: &run };
    let ended = tokio::select! {
        ended = work.to_the_end() => ended,
        () = asked_twice(&handle, globals, &run, &signal) => {
            Err(Failure::new(Exit::Unhealthy, "not waiting any longer; the next lidless finds out what is left"))
        }
    };
    stop.cancel();
    let unclosed = match running.await {
        Ok(drained) => {
            for cut in &drained.cut {
                globals.say(&format!("cut off; the next lidless finds out what became of it: {cut}"));
            }
            drained.close().await
        }
        Err(err) => Some(format!("a bug in lidless: {err}")),
    };
    let exit = ended.unwrap_or_else(|failure| globals.report(&failure));
    match (unclosed, signal.get()) {
        (Some(why), _) => {
            globals.fail(Exit::Unhealthy, &format!("the journal was not closed in good order: {why}"), None)
        }
        (None, Some(number)) if exit != Exit::Ok => Exit::Signal(number),
        (None, _) => exit,
    }
}

/// Cancels the run at the first signal; returns at the second, or where there is no run yet.
async fn asked_twice(
    handle: &Handle,
    globals: &Globals,
    run: &Cell<Option<RunId>>,
    signal: &Cell<Option<i32>>,
) {
    let Some(mut signals) = Signals::catch() else { return std::future::pending().await };
    let number = signals.next().await;
    signal.set(Some(number));
    let Some(id) = run.get() else { return };
    globals.say(&format!("cancelling {id}: what is under way is settled first; once more to end at once"));
    // It may have ended just now.
    drop(handle.command(Command::Cancel { run: id, by: by() }).await);
    signals.next().await;
}

fn by() -> String {
    format!("uid {}", rustix::process::getuid().as_raw())
}

struct Local<'a> {
    args: &'a RunArgs,
    globals: &'a Globals,
    resolved: &'a Resolved,
    handle: &'a Handle,
    run: &'a Cell<Option<RunId>>,
}

impl Local<'_> {
    async fn to_the_end(&self) -> Result<Exit, Failure> {
        let args = self.args;
        let (timeout, inputs) = (timeout(&args.timeout)?, inputs(&args.inputs)?);
        inputs.values().try_for_each(exact).map_err(|why| Failure::new(Exit::Usage, why))?;
        let inputs = if inputs.is_empty() { String::new() } else { Value::Object(inputs).to_string() };
        let until = Instant::now() + timeout;
        let mut told = self.handle.listen();
        self.settle_what_was_before(&mut told, until).await?;
        self.wait_for_checks(&mut told).await?;
        let command = Command::Run {
            pipeline: args.pipeline.clone(),
            by: by(),
            inputs,
            from: args.from.clone(),
            key: args.key.clone(),
            due: None,
            wait: args.queue,
        };
        let next = self.ask(|view| view.engine.state().next_run.max(1)).await?;
        let mut told = self.handle.listen();
        let run = match self.handle.command(command).await {
            Ok(Reply::Started(run)) => run,
            Ok(Reply::Refused(refusal)) => {
                let (code, why) = api::refused(&refusal, &format!("pipeline `{}`", args.pipeline));
                let known = self.resolved.spec.pipelines.iter().map(|pipeline| pipeline.name.clone());
                return Err(match code {
                    "not_found" => runs::not_found(why, &known.collect::<Vec<_>>()),
                    code => {
                        runs::refusal(why, code).hint("lidless explain tells of a run: --store has them all")
                    }
                });
            }
            Ok(Reply::Noted) | Err(Lost) => return Err(lost()),
        };
        self.run.set(Some(run));
        let known = self.ask(api::read_runs).await?;
        let name = run.to_string();
        let left = until.saturating_duration_since(Instant::now());
        let followed =
            Followed { pipeline: &args.pipeline, run: &name, after: 0, timeout: left, local: true };
        let old = run.0 < next;
        let over = known.runs.iter().any(|status| status.id == name && status.ended.is_some());
        let listen = async |visit: Visit<'_>| {
            // What it was begun for before is not told again.
            if old && over { Ok(()) } else { hear(&mut told, visit).await }
        };
        watch(self.globals, followed, known, listen).await
    }

    /// Lets the runs that an earlier lidless left come to rest: over, or waiting for a person or for time.
    async fn settle_what_was_before(
        &self,
        told: &mut Receiver<Arc<Told>>,
        until: Instant,
    ) -> Result<(), Failure> {
        let before: BTreeSet<RunId> = self.ask(moving).await?;
        for run in &before {
            self.globals.say(&format!("{run} was left unfinished, and is settled first"));
        }
        loop {
            let left: Vec<RunId> = self.ask(moving).await?.intersection(&before).copied().collect();
            let Some(first) = left.first() else { return Ok(()) };
            if tokio::time::timeout_at(until, told.recv()).await.is_err() {
                let failure = Failure::new(Exit::TryAgain, format!("{first} of before is not settled yet"));
                return Err(failure.hint("once more, with a longer --timeout"));
            }
        }
    }

    /// Waits until it is known of each service that a step requires whether it is well, but not for long.
    async fn wait_for_checks(&self, told: &mut Receiver<Arc<Told>>) -> Result<(), Failure> {
        let spec = self.resolved.spec.pipelines.iter().find(|spec| spec.name == self.args.pipeline);
        let steps = spec.map(|spec| spec.plan.forward()).unwrap_or_default();
        let required = steps.iter().filter_map(|step| match &step.call {
            StepCall::Require { healthy } => Some(healthy.clone()),
            StepCall::Nothing
            | StepCall::Wait { .. }
            | StepCall::Act { .. }
            | StepCall::Service { .. }
            | StepCall::Verify { .. }
            | StepCall::External { .. } => None,
        });
        let required: Vec<String> = required.flatten().collect();
        let until = Instant::now() + CHECKS_WITHIN;
        loop {
            let names = required.clone();
            let open = self.ask(move |view| names.iter().any(|name| is_open(view, name))).await?;
            let look = Instant::now() + LOOK_EVERY;
            if !open || Instant::now() > until {
                return Ok(());
            }
            // An answer that changes nothing is no event.
            drop(tokio::time::timeout_at(look, told.recv()).await);
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        self.handle.query(read).await.map_err(|Lost| lost())
    }
}

fn lost() -> Failure {
    Failure::new(Exit::TryAgain, "lidless is ending")
}

/// Whether it is still to be seen if a service is well: what an earlier lidless saw is long ago.
fn is_open(view: &View<'_>, service: &str) -> bool {
    let state = view.engine.state();
    let Some(id) = state.service_named(service) else { return false };
    let checks = &state.services[id.index()].checks;
    let seen = |check| view.engine.observed(check).is_some_and(|seen| !seen.at.is_zero());
    !checks.iter().all(|check| seen(*check)) || !matches!(state.service_health(id), Health::Up | Health::Down)
}

/// The runs of pipelines that go on by themselves.
fn moving(view: &View<'_>) -> BTreeSet<RunId> {
    let moves = |run: &&Run| {
        run.purpose.pipeline().is_some()
            && run.open_steps().any(|(_, phase)| {
                matches!(
                    phase,
                    Phase::InFlight { .. }
                        | Phase::InDoubt { .. }
                        | Phase::Calling { .. }
                        | Phase::Verifying { .. }
                )
            })
    };
    view.engine.state().runs.values().filter(moves).map(|run| run.id).collect()
}

/// Hands on what is told, until no more is wanted.
async fn hear(told: &mut Receiver<Arc<Told>>, visit: Visit<'_>) -> Result<(), Failure> {
    loop {
        match told.recv().await {
            Ok(told) => {
                if !visit(Told::clone(&told).into()) {
                    return Ok(());
                }
            }
            Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "Events were too quick to be shown."),
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}
