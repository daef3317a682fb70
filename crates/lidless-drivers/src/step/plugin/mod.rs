//! How does a program that stays do the steps of anybody's pipelines? It speaks JSON in lines: `docs/step-protocol.md`.
//!
//! The contract is that of [`super::exec`], and one promise more: what a handle names leaves the machine only after the handle
//! is durable. A plugin *prepares*, its handle is kept, and only then is it told to *perform*.
//!
//! | the plugin | before `perform` or `undo` was sent | after |
//! |---|---|---|
//! | answers | as it says | as it says |
//! | cannot be started | failed, permanent; transient where the machine had no room | |
//! | speaks another protocol, or has no such kind | failed, permanent | |
//! | ends, closes a pipe, writes what is no message or over 64 KiB, answers twice or to nothing | failed, transient | failed, unknown |
//! | does not answer by the deadline, gives no sign of life | failed, transient | failed, unknown |
//! | ended before, and waits to be started anew for longer than there is time | failed, transient | |
//!
//! Whoever breaks the protocol is killed with its process group, and whatever else it had in flight fails by the same table.
//! It is started anew when it is next needed, after a pause that doubles from 100 ms to 30 s while it does not live for a
//! minute.

pub mod conformance;

mod ask;
mod cause;
mod child;
mod description;
mod error;
mod life;
mod pending;
mod split;
mod step;
mod wire;

#[cfg(test)]
mod page;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

pub use ask::Plugin;
pub use description::{Description, Kind, SettingProblem};
pub use error::PluginError;
pub use step::PluginStep;

use crate::child::CommandSpec;

/// The version of the protocol that is spoken here. Another number is another language; what is merely new is ignored.
pub const PROTOCOL: u64 = 1;

/// Where a plugin finds its own name, and by which what is left of one can be found.
pub const NAME_VARIABLE: &str = "LIDLESS_PLUGIN";

/// Which plugin does a step, and how its failures are read.
#[derive(Clone, PartialEq, Debug)]
pub struct PluginSettings {
    /// What it is called here; it finds this in `LIDLESS_PLUGIN`.
    pub name: String,
    /// Starts it. Whatever of its process group is left when it ends is killed.
    pub command: CommandSpec,
    /// The kind of step, of those that it offers.
    pub kind: String,
    /// The settings of the step: what the plugin makes of them is its own affair.
    pub settings: Value,
    /// For how long at most it may write nothing while it owes an answer; none: until the deadline.
    pub heartbeat: Option<Duration>,
    /// Whether the step must not be done twice (it is confirmable or one-shot): an answer that cannot be read may have come
    /// after the effect.
    pub strict: bool,
}

/// All plugins: steps that name the same one share its process.
///
/// One that is named with another command or another heartbeat is another one: a run goes on with what it has pinned.
#[derive(Debug, Default)]
pub struct Plugins(Mutex<Vec<Arc<Plugin>>>);

impl Plugins {
    /// Knows none yet.
    pub fn new() -> Self {
        Plugins::default()
    }

    /// Returns the plugin of these settings. It is started when it is first asked something.
    pub fn get(&self, settings: &PluginSettings) -> Arc<Plugin> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plugin) = known.iter().find(|plugin| plugin.is(settings)) {
            return Arc::clone(plugin);
        }
        let plugin = Arc::new(Plugin::new(&settings.name, settings.command.clone(), settings.heartbeat));
        known.push(Arc::clone(&plugin));
        plugin
    }

    /// Prepares a step.
    pub fn step(&self, settings: PluginSettings) -> PluginStep {
        PluginStep::new(self.get(&settings), settings.kind, settings.settings, settings.strict)
    }

    /// Ends all plugins, and waits until they have: 4 s and the time of a kill at most. None is started again.
    pub async fn stop(&self) {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        futures_util::future::join_all(known.iter().map(|plugin| plugin.stop())).await;
    }
}
