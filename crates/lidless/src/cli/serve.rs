//! `lidless serve`: how does the daemon begin, and how does it end?

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;

use super::Globals;
use super::exit::Exit;
use super::waiting::{Signals, to_end};
use crate::api::{Hooks, ServeError, Server};
use crate::config::{self, Resolved};
use crate::runtime::{self, BootError, Booted, RecoverError, systemd_notify};
use lidless_drivers::process::ManagedProcess;
use lidless_store::JournalError;

/// More checks than this are worth a second thread.
const SINGLE_THREAD_CHECKS_MAX: usize = 2_000;
/// So many open files are enough.
const DESCRIPTORS_MAX: u64 = 65_536;
/// How long stopping one service may take at the end, beyond its own time-out.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Watches and heals until it is told to end.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lidless serve examples/quickstart/lidless.yaml\n  lidless serve --config /etc/lidless\n\n\
    Services that lidless runs go on when it ends; the next lidless adopts them.\n\
    ^C or TERM ends it in good order; a second one ends the waiting."
)]
pub struct ServeArgs {
    /// The configuration: a file, or a folder with lidless.yaml
    #[arg(value_name = "CONFIG")]
    pub config: Option<PathBuf>,
    /// Where the command line reaches the daemon [default: lidless.sock beside the store]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Stop the services that lidless runs when it ends
    #[arg(long)]
    pub stop_services: bool,
}

/// Runs the daemon.
pub fn run(args: &ServeArgs, globals: &Globals) -> Exit {
    let paths = match &args.config {
        Some(path) => vec![path.clone()],
        None => globals.config_paths(),
    };
    let loaded = match config::load(&paths) {
        Ok(loaded) => loaded,
        Err(problems) => return globals.config_problems(&problems),
    };
    globals.config_warnings(&loaded.warnings);
    globals.init_log();
    raise_descriptors();
    let checks: usize = loaded.resolved.services.iter().map(|service| service.checks.len()).sum();
    match tokio_runtime(checks) {
        Ok(tokio) => to_end(tokio, serve(args, globals, loaded.resolved)),
        Err(err) => globals.fail(Exit::TryAgain, &format!("cannot start threads: {err}"), None),
    }
}

/// Every check under way holds a descriptor, and the usual soft limit of 1024 is for programs that use `select`.
///
/// Services that lidless runs inherit the limit. The hard one they could have reached themselves; one that sizes tables by it
/// would suffer from a billion, so it stays at a number that systemd, too, finds harmless.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.unwrap_or(DESCRIPTORS_MAX).min(DESCRIPTORS_MAX);
    if current.is_some_and(|current| current < wanted)
        && let Err(err) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
    {
        tracing::warn!(error = %err, "The limit of open files stays as it is.");
    }
}

/// One thread costs least; many checks are worth two.
pub(super) fn tokio_runtime(checks: usize) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = if checks > SINGLE_THREAD_CHECKS_MAX {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2);
        builder
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder.enable_all().thread_name("lidless").build()
}

async fn serve(args: &ServeArgs, globals: &Globals, resolved: Resolved) -> Exit {
    let store = resolved.store_path.clone();
    let state_dir = store.parent().unwrap_or(Path::new(".")).to_owned();
    let socket = args.socket.clone().unwrap_or_else(|| super::socket_for_store(&store));
    let Booted { daemon, handle, managed, replayed } =
        match runtime::boot(&resolved, Some(&store), &state_dir) {
            Ok(booted) => booted,
            Err(err) => return boot_failed(globals, &err),
        };
    let server = match Server::bind(&socket, resolved.web).await {
        Ok(server) => server,
        Err(err) => {
            let (exit, hint) = bind_exit(&err);
            return globals.fail_with(exit, &err, Some(hint));
        }
    };
    let services = resolved.services.len();
    let web = server.web().map_or_else(String::new, |web| format!("http://{web}"));
    tracing::info!(services, socket = %socket.display(), store = %store.display(), web, replayed, "Watching.");
    let (stop, over) = (CancellationToken::new(), CancellationToken::new());
    let hooks = Hooks::of(&resolved);
    let serving = tokio::spawn(server.serve(handle.clone(), Some(store), hooks, stop.clone(), over.clone()));
    let signals = Signals::catch();
    systemd_notify::ready();
    let to_the_end = async {
        let drained = daemon.run(stop.clone()).await;
        stop.cancel();
        for cut in &drained.cut {
            tracing::warn!(act = %cut, "Cut off; the next lidless finds out what became of it.");
        }
        let left = put_away(args, &managed).await;
        over.cancel();
        if let Err(err) = serving.await {
            tracing::error!(error = %err, "A task was lost; this is a bug in lidless.");
        }
        // Last of all: from here on the next lidless may begin, and must find neither our socket nor us at its services.
        (drained.close().await, left)
    };
    let (unclosed, left) = tokio::select! {
        ended = to_the_end => ended,
        signal = asked_twice(signals, stop.clone()) => {
            tracing::warn!(signal, "Not waiting any longer; the next lidless finds out what is left.");
            return Exit::Signal(signal);
        }
        never = systemd_notify::pat(handle, stop.clone()) => match never {},
    };
    match unclosed {
        None if left.is_empty() => Exit::Ok,
        None => globals.fail(
            Exit::Unhealthy,
            &format!("not stopped, and still running: {}", left.join(", ")),
            None,
        ),
        Some(why) => {
            globals.fail(Exit::Unhealthy, &format!("the journal was not closed in good order: {why}"), None)
        }
    }
}

