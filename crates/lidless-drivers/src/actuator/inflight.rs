//! Is a command of an earlier act still at work? A record of the last one, which outlives lidless as the command does.
//!
//! The command is recorded just after it was started; a lidless killed between the two leaves one that nobody finds. The
//! record is not synced: it matters only within one boot, and within one boot the page cache does not forget.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lidless_core::time::micros;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use crate::process::handle::Handle;
use crate::process::instance::{Instance, boot_id, boottime, has_ended};
use crate::process::slot::fill;

/// How long a killed command may take to be gone.
const GONE_MAX: Duration = Duration::from_millis(250);

/// Remembers the command that an actuator started last.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    path: PathBuf,
    boot_id: String,
}

/// What is remembered of a command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Record {
    command: Instance,
    /// CLOCK_BOOTTIME after which it is killed.
    #[serde(rename = "until_us", with = "micros")]
    until: Duration,
}

/// A command that lives.
pub(super) struct Running {
    /// The leader of its process group.
    pub(super) pid: i32,
    handle: Handle,
    until: Duration,
}

impl InFlight {
    /// Remembers in this directory, which is made where it is missing.
    pub(super) fn open(dir: &Path) -> io::Result<InFlight> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let in_flight = InFlight { path: dir.join("command.json"), boot_id: boot_id()? };
        if !in_flight.path.exists() {
            // Its place on the disk is taken now: a full one must stop no heal.
            fill(&in_flight.path, &[])?;
        }
        Ok(in_flight)
    }

    /// Records a command that was just started, a child of ours that is not reaped.
    pub(super) fn note(&self, pid: i32, timeout: Duration) -> io::Result<()> {
        let command = Instance::of_child(pid, &self.boot_id)?;
        fill(&self.path, &serde_json::to_vec(&Record { command, until: boottime() + timeout })?)
    }

    /// Returns the command that was recorded last, if it lives. Needs a tokio runtime.
    pub(super) fn running(&self) -> io::Result<Option<Running>> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(err),
        };
        if text.trim_ascii().is_empty() {
            return Ok(None);
        }
        let Record { command, until } = match serde_json::from_slice(&text) {
            Ok(record) => record,
            // It must not keep a service from being healed for ever.
            Err(err) => {
                tracing::warn!(path = %self.path.display(), error = %err, "Record of a command damaged; ignored.");
                return Ok(None);
            }
        };
        let Some(handle) = command.open(&self.boot_id)? else { return Ok(None) };
        Ok(Some(Running { pid: command.pid, handle: Handle::watch(handle)?, until }))
    }
}

impl Running {
    /// Whether it should have ended by now.
    pub(super) fn is_overdue(&self) -> bool {
        boottime() >= self.until
    }

    /// Waits until it has ended, and kills it with its process group when it is overdue. Returns whether it has ended.
    pub(super) async fn ended(&self, deadline: Instant) -> io::Result<bool> {
        let until = Instant::now() + self.until.saturating_sub(boottime());
        if let Ok(ended) = timeout_at(until.min(deadline), self.handle.ended()).await {
            return ended.map(|()| true);
        }
        if !self.is_overdue() {
            return Ok(false);
        }
        // While its handle says that it has not ended, the number of its group is its own.
        if let Some(group) = Pid::from_raw(self.pid).filter(|_| !has_ended(&self.handle)) {
            match kill_process_group(group, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(err) => return Err(err.into()),
            }
        }
        Ok(tokio::time::timeout(GONE_MAX, self.handle.ended()).await.is_ok())
    }
}
