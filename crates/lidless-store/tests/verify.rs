//! Is each kind of damage told apart, and the first broken row named?
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lidless_core::event::Record;
use lidless_core::id::Seq;
use lidless_store::conformance::{record, records};
use lidless_store::{
    EventFilter, Journal, JournalError, Problem, SqliteJournal, SqliteReader, VerifyReport, verify,
};
use rusqlite::Connection;
use tempfile::TempDir;

/// Writes rows 1 to `last` and closes the journal.
fn journal(last: u64) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.db");
    let mut journal = SqliteJournal::open(&path).unwrap();
    journal.append(&records(1, last)).unwrap();
    (directory, path)
}

/// Changes the file behind the journal's back, and lets the change reach the file itself.
fn tamper(path: &Path, sql: &str) {
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(sql).unwrap();
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}

/// Verifies, and checks that nothing was changed by it.
fn check(path: &Path, problems: &[&str]) -> VerifyReport {
    let before = fs::read(path).unwrap();
    let report = verify(path, &mut |_, _| {}).unwrap();
    assert!(before == fs::read(path).unwrap(), "verify leaves the file as it was");
    let found: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert_eq!(found, problems);
    report
}

fn open_error(path: &Path) -> String {
    SqliteJournal::open(path).unwrap_err().to_string().replace(&path.display().to_string(), "PATH")
}

#[test]
fn a_sound_journal_has_no_problems() {
    let (_directory, path) = journal(10_000);
    let mut steps = Vec::new();
    let report = verify(&path, &mut |done, total| steps.push((done, total))).unwrap();
    assert_eq!(report.problems, []);
    assert_eq!((report.rows, report.first, report.last), (10_000, Some(Seq(1)), Some(Seq(10_000))));
    assert_eq!(steps, [(4096, 10_000), (8192, 10_000), (10_000, 10_000)]);
    assert_ne!(report.chain_head, [0; 32]);
}

#[test]
fn an_empty_journal_has_no_problems() {
    let (_directory, path) = journal(0);
    let report = check(&path, &[]);
    assert_eq!((report.rows, report.first, report.last), (0, None, None));
}

#[test]
fn an_edited_row_is_named() {
    let (_directory, path) = journal(20);
    tamper(&path, "UPDATE journal SET body = replace(body, 'somebody', 'nobody') WHERE seq IN (5, 11)");
    check(
        &path,
        &[
            "row 5 was changed: its hash does not match its content",
            "row 11 was changed: its hash does not match its content",
        ],
    );
    // The journal still opens, as its end is sound; reading stops at the broken row.
    let mut seen = 0;
    let err = SqliteJournal::open(&path).unwrap().replay(Seq(1), &mut |_| seen += 1).unwrap_err();
    assert_eq!(seen, 4);
    assert!(matches!(err, JournalError::Corrupt { seq: Some(Seq(5)), .. }), "{err}");
}

#[test]
fn a_flipped_bit_in_the_file_is_named() {
    let (_directory, path) = journal(20);
    let mut bytes = fs::read(&path).unwrap();
    let needle = br#"{"seq":14,"#;
    let found = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[found + 25] ^= 1;
    fs::write(&path, bytes).unwrap();
    check(&path, &["row 14 was changed: its hash does not match its content"]);
}

#[test]
fn any_flipped_bit_in_a_row_is_found() {
    // Few enough for one page.
    let (_directory, path) = journal(12);
    let sound = fs::read(&path).unwrap();
    let conn = Connection::open(&path).unwrap();
    let query = "SELECT rootpage FROM sqlite_schema WHERE name = 'journal'";
    let page: u32 = conn.query_row(query, [], |row| row.get(0)).unwrap();
    drop(conn);
    let end = page as usize * 4096;
    let start = end - 4096;
    let cells_from = start + usize::from(u16::from_be_bytes([sound[start + 5], sound[start + 6]]));
    let mut file = fs::File::options().write(true).open(&path).unwrap();
    for offset in cells_from..end {
        file.write_all_at(&[sound[offset] ^ (1 << (offset % 8))], offset as u64).unwrap();
        if verify(&path, &mut |_, _| {}).is_ok_and(|report| report.problems.is_empty()) {
            // A few bits mean nothing: SQLite keeps a type for `seq`, and never looks at it.
            let reader = SqliteReader::open(&path).unwrap();
            let read = reader.events(Seq(0), 100, &EventFilter::default()).unwrap();
            assert_eq!(read, records(1, 12), "unseen at byte {}", offset - start);
        }
        file.write_all_at(&sound[offset..=offset], offset as u64).unwrap();
    }
    file.flush().unwrap();
    check(&path, &[]);
}

