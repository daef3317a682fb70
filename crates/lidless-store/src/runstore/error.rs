//! What can go wrong with a run store, what was changed then, and what should be done about it?

use std::error::Error;
use std::fmt;

use lidless_core::id::Seq;

use super::record::{Owner, Revision, RunKey};
use crate::JournalError;

/// The store did not do it. Nothing was changed, unless an operation says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no space left; the same may be tried again.
    #[error("no space left for run store `{store}`")]
    Full {
        /// Which store.
        store: String,
    },
    /// Others use it for too long; the same may be tried again.
    #[error("run store `{store}` is kept busy by another process")]
    Busy {
        /// Which store.
        store: String,
    },
    /// It cannot be reached, or its disk failed; the same may be tried again.
    #[error("cannot {action} run store `{store}`")]
    Unavailable {
        /// Which store.
        store: String,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// What is there is not what was written.
    #[error("run store `{store}` is corrupt{place}: {why}")]
    Corrupt {
        /// Which store.
        store: String,
        /// Where, as far as that is known.
        place: Place,
        /// What is wrong.
        why: String,
    },
    /// A newer lidless wrote it.
    #[error("run store `{store}` has schema version {found}, and this lidless knows up to {known}")]
    SchemaTooNew {
        /// Which store.
        store: String,
        /// Its version.
        found: i64,
        /// The newest that is understood.
        known: i64,
    },
    /// It is something else.
    #[error("`{store}` is not a run store of lidless")]
    NotARunStore {
        /// Which path.
        store: String,
    },
    /// It may not be written.
    #[error("run store `{store}` is read-only")]
    ReadOnly {
        /// Which store.
        store: String,
    },
    /// This user may not.
    #[error("no permission for run store `{store}`")]
    Permission {
        /// Which store.
        store: String,
    },
}

/// A record of a run, as far as it is known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// Which run.
    pub run: Option<String>,
    /// Which record.
    pub seq: Option<Seq>,
}

impl Place {
    /// Names a record.
    pub(super) fn record(run: &RunKey, seq: Seq) -> Self {
        Place { run: Some(run.to_string()), seq: Some(seq) }
    }

    /// Names a run.
    pub(super) fn run(run: &str) -> Self {
        Place { run: Some(run.to_owned()), seq: None }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(seq) = self.seq {
            write!(f, " at record {seq}")?;
        }
        match &self.run {
            Some(run) => write!(f, " of run `{run}`"),
            None => Ok(()),
        }
    }
}

impl StoreError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            StoreError::Full { .. } => "free space there; runs go on by themselves when there is some",
            StoreError::Busy { .. } => {
                "is another lidless stopped (SIGSTOP, a debugger) while it writes? let it go on, or end it"
            }
            StoreError::Unavailable { .. } => "look at the kernel log for disk errors; runs wait meanwhile",
            StoreError::Corrupt { .. } => {
                "stop every lidless that uses it and keep the file as evidence; runs in it must be looked at by a person"
            }
            StoreError::SchemaTooNew { .. } => "run the version of lidless that wrote it, or a newer one",
            StoreError::NotARunStore { .. } => "the path names another file; nothing was changed in it",
            StoreError::ReadOnly { .. } => "remount the file system for writing, or choose another path",
            StoreError::Permission { .. } => {
                "it belongs to the user that runs lidless; run this as that user"
            }
        }
    }

    /// Returns whether the same may be tried again.
    pub fn is_retryable(&self) -> bool {
        match self {
            StoreError::Full { .. } | StoreError::Busy { .. } | StoreError::Unavailable { .. } => true,
            StoreError::Corrupt { .. }
            | StoreError::SchemaTooNew { .. }
            | StoreError::NotARunStore { .. }
            | StoreError::ReadOnly { .. }
            | StoreError::Permission { .. } => false,
        }
    }

    /// Says of a run store what was found out with the means of the journal.
    pub(super) fn from_journal(err: JournalError) -> StoreError {
        let store = |path: std::path::PathBuf| path.display().to_string();
        match err {
            JournalError::Full { path } => StoreError::Full { store: store(path) },
            JournalError::Locked { path, .. } => StoreError::Busy { store: store(path) },
            JournalError::Io { path, action, source } => {
                StoreError::Unavailable { store: store(path), action, source }
            }
            JournalError::Corrupt { path, why, .. } => {
                StoreError::Corrupt { store: store(path), place: Place::default(), why }
            }
            JournalError::Truncated { path, what } => {
                StoreError::Corrupt { store: store(path), place: Place::default(), why: what }
            }
            JournalError::SchemaTooNew { path, found, known } => {
                StoreError::SchemaTooNew { store: store(path), found, known }
            }
            JournalError::NotAJournal { path } => StoreError::NotARunStore { store: store(path) },
            JournalError::ReadOnly { path } => StoreError::ReadOnly { store: store(path) },
            JournalError::Permission { path } => StoreError::Permission { store: store(path) },
            // What opening and asking SQLite cannot come to.
            JournalError::OutOfSequence { ref path, .. }
            | JournalError::Conflict { ref path, .. }
            | JournalError::AckLost { ref path }
            | JournalError::NotFound { ref path }
            | JournalError::Encode { ref path, .. } => {
                StoreError::Unavailable { store: store(path.clone()), action: "use", source: Box::new(err) }
            }
        }
    }
}

