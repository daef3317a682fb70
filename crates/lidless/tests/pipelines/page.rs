//! Does every snippet of the page that teaches pipelines do what the page says?

use std::path::Path;
use std::process::Output;

use lidless::config::{self, Secrets};
use serde_json::Value;

use super::support::{self, Daemon, Folder, wait_until};
use super::{LONG, json, ready, runs, state, text};

fn page() -> String {
    std::fs::read_to_string("../../docs/pipelines.md").unwrap()
}

/// The blocks of a kind below a heading.
fn blocks(heading: &str, kind: &str) -> Vec<String> {
    let page = page();
    let from = page.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no heading {heading:?}"));
    let section = page[from + 4..].split("\n## ").next().unwrap();
    let begin = format!("```{kind}\n");
    section.split(&begin).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

fn serve(heading: &str) -> (Folder, Daemon) {
    let folder = Folder::new();
    let daemon = Daemon::serve(&folder, &blocks(heading, "yaml")[0]);
    ready(&daemon);
    (folder, daemon)
}

/// Says whether the output is what the page shows, but for blanks and for how long each step took.
fn is_as_shown(output: &Output, heading: &str) {
    let said = text(&output.stdout);
    let shown = blocks(heading, "text")[0].clone();
    let shown: Vec<&str> = shown.lines().skip(1).collect();
    for (line, wanted) in said.lines().zip(&shown) {
        let wanted = wanted.split_whitespace();
        let words = line.split_whitespace().take(wanted.clone().count());
        assert!(words.eq(wanted.clone()), "{line:?}, not {:?}", wanted.collect::<Vec<_>>());
    }
    assert_eq!(said.lines().count(), shown.len(), "{said}");
}

#[test]
fn every_snippet_is_valid() {
    let page = page();
    let snippets = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let folder = Folder::new();
    let file = folder.path().join("snippet.yaml");
    let mut count = 0;
    for snippet in snippets {
        std::fs::write(&file, snippet).unwrap();
        let loaded = config::load_with(std::slice::from_ref(&file), Secrets::Optional);
        loaded.unwrap_or_else(|problems| panic!("{snippet}\n{}", problems.render(100, false)));
        count += 1;
    }
    assert!(count >= 9, "only {count} snippets");
}

#[test]
fn steps_beside_each_other_both_come_before_what_waits_for_both() {
    let (_folder, daemon) = serve("Groups: what need not wait");
    let document = json(&daemon.client(&["run", "quote", "--json"]));
    assert_eq!(document["success"], Value::Bool(true), "{document}");
    let state = |name: &str| {
        let steps = document["steps"].as_array().unwrap();
        let found = steps.iter().position(|step| step["name"] == name);
        let found = found.unwrap_or_else(|| panic!("no {name}: {document}"));
        (found, steps[found]["state"].as_str().unwrap())
    };
    let (sold, done) = state("SELL_HERE");
    assert!(state("HERE").0 < sold && state("THERE").0 < sold, "{document}");
    assert_eq!((done, state("SELL_THERE").1), ("done", "skipped"));
    daemon.end();
}

#[test]
fn what_was_done_is_taken_back_as_shown() {
    let heading = "Undo, and where there is no way back";
    let (folder, daemon) = serve(heading);
    let output = daemon.client(&["run", "trip"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    is_as_shown(&output, heading);
    for name in ["hotel", "flight"] {
        assert!(!folder.path().join(name).exists(), "{name} is still booked");
    }
    assert_eq!(state(&daemon), "undone");
    daemon.end();
}

#[test]
fn a_step_that_waits_for_a_yes_begins_with_it_and_fails_with_a_no() {
    let (folder, daemon) = serve("A person's yes");
    let paid = |folder: &Path| std::fs::read_to_string(folder.join("paid")).unwrap_or_default();
    daemon.client(&["run", "payout", "--no-wait"]);
    wait_until(LONG, "somebody is asked", || state(&daemon) == "approval");
    assert_eq!(paid(folder.path()), "");
    let yes = daemon.client(&["approve", "run-1"]);
    assert_eq!(yes.status.code(), Some(0), "{yes:?}");
    wait_until(LONG, "the run is done", || state(&daemon) == "done");
    assert_eq!(paid(folder.path()), "paid\n");
    daemon.client(&["run", "payout", "--no-wait"]);
    wait_until(LONG, "somebody is asked", || {
        runs(&daemon)["runs"].as_array().is_some_and(|runs| runs.iter().any(|run| run["state"] == "approval"))
    });
    let no = daemon.client(&["approve", "run-2", "--no", "--why", "too much"]);
    assert_eq!(no.status.code(), Some(0), "{no:?}");
    wait_until(LONG, "the run has failed", || {
        runs(&daemon)["runs"].as_array().is_some_and(|runs| runs.iter().any(|run| run["state"] == "failed"))
    });
    assert_eq!(paid(folder.path()), "paid\n");
    assert!(support::events(&folder.path().join("lidless.db")).contains("too much"), "it is on record");
    daemon.end();
}

#[test]
fn what_begins_each_pipeline_is_said_in_words() {
    let heading = "What begins a run";
    let folder = Folder::new();
    std::fs::write(folder.path().join("lidless.yaml"), &blocks(heading, "yaml")[0]).unwrap();
    let mut check = support::lidless();
    let output = check.args(["check", "lidless.yaml"]).current_dir(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (said, shown) = (text(&output.stdout), blocks(heading, "text")[0].clone());
    // It is checked where the credential is not.
    assert_eq!(said.replace(", 1 warning", ""), shown);
}