#[test]
fn deleted_rows_are_named() {
    let (_directory, path) = journal(20);
    tamper(&path, "DELETE FROM journal WHERE seq = 4 OR seq BETWEEN 8 AND 10");
    check(&path, &["row 4 was deleted", "rows 8 to 10 were deleted"]);
}

#[test]
fn a_deleted_beginning_is_named() {
    let (_directory, path) = journal(20);
    tamper(&path, "DELETE FROM journal WHERE seq <= 3");
    check(&path, &["rows 1 to 3 were deleted"]);
}

#[test]
fn a_deleted_tail_is_told_from_a_journal_that_ends_there() {
    let (_directory, path) = journal(20);
    tamper(&path, "DELETE FROM journal WHERE seq > 17");
    check(&path, &["rows 18 to 20 were deleted at the end: the journal's head names 20 as the last"]);
    assert_eq!(open_error(&path), "journal `PATH` is truncated: records 18 to 20 are missing at the end");
}

#[test]
fn a_journal_without_any_row_left_is_told_from_a_new_one() {
    let (_directory, path) = journal(20);
    tamper(&path, "DELETE FROM journal");
    check(&path, &["rows 1 to 20 were deleted at the end: the journal's head names 20 as the last"]);
    assert_eq!(open_error(&path), "journal `PATH` is truncated: records 1 to 20 are missing");
}

/// Puts another record in, with a hash that fits it.
fn rewrite(path: &Path, seq: u64, record: &Record) {
    let conn = Connection::open(path).unwrap();
    let place = i64::try_from(seq).unwrap();
    let prev: Vec<u8> =
        conn.query_row("SELECT prev FROM journal WHERE seq = ?1", [place], |row| row.get(0)).unwrap();
    let service: Option<u32> =
        conn.query_row("SELECT service FROM journal WHERE seq = ?1", [place], |row| row.get(0)).unwrap();
    let body = serde_json::to_string(record).unwrap();
    let mut hasher = blake3::Hasher::new_derive_key("lidless journal 1: row");
    hasher.update(&prev).update(&seq.to_le_bytes());
    hasher.update(&service.map_or(u64::MAX, u64::from).to_le_bytes()).update(body.as_bytes());
    let hash = hasher.finalize();
    conn.execute(
        "UPDATE journal SET body = ?1, hash = ?2, mono_us = ?3 WHERE seq = ?4",
        rusqlite::params![
            body,
            hash.as_bytes(),
            i64::try_from(record.at.monotonic.as_micros()).unwrap(),
            place
        ],
    )
    .unwrap();
}

#[test]
fn a_rewritten_row_is_named_by_the_one_after_it() {
    let (_directory, path) = journal(20);
    rewrite(&path, 7, &record(7, 999));
    check(&path, &["row 7 was rewritten: its own hash fits, but what follows was chained to another row"]);
}

#[test]
fn a_rewritten_last_row_is_named_by_the_head() {
    let (_directory, path) = journal(20);
    rewrite(&path, 20, &record(20, 999));
    check(&path, &["row 20 was rewritten: its own hash fits, but what follows was chained to another row"]);
    assert!(matches!(SqliteJournal::open(&path), Err(JournalError::Corrupt { seq: Some(Seq(20)), .. })));
}

#[test]
fn a_derived_column_that_lies_is_named() {
    let (_directory, path) = journal(20);
    tamper(
        &path,
        "UPDATE journal SET kind = 'stopped' WHERE seq = 6; UPDATE journal SET wall_ms = 1 WHERE seq = 9",
    );
    check(
        &path,
        &[
            "row 6 was changed: its column `kind` does not match its content",
            "row 9 was changed: its column `wall_ms` does not match its content",
        ],
    );
}

#[test]
fn a_file_cut_short_is_named_with_its_first_lost_row() {
    let (_directory, path) = journal(2_000);
    let length = fs::metadata(&path).unwrap().len();
    let pages = length / 4096;
    fs::File::options().write(true).open(&path).unwrap().set_len(length / 4 * 3).unwrap();
    let report = verify(&path, &mut |_, _| {}).unwrap();
    let [Problem::CutShort { bytes, pages_expected, row: Some(row) }] = &report.problems[..] else {
        panic!("{:?}", report.problems)
    };
    assert_eq!((*bytes, *pages_expected), (length / 4 * 3, pages));
    assert_eq!(row.0, report.rows + 1);
    assert!(report.rows > 100 && report.rows < 1_900, "{} rows were before the cut", report.rows);
    check(
        &path,
        &[&format!(
            "the file was truncated: {bytes} bytes are left of {pages} pages; row {row} is the first lost"
        )],
    );
    assert_eq!(
        open_error(&path),
        format!(
            "journal `PATH` is truncated: the file has {bytes} bytes, and its header speaks of {pages} pages"
        )
    );
}

