//! How does an attempt outlive lidless? It runs as a unit of systemd's, which keeps its deadline and how it ended.
//!
//! `kill -9` of lidless leaves such a unit alone. Whoever comes after finds it by its name, which is the attempt's key and
//! number, waits for its end and takes its own answer for the attempt's: it is *adopted*. What it is told and what it says are
//! files in a folder beside the store, and the folder is also the mark that there may be a unit: it is made before the unit
//! is asked for, and removed after the unit is let go. That happens once the attempt's outcome is durable. If no lidless ever
//! comes back, at most one unit and one folder stay for each step that was under way, and nothing runs beyond its deadline.
//!
//! Whoever may start units may do anything as root, so there is no way in between: as root it works, and where systemd says
//! no, the command is a child of ours as it is elsewhere. So it is where systemd would see other files than we do: a lidless
//! that is shut in (`PrivateTmp=`, a container) does not let its steps out.

mod files;
mod follow;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::files::Folder;
pub(super) use self::follow::Followed;
use super::leftovers::Carriers;
use super::{Call, Log};
use crate::child::CommandSpec;
use crate::systemd::transient::{self, Transient};
use crate::systemd::{Bus, BusError};

/// How long systemd may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Runs attempts as units.
#[derive(Debug)]
pub struct Units {
    bus: Arc<Bus>,
    /// A folder for each attempt that has, or may have, a unit.
    folder: PathBuf,
}

impl Units {
    /// Returns the way to do so, if this machine has one for us. `folder` is where the attempts' files lie.
    pub fn of_this_machine(folder: &Path) -> Option<Units> {
        let why_not = if !Path::new("/run/systemd/system").is_dir() {
            "systemd does not run this machine"
        } else if !rustix::process::geteuid().is_root() && std::env::var_os("INVOCATION_ID").is_none() {
            "lidless is neither root nor a unit"
        } else if !sees_what_systemd_sees() {
            "systemd sees other files than lidless does"
        } else {
            return Some(Units { bus: Arc::new(Bus::system()), folder: std::path::absolute(folder).ok()? });
        };
        tracing::debug!(why_not, "Steps are children of lidless and end with it.");
        None
    }

    /// Whether an attempt may have a unit that can be asked about it.
    pub fn may_have(&self, key: &str, attempt: u32) -> bool {
        name(key, attempt).is_some_and(|unit| self.folder_of(&unit).exists())
    }

    /// Lets go of all attempts but these.
    pub async fn sweep(&self, keep: &[(String, u32)]) {
        let keep: Vec<String> = keep.iter().filter_map(|(key, attempt)| name(key, *attempt)).collect();
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let units = entries.filter_map(|entry| entry.file_name().into_string().ok());
        for unit in units.filter(|unit| unit.starts_with(PREFIX) && !keep.contains(unit)) {
            self.let_go(&unit).await;
        }
    }

    /// Runs a command as a unit, to its end. None where it cannot be one: then nothing ran.
    pub(super) async fn run(
        &self,
        command: &CommandSpec,
        (call, question): (&Call, String),
        timeout: Duration,
        log: &dyn Log,
    ) -> Option<Followed> {
        let began = Instant::now();
        let deadline = began + timeout;
        let unit = name(&call.idempotency_key, call.attempt)?;
        let folder = self.folder_of(&unit);
        let service = {
            let (folder, command) = (folder.clone(), command.clone());
            let description = format!("lidless: {} of {}, attempt {}", call.step, call.run, call.attempt);
            // Its directory may hang: a child of ours would say so.
            let prepare = move || prepare(&folder, &command, description, &question);
            tokio::time::timeout(timeout, tokio::task::spawn_blocking(prepare)).await.ok()?.ok()?
        };
        let Some(service) = service else {
            folder.remove();
            return None;
        };
        let service = Transient { time: deadline.saturating_duration_since(Instant::now()), ..service };
        match transient::start(&self.bus, &unit, &service, deadline.min(Instant::now() + ANSWER_MAX)).await {
            Ok(()) => {}
            // It was asked for, and nobody said no.
            Err(BusError::Silent { .. } | BusError::Broken { .. } | BusError::Garbled { .. }) => {}
            Err(BusError::Refused { name, .. }) if name.ends_with(".UnitExists") => {}
            Err(err @ (BusError::Refused { .. } | BusError::Unreachable { .. })) => {
                tracing::debug!(why_not = err.reason(), "This step is a child of lidless.");
                folder.remove();
                return None;
            }
        }
        Some(follow::follow(&self.bus, &unit, &folder, deadline, log).await)
    }

