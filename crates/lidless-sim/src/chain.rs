//! What becomes of a step of the value pipeline? A chain that counts what landed, for each run and step.
//!
//! A transaction that was sent lands or is dropped whether or not lidless lives to see it.

use std::collections::BTreeMap;
use std::time::Duration;

use lidless_core::event::{Confirmation, Outcome};

use crate::act::{ActKey, Answer, Fate};
use crate::scenario::Scenario;
use crate::schedule::{Happening, Schedule};
use crate::world::World;

/// What was sent.
#[derive(Debug)]
struct Pending {
    key: ActKey,
    /// Whether it counts once it lands.
    counts: bool,
    at: Duration,
}

/// The chain.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    pending: BTreeMap<u64, Pending>,
    landed: BTreeMap<ActKey, u32>,
}

impl World {
    /// Begins a step of the pipeline.
    pub(crate) fn step(
        &mut self,
        scenario: &Scenario,
        schedule: &mut Schedule,
        key: ActKey,
        name: &str,
        (now, deadline): (Duration, Duration),
    ) -> Answer {
        let soon = now + self.rng.millis(1, 900);
        if !self.calm && self.rng.chance(scenario.refused) {
            return Some((soon, Outcome::NotApplied { reason: "slippage is above the limit".to_owned() }));
        }
        let fate = Fate::draw(self, scenario);
        let lands = match fate {
            Fate::Slow(takes) => now + takes,
            Fate::Fine | Fate::Unknown { .. } | Fate::Silent { .. } | Fate::Late(_) => soon,
        };
        let done = !matches!(fate, Fate::Unknown { done: false } | Fate::Silent { done: false });
        if name != "HEALTH_CHECK" {
            self.count += 1;
            // REBALANCE carries a key that its server honours; the value steps carry none.
            let counts = done && !name.starts_with("REBALANCE");
            self.chain.pending.insert(self.count, Pending { key, counts, at: lands });
            schedule.at(lands, Happening::Lands { tx: self.count });
        }
        if lands >= deadline {
            return Some((deadline, Outcome::Unknown { reason: "not seen on the chain".to_owned() }));
        }
        fate.answer(lands, deadline, Outcome::Applied { output: "landed".to_owned() })
    }

    /// A transaction lands, or is dropped.
    pub(crate) fn lands(&mut self, tx: u64) {
        let Some(Pending { key, counts, .. }) = self.chain.pending.remove(&tx) else { return };
        if !counts {
            return;
        }
        let times = self.chain.landed.entry(key).or_default();
        *times += 1;
        if *times > 1 {
            self.broken = Some(format!("(2) {} moved value twice at step {}", key.0, key.2));
        }
    }

    /// Says how a step ended that may have gone on without lidless, and when that can be said: whoever is asked waits for its
    /// end.
    pub(crate) fn adopt_step(
        &mut self,
        scenario: &Scenario,
        key: ActKey,
        now: Duration,
    ) -> (Duration, Confirmation) {
        let for_good = self.rng.chance(3_000);
        if !self.calm && self.rng.chance(scenario.lost) {
            let (reason, retry_after) = ("nothing is left of it".to_owned(), Duration::ZERO);
            return (now, Confirmation::StillUnknown { reason, retry_after });
        }
        let going_on = self.chain.pending.values().rfind(|pending| pending.key == key);
        let at = going_on.map_or(now, |pending| pending.at.max(now));
        let landed = self.chain.landed.contains_key(&key) || going_on.is_some_and(|pending| pending.counts);
        let answer = if landed {
            Confirmation::Applied { evidence: "it went on and said so".to_owned(), output: None }
        } else {
            Confirmation::Failed { reason: "it went on and failed".to_owned(), for_good }
        };
        (at, answer)
    }

    /// Says whether a step took effect.
    pub(crate) fn confirm_step(&mut self, scenario: &Scenario, key: ActKey) -> Confirmation {
        let retry_after = self.rng.millis(500, 10_000);
        if self.chain.pending.values().any(|pending| pending.key == key) {
            return Confirmation::StillUnknown { reason: "it is pending".to_owned(), retry_after };
        }
        if !self.calm && self.rng.chance(scenario.lost) {
            return Confirmation::StillUnknown { reason: "the node is behind".to_owned(), retry_after };
        }
        if self.chain.landed.contains_key(&key) {
            Confirmation::Applied { evidence: "its receipt is final".to_owned(), output: None }
        } else {
            Confirmation::NotApplied { evidence: "its nonce is spent otherwise".to_owned() }
        }
    }

    /// Whether a step took effect, as somebody sees who looks; none while it may still come.
    pub(crate) fn truth(&self, key: ActKey) -> Option<bool> {
        let pending = self.chain.pending.values().any(|pending| pending.key == key);
        (!pending).then(|| self.chain.landed.contains_key(&key))
    }

    /// How many transactions landed.
    pub(crate) fn landed(&self) -> u64 {
        self.chain.landed.values().map(|times| u64::from(*times)).sum()
    }
}
