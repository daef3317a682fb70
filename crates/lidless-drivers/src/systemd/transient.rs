//! How does systemd run a command for us that is to outlive us? As a unit that only it knows, and keeps until it is let go.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use zbus::{OwnedObjectPath, Type, Variant};

use super::{Bus, BusError, Call};

/// How long what was killed may take to be gone.
const STOP_MAX: Duration = Duration::from_secs(5);

/// A service that runs once. Its command must be absolute; nothing in it is expanded.
#[derive(Clone, Debug)]
pub(crate) struct Transient {
    pub(crate) description: String,
    pub(crate) program: PathBuf,
    pub(crate) argv: Vec<String>,
    pub(crate) dir: PathBuf,
    /// The file with its environment.
    pub(crate) env: PathBuf,
    pub(crate) stdin: PathBuf,
    pub(crate) stdout: PathBuf,
    pub(crate) stderr: PathBuf,
    pub(crate) umask: u32,
    /// As whom it runs, where that is not root.
    pub(crate) user: Option<(u32, u32)>,
    /// After this it is killed.
    pub(crate) time: Duration,
}

/// One property of a new unit.
#[derive(Serialize, Type)]
struct Property<'a>(&'a str, Variant<'a>);

/// Has systemd start it. What came of it is for a look at the unit to tell.
pub(crate) async fn start(
    bus: &Bus,
    unit: &str,
    service: &Transient,
    deadline: Instant,
) -> Result<(), BusError> {
    let line = bus.line(deadline).await?;
    let others: Vec<(&str, Vec<Property<'_>>)> = Vec::new();
    let body = (unit, "fail", properties(service), others);
    let answer = line.call(Call::manager("StartTransientUnit"), &body, deadline).await?;
    let job: zbus::Result<OwnedObjectPath> = answer.body().deserialize();
    job.map(drop).map_err(|err| BusError::Garbled { method: "StartTransientUnit".to_owned(), err })
}

/// Kills every process of a unit.
pub(crate) async fn kill(bus: &Bus, unit: &str, deadline: Instant) -> Result<(), BusError> {
    const KILL: i32 = 9;
    let line = bus.line(deadline).await?;
    known(line.call(Call::manager("KillUnit"), &(unit, "all", KILL), deadline).await)
}

/// Ends a unit and lets systemd forget how it ended.
pub(crate) async fn forget(bus: &Bus, unit: &str, deadline: Instant) -> Result<(), BusError> {
    let line = bus.line(deadline).await?;
    // One that has failed is kept until it is reset, one that has succeeded until it is stopped.
    known(line.call(Call::manager("StopUnit"), &(unit, "replace"), deadline).await)?;
    known(line.call(Call::manager("ResetFailedUnit"), &(unit,), deadline).await)
}

/// A unit that is not there needs nothing.
fn known<T>(answer: Result<T, BusError>) -> Result<(), BusError> {
    match answer {
        Ok(_) => Ok(()),
        Err(BusError::Refused { name, .. }) if name.ends_with(".NoSuchUnit") => Ok(()),
        Err(err) => Err(err),
    }
}

fn properties(service: &Transient) -> Vec<Property<'_>> {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let argv = service.argv.clone();
    // Without the flag systemd would expand `$NAME` in the arguments, which is for a shell to do.
    let command = vec![(text(&service.program), argv, vec!["no-env-expand".to_owned()])];
    let mut properties = vec![
        Property("Description", service.description.as_str().into()),
        Property("Type", "exec".into()),
        // How it ended is kept until somebody has read it, also when it failed: see `forget`.
        Property("RemainAfterExit", true.into()),
        Property("CollectMode", "inactive".into()),
        Property("ExecStartEx", command.into()),
        Property("WorkingDirectory", text(&service.dir).into()),
        Property("EnvironmentFiles", vec![(text(&service.env), false)].into()),
        Property("StandardInputFile", text(&service.stdin).into()),
        Property("StandardOutputFileToAppend", text(&service.stdout).into()),
        Property("StandardErrorFileToAppend", text(&service.stderr).into()),
        Property("UMask", service.umask.into()),
        // As for a child of ours: a pipe that nobody reads ends it, and its deadline is final.
        Property("IgnoreSIGPIPE", false.into()),
        Property("KillMode", "control-group".into()),
        Property("KillSignal", 9_i32.into()),
        Property("TimeoutStopUSec", micros(STOP_MAX).into()),
        Property("RuntimeMaxUSec", micros(service.time).into()),
    ];
    if let Some((user, group)) = service.user {
        properties.push(Property("User", user.to_string().into()));
        properties.push(Property("Group", group.to_string().into()));
    }
    properties
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
