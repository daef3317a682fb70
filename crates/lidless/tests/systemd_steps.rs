//! Does a step outlive the lidless that began it, as a unit of a real systemd, and is it counted once by the next?

#[path = "../../lidless-drivers/tests/support/systemd_host.rs"]
mod host;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use host::Host;
use rustix::process::Signal;
use serde_json::Value;

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(5);
const LIDLESS: &str = "/usr/local/bin/lidless";
const CONFIG: &str = "/etc/lidless/lidless.yaml";
const STATE: &str = "/var/lib/lidless";

/// Books its key, once there is no file `wait` any more, and ends as the file `ends` says.
const BOOK: &str = r#"#!/bin/bash
cd /run/t
if [ "$1" = --look ]; then
  if grep -q "^$LIDLESS_IDEMPOTENCY_KEY " ledger; then echo '{"applied":true,"evidence":"it is in the ledger"}'
  else echo '{"applied":false,"evidence":"it is not in the ledger"}'; fi
  exit
fi
read -r question
echo "$question" > heard
echo "at work: $1" >&2
echo "$LIDLESS_ATTEMPT $PPID $(umask) $ODD" >> began
while test -e wait; do sleep 0.05; done
echo "$LIDLESS_IDEMPOTENCY_KEY $LIDLESS_STEP" >> ledger
. ./ends
"#;

const UNIT: &str = "\
Type=notify
ExecStart=/usr/local/bin/lidless serve /etc/lidless/lidless.yaml
StateDirectory=lidless
KillMode=process
UMask=0027
Environment=\"ODD=a \\\"b\\\" $c\"
[Unit]
StartLimitIntervalSec=0";

/// A host with a lidless that is a unit, and a pipeline whose second step can be held up.
struct Rig(Host);

impl Rig {
    fn boot(pay: &str, unit: &str) -> Option<Rig> {
        let host = Host::boot()?;
        let binary = std::fs::read(env!("CARGO_BIN_EXE_lidless")).expect("the binary under test is built");
        host.put(LIDLESS, binary);
        host.put("/opt/book", BOOK);
        host.run(&["chmod", "755", LIDLESS, "/opt/book"]);
        host.put("/run/t/ends", "echo '{\"ok\":true,\"output\":{\"amount\":5}}'");
        host.put("/run/t/ledger", "");
        host.put("/run/t/wait", "");
        host.run(&["chmod", "-R", "a+rwX", "/run/t"]);
        host.put(
            CONFIG,
            format!(
                "version: 1\nweb: off\npipelines:\n  vault:\n    steps:\n      \
                 - LOOK: {{ call: {{ exec: [sh, -c, 'echo all is well'] }} }}\n      \
                 - PAY:\n          call: {{ exec: {{ command: [/opt/book, 'a $HOME %h'] }} }}\n          {pay}\n      \
                 - TELL: {{ call: {{ exec: [sh, -c, 'cat > /run/t/told'] }} }}\n"
            ),
        );
        host.install("lidless", unit);
        let rig = Rig(host);
        rig.start();
        Some(rig)
    }

    fn start(&self) {
        // `Type=notify`: this returns once lidless says READY.
        self.0.run(&["systemctl", "start", "lidless"]);
    }

    /// Begins a run and returns once its step is at work.
    fn at_work(&self) {
        self.ask(&["run", "vault", "--no-wait"]);
        self.until("the step is at work", || (!self.read("/run/t/began").is_empty()).then_some(()));
    }

    fn kill_lidless(&self) {
        self.0.signal("lidless", Signal::KILL);
        self.until("lidless is gone", || (self.0.show("lidless", "ActiveState") == "failed").then_some(()));
    }

    fn let_it_go_on(&self) {
        self.0.run(&["rm", "/run/t/wait"]);
    }

    /// The name of the unit of the step at work, or of the one that has ended and is not let go.
    fn units(&self) -> Vec<String> {
        let listed =
            self.0.run(&["systemctl", "list-units", "--all", "--plain", "--no-legend", "lidless-step-*"]);
        listed.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
    }

