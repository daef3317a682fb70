//! How does a new instance come to be? The old one proved gone, dead for long enough, then one launcher.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::instance::boottime;
use super::launch::{LaunchRequest, Report};
use super::managed::{ManagedProcess, ProcessError, ProcessState};
use super::spawn::{Told, launch};
use super::stop::StopError;

/// What a start found or made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Started {
    /// A new instance.
    New {
        /// Its pid.
        pid: i32,
    },
    /// An instance that lived already.
    Adopted {
        /// Its pid.
        pid: i32,
        /// When it was launched, by CLOCK_BOOTTIME.
        since: Duration,
    },
}

/// Why there is no new instance.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What the last instance left behind does not go away.
    #[error("the last instance is not gone")]
    Stop(#[from] StopError),
    /// The slot or the kernel does not answer.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// No launcher could be started.
    #[error("cannot start the launcher")]
    Launcher(#[source] io::Error),
    /// The launcher says that the machine does not let it.
    #[error("the launcher failed: {reason}")]
    Broken {
        /// Why.
        reason: String,
    },
    /// What was asked for is impossible: no such command, directory, user.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: String,
    },
    /// It must be dead for longer than there is time.
    #[error("it must stay dead for {left:?} more, and the act ends before that")]
    DeadFor {
        /// How much longer.
        left: Duration,
    },
    /// An orphan runs this very command.
    #[error(
        "this command already runs as service `{service}` (pid {pid}), which left the configuration: stop it, or name the \
         service `{service}` again"
    )]
    RunsAlready {
        /// The name that the service had.
        service: String,
        /// The process.
        pid: i32,
    },
    /// The launcher has not answered; it may yet, but it does not start anything after the deadline.
    #[error("the launcher has not answered in time")]
    Silent,
}

impl ManagedProcess {
    /// Starts an instance unless one lives. Waits for other acts on this service first.
    pub async fn start(&self, timeout: Duration) -> Result<Started, StartError> {
        let deadline = Instant::now() + timeout;
        let Ok(_act) = tokio::time::timeout_at(deadline, self.acts.lock()).await else {
            return Err(StartError::Broken { reason: "another act is still under way".to_owned() });
        };
        self.start_within(deadline).await
    }

    /// Starts an instance unless one lives. The caller holds the lock on acts.
    pub(crate) async fn start_within(&self, deadline: Instant) -> Result<Started, StartError> {
        let result = self.try_start(deadline).await;
        self.note_failure(match &result {
            Ok(_) => None,
            Err(StartError::Refused { reason } | StartError::Broken { reason }) => Some(reason.clone()),
            Err(err @ StartError::RunsAlready { .. }) => Some(err.to_string()),
            Err(_) => None,
        });
        result
    }

    async fn try_start(&self, deadline: Instant) -> Result<Started, StartError> {
        let after_generation = self.refresh()?;
        if let Some(live) = self.live() {
            let (pid, since) = (live.instance.pid, live.instance.started);
            return Ok(Started::Adopted { pid, since });
        }
        self.refuse_second_copy().await?;
        let patience = (Instant::now() + self.settings.stop.within).min(deadline);
        self.clear_family(patience, deadline).await?;
        self.wait_dead_for(deadline).await?;
        let request = LaunchRequest {
            after_generation,
            not_after: boottime() + deadline.saturating_duration_since(Instant::now()),
            command: self.settings.command.clone(),
            dir: self.settings.dir.clone(),
            env: self.settings.env.clone(),
            user: self.settings.user.clone(),
            output: self.settings.output.clone(),
        };
        let told = launch(&self.settings.launcher, self.slot.dir(), &request, &self.launched, deadline).await;
        let told = told.map_err(StartError::Launcher)?;
        self.refresh()?;
        match told {
            Told::Nothing { pid } => match self.last_instance() {
                Some(instance) if instance.pid == pid => Ok(Started::New { pid }),
                Some(_) | None => {
                    Err(StartError::Broken { reason: "the launcher died on the way".to_owned() })
                }
            },
            Told::Report(report) => self.after_report(report),
            Told::Silence => Err(StartError::Silent),
        }
    }

    fn after_report(&self, report: Report) -> Result<Started, StartError> {
        match report {
            // A launcher of an earlier lidless was faster: its instance is as new as ours would be.
            Report::AlreadyRunning { .. } | Report::Superseded => match self.live() {
                Some(live) => Ok(Started::Adopted { pid: live.instance.pid, since: live.instance.started }),
                None => Err(StartError::Broken { reason: "another launch came in between".to_owned() }),
            },
            Report::FamilyLives { pids } => Err(StopError::StillRunning { pids, why: "left behind" }.into()),
            Report::Late => Err(StartError::Silent),
            Report::Broken { reason } => Err(StartError::Broken { reason }),
            Report::Refused { reason } => Err(StartError::Refused { reason }),
        }
    }

    async fn refuse_second_copy(&self) -> Result<(), StartError> {
        for orphan in self.orphans() {
            let service = orphan.service.clone();
            let look = tokio::task::spawn_blocking(move || orphan.look()).await;
            let found = look.map_err(io::Error::other).and_then(|found| found).map_err(ProcessError::from)?;
            if let Some(pid) = found {
                return Err(StartError::RunsAlready { service, pid });
            }
        }
        Ok(())
    }

    async fn wait_dead_for(&self, deadline: Instant) -> Result<(), StartError> {
        let ProcessState::Exited { at, .. } = self.state() else { return Ok(()) };
        let left = (at + self.settings.dead_for).saturating_sub(boottime());
        if left.is_zero() {
            return Ok(());
        }
        let until = Instant::now() + left;
        if until >= deadline {
            return Err(StartError::DeadFor { left });
        }
        sleep_until(until).await;
        // A timer may be a hair early against another clock; the promise is about this one.
        while boottime() < at + self.settings.dead_for {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}
