//! How is an instance ended, and proved gone? Asked, given time, killed; and so is its family.
//!
//! "Gone" is a fact of the kernel (a handle that became readable, a walk through /proc that found nobody who kept its
//! session, its parent or its environment), never an assumption after a wait.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{Pid, Signal, kill_process_group, pidfd_send_signal};
use tokio::time::{Instant, sleep, timeout_at};

use super::family::Kinship;
use super::handle::Handle;
use super::instance::{Instance, Member};
use super::managed::{Live, ManagedProcess, ProcessError, ProcessState};
use super::signal::Exit;

/// An instance that is gone now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stopped {
    /// The pid that it had.
    pub pid: i32,
    /// How it ended.
    pub exit: Exit,
}

/// Why an instance is not gone.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// Something still lives.
    #[error("still running: {} ({why})", list(pids))]
    StillRunning {
        /// The processes.
        pids: Vec<i32>,
        /// Why nothing more is done about it.
        why: &'static str,
    },
    /// The slot or the kernel does not answer.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The kernel does not let us.
    #[error("cannot signal process {pid}")]
    Signal {
        /// Which one.
        pid: i32,
        /// Why.
        #[source]
        err: io::Error,
    },
    /// A launcher or another act holds the slot.
    #[error("the slot is in use")]
    Busy,
}

