//! Who waits for the disk? One thread that owns the journal, and makes all that has queued up durable with one fsync.
//!
//! While the disk is full or failing the records wait in memory, in order, and are written when it recovers: what was
//! submitted is lost only with the process. The wait is bounded. **Invariant:** what the writer keeps has no gaps: when
//! the backlog is full, the newest records go, and all after them, until a batch continues what was kept. Dropping older
//! or "less important" ones would leave a journal that no replay accepts.

use std::io;
use std::mem::{self, Discriminant};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lidless_core::event::Record;
use lidless_core::id::Seq;

use crate::{Journal, JournalError};

/// The most records in one transaction: it bounds the log's growth when a long backlog is written.
const BATCH_MAX: usize = 8192;

/// How long dropping a [`Writer`] waits, where nobody called [`Writer::close`].
const DROP_WAIT_MAX: Duration = Duration::from_secs(5);

/// Opens the journal again after it failed. The old handle, and its lock, are gone by then.
pub type Reopen = Box<dyn FnMut() -> Result<Box<dyn Journal>, JournalError> + Send>;

/// The writer's limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriterOptions {
    /// Batches that may be queued before [`Writer::submit`] waits.
    pub queue_max: usize,
    /// Records kept in memory while the journal cannot be written.
    pub backlog_max: usize,
    /// The wait before a failed write is tried again.
    pub retry_every: Duration,
}

impl Default for WriterOptions {
    fn default() -> Self {
        WriterOptions { queue_max: 1024, backlog_max: 100_000, retry_every: Duration::from_secs(1) }
    }
}

/// What the writer has to say. It comes on the writer's own thread: the receiver must not block it.
#[derive(Debug)]
pub enum WriterEvent {
    /// Every record up to this one is on the disk.
    Durable(Seq),
    /// The journal cannot be written; said once for each kind of trouble. The records wait.
    Failed(JournalError),
    /// The journal is written again, and nothing waits any more.
    Recovered,
    /// A snapshot is on the disk.
    SnapshotSaved(Seq),
    /// A snapshot was not kept. Nothing is lost by it, and it is not tried again: the next one will do.
    SnapshotFailed(JournalError),
    /// Records were not kept, because the backlog is full or because they don't continue the journal; said once until a
    /// batch is taken again. The engine must be restored from the journal.
    Dropped {
        /// The first that was not kept.
        from: Seq,
        /// What would continue the journal.
        expected: Seq,
    },
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The writer's thread has ended.
    #[error("the journal's writer has ended")]
    Gone(Vec<Record>),
    /// The queue is full; only [`Writer::try_submit`] says so.
    #[error("the journal's writer is behind")]
    Busy(Vec<Record>),
}

/// Why not everything is durable at the end.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The journal cannot be written. Why was said in [`WriterEvent::Failed`].
    #[error("{records} records from {from} on could not be made durable")]
    NotDurable {
        /// How many.
        records: usize,
        /// The first of them.
        from: Seq,
    },
    /// The disk did not answer in time.
    #[error("the journal's writer did not end within {} s", waited.as_secs_f32())]
    Deadline {
        /// How long it was given.
        waited: Duration,
    },
    /// The writer's thread panicked: a bug of ours.
    #[error("the journal's writer panicked")]
    Panicked,
}

enum Order {
    Append(Vec<Record>),
    Snapshot(Seq, Vec<u8>),
}

/// A journal on its own thread.
#[derive(Debug)]
pub struct Writer {
    orders: Option<SyncSender<Order>>,
    // In a mutex only so that the writer can be shared between threads.
    done: Mutex<Receiver<Result<(), CloseError>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    pub fn spawn(
        journal: Box<dyn Journal>,
        reopen: Reopen,
        options: WriterOptions,
        on_event: impl FnMut(WriterEvent) + Send + 'static,
    ) -> io::Result<Writer> {
        let (orders, inbox) = mpsc::sync_channel(options.queue_max);
        let (report, done) = mpsc::sync_channel(1);
        let mut desk = Desk {
            journal: Some(journal),
            reopen,
            options,
            on_event: Box::new(on_event),
            backlog: Vec::new(),
            snapshot: None,
            expected: None,
            dropping: false,
            trouble: None,
            retry_at: Instant::now(),
        };
        let thread = thread::Builder::new().name("lidless-journal".into()).spawn(move || {
            // Nobody may be listening any more; then nobody needs the answer.
            let _ = report.send(desk.work(&inbox));
        })?;
        Ok(Writer { orders: Some(orders), done: Mutex::new(done), thread: Some(thread) })
    }

    /// Queues a batch that continues the one before. Waits while the queue is full: that long the disk has not answered.
    pub fn submit(&self, records: Vec<Record>) -> Result<(), SubmitError> {
        match self.send(Order::Append(records)) {
            Err(Order::Append(records)) => Err(SubmitError::Gone(records)),
            Err(Order::Snapshot(..)) | Ok(()) => Ok(()),
        }
    }

    /// Queues a batch, or gives it back at once where the queue is full.
    pub fn try_submit(&self, records: Vec<Record>) -> Result<(), SubmitError> {
        let Some(orders) = &self.orders else { return Err(SubmitError::Gone(records)) };
        match orders.try_send(Order::Append(records)) {
            Err(TrySendError::Full(Order::Append(records))) => Err(SubmitError::Busy(records)),
            Err(TrySendError::Disconnected(Order::Append(records))) => Err(SubmitError::Gone(records)),
            Err(
                TrySendError::Full(Order::Snapshot(..)) | TrySendError::Disconnected(Order::Snapshot(..)),
            )
            | Ok(()) => Ok(()),
        }
    }