/// Why a run was not acquired.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// Somebody drives it.
    #[error("the run is driven by `{by}`")]
    Held {
        /// Who.
        by: Owner,
    },
    /// It is over.
    #[error("the run has ended")]
    Ended,
    /// Nobody knows whether it was acquired. The owner asks again, and is given a new epoch.
    #[error("it is unknown whether the run was acquired")]
    Unknown,
    /// It was not.
    #[error(transparent)]
    Failed(#[from] StoreError),
}

/// Why a lease was not renewed or released.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// It is over, or somebody else's: whoever had it must stop.
    #[error("the lease is lost")]
    Lost,
    /// Nobody knows whether it was done; the same may be asked again.
    #[error("it is unknown whether the lease was changed")]
    Unknown,
    /// It was not.
    #[error(transparent)]
    Failed(#[from] StoreError),
}

/// Why a batch was not appended.
///
/// Where several are true, the first of `Unfit`, `Fenced`, `Ended`, and then the slot's is said.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// No store takes such a batch: a bug of the caller.
    #[error("the batch is unfit: {why}")]
    Unfit {
        /// Why.
        why: &'static str,
    },
    /// The lease is over, or somebody else's. No append with this epoch will ever succeed.
    #[error("the lease of the run is lost")]
    Fenced,
    /// The run is over.
    #[error("the run has ended")]
    Ended,
    /// There is a record in the slot already: perhaps this very one.
    #[error("the slot is taken: the run ends at record {last}")]
    SeqTaken {
        /// The run's last record.
        last: Seq,
    },
    /// The slot before is empty: a bug of the caller, who is the only one to append.
    #[error("the slot does not continue the run, which ends at record {last}")]
    Gap {
        /// The run's last record.
        last: Seq,
    },
    /// The run has ended and its records were trimmed: whether the batch was among them, nobody can say any more, and the
    /// run needs nothing more. Only [`super::append_settled`] says so.
    #[error("the run has ended, and its records were trimmed")]
    Compacted,
    /// Nobody knows whether it was appended, or will be. The caller reads the slot: see [`super::append_settled`].
    #[error("it is unknown whether the batch was appended")]
    Unknown,
    /// It was not.
    #[error(transparent)]
    Failed(#[from] StoreError),
}

/// Why the log of a run was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The run has ended, and its records were trimmed.
    #[error("the records of the run were trimmed")]
    Compacted,
    /// The store failed.
    #[error(transparent)]
    Failed(#[from] StoreError),
}

/// Why a watch cannot go on. After both that are not failures, the watcher lists and reads the runs, and begins afresh.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Records from there on may have been trimmed.
    #[error("records up to revision {} may have been trimmed", first.0.saturating_sub(1))]
    Compacted {
        /// From where nothing was trimmed.
        first: Revision,
    },
    /// The store has not come so far: it is older than what the watcher has seen, as after a backup was put back.
    #[error("the store ends at revision {}, before the one asked for", last.0)]
    Ahead {
        /// Where the store ends.
        last: Revision,
    },
    /// The store failed.
    #[error(transparent)]
    Failed(#[from] StoreError),
}
