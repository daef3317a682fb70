//! Does the command line tell the truth about a real daemon, with real processes?

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::hermetic::{Hermetic, Ran};
use super::neutral::neutral;
use super::nobody::Nobody;

const DEADLINE: Duration = Duration::from_secs(20);

/// A daemon and its folder. Ended, with the services that it runs, when it is dropped.
struct Serving {
    env: Hermetic,
    child: Option<Child>,
    port: u16,
}

impl Serving {
    /// Starts a daemon with a service that it runs, one that nobody listens for, and one that takes long to restart.
    fn start() -> Serving {
        let env = Hermetic::new();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        env.write("lidless.yaml", &configuration(port));
        let child = env.command(&["serve", "lidless.yaml", "--stop-services"]);
        let mut serving = Serving { env, child: None, port };
        serving.spawn(child);
        serving.wait(
            "web is up and gone is down, nobody acts, and whoever is told has been told",
            |status| {
                health(status, "web") == "up"
                    && health(status, "gone") == "down"
                    && health(status, "slow") == "up"
                    && status["owed"] == 0
                    && status["services"].as_array().unwrap().iter().all(|service| service["run"].is_null())
            },
        );
        serving
    }

    fn spawn(&mut self, mut command: std::process::Command) {
        let log = fs::File::create(self.env.path("serve.log")).unwrap();
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    fn status(&self) -> Option<Value> {
        let ran = self.client(&["status", "--json"]);
        serde_json::from_str(&ran.stdout).ok()
    }

    fn wait(&self, what: &str, reached: impl Fn(&Value) -> bool) {
        let began = Instant::now();
        while !self.status().is_some_and(|status| reached(&status)) {
            let log = || fs::read_to_string(self.env.path("serve.log")).unwrap_or_default();
            assert!(
                began.elapsed() < DEADLINE,
                "not within {DEADLINE:?}: {what}\n{:?}\n{}",
                self.status(),
                log()
            );
            std::thread::yield_now();
        }
    }

    fn client(&self, args: &[&str]) -> Ran {
        self.env.run(&[&["--config", "lidless.yaml"], args].concat())
    }

    fn show(&self, args: &[&str]) -> String {
        let shown = self.env.show(&[&["--config", "lidless.yaml"], args].concat());
        shown.replace(&self.port.to_string(), "PORT")
    }

    /// Ends the daemon in order.
    fn end(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        signal(child.id(), Signal::TERM);
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            if began.elapsed() > DEADLINE {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("lidless did not end within {DEADLINE:?}");
            }
            // tidy-allow: between two looks at a condition
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- serve.log\n{}",
                fs::read_to_string(self.env.path("serve.log")).unwrap_or_default()
            );
        }
        if let Some(child) = self.child.as_mut() {
            signal(child.id(), Signal::TERM);
            drop(child.wait());
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    // It may have ended by itself.
    let _ = kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal);
}

fn configuration(port: u16) -> String {
    format!(
        r#"version: 1
site: test
store: {{ path: lidless.db }}
web: off
defaults: {{ every: 100ms, timeout: 2s, confirm_every: 20ms, fail_after: 2, recover_after: 1 }}
services:
  web:
    run: {{ process: {{ command: [lidless, demo-service, --port, "{port}"], stop: {{ signal: TERM, within: 2s }} }} }}
    checks:
      process: {{ process: {{}} }}
      http: {{ http: {{ url: "http://127.0.0.1:{port}/health" }} }}
    heal:
      restart: {{ attempts: 5, per: 1h, backoff: 0s..1s }}
      verify: {{ within: 10s }}
  gone:
    depends_on: [web]
    checks: {{ port: {{ tcp: {{ address: "127.0.0.1:1" }} }} }}
  slow:
    run: {{ exec: {{ restart: [sh, -c, "touch began; while ! test -e go; do sleep 0.02; done; exit 1"], timeout: 30s }} }}
    checks: {{ alive: {{ exec: {{ command: ["true"] }} }} }}
"#
    )
}

