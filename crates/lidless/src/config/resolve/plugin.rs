//! What does a step pin of the plugin that does it? All that is needed to start it, and nothing secret.

use std::collections::BTreeMap;

use super::super::model::{StepPlugin, Text};
use super::super::settings::PluginStepSettings;
use super::Resolver;

impl Resolver<'_> {
    /// Returns none where the plugin is not there, which is reported.
    pub(super) fn plugin_step(&mut self, step: &StepPlugin) -> Option<PluginStepSettings> {
        let named = self.plugins.iter().find(|plugin| plugin.name.value == step.name.value)?;
        let plugin = named.value.good()?;
        let (mut env, mut secrets) = (BTreeMap::new(), BTreeMap::new());
        for (name, text) in &plugin.env {
            match text {
                Text::Plain(text) => drop(env.insert(name.clone(), text.clone())),
                Text::Secret(source) => drop(secrets.insert(name.clone(), self.pinned(source))),
            }
        }
        let dir = plugin.dir.as_ref().map(|path| self.path(path));
        Some(PluginStepSettings {
            name: step.name.value.clone(),
            command: self.argv(&plugin.command),
            dir: dir.unwrap_or_else(|| self.dir(named.name.at).to_owned()),
            env,
            secrets,
            heartbeat: plugin.heartbeat.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            kind: step.kind.clone(),
            settings: step.settings.clone(),
        })
    }
}
