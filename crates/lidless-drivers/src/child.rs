//! How is a command run so that nothing of it outlives its deadline?
//!
//! The command leads a process group of its own. At the deadline, and when whoever waits for it gives up, the whole group is
//! killed. We learn of the leader's end without reaping it: until it is reaped, its number, which names the group, cannot be
//! given to a stranger. What leaves the group (`setsid`) or runs as another user (`sudo`) is beyond reach, but cannot hold
//! us up either.
//!
//! A start has to wait for the new process to enter its directory and to load its program, which a dead network mount holds
//! up for ever: it waits on a thread of its own, once a command at a time. One that comes back late is killed.

mod input;
mod output;

pub(crate) mod lasting;
pub(crate) mod stream;

use std::collections::BTreeMap;
use std::fs::File;
use std::future::pending;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use input::Input;
use output::{Output, nameless_file};

/// How long a killed command may take to be gone. A process stuck in the kernel takes longer: it is reaped in the background.
const REAP_MAX: Duration = Duration::from_millis(250);

/// What service managers tell a process about itself, and what a step tells a lidless that it starts. It is meant for us, not
/// for what we run.
pub(crate) const OURS_ALONE: [&str; 8] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LIDLESS_UNDOES",
    "LIDLESS_UNDOES_KEY",
];

/// A command to run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CommandSpec {
    /// The program and its arguments. No shell: who wants one says `sh -c`.
    pub argv: Vec<String>,
    /// Where it runs; `None`: where we run.
    pub dir: Option<PathBuf>,
    /// What is added to our environment, or replaces a part of it.
    pub env: BTreeMap<String, String>,
    /// What happens to processes that it leaves behind.
    pub leftovers: Leftovers,
    /// Its starts under way, shared by all copies of this.
    pub starts: Starts,
}

/// The starts of one command that are under way: one at most, for none can be cut short.
#[derive(Clone, Debug)]
pub struct Starts(Arc<Semaphore>);

impl Default for Starts {
    fn default() -> Self {
        Starts(Arc::new(Semaphore::new(1)))
    }
}

/// Commands are equal whatever is under way.
impl PartialEq for Starts {
    fn eq(&self, _: &Starts) -> bool {
        true
    }
}

impl Eq for Starts {}

/// What happens to processes of the group that are still there when the command itself ends in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Leftovers {
    /// They are killed: right for a question.
    #[default]
    Kill,
    /// They stay: right for a start script, whose very purpose they may be. The command gets a file in memory to write to,
    /// so that what they write later to what they inherited hurts nobody; it is read no more, and takes up memory until
    /// the last of them ends. If the command itself is overdue, they are killed with it.
    Leave,
}

/// How a command ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The beginning of what it wrote.
    pub stdout: Vec<u8>,
    /// The beginning of what it complained about.
    pub stderr: Vec<u8>,
    /// From before its start to its end.
    pub took: Duration,
    /// Whether the deadline ended it.
    pub timed_out: bool,
}

/// Why a command could not be run.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// There is no program.
    #[error("the command is empty")]
    Empty,
    /// It has nowhere to run.
    #[error("cannot run `{program}`: its directory `{}` is not there", dir.display())]
    Directory {
        /// The program.
        program: String,
        /// The missing directory.
        dir: PathBuf,
    },
    /// It is missing, not executable, or there are no more processes to be had.
    #[error("cannot run `{program}`")]
    Start {
        /// The program.
        program: String,
        /// What happened.
        #[source]
        err: io::Error,
    },
    /// Its start did not come back in time, or an earlier one has still not.
    #[error("cannot run `{program}`: it could not be started in time; its directory or its file may hang")]
    Hung {
        /// The program.
        program: String,
    },
    /// It was started, could not be watched, and was killed again.
    #[error("cannot watch `{program}`")]
    Watch {
        /// The program.
        program: String,
        /// What happened.
        #[source]
        err: io::Error,
    },
}

