//! Where are services' processes remembered, and which of them run on without a service?

use std::path::{Path, PathBuf};
use std::time::Duration;

use lidless_drivers::process::slot::Slot;
use lidless_drivers::process::{ManagedProcess, Orphan};

use crate::config::Resolved;
use crate::config::settings::RunKind;

/// How long a launcher may hold a slot that is to be moved: it does so for a millisecond.
const MOVE_PATIENCE: Duration = Duration::from_secs(5);

/// Returns the directory of a store's slots. Two stores in one directory have services of one name, and nothing in common.
pub(super) fn of_store(state_dir: &Path, store: &Path) -> PathBuf {
    of_all_stores(state_dir).join(store.file_name().unwrap_or(store.as_os_str()))
}

/// The first version kept the slots of all stores here, by the services' names.
fn of_all_stores(state_dir: &Path) -> PathBuf {
    state_dir.join("slots")
}

/// Moves slots from where the first version kept them. To be called by whoever owns the store, before drivers are built.
pub(super) fn take_over(resolved: &Resolved, state_dir: &Path) {
    let (from, to) = (of_all_stores(state_dir), of_store(state_dir, &resolved.store_path));
    for name in processes(resolved) {
        match Slot::take_over(&from.join(name), &to.join(name), MOVE_PATIENCE) {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(service = %name, "What is known of the process lies beside its store now.")
            }
            // Its process is an orphan then, and so is not started a second time.
            Err(err) => {
                tracing::warn!(service = %name, error = %err, "What is known of the process was not moved.")
            }
        }
    }
}

/// Looks for processes that no configured service owns, warns of them, and lets no second copy of them be started.
pub(super) fn orphans(
    resolved: &Resolved,
    state_dir: &Path,
    managed: &[(String, std::sync::Arc<ManagedProcess>)],
) -> Vec<Orphan> {
    let own = of_store(state_dir, &resolved.store_path);
    let is_configured = |name: &str| processes(resolved).any(|service| service == name);
    let mut orphans = list(&own, is_configured);
    // What is there still has not been taken over.
    orphans.extend(list(&of_all_stores(state_dir), |_| false));
    for orphan in &orphans {
        tracing::warn!(
            service = %orphan.service,
            pid = orphan.pid,
            command = %orphan.command,
            "A process runs on though no configured service is its own: kill it, or put the service back.",
        );
        for (_, process) in managed.iter().filter(|(_, process)| orphan.runs(process.settings())) {
            process.never_beside(orphan.clone());
        }
    }
    orphans
}

fn list(slots: &Path, is_configured: impl Fn(&str) -> bool) -> Vec<Orphan> {
    Orphan::all(slots, is_configured).unwrap_or_else(|err| {
        tracing::warn!(error = %err, "Processes without a service could not be looked for.");
        Vec::new()
    })
}

fn processes(resolved: &Resolved) -> impl Iterator<Item = &str> {
    let runs = resolved.services.iter().filter(|service| matches!(service.run, Some(RunKind::Process(_))));
    runs.map(|service| service.name.as_str())
}
