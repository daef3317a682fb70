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
