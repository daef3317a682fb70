//! Do steps tell the truth about what became of them? With real scripts and servers, right and wrong ones.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod confirm;
mod http;
mod http_confirm;
mod limits;
mod perform;
mod server;
mod talk;

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lidless_drivers::check::BoxFuture;
use lidless_drivers::child::CommandSpec;
use lidless_drivers::step::exec::{ExecStep, ExecStepSettings};
use lidless_drivers::step::{Answer, Call, FailureClass, Found, Host, Log, Step};
use serde_json::json;

/// Far beyond what any answer takes here.
const PLENTY: Duration = Duration::from_secs(60);

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

/// Shows an answer: "applied {output}", "transient: error".
fn shown(answer: &Answer) -> String {
    match answer {
        Answer::Applied { output, amounts, handle } => {
            let amounts: Vec<String> = amounts.iter().map(|a| format!(" {}{:+}", a.asset, a.minor)).collect();
            let handle = handle.as_ref().map(|handle| format!(" by {handle}"));
            format!("applied {output}{}{}", amounts.concat(), handle.unwrap_or_default())
        }
        Answer::Failed { error, class } => {
            let class = match class {
                FailureClass::Transient => "transient",
                FailureClass::Permanent => "permanent",
                FailureClass::Unknown => "unknown",
            };
            format!("{class}: {error}")
        }
    }
}

fn shown_found(found: &Found) -> String {
    match found {
        Found::Applied { output, evidence } => format!("applied {output}: {evidence}"),
        Found::NotApplied { evidence } => format!("not applied: {evidence}"),
        Found::Failed { error, for_good } => format!("failed, for good {for_good}: {error}"),
        Found::StillUnknown { reason, retry_after: None } => format!("unknown: {reason}"),
        Found::StillUnknown { reason, retry_after: Some(after) } => {
            format!("unknown for {after:?}: {reason}")
        }
    }
}

async fn perform(command: CommandSpec, strict: bool) -> String {
    shown(&step(command, strict).perform(&call(), PLENTY, &Kept::default()).await)
}

/// Performs a shell script as a step that may be repeated, and as one that must not be.
async fn both(script: &str) -> [String; 2] {
    [perform(sh(script), false).await, perform(sh(script), true).await]
}

/// Counts the processes with this text among their arguments. A zombie has no arguments.
fn count(marker: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let has = |path: std::path::PathBuf| {
        fs::read(path.join("cmdline"))
            .is_ok_and(|line| line.windows(marker.len()).any(|window| window == marker.as_bytes()))
    };
    processes.filter(|process| has(process.path())).count()
}

/// Waits until something holds.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PLENTY;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        // tidy-allow: between two looks at a condition
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
