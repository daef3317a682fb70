//! What does lidless know of a service's process, and how does it learn at once that it ended?
//!
//! Shared by the process check and the process actuator. The truth is the slot's record and the kernel; what is kept here
//! is an open handle (pidfd) to the instance that lives, and how the last one ended.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fd::{AsFd, BorrowedFd};
use tokio::sync::watch;

use super::handle::Handle;
use super::instance::{Instance, Member, boot_id, boottime, has_ended};
use super::orphan::Orphan;
use super::settings::ProcessSettings;
use super::signal::Exit;
use super::slot::{Record, Slot, SlotError};
use super::spawn::{Child, Launched, reap};

/// What is known of the process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProcessState {
    /// This slot never had one.
    NotStarted {
        /// Why the last attempt failed, if there was one.
        failure: Option<String>,
    },
    /// It lives.
    Running {
        /// Its pid.
        pid: i32,
        /// When it was launched, by CLOCK_BOOTTIME.
        since: Duration,
    },
    /// It has ended.
    Exited {
        /// The pid that it had.
        pid: i32,
        /// How it ended.
        exit: Exit,
        /// When it ended, by CLOCK_BOOTTIME; or when we noticed, where lidless was not there.
        at: Duration,
        /// Why the last attempt to start it again failed, if there was one.
        failure: Option<String>,
    },
}

/// Why nothing can be said of the process.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The slot cannot be used.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The kernel does not answer.
    #[error("cannot look at the processes")]
    Processes(#[from] io::Error),
}

/// The process of one service. Needs a tokio runtime.
#[derive(Debug)]
pub struct ManagedProcess {
    pub(super) settings: ProcessSettings,
    pub(super) slot: Slot,
    pub(super) boot_id: String,
    pub(super) launched: Launched,
    /// Acts on one service are done one at a time.
    pub(crate) acts: tokio::sync::Mutex<()>,
    seen: Mutex<Seen>,
    /// Goes up with each birth and each death that was noticed.
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Seen {
    life: Life,
    failure: Option<String>,
    /// The last instance that was proved gone with its family. Nobody is left to start more, so this stays true.
    gone: Option<Instance>,
    /// Its family when it was last looked for. A member is its pid and start time, so an old one is nobody else.
    members: Vec<Member>,
    /// Processes of no configured service that run this command.
    orphans: Vec<Orphan>,
}

#[derive(Clone, Debug, Default)]
enum Life {
    #[default]
    Never,
    Lives(Arc<Live>),
    Ended {
        instance: Instance,
        exit: Exit,
        at: Duration,
    },
}

/// An instance with an open handle: while it is open, nothing else can be mistaken for it.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) instance: Instance,
    handle: Handle,
}

impl Live {
    pub(super) fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Waits until it has ended. Cancel-safe.
    pub(super) async fn ended(&self) -> io::Result<()> {
        self.handle.ended().await
    }
}

impl ManagedProcess {
    /// Opens the slot, making it where it is missing. Starts nothing, and adopts nothing yet.
    pub fn open(settings: ProcessSettings, slot: &Path) -> Result<Self, ProcessError> {
        Ok(ManagedProcess {
            settings,
            slot: Slot::open(slot)?,
            boot_id: boot_id()?,
            launched: Launched::default(),
            acts: tokio::sync::Mutex::new(()),
            seen: Mutex::new(Seen::default()),
            version: watch::Sender::new(0),
        })
    }

    /// Looks for an instance that lives on from an earlier lidless, and watches it from now on.
    pub fn adopt(&self) -> Result<ProcessState, ProcessError> {
        self.refresh()?;
        Ok(self.state())
    }

    /// Starts nothing beside this orphan, for as long as it lives.
    pub fn never_beside(&self, orphan: Orphan) {
        self.lock().orphans.push(orphan);
    }

    pub(super) fn orphans(&self) -> Vec<Orphan> {
        self.lock().orphans.clone()
    }

    /// How it is run.
    pub fn settings(&self) -> &ProcessSettings {
        &self.settings
    }

    /// Whether a launcher is at work at this moment.
    pub fn is_launching(&self) -> Result<bool, ProcessError> {
        Ok(self.slot.try_lock()?.is_none())
    }

    /// What is known, with the kernel asked whether the instance still lives.
    pub fn state(&self) -> ProcessState {
        let mut seen = self.lock();
        self.observe(&mut seen);
        let failure = seen.failure.clone();
        match &seen.life {
            Life::Never => ProcessState::NotStarted { failure },
            Life::Lives(live) => {
                ProcessState::Running { pid: live.instance.pid, since: live.instance.started }
            }
            Life::Ended { instance, exit, at } => {
                ProcessState::Exited { pid: instance.pid, exit: *exit, at: *at, failure }
            }
        }
    }

