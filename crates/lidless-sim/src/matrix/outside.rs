//! What is there outside of lidless, in the matrix? A journal that may fail in every way, and a world that counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lidless_core::event::{Confirmation, Event, Outcome, Record};
use lidless_core::id::{RunId, Seq};
use lidless_core::pipeline::plan::Class;

/// A step of a run, or what takes it back.
pub(super) type Key = (RunId, u32);

/// How lidless is cut off, or what happens to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// kill -9.
    Crash,
    /// kill -9, and the next lidless is another version with another configuration, which at first misses an implementation.
    Upgrade,
    /// SIGSTOP for longer than any time-out; then it goes on.
    Pause,
    /// SIGSTOP for longer than its lease: another takes over and ends the run, then the first one goes on.
    Takeover,
    /// The next append is durable, and its acknowledgement is lost.
    LostAck,
    /// The next append is not written, and its acknowledgement is lost.
    LostAppend,
    /// The store cannot be reached for a while.
    StoreDown,
    /// The disk is full for longer than any time-out.
    DiskFull,
    /// The wall clock jumps back by an hour.
    ClockJump,
    /// A person cancels the run.
    Cancel,
}

/// All of them.
pub(super) const KINDS: [Kind; 10] = [
    Kind::Crash,
    Kind::Upgrade,
    Kind::Pause,
    Kind::Takeover,
    Kind::LostAck,
    Kind::LostAppend,
    Kind::StoreDown,
    Kind::DiskFull,
    Kind::ClockJump,
    Kind::Cancel,
];

/// What an append came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Appended {
    Durable,
    /// Somebody else owns the journal by now.
    Fenced,
    /// Nobody knows: the slot must be read again.
    Unknown,
    /// It was not written.
    Refused,
}

/// Everything outside.
#[derive(Debug, Default)]
pub(super) struct Outside {
    pub(super) now: Duration,
    pub(super) wall_offset_ms: i64,
    pub(super) journal: Vec<Record>,
    /// Who may write it.
    pub(super) epoch: u64,
    pub(super) down_until: Duration,
    /// The fate of the next append, if it has one of its own.
    pub(super) next_append: Option<Kind>,
    pub(super) world: World,
    /// Implementations are missing until then.
    pub(super) missing: bool,
    pub(super) upgraded: bool,
    pub(super) broken: Option<String>,
}

impl Outside {
    /// Writes records, unless something stands against it.
    pub(super) fn append(&mut self, epoch: u64, records: &[Record]) -> Appended {
        if epoch != self.epoch {
            return Appended::Fenced;
        }
        if self.now < self.down_until {
            return Appended::Refused;
        }
        match self.next_append.take() {
            Some(Kind::LostAppend) => Appended::Unknown,
            Some(_) => {
                self.write(records);
                Appended::Unknown
            }
            None => {
                self.write(records);
                Appended::Durable
            }
        }
    }

    fn write(&mut self, records: &[Record]) {
        for record in records {
            if record.seq.0 != self.journal.len() as u64 + 1 {
                self.broken = Some(format!("{} was written after {}", record.seq, self.journal.len()));
            }
            self.journal.push(record.clone());
        }
    }

    pub(super) fn last(&self) -> Seq {
        Seq(self.journal.len() as u64)
    }
}

/// The world: it counts what took effect, for each key.
#[derive(Debug, Default)]
pub(super) struct World {
    /// What was handed in and has not landed yet, and when it does.
    pending: Vec<(Duration, Key)>,
    landed: BTreeMap<Key, u32>,
    /// Those that were let out.
    handles: BTreeMap<Key, BTreeSet<String>>,
    made: u64,
    /// Steps that are refused, by name.
    pub(super) refuses: Option<&'static str>,
    pub(super) effects: u64,
}

impl World {
    /// Something is handed in; it lands a second later, whether or not lidless lives to see it.
    pub(super) fn hand_in(&mut self, now: Duration, key: Key, name: &str, class: Class) -> Outcome {
        if self.refuses == Some(name) {
            return Outcome::Refused { reason: "the limit is reached".to_owned() };
        }
        match class {
            Class::Pure => {}
            // The outside knows the key: the second time changes nothing.
            Class::Idempotent if self.landed.contains_key(&key) || self.is_pending(key) => {}
            Class::Idempotent | Class::Confirmable | Class::OneShot => {
                self.pending.push((now + Duration::from_secs(1), key));
            }
        }
        Outcome::Applied { output: "{}".to_owned() }
    }

    /// Returns the handle of an attempt: the one that is known, else a new one.
    pub(super) fn handle(&mut self, key: Key, known: Option<&str>) -> String {
        self.made += 1;
        known.map_or_else(|| format!("\"tx-{}-{}-{}\"", key.0, key.1, self.made), str::to_owned)
    }

    /// A handle is let out.
    pub(super) fn let_out(&mut self, key: Key, handle: String) {
        self.handles.entry(key).or_default().insert(handle);
    }

    pub(super) fn lands(&mut self, now: Duration) {
        let (due, later) = self.pending.drain(..).partition(|(at, _)| *at <= now);
        self.pending = later;
        let due: Vec<(Duration, Key)> = due;
        for (_, key) in due {
            *self.landed.entry(key).or_default() += 1;
            self.effects += 1;
        }
    }

    fn is_pending(&self, key: Key) -> bool {
        self.pending.iter().any(|(_, of)| *of == key)
    }

    /// Says whether a step took effect. Whoever asks with no handle asks about something that was never let out.
    pub(super) fn confirm(&self, key: Key) -> Confirmation {
        if self.is_pending(key) {
            let reason = "it is pending".to_owned();
            return Confirmation::StillUnknown { reason, retry_after: Duration::from_secs(1) };
        }
        match self.landed.get(&key) {
            Some(_) => Confirmation::Applied { evidence: "it landed".to_owned(), output: None },
            None => {
                Confirmation::NotApplied { evidence: "its nonce is free, and its time is over".to_owned() }
            }
        }
    }

    /// The truth, once it is out.
    pub(super) fn truth(&self, key: Key) -> Option<bool> {
        (!self.is_pending(key)).then(|| self.landed.contains_key(&key))
    }

    /// The first key whose effect happened twice, or that was let out under two handles.
    pub(super) fn twice(&self) -> Option<String> {
        let landed = self.landed.iter().find(|(_, times)| **times > 1);
        let landed =
            landed.map(|((run, step), times)| format!("step {step} of {run} took effect {times} times"));
        let handles = self.handles.iter().find(|(_, handles)| handles.len() > 1);
        landed.or_else(|| {
            handles.map(|((run, step), handles)| format!("step {step} of {run} has handles {handles:?}"))
        })
    }

    /// Keys that took effect.
    pub(super) fn took_effect(&self) -> BTreeSet<Key> {
        self.landed.keys().copied().collect()
    }
}

/// Keys that took effect as far as the journal knows: what a ledger adds up.
pub(super) fn ledger(journal: &[Record], counts: impl Fn(u32) -> bool) -> BTreeSet<Key> {
    let applied = journal.iter().filter_map(|record| match &record.event {
        Event::StepOutcome { run, step, outcome: Outcome::Applied { .. }, .. }
        | Event::StepConfirmed { run, step, answer: Confirmation::Applied { .. }, .. }
        | Event::StepResolved { run, step, applied: true, .. } => Some((*run, *step)),
        _ => None,
    });
    applied.filter(|(_, step)| counts(*step)).collect()
}
