//! Does the whole of lidless heal? The real binary, real processes, a real journal; the clock is the machine's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so and ends")]

mod support;

use std::time::Duration;

use support::{Daemon, Folder, free_port, lidless, wait_until};

const LONG: Duration = Duration::from_secs(30);

fn service(port: u16) -> String {
    format!(
        "services:\n  app:\n    run: {{ process: {{ command: [lidless, demo-service, --port, \"{port}\"] }} }}\n    checks:\n      \
         health: {{ http: {{ url: \"http://127.0.0.1:{port}/health\" }}, every: 100ms, timeout: 500ms, fail_after: 2 }}\n    \
         heal: {{ restart: {{ attempts: 1000, per: 1h, backoff: 0s..0s }} }}\n"
    )
}

#[test]
fn the_demo_heals_every_fault() {
    let output = lidless().args(["demo", "--pause", "0ms"]).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains("6 of 6 healed"), "{shown}");
}

#[test]
fn a_full_disk_at_the_start_is_the_worlds_failure() {
    let folder = Folder::new();
    let Some(disk) = support::small_disk(&folder, "256k") else { return };
    disk.fill();
    let config = folder.path().join("lidless.yaml");
    let store = disk.path().join("lidless.db");
    let yaml = format!(
        "version: 1\nweb: off\nstore: {{ path: {} }}\nservices: {{ a: {{ checks: {{ port: {{ tcp: {{ address: \"127.0.0.1:1\" }} }} }} }} }}\n",
        store.display()
    );
    std::fs::write(&config, yaml).unwrap();
    let output = disk.run(lidless().arg("serve").arg(&config));
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("no space left"), "{words}");
}

