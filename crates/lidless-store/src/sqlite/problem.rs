//! What can a verification find, and how is it told?

use std::fmt;
use std::path::PathBuf;

use lidless_core::id::Seq;

use crate::JournalError;

/// What a verification found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerifyReport {
    /// Rows read.
    pub rows: u64,
    /// The first row's position.
    pub first: Option<Seq>,
    /// The last row's position.
    pub last: Option<Seq>,
    /// The hash of the last row: to be kept elsewhere by whoever fears a rewrite of the whole file.
    pub chain_head: [u8; 32],
    /// Snapshots that are sound.
    pub snapshots_ok: u64,
    /// What is wrong, in the order of the journal; empty means that all is well.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Problem {
    /// A bit flipped, or somebody edited the row.
    Changed {
        /// Which row.
        row: Seq,
    },
    /// The row's hash fits its content, and the next row (or the head) was written after another one.
    Rewritten {
        /// Which row.
        row: Seq,
    },
    /// The row is not found by its kind or service: an index is damaged.
    Unindexed {
        /// Which row.
        row: Seq,
    },
    /// A column that is derived from the body says something else.
    Column {
        /// Which row.
        row: Seq,
        /// Which column.
        column: &'static str,
    },
    /// The row can be read, but is no record.
    Undecodable {
        /// Which row.
        row: Seq,
        /// Why.
        why: String,
    },
    /// Rows were deleted.
    Missing {
        /// The first one missing.
        from: Seq,
        /// The last one missing.
        to: Seq,
    },
    /// The last rows were deleted.
    TailMissing {
        /// The first one missing.
        from: Seq,
        /// The last one missing, as the head says.
        to: Seq,
    },
    /// Rows that were acknowledged are in neither the file nor its write-ahead log.
    LogLost {
        /// The first one missing.
        from: Seq,
        /// The last one that was acknowledged.
        to: Seq,
        /// The log is there and damaged, not cut short or gone.
        damaged: bool,
    },
    /// There are rows after the last one that lidless wrote.
    Surplus {
        /// The first of them.
        from: Seq,
    },
    /// The file ends before its last page.
    CutShort {
        /// Its length.
        bytes: u64,
        /// How many pages its header names.
        pages_expected: u64,
        /// The first row that cannot be read; none where all rows were before the cut.
        row: Option<Seq>,
    },
    /// SQLite cannot find its way in the file.
    Malformed {
        /// The first row that cannot be read.
        row: Seq,
        /// What SQLite says.
        why: String,
    },
    /// A snapshot is of no use. Nothing is lost: start-up replays instead.
    Snapshot {
        /// At which row it was taken.
        at: Seq,
        /// What is wrong with it.
        why: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Changed { row } => {
                write!(f, "row {row} was changed: its hash does not match its content")
            }
            Problem::Rewritten { row } => {
                write!(
                    f,
                    "row {row} was rewritten: its own hash fits, but what follows was chained to another row"
                )
            }
            Problem::Unindexed { row } => {
                write!(f, "row {row} is not found by its kind or service: an index is damaged")
            }
            Problem::Column { row, column } => {
                write!(f, "row {row} was changed: its column `{column}` does not match its content")
            }
            Problem::Undecodable { row, why } => write!(f, "row {row} is no record: {why}"),
            Problem::Missing { from, to } if from == to => write!(f, "row {from} was deleted"),
            Problem::Missing { from, to } => write!(f, "rows {from} to {to} were deleted"),
            Problem::TailMissing { from, to } if from == to => {
                write!(f, "row {from} was deleted at the end: the journal's head names it as the last")
            }
            Problem::TailMissing { from, to } => {
                write!(
                    f,
                    "rows {from} to {to} were deleted at the end: the journal's head names {to} as the last"
                )
            }
            Problem::LogLost { from, to, damaged: true } => write!(
                f,
                "the write-ahead log is damaged: rows {from} to {to} were acknowledged and cannot be read"
            ),
            Problem::LogLost { from, to, damaged: false } => write!(
                f,
                "the write-ahead log was truncated: rows {from} to {to} were acknowledged and are missing"
            ),
            Problem::Surplus { from } => {
                write!(f, "row {from} was added at the end: the journal's head does not know it")
            }
            Problem::CutShort { bytes, pages_expected, row } => {
                write!(f, "the file was truncated: {bytes} bytes are left of {pages_expected} pages")?;
                match row {
                    Some(row) => write!(f, "; row {row} is the first lost"),
                    None => f.write_str("; every row can still be read"),
                }
            }
            Problem::Malformed { row, why } => {
                write!(f, "the file is damaged: row {row} is the first that cannot be read ({why})")
            }
            Problem::Snapshot { at, why } => write!(f, "the snapshot at row {at} is unsound: {why}"),
        }
    }
}

/// Why a verification could not be done at all.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The journal cannot be read.
    #[error("cannot verify journal `{}`", path.display())]
    Read {
        /// Which journal.
        path: PathBuf,
        /// Why not.
        #[source]
        source: JournalError,
    },
}
