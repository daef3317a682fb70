//! What else is to be decided before the disk is asked? What ends or is asked at nearly the same time shares one fsync.

use super::dispatcher::Daemon;

/// Taken in one go, at most.
const BATCH_MAX: usize = 512;
/// So often the others have a turn, at most, before the disk is asked.
const TURNS_MAX: usize = 4;

impl Daemon {
    /// Takes all that has ended or was asked meanwhile.
    ///
    /// What an fsync lets go begins together, and much of it ends at once: asking the disk for the first of it alone would have
    /// all the others wait for two fsyncs in place of one. So they have a turn first, as long as that brings something.
    pub(super) async fn gather(&mut self) {
        let mut turns = 0;
        while self.take_all() || turns == 0 {
            if self.acting.is_empty() || turns == TURNS_MAX {
                return;
            }
            tokio::task::yield_now().await;
            turns += 1;
        }
    }

    /// Takes what is there; false where nothing was.
    fn take_all(&mut self) -> bool {
        let now = self.clock.now();
        let mut taken = 0;
        while taken < BATCH_MAX
            && let Some(done) = self.tasks.try_join_next()
        {
            self.ended(now, done);
            taken += 1;
        }
        while taken < BATCH_MAX
            && let Ok(message) = self.inbox.try_recv()
        {
            self.message(message);
            taken += 1;
        }
        taken > 0
    }
}
