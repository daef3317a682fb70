//! Is the service's own process there? Told by the kernel at the moment of its death.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lidless_core::check::{CheckFailure, CheckOutcome, FailureKind};

use super::{BoxFuture, Check};
use crate::process::launch::chain;
use crate::process::{ManagedProcess, ProcessState};

/// Passes while the process lives. Stopped (SIGSTOP) is alive: whether it *answers* is for another check to ask.
#[derive(Debug)]
pub struct ProcessCheck {
    process: Arc<ManagedProcess>,
    /// The last version of the process that was told by `changed`.
    told: AtomicU64,
}

impl ProcessCheck {
    /// Checks this process.
    pub fn new(process: Arc<ManagedProcess>) -> Self {
        ProcessCheck { process, told: AtomicU64::new(0) }
    }

    fn look(&self) -> CheckOutcome {
        let began = Instant::now();
        let state = match self.process.look() {
            Ok(state) => state,
            Err(err) => return CheckOutcome::Inconclusive { reason: chain(&err) },
        };
        let latency = began.elapsed();
        let (detail, code) = match state {
            ProcessState::Running { .. } => return CheckOutcome::Pass { latency },
            // The exit code is then the launcher's, and says nothing about the service.
            ProcessState::NotStarted { failure: Some(reason) }
            | ProcessState::Exited { failure: Some(reason), .. } => {
                (format!("is not running: {reason}"), None)
            }
            ProcessState::NotStarted { failure: None } => ("was never started".to_owned(), None),
            ProcessState::Exited { pid, exit, failure: None, .. } => {
                (format!("process {pid} {exit}"), exit.code())
            }
        };
        let mut failure = CheckFailure::new(FailureKind::NotRunning, detail).certain().with_exit_code(code);
        failure.latency = latency;
        CheckOutcome::Fail { latency, failure }
    }
}

impl Check for ProcessCheck {
    fn probe(&self, _timeout: Duration) -> BoxFuture<'_, CheckOutcome> {
        // A few system calls that never wait for the process itself: no deadline is needed.
        Box::pin(async { self.look() })
    }

    fn changed(&self) -> Option<BoxFuture<'_, ()>> {
        Some(Box::pin(async {
            let version = self.process.changed_since(self.told.load(Ordering::Acquire)).await;
            self.told.store(version, Ordering::Release);
        }))
    }
}
