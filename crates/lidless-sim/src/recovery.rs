//! What comes after a crash? Everything volatile is gone; the journal is replayed, and it may end again at any point.

use std::sync::Arc;
use std::time::Duration;

use lidless_core::effect::Input;
use lidless_core::engine::Engine;
use lidless_core::event::Record;

use crate::driver::{Crash, Sim};
use crate::schedule::Happening;

impl Sim {
    /// lidless is gone, and what only it knew.
    pub(crate) fn died(&mut self) {
        self.epoch += 1;
        self.alive = false;
        self.died_at = Some(self.now);
        self.recovering = false;
        self.probing.clear();
        self.journal.crash();
        self.held.clear();
        self.world.lidless_died();
        self.checker.crashed(self.journal.records());
        let down =
            if self.rng.chance(8_000) { self.rng.millis(1, 3_000) } else { self.rng.millis(3_000, 180_000) };
        self.schedule.at(self.now + down, Happening::Boot);
    }

    /// lidless is started: replay, then on.
    pub(crate) fn boot(&mut self) -> Result<(), Crash> {
        let replayed = match replay(Engine::new(self.seed), self.journal.records()) {
            Ok(engine) => engine,
            Err(what) => {
                self.broke(what);
                return Ok(());
            }
        };
        // What the dead engine believed and had written is what the living one knows.
        if self.engine.state().seq == self.journal.last() && self.engine.state() != replayed.state() {
            self.broke("(3) the journal, replayed, is not the state before the crash".to_owned());
        }
        self.engine = match self.journal.load_snapshot() {
            Some(state) if self.rng.chance(5_000) => {
                let done = usize::try_from(state.seq.0).unwrap_or(usize::MAX);
                let rest = self.journal.records().get(done..).unwrap_or_default();
                match replay(Engine::restore(self.seed, state), rest) {
                    Ok(engine) if engine.state() == replayed.state() => engine,
                    Ok(_) => {
                        self.broke("(3) a snapshot and the rest is not the whole journal".to_owned());
                        replayed
                    }
                    Err(what) => {
                        self.broke(what);
                        replayed
                    }
                }
            }
            Some(_) | None => replayed,
        };
        self.alive = true;
        self.absences.extend(self.died_at.take().map(|died_at| (died_at, self.now)));
        self.recovering = true;
        // Every fourth death is the machine's, as far as lidless can tell.
        let boot = format!("boot-{}{:+}", self.epoch / 4, self.epoch);
        self.feed(Input::Started { boot, version: "0.0.0".to_owned() })?;
        self.feed(Input::ConfigLoaded(Arc::clone(&self.spec)))?;
        self.recovering = false;
        self.plan_all();
        let first = self.now + Duration::from_millis(10);
        let services = &self.engine.state().services;
        let checks: Vec<_> = services.iter().flat_map(|service| service.checks.iter().copied()).collect();
        for check in checks {
            self.schedule.at(first, Happening::ProbeOnce { epoch: self.epoch, check });
        }
        Ok(())
    }

    /// The disk has room again: what was held back is written, in order, and the engine is told.
    pub(crate) fn room(&mut self) -> Result<(), Crash> {
        self.journal.full = false;
        if !self.alive {
            return Ok(());
        }
        let mut wrote = false;
        while self.journal.held_back() {
            self.crash_point("while writing what was held back")?;
            wrote |= self.journal.flush_one();
        }
        if wrote {
            self.crash_point("after writing what was held back")?;
            self.feed(Input::StoreMended)?;
            self.release()?;
            self.plan_all();
        }
        Ok(())
    }
}

fn replay(mut engine: Engine, records: &[Record]) -> Result<Engine, String> {
    for record in records {
        engine.apply(record).map_err(|err| format!("(3) the journal cannot be replayed: {err}"))?;
    }
    Ok(engine)
}
