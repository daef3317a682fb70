//! What waits for the journal? Effects are held here until the events that decided them are durable.
//!
//! **Invariant:** an effect leaves only with its events durable. The one exception is a journal that cannot be written:
//! then healing goes on unjournalled, and only what moves value stays.

use std::collections::VecDeque;

use lidless_core::effect::{Effect, Reply};
use lidless_core::event::Record;
use lidless_core::id::Seq;
use lidless_core::pipeline::plan::StepCall;
use tokio::sync::oneshot;

/// An answer that waits.
#[derive(Debug)]
struct Waiting {
    upto: Seq,
    to: oneshot::Sender<Reply>,
    reply: Reply,
    /// Also while the journal cannot be written: what it promises must survive.
    promises: bool,
}

/// The waiting effects and records, in order.
#[derive(Debug, Default)]
pub(super) struct Ledge {
    effects: VecDeque<(Seq, Effect)>,
    records: VecDeque<Record>,
    replies: VecDeque<Waiting>,
    /// Handles that somebody may let out once they are durable, and not otherwise.
    kept: VecDeque<(Seq, oneshot::Sender<Result<(), String>>)>,
}

impl Ledge {
    /// Puts a turn's records and effects down. The effects wait for `upto`, the last record of their turn.
    pub(super) fn put(&mut self, records: &[Record], effects: Vec<Effect>, upto: Seq) {
        self.records.extend(records.iter().cloned());
        self.effects.extend(effects.into_iter().map(|effect| (upto, effect)));
    }

    /// Puts an answer down: whoever asked must not be told of what a crash could still undo.
    /// One that promises something waits also while the journal cannot be written.
    pub(super) fn put_reply(&mut self, to: oneshot::Sender<Reply>, reply: Reply, upto: Seq, promises: bool) {
        self.replies.push_back(Waiting { upto, to, reply, promises });
    }

    /// Puts a handle down: what it names may leave once its record is durable.
    pub(super) fn put_kept(&mut self, to: oneshot::Sender<Result<(), String>>, upto: Seq) {
        self.kept.push_back((upto, to));
    }

    /// Gives the answers whose records are durable; where the journal cannot be written, also those that promise nothing.
    pub(super) fn answer(&mut self, seq: Seq, degraded: bool) {
        while self.kept.front().is_some_and(|(upto, _)| degraded || *upto <= seq) {
            if let Some((upto, to)) = self.kept.pop_front() {
                let kept = if upto <= seq { Ok(()) } else { Err("the journal cannot be written".to_owned()) };
                drop(to.send(kept));
            }
        }
        let goes = |waiting: &Waiting| waiting.upto <= seq || (degraded && !waiting.promises);
        if !self.replies.iter().any(goes) {
            return;
        }
        // Those that promise nothing may go before older ones.
        for waiting in std::mem::take(&mut self.replies) {
            if goes(&waiting) {
                // Whoever asked may have gone; what was begun goes on.
                drop(waiting.to.send(waiting.reply));
            } else {
                self.replies.push_back(waiting);
            }
        }
    }

    /// Takes off what is durable now. While the journal is not trusted, what moves value stays all the same.
    pub(super) fn durable(&mut self, seq: Seq, degraded: bool) -> (Vec<Effect>, Vec<Record>) {
        // They are in order: nearly always none of those behind the first that waits is looked at.
        let count = self.effects.partition_point(|(upto, _)| *upto <= seq);
        let (mut effects, mut stay) = (Vec::with_capacity(count), Vec::new());
        for (upto, effect) in self.effects.drain(..count) {
            if degraded && needs_journal(&effect) {
                stay.push((upto, effect));
            } else {
                effects.push(effect);
            }
        }
        stay.into_iter().rev().for_each(|waiting| self.effects.push_front(waiting));
        let count = self.records.partition_point(|record| record.seq <= seq);
        (effects, self.records.drain(..count).collect())
    }

    /// The first record that waits.
    pub(super) fn first(&self) -> Option<Seq> {
        self.records.front().map(|record| record.seq)
    }

    /// The journal cannot be written: takes off everything that may be done and told without it.
    pub(super) fn unjournalled(&mut self) -> (Vec<Effect>, Vec<Record>) {
        let (stay, go): (VecDeque<_>, VecDeque<_>) =
            self.effects.drain(..).partition(|(_, effect)| needs_journal(effect));
        self.effects = stay;
        (go.into_iter().map(|(_, effect)| effect).collect(), self.records.drain(..).collect())
    }
}

/// Whether an effect must never outrun its record, whatever happens.
fn needs_journal(effect: &Effect) -> bool {
    match effect {
        Effect::Perform { call, .. } => matches!(call, StepCall::External { .. }),
        Effect::Confirm { .. }
        | Effect::Weigh { .. }
        | Effect::Interrupt { .. }
        | Effect::Deliver { .. }
        | Effect::ProbeAt { .. } => false,
    }
}
