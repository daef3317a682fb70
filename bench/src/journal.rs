//! What did a client of lidless see? Events by number, read through `lidless events` while lidless lives.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Problem;
use crate::lidless;

/// Events by their number, as a client saw them.
pub type Events = BTreeMap<u64, Value>;

/// Reads the events after `after` from the daemon whose store is in `dir`; an error where it does not answer.
pub fn read(binary: &Path, dir: &Path, after: u64) -> Result<Events, Problem> {
    let socket = format!("unix:{}", dir.join("lidless.sock").display());
    events(binary, &["--connect", &socket, "--output", "jsonl", "events", "--after", &after.to_string()])
}

/// Reads all events from the store itself; no lidless may be needed for it.
pub fn read_store(binary: &Path, dir: &Path) -> Result<Events, Problem> {
    let store = lidless::store(dir).display().to_string();
    events(binary, &["--output", "jsonl", "events", "--after", "0", "--store", &store])
}

fn events(binary: &Path, args: &[&str]) -> Result<Events, Problem> {
    let output = Command::new(binary).args(args).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`lidless events` failed ({}): {}", output.status, said.trim()).into());
    }
    let mut events = Events::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let event: Value = serde_json::from_str(line)?;
        let seq = event.get("seq").and_then(Value::as_u64).ok_or("an event without `seq`")?;
        events.insert(seq, event);
    }
    Ok(events)
}

/// Runs `lidless store verify` on the store in `dir`; returns what it said.
pub fn verify(binary: &Path, dir: &Path) -> Result<String, Problem> {
    let output = Command::new(binary)
        .args(["store", "verify"])
        .arg(lidless::store(dir))
        .stdin(Stdio::null())
        .output()?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(said)
    } else {
        Err(format!("store verify: {}: {said}", output.status).into())
    }
}
