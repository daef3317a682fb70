//! What do the tests of managed processes share? A service that tells when it runs twice, and a hunt for what is left.

#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lidless_drivers::process::{Launcher, ManagedProcess, ProcessSettings, ProcessState};
use rustix::process::{Pid, Signal, kill_process};

pub const LONG: Duration = Duration::from_secs(20);

/// A service of one test: a directory, and a marker that all its processes carry in their environment.
pub struct Service {
    pub dir: tempfile::TempDir,
}

/// Says DOUBLE if another instance lives, and else holds a lock for as long as it lives.
const SINGLE: &str = "exec 9>lock; flock -n 9 || echo DOUBLE >> starts; echo started $$ >> starts;";

impl Service {
    pub fn new() -> Service {
        Service { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn slot(&self) -> PathBuf {
        self.path("slots/web")
    }

    pub fn marker(&self) -> String {
        format!("TEST_MARKER={}", self.dir.path().display())
    }

    /// Settings for a script; the launcher is the example.
    pub fn script(&self, script: &str) -> ProcessSettings {
        let script = format!("{SINGLE} {script}");
        let mut settings = ProcessSettings::new(["sh", "-c", &script], self.path("output"));
        settings.dir = Some(self.dir.path().to_owned());
        settings.env = vec![("TEST_MARKER".to_owned(), self.dir.path().display().to_string())];
        settings.launcher = Launcher::program(launcher());
        settings
    }

    pub fn sleeper(&self) -> ProcessSettings {
        self.script("exec sleep 1000")
    }

    pub fn open(&self, settings: ProcessSettings) -> Arc<ManagedProcess> {
        Arc::new(ManagedProcess::open(settings, &self.slot()).unwrap())
    }

    pub fn starts(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("starts")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until that many starts were written down by the service itself.
    pub async fn wait_starts(&self, count: usize) {
        wait_until("the service says that it started", || self.starts().len() >= count).await;
    }

    pub fn assert_never_double(&self) {
        let starts = self.starts();
        assert!(!starts.iter().any(|line| line.contains("DOUBLE")), "two instances at once: {starts:?}");
    }

    /// Pid and start time of the recorded instance.
    pub fn recorded(&self) -> Option<(i32, u64)> {
        let text = fs::read(self.slot().join("instance.json")).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&text).ok()?;
        let pid = record["instance"]["pid"].as_i64()?;
        Some((i32::try_from(pid).ok()?, record["instance"]["start_ticks"].as_u64()?))
    }

    /// Living processes that carry the marker.
    pub fn living(&self) -> Vec<i32> {
        let marker = self.marker();
        pids()
            .filter(|pid| {
                let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
                environ.split(|byte| *byte == 0).any(|pair| pair == marker.as_bytes()) && is_alive(*pid)
            })
            .collect()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // By its record first: a process in the middle of `exec` has no environment to be known by.
        if let Some((pid, ticks)) = self.recorded()
            && start_ticks(pid) == Some(ticks)
        {
            kill9(pid);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            let living = self.living();
            if living.is_empty() {
                return;
            }
            living.into_iter().for_each(kill9);
        }
    }
}

/// The example, which `cargo test` and `cargo nextest run` build beside the tests.
pub fn launcher() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().and_then(|deps| deps.parent()).unwrap().join("examples/launch");
    assert!(path.exists(), "{} is missing: cargo build -p lidless-drivers --example launch", path.display());
    path
}

pub fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

pub fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Descriptors of this process that any child inherits.
pub fn fds_without_cloexec() -> BTreeSet<i32> {
    const CLOEXEC: u32 = 0o2_000_000;
    let fds = fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
    let inherited = fds.filter(|entry| {
        let info = fs::read_to_string(entry.path()).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        flags.is_some_and(|flags| u32::from_str_radix(flags.trim(), 8).unwrap() & CLOEXEC == 0)
    });
    inherited.map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).collect()
}

pub fn state_of(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

pub fn is_alive(pid: i32) -> bool {
    state_of(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// Children of this process that nobody reaped. Told only where each test has a process of its own, as under nextest:
/// elsewhere they may be those of another test.
pub fn zombies_of_ours() -> Vec<i32> {
    if std::env::var_os("NEXTEST").is_none() {
        return Vec::new();
    }
    let me = std::process::id().to_string();
    pids()
        .filter(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let Some((_, rest)) = stat.rsplit_once(')') else { return false };
            let mut fields = rest.split_ascii_whitespace();
            fields.next() == Some("Z") && fields.next() == Some(&me)
        })
        .collect()
}

pub fn signal(pid: i32, signal: Signal) {
    // It may have gone by itself.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), signal);
}

pub fn kill9(pid: i32) {
    signal(pid, Signal::KILL);
}

pub fn pid_of(process: &ManagedProcess) -> i32 {
    match process.state() {
        ProcessState::Running { pid, .. } => pid,
        other => panic!("not running: {other:?}"),
    }
}

/// Waits for a condition with a deadline.
pub async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        // tidy-allow: between two looks at a condition
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The name of a process's program, with its line's end; empty when it is gone.
pub fn comm(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
}