#[test]
fn a_file_cut_within_its_first_page_or_to_nothing_is_named() {
    for length in [3000, 50, 0] {
        let (_directory, path) = journal(20);
        fs::File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        let report = verify(&path, &mut |_, _| {}).unwrap();
        assert!(
            matches!(report.problems[..], [Problem::CutShort { row: Some(Seq(1)), .. }]),
            "{length}: {report:?}"
        );
    }
}

#[test]
fn damage_to_the_structure_is_told_from_a_cut() {
    let (_directory, path) = journal(2_000);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 4096 / 2 * 4096;
    bytes[middle..middle + 4096].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let report = verify(&path, &mut |_, _| {}).unwrap();
    let first = report.problems.first().unwrap();
    assert!(matches!(first, Problem::Malformed { .. }), "{first}");
}

#[test]
fn a_damaged_index_is_named() {
    let (_directory, path) = journal(20);
    let mut bytes = fs::read(&path).unwrap();
    // In the index a kind is followed by the position; in the table by the body, which begins with a brace.
    let places: Vec<usize> =
        (0..bytes.len() - 7).filter(|&at| &bytes[at..at + 6] == b"marked" && bytes[at + 6] == 9).collect();
    let [place] = places[..] else { panic!("{places:?}") };
    bytes[place] ^= 1;
    fs::write(&path, bytes).unwrap();
    // Out of order, that one entry can hide others too.
    let problems = verify(&path, &mut |_, _| {}).unwrap().problems;
    assert!(matches!(problems[..], [Problem::Unindexed { .. }]), "{problems:?}");
}

#[test]
fn an_unsound_snapshot_is_named() {
    let (_directory, path) = journal(20);
    let mut journal = SqliteJournal::open(&path).unwrap();
    journal.save_snapshot(Seq(10), b"ten").unwrap();
    journal.save_snapshot(Seq(15), b"fifteen").unwrap();
    drop(journal);
    assert_eq!(check(&path, &[]).snapshots_ok, 2);
    tamper(&path, "UPDATE snapshot SET state = x'00' WHERE seq = 15");
    let report = check(&path, &["the snapshot at row 15 is unsound: its hash does not match its content"]);
    assert_eq!(report.snapshots_ok, 1);
}

#[test]
fn a_journal_in_use_can_be_verified() {
    let (_directory, path) = journal(100);
    let mut journal = SqliteJournal::open(&path).unwrap();
    let writer = std::thread::spawn(move || {
        for from in (101..3_100).step_by(3) {
            journal.append(&records(from, from + 2)).unwrap();
            journal.tidy().unwrap();
        }
    });
    let mut runs = 0;
    while !writer.is_finished() || runs == 0 {
        let report = verify(&path, &mut |_, _| {}).unwrap();
        assert_eq!(report.problems, []);
        assert_eq!(Some(Seq(report.rows)), report.last);
        runs += 1;
    }
    writer.join().unwrap();
    assert_eq!(verify(&path, &mut |_, _| {}).unwrap().rows, 3_100);
}

#[test]
fn what_is_no_journal_is_not_verified() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    let chain = |path: &Path| {
        let err = verify(path, &mut |_, _| {}).unwrap_err();
        let source = std::error::Error::source(&err).unwrap().to_string();
        format!("{err}: {source}").replace(&path.display().to_string(), "PATH")
    };
    assert_eq!(chain(&path), "cannot verify journal `PATH`: there is no journal at `PATH`");
    fs::write(&path, "remember the milk\n".repeat(500)).unwrap();
    assert_eq!(chain(&path), "cannot verify journal `PATH`: `PATH` is not a journal of lidless");
}

