//! What leaves the daemon? Records to the journal first, then, once they are durable, effects and news.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lidless_core::effect::{Effect, Input};
use lidless_core::event::{Confirmation, Event, Outcome, Record};
use lidless_core::id::{NoticeId, Seq};
use lidless_core::kept::Keeping;
use lidless_core::pipeline::plan::StepCall;
use lidless_store::{SubmitError, WriterEvent};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::dispatcher::Daemon;
use super::effects::{self, Attempt, Done};
use super::notify::Message as NoticeMessage;
use super::steps::{self, Calling};
use crate::telemetry;

/// A snapshot follows after so many records, so that start-up time does not grow with history.
pub(super) const SNAPSHOT_EVERY: u64 = 5_000;
/// One more for so many bytes of the last one: a large state is not written more often than what happens to it.
const SNAPSHOT_BYTES_A_RECORD: u64 = 256;
/// A writer that is so many records behind gets no snapshot to write.
const BEHIND_MAX: u64 = 1_000;
/// Longer than this nobody waits for the disk.
pub(super) const SILENT_MAX: Duration = Duration::from_secs(5);
/// Deliveries under way at once; the others wait their turn.
const DELIVERIES_MAX: usize = 8;

/// What the writer's thread has to say; it never waits for us.
#[derive(Debug, Default)]
pub(super) struct WriterNews {
    durable: Seq,
    failed: Option<String>,
    /// Records are lost to the journal: only the next lidless can begin anew from what it holds.
    lost: Option<String>,
}

impl Daemon {
    /// Takes note of what the writer's thread has done, or has failed to do for too long.
    pub(super) fn written(&mut self, now: Duration) {
        let news = self.news.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (durable, mut failed) = (news.durable, news.lost.clone().or_else(|| news.failed.clone()));
        drop(news);
        if durable > self.durable {
            self.durable = durable;
            self.pace.answered(durable);
            self.silent = false;
            self.waiting_since = None;
            // What was waiting for just this must go first: only what is left then still waits for the disk.
            self.release();
        }
        // A disk that does not answer at all is as good as a full one: nobody's heal may wait for it.
        self.waiting_since = self.ledge.first().map(|_| self.waiting_since.unwrap_or(now));
        self.silent |= self.waiting_since.is_some_and(|since| now.saturating_sub(since) > SILENT_MAX);
        if failed.is_none() && self.silent {
            failed = Some(format!("the disk has not answered for {} s", SILENT_MAX.as_secs()));
        }
        if failed != self.failed {
            let input = match &failed {
                Some(reason) => Input::StoreFailed { reason: reason.clone() },
                None => Input::StoreMended,
            };
            self.failed = failed;
            self.turn(input);
        }
        self.release();
    }

