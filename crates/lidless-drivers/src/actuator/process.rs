//! How is a process that lidless runs itself started, restarted, reloaded? One act at a time, never two instances.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lidless_core::event::{Confirmation, Outcome};
use lidless_core::spec::Action;
use lidless_core::time::Now;
use tokio::time::{Instant, timeout_at};

use super::Actuator;
use crate::check::BoxFuture;
use crate::process::instance::boottime;
use crate::process::launch::chain;
use crate::process::signal::signal_name;
use crate::process::{Exit, ManagedProcess, ProcessState, StartError, Started, StopError};

/// Tells engine time, so that an instance can be told older or younger than an intent.
pub type EngineClock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// How soon it is worth asking again while a launcher is at work.
const ASK_AGAIN: Duration = Duration::from_millis(20);
/// When to ask again while an act is under way.
const BUSY_AGAIN: Duration = Duration::from_secs(1);

/// Acts on one [`ManagedProcess`].
pub struct ProcessActuator {
    process: Arc<ManagedProcess>,
    clock: EngineClock,
}

impl fmt::Debug for ProcessActuator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessActuator").field("process", &self.process).finish_non_exhaustive()
    }
}

impl ProcessActuator {
    /// Acts on this process; `clock` tells engine time.
    pub fn new(process: Arc<ManagedProcess>, clock: EngineClock) -> Self {
        ProcessActuator { process, clock }
    }

    async fn act(&self, action: Action, timeout: Duration) -> Outcome {
        let deadline = Instant::now() + timeout;
        let Ok(_act) = timeout_at(deadline, self.process.acts.lock()).await else {
            return Outcome::Unavailable { reason: "another act is still under way".to_owned() };
        };
        match action {
            Action::Start => self.start(deadline).await,
            Action::Restart => self.restart(deadline).await,
            Action::Reload => self.reload(),
        }
    }

    async fn start(&self, deadline: Instant) -> Outcome {
        match self.process.start_within(deadline).await {
            Ok(Started::New { pid }) => Outcome::Applied { output: format!("new process {pid}") },
            Ok(Started::Adopted { pid, since }) => {
                let age = boottime().saturating_sub(since).as_secs_f64();
                Outcome::Found { output: format!("adopted process {pid} (runs for {age:.1} s)") }
            }
            Err(err) => not_started(&err),
        }
    }

    async fn restart(&self, deadline: Instant) -> Outcome {
        let stopped = match self.process.stop_within(deadline).await {
            Ok(stopped) => stopped.map(|stopped| (stopped.pid, stopped.exit)),
            Err(err) => return not_stopped(&err),
        };
        let old = stopped.or_else(|| match self.process.state() {
            // What the launcher ended with says nothing about the service.
            ProcessState::Exited { pid, exit, failure: None, .. } => Some((pid, exit)),
            ProcessState::Exited { failure: Some(_), .. }
            | ProcessState::NotStarted { .. }
            | ProcessState::Running { .. } => None,
        });
        match self.process.start_within(deadline).await {
            // Adopted: a launcher of an earlier lidless was faster. The old one was gone before, so this one is new.
            Ok(Started::New { pid } | Started::Adopted { pid, .. }) => {
                let output = match old {
                    Some((old, exit)) => format!("new process {pid} (old {old} {})", past(exit)),
                    None => format!("new process {pid}"),
                };
                Outcome::Applied { output }
            }
            Err(err) => not_started(&err),
        }
    }

    fn reload(&self) -> Outcome {
        let signal = self.process.settings().reload;
        match self.process.signal_main(signal) {
            Ok(Some(pid)) => {
                let name = signal_name(signal.as_raw());
                Outcome::Applied { output: format!("sent {name} to process {pid}") }
            }
            Ok(None) => Outcome::NotApplied { reason: "the process is not running".to_owned() },
            Err(err) => not_stopped(&err),
        }
    }