    /// Waits until the step has ended with nobody there to see it.
    fn until_ended(&self, result: &str) {
        let [unit] = &self.units()[..] else { panic!("one unit: {:?}", self.units()) };
        self.until("the step has ended", || {
            let ended =
                self.0.show(unit, "SubState") == "exited" || self.0.show(unit, "ActiveState") == "failed";
            ended.then_some(())
        });
        assert_eq!(self.0.show(unit, "Result"), result);
    }

    fn until_run_is(&self, state: &str) {
        self.until(&format!("the run is {state}"), || {
            (self.ask(&["runs"])?["runs"][0]["state"] == state).then_some(())
        });
    }

    /// Nothing of the step is left once its outcome is on record.
    fn until_tidy(&self) {
        self.until("the unit and its files are let go", || {
            let files = self.0.run(&["sh", "-c", "ls /var/lib/lidless/runs/units 2>/dev/null || true"]);
            (self.units().is_empty() && files.is_empty()).then_some(())
        });
    }

    fn booked(&self) -> usize {
        self.read("/run/t/ledger").lines().count()
    }

    fn attempts(&self) -> usize {
        self.read("/run/t/began").lines().count()
    }

    fn events(&self) -> String {
        self.ask(&["events"]).unwrap_or_default().to_string()
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/root{path}", self.0.init)).unwrap_or_default()
    }

    /// Asks the daemon by its command line; `None` while it does not answer.
    fn ask(&self, args: &[&str]) -> Option<Value> {
        let socket = format!("unix:/proc/{}/root{STATE}/lidless.sock", self.0.init);
        let mut command = Command::new(env!("CARGO_BIN_EXE_lidless"));
        command.args(["--json", "--connect", &socket]).args(args).stdin(Stdio::null());
        serde_json::from_slice(&command.output().expect("the binary under test runs").stdout).ok()
    }

    #[track_caller]
    fn until<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            // tidy-allow: between two looks at a condition
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0.run(&["sh", "-c", "journalctl --no-pager -n 80 || true"]));
            eprintln!("{:#}", self.ask(&["runs"]).unwrap_or_default());
        }
    }
}

const CONFIRM: &str = "confirm: { exec: [/opt/book, --look] }\n          value: {}";
const ONE_SHOT: &str = "class: one_shot\n          value: {}";
const IDEMPOTENT: &str = "class: idempotent";

#[test]
fn a_step_that_ended_while_lidless_was_dead_is_adopted_with_what_it_said() {
    for class in [CONFIRM, ONE_SHOT, IDEMPOTENT] {
        let Some(rig) = Rig::boot(class, UNIT) else { return };
        rig.at_work();
        rig.kill_lidless();
        rig.let_it_go_on();
        rig.until_ended("success");
        assert_eq!(rig.booked(), 1, "it went on alone");
        rig.start();
        rig.until_run_is("done");
        assert_eq!((rig.booked(), rig.attempts()), (1, 1), "{class}");
        let told: Value =
            serde_json::from_str(&rig.read("/run/t/told")).expect("what the next step was told");
        assert_eq!(told["outputs"]["PAY"]["amount"], 5);
        assert!(rig.events().contains("adopted lidless-step-"), "{class}: {}", rig.events());
        let began = rig.read("/run/t/began");
        assert_eq!(began.trim(), "1 1 0027 a \"b\" $c", "a child of systemd's, with lidless's environment");
        assert!(rig.read("/run/t/heard").contains("\"step\":\"PAY\""), "it was asked as ever");
        let log = rig.read(&format!("{STATE}/runs/run-1.log"));
        assert!(log.contains("PAY at work: a $HOME %h"), "{log}");
        rig.until_tidy();
    }
}

#[test]
fn a_step_that_is_still_at_work_is_waited_for_and_not_done_again() {
    for class in [ONE_SHOT, IDEMPOTENT] {
        let Some(rig) = Rig::boot(class, UNIT) else { return };
        rig.at_work();
        for _ in 0..2 {
            rig.kill_lidless();
            rig.start();
            rig.until("lidless answers", || rig.ask(&["runs"]));
        }
        rig.let_it_go_on();
        rig.until_run_is("done");
        assert_eq!((rig.booked(), rig.attempts()), (1, 1), "{class}");
        rig.until_tidy();
    }
}

