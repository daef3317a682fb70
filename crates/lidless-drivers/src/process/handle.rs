//! When does this process end? A pidfd that the runtime waits for: told within microseconds, without polling.

use std::io;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::instance::has_ended;

/// A handle to one process, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct Handle(AsyncFd<OwnedFd>);

impl Handle {
    /// Begins to wait. Needs a tokio runtime.
    #[expect(
        deprecated,
        reason = "the constructors that replace it are unsafe, because a type may change its descriptor under the \
                  runtime; an `OwnedFd` that is never handed out does not"
    )]
    pub(crate) fn watch(pidfd: OwnedFd) -> io::Result<Handle> {
        AsyncFd::with_interest(pidfd, Interest::READABLE).map(Handle)
    }

    /// Waits until the process has ended. Cancel-safe.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            if has_ended(self) {
                return Ok(());
            }
            // Told too early: without this we would be told again at once, for ever.
            ready.clear_ready();
        }
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