fn list(pids: &[i32]) -> String {
    let word = if pids.len() == 1 { "process " } else { "processes " };
    word.to_owned() + &pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

const NO_KILL: &str = "it has had its time to stop, and `kill: false` forbids SIGKILL";
const NO_TIME: &str = "the act's time is over";

impl ManagedProcess {
    /// Stops the instance, if one lives, and proves it gone with its family.
    ///
    /// `None` when there was nothing to stop. Waits for other acts on this service first.
    pub async fn stop(&self, timeout: Duration) -> Result<Option<Stopped>, StopError> {
        let deadline = Instant::now() + timeout;
        let Ok(_act) = timeout_at(deadline, self.acts.lock()).await else { return Err(StopError::Busy) };
        self.stop_within(deadline).await
    }

    /// How long [`Self::stop`] may take until what does not end by itself is killed and gone; `grace` is for the latter.
    pub fn stop_time(&self, grace: Duration) -> Duration {
        self.settings.stop.within.saturating_add(grace)
    }

    /// As [`Self::stop`]; the caller holds the lock on acts.
    pub(crate) async fn stop_within(&self, deadline: Instant) -> Result<Option<Stopped>, StopError> {
        // Also where nothing lives: a launcher of an act that was cut off may be on its way. And before anything is looked
        // at: what it became until then is found, and what it would become later is not.
        self.fence(deadline).await?;
        self.refresh()?;
        let live = self.live();
        // One patience for the main process and what it started: they are asked at the same time.
        let patience = (Instant::now() + self.settings.stop.within).min(deadline);
        if let Some(live) = &live {
            // Before anything is signalled: of who has left session and environment, only the parent tells whose it is.
            self.family(&live.instance).await?;
            self.end(live, patience, deadline).await?;
        }
        self.clear_family(patience, deadline).await?;
        match (live, self.state()) {
            (Some(_), ProcessState::Exited { pid, exit, .. }) => Ok(Some(Stopped { pid, exit })),
            (Some(live), ProcessState::Running { .. } | ProcessState::NotStarted { .. }) => {
                Err(StopError::StillRunning { pids: vec![live.instance.pid], why: "it was started again" })
            }
            (None, _) => Ok(None),
        }
    }

    /// Sends one signal to the main process alone; returns its pid, or `None` when none lives.
    pub(crate) fn signal_main(&self, signal: Signal) -> Result<Option<i32>, StopError> {
        self.refresh()?;
        let Some(live) = self.live() else { return Ok(None) };
        let pid = live.instance.pid;
        signal_handle(live.handle(), pid, signal).map(|sent| sent.then_some(pid))
    }

    /// Makes every launcher that is still on its way useless: it was sent for an older generation.
    async fn fence(&self, deadline: Instant) -> Result<(), StopError> {
        let lock = loop {
            if let Some(lock) = self.slot.try_lock().map_err(ProcessError::from)? {
                break lock;
            }
            if Instant::now() >= deadline {
                return Err(StopError::Busy);
            }
            sleep(Duration::from_millis(1)).await;
        };
        let mut record = self.slot.read_or_find(&self.boot_id).map_err(ProcessError::from)?;
        record.generation += 1;
        Ok(self.slot.write(&lock, &record).map_err(ProcessError::from)?)
    }

    /// Asks the main process to end, and kills it if it does not.
    async fn end(&self, live: &Arc<Live>, patience: Instant, deadline: Instant) -> Result<(), StopError> {
        let stop = &self.settings.stop;
        let pid = live.instance.pid;
        signal_group(live, stop.signal)?;
        if stop.signal != Signal::KILL {
            // A process that is stopped (SIGSTOP) would take the signal only when it goes on.
            signal_group(live, Signal::CONT)?;
        }
        if timeout_at(patience, live.ended()).await.is_ok() {
            return Ok(());
        }
        let still_running = |why| StopError::StillRunning { pids: vec![pid], why };
        if !stop.kill {
            return Err(still_running(NO_KILL));
        }
        if Instant::now() >= deadline {
            return Err(still_running(NO_TIME));
        }
        signal_group(live, Signal::KILL)?;
        timeout_at(deadline, live.ended())
            .await
            .map_err(|_| still_running(NO_TIME))?
            .map_err(ProcessError::from)?;
        Ok(())
    }

    /// Ends what a dead main process left behind.
    pub(super) async fn clear_family(&self, patience: Instant, deadline: Instant) -> Result<(), StopError> {
        let Some(instance) = self.last_instance().filter(|instance| !self.is_gone(instance)) else {
            return Ok(());
        };
        let stop = &self.settings.stop;
        let mut asked: Vec<Member> = Vec::new();
        let mut killing = false;
        loop {
            let family = self.family(&instance).await?;
            if family.is_empty() {
                self.note_gone(instance);
                return Ok(());
            }
            let still_running =
                |why| StopError::StillRunning { pids: family.iter().map(|member| member.pid).collect(), why };
            if Instant::now() >= deadline {
                return Err(still_running(NO_TIME));
            }
            if !killing && Instant::now() >= patience {
                if !stop.kill {
                    return Err(still_running(NO_KILL));
                }
                killing = true;
            }
            let mut handles = Vec::new();
            for member in &family {
                let Some(handle) = member.open().map_err(ProcessError::from)? else { continue };
                if killing {
                    signal_handle(&handle, member.pid, Signal::KILL)?;
                } else if !asked.contains(member) {
                    signal_handle(&handle, member.pid, stop.signal)?;
                    signal_handle(&handle, member.pid, Signal::CONT)?;
                    asked.push(*member);
                }
                handles.push(handle);
            }
            let until = if killing { deadline } else { patience };
            wait_all(handles, until).await.map_err(ProcessError::from)?;
        }
    }

    /// Looks for the family, and remembers whom it found: their parents may be gone at the next look.
    async fn family(&self, instance: &Instance) -> Result<Vec<Member>, StopError> {
        let kin = Kinship::new(instance, self.slot.dir(), self.known_members());
        let boot_id = self.boot_id.clone();
        let look = tokio::task::spawn_blocking(move || kin.living(&boot_id)).await;
        let family = look.map_err(io::Error::other).and_then(|found| found).map_err(ProcessError::from)?;
        self.note_members(family.clone());
        Ok(family)
    }
}

/// Waits until all have ended or time is up; the caller looks again either way.
async fn wait_all(handles: Vec<OwnedFd>, until: Instant) -> io::Result<()> {
    let all = async {
        for handle in handles {
            Handle::watch(handle)?.ended().await?;
        }
        Ok(())
    };
    timeout_at(until, all).await.unwrap_or(Ok(()))
}

/// Signals the whole process group, whose number is certain while its leader has not ended.
fn signal_group(live: &Live, signal: Signal) -> Result<(), StopError> {
    let pid = live.instance.pid;
    let Some(group) = Pid::from_raw(pid).filter(|_| !super::instance::has_ended(live.handle())) else {
        return Ok(());
    };
    match kill_process_group(group, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(err) => Err(StopError::Signal { pid, err: err.into() }),
    }
}

/// Returns whether there was anybody to signal.
fn signal_handle(handle: impl AsFd, pid: i32, signal: Signal) -> Result<bool, StopError> {
    match pidfd_send_signal(handle, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(err) => Err(StopError::Signal { pid, err: err.into() }),
    }
}
