//! Who waits for the disk? One thread that owns the journal, and makes all that has queued up durable with one fsync.
//!
//! While the disk is full or failing the records wait in memory, in order, and are written when it recovers: what was
//! submitted is lost only with the process. The wait is bounded. What the thread does with a batch: `desk`.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lidless_core::event::Record;
use lidless_core::id::Seq;

use crate::desk::Desk;
use crate::{Journal, JournalError};

/// How long dropping a [`Writer`] waits, where nobody called [`Writer::close`].
const DROP_WAIT_MAX: Duration = Duration::from_secs(5);

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

/// What the thread is told.
pub(crate) enum Order {
    /// Write this.
    Append(Vec<Record>),
    /// Then keep this state, as of that record.
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
        options: WriterOptions,
        on_event: impl FnMut(WriterEvent) + Send + 'static,
    ) -> io::Result<Writer> {
        let (orders, inbox) = mpsc::sync_channel(options.queue_max);
        let (report, done) = mpsc::sync_channel(1);
        let mut desk = Desk::new(journal, options, on_event);
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
