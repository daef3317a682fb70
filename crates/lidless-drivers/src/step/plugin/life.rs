//! What happens between the start and the end of a plugin's child? It describes itself, answers many at once, and is ended.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::super::FailureClass;
use super::super::answer::{Strict, judge_object};
use super::super::last::ANSWER_MAX;
use super::super::output::{LINE_MAX, LINES_MAX};
use super::cause::{Cause, Gone, not_started};
use super::child::{Ended, Signals, Stage};
use super::description::{Description, Unfit};
use super::error::PluginError;
use super::pending::{Ask, Pending};
use super::split::Splitter;
use super::wire::{Message, Request};
use crate::check::wording::{Bytes, Short, first_line};
use crate::child::CommandSpec;
use crate::child::lasting::{Happening, Lasting};
use crate::child::stream::Stream;
use crate::step::Answer;

/// How long a child may take to start, and then to describe itself.
const READY_MAX: Duration = Duration::from_secs(10);

/// How long a child may take to end once its input is closed, and then once more when it was asked to.
const GRACE: Duration = Duration::from_secs(2);

/// How many answers it may owe at once. Further requests are refused: who waits in a queue would outstay his deadline.
const OWED_MAX: usize = 256;

/// What it takes to start a child.
#[derive(Clone, Debug)]
pub(super) struct Birth {
    /// What the plugin is called here.
    pub(super) plugin: String,
    pub(super) command: CommandSpec,
    pub(super) heartbeat: Option<Duration>,
}

/// Starts a child, and keeps it until it ends.
pub(super) async fn live(
    birth: Birth,
    mut asks: mpsc::Receiver<Ask>,
    stage: watch::Sender<Stage>,
    signals: Arc<Signals>,
) {
    let begun = Instant::now();
    let started = tokio::select! {
        started = Lasting::start(&birth.command, READY_MAX) => Some(started),
        () = signals.stop.notified() => None,
    };
    let broken = |why: &str| PluginError::Broken {
        plugin: birth.plugin.clone(),
        why: why.to_owned(),
        was_sent: false,
    };
    let (error, pending) = match started {
        Some(Ok(child)) => {
            let mut life = Life::new(&birth, child, &stage);
            let cause = life.go_on(&mut asks, &signals).await;
            life.finish(cause).await
        }
        Some(Err(err)) => (not_started(&birth.plugin, &err), None),
        None => (broken("was stopped"), None),
    };
    // In this order: whoever learns that there is no answer, and asks again, is to get the next child.
    asks.close();
    let ended = Ended { error: error.clone(), at: Instant::now(), lived: begun.elapsed() };
    stage.send_replace(Stage::Ended(ended));
    if let Some((pending, why, culprit)) = pending {
        pending.fail(&birth.plugin, &why, culprit);
    }
    while let Ok(ask) = asks.try_recv() {
        let _ = ask.reply.send(Err(error.clone()));
    }
}

/// How far a child is on the way to its end.
#[derive(Clone, Copy)]
enum Ending {
    NotYet,
    InputClosed { until: Instant },
    Asked { until: Instant },
}

/// Answers that will not come: who waits, what the plugin did, and which request it was that came too late.
type Unanswered = (Pending, String, Option<u64>);

struct Life<'a> {
    birth: &'a Birth,
    child: Lasting,
    stage: &'a watch::Sender<Stage>,
    /// Whether it has described itself.
    is_met: bool,
    pending: Pending,
    /// Requests that have not left, or not entirely: their numbers, and what is left of them.
    outgoing: VecDeque<(u64, VecDeque<u8>)>,
    answers: Splitter,
    complaints: Splitter,
    last_complaint: String,
    /// How many lines were for nobody. A plugin must not fill the log while nobody looks.
    aside: u32,
    /// When it last wrote a line, or came to owe something after it had owed nothing.
    heard: Instant,
    ending: Ending,
}

impl<'a> Life<'a> {
    fn new(birth: &'a Birth, child: Lasting, stage: &'a watch::Sender<Stage>) -> Self {
        let mut pending = Pending::default();
        let (id, line) = pending.add_ours(Request::describe(None), READY_MAX);
        Life {
            birth,
            child,
            stage,
            is_met: false,
            pending,
            outgoing: VecDeque::from([(id, line.into())]),
            answers: Splitter::new(ANSWER_MAX),
            // Room for one character more than is shown, so that none is shown in half.
            complaints: Splitter::new(LINE_MAX + 4),
            last_complaint: String::new(),
            aside: 0,
            heard: Instant::now(),
            ending: Ending::NotYet,
        }
    }