fn health(status: &Value, name: &str) -> String {
    let services = status["services"].as_array().unwrap();
    let service = services.iter().find(|service| service["name"] == name).unwrap();
    service["health"].as_str().unwrap().to_owned()
}

#[test]
fn status_names_what_is_not_well_and_is_then_exit_1() {
    let serving = Serving::start();
    assert_snapshot!("status", serving.show(&["status"]));
    assert_snapshot!("status_ascii", {
        let ran = serving.env.run_with(&["--config", "lidless.yaml", "status"], &[("LC_ALL", "C")]);
        assert!(ran.stdout.is_ascii() && ran.stderr.is_ascii());
        neutral(&ran.stdout, &serving.env.path(""))
    });
    let down = serving.show(&["status", "gone"]);
    assert!(down.contains("✗ gone  down for SPAN"), "{down}");
    assert!(down.contains("needs") && down.contains("● web up"), "{down}");
    assert!(down.ends_with("--- exit 1"), "{down}");
    let up = serving.show(&["status", "web"]);
    assert!(up.contains("5 of 5 left in SPAN"), "{up}");
    assert!(
        up.contains("● process  up  SPAN  the process") && up.contains("http://127.0.0.1:PORT/health"),
        "{up}"
    );
    assert!(up.ends_with("--- exit 0"), "{up}");
    assert_snapshot!("status_unknown", serving.show(&["status", "wbe"]));
    let json: Value = serde_json::from_str(&serving.client(&["status", "web", "--json"]).stdout).unwrap();
    assert_eq!(json["schema"], "lidless/status/1");
    assert_eq!(json["services"].as_array().unwrap().len(), 1);
}

#[test]
fn a_restart_shows_its_steps_and_every_refusal_has_its_code() {
    let serving = Serving::start();
    assert_snapshot!("restart", serving.show(&["restart", "web"]));
    let json: Value = serde_json::from_str(&serving.client(&["restart", "web", "--json"]).stdout).unwrap();
    assert_eq!(
        (json["schema"].as_str(), json["verdict"].as_str()),
        (Some("lidless/restart/1"), Some("done"))
    );
    assert_eq!(json["steps"].as_array().unwrap().len(), 2, "{json}");
    assert_snapshot!("restart_unknown", serving.show(&["restart", "wbe"]));
    assert_snapshot!("restart_refused", serving.show(&["restart", "gone"]));
    assert_snapshot!("restart_no_wait", serving.show(&["restart", "slow", "--no-wait"]));
    assert_snapshot!("restart_busy", serving.show(&["restart", "slow"]));
    serving.wait("the restart is under way", |_| serving.env.path("began").exists());
    let last = serving.show(&["events", "-n", "1", "--service", "slow"]);
    assert!(last.contains("→ RESTART"), "{last}");
    serving.env.write("go", "");
    serving.wait("the slow restart is over", |status| {
        status["services"].as_array().unwrap().iter().all(|service| service["run"].is_null())
    });
    assert_snapshot!("restart_failed", serving.show(&["restart", "slow"]));
    assert_eq!(serving.client(&["restart", "web", "--timeout", "soon"]).code, Some(2));
}

