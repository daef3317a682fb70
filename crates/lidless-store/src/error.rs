//! What can go wrong with a journal, and what should be done about it?

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use lidless_core::id::Seq;

/// Why a journal could not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another lidless has it, or a reader stands in the way for too long.
    #[error("journal `{}` is in use by {holder}", path.display())]
    Locked {
        /// Which journal.
        path: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// The disk is full. Nothing of the batch was kept; the same handle may be tried again.
    #[error("no space left on the disk of journal `{}`", path.display())]
    Full {
        /// Which journal.
        path: PathBuf,
    },
    /// The disk failed. The outcome of an append is unknown, and the handle answers nothing else until it is reopened.
    #[error("cannot {action} journal `{}`", path.display())]
    Io {
        /// Which journal.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// What is there is not what was written.
    #[error("journal `{}` is corrupt{}: {why}", path.display(), at(*seq))]
    Corrupt {
        /// Which journal.
        path: PathBuf,
        /// The first record that cannot be trusted, where that is known.
        seq: Option<Seq>,
        /// What is wrong with it.
        why: String,
    },
    /// The end is missing.
    #[error("journal `{}` is truncated: {what}", path.display())]
    Truncated {
        /// Which journal.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// A newer lidless wrote it.
    #[error("journal `{}` has schema version {found}, and this lidless knows up to {known}", path.display())]
    SchemaTooNew {
        /// Which journal.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest that is understood.
        known: i64,
    },
    /// A record does not continue the journal. Nothing was kept.
    #[error("journal `{}` goes on with record {expected}, not {got}", path.display())]
    OutOfSequence {
        /// Which journal.
        path: PathBuf,
        /// What may come.
        expected: Seq,
        /// What came.
        got: Seq,
    },
    /// The journal holds another record at this position. Nothing was kept.
    #[error("journal `{}` already holds another record {seq}", path.display())]
    Conflict {
        /// Which journal.
        path: PathBuf,
        /// Which position.
        seq: Seq,
    },
    /// Nobody knows whether the batch is durable. The caller reopens, and appends it again: what is there is skipped.
    #[error("it is unknown whether journal `{}` kept the last batch", path.display())]
    AckLost {
        /// Which journal.
        path: PathBuf,
    },
    /// There is no such file.
    #[error("there is no journal at `{}`", path.display())]
    NotFound {
        /// Which path.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("`{}` is not a journal of lidless", path.display())]
    NotAJournal {
        /// Which path.
        path: PathBuf,
    },
    /// The file system or the file may not be written.
    #[error("journal `{}` is read-only", path.display())]
    ReadOnly {
        /// Which journal.
        path: PathBuf,
    },
    /// This user may not.
    #[error("no permission for journal `{}`", path.display())]
    Permission {
        /// Which journal.
        path: PathBuf,
    },
    /// A record has no JSON form: a bug of ours.
    #[error("record {seq} cannot be encoded for journal `{}`", path.display())]
    Encode {
        /// Which journal.
        path: PathBuf,
        /// Which record.
        seq: Seq,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
}

/// Who has a journal, as far as its lock file says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Holder {
    /// The process; none where the lock file could not say.
    pub pid: Option<u32>,
    /// When it took the lock, in milliseconds since the Unix epoch.
    pub since_ms: Option<i64>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}

impl JournalError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            JournalError::Locked { .. } => {
                Some("one lidless per journal: stop the other one, or give this one its own state directory")
            }
            JournalError::Full { .. } => {
                Some("free space on that disk; what waits in memory is written as soon as there is some")
            }
            JournalError::Io { .. } => {
                Some("look at the kernel log for disk errors; lidless reopens the journal and checks it")
            }
            JournalError::Corrupt { .. } | JournalError::Truncated { .. } => Some(
                "run `lidless store verify`; move the file away to begin a new journal, and keep it as evidence (a backup that \
                 was put back is older than the `.mark` beside it: remove that)",
            ),
            JournalError::SchemaTooNew { .. } => {
                Some("run the version of lidless that wrote it, or a newer one")
            }
            JournalError::OutOfSequence { .. } | JournalError::Conflict { .. } => {
                Some("the journal was changed by somebody else; restart lidless so that it reads it afresh")
            }
            JournalError::AckLost { .. } => {
                Some("lidless reads the journal again and repeats what is missing")
            }
            JournalError::NotFound { .. } => {
                Some("is the state directory right? `lidless serve` creates the journal")
            }
            JournalError::NotAJournal { .. } => {
                Some("the path names another file; nothing was changed in it")
            }
            JournalError::ReadOnly { .. } => {
                Some("remount the file system for writing, or choose another state directory")
            }
            JournalError::Permission { .. } => {
                Some("the journal belongs to the user that runs lidless; run this as that user")
            }
            JournalError::Encode { .. } => None,
        }
    }

    /// Returns whether the same handle may be tried again.
    pub fn is_retryable(&self) -> bool {
        matches!(self, JournalError::Full { .. })
    }

    /// Sorts an error of the file system by what it means for the journal at `path`.
    pub(crate) fn from_io(path: &Path, action: &'static str, err: std::io::Error) -> JournalError {
        let path = path.to_owned();
        match err.kind() {
            std::io::ErrorKind::PermissionDenied => JournalError::Permission { path },
            std::io::ErrorKind::ReadOnlyFilesystem => JournalError::ReadOnly { path },
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                JournalError::Full { path }
            }
            std::io::ErrorKind::NotFound => JournalError::NotFound { path },
            _ => JournalError::Io { path, action, source: Box::new(err) },
        }
    }
}

fn at(seq: Option<Seq>) -> String {
    seq.map_or_else(String::new, |seq| format!(" at record {seq}"))
}
