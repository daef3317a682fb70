//! How is a lidless watched that heals a unit beside it? A host with both, what the journal says, what systemd says.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lidless_core::event::{Event, Outcome, Record};
use lidless_core::pipeline::plan::Purpose;
use rustix::process::Signal;
use serde_json::Value;

use crate::host::Host;

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(20);
/// How soon a condition is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Where the binary under test lies in the host.
pub(crate) const LIDLESS: &str = "/usr/local/bin/lidless";
pub(crate) const CONFIG_PATH: &str = "/etc/lidless/lidless.yaml";
const SOCKET: &str = "/var/lib/lidless/lidless.sock";

const CONFIG: &str = "\
version: 1
defaults: { every: 200ms, timeout: 500ms, fail_after: 2 }
services:
  app:
    run: { systemd: app.service }
    checks:
      health: { http: { url: http://127.0.0.1:8080/health } }
    heal:
      restart: { attempts: 1000, per: 1h, backoff: 0s..0s }
      verify: { within: 10s }
";
const LIDLESS_UNIT: &str = "\
Type=notify
ExecStart=/usr/local/bin/lidless serve /etc/lidless/lidless.yaml
StateDirectory=lidless
WatchdogSec=5
KillMode=process
Restart=always
LimitCORE=0
[Unit]
StartLimitIntervalSec=0";
/// Each start appends a line, by which starts are counted.
pub(crate) const APP: &str = "/usr/local/bin/lidless demo-service --port 8080 --stamp /run/starts";

/// A host in which lidless heals `app`.
pub(crate) struct Rig {
    pub(crate) host: Host,
}

/// The moment before a fault.
pub(crate) struct Before {
    seq: u64,
    pub(crate) wall_ms: i64,
    pub(crate) starts: usize,
    pub(crate) left: u64,
}

/// What lidless did about a fault.
pub(crate) struct Healed {
    pub(crate) took: Duration,
    pub(crate) records: Vec<Record>,
    /// What the actuator said of each act.
    pub(crate) outcomes: Vec<Outcome>,
}

impl Rig {
    /// Boots a host with an app of these lines, and lidless watching it.
    pub(crate) fn boot(app: &str) -> Option<Rig> {
        let rig = Rig::without_daemon(app)?;
        rig.host.put(CONFIG_PATH, CONFIG);
        // `Type=notify`: this returns once lidless says READY.
        rig.host.start("lidless", LIDLESS_UNIT);
        rig.until("lidless sees the app up", || rig.status().filter(|status| status["health"] == "up"));
        Some(rig)
    }

    pub(crate) fn without_daemon(app: &str) -> Option<Rig> {
        let host = Host::boot()?;
        let binary = std::fs::read(env!("CARGO_BIN_EXE_lidless")).expect("the binary under test is built");
        host.put(LIDLESS, binary);
        host.run(&["chmod", "755", LIDLESS]);
        host.start("app", app);
        let rig = Rig { host };
        rig.until("the app listens", || (rig.starts() == 1).then_some(()));
        Some(rig)
    }

    #[track_caller]
    pub(crate) fn until<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
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

    /// A path of the host, as seen from here.
    fn path(&self, path: &str) -> String {
        format!("/proc/{}/root{path}", self.host.init)
    }

    /// Asks the daemon by its command line; `None` while it does not answer.
    fn ask(&self, args: &[&str]) -> Option<Value> {
        let socket = format!("unix:{}", self.path(SOCKET));
        let mut command = Command::new(env!("CARGO_BIN_EXE_lidless"));
        command.args(["--json", "--connect", &socket]).args(args).stdin(Stdio::null());
        let out = command.output().expect("the binary under test runs");
        serde_json::from_slice(&out.stdout).ok()
    }

    /// How the app stands.
    pub(crate) fn status(&self) -> Option<Value> {
        let mut status = self.ask(&["status"])?;
        let mut app = status["services"][0].take();
        app["seq"] = status["seq"].take();
        Some(app)
    }

    fn records_after(&self, seq: u64) -> Option<Vec<Record>> {
        let mut told = self.ask(&["events", "--after", &seq.to_string()])?;
        let Value::Array(lines) = told["events"].take() else { return None };
        let read = |mut line: Value| serde_json::from_value(line["record"].take()).expect("a record");
        Some(lines.into_iter().map(read).collect())
    }

    pub(crate) fn left(&self) -> u64 {
        self.status().and_then(|app| app["heals_left"]["left"].as_u64()).expect("lidless answers")
    }

    /// How often the app was started. One that was refused because another one runs is a bug of ours.
    pub(crate) fn starts(&self) -> usize {
        let stamps = std::fs::read_to_string(self.path("/run/starts")).unwrap_or_default();
        assert!(!stamps.contains('#'), "started beside itself: {stamps}");
        stamps.lines().count()
    }

    /// How often a slow app was begun to be started.
    pub(crate) fn tries(&self) -> usize {
        std::fs::read_to_string(self.path("/run/tries")).unwrap_or_default().lines().count()
    }

    pub(crate) fn until_activating(&self) {
        let is_activating = || (self.host.show("app", "ActiveState") == "activating").then_some(());
        self.until("systemd restarts the app", is_activating);
    }

    pub(crate) fn main_pid(&self, unit: &str) -> String {
        self.host.show(unit, "MainPID")
    }

    /// Everything before this is over and done with.
    pub(crate) fn before(&self) -> Before {
        let app = self.until("the app is up and left alone", || {
            self.status().filter(|app| app["health"] == "up" && app["run"].is_null())
        });
        let seq = app["seq"].as_u64().expect("a number");
        Before { seq, wall_ms: now_ms(), starts: self.starts(), left: self.left() }
    }

    /// Waits until a record since then is so.
    #[track_caller]
    pub(crate) fn until_record(
        &self,
        before: &Before,
        what: &str,
        wanted: impl Fn(&Event) -> bool,
    ) -> Record {
        self.until(what, || self.records_after(before.seq)?.into_iter().find(|record| wanted(&record.event)))
    }

    /// Waits until the fault since then is healed, and proves that it was healed once and is all over.
    #[track_caller]
    pub(crate) fn healed(&self, before: &Before, fault: &str) -> Healed {
        let closed = self.until_record(before, fault, |event| matches!(event, Event::IncidentClosed { .. }));
        self.until("the run is over, too", || self.status().filter(|app| app["run"].is_null()));
        let records = self.records_after(before.seq).expect("lidless answers");
        let took = closed.at.wall_ms - before.wall_ms;
        let took = Duration::from_millis(took.try_into().expect("closed after the fault"));
        let outcomes: Vec<Outcome> = records
            .iter()
            .filter_map(|record| match &record.event {
                Event::StepOutcome { step: 0, outcome, .. } => Some(outcome.clone()),
                _ => None,
            })
            .collect();
        println!("{fault}: healed after {took:?}; {outcomes:?}");
        assert!(matches!(closed.event, Event::IncidentClosed { healed_by: Some(_), .. }), "{closed:?}");
        assert_eq!(self.host.show("app", "ActiveState"), "active");
        assert_eq!(self.starts(), before.starts + 1, "healed by one start: {records:#?}");
        assert_eq!(self.left(), before.left - 1, "one heal is one of the budget");
        Healed { took, records, outcomes }
    }

    /// Kills the app and waits until it is healed.
    #[track_caller]
    pub(crate) fn killed_and_healed(&self, fault: &str) -> Healed {
        let before = self.before();
        self.host.signal("app", Signal::KILL);
        self.healed(&before, fault)
    }

    /// Asks the app to misbehave.
    pub(crate) fn tell_app_to(&self, how: &str) {
        let request =
            format!("GET /break?how={how} HTTP/1.1\\r\\nHost: app\\r\\nConnection: close\\r\\n\\r\\n");
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/8080; printf '{request}' >&3; cat <&3");
        self.host.run(&["bash", "-c", &script]);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "{}",
                self.host.run(&["sh", "-c", "journalctl --no-pager -n 60 -u lidless -u app || true"])
            );
            eprintln!("{:#?}", self.status());
        }
    }
}

impl Healed {
    /// How many heals were begun.
    pub(crate) fn heals(&self) -> usize {
        let is_heal =
            |event: &Event| matches!(event, Event::RunCreated { purpose: Purpose::Heal { .. }, .. });
        self.records.iter().filter(|record| is_heal(&record.event)).count()
    }

    /// How often the app was about to be restarted.
    pub(crate) fn intents(&self) -> usize {
        let is_act = |event: &Event| matches!(event, Event::StepIntent { step: 0, .. });
        self.records.iter().filter(|record| is_act(&record.event)).count()
    }

    /// Asserts that the unit was restarted at the first attempt.
    #[track_caller]
    pub(crate) fn at_once(&self) {
        assert_eq!((self.heals(), self.intents()), (1, 1), "{:#?}", self.records);
        assert!(matches!(self.outcomes.as_slice(), [Outcome::Applied { .. }]), "{:?}", self.outcomes);
    }
}

pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    now.as_millis().try_into().expect("before the year 292,000,000")
}
