//! Does a step by plugin tell the truth about what became of it? With real plugins, right and wrong ones.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "../support/step_answers.rs"]
mod answers;
mod bad;
mod conformance;
mod ledger;
mod life;

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex};

use lidless_drivers::check::BoxFuture;
use lidless_drivers::child::CommandSpec;
use lidless_drivers::step::plugin::{PluginSettings, PluginStep, Plugins};
use lidless_drivers::step::{Call, Host, Log};
use serde_json::{Value, json};

use answers::{PLENTY, count, eventually, shown, shown_found};

/// The rest of every plugin here: how it reads, and how it describes itself.
const PRELUDE: &str = r#"
import json, os, sys, time, signal
def raw(text):
    os.write(1, text.encode())
def say(request, **body):
    raw(json.dumps({"id": request["id"], **body}) + "\n")
def describe(request, **more):
    kind = {"name": "do", "class": "confirmable", "confirms": True, "undoes": True, "plans": True, "prepares": True}
    say(request, ok=True, protocol=1, name="test", version="1", kinds=[{**kind, **more}])
def requests():
    for line in sys.stdin:
        try:
            request = json.loads(line)
            request["id"]
        except (ValueError, KeyError, TypeError):
            continue
        yield request
"#;

/// The Python to write plugins in: itself, for what is found by its name may be a slow script that looks for it.
static PYTHON: LazyLock<Option<String>> = LazyLock::new(|| {
    let out = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().ok()?;
    let path = String::from_utf8(out.stdout).ok()?.trim().to_owned();
    (out.status.success() && !path.is_empty()).then_some(path)
});

/// Says whether there is a Python, or that the test is skipped.
fn has_python() -> bool {
    if PYTHON.is_none() {
        println!("skipped: there is no python3 here");
    }
    PYTHON.is_some()
}

/// A plugin of this Python, behind the prelude.
fn python(script: &str) -> CommandSpec {
    let script = format!("{PRELUDE}\n{script}");
    command(["-S", "-c", &script])
}

fn command<const N: usize>(arguments: [&str; N]) -> CommandSpec {
    let python = PYTHON.clone().unwrap();
    let argv = [&*python].into_iter().chain(arguments).map(str::to_owned).collect();
    CommandSpec { argv, ..CommandSpec::default() }
}

/// A plugin that does this for each request that is not `describe`.
fn answering(script: &str) -> CommandSpec {
    describing("", script)
}

/// The same, with something else in its description.
fn describing(more: &str, script: &str) -> CommandSpec {
    let body: String = script.lines().map(|line| format!("    {line}\n")).collect();
    python(&format!(
        "for r in requests():\n    if r['op'] == 'describe':\n        describe(r{more})\n        continue\n{body}"
    ))
}

fn ledger() -> CommandSpec {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/plugins/ledger.py");
    command([path.to_str().unwrap()])
}

fn settings(command: CommandSpec) -> PluginSettings {
    PluginSettings {
        name: "test".to_owned(),
        command,
        kind: "do".to_owned(),
        settings: json!({}),
        heartbeat: None,
        strict: true,
    }
}

fn step(command: CommandSpec) -> PluginStep {
    Plugins::new().step(settings(command))
}

fn call() -> Call {
    Call {
        run: "run-7".to_owned(),
        pipeline: "payout".to_owned(),
        step: "send".to_owned(),
        attempt: 1,
        idempotency_key: "k-7f".to_owned(),
        inputs: json!({ "amount": "12.50" }),
        outputs: Arc::new(json!({})),
        handles: Vec::new(),
        undoes: None,
        allotted: None,
    }
}

/// Remembers every line and every handle.
#[derive(Default)]
struct Kept {
    lines: Mutex<Vec<String>>,
    handles: Mutex<Vec<Value>>,
    /// Why it keeps nothing.
    is_full: bool,
}

impl Kept {
    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn has(&self, line: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|seen| seen == line)
    }

    fn handles(&self) -> Vec<Value> {
        self.handles.lock().unwrap().clone()
    }
}

impl Log for Kept {
    fn line(&self, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
    }
}

impl Host for Kept {
    fn keep<'a>(&'a self, handle: &'a Value) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            if self.is_full {
                return Err("the disk is full".to_owned());
            }
            self.handles.lock().unwrap().push(handle.clone());
            Ok(())
        })
    }
}
