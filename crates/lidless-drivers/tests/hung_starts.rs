//! What does a dead mount hold up? One start of the command that runs there, and nothing else.

#![allow(clippy::unwrap_used, missing_docs)]

mod process_support;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use lidless_core::check::CheckOutcome;
use lidless_drivers::check::Check;
use lidless_drivers::check::exec::{ExecCheck, ExecSettings, Warning};
use lidless_drivers::child::CommandSpec;
use process_support::*;

const SHORT: Duration = Duration::from_millis(300);

/// A file system whose server is silent until it is told to answer, as a network mount may be.
struct DeadMount {
    dir: tempfile::TempDir,
    server: File,
}

impl DeadMount {
    fn new() -> Option<DeadMount> {
        let server = OpenOptions::new().read(true).write(true).open("/dev/fuse").ok()?;
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("timeout")
            .args([
                "10",
                "mount",
                "-i",
                "-t",
                "fuse",
                "-o",
                "fd=0,rootmode=40000,user_id=0,group_id=0",
                "none",
            ])
            .arg(dir.path())
            .stdin(server.try_clone().unwrap())
            .status();
        let mount = DeadMount { dir, server };
        mounted.is_ok_and(|status| status.success()).then_some(mount)
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// From now on it answers: whatever is asked, it does not know of such a question, and the kernel helps itself.
    fn answer(&self) {
        const INIT: u32 = 26;
        const NO_SUCH_CALL: i32 = -38;
        let mut server = self.server.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut question = vec![0_u8; 1 << 17];
            // Ends when the mount does.
            while let Ok(length) = server.read(&mut question) {
                let word = |at: usize| u32::from_ne_bytes(question[at..at + 4].try_into().unwrap());
                assert!(length >= 40, "a question without a head");
                // Version 7.31, and no more than the least of everything.
                let init: Vec<u8> = [7, 31].into_iter().chain([0; 14]).flat_map(u32::to_ne_bytes).collect();
                let (error, body) = if word(4) == INIT { (0, init) } else { (NO_SUCH_CALL, Vec::new()) };
                let mut reply = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
                reply.extend(error.to_ne_bytes());
                reply.extend(&question[8..16]);
                reply.extend(body);
                // Who asked may have been killed meanwhile.
                let _ = server.write_all(&reply);
            }
        });
    }
}

impl Drop for DeadMount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

fn check(dir: &Path, argv: &[&str]) -> ExecCheck {
    let argv = argv.iter().map(|&word| word.to_owned()).collect();
    let command = CommandSpec { argv, dir: Some(dir.to_owned()), ..CommandSpec::default() };
    ExecCheck::new(ExecSettings { command, warning: Warning::Fail })
}

fn inconclusive(outcome: CheckOutcome) -> String {
    match outcome {
        CheckOutcome::Inconclusive { reason } => reason,
        other => panic!("conclusive: {other:?}"),
    }
}

/// Our children, those on their way to become somebody included.
fn children() -> usize {
    let us = std::process::id().to_string();
    let is_ours = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.split_ascii_whitespace().nth(1) == Some(&us))
    };
    pids().filter(is_ours).count()
}

const HUNG: &str = "cannot run `sleep`: it could not be started in time; its directory or its file may hang";

#[test]
fn a_command_on_a_dead_mount_hangs_alone_and_once_and_is_killed_when_it_comes_back() {
    // The runtime ends after the mount, without which no start hangs.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let Some(mount) = DeadMount::new() else {
        println!("skipped: no file system of our own can be mounted");
        return;
    };
    runtime.block_on(async {
        let hung = check(mount.path(), &["sleep", "1000"]);
        let other = check(Path::new("/"), &["true"]);
        let beside = async {
            let began = Instant::now();
            let mut asked = 0;
            while began.elapsed() < SHORT {
                assert!(matches!(other.probe(LONG).await, CheckOutcome::Pass { .. }));
                asked += 1;
            }
            asked
        };
        let began = Instant::now();
        let (outcome, asked) = tokio::join!(hung.probe(SHORT), beside);
        assert_eq!(inconclusive(outcome), HUNG);
        assert!(asked > 1, "the other check was held up");
        for _ in 0..3 {
            assert_eq!(inconclusive(hung.probe(SHORT / 10).await), HUNG);
        }
        assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
        assert_eq!(children(), 1, "each probe began a start of its own");

        // The start comes back, and nobody waits for the command any more.
        mount.answer();
        wait_until("it is gone", || children() == 0).await;
        // And the next one has its turn.
        let outcome = hung.probe(SHORT).await;
        assert!(matches!(outcome, CheckOutcome::Fail { .. }), "{outcome:?}");
    });
}

#[test]
fn a_start_that_no_thread_was_free_for_in_time_is_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let began = dir.path().join("began");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    runtime.block_on(async {
        let (free, waits) = mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || waits.recv());
        let touch = check(dir.path(), &["touch", began.to_str().unwrap()]);
        assert!(
            inconclusive(touch.probe(SHORT).await).starts_with("cannot run `touch`: it could not be started")
        );
        free.send(()).unwrap();
        busy.await.unwrap().unwrap();
        // Behind the late one in the queue of the only thread.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        assert!(!began.exists(), "nobody waited for it any more");
        assert!(matches!(touch.probe(LONG).await, CheckOutcome::Pass { .. }));
    });
}
