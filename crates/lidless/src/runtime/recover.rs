//! How does the engine come back? Newest sound snapshot, then every record after it, applied by the code that decided it.

use std::ops::ControlFlow;

use lidless_core::apply::IllegalEvent;
use lidless_core::engine::Engine;
use lidless_core::kept::Kept;
use lidless_core::state::State;
use lidless_core::time::Now;
use lidless_store::{Journal, JournalError};

use super::clock::Clock;

/// An engine that knows what its journal knows.
#[derive(Debug)]
pub struct Recovered {
    /// The engine; `Input::Started` is still to come.
    pub engine: Engine,
    /// The clock that goes on where the journal's last record stood.
    pub clock: Clock,
    /// How many records were replayed after the snapshot.
    pub replayed: u64,
}

/// Why the engine cannot come back.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The journal cannot be read.
    #[error("cannot read the journal")]
    Journal(#[from] JournalError),
    /// The journal says something impossible.
    #[error("the journal is corrupt")]
    Illegal(#[from] IllegalEvent),
}

/// Restores the engine from a journal.
pub fn recover(journal: &mut dyn Journal, seed: u64) -> Result<Recovered, RecoverError> {
    let state = snapshot(journal)?;
    let mut engine = Engine::restore(seed, state);
    let mut illegal = ControlFlow::Continue(());
    let mut replayed = 0;
    journal.replay(engine.state().seq.next(), &mut |record| {
        if illegal.is_continue() {
            replayed += 1;
            if let Err(err) = engine.apply(&record) {
                illegal = ControlFlow::Break(err);
            }
        }
    })?;
    if let ControlFlow::Break(err) = illegal {
        return Err(err.into());
    }
    let state = engine.state();
    let last = (state.seq.0 > 0).then_some((state.at, state.boot.as_str()));
    let clock = Clock::resume(last.map(|(at, boot): (Now, &str)| (at, boot)));
    Ok(Recovered { engine, clock, replayed })
}

/// A snapshot that this version cannot read is no snapshot: everything is replayed instead.
fn snapshot(journal: &mut dyn Journal) -> Result<State, JournalError> {
    let Some((seq, bytes)) = journal.load_snapshot()? else { return Ok(State::default()) };
    let kept = serde_json::from_slice::<Kept>(&bytes).map_err(|err| err.to_string());
    match kept.and_then(|kept| kept.restore().map_err(str::to_owned)) {
        Ok(state) if state.seq == seq => Ok(state),
        Ok(_) => Ok(State::default()),
        Err(err) => {
            tracing::warn!(%seq, error = %err, "Snapshot unreadable; replaying everything.");
            Ok(State::default())
        }
    }
}
