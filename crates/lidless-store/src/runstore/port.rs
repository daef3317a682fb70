//! What must a run store do? Hand out leases that fence, append in slots, and give back what it has.

use std::time::Duration;

use lidless_core::id::Seq;

use super::error::{AcquireError, AppendError, LeaseError, ReadError, StoreError, WatchError};
use super::record::{Batch, Epoch, Lease, LogPage, Owner, Revision, RunFilter, RunKey, RunPage, WatchPage};

/// What the lidlesses of a fleet, or the processes of one machine, know together of their runs.
///
/// **Invariant:** a run's log has no gaps, only grows, and only by who holds its lease at that moment; a batch is there
/// whole or not at all; what was acknowledged is there after any crash.
///
/// A handle is for one thread; any number of them may use the same store. Every call ends within a bounded time. For etcd
/// this is one transaction a call: the epoch is the `create_revision` of the owner's key, which a lease keeps; an append
/// compares it, the run's state and its last slot; a watch reads by `create_revision` and waits by a watch from there.
pub trait RunStore: Send {
    /// Takes the run's lease for `owner`, if it is free or over. An owner who has it already is given a new epoch.
    ///
    /// The run need not exist: it begins with its first record.
    fn acquire(&mut self, run: &RunKey, owner: &Owner, ttl: Duration) -> Result<Lease, AcquireError>;

    /// Lets the lease last for its time again, from now on, and returns that time.
    fn renew(&mut self, run: &RunKey, epoch: Epoch) -> Result<Duration, LeaseError>;

    /// Gives the lease back, so that another need not wait for its end.
    fn release(&mut self, run: &RunKey, epoch: Epoch) -> Result<(), LeaseError>;

    /// Appends a batch and returns its last slot. `Ok` means durable; all of it or none.
    fn append(&mut self, batch: &Batch) -> Result<Seq, AppendError>;

    /// Returns up to `limit` records of a run from slot `from` on, and as many as fit a page. No run is an empty one.
    fn read(&mut self, run: &RunKey, from: Seq, limit: usize) -> Result<LogPage, ReadError>;

    /// Returns up to `limit` runs after the key `after`.
    fn list(
        &mut self,
        filter: RunFilter,
        after: Option<&RunKey>,
        limit: usize,
    ) -> Result<RunPage, StoreError>;

    /// Returns about `limit` records of all runs from revision `from` on. Where there is none yet, it waits for one, for
    /// `patience` at most.
    ///
    /// Whoever goes on with a page's `next` gets every record once, in order.
    fn watch(&mut self, from: Revision, limit: usize, patience: Duration) -> Result<WatchPage, WatchError>;

    /// Removes the records of every run that has ended at or before `watermark`, and returns the watermark that holds.
    ///
    /// What goes on is kept whole, for whoever takes it over. That a run has ended is never forgotten: its trigger may
    /// fire again. After an error some may be removed; the same may be asked again.
    fn trim(&mut self, watermark: Revision) -> Result<Revision, StoreError>;
}

impl<S: RunStore + ?Sized> RunStore for Box<S> {
    fn acquire(&mut self, run: &RunKey, owner: &Owner, ttl: Duration) -> Result<Lease, AcquireError> {
        (**self).acquire(run, owner, ttl)
    }

    fn renew(&mut self, run: &RunKey, epoch: Epoch) -> Result<Duration, LeaseError> {
        (**self).renew(run, epoch)
    }

    fn release(&mut self, run: &RunKey, epoch: Epoch) -> Result<(), LeaseError> {
        (**self).release(run, epoch)
    }

    fn append(&mut self, batch: &Batch) -> Result<Seq, AppendError> {
        (**self).append(batch)
    }

    fn read(&mut self, run: &RunKey, from: Seq, limit: usize) -> Result<LogPage, ReadError> {
        (**self).read(run, from, limit)
    }

    fn list(
        &mut self,
        filter: RunFilter,
        after: Option<&RunKey>,
        limit: usize,
    ) -> Result<RunPage, StoreError> {
        (**self).list(filter, after, limit)
    }

    fn watch(&mut self, from: Revision, limit: usize, patience: Duration) -> Result<WatchPage, WatchError> {
        (**self).watch(from, limit, patience)
    }

    fn trim(&mut self, watermark: Revision) -> Result<Revision, StoreError> {
        (**self).trim(watermark)
    }
}
