//! Is "gone" true of what left the session? `su`, a daemon that forks twice, a child that washed its environment.

#![allow(clippy::unwrap_used, missing_docs)]

mod process_support;

use std::fs;
use std::sync::Arc;

use lidless_core::event::Outcome;
use lidless_core::spec::Action;
use lidless_drivers::actuator::Actuator;
use lidless_drivers::actuator::process::ProcessActuator;
use lidless_drivers::process::{ManagedProcess, ProcessState};
use process_support::*;
use rustix::process::geteuid;

async fn perform(process: &Arc<ManagedProcess>, action: Action) {
    let actuator = ProcessActuator::new(Arc::clone(process), Arc::new(|| LONG));
    let outcome = actuator.perform(action, LONG).await;
    assert!(matches!(outcome, Outcome::Applied { .. }), "{outcome:?}");
}

async fn kill_main(process: &ManagedProcess) {
    kill9(pid_of(process));
    wait_until("it is seen dead", || matches!(process.state(), ProcessState::Exited { .. })).await;
}

/// The pids that the service's scripts wrote into a file, once there are so many.
async fn written(service: &Service, name: &str, count: usize) -> Vec<i32> {
    let read = || -> Vec<i32> {
        let text = fs::read_to_string(service.path(name)).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    wait_until("the pids are written", || read().len() >= count).await;
    read()
}

fn session_of(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(3).unwrap().parse().unwrap()
}

#[tokio::test]
async fn what_su_started_goes_when_su_was_killed() {
    if !geteuid().is_root() {
        println!("skipped: only root becomes another user without a password");
        return;
    }
    let service = Service::new();
    let mut settings = service.sleeper();
    // Without `-`, as services do it: the command gets a session of its own, and keeps the environment.
    settings.command = ["su", "nobody", "-s", "/bin/sh", "-c", "exec sleep 1000"].map(str::to_owned).into();
    let process = service.open(settings);
    process.start(LONG).await.unwrap();
    let app = || service.living().into_iter().find(|pid| *pid != pid_of(&process) && comm(*pid) == "sleep\n");
    wait_until("su runs the command", || app().is_some()).await;
    let old = app().unwrap();
    assert_eq!(session_of(old), old, "su has not made a session: the test shows nothing");

    kill_main(&process).await;
    assert!(is_alive(old), "it ended with su: the test shows nothing");
    perform(&process, Action::Start).await;
    assert!(!is_alive(old), "the command of the old su runs beside the new one");
    process.stop(LONG).await.unwrap();
    assert_eq!(service.living(), [] as [i32; 0]);
}

#[tokio::test]
async fn a_daemon_that_forked_twice_goes_before_a_new_one_comes() {
    let service = Service::new();
    // The lock goes with the daemon: a second instance beside it would tell.
    let process = service.open(
        service.script("(setsid sh -c 'echo $$ >> daemons; exec sleep 1000' &); wait; exec sleep 1000"),
    );
    process.start(LONG).await.unwrap();
    let old = written(&service, "daemons", 1).await[0];
    assert_eq!(session_of(old), old);
    kill_main(&process).await;
    assert!(is_alive(old));
    perform(&process, Action::Restart).await;
    assert!(!is_alive(old), "the old daemon runs beside the new one");
    let new = written(&service, "daemons", 2).await[1];
    process.stop(LONG).await.unwrap();
    assert!(!is_alive(new), "a stop left the daemon");
    service.assert_never_double();
}

#[tokio::test]
async fn a_child_without_session_and_environment_is_known_by_its_parent() {
    let service = Service::new();
    // Its own child, too: when it is looked for again, both parents are gone.
    let process = service.open(service.script(
        "exec 9>&-; env -u LIDLESS_SLOT -u LIDLESS_PID setsid sh -c \
         'sleep 1000 & echo $! >> children; echo $$ >> children; wait' & exec sleep 1000",
    ));
    process.start(LONG).await.unwrap();
    let old = written(&service, "children", 2).await;
    wait_until("the script has become sleep", || comm(pid_of(&process)) == "sleep\n").await;
    perform(&process, Action::Restart).await;
    assert!(!old.iter().any(|pid| is_alive(*pid)), "something of the old instance lives");
}

#[tokio::test]
async fn what_another_lidless_runs_below_is_left_alone() {
    let service = Service::new();
    let process = service.open(service.script(
        "exec 9>&-; LIDLESS_SLOT=/of/another LIDLESS_PID=1 setsid sh -c 'echo $$ >> others; exec sleep 1000' & \
         exec sleep 1000",
    ));
    process.start(LONG).await.unwrap();
    let other = written(&service, "others", 1).await[0];
    process.stop(LONG).await.unwrap();
    assert!(is_alive(other), "it outlives the lidless that runs it, and so what runs that lidless");
}
