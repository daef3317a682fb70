//! How does a verb wait for what it began, and what may end the waiting?

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs the work to its end, and leaves behind what still blocks a thread.
///
/// Dropping the runtime would wait for such threads without limit: a look-up at a dead name server takes half a minute, and
/// nobody wants its answer any more.
pub(super) fn to_end<T>(tokio: Runtime, work: impl Future<Output = T>) -> T {
    let done = tokio.block_on(work);
    tokio.shutdown_background();
    done
}

/// The signals by which one asks lidless to end.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Catches SIGTERM and SIGINT from now on. None, and an error in the log, where that is not possible.
    pub(super) fn catch() -> Option<Signals> {
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(term), Ok(int)) => Some(Signals { term, int }),
            (Err(err), _) | (_, Err(err)) => {
                tracing::error!(error = %err, "Signals cannot be caught.");
                None
            }
        }
    }

    /// Returns the number of the next one.
    pub(super) async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.term.recv() => 15,
            _ = self.int.recv() => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_thread_that_blocks_is_not_waited_for() {
        let (release, released) = mpsc::channel::<()>();
        let (ended, has_ended) = mpsc::channel();
        let tokio = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        to_end(tokio, async move {
            tokio::task::spawn_blocking(move || {
                // Until the other side goes, or for longer than anybody waits.
                let _ = ended.send(released.recv_timeout(Duration::from_secs(20)).is_ok());
            });
        });
        assert!(has_ended.try_recv().is_err(), "it was waited for");
        release.send(()).expect("it still blocks");
        assert_eq!(has_ended.recv(), Ok(true));
    }
}
