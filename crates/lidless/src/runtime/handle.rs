//! How is the daemon reached from elsewhere in the process? What it is made of, what it tells, and what it can be asked.

use std::sync::Arc;
use std::time::Duration;

use lidless_core::effect::{Command, Reply};
use lidless_core::engine::Engine;
use lidless_core::id::Seq;
use lidless_core::spec::Spec;
use lidless_core::time::Now;
use lidless_drivers::process::Orphan;
use lidless_store::{Journal, Writer};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::drivers::Drivers;
use super::follow::Follower;
use super::plugins::MarkedPlugins;
use super::recover::Recovered;
use crate::telemetry::Counters;
use crate::words::Told;

/// How long the journal may take to put everything away at the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// What a daemon is made of.
pub struct Options {
    /// What to look after.
    pub spec: Arc<Spec>,
    /// How to ask and how to act.
    pub drivers: Drivers,
    /// The engine as the journal left it, and its clock.
    pub recovered: Recovered,
    /// Where to write; none keeps nothing.
    pub journal: Option<Box<dyn Journal>>,
    /// Nothing begins but what a person orders: checks are asked, and nobody is healed, started or triggered.
    pub orders_only: bool,
}

/// What is left once nothing is under way any more. The journal is still ours: no other lidless can begin meanwhile.
pub struct Drained {
    /// Acts that were cut off; the next lidless finds out what became of them.
    pub cut: Vec<String>,
    pub(super) writer: Option<Writer>,
}

impl Drained {
    /// Closes the journal, and so lets the next lidless begin. Returns why that was not in good order, if it was not.
    pub async fn close(self) -> Option<String> {
        let writer = self.writer?;
        let closed = tokio::task::spawn_blocking(move || writer.close(CLOSE_WITHIN)).await;
        closed.map_or_else(|err| Some(err.to_string()), |closed| closed.err().map(|err| err.to_string()))
    }
}

/// What a query sees.
#[derive(Debug)]
pub struct View<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// The time of the query.
    pub now: Now,
    /// The last record that is durable.
    pub durable: Seq,
    /// Probes ended since the start.
    pub probes: u64,
    /// Counted from the records since the start.
    pub counters: &'a Counters,
    /// Processes that ran on without a service at the start.
    pub orphans: &'a [Orphan],
    pub(super) plugins: &'a MarkedPlugins,
}

pub(super) type Query = Box<dyn FnOnce(&View<'_>) + Send>;

pub(super) enum Message {
    Query(Query),
    Command(Command, oneshot::Sender<Reply>),
    Follow(Command, Box<dyn Follower>),
    Keep(Keep),
}

/// A handle that an attempt wants to be durable before it lets out what that names.
pub(super) struct Keep {
    pub(super) of: super::effects::Attempt,
    pub(super) handle: String,
    pub(super) reply: oneshot::Sender<Result<(), String>>,
}

/// The daemon is not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lidless is ending")]
pub struct Lost;

/// Reaches a daemon from elsewhere in the process.
#[derive(Clone)]
pub struct Handle {
    pub(super) messages: mpsc::Sender<Message>,
    pub(super) feed: broadcast::Sender<Arc<Told>>,
}

impl Handle {
    /// Reads something of the engine's state.
    pub async fn query<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, Lost> {
        let (send, receive) = oneshot::channel();
        let query: Query = Box::new(move |view| drop(send.send(read(view))));
        self.messages.send(Message::Query(query)).await.map_err(|_| Lost)?;
        receive.await.map_err(|_| Lost)
    }

    /// Asks the engine for something.
    pub async fn command(&self, command: Command) -> Result<Reply, Lost> {
        let (send, receive) = oneshot::channel();
        self.messages.send(Message::Command(command, send)).await.map_err(|_| Lost)?;
        receive.await.map_err(|_| Lost)
    }

    /// Asks the engine for something, and has the run followed that it leads to.
    pub(crate) async fn follow(&self, command: Command, follower: Box<dyn Follower>) -> Result<(), Lost> {
        self.messages.send(Message::Follow(command, follower)).await.map_err(|_| Lost)
    }

    /// Hears of every record from now on, once it is durable. A slow listener loses the oldest and is told so.
    pub fn listen(&self) -> broadcast::Receiver<Arc<Told>> {
        self.feed.subscribe()
    }
}
