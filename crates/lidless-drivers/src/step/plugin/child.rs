//! How is one child of a plugin held? By a channel for what it is asked, and by what is known of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::description::Description;
use super::error::PluginError;
use super::life::{Birth, live};
use super::pending::Ask;

/// How many requests may wait to be taken up.
const ASKS_WAITING: usize = 64;

/// A child, from its start to its end. Dropped, it is stopped.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) asks: mpsc::Sender<Ask>,
    pub(super) stage: watch::Receiver<Stage>,
    pub(super) signals: Arc<Signals>,
}

/// What is known of a child.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// It has not yet said who it is.
    Starting,
    /// It can be asked.
    Ready(Arc<Description>),
    /// It is gone, and so is what it had started.
    Ended(Ended),
}

/// How a child ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) error: PluginError,
    pub(super) at: Instant,
    pub(super) lived: Duration,
}

/// What a child's keeper is told beside requests.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// Somebody waits no more for an answer.
    pub(super) given_up: Notify,
    /// The child is to end.
    pub(super) stop: Notify,
}

impl Session {
    /// Starts a child.
    pub(super) fn start(birth: Birth) -> Session {
        let (asks, taken) = mpsc::channel(ASKS_WAITING);
        let (told, stage) = watch::channel(Stage::Starting);
        let signals = Arc::new(Signals::default());
        // Joined by its last word, `Stage::Ended`: whoever drops the plugin cannot wait for a task, and it has bounds of its own.
        tokio::spawn(live(birth, taken, told, Arc::clone(&signals)));
        Session { asks, stage, signals }
    }

    /// Returns how it ended, if it has.
    pub(super) fn ended(&self) -> Option<Ended> {
        match &*self.stage.borrow() {
            Stage::Ended(ended) => Some(ended.clone()),
            Stage::Starting | Stage::Ready(_) => None,
        }
    }

    /// Ends it, and waits until it has.
    pub(super) async fn stop(&self) {
        self.signals.stop.notify_one();
        // An error means that its keeper is gone, and the child with it.
        let _ = self.stage.clone().wait_for(|stage| matches!(stage, Stage::Ended(_))).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.signals.stop.notify_one();
    }
}
