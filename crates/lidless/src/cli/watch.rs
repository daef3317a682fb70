//! `lidless watch`: the twenty-line watchdog script in one line, with deadlines, a budget and proof.
//!
//! The flags become a small configuration, which then runs on the same engine as the daemon; `--save` keeps it.

mod once;
mod plan;
mod screen;

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::Globals;
use super::exit::Exit;
use super::serve::{boot_failed, ended_by_signal, tokio_runtime};
use crate::config::{self, Resolved};
use crate::runtime::{self, Booted};
use once::{LOOK_EVERY, Once};
use plan::Plan;
use screen::Screen;

/// So often is looked whether anybody still reads what is written.
const LOOK_FOR_READER_EVERY: Duration = Duration::from_secs(1);

/// Watches one thing, heals it, and proves it: no configuration, no daemon.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lidless watch http://127.0.0.1:8080/health --heal 'systemctl restart myapp' --tries 3 --settle 5s --once\n  \
    lidless watch tcp://127.0.0.1:5432 --every 10s\n  lidless watch --unit myapp\n  lidless watch --heal ./restart.sh -- ./my-check.sh\n\n\
    With --once: exit 0 once it is healthy, 1 after --tries failed checks, --settle apart, with a heal between each two.\n\
    A heal that fails is judged by the check that follows, like any other.\n\
    A check command answers by its exit code: 0 well, 3 cannot tell, else not well."
)]
pub struct WatchArgs {
    /// What to ask: http://..., https://... or tcp://HOST:PORT
    #[arg(value_name = "TARGET", required_unless_present_any = ["unit", "command"], conflicts_with_all = ["unit", "command"])]
    pub target: Option<String>,
    /// Watch a systemd unit, and heal it over D-Bus
    #[arg(long, value_name = "NAME", conflicts_with = "command")]
    pub unit: Option<String>,
    /// The command that heals, run by sh
    #[arg(long, value_name = "COMMAND")]
    pub heal: Option<String>,
    /// Heals allowed, as 3 or 3/15m; with --once, failed checks until CRITICAL
    #[arg(long, value_name = "N[/TIME]", default_value = "3")]
    pub tries: String,
    /// How long to wait after a heal before its effect is judged; with --once also without a heal
    #[arg(long, value_name = "TIME", default_value = "5s")]
    pub settle: String,
    /// From one check to the next
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub every: String,
    /// The deadline of one check
    #[arg(long, value_name = "TIME", default_value = "3s")]
    pub timeout: String,
    /// Failures in a row until it is down [default: 3, with --once 1]
    #[arg(long, value_name = "N")]
    pub fail_after: Option<u32>,
    /// Passes in a row until it is up again [default: 2, with --once 1]
    #[arg(long, value_name = "N")]
    pub recover_after: Option<u32>,
    /// What to call it [default: the target]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// End as soon as it is healthy, or cannot be made so
    #[arg(long)]
    pub once: bool,
    /// Append the same thing to a configuration file instead of running
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "lidless.yaml")]
    pub save: Option<PathBuf>,
    /// The check command and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Runs the watch.
pub fn run(args: &WatchArgs, globals: &Globals) -> Exit {
    let plan = match Plan::of(args) {
        Ok(plan) => plan,
        Err(why) => return globals.fail(Exit::Usage, &why, Some("`lidless watch --help` shows examples")),
    };
    let yaml = plan.yaml(args, None);
    let loaded = match config::from_str("the command line", &yaml) {
        Ok(loaded) => loaded,
        Err(problems) => return globals.config_problems(&problems),
    };
    if let Some(path) = &args.save {
        let here = match super::save::elsewhere(path) {
            Ok(here) => here,
            Err(why) => return globals.fail(Exit::Usage, &why, None),
        };
        return super::save::save(path, &plan.service_yaml(args, here.as_deref()), &plan.key, globals);
    }
    let mut resolved = loaded.resolved;
    plan.adjust(&mut resolved, args);
    globals.init_log_quiet();
    match tokio_runtime(1) {
        Ok(tokio) => super::waiting::to_end(tokio, watch(&plan, args, globals, &resolved)),
        Err(err) => globals.fail(Exit::TryAgain, &format!("cannot start threads: {err}"), None),
    }
}

async fn watch(plan: &Plan, args: &WatchArgs, globals: &Globals, resolved: &Resolved) -> Exit {
    // Without a journal nothing outlives us, so processes are none of `watch`'s business: no state directory is used.
    let state_dir = std::env::temp_dir();
    let booted = if args.once {
        runtime::boot_once(resolved, &state_dir)
    } else {
        runtime::boot(resolved, None, &state_dir)
    };
    let Booted { daemon, handle, .. } = match booted {
        Ok(booted) => booted,
        Err(err) => return boot_failed(globals, &err),
    };
    let stop = CancellationToken::new();
    let mut told = handle.listen();
    let signals = tokio::spawn(ended_by_signal(stop.clone()));
    let running = tokio::spawn(daemon.run(stop.clone()));
    let mut screen = Screen::new(plan, args, globals);
    screen.begin();
    let mut look = tokio::time::interval(if args.once { LOOK_EVERY } else { LOOK_FOR_READER_EVERY });
    let mut once = Once::new(plan.tries);
    let verdict = loop {
        tokio::select! {
            told = told.recv() => match told {
                Ok(told) => {
                    screen.show(&told, &handle).await;
                    if args.once && let Some(verdict) = once.hear(&told) {
                        break Some(verdict);
                    }
                    if !globals.flush() {
                        break None;
                    }
                }
                Err(RecvError::Lagged(missed)) => globals.say(&format!("{missed} lines were too quick to be shown")),
                Err(RecvError::Closed) => break None,
            },
            _ = look.tick() => {
                if !args.once && reader_is_gone() {
                    break None;
                }
                if args.once && let Some(verdict) = once.look(&handle).await {
                    break Some(verdict);
                }
            }
            () = stop.cancelled() => break None,
        }
    };
    let summary = handle.query(|view| (view.now, view.probes)).await.ok();
    stop.cancel();
    if let Err(err) = running.await {
        return globals.fail(Exit::TryAgain, &format!("a bug in lidless: {err}"), None);
    }
    let signal = signals.await.ok().flatten();
    match verdict {
        Some(Ok(())) => {
            if globals.json() {
                globals.data(&plan.verdict_line(None));
            } else {
                globals.print(&format!("{} is healthy", plan.label));
            }
            Exit::Ok
        }
        Some(Err(why)) => {
            if globals.json() {
                globals.data(&plan.verdict_line(Some(&why)));
            }
            // The line that scripts look for; the reason stands on a line of its own.
            let (time, label, tries) = (globals.clock_time(), &plan.label, plan.tries);
            globals.insist(&format!("{time} CRITICAL: {label} failed after {tries} retries\n  {why}"));
            Exit::Unhealthy
        }
        None => {
            if let Some((now, probes)) = summary {
                screen.end(now, probes);
            }
            signal.map_or(Exit::Ok, Exit::Signal)
        }
    }
}

/// Whether stdout is a pipe that nobody reads any more: a service that is well writes nothing that would tell.
fn reader_is_gone() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let stdout = std::io::stdout();
    let mut looked = [PollFd::new(&stdout, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut looked, Some(&at_once)).is_ok() && looked[0].revents().contains(PollFlags::ERR)
}