#[test]
fn events_come_from_the_daemon_and_without_it_from_the_journal() {
    let mut serving = Serving::start();
    let shown = serving.show(&["events", "--service", "gone"]);
    assert_snapshot!("events", shown);
    assert_snapshot!("incidents", serving.show(&["incidents"]));
    assert_snapshot!("no_incidents", serving.show(&["incidents", "--service", "web"]));
    let first = serving.client(&["events", "-n", "2", "--after", "1", "-o", "jsonl"]);
    let seqs: Vec<u64> = first
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(seqs, [2, 3]);
    let json: Value =
        serde_json::from_str(&serving.client(&["events", "--json", "--since", "1h"]).stdout).unwrap();
    assert_eq!(json["schema"], "lidless/events/1");
    assert_eq!(json["events"][0]["seq"], 1);
    let future: Value =
        serde_json::from_str(&serving.client(&["events", "--json", "--since", "2100-01-01"]).stdout).unwrap();
    assert_eq!(future["events"], Value::Array(Vec::new()));

    assert_eq!(serving.end(), Some(0), "TERM ends it in order");
    let after = serving.client(&["events", "--service", "gone"]);
    assert!(after.stderr.contains("no lidless answers; reading its journal"), "{}", after.stderr);
    let direct = serving.env.run(&["events", "--store", "lidless.db"]);
    assert!(direct.stdout.contains("lidless stopped"), "{}", direct.stdout);
    assert_eq!(direct.code, Some(0));
}

#[test]
fn followed_events_come_as_they_happen_until_the_reader_or_the_daemon_ends() {
    let mut serving = Serving::start();
    let follow = ["--config", "lidless.yaml", "events", "-f", "-n", "1", "--service", "web"];
    let mut follower =
        serving.env.command(&follow).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(follower.stdout.take().unwrap()));
    let last = lines.next().unwrap().unwrap();
    assert!(last.contains("web"), "the end of the past comes first: {last}");
    assert_eq!(serving.client(&["restart", "web"]).code, Some(0));
    assert!(lines.by_ref().map(Result::unwrap).any(|line| line.contains("RESTART")));
    signal(follower.id(), Signal::INT);
    assert_eq!(follower.wait().unwrap().signal(), Some(2), "^C is 130 to a shell");

    let mut follower =
        serving.env.command(&follow[..4]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(follower.stdout.take().unwrap()));
    lines.next().unwrap().unwrap();
    let restarted: Value =
        serde_json::from_str(&serving.client(&["restart", "web", "--json"]).stdout).unwrap();
    let done = format!("{} done", restarted["run"].as_str().unwrap());
    assert!(lines.by_ref().map(Result::unwrap).any(|line| line.contains(&done)));
    assert_eq!(serving.end(), Some(0));
    for line in lines.by_ref() {
        line.unwrap();
    }
    let mut words = String::new();
    std::io::Read::read_to_string(&mut follower.stderr.take().unwrap(), &mut words).unwrap();
    assert_eq!(follower.wait().unwrap().code(), Some(4));
    assert!(words.contains("ended") && words.contains("events -f --after"), "{words}");
}

#[test]
fn following_after_a_record_skips_none_that_the_limit_cut_off() {
    let mut serving = Serving::start();
    let follow = ["--config", "lidless.yaml", "events", "-f", "--after", "1", "-n", "2", "-o", "jsonl"];
    let child = serving.env.command(&follow).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut follower = child.unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(follower.stdout.take().unwrap()));
    let seqs = lines
        .take(6)
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap()["seq"].as_u64().unwrap());
    assert_eq!(seqs.collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7]);
    signal(follower.id(), Signal::INT);
    follower.wait().unwrap();
    serving.end();
}

#[test]
fn a_flipped_bit_in_the_journal_is_exit_1_and_named() {
    let mut serving = Serving::start();
    assert_eq!(serving.client(&["store", "verify"]).code, Some(0), "also beside a running daemon");
    assert_eq!(serving.end(), Some(0));
    let whole = serving.client(&["store", "verify", "--json"]);
    let json: Value = serde_json::from_str(&whole.stdout).unwrap();
    assert_eq!(
        (json["schema"].as_str(), json["ok"].as_bool(), whole.code),
        (Some("lidless/verify/1"), Some(true), Some(0))
    );
    let store = serving.env.path("lidless.db");
    // A path need not be UTF-8, but JSON must be.
    let strange = serving.env.path("").join(std::ffi::OsStr::from_bytes(b"caf\xe9.db"));
    fs::copy(&store, &strange).unwrap();
    let output = serving.env.command(&["store", "verify", "--json"]).arg(&strange).output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["path"].as_str().unwrap().ends_with("caf\u{fffd}.db"), "{json}");
    let mut bytes = fs::read(&store).unwrap();
    let marker = b"\"event\":\"started\"";
    // SQLite leaves old copies behind when it splits a page: every one is flipped, and one of them counts.
    let found = |at: &usize| bytes[*at..].starts_with(marker);
    let copies: Vec<usize> = (0..bytes.len()).filter(found).collect();
    assert!(!copies.is_empty(), "the first record is in the file");
    for at in copies {
        bytes[at + marker.len() - 2] ^= 1;
    }
    fs::write(&store, bytes).unwrap();
    let broken = serving.show(&["store", "verify"]);
    let records = broken.lines().filter(|line| !line.contains("error:")).collect::<Vec<_>>().join("\n");
    assert_snapshot!("verify_flipped_bit", records);
}

