//! Does lidless, itself a unit of a real systemd, heal another unit there, whatever breaks: the unit, lidless, D-Bus?

#[path = "../../lidless-drivers/tests/support/systemd_host.rs"]
mod host;
#[path = "systemd_heal/rig.rs"]
mod rig;

use std::time::{Duration, Instant};

use lidless_core::event::{Event, Outcome};
use rig::{APP, Before, CONFIG_PATH, LIDLESS, Rig, now_ms};
use rustix::process::Signal;

/// The lines of the app's unit.
fn app(more: &str) -> String {
    format!("ExecStart={APP}\nRestart=no\nTimeoutStopSec=1\n{more}")
}

/// A unit that is slow to start, before systemd calls it started and after: there is time to strike in each step.
fn slow_app() -> String {
    app("ExecStartPre=sh -c 'echo >>/run/tries; sleep 1'").replace(APP, &format!("{APP} --start-delay 1s"))
}

#[test]
fn a_unit_that_is_killed_hangs_or_answers_500_is_healed_by_one_restart() {
    let Some(rig) = Rig::boot(&app("")) else { return };
    rig.killed_and_healed("killed").at_once();

    let before = rig.before();
    rig.host.signal("app", Signal::STOP);
    assert_eq!(rig.host.show("app", "ActiveState"), "active", "systemd does not see it");
    let healed = rig.healed(&before, "hangs");
    healed.at_once();
    assert!(healed.took >= Duration::from_millis(500), "a hang is known by the time-out");

    let before = rig.before();
    rig.tell_app_to("500");
    rig.healed(&before, "answers 500").at_once();
}

#[test]
fn a_unit_at_its_start_limit_is_healed_within_our_own_budget() {
    let Some(rig) = Rig::boot(&app("[Unit]\nStartLimitBurst=2\nStartLimitIntervalSec=60")) else { return };
    let left = rig.left();
    let mut lifted = 0;
    for time in 1..=4 {
        let healed = rig.killed_and_healed(&format!("killed for the {time}. time"));
        healed.at_once();
        let is_lifted = |outcome: &Outcome| matches!(outcome, Outcome::Applied { output } if output.starts_with("reset a start limit"));
        lifted += healed.outcomes.iter().filter(|outcome| is_lifted(outcome)).count();
    }
    assert!(lifted >= 1, "systemd's limit of 2 starts was in the way of 5");
    assert_eq!(rig.left(), left - 4);
}

#[test]
fn a_unit_that_refuses_to_stop_is_healed_once_systemd_has_killed_it() {
    let wrapper = format!("trap \\\"\\\" TERM; while :; do {APP}; sleep 1; done");
    let unit = format!("ExecStart=sh -c \"{wrapper}\"\nRestart=no\nTimeoutStopSec=1");
    let Some(rig) = Rig::boot(&unit) else { return };
    let before = rig.before();
    rig.tell_app_to("500");
    let healed = rig.healed(&before, "answers 500 and refuses to stop");
    healed.at_once();
    assert!(healed.took >= Duration::from_secs(1), "it stopped when asked");
}

#[test]
fn a_lidless_killed_while_it_heals_is_followed_by_one_that_heals_nothing_twice() {
    let Some(rig) = Rig::boot(&slow_app()) else { return };
    let kill = |unit| rig.host.signal(unit, Signal::KILL);
    let is_acted = |event: &Event| matches!(event, Event::StepOutcome { step: 0, .. });
    type Fault<'a> = (&'a str, &'a dyn Fn(&Before));
    let faults: [Fault<'_>; 3] = [
        ("killed right after lidless", &|_| {
            kill("lidless");
            kill("app");
        }),
        ("killed, then lidless while systemd restarts it", &|_| {
            kill("app");
            rig.until_activating();
            kill("lidless");
        }),
        ("killed, then lidless while it verifies", &|before| {
            kill("app");
            rig.until_record(before, "it verifies", is_acted);
            kill("lidless");
        }),
    ];
    for (fault, strike) in faults {
        let before = rig.before();
        let pid = rig.main_pid("lidless");
        strike(&before);
        let healed = rig.healed(&before, fault);
        assert_eq!((healed.heals(), healed.intents()), (1, 1), "{fault}: {:#?}", healed.records);
        assert_eq!(rig.tries(), rig.starts(), "each start was let finish");
        assert_ne!(rig.main_pid("lidless"), pid);
        let begun = healed.records.iter().filter(|record| matches!(record.event, Event::Started { .. }));
        assert_eq!(begun.count(), 1, "{fault}: one lidless took over");
    }
    assert_eq!(rig.host.show("lidless", "NRestarts"), "3");
    rig.killed_and_healed("killed at last").at_once();

    let verify = || rig.host.run(&[LIDLESS, "--config", CONFIG_PATH, "store", "verify"]);
    println!("{}", verify());
    rig.host.run(&["systemctl", "stop", "lidless"]);
    println!("{}", verify());
    assert_eq!(rig.host.show("lidless", "Result"), "success");
    assert_eq!(rig.host.show("app", "ActiveState"), "active", "it outlives lidless");
    assert_eq!((rig.tries(), rig.starts()), (5, 5));
}

