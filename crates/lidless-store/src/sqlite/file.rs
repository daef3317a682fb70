//! Is the file as long as its header says? Asked only after SQLite has called it malformed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::mark;
use crate::JournalError;

/// The files whose headers were read, by device and inode.
///
/// They stay open: closing any descriptor of a file drops all POSIX locks that this process holds on it, and so would take
/// away the locks of SQLite's own connections to the same journal.
static OPENED: Mutex<BTreeMap<(u64, u64), File>> = Mutex::new(BTreeMap::new());

/// Fewer pages than there should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CutShort {
    pub(super) bytes: u64,
    pub(super) pages_expected: u64,
}

impl std::fmt::Display for CutShort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let CutShort { bytes, pages_expected } = self;
        write!(f, "the file has {bytes} bytes, and its header speaks of {pages_expected} pages")
    }
}

/// Returns what is missing at the end of the file, if anything is.
pub(super) fn cut_short(path: &Path) -> Option<CutShort> {
    let meta = fs::metadata(path).ok()?;
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let file = match opened.entry((meta.dev(), meta.ino())) {
        std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
        std::collections::btree_map::Entry::Vacant(entry) => entry.insert(File::open(path).ok()?),
    };
    let bytes = meta.len();
    let mut header = [0; 32];
    let read = file.read_at(&mut header, 0).ok()?;
    if read < header.len() {
        return (read == 0 || b"SQLite format 3\0".starts_with(&header[..read.min(16)]))
            .then_some(CutShort { bytes, pages_expected: 1 });
    }
    if !header.starts_with(b"SQLite format 3\0") {
        return None;
    }
    // 1 stands for 65536, as documented in SQLite's file format.
    let page_size = match u64::from(u16::from_be_bytes([header[16], header[17]])) {
        1 => 65_536,
        size => size,
    };
    let pages = u64::from(u32::from_be_bytes([header[28], header[29], header[30], header[31]]));
    (bytes < pages * page_size).then_some(CutShort { bytes, pages_expected: pages })
}

/// Turns "malformed" into "truncated" where the length of the file says so.
pub(crate) fn explain(path: &Path, err: JournalError) -> JournalError {
    match err {
        JournalError::Corrupt { .. } | JournalError::NotAJournal { .. } => match cut_short(path) {
            Some(cut) => JournalError::Truncated { path: path.to_owned(), what: cut.to_string() },
            // Nobody else puts a mark beside a file.
            None if matches!(err, JournalError::NotAJournal { .. }) && mark::read(path).is_some() => {
                let why = "its first page is not that of a journal, though lidless wrote one here".to_owned();
                JournalError::Corrupt { path: path.to_owned(), seq: None, why }
            }
            None => err,
        },
        _ => err,
    }
}
