//! What becomes of a batch that was handed to the writer's thread? It is written whole, in order, once the disk takes it.
//!
//! **Invariant:** what is kept has no gaps: when the backlog is full, the newest records go, and all after them, until a
//! batch continues what was kept. Dropping older or "less important" ones would leave a journal that no replay accepts.

use std::collections::VecDeque;
use std::mem::{self, Discriminant};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Instant;

use lidless_core::event::Record;
use lidless_core::id::Seq;

use crate::writer::{CloseError, Order, WriterEvent, WriterOptions};
use crate::{Journal, JournalError};

/// The most records in one transaction: it bounds the log's growth when a long backlog is written.
const BATCH_MAX: usize = 8192;

/// The thread's state.
pub(crate) struct Desk {
    journal: Box<dyn Journal>,
    /// After a failure: it must be reopened before it is trusted with anything.
    in_doubt: bool,
    options: WriterOptions,
    on_event: Box<dyn FnMut(WriterEvent) + Send>,
    /// What is not durable yet, without gaps.
    backlog: Vec<Record>,
    /// How many records each batch of the backlog has. **Invariant:** a batch is written whole: half a turn never happened.
    batches: VecDeque<usize>,
    snapshot: Option<(Seq, Vec<u8>)>,
    /// What continues the journal and the backlog; none until the journal was asked.
    expected: Option<Seq>,
    /// Records that were not kept since a batch was last taken: the first, and how many.
    dropped: Option<(Seq, usize)>,
    trouble: Option<Discriminant<JournalError>>,
    retry_at: Instant,
}

impl Desk {
    /// Sits down with a journal.
    pub(crate) fn new(
        journal: Box<dyn Journal>,
        options: WriterOptions,
        on_event: impl FnMut(WriterEvent) + Send + 'static,
    ) -> Desk {
        Desk {
            journal,
            in_doubt: false,
            options,
            on_event: Box::new(on_event),
            backlog: Vec::new(),
            batches: VecDeque::new(),
            snapshot: None,
            expected: None,
            dropped: None,
            trouble: None,
            retry_at: Instant::now(),
        }
    }

    /// Works until nobody can send any more, and says what could not be kept.
    pub(crate) fn work(&mut self, inbox: &Receiver<Order>) -> Result<(), CloseError> {
        self.expected = self.ask_last();
        loop {
            let open = self.receive(inbox);
            if self.trouble.is_none() || !open || Instant::now() >= self.retry_at {
                self.write();
            }
            if !open {
                return self.end();
            }
        }
    }