    /// Queues a snapshot behind the batches submitted so far. Where several wait, only the newest is written.
    pub fn snapshot(&self, at: Seq, state: Vec<u8>) -> Result<(), SubmitError> {
        self.send(Order::Snapshot(at, state)).map_err(|_| SubmitError::Gone(Vec::new()))
    }

    /// Makes everything durable, ends the thread and joins it, within `wait_max`.
    pub fn close(mut self, wait_max: Duration) -> Result<(), CloseError> {
        self.finish(wait_max)
    }

    fn send(&self, order: Order) -> Result<(), Order> {
        match &self.orders {
            Some(orders) => orders.send(order).map_err(|refused| refused.0),
            None => Err(order),
        }
    }

    fn finish(&mut self, wait_max: Duration) -> Result<(), CloseError> {
        // The thread ends when nobody can send any more and all is written.
        self.orders = None;
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let result = match self.done.get_mut().unwrap_or_else(PoisonError::into_inner).recv_timeout(wait_max)
        {
            Ok(result) => result,
            // It hangs in the kernel: nobody can join it.
            Err(RecvTimeoutError::Timeout) => return Err(CloseError::Deadline { waited: wait_max }),
            Err(RecvTimeoutError::Disconnected) => Err(CloseError::Panicked),
        };
        let joined = thread.join().map_err(|_| CloseError::Panicked);
        result.and(joined)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Whoever wants to know calls `close`.
        let _ = self.finish(DROP_WAIT_MAX);
    }
}

/// The thread's state.
struct Desk {
    /// None after a failure that needs a new handle.
    journal: Option<Box<dyn Journal>>,
    reopen: Reopen,
    options: WriterOptions,
    on_event: Box<dyn FnMut(WriterEvent) + Send>,
    /// What is not durable yet, without gaps.
    backlog: Vec<Record>,
    snapshot: Option<(Seq, Vec<u8>)>,
    /// What continues the journal and the backlog; none until the journal was asked.
    expected: Option<Seq>,
    dropping: bool,
    trouble: Option<Discriminant<JournalError>>,
    retry_at: Instant,
}

impl Desk {
    fn work(&mut self, inbox: &Receiver<Order>) -> Result<(), CloseError> {
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
            return self.refuse(first, expected);
        }
        // The batch is kept whole or not at all: a turn that is half in the journal never happened.
        if self.trouble.is_some() && self.backlog.len() + records.len() > self.options.backlog_max {
            return self.refuse(first, expected);
        }
        self.dropping = false;
        self.expected = records.last().map(|record| record.seq.next());
        self.backlog.extend(records);
    }

    fn refuse(&mut self, from: Seq, expected: Seq) {
        if !mem::replace(&mut self.dropping, true) {
            (self.on_event)(WriterEvent::Dropped { from, expected });
        }
    }

    /// Writes what waits. The first failure that needs a new handle is tried again at once, the next ones after a wait.
    fn write(&mut self) {
        let untroubled = self.trouble.is_none();
        if let Err(err) = self.write_once() {
            let again = untroubled && self.journal.is_none();
            self.fail(err);
            if again && let Err(err) = self.write_once() {
                self.fail(err);
            }
        }
    }

    fn write_once(&mut self) -> Result<(), JournalError> {
        while self.journal.is_none() || !self.backlog.is_empty() {
            let count = self.backlog.len().min(BATCH_MAX);
            let batch = &self.backlog[..count];
            let journal = match &mut self.journal {
                Some(journal) => journal,
                None => self.journal.insert((self.reopen)()?),
            };
            // What an earlier try left there is compared and skipped: an append can be repeated.
            match journal.append(batch) {
                Ok(_) if count == 0 => {}
                Ok(seq) => {
                    self.backlog.drain(..count);
                    (self.on_event)(WriterEvent::Durable(seq));
                }
                Err(err) => {
                    if matches!(err, JournalError::OutOfSequence { .. } | JournalError::Conflict { .. }) {
                        self.drop_backlog();
                    }
                    if !err.is_retryable() {
                        self.journal = None;
                    }
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

    /// Gives up what can never be written: somebody else has changed the journal meanwhile.
    fn drop_backlog(&mut self) {
        let from = self.backlog.first().map_or(Seq(0), |record| record.seq);
        self.backlog.clear();
        self.expected = self.ask_last();
        self.refuse(from, self.expected.unwrap_or(from));
    }

    fn save_snapshot(&mut self) {
        let Some((at, state)) = self.snapshot.take() else { return };
        let Some(journal) = &mut self.journal else { return };
        match journal.save_snapshot(at, &state) {
            Ok(()) => (self.on_event)(WriterEvent::SnapshotSaved(at)),
            Err(err) => (self.on_event)(WriterEvent::SnapshotFailed(err)),
        }
    }

    fn tidy(&mut self) -> Result<(), JournalError> {
        match self.journal.as_mut().map(|journal| journal.tidy()) {
            // Only housekeeping: on a full disk the next append will say so, and a reader in the way goes away.
            None | Some(Ok(()) | Err(JournalError::Full { .. } | JournalError::Locked { .. })) => Ok(()),
            Some(Err(err)) => {
                self.journal = None;
                Err(err)
            }
        }
    }

    fn ask_last(&mut self) -> Option<Seq> {
        // Where this fails, the first append will fail too, and be dealt with.
        let last = self.journal.as_mut()?.last().ok()?;
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
        match self.backlog.first() {
            None => Ok(()),
            Some(first) => Err(CloseError::NotDurable { records: self.backlog.len(), from: first.seq }),
        }
    }
}
