//! Is the write-ahead log damaged, or merely shorter than it was? Asked only where acknowledged records are missing.
//!
//! Layout and checksum are those of the chapter "The Write-Ahead Log" of SQLite's file format: a header of 32 bytes, then
//! frames of 24 bytes and a page. A frame belongs to the present log if it carries the header's salts.

use std::fs;
use std::path::Path;

use super::lock::beside;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Returns whether a frame of the present log, or its header, is there but is not what was written.
pub(super) fn is_damaged(journal: &Path) -> bool {
    let Ok(log) = fs::read(beside(journal, "-wal")) else { return false };
    if log.len() < HEADER {
        return false;
    }
    let word = |at: usize| u32::from_be_bytes([log[at], log[at + 1], log[at + 2], log[at + 3]]);
    let big_endian = match word(0) {
        0x377f_0682 => false,
        0x377f_0683 => true,
        _ => return true,
    };
    let mut sums = sum((0, 0), &log[..24], big_endian);
    if sums != (word(24), word(28)) {
        return true;
    }
    let page = word(8) as usize;
    let frame = FRAME_HEADER + page;
    let mut at = HEADER;
    while at + frame <= log.len() && log[at + 8..at + 16] == log[16..24] {
        sums = sum(sums, &log[at..at + 8], big_endian);
        sums = sum(sums, &log[at + FRAME_HEADER..at + frame], big_endian);
        if sums != (word(at + 16), word(at + 20)) {
            return true;
        }
        at += frame;
    }
    // A frame whose salts were hit looks like one of an older log; those behind it don't.
    let rest = (at..log.len().saturating_sub(frame)).step_by(frame).skip(1);
    rest.into_iter().any(|at| log[at + 8..at + 16] == log[16..24])
}

fn sum((mut one, mut two): (u32, u32), bytes: &[u8], big_endian: bool) -> (u32, u32) {
    for pair in bytes.chunks_exact(8) {
        let half = |at: usize| {
            let bytes = [pair[at], pair[at + 1], pair[at + 2], pair[at + 3]];
            if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        one = one.wrapping_add(half(0)).wrapping_add(two);
        two = two.wrapping_add(half(4)).wrapping_add(one);
    }
    (one, two)
}