    /// Waits for an order or for the time of the next try, and takes all there is; false when nobody can send any more.
    fn receive(&mut self, inbox: &Receiver<Order>) -> bool {
        let first = match self.trouble {
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(_) => inbox.recv_timeout(self.retry_at.saturating_duration_since(Instant::now())),
        };
        match first {
            Ok(order) => self.take(order),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        // Bounded, so that fast senders can't keep the writer from writing.
        for _ in 0..self.options.queue_max {
            match inbox.try_recv() {
                Ok(order) => self.take(order),
                Err(mpsc::TryRecvError::Empty | mpsc::TryRecvError::Disconnected) => break,
            }
        }
        true
    }

    fn take(&mut self, order: Order) {
        let records = match order {
            Order::Append(records) => records,
            Order::Snapshot(at, state) => {
                self.snapshot = Some((at, state));
                return;
            }
        };
        let Some(first) = records.first().map(|record| record.seq) else { return };
        let expected = self.expected.unwrap_or(first);
        let gapless = records.windows(2).all(|pair| pair[1].seq == pair[0].seq.next());
        if first != expected || !gapless {
            return self.refuse(first, expected, records.len());
        }
        // The batch is kept whole or not at all: a turn that is half in the journal never happened.
        if self.trouble.is_some() && self.backlog.len() + records.len() > self.options.backlog_max {
            return self.refuse(first, expected, records.len());
        }
        self.dropped = None;
        self.expected = records.last().map(|record| record.seq.next());
        self.batches.push_back(records.len());
        self.backlog.extend(records);
    }

    fn refuse(&mut self, from: Seq, expected: Seq, count: usize) {
        match &mut self.dropped {
            Some((_, dropped)) => *dropped += count,
            None => {
                self.dropped = Some((from, count));
                (self.on_event)(WriterEvent::Dropped { from, expected });
            }
        }
    }

    /// Writes what waits. The first failure that needs a new handle is tried again at once, the next ones after a wait.
    fn write(&mut self) {
        let untroubled = self.trouble.is_none();
        if let Err(err) = self.write_once() {
            let again = untroubled && self.in_doubt;
            self.fail(err);
            if again && let Err(err) = self.write_once() {
                self.fail(err);
            }
        }
    }

    fn write_once(&mut self) -> Result<(), JournalError> {
        if self.in_doubt {
            self.journal.reopen()?;
            self.in_doubt = false;
        }
        while !self.backlog.is_empty() {
            let count = self.next_transaction();
            // What an earlier try left there is compared and skipped: an append can be repeated.
            match self.journal.append(&self.backlog[..count]) {
                Ok(seq) => {
                    self.written(count);
                    (self.on_event)(WriterEvent::Durable(seq));
                }
                Err(err) => {
                    if matches!(err, JournalError::OutOfSequence { .. } | JournalError::Conflict { .. }) {
                        self.drop_backlog();
                    }
                    self.in_doubt = !err.is_retryable();
                    return Err(err);
                }
            }
        }
        if self.expected.is_none() {
            self.expected = self.ask_last();
        }
        if self.trouble.take().is_some() {
            (self.on_event)(WriterEvent::Recovered);
        }
        self.save_snapshot();
        self.tidy()
    }

    /// Whole batches, from the oldest on, up to about `BATCH_MAX` records.
    fn next_transaction(&self) -> usize {
        let mut count = 0;
        for batch in &self.batches {
            if count > 0 && count + batch > BATCH_MAX {
                break;
            }
            count += batch;
        }
        count
    }

    fn written(&mut self, count: usize) {
        self.backlog.drain(..count);
        let mut left = count;
        while left > 0 {
            left -= self.batches.pop_front().unwrap_or(left);
        }
    }

    /// Gives up what can never be written: somebody else has changed the journal meanwhile.
    fn drop_backlog(&mut self) {
        let from = self.backlog.first().map_or(Seq(0), |record| record.seq);
        let count = self.backlog.len();
        self.backlog.clear();
        self.batches.clear();
        self.expected = self.ask_last();
        self.refuse(from, self.expected.unwrap_or(from), count);
    }

    fn save_snapshot(&mut self) {
        let Some((at, state)) = self.snapshot.take() else { return };
        match self.journal.save_snapshot(at, &state) {
            Ok(()) => (self.on_event)(WriterEvent::SnapshotSaved(at)),
            Err(err) => (self.on_event)(WriterEvent::SnapshotFailed(err)),
        }
    }

    fn tidy(&mut self) -> Result<(), JournalError> {
        match self.journal.tidy() {
            // Only housekeeping: on a full disk the next append will say so, and a reader in the way goes away.
            Ok(()) | Err(JournalError::Full { .. } | JournalError::Locked { .. }) => Ok(()),
            Err(err) => {
                self.in_doubt = true;
                Err(err)
            }
        }
    }

    fn ask_last(&mut self) -> Option<Seq> {
        // Where this fails, the first append will fail too, and be dealt with.
        let last = self.journal.last().ok()?;
        Some(last.map_or(Seq(1), |(seq, _)| seq.next()))
    }

    fn fail(&mut self, err: JournalError) {
        self.retry_at = Instant::now() + self.options.retry_every;
        let kind = mem::discriminant(&err);
        if self.trouble.replace(kind) != Some(kind) {
            (self.on_event)(WriterEvent::Failed(err));
        }
    }

    fn end(&mut self) -> Result<(), CloseError> {
        let waiting = self.backlog.first().map(|first| (first.seq, self.backlog.len()));
        let dropped = self.dropped.map_or(0, |(_, count)| count);
        match waiting.or(self.dropped) {
            None => Ok(()),
            Some((from, _)) => {
                let records = waiting.map_or(0, |(_, count)| count) + dropped;
                Err(CloseError::NotDurable { records, from })
            }
        }
    }
}
