//! Do the systemd drivers tell the truth? Asked of a real systemd, whose units, D-Bus and PID 1 are broken in turn.

#[path = "support/systemd_host.rs"]
mod host;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use host::Host;
use lidless_core::check::{CheckOutcome, FailureKind};
use lidless_core::event::{Confirmation, Outcome};
use lidless_core::spec::Action;
use lidless_core::time::Now;
use lidless_drivers::actuator::Actuator;
use lidless_drivers::actuator::systemd::SystemdActuator;
use lidless_drivers::check::Check;
use lidless_drivers::check::systemd::SystemdCheck;
use lidless_drivers::systemd::Bus;
use rustix::process::Signal;

const SECOND: Duration = Duration::from_secs(1);
const SHORT: Duration = Duration::from_millis(300);
/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much later than its deadline an answer may come on a busy machine.
const LATE: Duration = Duration::from_millis(500);

/// A host, and the drivers of one of its units.
struct Rig {
    host: Host,
    bus: Arc<Bus>,
    check: SystemdCheck,
    actuator: SystemdActuator,
    epoch: Instant,
}

impl Rig {
    fn boot(unit: &str) -> Option<Rig> {
        let host = Host::boot()?;
        let bus = Arc::new(Bus::at(host.bus()));
        let epoch = Instant::now();
        let check = SystemdCheck::new(Arc::clone(&bus), unit);
        let actuator = SystemdActuator::new(Arc::clone(&bus), unit, Arc::new(move || epoch.elapsed()));
        Some(Rig { host, bus, check, actuator, epoch })
    }

