//! What else is to be decided before the disk is asked? What ends or is asked at nearly the same time shares one fsync.

use std::time::{Duration, Instant};

use lidless_core::id::Seq;

use super::dispatcher::Daemon;

/// Taken in one go, at most.
const BATCH_MAX: usize = 512;

/// How long the disk takes, of late.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Since when it is asked for something.
    since: Option<Instant>,
    /// Up to where.
    upto: Seq,
    /// The mean of its last answers.
    takes: Duration,
}

impl Pace {
    /// It is asked for all up to here.
    pub(super) fn asked(&mut self, upto: Seq) {
        self.upto = upto;
        self.since.get_or_insert_with(Instant::now);
    }

    /// It has answered for all up to here.
    pub(super) fn answered(&mut self, durable: Seq) {
        if let Some(since) = self.since.take() {
            self.takes = (self.takes * 3 + since.elapsed()) / 4;
        }
        // What was asked for meanwhile it has begun with now.
        self.since = (durable < self.upto).then(Instant::now);
    }
}

impl Daemon {
    /// Takes all that has ended or was asked meanwhile.
    ///
    /// What an fsync lets go begins together, and much of it ends at once: asking the disk for the first of it alone would have
    /// all the others wait for two fsyncs in place of one. So they have their turns first. But not for longer than half an fsync:
    /// on a quick disk it is better that it works on the first of them while we are busy with the others.
    pub(super) async fn gather(&mut self) {
        let until = Instant::now() + self.pace.takes / 2;
        let mut first = true;
        while self.take_all() || first {
            first = false;
            if self.acting.is_empty() || Instant::now() >= until {
                return;
            }
            tokio::task::yield_now().await;
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