/// Returns a journal of `last` rows, one a transaction, as a kill -9 leaves it: the newest rows are in the log alone.
fn killed(last: u64) -> (TempDir, PathBuf) {
    let (directory, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = directory.path().join("journal.db");
    let mut journal = SqliteJournal::open(&path).unwrap();
    for seq in 1..=last {
        journal.append(&[record(seq, 0)]).unwrap();
    }
    for entry in fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_name().to_string_lossy().ends_with("-shm") {
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    let path = copy.path().join("journal.db");
    (copy, path)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

fn only_problem(path: &Path) -> String {
    let report = verify(path, &mut |_, _| {}).unwrap();
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
    report.problems[0].to_string()
}

#[test]
fn what_only_the_log_holds_is_whole_after_a_kill() {
    let (_directory, path) = killed(40);
    assert!(fs::metadata(beside(&path, "-wal")).unwrap().len() > 40 * 4096);
    check(&path, &[]);
    assert_eq!(SqliteJournal::open(&path).unwrap().last().unwrap().unwrap().0, Seq(40));
}

#[test]
fn a_flipped_bit_in_the_log_is_told_and_the_evidence_stays() {
    let (_directory, path) = killed(40);
    let log = fs::OpenOptions::new().read(true).write(true).open(beside(&path, "-wal")).unwrap();
    let middle = log.metadata().unwrap().len() / 2;
    let mut byte = [0];
    log.read_exact_at(&mut byte, middle).unwrap();
    log.write_all_at(&[byte[0] ^ 4], middle).unwrap();
    let before = fs::read(beside(&path, "-wal")).unwrap();
    for _ in 0..2 {
        let found = only_problem(&path);
        assert!(found.starts_with("the write-ahead log is damaged: rows "), "{found}");
        assert!(found.ends_with(" to 40 were acknowledged and cannot be read"), "{found}");
        let err = open_error(&path);
        assert!(err.starts_with("journal `PATH` is corrupt at record "), "{err}");
        assert!(err.contains("its write-ahead log is damaged"), "{err}");
        assert!(before == fs::read(beside(&path, "-wal")).unwrap(), "the log is as it was");
    }
}

#[test]
fn a_log_cut_short_or_taken_away_is_told() {
    for keep in [0, 7, 20] {
        let (_directory, path) = killed(40);
        let log = fs::OpenOptions::new().write(true).open(beside(&path, "-wal")).unwrap();
        let frame = 4096 + 24;
        log.set_len(if keep == 0 { 0 } else { 32 + keep * frame }).unwrap();
        let err = open_error(&path);
        if keep > 0 {
            let found = only_problem(&path);
            assert!(found.starts_with("the write-ahead log was truncated: "), "{found}");
            assert!(err.starts_with("journal `PATH` is truncated: records "), "{err}");
        }
        assert!(err.contains("truncated") || err.contains("corrupt"), "{err}");
    }
}

#[test]
fn an_older_mark_or_none_claims_nothing_that_is_wrong() {
    let (_directory, path) = killed(40);
    let (_other, older) = killed(7);
    fs::copy(beside(&older, ".mark"), beside(&path, ".mark")).unwrap();
    check(&path, &[]);
    fs::write(beside(&path, ".mark"), b"half a mark").unwrap();
    check(&path, &[]);
    assert!(SqliteJournal::open(&path).is_ok());
}

#[test]
fn a_new_journal_in_the_place_of_one_that_was_moved_away_begins_anew() {
    let (_directory, path) = journal(40);
    fs::remove_file(&path).unwrap();
    let mut journal = SqliteJournal::open(&path).unwrap();
    assert_eq!(journal.last().unwrap(), None);
    journal.append(&records(1, 3)).unwrap();
    drop(journal);
    check(&path, &[]);
}

#[test]
fn a_journal_rewritten_with_a_fitting_head_is_told_by_its_mark() {
    let (_directory, path) = journal(20);
    let (_other, forged) = {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.db");
        let mut journal = SqliteJournal::open(&path).unwrap();
        journal.append(&records(1, 19)).unwrap();
        journal.append(&[record(20, 666)]).unwrap();
        drop(journal);
        (directory, path)
    };
    fs::copy(&forged, &path).unwrap();
    check(&path, &["row 20 was rewritten: its own hash fits, but what follows was chained to another row"]);
    assert!(open_error(&path).contains("it is not the record that was acknowledged"));
}

#[test]
fn a_first_page_of_nothing_is_damage_where_lidless_wrote_a_journal() {
    let (_directory, path) = journal(40);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0; 4096], 0).unwrap();
    assert!(only_problem(&path).contains("its first page is not that of a journal"));
    assert!(open_error(&path).contains("is corrupt"), "{}", open_error(&path));
    fs::remove_file(beside(&path, ".mark")).unwrap();
    assert!(open_error(&path).contains("is not a journal of lidless"), "{}", open_error(&path));
}
