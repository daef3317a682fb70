//! What does an error of SQLite mean for the journal?

use std::path::Path;

use rusqlite::ErrorCode;

use crate::{Holder, JournalError};

/// `SQLITE_IOERR_SHMSIZE`: the shared index of the WAL could not grow.
const IOERR_SHM_SIZE: i32 = 4874;

/// Sorts an error of SQLite. `action` completes "cannot ... journal".
pub(crate) fn sort(path: &Path, action: &'static str, err: rusqlite::Error) -> JournalError {
    let owned = path.to_owned();
    let io = |err| JournalError::Io { path: path.to_owned(), action, source: Box::new(err) };
    match &err {
        rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DiskFull => JournalError::Full { path: owned },
            // Nearly always a full disk, and no fsync is involved: the same handle may go on.
            ErrorCode::SystemIoFailure if failure.extended_code == IOERR_SHM_SIZE => {
                JournalError::Full { path: owned }
            }
            // Our statements are fixed: "no such table" means that the schema in the file is damaged.
            ErrorCode::DatabaseCorrupt | ErrorCode::Unknown => {
                JournalError::Corrupt { path: owned, seq: None, why: err.to_string() }
            }
            ErrorCode::NotADatabase => JournalError::NotAJournal { path: owned },
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
                JournalError::Locked { path: owned, holder: Holder::default() }
            }
            ErrorCode::ReadOnly => JournalError::ReadOnly { path: owned },
            ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => {
                JournalError::Permission { path: owned }
            }
            _ => io(err),
        },
        // A column holds another type than it was written with.
        rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::Utf8Error(..) => {
            JournalError::Corrupt { path: owned, seq: None, why: err.to_string() }
        }
        _ => io(err),
    }
}

/// Adds the path and the action to a result of SQLite.
pub(super) trait Named<T> {
    /// Names what was done, to which journal.
    fn named(self, path: &Path, action: &'static str) -> Result<T, JournalError>;
}

impl<T> Named<T> for rusqlite::Result<T> {
    fn named(self, path: &Path, action: &'static str) -> Result<T, JournalError> {
        self.map_err(|err| sort(path, action, err))
    }
}
