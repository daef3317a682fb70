//! What can a check answer? Three things: pass, fail, and "I could not ask".

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::micros;

/// The answer of one probe.
///
/// **Invariant:** "I could not ask" is neither up nor down: `Inconclusive` never moves health towards `Down`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CheckOutcome {
    /// The target answered as it should.
    Pass {
        /// From the start of the probe to its end.
        latency: Duration,
    },
    /// The target was asked and answered wrongly, too late, or not at all.
    Fail {
        /// From the start of the probe to its end.
        latency: Duration,
        /// What was wrong.
        failure: CheckFailure,
    },
    /// Nobody knows: the resolver was broken, the probe could not be started, we were late ourselves.
    Inconclusive {
        /// Why nothing could be learnt.
        reason: String,
    },
}

/// What was wrong with the target.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CheckFailure {
    /// The kind, for grouping and fingerprints.
    pub kind: FailureKind,
    /// One line for people: "status 500, wanted below 400".
    pub detail: String,
    /// A fact rather than a sample (the kernel said that the process ended): it needs no confirmation.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub certain: bool,
    /// The exit code of the process, where one ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// From the start of the probe to its end.
    #[serde(default, rename = "latency_us", with = "micros")]
    pub latency: Duration,
}

impl CheckFailure {
    /// Returns a failure that one more probe may or may not repeat.
    pub fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        CheckFailure { kind, detail: detail.into(), certain: false, exit_code: None, latency: Duration::ZERO }
    }

    /// Marks the failure as a fact that needs no confirmation.
    #[must_use]
    pub fn certain(mut self) -> Self {
        self.certain = true;
        self
    }

    /// Notes the exit code of the process that ended.
    #[must_use]
    pub fn with_exit_code(mut self, code: Option<i32>) -> Self {
        self.exit_code = code;
        self
    }
}

/// Kinds of failure, as users would sort them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Nobody listens: connection refused.
    Refused,
    /// No complete answer before the deadline.
    Timeout,
    /// The network said no: unreachable, reset.
    Network,
    /// The TLS handshake failed.
    Tls,
    /// The answer broke the protocol.
    Protocol,
    /// The status was not an expected one.
    Status,
    /// The answer was complete but not as expected.
    Content,
    /// A check command said so (Nagios exit codes 1 and 2).
    Command,
    /// The process is not there.
    NotRunning,
    /// The service manager says that the unit is not active.
    Unit,
}

impl FailureKind {
    /// The word for people and metrics.
    pub fn word(self) -> &'static str {
        match self {
            FailureKind::Refused => "refused",
            FailureKind::Timeout => "timeout",
            FailureKind::Network => "network",
            FailureKind::Tls => "tls",
            FailureKind::Protocol => "protocol",
            FailureKind::Status => "status",
            FailureKind::Content => "content",
            FailureKind::Command => "command",
            FailureKind::NotRunning => "not running",
            FailureKind::Unit => "unit",
        }
    }
}
