//! What does lidless remember? The journal: every record that the engine decided, durable before anything acts on it.
//!
//! * [`Journal`] is the port; [`SqliteJournal`] keeps it on disk, [`MemoryJournal`] is the model that it is compared with.
//! * [`Writer`] owns a journal on its own thread and makes everything that waits durable with one fsync.
//! * [`SqliteReader`] and [`verify`] read beside a running daemon and change nothing.
//! * [`conformance`] holds the cases that every implementation passes, also behind a [`FaultJournal`].
//! * [`runstore`] is what several lidlesses share of their runs: leases, and an append that is fenced.
//!
//! Everything here is synchronous.

pub mod conformance;
mod desk;
mod error;
mod fault;
mod filing;
mod journal;
mod memory;
pub mod runstore;
mod sqlite;
mod writer;

pub use error::{Holder, JournalError};
pub use fault::{Fault, FaultJournal, FaultPlan};
pub use filing::kind;
pub use journal::Journal;
pub use memory::{MemoryDisk, MemoryJournal};
pub use sqlite::{
    EventFilter, Problem, SCHEMA_VERSION, SqliteJournal, SqliteReader, VerifyError, VerifyReport, verify,
};
pub use writer::{CloseError, SubmitError, Writer, WriterEvent, WriterOptions};
