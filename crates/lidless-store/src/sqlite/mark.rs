//! What was the last record that anybody was told is durable? A mark beside the journal, outside SQLite's own files.
//!
//! SQLite's recovery ends at the first damaged frame of its write-ahead log and drops all that follows without a word, the
//! journal's head with it. The mark is written after each commit and not synced: it outlives lidless, and after a power cut
//! it is at worst an older one. **Invariant:** a journal reaches at least as far as its mark.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use lidless_core::id::Seq;
use rusqlite::{Connection, OptionalExtension};

use super::append::to_sql;
use super::chain::{Hash, Tip};
use super::fail::Named;
use super::lock::beside;
use super::open::read_head;
use super::wal;
use crate::JournalError;

/// The sequence number, the row's hash, and a check of both.
const LENGTH: usize = 8 + 32 + 8;

/// The mark of a journal that is being written.
#[derive(Debug)]
pub(super) struct Mark(File);

/// What a mark says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Acknowledged {
    pub(super) seq: Seq,
    pub(super) hash: Hash,
}

impl Mark {
    /// Opens the mark of the journal at `path`, or begins one.
    pub(super) fn open(path: &Path) -> Result<Mark, JournalError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(beside(path, ".mark"));
        Ok(Mark(file.map_err(|err| JournalError::from_io(path, "open the mark of", err))?))
    }

    /// Notes that everything up to `tip` was acknowledged.
    pub(super) fn write(&self, tip: Tip) {
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(&tip.seq.0.to_le_bytes());
        bytes[8..40].copy_from_slice(&tip.hash);
        let check = check(&bytes[..40]);
        bytes[40..].copy_from_slice(&check);
        // An older mark claims less, and nothing that is wrong.
        let _ = self.0.write_all_at(&bytes, 0);
    }
}

/// Returns what the mark of the journal at `path` says; none where there is none, or half a one.
pub(super) fn read(path: &Path) -> Option<Acknowledged> {
    let file = File::open(beside(path, ".mark")).ok()?;
    let mut bytes = [0; LENGTH];
    file.read_exact_at(&mut bytes, 0).ok()?;
    if check(&bytes[..40]) != bytes[40..] {
        return None;
    }
    let seq = Seq(u64::from_le_bytes(bytes[..8].try_into().ok()?));
    Some(Acknowledged { seq, hash: bytes[8..40].try_into().ok()? }).filter(|mark| mark.seq > Seq(0))
}

/// Compares a journal with its mark. Must come before anything that empties the write-ahead log, for that is the evidence.
pub(super) fn compare(conn: &Connection, path: &Path) -> Result<(), JournalError> {
    let Some(mark) = read(path) else { return Ok(()) };
    let (last, _) = read_head(conn, path)?;
    if mark.seq > last {
        let what = format!("records {} to {} were acknowledged and are missing", last.next(), mark.seq);
        return Err(match wal::is_damaged(path) {
            true => JournalError::Corrupt {
                path: path.to_owned(),
                seq: Some(last.next()),
                why: format!("its write-ahead log is damaged: {what}"),
            },
            false => JournalError::Truncated { path: path.to_owned(), what },
        });
    }
    let hash: Option<Vec<u8>> = conn
        .query_row("SELECT hash FROM journal WHERE seq = ?1", [to_sql(mark.seq.0)], |row| row.get(0))
        .optional()
        .named(path, "read")?;
    if hash.is_some_and(|hash| hash != mark.hash) {
        let why = "it is not the record that was acknowledged".to_owned();
        return Err(JournalError::Corrupt { path: path.to_owned(), seq: Some(mark.seq), why });
    }
    Ok(())
}

fn check(bytes: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new_derive_key("lidless journal 1: mark");
    let mut check = [0; 8];
    hasher.update(bytes).finalize_xof().fill(&mut check);
    check
}
