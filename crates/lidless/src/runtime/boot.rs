//! How is a daemon put together from a configuration? Open the journal, recover, build the drivers, make the dispatcher.

use std::path::Path;
use std::sync::Arc;

use lidless_core::engine::Engine;
use lidless_drivers::process::ManagedProcess;
use lidless_drivers::step::unit::Units;
use lidless_store::{Journal, JournalError, SqliteJournal};

use super::clock::Clock;
use super::dispatcher::Daemon;
use super::drivers::{self, DriverError};
use super::handle::{Handle, Options};
use super::plugins::MarkedPlugins;
use super::recover::{RecoverError, Recovered, recover};
use super::{slots, steps};
use crate::config::Resolved;

/// A daemon, ready to run.
pub struct Booted {
    /// The dispatcher.
    pub daemon: Daemon,
    /// Reaches it.
    pub handle: Handle,
    /// The processes that lidless runs itself, by service.
    pub managed: Vec<(String, Arc<ManagedProcess>)>,
    /// How many records were replayed after the snapshot.
    pub replayed: u64,
}

/// Why it cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The journal cannot be opened.
    #[error("cannot open the journal")]
    Journal(#[from] JournalError),
    /// The engine cannot come back.
    #[error("cannot recover from the journal")]
    Recover(#[from] RecoverError),
    /// The system allows no further thread.
    #[error("cannot start the journal's writer")]
    Thread(#[from] std::io::Error),
    /// A driver cannot be built.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

/// Puts a daemon together. Without a journal nothing is kept. `state_dir` is where processes are remembered.
///
/// Must be called within a tokio runtime.
pub fn boot(resolved: &Resolved, journal: Option<&Path>, state_dir: &Path) -> Result<Booted, BootError> {
    put_together(resolved, journal, state_dir, false)
}

/// Puts a daemon together in which nothing begins but what a person orders.
///
/// Must be called within a tokio runtime.
pub fn boot_for_orders(resolved: &Resolved, store: &Path, state_dir: &Path) -> Result<Booted, BootError> {
    put_together(resolved, Some(store), state_dir, true)
}

fn put_together(
    resolved: &Resolved,
    journal: Option<&Path>,
    state_dir: &Path,
    orders_only: bool,
) -> Result<Booted, BootError> {
    let seed = u64::from(std::process::id());
    let journal_path = journal;
    let (recovered, journal) = match journal {
        None => {
            let engine = Engine::new(seed);
            (Recovered { engine, clock: Clock::resume(None), replayed: 0 }, None)
        }
        Some(path) => {
            let mut journal = SqliteJournal::open(path)?;
            let recovered = recover(&mut journal, seed)?;
            (recovered, Some(Box::new(journal) as Box<dyn Journal>))
        }
    };
    let replayed = recovered.replayed;
    // Without a journal nothing outlives us, and nothing of an earlier lidless is ours.
    let plugins = journal_path.map(MarkedPlugins::of_store);
    let folder = state_dir.join("runs").join("units");
    let units = if plugins.is_some() { Units::of_this_machine(&folder).map(Arc::new) } else { None };
    if let Some(plugins) = &plugins {
        slots::take_over(resolved, state_dir);
        steps::end_leftovers(recovered.engine.state(), units.as_deref());
        plugins.end_leftovers(steps::LEFTOVERS_MAX);
    }
    let mut drivers = drivers::build(resolved, state_dir, &recovered.clock)?;
    drivers.units = units;
    let managed = drivers.managed();
    if let Some(plugins) = plugins {
        drivers.plugins = plugins;
        drivers.orphans = slots::orphans(resolved, state_dir, &managed);
    }
    let spec = Arc::new(resolved.spec.clone());
    let (daemon, handle) = Daemon::new(Options { spec, drivers, recovered, journal, orders_only })?;
    Ok(Booted { daemon, handle, managed, replayed })
}

/// Puts a daemon together for one answer: nothing is kept, and an act that failed is judged by the checks like any other.
///
/// Must be called within a tokio runtime.
pub fn boot_once(resolved: &Resolved, state_dir: &Path) -> Result<Booted, BootError> {
    let engine = Engine::new(u64::from(std::process::id()));
    let recovered = Recovered { engine, clock: Clock::resume(None), replayed: 0 };
    let drivers = drivers::build(resolved, state_dir, &recovered.clock)?.judged_by_checks();
    let managed = drivers.managed();
    let spec = Arc::new(resolved.spec.clone());
    let (daemon, handle) =
        Daemon::new(Options { spec, drivers, recovered, journal: None, orders_only: false })?;
    Ok(Booted { daemon, handle, managed, replayed: 0 })
}
