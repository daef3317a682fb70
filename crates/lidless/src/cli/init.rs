//! What if lidless is PID 1, as a container's entry point is? Then it is two: one that reaps, and lidless proper below it.
//!
//! Who loses its parent becomes a child of PID 1 and stays a zombie until that reaps it. Lidless proper must not reap
//! whatever ends: it would take from the code that started a command the exit code of that command. So that part of an init
//! is a process of its own, which starts lidless anew, passes on what it is told, and ends as lidless ends.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use rustix::termios::tcsetpgrp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::exit::Exit;

/// What PID 1 is told is meant for lidless.
const PASSED_ON: [Signal; 6] =
    [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// Is the whole program where we are PID 1; `None` where we are not. To be called before any thread exists.
pub(super) fn stand_in() -> Option<ExitCode> {
    if std::process::id() != 1 {
        return None;
    }
    Some(run().unwrap_or_else(|err| {
        use std::io::Write as _;
        drop(writeln!(io::stderr(), "error: cannot run as process 1: {err}\nhint: is /proc mounted?"));
        ExitCode::from(Exit::TryAgain.code())
    }))
}

fn run() -> io::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (told, mut news) = mpsc::channel(16);
        // Before there is a child: neither its end nor a signal to it may be missed.
        let mut listeners = JoinSet::new();
        for heard in PASSED_ON.into_iter().chain([Signal::CHILD]) {
            let mut stream = signal(SignalKind::from_raw(heard.as_raw()))?;
            let told = told.clone();
            listeners.spawn(async move {
                while stream.recv().await.is_some() && told.send(heard).await.is_ok() {}
            });
        }
        let lidless = start()?;
        while let Some(heard) = news.recv().await {
            if heard == Signal::CHILD {
                if let Some(status) = reap(lidless)? {
                    return Ok(code_of(status));
                }
            } else if let Err(err) = kill_process(lidless, heard)
                && err != Errno::SRCH
            {
                return Err(err.into());
            }
        }
        Err(io::Error::other("signals are heard no more"))
    })
}

fn start() -> io::Result<Pid> {
    let mut args = std::env::args_os();
    // Through `/proc`, so that it is this very binary.
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    // The terminal's foreground is the child's alone: else it would hear of each ^C twice, from the terminal and from us.
    let child = Pid::from_child(&command.args(args).process_group(0).spawn()?);
    match tcsetpgrp(io::stdin(), child) {
        // Most containers have no terminal.
        Ok(()) | Err(Errno::NOTTY | Errno::BADF) => {}
        // Passed on by us, it is heard as well.
        Err(err) => tracing::debug!(error = %err, "The terminal stays with process 1."),
    }
    Ok(child)
}

/// Reaps all who have ended; returns how lidless did, once it has.
fn reap(lidless: Pid) -> io::Result<Option<WaitStatus>> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == lidless => return Ok(Some(status)),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(None),
            Err(err) => return Err(err.into()),
        }
    }
}

fn code_of(status: WaitStatus) -> ExitCode {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|number| 128 + number));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(Exit::TryAgain.code()))
}
