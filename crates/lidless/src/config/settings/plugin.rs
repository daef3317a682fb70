//! What does a run keep of a step that a plugin does?

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use lidless_drivers::child::CommandSpec;
use lidless_drivers::step::plugin::PluginSettings;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::secret::{SecretError, SecretSource};
use super::ReadSecret;

/// A step that a plugin does. Journalled as JSON, and holds no secret: only where one is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct PluginStepSettings {
    /// Its name.
    pub name: String,
    /// Program and arguments, never empty.
    pub command: Vec<String>,
    /// The working directory.
    pub dir: PathBuf,
    /// Beside lidless's own environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The same, secret: where each is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretSource>,
    /// It writes a line at least so often while it owes an answer.
    #[serde(default, rename = "heartbeat_ms", skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<u64>,
    /// Which kind of step, of those that it offers.
    pub kind: String,
    /// What it makes of this is its own affair.
    #[serde(default)]
    pub settings: Value,
}

impl PluginStepSettings {
    /// Returns what the driver takes. `strict`: it must not be done twice.
    pub fn for_driver(self, strict: bool, read: ReadSecret<'_>) -> Result<PluginSettings, SecretError> {
        let mut env = self.env;
        for (name, source) in &self.secrets {
            env.insert(name.clone(), read(source)?);
        }
        Ok(PluginSettings {
            name: self.name,
            command: CommandSpec { argv: self.command, dir: Some(self.dir), env, ..CommandSpec::default() },
            kind: self.kind,
            settings: self.settings,
            heartbeat: self.heartbeat.map(Duration::from_millis),
            strict,
        })
    }
}
