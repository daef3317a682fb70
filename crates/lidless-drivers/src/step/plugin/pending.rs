//! Who waits for an answer of a plugin, and what is each told meanwhile?

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant};

use super::super::output::{LINES_MAX, shown};
use super::error::PluginError;
use super::wire::{Op, Request};
use crate::check::wording::Short;

/// What a request comes to.
pub(super) type Reply = Result<Map<String, Value>, PluginError>;

/// A request, and who waits for its answer.
pub(super) struct Ask {
    pub(super) request: Request,
    pub(super) deadline: Instant,
    /// How long it had in all, for the wording.
    pub(super) within: Duration,
    /// On whose behalf: "step `send` of run-7".
    pub(super) who: String,
    /// Where lines for its log go. What finds no room is dropped: a plugin's talk must hold up nobody.
    pub(super) lines: mpsc::Sender<String>,
    pub(super) reply: oneshot::Sender<Reply>,
}

/// An answer that a plugin owes.
struct Owed {
    op: Op,
    deadline: Instant,
    within: Duration,
    who: String,
    /// None: it is we who ask.
    waits: Option<(mpsc::Sender<String>, oneshot::Sender<Reply>)>,
    /// Whether any of it has left for the plugin.
    was_sent: bool,
    lines: u32,
}

impl Owed {
    fn is_given_up(&self) -> bool {
        self.waits.as_ref().is_some_and(|(_, reply)| reply.is_closed())
    }
}

/// All answers that a plugin owes.
#[derive(Default)]
pub(super) struct Pending {
    owed: BTreeMap<u64, Owed>,
    last_id: u64,
}

impl Pending {
    /// Gives a request its number. Returns it with the line to send.
    pub(super) fn add(&mut self, ask: Ask) -> (u64, Vec<u8>) {
        let Ask { request, deadline, within, who, lines, reply } = ask;
        self.owe(request, deadline, within, who, Some((lines, reply)))
    }

    /// The same, for a request of our own.
    pub(super) fn add_ours(&mut self, request: Request, within: Duration) -> (u64, Vec<u8>) {
        self.owe(request, Instant::now() + within, within, "its description".to_owned(), None)
    }

    fn owe(
        &mut self,
        mut request: Request,
        deadline: Instant,
        within: Duration,
        who: String,
        waits: Option<(mpsc::Sender<String>, oneshot::Sender<Reply>)>,
    ) -> (u64, Vec<u8>) {
        self.last_id += 1;
        request.id = self.last_id;
        let owed = Owed { op: request.op, deadline, within, who, waits, was_sent: false, lines: 0 };
        self.owed.insert(self.last_id, owed);
        (self.last_id, request.line())
    }

    pub(super) fn len(&self) -> usize {
        self.owed.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    /// Notes that a part of a request has left.
    pub(super) fn sent(&mut self, id: u64) {
        if let Some(owed) = self.owed.get_mut(&id) {
            owed.was_sent = true;
        }
    }

    /// Says what is wrong with an answer of this number.
    pub(super) fn expects(&self, id: u64) -> Result<(), String> {
        match self.owed.get(&id) {
            Some(owed) if owed.was_sent => Ok(()),
            // It can guess the next number.
            Some(_) => Err(format!("answered request {id}, which it was never sent")),
            None if (1..=self.last_id).contains(&id) => Err(format!("answered request {id} twice")),
            None => Err(format!("answered request {id}, which there is not")),
        }
    }

    /// Hands an answer to who waits for it. Gives it back where it is for us.
    pub(super) fn answer(&mut self, id: u64, body: Map<String, Value>) -> Option<Map<String, Value>> {
        match self.owed.remove(&id)?.waits {
            Some((_, reply)) => {
                // Who has given up does not want it any more.
                let _ = reply.send(Ok(body));
                None
            }
            None => Some(body),
        }
    }

    /// Forgets requests that nobody waits for any more and that have not left. Returns their numbers.
    pub(super) fn forget(&mut self) -> Vec<u64> {
        let is_forgotten = |owed: &Owed| owed.is_given_up() && !owed.was_sent;
        let ids = self.owed.iter().filter(|(_, owed)| is_forgotten(owed)).map(|(id, _)| *id).collect();
        self.owed.retain(|_, owed| !is_forgotten(owed));
        ids
    }

    /// Returns on whose behalf something is being done that was given up half way.
    pub(super) fn abandoned(&self) -> Option<&str> {
        self.owed.values().find(|owed| owed.is_given_up() && owed.op.lets_out()).map(|owed| &*owed.who)
    }

    /// When the next answer is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.owed.values().map(|owed| owed.deadline).min()
    }

    /// Returns a request that is overdue, and what that comes to for the plugin.
    pub(super) fn overdue(&self, now: Instant) -> Option<(u64, String)> {
        let (id, owed) = self.owed.iter().find(|(_, owed)| owed.deadline <= now)?;
        Some((*id, format!("{} was not done within {}", owed.who, Short(owed.within))))
    }

    /// Passes a line on to the request of this number, or to all. Says whether anybody got it.
    pub(super) fn tell(&mut self, id: Option<u64>, line: &[u8]) -> bool {
        let mut is_told = false;
        for (_, owed) in self.owed.iter_mut().filter(|(owed, _)| id.is_none_or(|id| id == **owed)) {
            let Some((lines, _)) = &owed.waits else { continue };
            is_told = true;
            owed.lines = owed.lines.saturating_add(1);
            let line = match owed.lines {
                ..=LINES_MAX => shown(line),
                lines if lines == LINES_MAX + 1 => {
                    format!("more than {LINES_MAX} lines: the rest is not shown")
                }
                _ => continue,
            };
            // Full, or given up.
            let _ = lines.try_send(line);
        }
        is_told
    }

    /// Tells everybody that there will be no answer: `culprit` is the one that came too late, the others learn why.
    pub(super) fn fail(self, plugin: &str, why: &str, culprit: Option<u64>) {
        for (id, owed) in self.owed {
            let Owed { within, was_sent, .. } = owed;
            let error = if culprit == Some(id) {
                PluginError::Overdue { within, was_sent }
            } else {
                PluginError::Broken { plugin: plugin.to_owned(), why: why.to_owned(), was_sent }
            };
            if let Some((_, reply)) = owed.waits {
                let _ = reply.send(Err(error));
            }
        }
    }
}
