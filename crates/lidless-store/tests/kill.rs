//! Is everything that was acknowledged there after a kill -9, at any moment?
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lidless_core::id::Seq;
use lidless_store::conformance::records;
use lidless_store::{Journal, SqliteJournal, Writer, WriterEvent, WriterOptions, verify};

/// Names the journal to the child; without it the child's test has nothing to do.
const JOURNAL: &str = "LIDLESS_STORE_TEST_KILL_JOURNAL";
const ROUNDS: u64 = 20;

#[test]
fn every_acknowledged_record_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal.db");
    let mut random = 9_u64;
    let mut acked = 0_u64;
    let mut killed_at_work = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child_appends_until_it_is_killed", "--exact", "--nocapture"])
            .env(JOURNAL, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // So many acknowledgements are read before the kill; the child goes on meanwhile.
        let until = (random >> 33) % 60;
        let mut count = 0;
        for line in lines.by_ref().map(Result::unwrap) {
            if let Some(seq) = line.strip_prefix("acked ").and_then(|seq| seq.strip_suffix(" .")) {
                acked = seq.parse().unwrap();
                count += 1;
                if count > until {
                    break;
                }
            }
        }
        assert!(count > 0, "round {round}: the child appended");
        child.kill().unwrap();
        // What was still in the pipe was acknowledged too; a line that the kill cut in two was not.
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        for line in &rest {
            if let Some(seq) = line.strip_prefix("acked ").and_then(|seq| seq.strip_suffix(" .")) {
                acked = seq.parse().unwrap();
            }
        }
        child.wait().unwrap();

        let report = verify(&path, &mut |_, _| {}).unwrap();
        assert_eq!(report.problems, [], "round {round}, before it is reopened");
        let mut journal = SqliteJournal::open(&path).unwrap();
        let last = journal.last().unwrap().unwrap().0;
        assert!(last >= Seq(acked), "round {round}: {acked} was acknowledged, the journal ends at {last}");
        killed_at_work += u32::from(last > Seq(acked));
        let mut seen = Vec::new();
        journal.replay(Seq(1), &mut |record| seen.push(record)).unwrap();
        assert_eq!(seen, records(1, last.0), "round {round}");
        if let Some((at, state)) = journal.load_snapshot().unwrap() {
            assert_eq!(state, at.0.to_le_bytes());
        }
        drop(journal);
        assert_eq!(verify(&path, &mut |_, _| {}).unwrap().problems, [], "round {round}");
        acked = last.0;
    }
    println!(
        "{acked} records; {killed_at_work} of {ROUNDS} kills came between a commit and its acknowledgement"
    );
}

/// The victim.
#[test]
fn child_appends_until_it_is_killed() {
    let Some(path) = std::env::var_os(JOURNAL) else { return };
    // The parent waits for this process: if it hung, the parent would too.
    std::thread::spawn(|| {
        std::thread::park_timeout(Duration::from_secs(60));
        std::process::exit(3)
    });
    let path = Path::new(&path).to_owned();
    let mut journal = SqliteJournal::open(&path).unwrap();
    let mut next = journal.last().unwrap().map_or(1, |(seq, _)| seq.0 + 1);
    let on_event = |event| match event {
        WriterEvent::Durable(seq) => {
            let mut out = std::io::stdout().lock();
            writeln!(out, "acked {seq} .").unwrap();
            out.flush().unwrap();
        }
        WriterEvent::SnapshotSaved(_) => {}
        other => panic!("{other:?}"),
    };
    let writer = Writer::spawn(
        Box::new(journal),
        WriterOptions { queue_max: 8, ..WriterOptions::default() },
        on_event,
    )
    .unwrap();
    // More than any round reads, so that a parent that died does not leave this behind for ever.
    for round in 0..20_000_u64 {
        let count = 1 + round * 7 % 5;
        writer.submit(records(next, next + count - 1)).unwrap();
        next += count;
        if round % 20 == 19 {
            writer.snapshot(Seq(next - 1), (next - 1).to_le_bytes().to_vec()).unwrap();
        }
    }
    writer.close(Duration::from_secs(60)).unwrap();
}
