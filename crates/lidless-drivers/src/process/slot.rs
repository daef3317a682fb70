//! What is remembered of a service's process on disk? One record, replaced as a whole, under one lock.
//!
//! **Invariant:** an instance is recorded before the service's own code runs, by the process that is to become it.
//! So a lidless that dies at any moment leaves either no instance or a recorded one.
//!
//! The record is not synced: it matters only within one boot, and within one boot the page cache does not forget.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use serde::{Deserialize, Serialize};

use super::instance::{Instance, boot_id, find_unrecorded};

/// The directory of one service.
#[derive(Clone, Debug)]
pub struct Slot {
    dir: PathBuf,
}

/// What is remembered.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    /// Goes up with each launch and each deliberate stop. A launcher that was sent for an older one does nothing:
    /// it may have slept through a stop, and must not undo that.
    pub generation: u64,
    /// The last instance, alive or not.
    pub instance: Option<Instance>,
    /// Of the command that it was started with; a lidless of the first version wrote none.
    #[serde(default)]
    pub fingerprint: Option<u64>,
}

/// Why a slot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The directory cannot be made or entered.
    #[error("cannot use the slot directory `{}`", path.display())]
    Dir {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        err: io::Error,
    },
    /// A file in it cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        err: io::Error,
    },
    /// A file in it cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        err: io::Error,
    },
    /// The record is not what we wrote.
    #[error("`{}` is damaged", path.display())]
    Damaged {
        /// Which one.
        path: PathBuf,
        /// Where.
        #[source]
        err: serde_json::Error,
    },
    /// A launcher is at work in it for too long.
    #[error("the slot `{}` is in use", path.display())]
    Busy {
        /// Which one.
        path: PathBuf,
    },
    /// The process table cannot be read.
    #[error("cannot look at the processes")]
    Processes(#[source] io::Error),
}

/// The right to change the record; given back when dropped, and by `exec`.
#[derive(Debug)]
pub struct SlotLock {
    file: File,
}

impl Drop for SlotLock {
    fn drop(&mut self) {
        // Closing would not be enough: a child that another thread is just starting may hold a copy of the descriptor.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// A record and blanks: far more than one ever takes.
const RECORD_SIZE: usize = 1024;
const RECORD: &str = "instance.json";

impl Slot {
    /// Makes the directory, mode 0700, where it is missing.
    pub fn open(dir: &Path) -> Result<Slot, SlotError> {
        let make = || -> io::Result<PathBuf> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            if fs::metadata(dir)?.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
            }
            // One name for one slot, however it was written: instances carry it in their environment.
            fs::canonicalize(dir)
        };
        let dir = make().map_err(|err| SlotError::Dir { path: dir.to_owned(), err })?;
        let slot = Slot { dir };
        slot.reserve();
        Ok(slot)
    }

    /// Whether a directory is a slot in which an instance was recorded.
    pub fn is_at(dir: &Path) -> bool {
        dir.join(RECORD).is_file()
    }

    /// Moves what is remembered in the slot `old` to `dir`, unless there is a record already. Returns whether it did.
    ///
    /// The process goes on under its old mark, so the record names that. A crash on the way leaves both slots, and the next
    /// call does the rest.
    pub fn take_over(old: &Path, dir: &Path, patience: Duration) -> Result<bool, SlotError> {
        if !Slot::is_at(old) {
            return Ok(false);
        }
        let (old, new) = (Slot::open(old)?, Slot::open(dir)?);
        let _fence = old.wait_for_lock(patience)?;
        let lock = new.wait_for_lock(patience)?;
        let boot_id = boot_id().map_err(SlotError::Processes)?;
        let (mut record, known) = (old.read_or_find(&boot_id)?, new.read()?);
        if let Some(instance) = &mut record.instance {
            instance.slot.get_or_insert_with(|| old.dir.clone());
        }
        match known {
            None => new.write(&lock, &record)?,
            Some(known) if known.instance == record.instance => {}
            // Another one has been started since: the old one is for a human to look at.
            Some(_) => return Ok(false),
        }
        // By name: where a service was called as the store is, the new slots lie below.
        let gone = old.record_path();
        fs::remove_file(&gone).map_err(|err| SlotError::Write { path: gone, err })?;
        let rest = [
            fs::remove_file(old.fresh_path()),
            fs::remove_file(old.dir.join("lock")),
            fs::remove_dir(&old.dir),
        ];
        if let Some(err) = rest.into_iter().find_map(Result::err) {
            tracing::debug!(error = %err, "Something is left of a slot that was moved.");
        }
        Ok(true)
    }

