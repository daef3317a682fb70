//! Which plugins run, and which of an earlier lidless still do? Each carries a mark of its store, and by that it is found.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use lidless_drivers::step::leftovers;
use lidless_drivers::step::plugin::{PluginSettings, PluginStep, Plugins};

/// Where the mark stands in a plugin's environment, and in that of whatever it starts.
const MARK_VARIABLE: &str = "LIDLESS_PLUGIN_STORE";

/// All plugins of a daemon.
#[derive(Debug, Default)]
pub(super) struct MarkedPlugins {
    plugins: Plugins,
    mark: Option<String>,
}

impl MarkedPlugins {
    /// None yet, marked as those of the store at this path. Of a store whose folder cannot be looked at there is no mark.
    pub(super) fn of_store(store: &Path) -> MarkedPlugins {
        MarkedPlugins { plugins: Plugins::new(), mark: mark(store) }
    }

    /// Prepares a step. Where a plugin already runs that is started in the same way, that one does it.
    pub(super) fn step(&self, mut settings: PluginSettings) -> PluginStep {
        let mark = self.mark.iter().map(|mark| (MARK_VARIABLE.to_owned(), mark.clone()));
        settings.command.env.extend(mark);
        self.plugins.step(settings)
    }

    /// Ends all of them, and waits until they have.
    pub(super) async fn stop(&self) {
        self.plugins.stop().await;
    }

    /// Ends what an earlier lidless on this store has left, before anybody is asked what it did.
    pub(super) fn end_leftovers(&self, patience: Duration) {
        let marks = self.mark.iter().map(|mark| format!("{MARK_VARIABLE}={mark}"));
        for pid in leftovers::end_marked(&marks.collect::<Vec<_>>(), patience) {
            tracing::error!(
                pid,
                "A plugin of an earlier lidless cannot be ended, and may still take effect."
            );
        }
    }
}

/// The folder as the machine numbers it, for paths mean something else in each container; and the name, for there may be two.
fn mark(store: &Path) -> Option<String> {
    let folder = store.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let meta = folder.metadata().ok()?;
    Some(format!("{:x}:{:x}:{}", meta.dev(), meta.ino(), store.file_name()?.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_stores_of_one_folder_have_two_marks_and_one_store_has_one() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let [a, b] = ["a.db", "b.db"].map(|name| mark(&dir.path().join(name)));
        assert!(a.is_some() && a != b);
        assert_eq!(a, mark(&dir.path().join(".").join("a.db")));
        assert_eq!(mark(&dir.path().join("gone/a.db")), None);
        Ok(())
    }
}
