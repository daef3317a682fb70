//! Can one see what a run would do, how it goes without a daemon, and what became of it?
#![allow(clippy::unwrap_used)]

#[path = "cli/hermetic.rs"]
mod hermetic;
#[path = "cli/neutral.rs"]
mod neutral;

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use hermetic::Hermetic;
use insta::assert_snapshot;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(30);

/// Books its key, and can be asked for it. While there is a file `slow` it does not come to its end.
const BOOK: &str = r#"#!/bin/sh
if [ "$1" = --look ]; then
  if grep -q "^$LIDLESS_IDEMPOTENCY_KEY " ledger 2>/dev/null; then
    echo '{"applied":true,"evidence":"it is in the ledger","output":{"amount":5}}'
  else
    echo '{"applied":false,"evidence":"it is not in the ledger"}'
  fi
  exit
fi
echo "$LIDLESS_IDEMPOTENCY_KEY $LIDLESS_STEP" >> ledger
while test -e slow; do sleep 0.02; done
test -e refuse && { echo '{"ok":false,"error":"gas is above max_fee","class":"permanent"}'; exit 1; }
echo '{"ok":true,"output":{"amount":5}}'
"#;

const CONFIG: &str = r#"version: 1
web: off
store: { path: l.db }
defaults: { every: 100ms, timeout: 2s, confirm_every: 20ms, fail_after: 2, recover_after: 1 }
services:
  api: { checks: { alive: { exec: { command: [test, -e, alive] } } } }
pipelines:
  vault:
    steps:
      - HEALTHY: { require: { healthy: [api] } }
      - LOOK: { call: { exec: [sh, -c, 'echo all is well'] } }
      - PAY:
          call: { exec: [./book, a b] }
          confirm: { exec: [./book, --look] }
          timeout: 30s
          value: {}
      - TELL: { call: { exec: [sh, -c, 'cat > told'] } }
  other:
    steps:
      - DO: { call: { exec: ['true'] } }
  asks:
    steps:
      - LET: { approve: { within: 1h }, call: { exec: ['true'] } }
"#;

struct Place {
    env: Hermetic,
    child: Option<Child>,
}

impl Place {
    fn new() -> Place {
        let env = Hermetic::new();
        env.write("lidless.yaml", CONFIG);
        env.write("book", BOOK);
        std::fs::set_permissions(env.path("book"), std::fs::Permissions::from_mode(0o755)).unwrap();
        env.write("alive", "");
        Place { env, child: None }
    }

    fn serve(&mut self) {
        let log = std::fs::File::create(self.env.path("log")).unwrap();
        let mut command = self.env.command(&["serve"]);
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        self.until("lidless answers, and api is up", || self.env.run(&["status"]).code == Some(0));
    }

    fn signal(&mut self, signal: Signal) {
        if let Some(mut child) = self.child.take() {
            kill_process(Pid::from_child(&child), signal).unwrap();
            child.wait().unwrap();
        }
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + LONG;
        while !holds() {
            let log = || std::fs::read_to_string(self.env.path("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "not within {LONG:?}: {what}\n{}", log());
            std::thread::sleep(Duration::from_millis(10)); // tidy-allow: between two looks at a condition
        }
    }

    fn booked(&self) -> usize {
        std::fs::read_to_string(self.env.path("ledger")).unwrap_or_default().lines().count()
    }

    fn json(&self, args: &[&str]) -> Value {
        let ran = self.env.run(args);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|err| panic!("{err}: {}{}", ran.stdout, ran.stderr))
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.env.path(name)).unwrap();
    }
}

/// A story without the numbers of its events: how a check has fared meanwhile is told there, too.
fn without_numbers(story: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#').and_then(|rest| rest.split_once(' ')) {
        Some((_, rest)) => format!("#N {}", rest.trim_start()),
        None => line.to_owned(),
    };
    story.lines().map(line).collect::<Vec<_>>().join("\n")
}

impl Drop for Place {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
    }
}

