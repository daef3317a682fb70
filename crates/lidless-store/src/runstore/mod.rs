//! Who drives a run, and what has become of it? Leases that fence, and an append that says when it does not know.
//!
//! The [journal](crate::Journal) is the memory of one lidless; a run store is what several share, so that a run whose
//! owner died is taken over by another, and the one who merely slept cannot write any more.
//!
//! * [`RunStore`] is the port; `record` has what is kept, `error` why something was not
//! * [`append_settled`] turns [`AppendError::Unknown`] into yes or no
//! * [`MemoryRunStore`] is the model, [`SqliteRunStore`] keeps the runs of one machine in a file of its own
//! * [`FaultStore`] makes either fail as a [`FaultScript`] says; [`conformance`] holds the cases that all of them pass
//!
//! Not here: the ledger. It is a fold of the runs' records on each host, and no business of the store that is shared.

mod clock;
pub mod conformance;
mod error;
mod fault;
mod memory;
mod port;
mod record;
mod settle;
mod sqlite;

pub use clock::{BootClock, LeaseClock, LeaseTime, ManualClock};
pub use error::{AcquireError, AppendError, LeaseError, ReadError, StoreError, WatchError};
pub use fault::{Fault, FaultScript, FaultStore};
pub use memory::{MemoryRunDisk, MemoryRunStore};
pub use port::RunStore;
pub use record::{
    BATCH_MAX, BODY_BYTES_MAX, Batch, Entry, Epoch, Lease, LeaseView, LogPage, LogRecord, NameError, Owner,
    PAGE_MAX, RecordId, Revision, RunFilter, RunHead, RunKey, RunPage, RunState, WatchPage,
};
pub use settle::{Patience, append_settled};
pub use sqlite::SqliteRunStore;
