//! How is a service's process run? What its owner wrote, checked and in types.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use super::spawn::Launcher;

/// How a service's process is run.
#[derive(Clone, Debug)]
pub struct ProcessSettings {
    /// The program and its arguments; no shell.
    pub command: Vec<String>,
    /// Where it runs; `None` is where lidless runs.
    pub dir: Option<PathBuf>,
    /// Added to the environment of lidless, without what systemd meant for lidless alone.
    pub env: Vec<(String, String)>,
    /// Who runs it, by name or number; `None` is whoever runs lidless.
    pub user: Option<String>,
    /// Where stdout and stderr are appended.
    pub output: PathBuf,
    /// How it is stopped.
    pub stop: StopSettings,
    /// How long it must have been dead before it is started again.
    pub dead_for: Duration,
    /// What makes it read its configuration anew.
    pub reload: Signal,
    /// Who launches it.
    pub launcher: Launcher,
}

/// How a process is stopped.
#[derive(Clone, Debug)]
pub struct StopSettings {
    /// What asks it to end.
    pub signal: Signal,
    /// How long it may take.
    pub within: Duration,
    /// Whether it is killed after that. If not, a process that does not end is left alone, and no other is started.
    pub kill: bool,
}

impl ProcessSettings {
    /// Returns settings with the usual defaults: TERM, ten seconds, then KILL; HUP reloads.
    pub fn new(command: impl IntoIterator<Item = impl Into<String>>, output: impl Into<PathBuf>) -> Self {
        ProcessSettings {
            command: command.into_iter().map(Into::into).collect(),
            dir: None,
            env: Vec::new(),
            user: None,
            output: output.into(),
            stop: StopSettings { signal: Signal::TERM, within: Duration::from_secs(10), kill: true },
            dead_for: Duration::ZERO,
            reload: Signal::HUP,
            launcher: Launcher::own_binary(),
        }
    }
}
