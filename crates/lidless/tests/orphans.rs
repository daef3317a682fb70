//! What becomes of a process whose service was renamed, removed, or lives beside another store? The real binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so and ends")]

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use support::{Daemon, Folder, kill, wait_until};

const LONG: Duration = Duration::from_secs(30);

/// Kills what the services wrote down when the test ends, also one that fails.
struct Pids(PathBuf);

impl Pids {
    fn all(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn living(&self) -> Vec<i32> {
        self.all().into_iter().filter(|pid| is_alive(*pid)).collect()
    }
}

impl Drop for Pids {
    fn drop(&mut self) {
        self.living().into_iter().for_each(kill);
    }
}

fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// A service that writes its pid down; the shell shows another command than it was started with.
fn config(store: &str, name: &str, pids: &Path) -> String {
    let script = format!("echo $$ >> {}; exec sleep 1000", pids.display());
    format!(
        "version: 1\nweb: off\nstore: {{ path: {store} }}\nservices:\n  {name}:\n    \
         run: {{ process: {{ command: [sh, -c, {script:?}] }} }}\n    \
         heal: {{ restart: {{ attempts: 1000, per: 1h, backoff: 0s..0s }} }}\n"
    )
}

fn failure(status: &Value) -> String {
    status["services"][0]["checks"][0]["failure"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_renamed_service_is_not_started_beside_its_old_self() {
    let folder = Folder::new();
    let pids = Pids(folder.path().join("pids"));
    let daemon = Daemon::serve_and_leave(&folder, &config("l.db", "old", &pids.0));
    daemon.wait_up(LONG);
    daemon.end();
    let [pid] = pids.living()[..] else { panic!("not one: {:?}", pids.all()) };

    let daemon = Daemon::serve_and_leave(&folder, &config("l.db", "new", &pids.0));
    let refused =
        format!("this command already runs as service `old` (pid {pid}), which left the configuration");
    wait_until(LONG, "the second copy is refused", || failure(&daemon.status()).contains(&refused));
    let status = daemon.status();
    assert_eq!(status["orphans"][0]["service"], "old", "{status}");
    assert_eq!(status["orphans"][0]["pid"], pid, "{status}");
    assert!(daemon.log().contains("no configured service is its own"), "{}", daemon.log());
    assert_eq!(pids.all(), [pid]);
    // Once the old one is gone, the new one may come.
    kill(pid);
    daemon.wait_up(LONG);
    assert_eq!(pids.living().len(), 1);
    assert_eq!(daemon.status()["orphans"], Value::Array(Vec::new()));
    daemon.end();
}

#[test]
fn a_removed_service_is_named_and_hinders_no_other() {
    let folder = Folder::new();
    let (old, new) = (Pids(folder.path().join("old")), Pids(folder.path().join("new")));
    let daemon = Daemon::serve_and_leave(&folder, &config("l.db", "old", &old.0));
    daemon.wait_up(LONG);
    daemon.end();
    let daemon = Daemon::serve_and_leave(&folder, &config("l.db", "new", &new.0));
    daemon.wait_up(LONG);
    assert_eq!(daemon.status()["orphans"][0]["pid"], old.living()[0]);
    daemon.end();
    // Put back, it is adopted.
    let daemon = Daemon::serve_and_leave(&folder, &config("l.db", "old", &old.0));
    daemon.wait_up(LONG);
    assert_eq!(old.all().len(), 1);
    daemon.end();
}

#[test]
fn two_stores_in_one_folder_share_no_process() {
    let folder = Folder::new();
    let (one, two) = (Pids(folder.path().join("one")), Pids(folder.path().join("two")));
    let first = Daemon::serve_and_leave(&folder, &config("one.db", "app", &one.0));
    first.wait_up(LONG);
    first.end();
    let second = Daemon::serve_and_leave(&folder, &config("two.db", "app", &two.0));
    second.wait_up(LONG);
    assert_eq!((one.living().len(), two.living().len()), (1, 1));
    assert_eq!(second.status()["orphans"], Value::Array(Vec::new()));
    second.end();
}

#[test]
fn a_slot_of_the_first_version_is_taken_over_with_its_process() {
    let folder = Folder::new();
    let pids = Pids(folder.path().join("pids"));
    let config = config("l.db", "app", &pids.0);
    let daemon = Daemon::serve_and_leave(&folder, &config);
    daemon.wait_up(LONG);
    daemon.end();
    // As the first version would have left it, but for the process's environment.
    let (old, new) = (folder.path().join("slots/app"), folder.path().join("slots/l.db/app"));
    std::fs::rename(&new, &old).unwrap();

    let daemon = Daemon::serve_and_leave(&folder, &config);
    daemon.wait_up(LONG);
    assert_eq!(pids.all().len(), 1, "it was started again");
    assert!(!old.exists() && new.join("instance.json").exists());
    let record = std::fs::read_to_string(new.join("instance.json")).unwrap();
    assert!(record.contains("slots/app"), "the old mark is not remembered: {record}");
    daemon.end();
}
