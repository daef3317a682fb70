//! Do the checks that ask over the network and by command tell the truth? Against real little servers and commands.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod exec;
mod http;
mod server;
mod tcp;
mod tls;

use std::time::Duration;

use lidless_core::check::{CheckOutcome, FailureKind};

/// Far beyond what any answer takes here.
const PLENTY: Duration = Duration::from_secs(20);

/// Long enough for an answer on loopback, short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);

/// Shows an outcome without its times.
fn shown(outcome: &CheckOutcome) -> String {
    match outcome {
        CheckOutcome::Pass { .. } => "pass".into(),
        CheckOutcome::Fail { latency, failure } => {
            assert_eq!(*latency, failure.latency);
            format!("{}: {}", failure.kind.word(), failure.detail)
        }
        CheckOutcome::Inconclusive { reason } => format!("inconclusive: {reason}"),
    }
}

fn kind(outcome: &CheckOutcome) -> Option<FailureKind> {
    match outcome {
        CheckOutcome::Fail { failure, .. } => Some(failure.kind),
        CheckOutcome::Pass { .. } | CheckOutcome::Inconclusive { .. } => None,
    }
}

/// Asserts that the deadline ended a probe, neither early nor by chance.
///
/// The upper bound is what `verdict` itself allows before it blames this host instead of the target.
fn assert_took(outcome: &CheckOutcome, deadline: Duration) {
    let CheckOutcome::Fail { latency, .. } = outcome else { panic!("no failure: {outcome:?}") };
    assert!(*latency >= deadline, "ended early: {latency:?}");
    assert!(*latency <= deadline + Duration::from_millis(500), "ended late: {latency:?}");
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
