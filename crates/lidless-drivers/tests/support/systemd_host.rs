//! How does a test get a machine with a real systemd? It boots one in namespaces, by `systemd-host.sh`.

#![allow(dead_code, reason = "each test binary uses its part of it")]

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

/// Hosts of one test binary are booted one after the other: their tests measure time.
static TURN: Mutex<()> = Mutex::new(());
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A machine of the test's own. Ends with the test, however the test ends.
pub(crate) struct Host {
    name: String,
    /// Its PID 1, as seen from here.
    pub(crate) init: u32,
    holder: Child,
    /// The host is ended when this is closed.
    hold: Option<ChildStdin>,
    _turn: MutexGuard<'static, ()>,
}

impl Host {
    /// Boots a host, or says why this machine cannot and returns `None`.
    ///
    /// With `LIDLESS_REQUIRE_SYSTEMD=1` a machine that cannot fails the test.
    pub(crate) fn boot() -> Option<Host> {
        Host::boot_with(&[])
    }

    /// The same, with our network for its own: what listens on loopback there can be asked from here.
    pub(crate) fn boot_in_our_network() -> Option<Host> {
        Host::boot_with(&[("LIDLESS_HOST_NET", "host")])
    }

    fn boot_with(env: &[(&str, &str)]) -> Option<Host> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(reason) = image() {
            assert!(
                std::env::var_os("LIDLESS_REQUIRE_SYSTEMD").is_none_or(|value| value != "1"),
                "no systemd to test with: {reason}"
            );
            println!("skipped: no systemd to test with: {reason}");
            return None;
        }
        let name = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut hold = script(&["hold", &name]);
        hold.envs(env.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = hold.spawn().expect("bash runs");
        let mut first = String::new();
        let out = holder.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut first).expect("the script's output is text");
        let init =
            first.trim().parse().unwrap_or_else(|_| panic!("host {name} does not boot; its script says why"));
        let hold = holder.stdin.take();
        Some(Host { name, init, holder, hold, _turn: turn })
    }

    /// The address of its system bus, from outside.
    pub(crate) fn bus(&self) -> String {
        format!("unix:path=/proc/{}/root/run/dbus/system_bus_socket", self.init)
    }

    /// Runs a command in it, which must succeed, and returns what it printed.
    pub(crate) fn run(&self, command: &[&str]) -> String {
        let mut args = vec!["exec", &self.name];
        args.extend(command);
        let out = script(&args).output().expect("bash runs");
        assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// Writes a file in it.
    pub(crate) fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        let mut put = script(&["put", &self.name, path]).stdin(Stdio::piped()).spawn().expect("bash runs");
        let mut input = put.stdin.take().expect("it is piped");
        input.write_all(content.as_ref()).expect("the script reads");
        drop(input);
        assert!(put.wait().expect("it was started").success(), "cannot write {path}");
    }

    /// Installs a service with these lines in its `[Service]` section, and any in others after them.
    pub(crate) fn install(&self, service: &str, lines: &str) {
        self.put(&format!("/etc/systemd/system/{service}.service"), format!("[Service]\n{lines}\n"));
        self.run(&["systemctl", "daemon-reload"]);
    }

    /// Installs a service and starts it.
    pub(crate) fn start(&self, service: &str, lines: &str) {
        self.install(service, lines);
        self.run(&["systemctl", "start", service]);
    }

    /// A property of a unit, as `systemctl` tells it.
    pub(crate) fn show(&self, unit: &str, property: &str) -> String {
        self.run(&["systemctl", "show", "--value", "-p", property, unit])
    }

    /// The first process of a service, as seen from here.
    pub(crate) fn process(&self, service: &str) -> Pid {
        let list =
            format!("/proc/{}/root/sys/fs/cgroup/system.slice/{service}.service/cgroup.procs", self.init);
        let list = std::fs::read_to_string(&list).unwrap_or_else(|err| panic!("{list}: {err}"));
        let first = list.lines().next().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
        first.unwrap_or_else(|| panic!("{service} has no process"))
    }

    /// Signals the first process of a service, at once.
    pub(crate) fn signal(&self, service: &str, signal: Signal) {
        kill_process(self.process(service), signal).expect("the process is there");
    }

    /// Signals its PID 1.
    pub(crate) fn signal_init(&self, signal: Signal) {
        let init = i32::try_from(self.init).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(init, signal).expect("the host runs");
    }

    /// Ends it at once, as a power cut does.
    pub(crate) fn crash(&self) {
        assert!(script(&["crash", &self.name]).status().expect("bash runs").success());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.hold.take());
        // It ends the host within bounds of its own; its exit status is of no use any more.
        let _ = self.holder.wait();
    }
}

fn image() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("booting it needs root".to_owned());
    }
    let out = script(&["build"]).output().map_err(|err| format!("cannot run bash: {err}"))?;
    if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).trim().to_owned()) }
}

fn script(args: &[&str]) -> Command {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../lidless-drivers/tests/support/systemd-host.sh");
    let mut command = Command::new("bash");
    command.arg(path).args(args).stdin(Stdio::null());
    command
}