    async fn go_on(&mut self, asks: &mut mpsc::Receiver<Ask>, signals: &Signals) -> Cause {
        loop {
            let alarm = self.alarm();
            let front = self.outgoing.front().map(|(_, rest)| rest.as_slices().0).unwrap_or_default();
            let is_open = matches!(self.ending, Ending::NotYet);
            // Each branch is cancel-safe. The alarm is set anew each time.
            let result = tokio::select! {
                happening = self.child.happens(front) => self.happened(happening),
                ask = asks.recv(), if is_open => match ask {
                    Some(ask) => self.take_up(ask),
                    None => {
                        self.stop();
                        Ok(())
                    }
                },
                () = signals.given_up.notified() => self.look_who_waits(),
                () = signals.stop.notified(), if is_open => {
                    self.stop();
                    Ok(())
                }
                () = wait_until(alarm) => self.look_at_the_time(),
            };
            if let Err(cause) = result {
                return cause;
            }
        }
    }

    fn happened(&mut self, happening: Happening) -> Result<(), Cause> {
        match happening {
            Happening::Exited => Err(Cause::Exited),
            Happening::Deaf => self.closed("standard input"),
            Happening::Said(Stream::Stdout, 0) => self.closed("standard output"),
            Happening::Said(Stream::Stdout, length) => {
                let lines = self.answers.push(self.child.said(Stream::Stdout, length));
                self.read(lines)
            }
            Happening::Said(Stream::Stderr, length) => {
                let lines = self.complaints.push(self.child.said(Stream::Stderr, length));
                self.complain(lines);
                Ok(())
            }
            Happening::Took(length) => {
                if let Some((id, rest)) = self.outgoing.front_mut() {
                    self.pending.sent(*id);
                    rest.drain(..length);
                    if rest.is_empty() {
                        self.outgoing.pop_front();
                    }
                }
                self.close_when_written();
                Ok(())
            }
        }
    }

    /// On its way to the end it may close what it likes.
    fn closed(&self, what: &'static str) -> Result<(), Cause> {
        match self.ending {
            Ending::NotYet => Err(Cause::Closed(what)),
            Ending::InputClosed { .. } | Ending::Asked { .. } => Ok(()),
        }
    }

    /// Reads lines that came at once. Answers are handed on only when all of them are in order: an answer that is given twice
    /// in one breath is none.
    fn read(&mut self, lines: Vec<Vec<u8>>) -> Result<(), Cause> {
        let mut answers: Vec<(u64, Map<String, Value>)> = Vec::new();
        for line in lines {
            self.heard = Instant::now();
            match Message::read(&line).map_err(Cause::Broke)? {
                None | Some(Message::Heartbeat) => {}
                Some(Message::Log { id, text }) => self.tell(id, text.as_bytes()),
                Some(Message::Answer { id, body }) => {
                    self.pending.expects(id).map_err(Cause::Broke)?;
                    if answers.iter().any(|(other, _)| *other == id) {
                        return Err(Cause::Broke(format!("answered request {id} twice")));
                    }
                    answers.push((id, body));
                }
            }
        }
        if self.answers.is_over {
            return Err(Cause::Broke(format!("wrote a line of over {}", Bytes(ANSWER_MAX))));
        }
        if !answers.is_empty() {
            // What it complained about before it answered belongs to who waits for the answer.
            self.drain_complaints();
        }
        for (id, body) in answers {
            if let Some(description) = self.pending.answer(id, body) {
                self.meet(description)?;
            }
        }
        Ok(())
    }

    /// Takes its description.
    fn meet(&mut self, body: Map<String, Value>) -> Result<(), Cause> {
        let plugin = self.birth.plugin.clone();
        if body.get("ok") == Some(&Value::Bool(false)) {
            let (error, class) = match judge_object(body, Strict(false)) {
                Answer::Failed { error, class } => (error, class),
                Answer::Applied { .. } => (String::new(), FailureClass::Transient),
            };
            return Err(Cause::Unfit(PluginError::Refused { plugin, error, class }));
        }
        match Description::read(&body) {
            Ok(description) => {
                self.is_met = true;
                self.stage.send_replace(Stage::Ready(Arc::new(description)));
                Ok(())
            }
            Err(Unfit::Protocol(theirs)) => Err(Cause::Unfit(PluginError::Protocol { plugin, theirs })),
            Err(Unfit::Malformed(why)) => Err(Cause::Unfit(PluginError::Malformed { plugin, why })),
        }
    }

    fn complain(&mut self, lines: Vec<Vec<u8>>) {
        for line in lines {
            let first = first_line(&line);
            if !first.is_empty() {
                self.last_complaint = first;
            }
            self.tell(None, &line);
        }
    }

    fn tell(&mut self, id: Option<u64>, line: &[u8]) {
        if !self.pending.tell(id, line) && self.aside < LINES_MAX {
            self.aside += 1;
            tracing::info!(plugin = %self.birth.plugin, line = %first_line(line), "Said by a plugin.");
        }
    }

    fn drain_complaints(&mut self) {
        let mut lines = Vec::new();
        self.child.drain(Stream::Stderr, |piece| lines.extend(self.complaints.push(piece)));
        self.complain(lines);
    }