/// Stops the services that lidless runs, if that is wanted: all at once, each within its own time. Returns those that run on
/// against our will.
async fn put_away(args: &ServeArgs, managed: &[(String, Arc<ManagedProcess>)]) -> Vec<String> {
    if !args.stop_services {
        if !managed.is_empty() {
            tracing::info!(
                services = managed.len(),
                "Services go on without us; the next lidless adopts them."
            );
        }
        return Vec::new();
    }
    let stopping =
        managed.iter().map(async |(name, process)| match process.stop(process.stop_time(STOP_GRACE)).await {
            Ok(_) => {
                tracing::info!(service = %name, "Stopped.");
                None
            }
            Err(err) => {
                tracing::error!(service = %name, error = %err, "Not stopped.");
                Some(name.clone())
            }
        });
    join_all(stopping).await.into_iter().flatten().collect()
}

/// Explains why the daemon cannot begin.
pub(super) fn boot_failed(globals: &Globals, err: &BootError) -> Exit {
    let journal = match err {
        BootError::Journal(err) | BootError::Recover(RecoverError::Journal(err)) => Some(err),
        BootError::Recover(RecoverError::Illegal(_)) | BootError::Driver(_) | BootError::Thread(_) => None,
    };
    match (journal, err) {
        (Some(err), _) => globals.fail_with(journal_exit(err), err, err.hint()),
        (None, BootError::Driver(_)) => {
            globals.fail_with(Exit::Config, err, Some("`lidless check --live` tells more"))
        }
        (None, BootError::Thread(_)) => globals.fail_with(Exit::TryAgain, err, None),
        (None, _) => {
            globals.fail_with(Exit::Unhealthy, err, Some("`lidless store verify` names the first broken row"))
        }
    }
}

/// The exit code of a journal that cannot be used: in use, forbidden, or failed by the world.
fn journal_exit(err: &JournalError) -> Exit {
    match err {
        JournalError::Locked { .. } => Exit::Unreachable,
        JournalError::Permission { .. } | JournalError::ReadOnly { .. } => Exit::Permission,
        JournalError::Full { .. }
        | JournalError::Io { .. }
        | JournalError::Corrupt { .. }
        | JournalError::Truncated { .. }
        | JournalError::SchemaTooNew { .. }
        | JournalError::OutOfSequence { .. }
        | JournalError::Conflict { .. }
        | JournalError::AckLost { .. }
        | JournalError::NotFound { .. }
        | JournalError::NotAJournal { .. }
        | JournalError::Encode { .. } => Exit::Unhealthy,
    }
}

/// The exit code of an address that cannot be listened on, and what to do.
fn bind_exit(err: &ServeError) -> (Exit, &'static str) {
    const ELSEWHERE: &str = "stop the other lidless, or choose another --socket or web.listen";
    match err {
        ServeError::Taken(_) => (Exit::Unreachable, ELSEWHERE),
        ServeError::InTheWay(_) => (Exit::Unreachable, "move it away, or choose another --socket"),
        ServeError::Listen { err, .. } => match err.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => (
                Exit::Permission,
                "choose a --socket or web.listen that this user may use, or run it as root",
            ),
            ErrorKind::AddrInUse => (Exit::Unreachable, ELSEWHERE),
            _ => (Exit::Unhealthy, "choose another --socket or web.listen"),
        },
    }
}

/// Ends us on the first signal, in good order. Returns at the second: whoever sends that does not want to wait.
async fn asked_twice(signals: Option<Signals>, stop: CancellationToken) -> i32 {
    let Some(mut signals) = signals else { return std::future::pending().await };
    let number = signals.next().await;
    tracing::info!(signal = number, "Ending.");
    stop.cancel();
    signals.next().await
}

/// Ends us on SIGTERM and SIGINT.
pub(super) async fn ended_by_signal(stop: CancellationToken) -> Option<i32> {
    let mut signals = Signals::catch()?;
    let number = tokio::select! {
        number = signals.next() => number,
        () = stop.cancelled() => return None,
    };
    tracing::info!(signal = number, "Ending.");
    stop.cancel();
    Some(number)
}
