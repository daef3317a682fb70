//! How is a plugin asked? By the child that is there, or by one that is started for it, unless the last one has just ended.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::super::Log;
use super::super::answer::{Strict, judge_object};
use super::child::{Ended, Session, Signals, Stage};
use super::description::{Description, Kind, SettingProblem, Unfit, problems};
use super::error::PluginError;
use super::life::Birth;
use super::pending::{Ask, Reply};
use super::wire::Request;
use super::{NAME_VARIABLE, PluginSettings};
use crate::child::CommandSpec;
use crate::step::Answer;

/// The pause after the first child that did not live long, and the longest one.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A child that lived for so long was well.
const LONG_LIFE: Duration = Duration::from_secs(60);

/// How many lines may wait to be shown.
const LINES_WAITING: usize = 1024;

/// A plugin: one child at a time, started when it is first asked something. Dropped, it is stopped.
#[derive(Debug)]
pub struct Plugin {
    birth: Birth,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    session: Option<Arc<Session>>,
    /// The last description, for what must be known at once.
    described: Option<Arc<Description>>,
    /// When the next child may be started, and how the last one ended.
    pause: Option<(Instant, String)>,
    /// How long the next pause is.
    next_pause: Duration,
    is_stopped: bool,
}

impl Plugin {
    /// Prepares a plugin.
    pub fn new(name: &str, command: CommandSpec, heartbeat: Option<Duration>) -> Self {
        let mut command = command;
        command.env.insert(NAME_VARIABLE.to_owned(), name.to_owned());
        Plugin {
            birth: Birth { plugin: name.to_owned(), command, heartbeat },
            state: Mutex::new(State {
                session: None,
                described: None,
                pause: None,
                next_pause: PAUSE_MIN,
                is_stopped: false,
            }),
        }
    }

    /// Says whether this is the plugin of these settings.
    pub(super) fn is(&self, settings: &PluginSettings) -> bool {
        *self == Plugin::new(&settings.name, settings.command.clone(), settings.heartbeat)
    }

    /// What it is called here.
    pub fn name(&self) -> &str {
        &self.birth.plugin
    }

    /// Says what it is and what it offers; starts it where that is needed.
    pub async fn describe(&self, timeout: Duration) -> Result<Arc<Description>, PluginError> {
        let (_, description) = self.ready(Instant::now() + timeout, timeout).await?;
        Ok(description)
    }

