//! Is another lidless using this journal? A lock file beside it, locked for as long as the process lives.
//!
//! The kernel drops a `flock` with its owner, however that dies, so that a stale file locks nobody out. The file is never
//! removed: another process could then lock a name that is gone.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;

use crate::{Holder, JournalError};

/// The right to write a journal.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Takes the lock of the journal at `journal`, or says who has it.
    pub(super) fn take(journal: &Path) -> Result<Lock, JournalError> {
        let path = beside(journal, ".lock");
        let io = |err| JournalError::from_io(journal, "lock", err);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(JournalError::Locked {
                    path: journal.to_owned(),
                    holder: read_holder(&mut file),
                });
            }
            Err(err) => return Err(io(err.into())),
        }
        // The lock counts, not the text: on a full disk the file stays empty and the message names no process.
        let _ = write_holder(&mut file);
        Ok(Lock { path, _file: file })
    }

    /// Returns where the lock is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Returns the path of a file that belongs to the journal.
pub(crate) fn beside(journal: &Path, suffix: &str) -> PathBuf {
    let mut name = journal.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn write_holder(file: &mut File) -> std::io::Result<()> {
    let since_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(format!("pid {}\nsince_ms {since_ms}\n", std::process::id()).as_bytes())
}

fn read_holder(file: &mut File) -> Holder {
    let mut text = String::new();
    if file.take(256).read_to_string(&mut text).is_err() {
        return Holder::default();
    }
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).map(str::to_owned);
    Holder {
        pid: field("pid ").and_then(|value| value.parse().ok()),
        since_ms: field("since_ms ").and_then(|value| value.parse().ok()),
    }
}
