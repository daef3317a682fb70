//! Who waits for one run? Each record goes to the followers of its run alone, so that a thousand waits cost no more than one.
//!
//! **Invariant:** a follower hears of a record only once that is durable, also while the journal cannot be written: what it is
//! told leaves lidless.

use std::collections::{HashMap, VecDeque};

use lidless_core::effect::{Command, Input, Refusal, Reply};
use lidless_core::event::Record;
use lidless_core::id::{RunId, Seq};
use lidless_core::pipeline::run::Run;

use super::dispatcher::Daemon;

/// Waits for one run.
pub(crate) trait Follower: Send {
    /// The run exists, and stands so; what is not durable yet of it is still to be heard.
    fn begins(&mut self, run: &Run);
    /// There will be no run.
    fn refused(&mut self, why: Refusal);
    /// Takes the next durable record of the run. `false` when there is nothing more to wait for.
    fn hears(&mut self, record: &Record) -> bool;
}

impl Daemon {
    /// Gives a command, and has the run followed that it leads to.
    pub(super) fn command_and_follow(&mut self, command: Command, mut follower: Box<dyn Follower>) {
        // What was decided before, and is not told yet, is not what this command leads to.
        let after = self.engine.state().seq;
        match self.turn(Input::Command(command)) {
            Some(Reply::Started(run)) => self.follow(run, after, follower),
            Some(Reply::Refused(why)) => follower.refused(why),
            Some(Reply::Noted) | None => {}
        }
    }

    /// Has a run followed from the record behind `after` on; it is unfinished, or was before the last turn. Where there is none,
    /// the follower is dropped.
    pub(crate) fn follow(&mut self, run: RunId, after: Seq, follower: Box<dyn Follower>) {
        let state = self.engine.state();
        let ended = || state.ended.iter().rev().map(|ended| &ended.run).find(|ended| ended.id == run);
        if let Some(run) = state.runs.get(&run).or_else(ended) {
            self.followers.add(run, after, follower);
        }
    }
}

/// A follower, and the last record that is not for it.
type Waiting = (Seq, Box<dyn Follower>);

/// All followers.
#[derive(Default)]
pub(super) struct Followers {
    of: HashMap<RunId, Vec<Waiting>>,
    /// Records that were told before they were durable.
    waiting: VecDeque<Record>,
}

impl Followers {
    fn add(&mut self, run: &Run, after: Seq, mut follower: Box<dyn Follower>) {
        follower.begins(run);
        self.of.entry(run.id).or_default().push((after, follower));
    }

    /// Takes a record on its way out.
    pub(super) fn take(&mut self, record: &Record, durable: Seq) {
        let Some(run) = record.event.run().filter(|run| self.of.contains_key(run)) else { return };
        if record.seq <= durable {
            self.tell(run, record);
        } else {
            self.waiting.push_back(record.clone());
        }
    }

    /// Tells what has become durable.
    pub(super) fn durable(&mut self, seq: Seq) {
        while self.waiting.front().is_some_and(|record| record.seq <= seq) {
            let Some(record) = self.waiting.pop_front() else { return };
            if let Some(run) = record.event.run() {
                self.tell(run, &record);
            }
        }
    }

    fn tell(&mut self, run: RunId, record: &Record) {
        let Some(followers) = self.of.get_mut(&run) else { return };
        followers.retain_mut(|(after, follower)| record.seq <= *after || follower.hears(record));
        if followers.is_empty() {
            self.of.remove(&run);
        }
    }
}