    /// Says what it said last about a kind of step. `None` where it has not yet been started, or has no such kind.
    pub fn described(&self, kind: &str) -> Option<Kind> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.described.as_ref()?.kind(kind).cloned()
    }

    /// Says what is wrong with the settings of a step; nothing: they are right. Changes nothing outside.
    pub async fn check(
        &self,
        kind: &str,
        settings: &Value,
        timeout: Duration,
        log: &dyn Log,
    ) -> Result<Vec<SettingProblem>, PluginError> {
        let deadline = Instant::now() + timeout;
        self.kind(kind, deadline, timeout).await?;
        let request = Request::describe(Some((kind, settings)));
        let who = format!("the check of the settings of a `{kind}`");
        let mut body = self.ask(request, who, deadline, timeout, log).await?;
        let plugin = self.name().to_owned();
        if body.get("ok") == Some(&Value::Bool(false)) {
            return match judge_object(body, Strict(false)) {
                Answer::Failed { error, class } => Err(PluginError::Refused { plugin, error, class }),
                Answer::Applied { .. } => Ok(Vec::new()),
            };
        }
        match Description::read(&body) {
            Ok(_) => problems(&mut body).map_err(|why| PluginError::Malformed { plugin, why }),
            Err(Unfit::Protocol(theirs)) => Err(PluginError::Protocol { plugin, theirs }),
            Err(Unfit::Malformed(why)) => Err(PluginError::Malformed { plugin, why }),
        }
    }

    /// Ends it, and waits until it has: 4 s and the time of a kill at most. It is not started again.
    pub async fn stop(&self) {
        let session = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.is_stopped = true;
            state.session.take()
        };
        if let Some(session) = session {
            session.stop().await;
        }
    }

    /// Says what a kind of step can, as it describes itself now.
    pub(super) async fn kind(
        &self,
        name: &str,
        deadline: Instant,
        within: Duration,
    ) -> Result<Kind, PluginError> {
        let (_, description) = self.ready(deadline, within).await?;
        description.kind(name).cloned().ok_or_else(|| PluginError::NoSuchKind {
            plugin: self.name().to_owned(),
            kind: name.to_owned(),
            offers: description.kinds.iter().map(|kind| format!("`{}`", kind.name)).collect(),
        })
    }

    /// Asks something, to be answered by then; `within` is how long it had in all. What the plugin has to say meanwhile goes to
    /// the log. When the returned future is dropped while something is being done, the child is killed.
    pub(super) async fn ask(
        &self,
        request: Request,
        who: String,
        deadline: Instant,
        within: Duration,
        log: &dyn Log,
    ) -> Reply {
        let (session, _) = self.ready(deadline, within).await?;
        let first = self.put(&session, request.clone(), who.clone(), deadline, within, log).await;
        match first {
            // The child ended before it saw any of it: it is another one's turn, once.
            Err(PluginError::Broken { was_sent: false, .. }) => {
                let (session, _) = self.ready(deadline, within).await?;
                self.put(&session, request, who, deadline, within, log).await
            }
            reply => reply,
        }
    }

    /// Asks one child.
    async fn put(
        &self,
        session: &Session,
        request: Request,
        who: String,
        deadline: Instant,
        within: Duration,
        log: &dyn Log,
    ) -> Reply {
        let (lines, mut told) = mpsc::channel(LINES_WAITING);
        let (reply, answer) = oneshot::channel();
        let ask = Ask { request, deadline, within, who, lines, reply };
        match timeout_at(deadline, session.asks.send(ask)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(self.broken("has just ended", false)),
            Err(_) => return Err(PluginError::Overdue { within, was_sent: false }),
        }
        let mut waiting = Waiting { answer: Some(answer), signals: &session.signals };
        let reply = loop {
            // Both are cancel-safe. The child's keeper holds the deadline.
            tokio::select! {
                Some(line) = told.recv() => log.line(&line),
                reply = waiting.answer() => break reply,
            }
        };
        while let Ok(line) = told.try_recv() {
            log.line(&line);
        }
        reply.unwrap_or_else(|| Err(self.broken("is watched by nobody any more", true)))
    }

    fn broken(&self, why: &str, was_sent: bool) -> PluginError {
        PluginError::Broken { plugin: self.name().to_owned(), why: why.to_owned(), was_sent }
    }

    /// Returns a child that has described itself.
    async fn ready(
        &self,
        deadline: Instant,
        within: Duration,
    ) -> Result<(Arc<Session>, Arc<Description>), PluginError> {
        let session = loop {
            match self.session() {
                Ok(session) => break session,
                Err(PluginError::Pausing { left, .. }) if Instant::now() + left < deadline => {
                    sleep_until(Instant::now() + left).await;
                }
                Err(error) => return Err(error),
            }
        };
        let mut stage = session.stage.clone();
        let is_known = |stage: &Stage| match stage {
            Stage::Starting => false,
            Stage::Ready(_) | Stage::Ended(_) => true,
        };
        let known = match timeout_at(deadline, stage.wait_for(is_known)).await {
            Ok(Ok(stage)) => stage.clone(),
            Ok(Err(_)) => return Err(self.broken("is watched by nobody any more", false)),
            Err(_) => {
                return Err(PluginError::NotReady { plugin: self.name().to_owned(), within });
            }
        };
        match known {
            Stage::Ready(description) => {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.described = Some(Arc::clone(&description));
                drop(state);
                Ok((session, description))
            }
            Stage::Ended(ended) => Err(ended.error.unsent()),
            Stage::Starting => Err(self.broken("was not ready", false)),
        }
    }

    /// Returns the child that is there, or starts one.
    fn session(&self) -> Result<Arc<Session>, PluginError> {
        let plugin = || self.name().to_owned();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_stopped {
            return Err(PluginError::Stopped { plugin: plugin() });
        }
        if let Some(session) = &state.session {
            match session.ended() {
                None => return Ok(Arc::clone(session)),
                Some(ended) => state.end(ended),
            }
        }
        if let Some((until, why)) = &state.pause {
            let left = until.saturating_duration_since(Instant::now());
            if left > Duration::ZERO {
                return Err(PluginError::Pausing { plugin: plugin(), why: why.clone(), left });
            }
        }
        state.pause = None;
        let session = Arc::new(Session::start(self.birth.clone()));
        state.session = Some(Arc::clone(&session));
        Ok(session)
    }
}

impl State {
    /// Notes how the child ended, so that one that crashes at once does not spin.
    fn end(&mut self, ended: Ended) {
        self.session = None;
        if ended.lived >= LONG_LIFE {
            self.next_pause = PAUSE_MIN;
        }
        self.pause = Some((ended.at + self.next_pause, ended.error.to_string()));
        self.next_pause = PAUSE_MAX.min(self.next_pause * 2);
    }
}

/// Plugins are equal whatever their children do.
impl PartialEq for Plugin {
    fn eq(&self, other: &Plugin) -> bool {
        let key = |plugin: &Plugin| {
            let Birth { plugin, command, heartbeat } = plugin.birth.clone();
            (plugin, command, heartbeat)
        };
        key(self) == key(other)
    }
}

/// Somebody who waits for an answer. Dropped before it came, he has given up.
struct Waiting<'a> {
    answer: Option<oneshot::Receiver<Reply>>,
    signals: &'a Signals,
}

impl Waiting<'_> {
    async fn answer(&mut self) -> Option<Reply> {
        let reply = self.answer.as_mut()?.await.ok();
        self.answer = None;
        reply
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            // First, so that it is seen to be closed.
            drop(answer);
            self.signals.given_up.notify_one();
        }
    }
}