    /// Like [`Self::state`], with the record read again where nothing is known to live: a launcher whose lidless gave up
    /// on it may have made it.
    pub fn look(&self) -> Result<ProcessState, ProcessError> {
        match self.state() {
            running @ ProcessState::Running { .. } => Ok(running),
            ProcessState::NotStarted { .. } | ProcessState::Exited { .. } => {
                let mut seen = self.lock();
                match self.slot.read() {
                    Ok(Some(record)) => self.take_in(&mut seen, &record)?,
                    // What we know ourselves holds; the next start looks for the process itself.
                    Ok(None) | Err(SlotError::Damaged { .. }) => {}
                    Err(err) => return Err(err.into()),
                }
                drop(seen);
                Ok(self.state())
            }
        }
    }

    /// Waits until the process was born or has died since the version `seen`, and returns the new version.
    ///
    /// Each such change ends it once: no edge is lost between two calls, and none is told twice. Cancel-safe.
    pub async fn changed_since(&self, seen: u64) -> u64 {
        let mut version = self.version.subscribe();
        loop {
            let live = self.live();
            let now = *version.borrow_and_update();
            if now != seen {
                return now;
            }
            let death = async {
                match &live {
                    // A handle that cannot be waited for: probing at intervals has to do.
                    Some(live) => {
                        if live.ended().await.is_err() {
                            std::future::pending::<()>().await;
                        }
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The sender lives as long as `self`.
                _ = version.changed() => {}
                () = death => {}
            }
        }
    }

    /// The instance, if it lives.
    pub(super) fn live(&self) -> Option<Arc<Live>> {
        let mut seen = self.lock();
        self.observe(&mut seen);
        match &seen.life {
            Life::Lives(live) => Some(Arc::clone(live)),
            Life::Never | Life::Ended { .. } => None,
        }
    }

    /// Pid and launch, by CLOCK_BOOTTIME, of the last instance of this boot that is known, whether it lives or not.
    pub(crate) fn launched_last(&self) -> Option<(i32, Duration)> {
        let last = self.last_instance().filter(|instance| instance.boot_id == self.boot_id)?;
        Some((last.pid, last.started))
    }

    /// The last instance, whether it lives or not.
    pub(super) fn last_instance(&self) -> Option<Instance> {
        match &self.lock().life {
            Life::Never => None,
            Life::Lives(live) => Some(live.instance.clone()),
            Life::Ended { instance, .. } => Some(instance.clone()),
        }
    }

    pub(super) fn is_gone(&self, instance: &Instance) -> bool {
        self.lock().gone.as_ref() == Some(instance)
    }

    pub(super) fn note_gone(&self, instance: Instance) {
        let mut seen = self.lock();
        seen.gone = Some(instance);
        seen.members.clear();
    }

    pub(super) fn known_members(&self) -> Vec<Member> {
        self.lock().members.clone()
    }

    pub(super) fn note_members(&self, members: Vec<Member>) {
        self.lock().members = members;
    }

    pub(super) fn note_failure(&self, failure: Option<String>) {
        self.lock().failure = failure;
    }

    /// Reads the record and makes it our own knowledge. Returns its generation.
    pub(super) fn refresh(&self) -> Result<u64, ProcessError> {
        // Read under the lock: a slower reader must not put an older record in place of a younger one.
        let mut seen = self.lock();
        let record = self.slot.read_or_find(&self.boot_id)?;
        self.take_in(&mut seen, &record)?;
        Ok(record.generation)
    }

    fn take_in(&self, seen: &mut Seen, record: &Record) -> Result<(), ProcessError> {
        self.observe(seen);
        match (&seen.life, &record.instance) {
            // An open handle is better proof than any file; and a lost record takes away nothing that we know.
            (Life::Lives(_), _) | (_, None) => return Ok(()),
            (Life::Ended { instance, .. }, Some(recorded)) if instance == recorded => return Ok(()),
            (Life::Never | Life::Ended { .. }, Some(instance)) => {
                seen.life = self.life_of(instance.clone())?;
            }
        }
        self.version.send_modify(|version| *version += 1);
        self.observe(seen);
        Ok(())
    }

    fn life_of(&self, instance: Instance) -> Result<Life, ProcessError> {
        // Our own child tells how it ended, even if it did so before we came to look.
        let handle = match self.launched.take(&instance) {
            Some(Child { exit: Some(exit), .. }) => {
                return Ok(Life::Ended { instance, exit, at: boottime() });
            }
            Some(Child { exit: None, handle, .. }) => Some(handle),
            None => instance.open(&self.boot_id)?,
        };
        if let Some(handle) = handle {
            let handle = Handle::watch(handle)?;
            return Ok(Life::Lives(Arc::new(Live { instance, handle })));
        }
        // In an earlier boot: it has been dead for as long as this one lasts, at least.
        let at = if instance.boot_id == self.boot_id { boottime() } else { Duration::ZERO };
        Ok(Life::Ended { instance, exit: Exit::Unknown, at })
    }

    /// Notices a death, and reaps.
    fn observe(&self, seen: &mut Seen) {
        if let Life::Lives(live) = &seen.life
            && has_ended(live.handle())
        {
            let exit = reap(live.handle());
            seen.life = Life::Ended { instance: live.instance.clone(), exit, at: boottime() };
            self.version.send_modify(|version| *version += 1);
        }
        self.launched.reap();
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