    fn take_up(&mut self, ask: Ask) -> Result<(), Cause> {
        // It may come from the very one who has just given up, and is not to go down with this child.
        if let Err(cause) = self.look_who_waits() {
            self.pending.add(ask);
            return Err(cause);
        }
        if ask.reply.is_closed() {
            return Ok(());
        }
        if self.pending.len() >= OWED_MAX {
            let why = format!("owes {OWED_MAX} answers already");
            let plugin = self.birth.plugin.clone();
            let _ = ask.reply.send(Err(PluginError::Broken { plugin, why, was_sent: false }));
            return Ok(());
        }
        if self.pending.is_empty() {
            self.heard = Instant::now();
        }
        let (id, line) = self.pending.add(ask);
        self.outgoing.push_back((id, line.into()));
        Ok(())
    }

    /// Drops what nobody waits for. What is being done for somebody who has given up must not go on: he treats it as unknown,
    /// and will ask whether it took effect.
    fn look_who_waits(&mut self) -> Result<(), Cause> {
        let forgotten = self.pending.forget();
        self.outgoing.retain(|(id, _)| !forgotten.contains(id));
        match self.pending.abandoned() {
            Some(who) => Err(Cause::GivenUp(format!("{who} was given up half way"))),
            None => Ok(()),
        }
    }

    fn alarm(&self) -> Option<Instant> {
        let ending = match self.ending {
            Ending::NotYet => None,
            Ending::InputClosed { until } | Ending::Asked { until } => Some(until),
        };
        [self.pending.deadline(), self.too_quiet_at(), ending].into_iter().flatten().min()
    }

    /// When it must have given a sign of life: only while it owes something, and not while it loads.
    fn too_quiet_at(&self) -> Option<Instant> {
        let is_watched = self.is_met && !self.pending.is_empty();
        self.birth.heartbeat.filter(|_| is_watched).map(|heartbeat| self.heard + heartbeat)
    }

    fn look_at_the_time(&mut self) -> Result<(), Cause> {
        let now = Instant::now();
        if let Some((id, what)) = self.pending.overdue(now) {
            return Err(Cause::Overdue(id, what));
        }
        if let Some(heartbeat) =
            self.birth.heartbeat.filter(|_| self.too_quiet_at().is_some_and(|at| at <= now))
        {
            return Err(Cause::Broke(format!("gave no sign of life for {}", Short(heartbeat))));
        }
        match self.ending {
            Ending::InputClosed { until } if until <= now => {
                self.child.terminate();
                self.ending = Ending::Asked { until: now + GRACE };
                Ok(())
            }
            Ending::Asked { until } if until <= now => Err(Cause::Stopped),
            Ending::NotYet | Ending::InputClosed { .. } | Ending::Asked { .. } => Ok(()),
        }
    }

    /// Lets it answer what it owes, and end.
    fn stop(&mut self) {
        self.ending = Ending::InputClosed { until: Instant::now() + GRACE };
        self.close_when_written();
    }

    fn close_when_written(&mut self) {
        let is_open = matches!(self.ending, Ending::NotYet);
        if !is_open && self.outgoing.is_empty() {
            self.child.close_input();
        }
    }

    /// Ends what is left of the child, and says how it ended.
    async fn finish(mut self, mut cause: Cause) -> (PluginError, Option<Unanswered>) {
        let by_itself = match &cause {
            Cause::Exited => true,
            // Its streams are closed a moment before it is gone; how it ended says more.
            Cause::Closed(_) => self.child.ends_now().await,
            Cause::Broke(_) | Cause::Overdue(..) | Cause::GivenUp(_) | Cause::Unfit(_) | Cause::Stopped => {
                false
            }
        };
        if by_itself {
            let mut lines = Vec::new();
            self.child.drain(Stream::Stdout, |piece| lines.extend(self.answers.push(piece)));
            // An answer counts, whatever happened behind it.
            if let Err(last) = self.read(lines) {
                cause = last;
            }
        }
        self.drain_complaints();
        let rest = self.complaints.rest();
        self.complain(rest.into_iter().collect());
        let status = self.child.end().await;
        let gone = Gone { by_itself, status, complaint: mem::take(&mut self.last_complaint) };
        // Whatever it did on its way to the end: it was told to end.
        let cause = if matches!(self.ending, Ending::NotYet) { cause } else { Cause::Stopped };
        let plugin = self.birth.plugin.clone();
        match cause.told(gone) {
            Ok((why, culprit)) => {
                let error = PluginError::Broken { plugin, why: why.clone(), was_sent: false };
                (error, Some((self.pending, why, culprit)))
            }
            Err(error) => (error, Some((self.pending, "is not what we can work with".to_owned(), None))),
        }
    }
}

async fn wait_until(alarm: Option<Instant>) {
    match alarm {
        Some(alarm) => sleep_until(alarm).await,
        None => std::future::pending().await,
    }
}
