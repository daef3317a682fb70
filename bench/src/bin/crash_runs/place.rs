//! What is run? The commands of the steps, the configuration, and how lidless is asked there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use lidless_bench::{Problem, lidless};
use serde_json::Value;

/// Pipelines that move on side by side.
pub(crate) const PIPELINES: usize = 6;
/// And those that turn back.
pub(crate) const BACK: usize = 2;

/// How a payment is looked up, and tried again.
const CONFIRMED: &str = "confirm: { exec: [./book, --look], tries: 1000 }, retry: { attempts: 5, backoff: 10ms..50ms }, \
                         timeout: 2s";

/// The step: takes its time, books its key, takes its time again, answers. Asked with `--look`, and not finding the key, it
/// fences the attempt off before it says "no": a "no" must stay true, though the attempt's process may still be on its way.
pub(crate) const BOOK: &str = r#"#!/bin/sh
mine="$LIDLESS_RUN $LIDLESS_STEP"
exec 9>lock
if [ "$1" = --look ]; then
  flock 9
  if grep -q "^$mine $LIDLESS_IDEMPOTENCY_KEY$" ledger 2>/dev/null; then
    echo '{"applied":true,"evidence":"in the ledger"}'
  else
    echo "$mine $LIDLESS_ATTEMPT" >> fenced
    echo '{"applied":false,"evidence":"not in the ledger, and fenced off"}'
  fi
  exit
fi
echo "$mine $$" >> started
sleep 0.0$(( $$ % 7 ))
flock 9
grep -q "^$mine $LIDLESS_ATTEMPT$" fenced 2>/dev/null && exit 1
echo "$mine $LIDLESS_IDEMPOTENCY_KEY" >> ledger
flock -u 9
sleep 0.0$(( $$ % 5 ))
echo '{"ok":true}'
"#;

/// A person who looks does the same for the one attempt of a one-shot step.
const LOOK: &str = r#"exec 9>lock; flock 9
if grep -q "^$1 " ledger 2>/dev/null; then echo yes; else echo "$1 1" >> fenced; echo no; fi"#;

/// Writes the step and the configuration.
pub(crate) fn configuration(dir: &Path, text_of_script: &str) -> Result<PathBuf, Problem> {
    fs::create_dir_all(disk(dir))?;
    let script = dir.join("book");
    fs::write(&script, text_of_script)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let mut text = format!(
        "version: 1\nsite: bench\nweb: off\nstore: {{ path: \"{}\" }}\npipelines:\n",
        lidless::store(&disk(dir)).display()
    );
    for index in 0..PIPELINES {
        text.push_str(&format!(
            "  p{index}:\n    steps:\n      - LOOK: {{ call: {{ exec: [\"true\"] }}, class: pure }}\n      \
             - PAY: {{ call: {{ exec: [./book] }}, {CONFIRMED}, value: {{}} }}\n      \
             - SEND: {{ call: {{ exec: [./book] }}, class: one_shot, timeout: 2s, value: {{}} }}\n      \
             - TELL: {{ call: {{ exec: [\"true\"] }} }}\n"
        ));
    }
    // These come to nothing, and take back what they did; the two payments are side by side.
    for index in 0..BACK {
        text.push_str(&format!(
            "  back{index}:\n    steps:\n      - LOOK: {{ call: {{ exec: [\"true\"] }}, class: pure }}\n      \
             - PAY: {{ call: {{ exec: [./book] }}, {CONFIRMED}, value: {{}}, undo: {{ call: {{ exec: [./book] }}, {CONFIRMED} }} }}\n      \
             - TAX: {{ call: {{ exec: [./book] }}, after: [LOOK], {CONFIRMED}, value: {{}}, undo: {{ call: {{ exec: [./book] }}, \
             {CONFIRMED} }} }}\n      \
             - DECIDE: {{ call: {{ exec: [\"false\"] }}, after: [PAY, TAX] }}\n"
        ));
    }
    let path = dir.join("lidless.yaml");
    fs::write(&path, text)?;
    Ok(path)
}

/// Where the journal lies: a disk of its own, where that can be had.
pub(crate) fn disk(dir: &Path) -> PathBuf {
    dir.join("disk")
}

/// Where everything is.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) binary: &'a Path,
    pub(crate) dir: &'a Path,
}

impl Place<'_> {
    /// Asks lidless something; none where it does not answer, or refuses.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Option<Value> {
        let mut command = Command::new(self.binary);
        command.arg("--config").arg(self.dir.join("lidless.yaml")).args(arguments).arg("--json");
        let output = command.output().ok()?;
        output.status.success().then(|| serde_json::from_slice(&output.stdout).ok())?
    }

    pub(crate) fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Whether a step of a run took effect; if not, it never will.
    pub(crate) fn look(&self, run: &str, step: &str) -> Option<bool> {
        let mut command = Command::new("sh");
        command.args(["-c", LOOK, "look", &format!("{run} {step}")]).current_dir(self.dir);
        match command.output().ok()?.stdout.as_slice() {
            b"yes\n" => Some(true),
            b"no\n" => Some(false),
            _ => None,
        }
    }
}
