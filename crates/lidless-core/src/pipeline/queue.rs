//! Which runs of pipelines are under way, and which wait for their turn? Derived from the runs, so that nobody walks them all.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::id::RunId;
use crate::pipeline::run::Run;

/// The unfinished runs of pipelines, by what they hold and wait for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Queue {
    of: BTreeMap<String, OfPipeline>,
    /// How many runs hold each lock.
    locks: BTreeMap<String, u32>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct OfPipeline {
    unfinished: BTreeSet<RunId>,
    begun: usize,
    /// Those that have not begun, and could.
    waiting: BTreeSet<RunId>,
}

/// Where a run stands in its queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// It holds its place, and its lock.
    Begun,
    /// It begins once it has its turn.
    Waits,
    /// It will not begin.
    Leaves,
}

impl Standing {
    /// Where a run stands.
    pub(crate) fn of(run: &Run) -> Standing {
        match (run.begun, run.ready.is_empty() || run.turned.is_some()) {
            (true, _) => Standing::Begun,
            (false, false) => Standing::Waits,
            (false, true) => Standing::Leaves,
        }
    }
}

impl Queue {
    /// Makes the queue of these runs.
    pub(crate) fn of<'r>(runs: impl Iterator<Item = &'r Run>) -> Queue {
        let mut queue = Queue::default();
        runs.for_each(|run| queue.enter(run));
        queue
    }

    /// Takes a run in.
    pub(crate) fn enter(&mut self, run: &Run) {
        let Some(name) = run.purpose.pipeline() else { return };
        if !self.of.contains_key(name) {
            self.of.insert(name.to_owned(), OfPipeline::default());
        }
        if let Some(of) = self.of.get_mut(name) {
            of.unfinished.insert(run.id);
        }
        self.moved(run, Standing::Leaves);
    }

    /// Lets a run go that is over.
    pub(crate) fn leave(&mut self, run: &Run) {
        let Some(name) = run.purpose.pipeline() else { return };
        self.stands_no_more(run, name, Standing::of(run));
        if let Some(of) = self.of.get_mut(name) {
            of.unfinished.remove(&run.id);
            if of.unfinished.is_empty() {
                self.of.remove(name);
            }
        }
    }

    /// Takes note of where a run stands, and where it stood before.
    pub(crate) fn moved(&mut self, run: &Run, before: Standing) {
        let after = Standing::of(run);
        let Some(name) = run.purpose.pipeline().filter(|_| before != after) else { return };
        self.stands_no_more(run, name, before);
        let Some(of) = self.of.get_mut(name) else { return };
        match after {
            Standing::Begun => {
                of.begun += 1;
                if let Some(lock) = &run.plan.lock {
                    *self.locks.entry(lock.clone()).or_default() += 1;
                }
            }
            Standing::Waits => drop(of.waiting.insert(run.id)),
            Standing::Leaves => {}
        }
    }

    fn stands_no_more(&mut self, run: &Run, name: &str, stood: Standing) {
        let Some(of) = self.of.get_mut(name) else { return };
        match stood {
            Standing::Begun => {
                of.begun = of.begun.saturating_sub(1);
                if let Some(lock) = &run.plan.lock
                    && let Some(held) = self.locks.get_mut(lock)
                {
                    *held -= 1;
                    if *held == 0 {
                        self.locks.remove(lock);
                    }
                }
            }
            Standing::Waits => drop(of.waiting.remove(&run.id)),
            Standing::Leaves => {}
        }
    }

    /// How many runs of a pipeline hold a place.
    pub(crate) fn begun(&self, pipeline: &str) -> usize {
        self.of.get(pipeline).map_or(0, |of| of.begun)
    }

    /// Whether a run holds this lock.
    pub(crate) fn is_locked(&self, lock: &str) -> bool {
        self.locks.contains_key(lock)
    }

    /// Returns the unfinished run of a pipeline before which `count` are older.
    pub(crate) fn nth(&self, pipeline: &str, count: usize) -> Option<RunId> {
        let unfinished = &self.of.get(pipeline)?.unfinished;
        // As many as are asked for is the default: they are not counted one by one.
        if unfinished.len() <= count { None } else { unfinished.iter().nth(count).copied() }
    }

    /// Returns the oldest run younger than `after` that waits in a queue in which it may move, as `may` says of runs, and
    /// `has_room` of pipelines and how many of their runs have begun.
    pub(crate) fn next(
        &self,
        after: RunId,
        has_room: impl Fn(&str, usize) -> bool,
        may: impl Fn(RunId) -> bool,
    ) -> Option<RunId> {
        let first = |(name, of): (&String, &OfPipeline)| {
            let younger = of.waiting.range((Bound::Excluded(after), Bound::Unbounded)).copied();
            let mut waiting = younger.peekable();
            // Asked only where somebody waits.
            if waiting.peek().is_none() || !has_room(name, of.begun) {
                return None;
            }
            waiting.find(|run| may(*run))
        };
        self.of.iter().filter_map(first).min()
    }
}
