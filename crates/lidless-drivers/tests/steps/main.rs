//! Do steps tell the truth about what became of them? With real scripts and servers, right and wrong ones.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "../support/step_answers.rs"]
mod answers;
mod confirm;
mod http;
mod http_confirm;
mod limits;
mod perform;
mod server;
mod talk;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use lidless_drivers::check::BoxFuture;
use lidless_drivers::child::CommandSpec;
use lidless_drivers::step::exec::{ExecStep, ExecStepSettings};
use lidless_drivers::step::{Call, Host, Log, Step};
use serde_json::json;

use answers::{PLENTY, count, eventually, shown, shown_found};

fn sh(script: &str) -> CommandSpec {
    CommandSpec { argv: ["sh", "-c", script].map(str::to_owned).into(), ..CommandSpec::default() }
}

fn python(script: &str) -> CommandSpec {
    CommandSpec { argv: ["python3", "-c", script].map(str::to_owned).into(), ..CommandSpec::default() }
}

fn step(command: CommandSpec, strict: bool) -> ExecStep {
    ExecStep::new(settings(command, strict))
}

fn settings(command: CommandSpec, strict: bool) -> ExecStepSettings {
    ExecStepSettings { command, confirm: None, strict, heartbeat: None, handles: false }
}

/// Returns a call with a key of its own: what carries the key of an attempt that failed is killed, whoever has started it.
fn call() -> Call {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let number = CALLS.fetch_add(1, Ordering::Relaxed);
    Call {
        run: "run-7".to_owned(),
        pipeline: "payout".to_owned(),
        step: "send".to_owned(),
        attempt: 2,
        idempotency_key: format!("k-{}-{number}", std::process::id()),
        inputs: json!({ "to": "alice" }),
        outputs: Arc::new(json!({ "quote": { "price": 7 } })),
        handles: Vec::new(),
        undoes: None,
        allotted: None,
    }
}

/// Remembers every line.
#[derive(Default)]
struct Kept(Mutex<Vec<String>>);

impl Kept {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn has(&self, line: &str) -> bool {
        self.0.lock().unwrap().iter().any(|seen| seen == line)
    }
}

impl Log for Kept {
    fn line(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
}

impl Host for Kept {
    fn keep<'a>(&'a self, _: &'a serde_json::Value) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

async fn perform(command: CommandSpec, strict: bool) -> String {
    shown(&step(command, strict).perform(&call(), PLENTY, &Kept::default()).await)
}

/// Performs a shell script as a step that may be repeated, and as one that must not be.
async fn both(script: &str) -> [String; 2] {
    [perform(sh(script), false).await, perform(sh(script), true).await]
}