    /// Hands the batch to the writer, and lets go what needs not wait for it.
    pub(super) fn flush(&mut self) {
        if !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            match &self.writer {
                None => self.durable = self.engine.state().seq,
                Some(writer) => {
                    match writer.try_submit(batch) {
                        Ok(()) => self.pace.asked(self.engine.state().seq),
                        // The disk is slow: what is decided meanwhile joins the batch, and waits with it.
                        Err(SubmitError::Busy(batch)) => self.batch = batch,
                        Err(err @ SubmitError::Gone(_)) => {
                            tracing::error!(error = %err, "The journal's writer is gone.");
                            self.news.0.lock().unwrap_or_else(PoisonError::into_inner).lost =
                                Some(err.to_string());
                            self.news.1.notify_one();
                        }
                    }
                }
            }
            self.snapshot(self.snapshot_every);
        }
        self.release();
    }

    pub(super) fn snapshot(&mut self, after: u64) {
        let Some(writer) = &self.writer else { return };
        let seq = self.engine.state().seq;
        // Handing it over waits for room in the writer's queue: not while the writer is behind.
        let behind = seq.0 - self.durable.0 > BEHIND_MAX || !self.batch.is_empty();
        if seq.0 - self.snapshot_at.0 < after || self.failed.is_some() || behind {
            return;
        }
        match serde_json::to_vec(&Keeping::of(self.engine.state())) {
            Ok(bytes) => {
                self.snapshot_at = seq;
                self.snapshot_every = SNAPSHOT_EVERY.max(bytes.len() as u64 / SNAPSHOT_BYTES_A_RECORD);
                if let Err(err) = writer.snapshot(seq, bytes) {
                    tracing::warn!(error = %err, "Snapshot not written.");
                }
            }
            Err(err) => tracing::error!(error = %err, "State not serialisable; this is a bug in lidless."),
        }
    }

    fn release(&mut self) {
        let (mut effects, mut records) = self.ledge.durable(self.durable, self.failed.is_some());
        if self.failed.is_some() {
            let (unjournalled, told) = self.ledge.unjournalled();
            effects.extend(unjournalled);
            records.extend(told);
        }
        for record in &records {
            self.let_go(record);
        }
        let heard = self.feed.receiver_count() > 0;
        for record in records {
            let logged = telemetry::is_read(&record.event);
            let told = self.names.tell_where(record, heard || logged);
            if logged {
                telemetry::log(&told);
            }
            self.counters.count(&told);
            self.followers.take(&told.record, self.durable);
            if let Event::RunFinished { run, .. } = &told.record.event {
                self.outputs.forget(*run);
                self.tidy_run_logs();
            }
            if heard {
                // Whoever listened may have gone.
                drop(self.feed.send(Arc::new(told)));
            }
        }
        self.followers.durable(self.durable);
        self.ledge.answer(self.durable, self.failed.is_some());
        let now = self.clock.now().monotonic;
        for effect in effects {
            if self.engine.still_wanted(&effect, now) {
                self.perform(effect);
            } else {
                tracing::warn!(?effect, "The disk was too slow for this; it is not done any more.");
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        let now = self.clock.now().monotonic;
        match effect {
            Effect::ProbeAt { service, at } => {
                let checks =
                    self.engine.state().services.get(service.index()).map(|service| service.checks.clone());
                for check in checks.unwrap_or_default() {
                    self.scheduler.probe_at(check, at);
                }
            }
            Effect::Perform { run, step, attempt, name, call, deadline } => {
                let of = Attempt { run, step, attempt };
                self.acting.insert(of);
                match call {
                    StepCall::Act { service, action } => match self.drivers.actuator(self.name(service)) {
                        Some(actuator) => {
                            let timeout = deadline.saturating_sub(now);
                            self.tasks.spawn(effects::act(actuator, of, action, timeout));
                        }
                        None => self.not_there(of, "the service has no actuator".to_owned()),
                    },
                    StepCall::External { .. } => {
                        let timeout = deadline.saturating_sub(now);
                        match self.calling(of) {
                            Ok(calling) => {
                                self.keep(of, &calling);
                                let interrupt = CancellationToken::new();
                                self.interrupts.insert(of, interrupt.clone());
                                self.tasks.spawn(effects::step(calling, of, timeout, interrupt));
                            }
                            Err(reason) => {
                                let outcome = Outcome::Missing { reason };
                                self.tasks.spawn(std::future::ready(effects::performed(of, outcome)));
                            }
                        }
                    }
                    StepCall::Nothing
                    | StepCall::Wait { .. }
                    | StepCall::Service { .. }
                    | StepCall::Require { .. }
                    | StepCall::Verify { .. } => {
                        self.not_there(of, format!("{name} is the engine's own; this is a bug in lidless"));
                    }
                }
            }
            Effect::Confirm { run, step, attempt, call, intent_at, deadline, .. } => {
                let of = Attempt { run, step, attempt };
                let timeout = deadline.saturating_sub(now);
                match call {
                    StepCall::Act { service, action } => {
                        let actuator = self.drivers.actuator(self.name(service));
                        self.tasks.spawn(effects::confirm(actuator, of, action, intent_at, timeout));
                    }
                    StepCall::External { .. } => {
                        let calling = self.calling(of);
                        if let Ok(calling) = &calling {
                            self.keep(of, calling);
                        }
                        self.tasks.spawn(effects::confirm_step(calling, of, timeout));
                    }
                    StepCall::Nothing
                    | StepCall::Wait { .. }
                    | StepCall::Service { .. }
                    | StepCall::Require { .. }
                    | StepCall::Verify { .. } => {}
                }
            }
            Effect::Weigh { run, step, when } => {
                let holds = match self.engine.state().runs.get(&run) {
                    Some(run) => steps::weigh(run, &when, &self.outputs.of(run, step)),
                    None => return,
                };
                self.tasks.spawn(std::future::ready(Done::Input(Input::Weighed { run, step, holds })));
            }
            Effect::Interrupt { run, step, attempt } => {
                if let Some(interrupt) = self.interrupts.get(&Attempt { run, step, attempt }) {
                    interrupt.cancel();
                }
            }
            Effect::Deliver { notice } => {
                if let Some(message) = NoticeMessage::of(&self.engine, notice) {
                    if self.delivering >= DELIVERIES_MAX {
                        self.deliveries.push_back(notice);
                    } else {
                        self.delivering += 1;
                        tracing::warn!(notice = message.id, kind = message.kind, text = %message.text, "Notice.");
                        let taken = self.taken.get(&notice).cloned().unwrap_or_default();
                        self.tasks.spawn(effects::deliver(self.drivers.notifiers(), notice, message, taken));
                    }
                }
            }
        }
    }

    /// Remembers who has taken a message, and lets the next one go.
    pub(super) fn delivered(&mut self, notice: NoticeId, taken: BTreeSet<usize>, result: Result<(), String>) {
        self.delivering = self.delivering.saturating_sub(1);
        match &result {
            Ok(()) => drop(self.taken.remove(&notice)),
            Err(_) => drop(self.taken.insert(notice, taken)),
        }
        self.turn(Input::Delivered { notice, result });
        if let Some(next) = self.deliveries.pop_front() {
            self.perform(Effect::Deliver { notice: next });
        }
    }

    /// What an attempt at a step calls, from what its run has pinned.
    fn calling(&mut self, of: Attempt) -> Result<Calling, String> {
        let run = self.engine.state().runs.get(&of.run).ok_or("the run is over")?;
        steps::calling(run, of, self.outputs.of(run, of.step), &self.drivers, &self.messages)
    }

    /// Remembers what an attempt calls that may outlive us.
    fn keep(&mut self, of: Attempt, calling: &Calling) {
        if self.drivers.units.is_none() {
            return;
        }
        let kept = (Arc::clone(&calling.step), calling.call.clone());
        // Done once more without a word between: that it was is durable, and nobody asks about the one before.
        if let Some((step, call)) = self.kept.insert((of.run, of.step), kept)
            && call.attempt != of.attempt
        {
            self.tasks.spawn(effects::forget(step, call));
        }
    }

    /// Lets go of what was kept of an attempt once the journal holds what became of it; until then it may be asked for again.
    fn let_go(&mut self, record: &Record) {
        let settled = match &record.event {
            Event::StepOutcome { run, step, outcome, .. } if !matches!(outcome, Outcome::Unknown { .. }) => {
                Some((*run, *step))
            }
            Event::StepConfirmed { run, step, answer, .. }
                if !matches!(answer, Confirmation::StillUnknown { .. }) =>
            {
                Some((*run, *step))
            }
            Event::StepRetry { run, step, .. }
            | Event::StepResolved { run, step, .. }
            | Event::StepFailed { run, step, .. } => Some((*run, *step)),
            _ => None,
        };
        let kept = settled.filter(|_| record.seq <= self.durable).and_then(|of| self.kept.remove(&of));
        if let Some((step, call)) = kept {
            self.tasks.spawn(effects::forget(step, call));
        }
    }

    fn not_there(&mut self, of: Attempt, reason: String) {
        self.tasks.spawn(std::future::ready(effects::performed(of, Outcome::Unavailable { reason })));
    }
}

/// Takes what the writer's thread says.
pub(super) fn tell(news: &(Mutex<WriterNews>, Notify), event: WriterEvent) {
    let mut told = news.0.lock().unwrap_or_else(PoisonError::into_inner);
    match event {
        WriterEvent::Durable(seq) => told.durable = told.durable.max(seq),
        WriterEvent::Failed(err) => {
            tracing::error!(error = %err, "The journal cannot be written; healing goes on without it.");
            told.failed = Some(err.to_string());
        }
        WriterEvent::Recovered => told.failed = None,
        WriterEvent::Dropped { from, expected } => {
            // What is decided from here on stays in memory; the next lidless will not know of it.
            tracing::error!(%from, %expected, "Too much waits for the journal; records are dropped. Restart lidless.");
            told.lost = Some(format!("records from {from} on were dropped; restart lidless"));
        }
        WriterEvent::SnapshotSaved(seq) => tracing::debug!(%seq, "Snapshot saved."),
        WriterEvent::SnapshotFailed(err) => tracing::warn!(error = %err, "Snapshot not saved."),
    }
    drop(told);
    news.1.notify_one();
}
