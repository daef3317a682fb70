//! How does the daemon end? The real binary, told to end while something is under way, and its service manager.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so and ends")]

mod support;

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;
use support::{Daemon, Folder, lidless, wait_until};

const LONG: Duration = Duration::from_secs(30);

/// What the daemon tells its service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn hears(&self, what: &str) {
        let mut message = [0; 4096];
        self.0.set_read_timeout(Some(LONG)).unwrap();
        wait_until(LONG, what, || {
            let length = self.0.recv(&mut message).unwrap_or(0);
            String::from_utf8_lossy(&message[..length]).lines().any(|line| line == what)
        });
    }
}

/// Services that note that they were asked to end, and do so only once they may.
fn stubborn(folder: &Folder, count: usize) -> String {
    let dir = folder.path().display();
    let mut config = "version: 1\nweb: off\nstore: { path: l.db }\nservices:\n".to_owned();
    for at in 0..count {
        let waits = format!("while test -d {dir} && ! test -e {dir}/go; do sleep 0.02; done");
        let script =
            format!("trap 'touch {dir}/asked-{at}; {waits}; exit 0' TERM; touch {dir}/ready-{at}; {waits}");
        config += &format!(
            "  s{at}:\n    run: {{ process: {{ command: [sh, -c, \"{script}\"], stop: {{ signal: TERM, within: 60s }} }} }}\n    \
             checks: {{ alive: {{ process: {{}} }} }}\n"
        );
    }
    config
}

fn all_exist(folder: &Folder, name: &str, count: usize) -> bool {
    (0..count).all(|at| folder.path().join(format!("{name}-{at}")).exists())
}

#[test]
fn services_are_stopped_all_at_once() {
    let folder = Folder::new();
    let mut daemon = Daemon::serve(&folder, &stubborn(&folder, 4));
    wait_until(LONG, "all run", || all_exist(&folder, "ready", 4));
    daemon.wait_up(LONG);
    daemon.signal(Signal::TERM);
    wait_until(LONG, "all are asked to end, though none has ended", || all_exist(&folder, "asked", 4));
    std::fs::write(folder.path().join("go"), "").unwrap();
    assert_eq!(daemon.wait_for_end(LONG), Some(0));
}

#[test]
fn a_second_signal_ends_the_waiting() {
    for (second, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let folder = Folder::new();
        let mut daemon = Daemon::serve(&folder, &stubborn(&folder, 1));
        wait_until(LONG, "it runs", || all_exist(&folder, "ready", 1));
        daemon.wait_up(LONG);
        daemon.signal(Signal::TERM);
        wait_until(LONG, "it is asked to end", || all_exist(&folder, "asked", 1));
        daemon.signal(second);
        assert_eq!(daemon.wait_for_end(LONG), Some(code));
        assert!(!folder.path().join("test.sock").exists(), "the socket is left behind");
        std::fs::write(folder.path().join("go"), "").unwrap();
    }
}

#[test]
fn while_it_drains_it_says_so_lives_on_and_answers_not_now() {
    let folder = Folder::new();
    let dir = folder.path().display();
    let config = format!(
        "version: 1\nweb: off\nstore: {{ path: l.db }}\nservices:\n  slow:\n    \
         run: {{ exec: {{ restart: [sh, -c, \"touch {dir}/began; while ! test -e {dir}/go; do sleep 0.02; done\"], timeout: 30s }} }}\n    \
         checks: {{ alive: {{ exec: {{ command: [\"true\"] }} }} }}\n"
    );
    let manager = Manager(UnixDatagram::bind(folder.path().join("notify")).unwrap());
    let mut command = lidless();
    command.env("NOTIFY_SOCKET", folder.path().join("notify")).env("WATCHDOG_USEC", "600000");
    let mut daemon = Daemon::start(command, &folder, &config);
    manager.hears("READY=1");
    daemon.wait_up(LONG);
    assert_eq!(daemon.client(&["restart", "slow", "--no-wait"]).status.code(), Some(0));
    wait_until(LONG, "the restart is under way", || folder.path().join("began").exists());
    daemon.signal(Signal::TERM);
    manager.hears("STOPPING=1");
    manager.hears("WATCHDOG=1");
    manager.hears("STATUS=ending");
    for verb in ["status", "incidents"] {
        let asked = daemon.client(&[verb]);
        let words = String::from_utf8_lossy(&asked.stderr).into_owned();
        assert_eq!(asked.status.code(), Some(75), "{verb}: {words}");
        assert!(words.contains("lidless is ending"), "{verb}: {words}");
    }
    std::fs::write(folder.path().join("go"), "").unwrap();
    assert_eq!(daemon.wait_for_end(LONG), Some(0));
    assert!(!folder.path().join("test.sock").exists(), "the socket is left behind");
}