    fn wait_for_lock(&self, patience: Duration) -> Result<SlotLock, SlotError> {
        let until = Instant::now() + patience;
        loop {
            match self.try_lock()? {
                Some(lock) => return Ok(lock),
                None if Instant::now() >= until => return Err(SlotError::Busy { path: self.dir.clone() }),
                None => thread::sleep(Duration::from_micros(500)),
            }
        }
    }

    /// The directory, in its canonical form.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes the lock, or returns `None` while somebody else holds it.
    pub fn try_lock(&self) -> Result<Option<SlotLock>, SlotError> {
        let path = self.dir.join("lock");
        let take = || -> io::Result<Option<SlotLock>> {
            let mut options = OpenOptions::new();
            let file = options.create(true).truncate(false).write(true).mode(0o600).open(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok(Some(SlotLock { file })),
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(None),
                Err(err) => Err(err.into()),
            }
        };
        take().map_err(|err| SlotError::Write { path: path.clone(), err })
    }

    /// Reads the record; `None` when there is none yet.
    pub fn read(&self) -> Result<Option<Record>, SlotError> {
        let path = self.record_path();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(SlotError::Read { path, err }),
        };
        serde_json::from_slice(&text).map(Some).map_err(|err| SlotError::Damaged { path, err })
    }

    /// Reads the record; where it is lost or damaged, looks for the instance itself among all processes.
    ///
    /// A damaged record must not keep a service down for ever, and must not let it start twice either.
    pub fn read_or_find(&self, boot_id: &str) -> Result<Record, SlotError> {
        match self.read() {
            Ok(Some(record)) => return Ok(record),
            Ok(None) => {}
            Err(err @ SlotError::Damaged { .. }) => {
                tracing::warn!(error = %err, "Process record damaged; looking for the process itself.");
            }
            Err(err) => return Err(err),
        }
        let instance = find_unrecorded(&self.dir, boot_id).map_err(SlotError::Processes)?;
        Ok(Record { instance, ..Record::default() })
    }

    /// Replaces the record as a whole. Needs no space on the disk but what was reserved: a full disk must stop no heal.
    pub fn write(&self, _lock: &SlotLock, record: &Record) -> Result<(), SlotError> {
        let path = self.record_path();
        let replace = || -> io::Result<()> {
            let text = serde_json::to_vec(record)?;
            let fresh = self.fresh_path();
            fill(&fresh, &text)?;
            put_in_place(&fresh, &path)
        };
        replace().map_err(|err| SlotError::Write { path: path.clone(), err })?;
        self.reserve();
        Ok(())
    }

    /// Makes sure that the next record has its place. Where there is no space now, the next write will say so.
    fn reserve(&self) {
        let fresh = self.fresh_path();
        if !fresh.exists()
            && let Err(err) = fill(&fresh, &[])
        {
            tracing::warn!(error = %err, "No space could be reserved for a process record.");
        }
    }

    fn fresh_path(&self) -> PathBuf {
        self.dir.join("instance.json.new")
    }

    fn record_path(&self) -> PathBuf {
        self.dir.join(RECORD)
    }
}

/// Writes the text over the file's beginning and blanks over the rest: the file keeps its size, and so its blocks.
pub(crate) fn fill(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut bytes = vec![b' '; RECORD_SIZE.max(text.len())];
    bytes[..text.len()].copy_from_slice(text);
    // Not truncated, for the reason that `put_in_place` gives.
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600).open(path)?.write_all(&bytes)
}

/// Exchanges two files where there are two, and renames where there is one. Either is atomic.
///
/// Renaming *over* a file makes ext4 write the new one to the disk first, and so does truncating one: measured, 7 ms on a
/// busy disk in place of 0.1, in the middle of a heal. The record needs no disk. The old one stays until the next write.
fn put_in_place(fresh: &Path, path: &Path) -> io::Result<()> {
    match renameat_with(CWD, fresh, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        // No old one yet, or a file system that cannot exchange.
        Err(_) => fs::rename(fresh, path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_waits_for_the_first() {
        let dir = tempfile::tempdir().expect("temp dir");
        let slot = Slot::open(&dir.path().join("slots/web")).expect("slot");
        let lock = slot.try_lock().expect("lock");
        assert!(lock.is_some());
        assert!(slot.try_lock().expect("lock").is_none());
        drop(lock);
        assert!(slot.try_lock().expect("lock").is_some());
    }

    #[test]
    fn the_slot_is_private() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("web");
        fs::create_dir(&path).expect("mkdir");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        let slot = Slot::open(&path).expect("slot");
        let lock = slot.try_lock().expect("lock").expect("free");
        slot.write(&lock, &Record::default()).expect("write");
        let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode(slot.dir()), 0o700);
        assert_eq!(mode(&slot.record_path()), 0o600);
        assert_eq!(slot.read().expect("read"), Some(Record::default()));
    }
}
