//! What becomes of a command that heals when lidless is killed beside it? No other runs until it has ended, and it does end.

#![allow(clippy::unwrap_used, missing_docs)]

mod process_support;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lidless_core::event::{Confirmation, Outcome};
use lidless_core::spec::Action;
use lidless_core::time::Now;
use lidless_drivers::actuator::Actuator;
use lidless_drivers::actuator::exec::ExecActuator;
use lidless_drivers::child::CommandSpec;
use process_support::*;

const INTENT: Now = Now { monotonic: Duration::ZERO, wall_ms: 0 };

/// The service's directory holds what the command writes; its record is in the slot.
fn actuator(service: &Service, script: &str) -> ExecActuator {
    let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    let dir = Some(service.dir.path().to_owned());
    let command = CommandSpec { argv, dir, ..CommandSpec::default() };
    ExecActuator::new(command, None).remembering(&service.slot()).unwrap()
}

/// A lidless that runs a command, which writes its pid into a file; returns it with that pid.
async fn acting(service: &Service, script: &str, timeout: Duration) -> (Child, i32) {
    let lidless = Command::new(launcher())
        .arg("act")
        .arg(service.slot())
        .arg(timeout.as_millis().to_string())
        .arg(format!("echo $$ > pid.new; mv pid.new pid; {script}"))
        .current_dir(service.dir.path())
        .env("TEST_MARKER", service.dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the command runs", || service.path("pid").exists()).await;
    let pid = fs::read_to_string(service.path("pid")).unwrap().trim().parse().unwrap();
    // The test would otherwise race against the write that it is about.
    let recorded = || fs::read_to_string(service.slot().join("command.json")).unwrap_or_default();
    wait_until("it is on record", || recorded().contains(&format!("\"pid\":{pid},"))).await;
    (lidless, pid)
}

fn still_unknown(answer: Confirmation) -> (String, Duration) {
    match answer {
        Confirmation::StillUnknown { reason, retry_after } => (reason, retry_after),
        other => panic!("known: {other:?}"),
    }
}

#[tokio::test]
async fn a_command_at_work_is_awaited_and_no_other_runs_beside_it() {
    let service = Service::new();
    let (mut lidless, pid) = acting(&service, "sleep 1000; :", LONG).await;
    lidless.kill().unwrap();
    lidless.wait().unwrap();
    assert!(is_alive(pid), "nobody is left to end it");

    let next = actuator(&service, "echo > ran");
    let reason = format!("an earlier command is still at work: process {pid}");
    assert_eq!(next.perform(Action::Restart, LONG).await, Outcome::Unavailable { reason });
    assert!(!service.path("ran").exists(), "two commands at once");
    let (reason, again) =
        still_unknown(next.confirm(Action::Restart, INTENT, Duration::from_millis(50)).await);
    assert_eq!(reason, format!("the command is still at work: process {pid}"));
    assert!(again > Duration::ZERO);

    // It ends while it is awaited: told at once, well before the deadlines.
    let (answer, ()) = tokio::join!(next.confirm(Action::Restart, INTENT, LONG), async { kill9(pid) });
    assert_eq!(still_unknown(answer).1, Duration::ZERO);
    assert!(matches!(next.perform(Action::Restart, LONG).await, Outcome::Applied { .. }));
    assert!(service.path("ran").exists());
}

#[tokio::test]
async fn a_command_at_work_is_killed_at_the_deadline_that_its_act_had() {
    let service = Service::new();
    // Not the group's leader alone.
    let (mut lidless, pid) = acting(&service, "sleep 1000; :", Duration::from_millis(600)).await;
    lidless.kill().unwrap();
    lidless.wait().unwrap();
    let next = actuator(&service, "echo > ran");
    let (_, again) = still_unknown(next.confirm(Action::Restart, INTENT, LONG).await);
    assert_eq!(again, Duration::ZERO);
    assert!(!is_alive(pid));
    wait_until("its children are gone as well", || service.living().is_empty()).await;

    // An act does not wait for a question.
    fs::remove_file(service.path("pid")).unwrap();
    let (mut lidless, pid) = acting(&service, "sleep 1000; :", Duration::from_millis(300)).await;
    lidless.kill().unwrap();
    lidless.wait().unwrap();
    let began = std::time::Instant::now();
    while let Outcome::Unavailable { reason } = next.perform(Action::Restart, LONG).await {
        assert!(reason.ends_with(&format!("process {pid}")), "{reason}");
        assert!(began.elapsed() < LONG, "it is never killed");
        tokio::task::yield_now().await;
    }
    assert!(!is_alive(pid));
    assert!(service.path("ran").exists());
}

#[tokio::test]
async fn a_damaged_or_old_record_holds_up_nothing() {
    let service = Service::new();
    let next = actuator(&service, "echo > ran");
    let record = service.slot().join("command.json");
    for damage in [
        "",
        "{",
        "null",
        "{\"command\":{\"boot_id\":\"of-yesterday\",\"pid\":1,\"start_ticks\":1,\"started_us\":1},\"until_us\":1}",
    ] {
        fs::write(&record, damage).unwrap();
        assert!(matches!(next.perform(Action::Restart, LONG).await, Outcome::Applied { .. }), "{damage}");
    }
    assert_eq!(still_unknown(next.confirm(Action::Restart, INTENT, LONG).await).1, Duration::ZERO);
}