#[test]
fn a_dry_run_tells_each_step_and_does_nothing() {
    let mut place = Place::new();
    place.serve();
    let before = place.json(&["status", "--json"])["seq"].clone();
    assert_snapshot!("dry_run", place.env.show(&["run", "vault", "--dry-run"]));
    assert_snapshot!("dry_run_from", place.env.show(&["run", "vault", "--dry-run", "--from", "PAY"]));
    let document = place.json(&["run", "vault", "--dry-run", "--json"]);
    assert_eq!(
        (&document["schema"], &document["steps"][2]["would"]),
        (&"lidless/plan/1".into(), &"do".into())
    );
    assert_eq!(place.json(&["status", "--json"])["seq"], before, "nothing is recorded");
    assert_eq!(place.booked(), 0);
    place.remove("alive");
    place.until("api is down", || place.env.run(&["status"]).code == Some(1));
    assert_snapshot!("dry_run_fails", place.env.show(&["run", "vault", "--dry-run"]));
    assert_snapshot!("dry_run_refused", place.env.show(&["run", "nothing", "--dry-run"]));
    let wrong = place.env.run(&["run", "vault", "--dry-run", "--from", "NOWHERE"]);
    assert_eq!(wrong.code, Some(6), "{}", wrong.stderr);
}

#[test]
fn a_run_without_a_daemon_says_the_same_and_leaves_the_journal_closed() {
    let mut place = Place::new();
    assert_snapshot!("local", place.env.show(&["run", "vault", "--local", "--input", "amount=5"]));
    assert_eq!(place.booked(), 1);
    assert!(!place.env.path("lidless.sock").exists(), "nobody listens");
    assert_eq!(place.env.run(&["store", "verify"]).code, Some(0));
    let again = place.json(&["run", "vault", "--local", "--json", "--key", "monday"]);
    assert_eq!((&again["success"], &again["run"]), (&Value::Bool(true), &"run-2".into()));
    assert_snapshot!("local_same_key", place.env.show(&["run", "vault", "--local", "--key", "monday"]));
    assert_eq!(place.booked(), 2, "the same key is one run");
    place.env.write("refuse", "");
    assert_snapshot!("local_fails", place.env.show(&["run", "vault", "--local"]));
    place.remove("alive");
    let unwell = place.env.run(&["run", "vault", "--local"]);
    assert!(unwell.stdout.contains("✗ HEALTHY failed: api is down"), "{}", unwell.stdout);
    assert_eq!(place.env.run(&["run", "nothing", "--local"]).code, Some(2));
    place.env.write("alive", "");
    place.serve();
    let busy = place.env.run(&["run", "vault", "--local"]);
    assert_eq!(busy.code, Some(4), "{}", busy.stderr);
    let pid = place.child.as_ref().unwrap().id().to_string();
    assert!(busy.stderr.contains(&pid) && busy.stderr.contains("without --local"), "{}", busy.stderr);
    let key = place.env.run(&["run", "vault", "--key", "monday"]);
    assert_eq!(key.code, Some(0), "also a daemon says at once that it is over: {}", key.stderr);
}

#[test]
fn nobody_can_be_asked_where_there_is_no_daemon() {
    let mut place = Place::new();
    assert_snapshot!("local_asks", place.env.show(&["run", "asks", "--local"]));
    place.serve();
    assert_eq!(place.env.run(&["approve", "run-1"]).code, Some(0));
    place.until("it is done", || place.env.run(&["explain", "run-1"]).stdout.contains("of asks: done in"));
}

/// Kills lidless while PAY has booked and not answered.
fn killed_in_the_middle() -> Place {
    let mut place = Place::new();
    place.env.write("slow", "");
    place.serve();
    assert_eq!(place.env.run(&["run", "vault", "--no-wait", "--input", "amount=5"]).code, Some(0));
    place.until("it is booked", || place.booked() == 1);
    place.signal(Signal::KILL);
    place.remove("slow");
    place
}

#[test]
fn what_a_killed_lidless_left_is_settled_before_another_run() {
    let mut place = killed_in_the_middle();
    let output = place.env.run(&["run", "other", "--local"]);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert!(output.stderr.contains("run-1 was left unfinished, and is settled first"), "{}", output.stderr);
    assert_eq!(place.booked(), 1);
    let story = place.env.show(&["--config", "lidless.yaml", "explain", "run-1"]);
    assert_snapshot!("story_of_a_crash", without_numbers(&story));
    place.serve();
    let told = place.env.run(&["explain", "1"]).stdout;
    assert_eq!(
        place.env.run(&["explain", "1", "--store", "l.db"]).stdout,
        told,
        "from the file it is the same"
    );
    let document = place.json(&["explain", "run-1", "--json"]);
    let events = place.env.run(&["events", "-o", "jsonl"]).stdout;
    for fact in document["facts"].as_array().unwrap() {
        let number = format!("\"seq\":{},", fact["seq"]);
        assert!(events.contains(&number), "{fact}");
    }
    assert_eq!(document["inputs"]["amount"], 5);
    assert_snapshot!("runs_of_one", place.env.show(&["runs", "run-1"]));
    assert!(place.json(&["runs", "run-1", "--json"])["runs"][0]["steps"][2]["took_ms"].is_u64());
    for verb in ["runs", "explain"] {
        assert_eq!(place.env.run(&[verb, "run-99"]).code, Some(2));
        assert_eq!(place.env.run(&[verb, "nonsense"]).code, Some(2));
    }
}