#[test]
fn a_second_daemon_on_the_same_store_is_exit_4() {
    let serving = Serving::start();
    let second = serving.env.run(&["serve", "lidless.yaml"]);
    assert_eq!(second.code, Some(4), "{}", second.stderr);
    assert!(second.stderr.contains("is in use by process"), "{}", second.stderr);
    assert!(second.stderr.contains("hint:"), "{}", second.stderr);
}

#[test]
fn strangers_may_look_but_not_act() {
    let Some(nobody) = Nobody::new() else { return };
    let serving = Serving::start();
    let folder = serving.env.path("");
    let socket = format!("unix:{}", folder.join("lidless.sock").display());
    let as_nobody =
        |args: &[&str]| nobody.run(std::path::Path::new("/"), &[&["--connect", &socket], args].concat());
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    let (code, words) = as_nobody(&["status"]);
    assert_eq!(code, Some(5), "{words}");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let (code, words) = as_nobody(&["status"]);
    assert_eq!(code, Some(1), "gone is down, and everybody may know: {words}");
    let (code, words) = as_nobody(&["restart", "web"]);
    assert_eq!(code, Some(5), "{words}");
    assert!(words.contains("sudo lidless restart web"), "{words}");
}

#[test]
fn a_log_that_nobody_reads_stops_neither_the_daemon_nor_its_end() {
    let env = Hermetic::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    env.write("lidless.yaml", &configuration(port));
    let mut command = env.command(&["serve", "lidless.yaml", "--stop-services"]);
    // A pipe that is held and never read, and is full before the first line.
    let (unread, mut full) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&full, true).unwrap();
    while full.write_all(&[b'.'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&full, false).unwrap();
    command.env("LIDLESS_LOG", "trace").stdout(Stdio::null()).stderr(full);
    let child = command.spawn().unwrap();
    let mut serving = Serving { env, child: Some(child), port };
    serving.wait("it answers although nobody reads its log", |status| health(status, "web") == "up");
    let asked = Instant::now();
    assert_eq!(serving.end(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    drop(unread);
}

#[test]
fn whoever_opens_many_connections_is_turned_away_and_the_daemon_goes_on() {
    let mut serving = Serving::start();
    let socket = serving.env.path("lidless.sock");
    let held: Vec<_> =
        (0..300).filter_map(|_| std::os::unix::net::UnixStream::connect(&socket).ok()).collect();
    assert!(held.len() > 64, "only {} connections", held.len());
    let descriptors =
        || fs::read_dir(format!("/proc/{}/fd", serving.child.as_ref().unwrap().id())).unwrap().count();
    let began = Instant::now();
    while descriptors() > 128 {
        assert!(began.elapsed() < DEADLINE, "{} descriptors", descriptors());
        std::thread::yield_now();
    }
    drop(held);
    serving.wait("it answers again", |status| health(status, "web") == "up");
    let last = serving.client(&["events", "-n", "3", "--output", "jsonl"]);
    assert_eq!(last.stdout.lines().count(), 3, "{}", last.stdout);
    serving.end();
}
