//! How do tests of steps show an answer, and wait for what follows from it?

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use lidless_drivers::step::{Answer, FailureClass, Found};

/// Far beyond what any answer takes here.
pub(crate) const PLENTY: Duration = Duration::from_secs(60);

/// Shows an answer: "applied {output}", "transient: error".
pub(crate) fn shown(answer: &Answer) -> String {
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

/// Shows what was found out: "applied {output}: evidence".
pub(crate) fn shown_found(found: &Found) -> String {
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

/// Counts the processes with this text among their arguments. A zombie has no arguments.
pub(crate) fn count(marker: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let has = |path: PathBuf| {
        fs::read(path.join("cmdline"))
            .is_ok_and(|line| line.windows(marker.len()).any(|window| window == marker.as_bytes()))
    };
    processes.filter(|process| has(process.path())).count()
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PLENTY;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        // tidy-allow: between two looks at a condition
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