#[test]
fn a_story_that_is_not_over_ends_with_what_to_type() {
    let mut place = Place::new();
    place.env.write("refuse", "");
    place.serve();
    assert_eq!(place.env.run(&["run", "vault"]).code, Some(1));
    assert_snapshot!("story_of_a_failure", without_numbers(&place.env.show(&["explain", "run-1"])));
    assert_snapshot!("runs_of_a_failure", place.env.show(&["runs", "run-1"]));
}

#[test]
fn an_interrupt_cancels_a_run_without_a_daemon_cleanly() {
    let place = Place::new();
    place.env.write("slow", "");
    let mut command = place.env.command(&["run", "vault", "--local"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    place.until("it is booked", || place.booked() == 1);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    // The cancelled step is given its time.
    let journal = || place.env.run(&["events", "--store", "l.db"]).stdout;
    place.until("it is cancelled", || journal().contains("cancels run-1"));
    place.remove("slow");
    let ended = child.wait_with_output().unwrap();
    let (said, why) =
        (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr).into_owned());
    assert_eq!(ended.status.code(), Some(130), "{said}{why}");
    assert!(why.contains("run-1 was cancelled before TELL"), "{why}");
    assert!(said.contains("→ PAY     amount=5") && !place.env.path("told").exists(), "{said}");
    assert_eq!(place.env.run(&["store", "verify"]).code, Some(0));
    assert!(journal().contains("lidless stopped"));
}

#[test]
fn the_help_says_it() {
    let env = Hermetic::new();
    for verb in ["run", "explain", "runs"] {
        assert_snapshot!(format!("help_{verb}"), env.show(&[verb, "--help"]));
    }
}

/// A block of the page, by how it begins, without its first line.
fn block(page: &str, begin: &str) -> String {
    let at = page.find(begin).unwrap_or_else(|| panic!("no block begins with {begin}"));
    let body = &page[at..];
    body[body.find('\n').unwrap() + 1..].split("```").next().unwrap().to_owned()
}

#[test]
fn what_the_page_shows_is_what_one_sees() {
    let page = std::fs::read_to_string("../../docs/pipelines.md").unwrap();
    let mut place = Place::new();
    place.env.write("compound", &block(&page, "```sh\n#!/bin/sh"));
    std::fs::set_permissions(place.env.path("compound"), std::fs::Permissions::from_mode(0o755)).unwrap();
    place.env.write("lidless.yaml", &block(&page, "```yaml\nversion: 1"));
    assert_eq!(place.env.run(&["run", "vault", "--local"]).code, Some(1));
    place.serve();
    let dir = place.env.path("");
    let seen = |args: &[&str]| {
        let shown = place.env.run(args).stdout.replace(&*dir.to_string_lossy(), "./");
        without_numbers(&neutral::neutral(&shown, &dir))
    };
    let printed = |begin: &str| {
        let block = block(&page, begin);
        let lines = block.lines().skip(1).collect::<Vec<_>>().join("\n");
        without_numbers(&neutral::neutral(&lines, &dir))
    };
    let planned = place.env.run(&["run", "vault", "--dry-run"]).stdout;
    assert_eq!(
        planned.replace(&*dir.to_string_lossy(), "./").trim_end(),
        block(&page, "```text\n$ lidless run vault --dry-run").lines().skip(1).collect::<Vec<_>>().join("\n")
    );
    let (story, wanted) = (seen(&["explain", "run-1"]), printed("```text\n$ lidless explain run-1"));
    let mut lines = story.lines();
    for line in wanted.lines().filter(|line| *line != "...") {
        assert!(lines.any(|told| told == line), "{line:?} is not told in order:\n{story}");
    }
}
