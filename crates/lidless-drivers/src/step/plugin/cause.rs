//! Why does the life of a plugin's child end, and what is said about it?

use std::process::ExitStatus;

use rustix::io::Errno;

use super::error::PluginError;
use crate::child::SpawnError;
use crate::child::lasting::how;
use crate::process::launch::chain;

/// Why a life ends.
pub(super) enum Cause {
    /// It ended by itself.
    Exited,
    /// It closed its input or its output.
    Closed(&'static str),
    /// It broke the protocol, or was too quiet: "wrote a line that is no JSON object".
    Broke(String),
    /// It did not answer this request in time.
    Overdue(u64, String),
    /// Somebody gave up waiting for what it was doing.
    GivenUp(String),
    /// It is not what we can work with.
    Unfit(PluginError),
    /// It was told to end.
    Stopped,
}

/// How a child is gone.
pub(super) struct Gone {
    /// Before we killed it.
    pub(super) by_itself: bool,
    pub(super) status: Option<ExitStatus>,
    /// The last that it wrote to its standard error, or nothing.
    pub(super) complaint: String,
}

impl Cause {
    /// Says what the plugin did, behind its name; or what is wrong with it; and which request came too late.
    pub(super) fn told(self, gone: Gone) -> Result<(String, Option<u64>), PluginError> {
        let Gone { by_itself, status, complaint } = gone;
        let complaint = if complaint.is_empty() { complaint } else { format!(": {complaint}") };
        let why = match self {
            Cause::Exited => format!("{}{complaint}", how(status)),
            Cause::Closed(_) if by_itself => format!("{}{complaint}", how(status)),
            Cause::Closed(what) => format!("was killed, for it closed its {what}{complaint}"),
            Cause::Broke(what) => format!("was killed, for it {what}"),
            Cause::Overdue(id, what) => return Ok((format!("was killed, for {what}"), Some(id))),
            Cause::GivenUp(what) => format!("was killed, for {what}"),
            Cause::Unfit(error) => return Err(error),
            Cause::Stopped => "was stopped".to_owned(),
        };
        Ok((why, None))
    }
}

/// Says why a child could not be started.
pub(super) fn not_started(plugin: &str, err: &SpawnError) -> PluginError {
    let is_transient = match err {
        SpawnError::Start { err, .. } => matches!(
            Errno::from_io_error(err),
            Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE)
        ),
        // It may have run, but was never asked to do anything.
        SpawnError::Watch { .. } | SpawnError::Hung { .. } => true,
        SpawnError::Empty | SpawnError::Directory { .. } => false,
    };
    PluginError::Start { plugin: plugin.to_owned(), why: chain(err), is_transient }
}