#[test]
fn a_deadline_holds_while_lidless_is_dead() {
    for (class, state, attempts) in [(ONE_SHOT, "held", 1), (CONFIRM, "done", 2)] {
        let Some(rig) = Rig::boot(&format!("timeout: 3s\n          {class}"), UNIT) else { return };
        rig.at_work();
        rig.kill_lidless();
        rig.until_ended("timeout");
        rig.let_it_go_on();
        rig.start();
        rig.until_run_is(state);
        let says = if state == "held" { "not done by its deadline" } else { "it is not in the ledger" };
        assert!(rig.events().contains(says), "{}", rig.events());
        assert_eq!((rig.booked(), rig.attempts()), (attempts - 1, attempts), "{class}");
    }
}

#[test]
fn a_failure_while_lidless_was_dead_is_one_like_any_other() {
    for (class, ends, says) in [
        (IDEMPOTENT, "exit 3", "looked it up: failed (at work"),
        (ONE_SHOT, "echo '{\"ok\":false,\"error\":\"no gas\",\"class\":\"permanent\"}'; exit 1", "no gas"),
    ] {
        let Some(rig) = Rig::boot(class, UNIT) else { return };
        rig.0.put("/run/t/ends", ends);
        rig.at_work();
        rig.kill_lidless();
        rig.let_it_go_on();
        rig.until_ended("exit-code");
        rig.start();
        rig.until_run_is("failed");
        assert!(rig.events().contains(says), "{}", rig.events());
        assert_eq!(rig.attempts(), 1, "{class}: it had one attempt");
        rig.until_tidy();
    }
}

#[test]
fn a_lidless_that_lives_sees_a_unit_end_at_once_and_leaves_nothing() {
    let Some(rig) = Rig::boot(ONE_SHOT, UNIT) else { return };
    rig.at_work();
    assert_eq!(rig.units().len(), 1);
    rig.let_it_go_on();
    rig.until_run_is("done");
    assert_eq!((rig.booked(), rig.attempts()), (1, 1));
    rig.until_tidy();
}

#[test]
fn a_lidless_that_lives_ends_a_unit_at_its_deadline() {
    let Some(rig) = Rig::boot(&format!("timeout: 1s\n          {ONE_SHOT}"), UNIT) else { return };
    rig.at_work();
    rig.until_run_is("held");
    assert!(rig.events().contains("waits for a person: not done within "), "{}", rig.events());
    rig.let_it_go_on();
    rig.until_tidy();
    assert_eq!(rig.booked(), 0, "it was ended before it could go on");
}

#[test]
fn a_unit_that_nobody_wants_any_more_is_ended() {
    let Some(rig) = Rig::boot(ONE_SHOT, UNIT) else { return };
    rig.at_work();
    rig.ask(&["cancel", "run-1"]);
    rig.until_run_is("held");
    rig.let_it_go_on();
    assert_eq!(rig.booked(), 0, "nobody wanted it any more");
}

#[test]
fn where_no_unit_is_to_be_had_a_step_is_a_child_of_lidless() {
    let unprivileged = UNIT.replace("[Unit]", "User=nobody\n[Unit]");
    let shut_in = UNIT.replace("[Unit]", "PrivateTmp=yes\n[Unit]");
    for (never, unit) in [(true, UNIT), (false, &*unprivileged), (false, &*shut_in)] {
        let Some(rig) = Rig::boot(IDEMPOTENT, unit) else { return };
        if never {
            let config = rig.read(CONFIG).replace("'a $HOME %h'] }", "'a'], unit: never }");
            rig.0.put(CONFIG, config);
            rig.0.run(&["systemctl", "restart", "lidless"]);
        }
        let pid = rig.0.show("lidless", "MainPID");
        rig.at_work();
        assert!(rig.units().is_empty());
        let began = rig.read("/run/t/began");
        assert_eq!(began.split_whitespace().nth(1), Some(&*pid), "{began}");
        rig.let_it_go_on();
        rig.until_run_is("done");
        assert_eq!((rig.booked(), rig.attempts()), (1, 1));
        rig.until_tidy();
    }
}
