//! Does a plugin do the steps of a whole daemon, and is an effect one effect however lidless ends?

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use rustix::process::Signal;
use serde_json::Value;

use super::support::{self, Daemon, Folder, wait_until};
use super::{LONG, json, ready, state, text};

const CONFIG: &str = "version: 1\nweb: off\nstore: { path: l.db }\nplugins: { ledger: { command: [./ledger.py] } }\n\
    pipelines:\n  payout:\n    steps:\n      - BOOK:\n          \
    call: { plugin: { name: ledger, kind: book, settings: { file: ledger.jsonl, account: cash } } }\n          \
    value: {}\n          retry: { attempts: 2 }\n";

const AMOUNT: &str = "amount=\"12.50\"";

/// Puts the sample beside the configuration, changed if need be.
pub(super) fn put_ledger(folder: &Folder, change: impl Fn(String) -> String) {
    let sample = std::fs::read_to_string("../../examples/plugins/ledger.py").unwrap();
    // Written beside and moved: no step may find half of it.
    let (new, path) = (folder.path().join("ledger.new"), folder.path().join("ledger.py"));
    std::fs::write(&new, change(sample)).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&new, &path).unwrap();
}

/// The amounts in the ledger.
pub(super) fn booked(folder: &Folder) -> Vec<String> {
    let ledger = std::fs::read_to_string(folder.path().join("ledger.jsonl")).unwrap_or_default();
    let amount = |line: &str| -> String {
        let entry: Value = serde_json::from_str(line).unwrap();
        entry["amount"].as_str().unwrap().to_owned()
    };
    ledger.lines().map(amount).collect()
}

/// Writes its pid into `began` before it books, and does not book while there is a file `hold`.
fn holds(sample: String) -> String {
    let book = "def book(settings, entry):\n";
    let held = "    import time\n    print(os.getpid(), file=open('began', 'a'))\n    \
                while os.path.exists('hold'):\n        time.sleep(0.02)\n";
    let changed = sample.replace(book, &format!("{book}{held}"));
    assert_ne!(changed, sample);
    changed
}

fn pids(folder: &Folder) -> Vec<String> {
    let began = std::fs::read_to_string(folder.path().join("began")).unwrap_or_default();
    began.lines().map(str::to_owned).collect()
}

#[test]
fn one_plugin_does_the_steps_of_two_runs_and_ends_with_lidless() {
    let folder = Folder::new();
    put_ledger(&folder, holds);
    let daemon = Daemon::serve(&folder, CONFIG);
    ready(&daemon);
    let plan = daemon.client(&["run", "payout", "--dry-run", "--input", AMOUNT]);
    assert!(text(&plan.stdout).contains("would book 12.50 for cash"), "{plan:?}");
    for _ in 0..2 {
        let document = json(&daemon.client(&["run", "payout", "--json", "--input", AMOUNT]));
        assert_eq!(document["success"], Value::Bool(true), "{document}");
    }
    assert_eq!(booked(&folder), ["12.50", "12.50"]);
    let pids = pids(&folder);
    assert_eq!(pids.len(), 2);
    assert_eq!(pids[0], pids[1], "it was started once");
    daemon.end();
    assert!(!Path::new("/proc").join(&pids[0]).exists(), "it ends before lidless does");
}

#[test]
fn what_a_killed_lidless_has_left_is_ended_before_anybody_is_asked_and_counts_once() {
    let folder = Folder::new();
    put_ledger(&folder, holds);
    std::fs::write(folder.path().join("hold"), "").unwrap();
    let mut daemon = Daemon::serve(&folder, CONFIG);
    ready(&daemon);
    daemon.client(&["run", "payout", "--no-wait", "--input", AMOUNT]);
    wait_until(LONG, "it is told to perform", || pids(&folder).len() == 1);
    daemon.signal(Signal::KILL);
    daemon.wait_for_end(LONG);
    let left = Path::new("/proc").join(&pids(&folder)[0]);
    let daemon = Daemon::serve(&folder, CONFIG);
    wait_until(LONG, "it is done again", || pids(&folder).len() == 2);
    // It still held, and would have booked as well.
    // Killed, it may still wait for whoever inherited it: then it has no environment any more.
    let environment = std::fs::read(left.join("environ")).unwrap_or_default();
    assert!(environment.is_empty(), "the earlier one could still take effect: {}", daemon.log());
    assert!(booked(&folder).is_empty());
    std::fs::remove_file(folder.path().join("hold")).unwrap();
    wait_until(LONG, "the run is done", || state(&daemon) == "done");
    assert_eq!(booked(&folder), ["12.50"]);
    daemon.end();
    let events = support::events(&folder.path().join("l.db"));
    assert!(events.contains("the key is not in the ledger"), "it was asked: {events}");
}

fn tested(folder: &Folder, arguments: &[&str]) -> Output {
    let mut test = support::lidless();
    test.args(["plugin", "test", "./ledger.py", "--settings", r#"{"file": "l.jsonl", "account": "cash"}"#]);
    test.args(arguments).current_dir(folder.path()).output().unwrap()
}

#[test]
fn the_sample_keeps_every_promise_and_one_that_does_not_is_found_out() {
    let folder = Folder::new();
    put_ledger(&folder, |text| text);
    let inputs = ["--kind", "book", "--inputs", r#"{"amount": "12.50"}"#];
    let output = tested(&folder, &inputs);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(said.starts_with("plugin ledger 1.0.0, kind `book`\n") && said.contains(" 0 failed"), "{said}");
    put_ledger(&folder, |text| text.replace("if not ledger.find(entry[\"key\"]):", "if True:"));
    let output = tested(&folder, &[&inputs[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let document = json(&output);
    assert_eq!(document["schema"], "lidless/plugin-test/1");
    let cases = document["cases"].as_array().unwrap();
    let twice = cases.iter().find(|case| case["name"] == "same-key-twice-is-one-effect").unwrap();
    assert_eq!(twice["verdict"], "fail", "{document}");
    assert_eq!(tested(&folder, &["--kind", "book", "--inputs", "12.50 EUR"]).status.code(), Some(2));
}