#[test]
fn a_full_disk_stops_no_heal() {
    let folder = Folder::new();
    let Some(disk) = support::small_disk(&folder, "600k") else { return };
    let port = free_port();
    let config =
        format!("version: 1\nweb: off\nstore: {{ path: {}/l.db }}\n{}", disk.path().display(), service(port));
    let daemon = disk.serve(&folder, &config);
    daemon.wait_up(LONG);
    disk.fill();
    // Each heal is journalled, or wants to be: some of them find the disk full.
    wait_until(LONG, "the journal is degraded", || {
        let before = daemon.service_pid(port);
        support::kill(before);
        wait_until(LONG, "the service is back", || {
            daemon.try_service_pid(port).is_some_and(|pid| pid != before)
        });
        daemon.status()["degraded"].is_string()
    });
    disk.make_room();
    wait_until(LONG, "the journal is written again", || daemon.status()["degraded"].is_null());
    daemon.wait_up(LONG);
    daemon.end();
    let verified = disk.run(lidless().args(["store", "verify"]).arg(disk.path().join("l.db")));
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[test]
fn a_lidless_that_was_stopped_itself_blames_nobody() {
    let folder = Folder::new();
    let port = free_port();
    let config = format!("version: 1\nweb: off\nstore: {{ path: l.db }}\n{}", service(port));
    let daemon = Daemon::serve(&folder, &config);
    daemon.wait_up(LONG);
    let before = daemon.service_pid(port);
    for _ in 0..5 {
        daemon.stop_for(Duration::from_millis(1500));
        let probes = daemon.status()["probes"].as_u64().unwrap();
        wait_until(LONG, "it probes again", || daemon.status()["probes"].as_u64() > Some(probes + 3));
    }
    assert_eq!(daemon.service_pid(port), before, "the service was restarted for a pause of lidless");
    assert!(daemon.status()["services"][0]["incident"].is_null());
    daemon.end();
}

#[test]
fn a_heal_after_a_quiet_time_blames_no_disk() {
    let folder = Folder::new();
    let port = free_port();
    let config = format!("version: 1\nweb: off\nstore: {{ path: l.db }}\n{}", service(port));
    let daemon = Daemon::serve(&folder, &config);
    daemon.wait_up(LONG);
    let probes = daemon.status()["probes"].as_u64().unwrap();
    // Longer than the disk may be silent: an interval is 100 ms.
    wait_until(LONG, "nothing was written for a while", || {
        daemon.status()["probes"].as_u64() > Some(probes + 65)
    });
    let before = daemon.service_pid(port);
    support::kill(before);
    wait_until(LONG, "the service is back", || daemon.try_service_pid(port).is_some_and(|pid| pid != before));
    daemon.wait_up(LONG);
    // What the daemon knows is on the disk a moment later.
    let events = || support::events(&folder.path().join("l.db"));
    wait_until(LONG, "the recovery is in the journal", || events().contains("incident_closed"));
    assert!(!events().contains("store_degraded"), "{}", events());
    daemon.end();
}

#[test]
fn a_slow_but_healthy_service_is_never_suspected() {
    let folder = Folder::new();
    let port = support::slow_service(Duration::from_millis(400));
    let config = format!(
        "version: 1\nweb: off\nstore: {{ path: l.db }}\nservices:\n  slow:\n    checks:\n      health: {{ http: {{ url: \
         \"http://127.0.0.1:{port}/\" }}, every: 100ms, timeout: 500ms, fail_after: 3 }}\n"
    );
    let daemon = Daemon::serve(&folder, &config);
    daemon.wait_up(LONG);
    // With hedges, three answers come for each interval.
    wait_until(LONG, "many probes have ended", || daemon.status()["probes"].as_u64() > Some(24));
    let events = support::events(&folder.path().join("l.db"));
    assert!(events.contains("health_changed") && !events.contains("suspect"), "{events}");
    daemon.end();
}

#[test]
fn who_must_be_told_is_told_until_it_is_taken() {
    let folder = Folder::new();
    let told = folder.path().join("told");
    // The first delivery is refused: what is owed stays owed.
    let script = format!("cat >> {0}; echo >> {0}; test $(grep -c lidless {0}) -gt 1", told.display());
    let config = format!(
        "version: 1\nweb: off\nstore: {{ path: l.db }}\nnotify:\n  file: {{ exec: [sh, -c, {script:?}] }}\nservices:\n  app:\n    \
         checks:\n      never: {{ exec: {{ command: [sh, -c, 'exit 2'] }}, every: 100ms, fail_after: 1 }}\n"
    );
    let daemon = Daemon::serve(&folder, &config);
    let read = || std::fs::read_to_string(&told).unwrap_or_default();
    // In this order: before the first one is owed, nothing is.
    wait_until(LONG, "the second delivery is taken", || {
        read().lines().filter(|line| line.contains("lidless")).count() > 1 && daemon.status()["owed"] == 0
    });
    let told = read();
    let messages: Vec<serde_json::Value> =
        told.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(messages.len() >= 2, "{told}");
    assert_eq!(messages[0]["kind"], "will_not_heal");
    assert_eq!(messages[0]["id"], messages[1]["id"], "two deliveries of one message");
    daemon.end();
}

#[test]
fn metrics_and_health_are_served_on_loopback() {
    let folder = Folder::new();
    let (port, web) = (free_port(), free_port());
    let config =
        format!("version: 1\nweb: {{ listen: 127.0.0.1:{web} }}\nstore: {{ path: l.db }}\n{}", service(port));
    let daemon = Daemon::serve(&folder, &config);
    daemon.wait_up(LONG);
    let metrics = support::get(web, "/metrics").unwrap();
    assert!(metrics.contains("lidless_check_up{service=\"app\",check=\"health\"} 1"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    assert!(support::get(web, "/healthz").unwrap().ends_with("ok\n"));
    for host in [format!("localhost:{web}"), format!("[::1]:{web}"), "127.0.0.1".to_owned()] {
        assert!(support::get_of(web, "/healthz", &host).unwrap().ends_with("ok\n"), "{host}");
    }
    for path in ["/metrics", "/healthz"] {
        let refused = support::get_of(web, path, &format!("evil.example:{web}")).unwrap();
        assert!(refused.starts_with("HTTP/1.1 421 "), "a page of another name may read it: {refused}");
    }
    assert!(support::get(web, "/v1/status").unwrap().contains("404"), "the API is for the Unix socket alone");
    daemon.end();
}
