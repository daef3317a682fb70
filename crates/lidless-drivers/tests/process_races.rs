//! Is a service ever started twice? Launchers race, and lidless and its launchers are killed at random moments.

#![allow(clippy::unwrap_used, missing_docs)]

mod process_support;

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lidless_drivers::process::{ManagedProcess, ProcessState, Started};
use process_support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_launchers_at_once_one_becomes_the_service() {
    for _ in 0..3 {
        let service = Service::new();
        let mut starting = tokio::task::JoinSet::new();
        for _ in 0..20 {
            // Twenty that know nothing of each other, so that only the slot decides.
            let process = service.open(service.sleeper());
            starting.spawn(async move { process.start(LONG).await });
        }
        let started: Vec<_> = starting.join_all().await.into_iter().map(Result::unwrap).collect();
        let new = started.iter().filter(|started| matches!(started, Started::New { .. })).count();
        assert_eq!(new, 1, "{started:?}");
        service.wait_starts(1).await;
        assert_eq!(service.living().len(), 1);
        assert_eq!(service.starts().len(), 1);
    }
    // The three services themselves were killed when their tests' directories went; nobody watched them any more.
    assert!(zombies_of_ours().len() <= 3, "launchers were not reaped: {:?}", zombies_of_ours());
}

#[tokio::test]
async fn a_lidless_that_is_killed_while_it_starts_and_restarts_leaves_one_instance() {
    let service = Service::new();
    let script = service.sleeper().command[2].clone();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..50 {
        let mut manager = Command::new(launcher())
            .arg("manage")
            .args([service.slot(), service.path("output")])
            .arg(&script)
            .current_dir(service.dir.path())
            .env("TEST_MARKER", service.dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Xorshift: the same moments each time, as far as the machine allows.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let moment = Instant::now() + Duration::from_micros(random % 20_000);
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
        manager.kill().unwrap();
        manager.wait().unwrap();

        // At once, while a launcher of the dead one may still be on its way.
        let next = service.open(service.sleeper());
        next.adopt().unwrap();
        let pid = bring_up(&next).await;
        if round % 3 == 0 {
            // Perhaps it is gone already, by the dead one's signal.
            next.stop(LONG).await.unwrap();
            assert!(!is_alive(pid));
        }
        service.assert_never_double();
    }
    let starts = service.starts().len();
    println!("{starts} starts in 50 rounds");
    let last = service.open(service.sleeper());
    last.stop(LONG).await.unwrap();
    let pid = bring_up(&last).await;
    wait_until("one instance lives", || service.living() == [pid]).await;
    service.assert_never_double();
}

/// Starts until an instance runs. The first that is found may be about to end: whoever was killed had asked it to.
async fn bring_up(process: &ManagedProcess) -> i32 {
    let deadline = Instant::now() + LONG;
    loop {
        let started = process.start(LONG).await;
        if let ProcessState::Running { pid, .. } = process.state() {
            return pid;
        }
        assert!(Instant::now() < deadline, "it does not come up: {started:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_launcher_that_is_killed_on_its_way_leaves_no_instance_or_one() {
    let service = Service::new();
    let process = service.open(service.sleeper());
    let over = Arc::new(AtomicBool::new(false));
    let killed = {
        let (over, slot) = (Arc::clone(&over), fs::canonicalize(service.slot()).unwrap());
        std::thread::spawn(move || {
            let needle = format!("__launch\0{}\0", slot.display()).into_bytes();
            let mut killed = 0_u32;
            while !over.load(Ordering::Relaxed) {
                // Those started last are at the end.
                for pid in pids().filter(|pid| *pid > 1) {
                    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                    if line.windows(needle.len()).any(|window| window == needle) {
                        kill9(pid);
                        killed += 1;
                    }
                }
            }
            killed
        })
    };
    let (mut new, mut failed) = (0, 0);
    for _ in 0..50 {
        match process.start(LONG).await {
            Ok(_) => new += 1,
            Err(_) => failed += 1,
        }
        process.stop(LONG).await.unwrap();
        assert_eq!(service.living(), [] as [i32; 0]);
    }
    over.store(true, Ordering::Relaxed);
    let killed = killed.join().unwrap();
    println!("{killed} launchers killed, {new} starts, {failed} failed");
    process.start(LONG).await.unwrap();
    service.wait_starts(1).await;
    wait_until("one instance lives", || service.living() == [pid_of(&process)]).await;
    service.assert_never_double();
}

#[tokio::test]
async fn a_launcher_that_slept_through_a_stop_does_not_undo_it() {
    let service = Service::new();
    let process = service.open(service.sleeper());
    process.start(LONG).await.unwrap();
    service.wait_starts(1).await;
    let record = || fs::read_to_string(service.slot().join("instance.json")).unwrap();
    let generation =
        |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["generation"].as_u64().unwrap();
    let before = generation(&record());
    process.stop(LONG).await.unwrap();
    assert!(generation(&record()) > before, "a stop makes requests for the older generation void");

    launch_late(&service, before);
}

#[tokio::test]
async fn a_launcher_that_was_cut_off_before_it_began_does_not_undo_a_stop() {
    let service = Service::new();
    let process = service.open(service.sleeper());
    assert_eq!(process.stop(LONG).await.unwrap(), None, "there is nothing to stop");
    launch_late(&service, 0);
    assert!(matches!(process.start(LONG).await.unwrap(), Started::New { .. }));
}

/// Hands a launcher the request of a lidless that is gone, for the generation of before the stop: it must do nothing.
fn launch_late(service: &Service, before: u64) {
    let request = serde_json::json!({
        "after_generation": before, "not_after_us": u64::MAX / 2, "command": ["touch", service.path("undone")],
        "dir": null, "env": [], "user": null, "output": service.path("output"),
    });
    let mut late = Command::new(launcher())
        .args([std::ffi::OsStr::new("__launch"), service.slot().as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    serde_json::to_writer(late.stdin.take().unwrap(), &request).unwrap();
    let output = late.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), r#"{"report":"superseded"}"#);
    assert_eq!(output.status.code(), Some(75));
    assert!(!service.path("undone").exists());
}

/// Its main thread ends, the other goes on: the kernel shows such a process as a zombie.
const HEADLESS: &str = "#include <pthread.h>\n#include <unistd.h>\n\
    static void *work(void *none) { for (;;) pause(); return none; }\n\
    int main(void) { pthread_t other; pthread_create(&other, 0, work, 0); pthread_exit(0); }\n";

#[tokio::test]
async fn a_process_whose_main_thread_ended_is_not_started_beside_itself() {
    let service = Service::new();
    fs::write(service.path("headless.c"), HEADLESS).unwrap();
    // The linker of every Rust toolchain, so it is wherever these tests were built.
    let built = Command::new("cc")
        .args(["-pthread", "-o", "headless", "headless.c"])
        .current_dir(service.dir.path())
        .status();
    if !built.is_ok_and(|status| status.success()) {
        println!("skipped: no C compiler");
        return;
    }
    let first = service.open(service.script("exec ./headless"));
    first.start(LONG).await.unwrap();
    let pid = pid_of(&first);
    wait_until("its main thread has ended", || state_of(pid) == Some('Z')).await;

    let next = service.open(service.sleeper());
    assert!(matches!(next.adopt().unwrap(), ProcessState::Running { pid: found, .. } if found == pid));
    // With no record of it, too.
    fs::remove_file(service.slot().join("instance.json")).unwrap();
    let next = service.open(service.sleeper());
    assert!(matches!(next.start(LONG).await.unwrap(), Started::Adopted { pid: found, .. } if found == pid));
    assert_eq!(service.starts().len(), 1);
    assert_eq!(next.stop(LONG).await.unwrap().unwrap().pid, pid);
    assert!(fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count) <= 1, "a thread goes on");
}
