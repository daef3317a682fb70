//! Does a pipeline of real commands survive real failures, and say which step failed and why?
#![allow(clippy::unwrap_used)]

#[path = "pipelines/kinds.rs"]
mod kinds;
#[path = "pipelines/page.rs"]
mod page;
#[path = "pipelines/plugin.rs"]
mod plugin;
mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use support::{Daemon, Folder, wait_until};

const LONG: Duration = Duration::from_secs(30);

/// A step that moves value: it books its key, and can be asked for it. While there is a file `wait` it does not book, while
/// there is a file `slow` it does not answer.
const BOOK: &str = r#"#!/bin/sh
dir=$(dirname "$0")
if [ "$1" = --look ]; then
  if grep -q "^$LIDLESS_IDEMPOTENCY_KEY " "$dir/ledger" 2>/dev/null; then
    echo '{"applied":true,"evidence":"it is in the ledger","output":{"amount":5}}'
  else
    echo '{"applied":false,"evidence":"it is not in the ledger"}'
  fi
  exit
fi
test -e "$dir/refuse" && { echo "gas 61 gwei is above max_fee 40" >&2; echo '{"ok":false,"error":"gas is above max_fee","class":"permanent"}'; exit 1; }
touch "$dir/began"
while test -e "$dir/wait"; do sleep 0.05; done
echo "$LIDLESS_IDEMPOTENCY_KEY $LIDLESS_STEP" >> "$dir/ledger"
while test -e "$dir/slow"; do sleep 0.05; done
echo '{"ok":true,"output":{"amount":5}}'
"#;

struct Place(Folder);

impl Place {
    fn new() -> Place {
        let folder = Folder::new();
        let script = folder.path().join("book");
        std::fs::write(&script, BOOK).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        Place(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn touch(&self, name: &str) {
        std::fs::write(self.path(name), "").unwrap();
    }

    fn booked(&self) -> Vec<String> {
        let ledger = std::fs::read_to_string(self.path("ledger")).unwrap_or_default();
        ledger.lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect()
    }

    fn serve(&self, pay: &str) -> Daemon {
        let config = format!(
            "version: 1\nweb: off\nstore: {{ path: l.db }}\npipelines:\n  vault:\n    steps:\n      \
             - LOOK: {{ call: {{ exec: [sh, -c, 'cat > heard; echo all is well'] }} }}\n      \
             - PAY:\n          call: {{ exec: [./book] }}\n          timeout: 10s\n          value: {{}}\n          {pay}\n      \
             - TELL: {{ call: {{ exec: [sh, -c, 'cat > told'] }} }}\n"
        );
        Daemon::serve(&self.0, &config)
    }
}

const CONFIRM: &str = "confirm: { exec: [./book, --look] }";
const ONE_SHOT: &str = "class: one_shot";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|err| panic!("{err}: {output:?}"))
}

fn runs(daemon: &Daemon) -> Value {
    serde_json::from_slice(&daemon.client(&["runs", "--json"]).stdout).unwrap_or(Value::Null)
}

fn ready(daemon: &Daemon) {
    wait_until(LONG, "lidless answers", || !daemon.status().is_null());
}

fn state(daemon: &Daemon) -> Value {
    runs(daemon)["runs"][0]["state"].clone()
}

