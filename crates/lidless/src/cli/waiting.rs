//! How does a verb wait for what it began, and what may end the waiting?

use std::io::IsTerminal as _;

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
    hup: Signal,
}

impl Signals {
    /// Catches SIGTERM, SIGINT and SIGHUP from now on. None, and an error in the log, where that is not possible.
    pub(super) fn catch() -> Option<Signals> {
        let kinds = (SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup());
        match (signal(kinds.0), signal(kinds.1), signal(kinds.2)) {
            (Ok(term), Ok(int), Ok(hup)) => Some(Signals { term, int, hup }),
            (Err(err), ..) | (_, Err(err), _) | (.., Err(err)) => {
                tracing::error!(error = %err, "Signals cannot be caught.");
                None
            }
        }
    }

    /// Returns the number of the next one that ends us. A hang-up does where there was a terminal to hang up; elsewhere it is
    /// somebody's wish for a reload.
    pub(super) async fn next(&mut self) -> i32 {
        loop {
            tokio::select! {
                _ = self.term.recv() => return 15,
                _ = self.int.recv() => return 2,
                _ = self.hup.recv() => {
                    if std::io::stderr().is_terminal() {
                        return 1;
                    }
                    tracing::warn!(
                        "There is no reload: end this lidless and start the next one; services go on meanwhile."
                    );
                }
            }
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
