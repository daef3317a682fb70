//! How is the launcher started, and what came of it? Sends the request, reads the report, leaves no zombie.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Instant, timeout_at};

use super::handle::Handle;
use super::instance::{Instance, has_ended, stat};
use super::launch::{LAUNCH_COMMAND, LaunchRequest, Report};
use super::signal::Exit;

/// How many ended launchers are remembered.
const REMEMBERED_MAX: usize = 4;

/// Which program is the launcher: one that calls [`super::launch_main`] when its first argument is `__launch`.
#[derive(Clone, Debug)]
pub struct Launcher {
    program: OsString,
}

impl Launcher {
    /// Our own binary. Through `/proc`, so that it works after the file was replaced by an upgrade.
    pub fn own_binary() -> Self {
        Launcher { program: "/proc/self/exe".into() }
    }

    /// Another program.
    pub fn program(path: impl Into<OsString>) -> Self {
        Launcher { program: path.into() }
    }
}

/// Launchers that we started and whose end concerns us: they became the service, or have to be reaped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Launched(Arc<Mutex<Vec<Child>>>);

/// One process that we started.
#[derive(Debug)]
pub(crate) struct Child {
    pid: i32,
    start_ticks: u64,
    pub(crate) handle: OwnedFd,
    /// How it ended, once it was reaped.
    pub(crate) exit: Option<Exit>,
}

impl Launched {
    /// Hands over the child that became this instance; whoever watches the instance reaps it.
    pub(crate) fn take(&self, instance: &Instance) -> Option<Child> {
        let mut children = self.lock();
        let same = |child: &Child| child.pid == instance.pid && child.start_ticks == instance.start_ticks;
        let index = children.iter().position(same)?;
        Some(children.swap_remove(index))
    }

    /// Reaps those that ended, and remembers how for a while: their record may not have been read yet.
    pub(crate) fn reap(&self) {
        let mut children = self.lock();
        for child in children.iter_mut().filter(|child| child.exit.is_none()) {
            if has_ended(&child.handle) {
                child.exit = Some(reap(&child.handle));
            }
        }
        let mut spare = children.len().saturating_sub(REMEMBERED_MAX);
        children.retain(|child| {
            let forget = spare > 0 && child.exit.is_some();
            spare -= usize::from(forget);
            !forget
        });
    }

    async fn ended(&self, pid: i32, deadline: Instant) -> io::Result<()> {
        let handle = match self.lock().iter().find(|child| child.pid == pid && child.exit.is_none()) {
            Some(child) => child.handle.try_clone()?,
            None => return Ok(()),
        };
        let handle = Handle::watch(handle)?;
        timeout_at(deadline, handle.ended()).await.unwrap_or(Ok(()))
    }

    fn add(&self, pid: i32) -> io::Result<()> {
        // Our own child that nobody has reaped: the pid is its own.
        let number = Pid::from_raw(pid).ok_or_else(|| io::Error::other("a child without a pid"))?;
        let handle = pidfd_open(number, PidfdFlags::empty())?;
        let stat = stat(pid)?.ok_or_else(|| io::Error::other("a child that is not in /proc"))?;
        self.lock().push(Child { pid, start_ticks: stat.start_ticks, handle, exit: None });
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Child>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reaps a process that has ended, and says how; `Unknown` where it is not our child.
pub(crate) fn reap(handle: impl AsFd) -> Exit {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match waitid(WaitId::PidFd(handle.as_fd()), options) {
        Ok(Some(status)) => Exit::of(&status),
        Ok(None) | Err(_) => Exit::Unknown,
    }
}

/// How a launch went, as far as the launcher tells.
pub(crate) enum Told {
    /// Nothing: it became the service, or died on the way. The record knows.
    Nothing {
        /// The launcher's pid, and so the new instance's.
        pid: i32,
    },
    /// Why it did not become the service.
    Report(Report),
    /// It had not said anything by the deadline.
    Silence,
}

/// Starts a launcher and waits for what it tells.
///
/// Cancel-safe in the sense that matters: a launcher that was started goes on and records itself.
pub(crate) async fn launch(
    launcher: &Launcher,
    slot: &Path,
    request: &LaunchRequest,
    launched: &Launched,
    deadline: Instant,
) -> io::Result<Told> {
    let text = serde_json::to_vec(request)?;
    let (program, slot, children) = (launcher.program.clone(), slot.to_owned(), launched.clone());
    // `fork` and `exec` of a large binary take a millisecond in which the caller's thread has better things to do.
    let started = tokio::task::spawn_blocking(move || start(program, &slot, &text, &children)).await;
    let (pid, result) = started.map_err(io::Error::other)??;
    let mut result = Receiver::from_owned_fd(result)?.take(64 * 1024);
    let mut told = Vec::new();
    match timeout_at(deadline, result.read_to_end(&mut told)).await {
        Err(_) => return Ok(Told::Silence),
        Ok(read) => read?,
    };
    if told.is_empty() {
        return Ok(Told::Nothing { pid });
    }
    // It reports before it ends, and may be on record: until it has ended, it would be taken for the service.
    launched.ended(pid, deadline).await?;
    Ok(Told::Report(serde_json::from_slice(&told)?))
}

fn start(program: OsString, slot: &Path, request: &[u8], launched: &Launched) -> io::Result<(i32, OwnedFd)> {
    let mut child = Command::new(&program)
        .arg0("lidless")
        .arg(LAUNCH_COMMAND)
        .arg(slot)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    if let Err(err) = launched.add(pid) {
        // Not to be watched, so not to be started: it has no request yet, and so has not done anything.
        drop((child.kill(), child.wait()));
        return Err(err);
    }
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(request) {
            // It died at once; the end of its stdout will tell.
            Err(err) if err.kind() == io::ErrorKind::BrokenPipe => {}
            other => other?,
        }
    }
    let stdout = child.stdout.take().ok_or_else(|| io::Error::other("the launcher has no stdout"))?;
    Ok((pid, stdout.into()))
}