#[test]
fn each_step_has_an_arrow_and_hears_what_the_others_put_out() {
    let place = Place::new();
    let daemon = place.serve(CONFIRM);
    ready(&daemon);
    let output = daemon.client(&["run", "vault", "--input", "amount=5"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = text(&output.stdout);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "vault  run-1");
    for (line, begin) in lines[1..].iter().zip([" → LOOK all is well", " → PAY  amount=5", " → TELL done"])
    {
        assert!(line.starts_with(begin), "{said}");
    }
    assert_eq!(place.booked(), ["PAY"]);
    let heard: Value = serde_json::from_str(&std::fs::read_to_string(place.path("told")).unwrap()).unwrap();
    assert_eq!(heard["inputs"]["amount"], 5);
    assert_eq!(heard["outputs"]["PAY"]["amount"], 5);
    assert_eq!(heard["outputs"]["LOOK"]["text"], "all is well");
    let document = json(&daemon.client(&["run", "vault", "--json"]));
    assert_eq!((&document["success"], &document["run"]), (&Value::Bool(true), &Value::from("run-2")));
    assert_eq!(place.booked().len(), 2, "two runs are two payments, each with a key of its own");
    assert_eq!(daemon.client(&["run", "nothing"]).status.code(), Some(2));
    daemon.end();
}

#[test]
fn a_failure_names_the_step_and_the_reason_and_the_run_goes_on_there() {
    let place = Place::new();
    place.touch("refuse");
    let daemon = place.serve(CONFIRM);
    ready(&daemon);
    let document = json(&daemon.client(&["run", "vault", "--json"]));
    let wanted = serde_json::json!({
        "success": false, "failedAt": "PAY", "error": "gas is above max_fee", "run": "run-1"
    });
    for (key, value) in wanted.as_object().unwrap() {
        assert_eq!(&document[key], value, "{document}");
    }
    assert!(place.booked().is_empty() && !place.path("told").exists());
    let log = std::fs::read_to_string(place.path("runs/run-1.log")).unwrap();
    assert_eq!(log, "PAY gas 61 gwei is above max_fee 40\n");
    std::fs::remove_file(place.path("refuse")).unwrap();
    std::fs::remove_file(place.path("heard")).unwrap();
    let output = daemon.client(&["resume", "run-1"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("→ PAY") && place.path("told").exists(), "{output:?}");
    assert!(!place.path("heard").exists(), "what was done before was not repeated");
    assert_eq!(place.booked(), ["PAY"]);
    assert_eq!(daemon.client(&["resume", "run-1"]).status.code(), Some(6), "it is done");
    daemon.end();
}

/// Kills lidless after the step has booked and before it could say so.
fn killed_in_the_middle(place: &Place, pay: &str) -> Daemon {
    place.touch("slow");
    let mut daemon = place.serve(pay);
    ready(&daemon);
    let begun = daemon.client(&["run", "vault", "--no-wait"]);
    assert_eq!(begun.status.code(), Some(0), "{begun:?}");
    wait_until(LONG, "it is booked", || !place.booked().is_empty());
    daemon.signal(Signal::KILL);
    daemon.wait_for_end(LONG);
    std::fs::remove_file(place.path("slow")).unwrap();
    let daemon = place.serve(pay);
    ready(&daemon);
    daemon
}

#[test]
fn a_crash_between_the_effect_and_its_record_is_looked_up_and_counted_once() {
    let place = Place::new();
    let daemon = killed_in_the_middle(&place, CONFIRM);
    wait_until(LONG, "the run is done", || state(&daemon) == "done");
    assert_eq!(place.booked(), ["PAY"]);
    let heard: Value = serde_json::from_str(&std::fs::read_to_string(place.path("told")).unwrap()).unwrap();
    assert_eq!(heard["outputs"]["PAY"]["amount"], 5, "what was found out is its output");
    daemon.end();
}

#[test]
fn a_command_that_outlives_its_lidless_is_ended_before_anybody_is_asked_about_it() {
    for pay in [CONFIRM, ONE_SHOT] {
        let place = Place::new();
        place.touch("wait");
        let mut daemon = place.serve(pay);
        ready(&daemon);
        daemon.client(&["run", "vault", "--no-wait"]);
        wait_until(LONG, "the step is at work", || place.path("began").exists());
        daemon.signal(Signal::KILL);
        daemon.wait_for_end(LONG);
        let daemon = place.serve(pay);
        ready(&daemon);
        // The first attempt would book now, if it were still there.
        std::fs::remove_file(place.path("wait")).unwrap();
        if pay == ONE_SHOT {
            wait_until(LONG, "a person is waited for", || state(&daemon) == "held");
            assert!(place.booked().is_empty(), "what nobody knows of must not come later either");
        } else {
            wait_until(LONG, "the run is done", || state(&daemon) == "done");
            assert_eq!(place.booked(), ["PAY"]);
        }
        daemon.end();
    }
}

#[test]
fn a_one_shot_step_in_doubt_waits_for_a_person_and_is_never_repeated() {
    let place = Place::new();
    let daemon = killed_in_the_middle(&place, ONE_SHOT);
    wait_until(LONG, "a person is waited for", || state(&daemon) == "held");
    assert_eq!(place.booked(), ["PAY"]);
    assert_eq!(daemon.client(&["run", "vault"]).status.code(), Some(75), "the run is not over");
    assert!(runs(&daemon).to_string().contains("lidless ended while it was under way"), "it is told why");
    let wrong = daemon.client(&["resolve", "run-1", "TELL", "--applied", "--evidence", "seen"]);
    assert_eq!(wrong.status.code(), Some(6), "{wrong:?}");
    let output = daemon.client(&["resolve", "run-1", "PAY", "--applied", "--evidence", "seen in the ledger"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    wait_until(LONG, "the run is done", || state(&daemon) == "done");
    assert_eq!(place.booked(), ["PAY"]);
    assert!(support::events(&place.path("l.db")).contains("seen in the ledger"), "it is on record");
    daemon.end();
}

#[test]
fn a_step_killed_at_its_deadline_is_in_doubt_and_asked_about() {
    let place = Place::new();
    place.touch("slow");
    let daemon = place.serve(&CONFIRM.replace("confirm", "retry: { attempts: 1 }\n          confirm"));
    ready(&daemon);
    let output = daemon.client(&["run", "vault"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = text(&output.stdout);
    assert!(said.contains("? PAY  outcome unknown: not done within "), "{said}");
    assert!(said.contains("→ PAY  it was done: it is in the ledger"), "{said}");
    assert_eq!(place.booked(), ["PAY"]);
    daemon.end();
}

#[test]
fn a_cancelled_run_begins_no_further_step() {
    let place = Place::new();
    place.touch("slow");
    let daemon = place.serve(CONFIRM);
    ready(&daemon);
    daemon.client(&["run", "vault", "--no-wait"]);
    wait_until(LONG, "it is booked", || !place.booked().is_empty());
    assert_eq!(daemon.client(&["cancel", "run-1"]).status.code(), Some(0));
    std::fs::remove_file(place.path("slow")).unwrap();
    wait_until(LONG, "the run is cancelled", || state(&daemon) == "cancelled");
    assert_eq!(place.booked(), ["PAY"]);
    assert!(!place.path("told").exists());
    daemon.end();
}

#[test]
fn the_page_that_teaches_it_tells_the_truth() {
    let page = std::fs::read_to_string("../../docs/pipelines.md").unwrap();
    let block = |begin: &str| {
        let at = page.find(begin).unwrap_or_else(|| panic!("no block begins with {begin}"));
        let body = &page[at..];
        body[body.find('\n').unwrap() + 1..].split("```").next().unwrap().to_owned()
    };
    let place = Place::new();
    let script = place.path("compound");
    std::fs::write(&script, block("```sh\n#!/bin/sh")).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let daemon = Daemon::serve(&place.0, &block("```yaml\nversion: 1"));
    ready(&daemon);
    let output = daemon.client(&["run", "vault"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    // As on the page, but for how long each step took.
    let said = text(&output.stdout);
    let printed = block("```text\n$ lidless run vault");
    let printed: Vec<&str> = printed.lines().skip(1).collect();
    for (line, wanted) in said.lines().zip(&printed) {
        assert!(line == *wanted || line.starts_with(&format!("{wanted}   ")), "{line:?}, not {wanted:?}");
    }
    assert_eq!(said.lines().count(), printed.len(), "{said}");
    let document = text(&daemon.client(&["run", "vault", "--json"]).stdout);
    let order =
        ["success", "failedAt", "error", "run"].map(|key| document.find(&format!("{key:?}")).unwrap());
    assert!(order.is_sorted(), "{document}");
    assert!(document.contains(r#""error": "gas is above max_fee""#), "{document}");
    assert_eq!(daemon.client(&["resume", "run-1"]).status.code(), Some(1));
    let ledger = std::fs::read_to_string(place.path("ledger")).unwrap();
    assert_eq!(ledger.lines().count(), 2, "one line a run");
    daemon.end();
}