    #[expect(clippy::disallowed_methods, reason = "a record tells the wall clock, too")]
    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
        Now {
            monotonic: self.epoch.elapsed(),
            wall_ms: wall.try_into().expect("before the year 292,000,000"),
        }
    }

    async fn probe(&self) -> String {
        told(&self.check.probe(SECOND).await)
    }

    async fn perform(&self, action: Action, timeout: Duration) -> String {
        match self.actuator.perform(action, timeout).await {
            Outcome::Applied { output } | Outcome::Found { output } => format!("applied: {output}"),
            Outcome::NotApplied { reason } => format!("not applied: {reason}"),
            Outcome::Refused { reason } | Outcome::Unavailable { reason } | Outcome::Missing { reason } => {
                format!("unavailable: {reason}")
            }
            Outcome::Unknown { reason } => format!("unknown: {reason}"),
        }
    }

    async fn confirm(&self, action: Action, intent_at: Now) -> String {
        match self.actuator.confirm(action, intent_at, SECOND).await {
            Confirmation::Applied { evidence, .. } => format!("applied: {evidence}"),
            Confirmation::NotApplied { evidence } => format!("not applied: {evidence}"),
            Confirmation::Failed { reason, .. } => format!("failed: {reason}"),
            Confirmation::StillUnknown { reason, .. } => format!("still unknown: {reason}"),
        }
    }

    /// Probes until the answer begins so.
    async fn until(&self, wanted: &str) -> String {
        let began = Instant::now();
        loop {
            let answer = self.probe().await;
            if answer.starts_with(wanted) {
                return answer;
            }
            assert!(began.elapsed() < PATIENCE, "still no `{wanted}` but `{answer}`");
            // tidy-allow: between two looks at a condition
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Restarts the unit until a signal tells of it: from then on the check is subscribed.
    async fn listen(&self) {
        let began = Instant::now();
        self.probe().await;
        loop {
            self.host.run(&["systemctl", "restart", "app"]);
            let changed = self.check.changed().expect("systemd sends signals");
            if tokio::time::timeout(SECOND, changed).await.is_ok() {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "no signal of a restart");
        }
    }

    /// Probes only when a signal tells of a change, until the unit is down.
    async fn told_down(&self) -> String {
        loop {
            let changed = self.check.changed().expect("systemd sends signals");
            tokio::time::timeout(PATIENCE, changed).await.expect("a signal of the change");
            let answer = self.probe().await;
            if answer.starts_with("certain") {
                return answer;
            }
        }
    }
}

fn told(outcome: &CheckOutcome) -> String {
    match outcome {
        CheckOutcome::Pass { .. } => "pass".to_owned(),
        CheckOutcome::Fail { failure, .. } => {
            assert_eq!(failure.kind, FailureKind::Unit);
            let certain = if failure.certain { "certain " } else { "" };
            let code = failure.exit_code.map_or_else(String::new, |code| format!(", exit code {code}"));
            format!("{certain}fail: {}{code}", failure.detail)
        }
        CheckOutcome::Inconclusive { reason } => format!("inconclusive: {reason}"),
    }
}

/// Asserts that an answer is what it should be, up to a number or so at its end.
#[track_caller]
fn begins(answer: &str, wanted: &str) {
    assert!(answer.starts_with(wanted), "wanted `{wanted}...` but got `{answer}`");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_unit_is_told_by_signal_and_is_a_certain_failure() {
    let Some(rig) = Rig::boot("app") else { return };
    rig.host.start("app", "ExecStart=sleep infinity");
    assert_eq!(rig.probe().await, "pass");

    rig.listen().await;
    let began = Instant::now();
    rig.host.signal("app", Signal::KILL);
    let answer = rig.told_down().await;
    let took = began.elapsed();
    println!("kill -9 to the failed probe, by signal: {took:?}");
    assert_eq!(answer, "certain fail: failed (result signal, killed by SIGKILL)");
    assert!(took < SECOND, "told after {took:?}");

    rig.host.start("app", "ExecStart=sh -c 'exit 7'");
    assert_eq!(rig.until("certain").await, "certain fail: failed (result exit-code, status 7), exit code 7");
    rig.host.run(&["systemctl", "reset-failed", "app"]);
    rig.host.start("app", "ExecStart=sleep infinity");
    rig.host.run(&["systemctl", "stop", "app"]);
    begins(&rig.probe().await, "certain fail: inactive (dead, result success");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_on_its_way_is_neither_up_nor_down_but_one_that_waits_for_its_restart_is_down() {
    let Some(rig) = Rig::boot("app") else { return };
    rig.host.install("app", "ExecStartPre=sleep 30\nExecStart=sleep infinity");
    rig.host.run(&["systemctl", "start", "--no-block", "app"]);
    begins(&rig.until("inconclusive: activating (start-pre)").await, "inconclusive");
    rig.host.run(&["systemctl", "stop", "app"]);

    rig.host.start("app", "ExecStart=sh -c 'exit 3'\nRestart=always\nRestartSec=60");
    let answer = rig.until("certain").await;
    assert_eq!(answer, "certain fail: activating (auto-restart, result exit-code, status 3), exit code 3");
    // Healing does not wait for systemd's own restart.
    rig.host.put("/etc/systemd/system/app.service", "[Service]\nExecStart=sleep infinity\nRestart=always");
    rig.host.run(&["systemctl", "daemon-reload"]);
    begins(&rig.perform(Action::Restart, PATIENCE).await, "applied: job ");
    assert_eq!(rig.probe().await, "pass");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_process_reads_active_which_is_why_there_are_other_checks() {
    let Some(rig) = Rig::boot("app") else { return };
    rig.host.start("app", "ExecStart=sleep infinity");
    rig.host.signal("app", Signal::STOP);
    assert_eq!(rig.probe().await, "pass");
    // It cannot even be asked to end, until systemd continues it to let it take the SIGTERM.
    begins(&rig.perform(Action::Restart, PATIENCE).await, "applied: job ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_applied_once_its_job_is_done_and_leaves_its_trace() {
    let Some(rig) = Rig::boot("app") else { return };
    rig.host.start("app", "ExecStartPre=sleep 0.3\nExecStart=sleep infinity");
    let old = rig.host.show("app", "MainPID");
    let before = rig.now();
    begins(&rig.confirm(Action::Restart, before).await, "not applied: active, started ");

    let began = Instant::now();
    let answer = rig.perform(Action::Restart, PATIENCE).await;
    println!("restart with a start of 0.3 s: {:?}, {answer}", began.elapsed());
    assert!(began.elapsed() >= Duration::from_millis(300), "it was not awaited");
    let new = rig.host.show("app", "MainPID");
    assert_ne!(new, old);
    begins(&answer, "applied: job ");
    assert!(answer.ends_with(&format!(" done; main process {new}")), "{answer}");
    assert_eq!(rig.probe().await, "pass");
    begins(&rig.confirm(Action::Restart, before).await, "applied: active, started ");
    begins(&rig.confirm(Action::Restart, rig.now()).await, "not applied: active, started ");

    begins(&rig.perform(Action::Start, PATIENCE).await, "applied: job ");
    begins(&rig.confirm(Action::Start, rig.now()).await, "applied: active, started ");
    assert_eq!(rig.host.show("app", "MainPID"), new, "a start of what runs starts nothing");

    begins(&rig.perform(Action::Reload, PATIENCE).await, "not applied: cannot reload app.service: ");
    rig.host.install("app", "ExecStart=sleep infinity\nExecReload=true");
    let before = rig.now();
    begins(&rig.confirm(Action::Reload, before).await, "not applied: ");
    begins(&rig.perform(Action::Reload, PATIENCE).await, "applied: job ");
    begins(&rig.confirm(Action::Reload, before).await, "applied: its reload commands ran since");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_whose_unit_died_again_was_a_restart() {
    let Some(rig) = Rig::boot("app") else { return };
    rig.host.start("app", "ExecStart=sleep infinity");
    let before = rig.now();
    begins(&rig.perform(Action::Restart, PATIENCE).await, "applied: job ");
    rig.host.signal("app", Signal::KILL);
    rig.until("certain fail: failed (result signal, killed by SIGKILL)").await;
    begins(&rig.confirm(Action::Restart, before).await, "applied: app.service is failed (result signal, ");
    begins(&rig.confirm(Action::Start, before).await, "applied: app.service is failed (result signal, ");
    let after = rig.now();
    begins(&rig.confirm(Action::Restart, after).await, "not applied: app.service is failed (result signal, ");
    begins(&rig.confirm(Action::Start, after).await, "not applied: app.service is failed (result signal, ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_limit_is_lifted_for_an_act_of_ours_but_a_start_that_fails_is_not_repeated() {
    let Some(rig) = Rig::boot("app") else { return };
    let limit = "[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=3";
    let starts = || rig.host.run(&["sh", "-c", "cat /run/starts | wc -l"]);
    let script = "ExecStart=sh -c 'echo >>/run/starts; test -e /run/fixed && exec sleep infinity; exit 1'";

    // It crashes until systemd gives up; then the cause is mended.
    rig.host.start("app", &format!("{script}\nRestart=always\nRestartSec=0\n{limit}"));
    rig.until("certain fail: failed").await;
    assert_eq!(starts(), "3");
    println!("after the start limit, Result is {}", rig.host.show("app", "Result"));
    rig.host.run(&["touch", "/run/fixed"]);
    let answer = rig.perform(Action::Restart, PATIENCE).await;
    begins(&answer, "applied: reset a start limit; job ");
    assert_eq!((starts(), rig.probe().await), ("4".to_owned(), "pass".to_owned()));

    // A unit that runs is not left stopped when its restart is one too many.
    for _ in 0..2 {
        begins(&rig.perform(Action::Restart, PATIENCE).await, "applied: job ");
    }
    begins(&rig.perform(Action::Restart, PATIENCE).await, "applied: reset a start limit; job ");
    assert_eq!(rig.probe().await, "pass");

    // One that is started and fails by itself is started once an act.
    rig.host.start("app", &format!("Type=notify\nExecStart=sh -c 'echo >>/run/starts; exit 1'\n{limit}"));
    rig.host.run(&["sh", "-c", "systemctl stop app; systemctl reset-failed; rm /run/starts"]);
    let answer = rig.perform(Action::Restart, PATIENCE).await;
    assert!(answer.contains(" ended as failed: app.service is failed (result "), "{answer}");
    assert_eq!(starts(), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_that_refuses_to_stop_is_killed_by_systemd_and_an_impatient_act_is_confirmed_later() {
    let Some(rig) = Rig::boot("app") else { return };
    rig.host.start("app", "ExecStart=sh -c 'trap \"\" TERM; while :; do sleep 1; done'\nTimeoutStopSec=1");
    let began = Instant::now();
    begins(&rig.perform(Action::Restart, PATIENCE).await, "applied: job ");
    assert!(began.elapsed() >= SECOND, "it stopped at once");

    let before = rig.now();
    let answer = rig.perform(Action::Restart, Duration::from_millis(300)).await;
    begins(&answer, "unknown: job ");
    assert!(answer.ends_with(" still running after 0.3 s"), "{answer}");
    begins(&rig.probe().await, "inconclusive: deactivating (stop-sigterm)");
    let began = Instant::now();
    let mut answer = rig.confirm(Action::Restart, before).await;
    begins(&answer, "still unknown: job ");
    while answer.starts_with("still unknown") && began.elapsed() < PATIENCE {
        // tidy-allow: between two looks at a condition
        tokio::time::sleep(Duration::from_millis(50)).await;
        answer = rig.confirm(Action::Restart, before).await;
    }
    begins(&answer, "applied: active, started ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_that_is_not_there_is_neither_down_nor_restarted() {
    let Some(rig) = Rig::boot("nowhere") else { return };
    assert_eq!(rig.probe().await, "inconclusive: no such unit: nowhere.service");
    begins(&rig.perform(Action::Restart, PATIENCE).await, "not applied: cannot restart nowhere.service: ");
    begins(&rig.confirm(Action::Restart, rig.now()).await, "not applied: ");

    let odd = SystemdCheck::new(Arc::clone(&rig.bus), "no good");
    begins(&told(&odd.probe(SECOND).await), "inconclusive: no such unit: no good.service");
    rig.host.run(&["systemctl", "mask", "nowhere"]);
    assert_eq!(rig.probe().await, "inconclusive: no such unit: nowhere.service is masked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_is_not_allowed_says_how_to_allow_it() {
    let Some(rig) = Rig::boot("app") else { return };
    rig.host.start("app", "ExecStart=sleep infinity");
    let policy = r#"<busconfig><policy user="root">
        <deny send_destination="org.freedesktop.systemd1" send_interface="org.freedesktop.systemd1.Manager"
            send_member="RestartUnit"/></policy></busconfig>"#;
    rig.host.put("/etc/dbus-1/system.d/deny.conf", policy);
    let reload = ["busctl", "call", "org.freedesktop.DBus", "/", "org.freedesktop.DBus", "ReloadConfig"];
    rig.host.run(&reload);
    let answer = rig.perform(Action::Restart, PATIENCE).await;
    begins(&answer, "unavailable: not allowed to restart app.service (");
    assert!(answer.contains("polkit rule"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_or_restarted_bus_is_unavailable_within_the_deadline_and_comes_back() {
    let Some(rig) = Rig::boot("app") else { return };
    rig.host.start("app", "ExecStart=sleep infinity");
    rig.listen().await;
    let process = rig.host.process("app");
    let connections = || rig.host.run(&["sh", "-c", "busctl list --unique --no-legend | wc -l"]);
    let connections_before: u32 = connections().parse().expect("a number");

    let hung = async |what: &str| {
        // Again and again: over the connection that was, and while there is none.
        for _ in 0..3 {
            let began = Instant::now();
            begins(&told(&rig.check.probe(SHORT).await), "inconclusive: no ");
            begins(&rig.perform(Action::Restart, SHORT).await, "unavailable: no ");
            begins(&rig.confirm(Action::Restart, rig.now()).await, "still unknown: no ");
            assert!(began.elapsed() < 2 * SHORT + SECOND + LATE, "{what}: {:?}", began.elapsed());
        }
    };
    rig.host.signal("dbus", Signal::STOP);
    hung("the bus hangs").await;
    rig.host.signal("dbus", Signal::CONT);
    rig.until("pass").await;
    rig.host.signal_init(Signal::STOP);
    hung("PID 1 hangs").await;
    rig.host.signal_init(Signal::CONT);
    rig.until("pass").await;
    assert_eq!(rig.host.process("app"), process, "what was unavailable was not done later either");
    // The check's listener may keep the connection that it has; all others are closed.
    let connections: u32 = connections().parse().expect("a number");
    assert!(connections <= connections_before + 1, "{connections_before} connections became {connections}");

    // The daemon dies. The next connection starts another, to which systemd comes back.
    rig.host.signal("dbus", Signal::KILL);
    rig.until("pass").await;
    begins(&rig.perform(Action::Restart, PATIENCE).await, "applied: job ");
    rig.listen().await;
    rig.host.signal("app", Signal::KILL);
    begins(&rig.told_down().await, "certain fail: failed (result signal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_gone_is_unavailable_at_once() {
    let Some(rig) = Rig::boot("app") else { return };
    rig.host.start("app", "ExecStart=sleep infinity");
    assert_eq!(rig.probe().await, "pass");
    rig.host.crash();
    for _ in 0..3 {
        let began = Instant::now();
        begins(&rig.probe().await, "inconclusive: no connection to systemd over D-Bus: ");
        begins(
            &rig.perform(Action::Restart, PATIENCE).await,
            "unavailable: no connection to systemd over D-Bus: ",
        );
        assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn without_any_bus_nothing_is_known_and_nothing_is_done() {
    let bus = Arc::new(Bus::at("unix:path=/nonexistent/system_bus_socket"));
    let check = SystemdCheck::new(Arc::clone(&bus), "app");
    let actuator = SystemdActuator::new(bus, "app", Arc::new(|| Duration::ZERO));
    begins(&told(&check.probe(SECOND).await), "inconclusive: no connection to systemd over D-Bus: ");
    let outcome = actuator.perform(Action::Restart, SECOND).await;
    assert!(matches!(outcome, Outcome::Unavailable { .. }), "{outcome:?}");
}