    /// Waits until an attempt has ended that an earlier lidless may have begun; kills it at the deadline. None where it was
    /// no unit.
    pub(super) async fn adopt(
        &self,
        call: &Call,
        timeout: Duration,
        log: &dyn Log,
    ) -> Option<(String, Followed)> {
        let deadline = Instant::now() + timeout;
        let unit = name(&call.idempotency_key, call.attempt)?;
        let folder = self.folder_of(&unit);
        if !folder.exists() {
            return None;
        }
        log.line(&format!("{unit} goes on or has ended without us; from its beginning, it said:"));
        let followed = follow::follow(&self.bus, &unit, &folder, deadline, log).await;
        Some((unit, followed))
    }

    /// Ends an attempt that nobody wants any more.
    pub(super) async fn end(&self, call: &Call) {
        let unit = name(&call.idempotency_key, call.attempt);
        if let Some(unit) = unit.filter(|unit| self.folder_of(unit).exists()) {
            let killed = transient::kill(&self.bus, &unit, Instant::now() + ANSWER_MAX).await;
            if let Err(err) = killed {
                tracing::warn!(unit, error = err.reason(), "systemd did not end a step.");
            }
            Carriers::of(call).end().await;
        }
    }

    /// Lets go of an attempt whose outcome is on record.
    pub(super) async fn forget(&self, call: &Call) {
        if let Some(unit) = name(&call.idempotency_key, call.attempt) {
            self.let_go(&unit).await;
        }
    }

    async fn let_go(&self, unit: &str) {
        let folder = self.folder_of(unit);
        if !folder.exists() {
            return;
        }
        match transient::forget(&self.bus, unit, Instant::now() + ANSWER_MAX).await {
            Ok(()) => folder.remove(),
            // The folder stays as its mark, for the next lidless.
            Err(err) => tracing::warn!(unit, error = err.reason(), "The unit of a step is left behind."),
        }
    }

    fn folder_of(&self, unit: &str) -> Folder {
        Folder::at(self.folder.join(unit))
    }
}

const PREFIX: &str = "lidless-step-";

/// The unit of an attempt; none where its key is not fit for a name.
fn name(key: &str, attempt: u32) -> Option<String> {
    let fit = !key.is_empty() && key.len() <= 64 && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
    fit.then(|| format!("{PREFIX}{key}-{attempt}.service"))
}

/// Whether the paths that we write down lead systemd to the same files: it has our mounts.
fn sees_what_systemd_sees() -> bool {
    let mounts = |of: &str| std::fs::read_to_string(format!("/proc/{of}/mountinfo")).ok();
    mounts("self").is_some_and(|ours| mounts("1").is_some_and(|its| its == ours))
}

fn prepare(folder: &Folder, command: &CommandSpec, description: String, question: &str) -> Option<Transient> {
    let dir = command.dir.clone().map_or_else(std::env::current_dir, std::path::absolute).ok()?;
    let program = files::program(command, &dir).filter(|_| dir.is_dir())?;
    let environment = files::environment(command)?;
    if let Err(err) = folder.fill(&environment, question) {
        tracing::debug!(error = %err, "What a step says cannot be kept.");
        return None;
    }
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    Some(Transient {
        description,
        program,
        argv: command.argv.clone(),
        dir,
        env: folder.env(),
        stdin: folder.stdin(),
        stdout: folder.stdout(),
        stderr: folder.stderr(),
        umask: files::umask(),
        user: (!user.is_root()).then(|| (user.as_raw(), group.as_raw())),
        time: Duration::ZERO,
    })
}