/// Runs a command to its end, or to the deadline.
///
/// Keeps up to `max_output` bytes of each stream, and drops the rest. A command that does not read `stdin` is not held
/// up by it. When the returned future is dropped, the process group is killed.
pub async fn run(
    spec: &CommandSpec,
    stdin: Option<&[u8]>,
    timeout: Duration,
    max_output: usize,
) -> Result<Ended, SpawnError> {
    run_noted(spec, stdin, timeout, max_output, |_| {}).await
}

/// As [`run`]; `note` is called with the pid, on another thread, at once when the command was started.
pub(crate) async fn run_noted(
    spec: &CommandSpec,
    stdin: Option<&[u8]>,
    timeout: Duration,
    max_output: usize,
    note: impl FnOnce(i32) + Send + 'static,
) -> Result<Ended, SpawnError> {
    let started = Instant::now();
    let files = match spec.leftovers {
        Leftovers::Kill => None,
        Leftovers::Leave => {
            Some(Files::new().map_err(|err| SpawnError::Start { program: program(spec), err })?)
        }
    };
    let inherited = files.as_ref().map(Files::try_clone).transpose();
    let inherited = inherited.map_err(|err| SpawnError::Start { program: program(spec), err })?;
    let streams = Streams { files: inherited, with_input: stdin.is_some() };
    // In this order: what is bound last is dropped first.
    let Started { mut child, mut group } = start_by(started + timeout, spec, streams, note).await?;
    let exit = group.exit().map_err(|err| SpawnError::Watch { program: program(spec), err })?;
    let first = Bytes::copy_from_slice(stdin.unwrap_or_default());
    let mut input = Input::new(child.stdin.take(), first, None);
    let (mut stdout, mut stderr) = match files {
        None => (
            Output::of_pipe(child.stdout.take(), max_output),
            Output::of_pipe(child.stderr.take(), max_output),
        ),
        Some(files) => (Output::of_file(files.stdout, max_output), Output::of_file(files.stderr, max_output)),
    };

    let left = timeout.saturating_sub(started.elapsed());
    let overdue = tokio::time::timeout(left, async {
        loop {
            // Each branch is cancel-safe: bytes are taken and counted without a wait in between.
            tokio::select! {
                () = ended(&exit) => break,
                () = stdout.read() => {}
                () = stderr.read() => {}
                () = input.write() => {}
            }
        }
    })
    .await
    .is_err();
    if overdue || spec.leftovers == Leftovers::Kill {
        group.kill();
    }
    let status = reap(&mut child).await;
    if status.is_some() {
        group.forget();
    }
    stdout.drain();
    stderr.drain();
    Ok(Ended {
        code: status.and_then(|status| status.code()),
        signal: status.and_then(|status| status.signal()),
        stdout: stdout.kept,
        stderr: stderr.kept,
        took: started.elapsed(),
        // It may have ended by itself in the very moment of the deadline: an exit code is an answer.
        timed_out: overdue && status.and_then(|status| status.code()).is_none(),
    })
}

/// What a command writes to that may leave somebody behind.
struct Files {
    stdout: File,
    stderr: File,
}

impl Files {
    fn new() -> io::Result<Files> {
        Ok(Files { stdout: nameless_file()?, stderr: nameless_file()? })
    }

    fn try_clone(&self) -> io::Result<Files> {
        Ok(Files { stdout: self.stdout.try_clone()?, stderr: self.stderr.try_clone()? })
    }
}

/// A command that was started. Dropped, it is killed with its group.
struct Started {
    // In this order: see `Group`.
    group: Group,
    child: Child,
}