    fn ask(&self, action: Action, intent_at: Now) -> Confirmation {
        // The engine's deadlines go on while the machine sleeps, an act's do not: what is still being done must not be
        // taken for undone.
        if self.process.acts.try_lock().is_err() {
            let reason = "an act on it is still under way".to_owned();
            return Confirmation::StillUnknown { reason, retry_after: BUSY_AGAIN };
        }
        let running = match self.process.look() {
            Err(err) => return Confirmation::StillUnknown { reason: chain(&err), retry_after: ASK_AGAIN },
            Ok(ProcessState::Running { pid, .. }) => Some(pid),
            Ok(ProcessState::NotStarted { .. } | ProcessState::Exited { .. }) => None,
        };
        // Both clocks tick alike, so an age is an age on either.
        let engine_time = |since| (self.clock)().saturating_sub(boottime().saturating_sub(since));
        let launched =
            self.process.launched_last().filter(|(_, since)| engine_time(*since) >= intent_at.monotonic);
        match (action, running, launched) {
            (Action::Reload, Some(_), _) => Confirmation::StillUnknown {
                reason: "a signal leaves no trace".to_owned(),
                retry_after: Duration::ZERO,
            },
            (Action::Reload, None, _) | (Action::Start | Action::Restart, None, None) => {
                self.not_yet("no instance is running".to_owned())
            }
            (Action::Start, Some(pid), _) => {
                Confirmation::Applied { evidence: format!("process {pid} is running"), output: None }
            }
            (Action::Restart, Some(pid), Some(_)) => Confirmation::Applied {
                evidence: format!("process {pid} was launched after the intent"),
                output: None,
            },
            // Done is done: whether it helped is for the checks to say, and so is that it died of it again.
            (Action::Start | Action::Restart, None, Some((pid, _))) => Confirmation::Applied {
                evidence: format!("process {pid} was launched after the intent, and has ended"),
                output: None,
            },
            (Action::Restart, Some(pid), None) => {
                self.not_yet(format!("process {pid} was launched before the intent"))
            }
        }
    }

    fn not_yet(&self, evidence: String) -> Confirmation {
        match self.process.is_launching() {
            Ok(false) => Confirmation::NotApplied { evidence },
            Ok(true) => Confirmation::StillUnknown {
                reason: "a launcher is at work".to_owned(),
                retry_after: ASK_AGAIN,
            },
            Err(err) => Confirmation::StillUnknown { reason: chain(&err), retry_after: ASK_AGAIN },
        }
    }
}

impl Actuator for ProcessActuator {
    fn perform(&self, action: Action, timeout: Duration) -> BoxFuture<'_, Outcome> {
        Box::pin(self.act(action, timeout))
    }

    fn confirm(&self, action: Action, intent_at: Now, _timeout: Duration) -> BoxFuture<'_, Confirmation> {
        // A few system calls that never wait: no deadline is needed.
        Box::pin(async move { self.ask(action, intent_at) })
    }
}

/// Within brackets after the new process: "killed by SIGKILL", "ended: exit code 1".
fn past(exit: Exit) -> String {
    let text = exit.to_string();
    text.strip_prefix("was ").map(str::to_owned).unwrap_or(text)
}

fn not_started(err: &StartError) -> Outcome {
    match err {
        StartError::Stop(err) => not_stopped(err),
        StartError::Refused { .. } | StartError::DeadFor { .. } => Outcome::NotApplied { reason: chain(err) },
        StartError::Process(_)
        | StartError::Launcher(_)
        | StartError::Broken { .. }
        | StartError::RunsAlready { .. } => Outcome::Unavailable { reason: chain(err) },
        StartError::Silent => Outcome::Unknown { reason: chain(err) },
    }
}

fn not_stopped(err: &StopError) -> Outcome {
    match err {
        StopError::StillRunning { .. } | StopError::Signal { .. } => {
            Outcome::NotApplied { reason: chain(err) }
        }
        StopError::Process(_) | StopError::Busy => Outcome::Unavailable { reason: chain(err) },
    }
}