#[test]
fn a_lidless_that_hangs_is_restarted_by_the_watchdog_that_it_pats_and_heals_what_broke_meanwhile() {
    let Some(rig) = Rig::boot(&app("")) else { return };
    let patted = || rig.host.show("lidless", "WatchdogTimestampMonotonic");
    let first = patted();
    rig.until("the watchdog is patted", || (patted() != first).then_some(()));
    let text = rig.host.show("lidless", "StatusText");
    assert_eq!(text, "1 up, 0 down, 0 incidents open");

    let before = rig.before();
    let pid = rig.main_pid("lidless");
    rig.host.signal("lidless", Signal::STOP);
    rig.host.signal("app", Signal::KILL);
    let healed = rig.healed(&before, "killed while lidless hangs, with a watchdog of 5 s");
    assert_eq!((healed.heals(), healed.intents()), (1, 1), "{:#?}", healed.records);
    assert_ne!(rig.main_pid("lidless"), pid);
    assert_eq!(rig.host.show("lidless", "NRestarts"), "1");
    let log = rig.host.run(&["journalctl", "--no-pager", "-u", "lidless"]);
    assert!(log.contains("Watchdog timeout"), "{log}");
}

#[test]
fn without_d_bus_nothing_is_counted_as_a_heal_and_all_is_healed_once_it_is_back() {
    let Some(rig) = Rig::boot(&app("")) else { return };
    let without_bus = |fault: &str, come_back: &dyn Fn()| {
        let mut before = rig.before();
        rig.host.signal("app", Signal::KILL);
        let tried = rig.until_record(&before, "it is tried", |event| {
            matches!(event, Event::StepOutcome { step: 0, .. })
        });
        println!("{fault}: {}", serde_json::to_string(&tried.event).expect("a record is JSON"));
        assert!(
            matches!(tried.event, Event::StepOutcome { outcome: Outcome::Unavailable { .. }, .. }),
            "{tried:?}"
        );
        rig.until("what could not be tried is not counted", || {
            rig.status().filter(|app| app["heals_left"]["left"] == before.left && app["run"].is_null())
        });
        assert_eq!(rig.starts(), before.starts);
        before.wall_ms = now_ms();
        come_back();
        let healed = rig.healed(&before, fault);
        let (last, others) = healed.outcomes.split_last().expect("there were two at least");
        assert!(matches!(last, Outcome::Applied { .. }), "{last:?}");
        assert!(others.iter().all(|outcome| matches!(outcome, Outcome::Unavailable { .. })), "{others:?}");
    };
    rig.before();
    rig.host.run(&["systemctl", "stop", "dbus.socket", "dbus.service"]);
    without_bus("killed without D-Bus, from its coming back", &|| {
        rig.host.run(&["systemctl", "start", "dbus.socket", "dbus.service"]);
    });
    rig.before();
    rig.host.signal("dbus", Signal::STOP);
    without_bus("killed while D-Bus hangs, from its going on", &|| rig.host.signal("dbus", Signal::CONT));
    rig.killed_and_healed("killed with D-Bus again").at_once();
}

#[test]
fn a_d_bus_that_dies_during_a_restart_leads_to_no_second_one() {
    let Some(rig) = Rig::boot(&slow_app()) else { return };
    let before = rig.before();
    rig.host.signal("app", Signal::KILL);
    rig.until_activating();
    rig.host.signal("dbus", Signal::KILL);
    let healed = rig.healed(&before, "killed, then D-Bus while systemd restarts it");
    assert_eq!((healed.heals(), healed.intents()), (1, 1), "{:#?}", healed.records);
    assert!(matches!(healed.outcomes.as_slice(), [Outcome::Unknown { .. }]), "{:?}", healed.outcomes);
    assert_eq!((rig.tries(), rig.starts()), (2, 2));
    rig.killed_and_healed("killed with another D-Bus").at_once();
}

#[test]
fn watch_once_heals_a_killed_unit_and_exits_0() {
    let Some(rig) = Rig::without_daemon(&app("")) else { return };
    let watch = || {
        let began = Instant::now();
        let told = rig.host.run(&[LIDLESS, "watch", "--unit", "app", "--once", "--settle", "200ms"]);
        println!("watch --once: {told}, after {:?}", began.elapsed());
        assert_eq!(told, "app is healthy");
    };
    watch();
    assert_eq!(rig.starts(), 1, "what is well is left alone");
    rig.host.signal("app", Signal::KILL);
    rig.until("systemd knows", || (rig.host.show("app", "ActiveState") == "failed").then_some(()));
    watch();
    assert_eq!(rig.host.show("app", "ActiveState"), "active");
    rig.until("it was started once", || (rig.starts() == 2).then_some(()));
}