/// Starts a command on a thread that may be held up for as long as it takes.
async fn start_by(
    deadline: Instant,
    spec: &CommandSpec,
    streams: Streams,
    note: impl FnOnce(i32) + Send + 'static,
) -> Result<Started, SpawnError> {
    let hung = || SpawnError::Hung { program: program(spec) };
    let turn = timeout_at(deadline, Arc::clone(&spec.starts.0).acquire_owned()).await;
    let Ok(Ok(turn)) = turn else { return Err(hung()) };
    let own = spec.clone();
    let starting = tokio::task::spawn_blocking(move || {
        // It goes with the start, not with who waits for it: it is given back when the start really ends.
        let _turn = turn;
        // No thread was free until now, and nobody waits any more.
        if Instant::now() >= deadline {
            return Err(SpawnError::Hung { program: program(&own) });
        }
        let started = start(&own, streams)?;
        if let Some(leader) = started.group.leader {
            note(leader.as_raw_nonzero().get());
        }
        Ok(started)
    });
    match timeout_at(deadline, starting).await {
        Ok(Ok(started)) => started,
        Ok(Err(err)) => Err(SpawnError::Start { program: program(spec), err: io::Error::other(err) }),
        // Nobody takes what it returns: the runtime drops it, on that thread.
        Err(_) => Err(hung()),
    }
}

/// What a command gets for its standard streams.
struct Streams {
    /// Where it writes; pipes if there are none.
    files: Option<Files>,
    with_input: bool,
}

fn start(spec: &CommandSpec, Streams { files, with_input }: Streams) -> Result<Started, SpawnError> {
    let [program, arguments @ ..] = &*spec.argv else { return Err(SpawnError::Empty) };
    let (stdout, stderr) = match files {
        None => (Stdio::piped(), Stdio::piped()),
        Some(files) => (files.stdout.into(), files.stderr.into()),
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(if with_input { Stdio::piped() } else { Stdio::null() })
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0)
        .kill_on_drop(true);
    for name in OURS_ALONE {
        command.env_remove(name);
    }
    command.envs(&spec.env);
    if let Some(dir) = &spec.dir {
        command.current_dir(dir);
    }
    let child = command.spawn().map_err(|err| match &spec.dir {
        // The kernel says "not found" of either; only one of them is the program.
        Some(dir) if err.kind() == io::ErrorKind::NotFound && !dir.is_dir() => {
            SpawnError::Directory { program: program.clone(), dir: dir.clone() }
        }
        Some(_) | None => SpawnError::Start { program: program.clone(), err },
    })?;
    let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    Ok(Started { group: Group { leader }, child })
}

/// Waits until the leader has ended, and leaves it unreaped.
async fn ended(exit: &AsyncFd<OwnedFd>) {
    while let Ok(mut ready) = exit.readable().await {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::PidFd(exit.as_fd()), options) {
            // Told too early. To believe it would be to kill a command that still works.
            Ok(None) => ready.clear_ready(),
            Ok(Some(_)) | Err(_) => return,
        }
    }
    // The runtime shuts down, and this future with it.
    pending().await
}

fn program(spec: &CommandSpec) -> String {
    spec.argv.first().cloned().unwrap_or_default()
}

/// Takes the exit status. `None` where a killed process is still not gone: the runtime reaps it when it is.
async fn reap(child: &mut Child) -> Option<ExitStatus> {
    if let Ok(Some(status)) = child.try_wait() {
        return Some(status);
    }
    tokio::time::timeout(REAP_MAX, child.wait()).await.ok()?.ok()
}

/// The process group of a command.
///
/// **Invariant:** `leader` is `Some` only while the leader is not reaped, so that a kill never meets a stranger. Dropped
/// before the `Child` for the same reason.
struct Group {
    leader: Option<Pid>,
}

impl Group {
    /// Returns what becomes readable when the leader ends.
    #[expect(
        deprecated,
        reason = "its successors are unsafe, since a type may swap its descriptor under the runtime; `OwnedFd` does not"
    )]
    fn exit(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let leader = self.leader.ok_or(io::ErrorKind::NotFound)?;
        AsyncFd::with_interest(pidfd_open(leader, PidfdFlags::NONBLOCK)?, Interest::READABLE)
    }

    fn kill(&mut self) {
        if let Some(leader) = self.leader {
            // It fails where nobody is left, or where they run as another user: neither can be helped.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }

    fn forget(&mut self) {
        self.leader = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
