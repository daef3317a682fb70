//! What does a dead name server delay? The real binary, in a mount namespace whose name server never answers.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so and ends")]

mod support;

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{Daemon, Folder, free_port, lidless, wait_until};

/// More than tokio has threads for what blocks.
const NAMES: u64 = 600;
const LONG: Duration = Duration::from_secs(30);
/// Far more than a heal or an end takes here, and less than one look-up does.
const SOON: Duration = Duration::from_secs(5);

/// A name server that takes questions and never answers.
struct Silent(UdpSocket);

impl Silent {
    /// None, with the reason printed, where that is not allowed.
    fn listen() -> Option<Silent> {
        match UdpSocket::bind(("127.0.0.77", 53)) {
            Ok(socket) => Some(Silent(socket)),
            Err(err) => {
                eprintln!("skipped: a name server cannot listen here ({err}; it takes root)");
                None
            }
        }
    }

    fn was_asked(&self) -> bool {
        self.0.set_read_timeout(Some(LONG)).unwrap();
        self.0.recv(&mut [0; 512]).is_ok()
    }
}

/// The binary, for which this name server is the only one.
fn lidless_asking_it(folder: &Folder) -> Command {
    let file = folder.path().join("resolv.conf");
    std::fs::write(&file, "nameserver 127.0.0.77\noptions timeout:10 attempts:2\n").unwrap();
    let script = format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", file.display());
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]).arg(lidless().get_program());
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("NO_COLOR", "1");
    command
}

#[test]
fn a_dead_name_server_delays_no_heal_of_a_local_process_and_no_end() {
    let Some(silent) = Silent::listen() else { return };
    let folder = Folder::new();
    let port = free_port();
    let mut config = format!(
        "version: 1\nweb: off\nstore: {{ path: l.db }}\nservices:\n  \
         app:\n    run: {{ process: {{ command: [lidless, demo-service, --port, \"{port}\"] }} }}\n    \
         checks: {{ health: {{ tcp: {{ address: \"127.0.0.1:{port}\" }}, every: 100ms, timeout: 500ms, fail_after: 2 }} }}\n    \
         heal: {{ restart: {{ attempts: 1000, per: 1h, backoff: 0s..0s }} }}\n"
    );
    for at in 0..NAMES {
        let _ = writeln!(
            config,
            "  n{at}: {{ checks: {{ port: {{ tcp: {{ address: \"n{at}.example:1\" }}, every: 1s, timeout: 1s }} }} }}"
        );
    }
    let daemon = Daemon::start(lidless_asking_it(&folder), &folder, &config);
    let before = daemon.service_pid(port);
    assert!(silent.was_asked(), "the daemon asks another name server");
    wait_until(LONG, "every name was asked for several times", || {
        daemon.status()["probes"].as_u64() > Some(4 * NAMES)
    });
    support::kill(before);
    wait_until(SOON, "the service is back", || daemon.try_service_pid(port).is_some_and(|pid| pid != before));
    wait_until(LONG, "the heal is over", || {
        let app = daemon.status()["services"][0].take();
        app["health"] == "up" && app["run"].is_null()
    });
    let asked = Instant::now();
    daemon.end();
    assert!(asked.elapsed() < SOON, "it took {:?} to end", asked.elapsed());
}
