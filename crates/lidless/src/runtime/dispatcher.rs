//! Who owns the engine? One task: it takes what ended, asks the engine, journals, and only then lets effects go.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lidless_core::check::CheckOutcome;
use lidless_core::effect::{Command, Input, Reply, Turn};
use lidless_core::engine::Engine;
use lidless_core::event::Record;
use lidless_core::id::{CheckId, NoticeId, RunId, Seq, ServiceId};
use lidless_core::state::CheckState;
use lidless_core::time::Now;
use lidless_drivers::check::Check;
use lidless_drivers::step::{Call, Step};
use lidless_store::{Writer, WriterOptions};
use tokio::sync::{Notify, broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::calendar::Calendar;
use super::clock::Clock;
use super::drivers::Drivers;
use super::effects::{self, Attempt, Done};
use super::follow::Followers;
use super::gather::Pace;
use super::handle::{Drained, Handle, Keep, Message, Options, View};
use super::ledge::Ledge;
use super::outflow::{SILENT_MAX, SNAPSHOT_EVERY, WriterNews, tell};
use super::outputs::Outputs;
use super::probed::no_driver;
use super::scheduler::{Launch, Scheduler};
use super::steps;
use crate::telemetry::Counters;
use crate::words::{Names, Told};

/// Being woken this much too late means that the machine, not the target, may be the trouble.
const LATE: Duration = Duration::from_millis(250);
/// So often at least we look while a probe is under way.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long acts under way may still take when lidless is asked to end.
const DRAIN: Duration = Duration::from_secs(10);

/// The dispatcher.
pub struct Daemon {
    pub(super) engine: Engine,
    pub(super) clock: Clock,
    pub(super) scheduler: Scheduler,
    pub(super) drivers: Drivers,
    /// The drivers of the checks, by `CheckId`.
    checks: Vec<Option<Arc<dyn Check>>>,
    pub(super) writer: Option<Writer>,
    pub(super) news: Arc<(Mutex<WriterNews>, Notify)>,
    pub(super) ledge: Ledge,
    pub(super) batch: Vec<Record>,
    pub(super) durable: Seq,
    pub(super) failed: Option<String>,
    pub(super) snapshot_at: Seq,
    pub(super) snapshot_every: u64,
    pub(super) tasks: JoinSet<Done>,
    pub(super) acting: BTreeSet<Attempt>,
    /// By which attempts at steps are told that nobody wants them any more.
    pub(super) interrupts: BTreeMap<Attempt, CancellationToken>,
    /// What steps call that may have left something behind to be let go once what became of them is durable.
    pub(super) kept: BTreeMap<(RunId, u32), (Arc<dyn Step>, Call)>,
    pub(super) messages: mpsc::WeakSender<Message>,
    pub(super) inbox: mpsc::Receiver<Message>,
    pub(super) feed: broadcast::Sender<Arc<Told>>,
    pub(super) followers: Followers,
    pub(super) outputs: Outputs,
    pub(super) pace: Pace,
    pub(super) names: Names,
    pub(super) counters: Counters,
    pub(super) late_at: Duration,
    /// Since when a record waits for the disk, in engine time.
    pub(super) waiting_since: Option<Duration>,
    /// The disk has not answered for too long.
    pub(super) silent: bool,
    /// Deliveries under way, and those that wait their turn.
    pub(super) delivering: usize,
    pub(super) deliveries: VecDeque<NoticeId>,
    /// Who has taken a message that others have refused.
    pub(super) taken: BTreeMap<NoticeId, BTreeSet<usize>>,
    /// Failed hedges whose main probe has not ended yet.
    pub(super) held: BTreeMap<CheckId, Vec<(Duration, CheckOutcome)>>,
    /// Probes under way.
    pub(super) probing: usize,
    pub(super) probes: u64,
    draining: bool,
    pub(super) launches: Vec<Launch>,
    /// None while it is being looked at, or where nobody is to.
    pub(super) calendar: Option<Calendar>,
}

impl Daemon {
    /// Makes a daemon ready to run, and the handle that reaches it.
    ///
    /// Fails where the system allows no further thread.
    pub fn new(options: Options) -> std::io::Result<(Daemon, Handle)> {
        let Options { spec, drivers, recovered, journal, orders_only } = options;
        let (messages, inbox) = mpsc::channel(256);
        let (feed, _) = broadcast::channel(4096);
        let news = Arc::new((Mutex::new(WriterNews::default()), Notify::new()));
        let writer = match journal {
            None => None,
            Some(journal) => {
                let news = Arc::clone(&news);
                Some(Writer::spawn(journal, WriterOptions::default(), move |event| tell(&news, event))?)
            }
        };
        let seq = recovered.engine.state().seq;
        let names = Names::of(recovered.engine.state());
        let counters = Counters::begin(recovered.engine.state());
        let mut daemon = Daemon {
            engine: recovered.engine,
            clock: recovered.clock,
            scheduler: Scheduler::default(),
            drivers,
            checks: Vec::new(),
            writer,
            news,
            ledge: Ledge::default(),
            batch: Vec::new(),
            durable: seq,
            failed: None,
            snapshot_at: Seq(seq.0.saturating_sub(recovered.replayed)),
            snapshot_every: SNAPSHOT_EVERY,
            tasks: JoinSet::new(),
            acting: BTreeSet::new(),
            interrupts: BTreeMap::new(),
            kept: BTreeMap::new(),
            messages: messages.downgrade(),
            inbox,
            feed: feed.clone(),
            followers: Followers::default(),
            outputs: Outputs::default(),
            pace: Pace::default(),
            names,
            counters,
            late_at: Duration::ZERO,
            waiting_since: None,
            silent: false,
            delivering: 0,
            deliveries: VecDeque::new(),
            taken: BTreeMap::new(),
            held: BTreeMap::new(),
            probing: 0,
            probes: 0,
            draining: false,
            launches: Vec::new(),
            calendar: (!orders_only).then(Calendar::default),
        };
        let started =
            Input::Started { boot: daemon.clock.boot(), version: env!("CARGO_PKG_VERSION").to_owned() };
        daemon.turn(started);
        if orders_only {
            daemon.turn(Input::OrdersOnly);
        }
        daemon.turn(Input::ConfigLoaded(spec));
        Ok((daemon, Handle { messages, feed }))
    }

    /// Runs until `stop`, then drains.
    pub async fn run(mut self, stop: CancellationToken) -> Drained {
        self.begin();
        let news = Arc::clone(&self.news);
        loop {
            let planned = self.catch_up();
            tokio::select! {
                // Every branch only takes one thing that has already happened: cancelling loses nothing.
                () = stop.cancelled() => break,
                Some(done) = self.tasks.join_next() => {
                    self.on_time(planned);
                    self.ended(self.clock.now(), done);
                    self.gather().await;
                }
                () = news.1.notified() => {
                    self.on_time(planned);
                    self.written(self.clock.now().monotonic);
                }
                Some(message) = self.inbox.recv() => {
                    self.on_time(planned);
                    self.message(message);
                    self.gather().await;
                }
                () = tokio::time::sleep_until(planned.into()) => self.on_time(planned),
            }
        }
        self.drain().await
    }

    fn begin(&mut self) {
        self.tidy_run_logs();
        let state = self.engine.state();
        let mut checks = Vec::new();
        for (_, service, spec) in state.configured() {
            for (id, check) in service.checks.iter().zip(&spec.checks) {
                checks.push((*id, check.every));
            }
        }
        if let Some(units) = &self.drivers.units {
            self.tasks.spawn(effects::sweep(Arc::clone(units), steps::unsettled(state)));
        }
        let now = self.clock.now().monotonic;
        self.scheduler.sync(checks.iter().copied(), now);
        let state = self.engine.state();
        let driver = |check: &CheckState| self.drivers.check(self.name(check.service), &check.name);
        self.checks = state.checks.iter().map(|check| check.index.and_then(|_| driver(check))).collect();
        for (id, _) in checks {
            self.watch(id);
        }
        self.look_at_calendar();
    }

    fn watch(&mut self, id: CheckId) {
        if let Some(check) = self.check(id)
            && check.changed().is_some()
        {
            self.tasks.spawn(effects::changed(check, id));
        }
    }

    /// Starts what is due, and returns when something will be due next.
    fn catch_up(&mut self) -> Instant {
        let now = self.clock.now();
        if self.engine.next_wake().is_some_and(|wake| wake <= now.monotonic) {
            self.turn_at(now, Input::Tick);
        }
        self.flush();
        if self.writer.is_some() && (self.ledge.first().is_some() || self.waiting_since.is_some()) {
            self.written(now.monotonic);
        }
        let mut launches = std::mem::take(&mut self.launches);
        let engine = &self.engine;
        self.scheduler.due(now.monotonic, |check| engine.probe_plan(check, now.monotonic), &mut launches);
        for launch in launches.drain(..) {
            match self.check(launch.check) {
                Some(check) => {
                    self.probing += 1;
                    self.tasks.spawn(effects::probe(check, launch, now.monotonic));
                }
                None => self.probed(now, launch.check, now.monotonic, no_driver()),
            }
        }
        self.launches = launches;
        // While an answer is awaited we look often, so that we notice it when it is we who are late.
        let look = (self.probing > 0).then(|| now.monotonic + LOOK_EVERY);
        let disk = self.waiting_since.filter(|_| !self.silent).map(|since| since + SILENT_MAX + LOOK_EVERY);
        let next = [self.scheduler.next(), self.engine.next_wake(), look, disk].into_iter().flatten().min();
        let wait = next.map_or(Duration::from_secs(60), |next| next.saturating_sub(now.monotonic));
        Instant::now() + wait
    }

    /// Notices when we ourselves are late: a target must not be restarted for that.
    fn on_time(&mut self, planned: Instant) {
        let late = planned.elapsed();
        if late > LATE {
            self.late_at = self.clock.now().monotonic;
            tracing::warn!(
                late_ms = late.as_millis(),
                "Running late; time-outs of this moment are not held against anybody."
            );
        }
    }

    pub(super) fn ended(&mut self, now: Now, done: Result<Done, tokio::task::JoinError>) {
        match done {
            // Nothing new is begun any more: what this answer would lead to is for the next lidless.
            Ok(Done::Tidied) => {}
            Ok(Done::Probed { .. } | Done::Changed { .. } | Done::Calendar(_)) if self.draining => {}
            Ok(Done::Calendar(looked)) => self.fire(looked),
            Ok(Done::Probed { check, began, hedge, outcome }) => {
                self.probes += 1;
                self.probing = self.probing.saturating_sub(1);
                match hedge {
                    None => self.main_probed(now, check, began, outcome),
                    Some(group) => self.hedge_probed(now, check, began, group, outcome),
                }
            }
            Ok(Done::Delivered { notice, taken, result }) => self.delivered(notice, taken, result),
            Ok(Done::Input(input)) => {
                if let Input::Performed { run, step, attempt, .. } = &input {
                    let of = Attempt { run: *run, step: *step, attempt: *attempt };
                    self.acting.remove(&of);
                    self.interrupts.remove(&of);
                }
                self.turn(input);
            }
            Ok(Done::Changed { check }) => {
                self.scheduler.probe_at(check, self.clock.now().monotonic);
                self.watch(check);
            }
            Ok(Done::LetGo) => {}
            Err(err) => tracing::error!(error = %err, "A task was lost; this is a bug in lidless."),
        }
    }

    pub(super) fn message(&mut self, message: Message) {
        match message {
            Message::Query(query) => query(&View {
                engine: &self.engine,
                now: self.clock.now(),
                durable: self.durable,
                probes: self.probes,
                counters: &self.counters,
                orphans: &self.drivers.orphans,
                plugins: &self.drivers.plugins,
            }),
            Message::Command(command, reply) => {
                // A restart by hand goes on without a journal, as healing does.
                let survives = !matches!(command, Command::Restart { .. });
                if let Some(answer) = self.turn(Input::Command(command)) {
                    let promises = survives && !matches!(answer, Reply::Refused(_));
                    self.ledge.put_reply(reply, answer, self.engine.state().seq, promises);
                }
            }
            Message::Keep(Keep { of, handle, reply }) => {
                let before = self.engine.state().seq;
                let Attempt { run, step, attempt } = of;
                self.turn(Input::Handle { run, step, attempt, handle });
                if self.engine.state().seq == before {
                    // Whoever asked is told all the same when it does not listen any more.
                    drop(reply.send(Err("the attempt is over, or the journal cannot be written".to_owned())));
                } else {
                    self.ledge.put_kept(reply, self.engine.state().seq);
                }
            }
            Message::Follow(command, follower) => self.command_and_follow(command, follower),
        }
    }

    pub(super) fn turn(&mut self, input: Input) -> Option<Reply> {
        self.turn_at(self.clock.now(), input)
    }

    pub(super) fn turn_at(&mut self, now: Now, input: Input) -> Option<Reply> {
        let Turn { events, effects, reply } = self.engine.handle(now, input);
        if !events.is_empty() || !effects.is_empty() {
            self.ledge.put(&events, effects, self.engine.state().seq);
            self.batch.extend(events);
        }
        reply
    }

    pub(super) fn name(&self, service: ServiceId) -> &str {
        self.engine.state().services.get(service.index()).map_or("", |service| service.name.as_str())
    }

    fn check(&self, id: CheckId) -> Option<Arc<dyn Check>> {
        self.checks.get(id.index()).cloned().flatten()
    }

    /// Lets acts under way end, within a deadline; then says that we stop. The journal is left to be closed.
    async fn drain(mut self) -> Drained {
        self.draining = true;
        self.turn(Input::Ending);
        // Whoever asks from now on, or has just asked, is told that we are ending.
        self.inbox.close();
        while self.inbox.try_recv().is_ok() {}
        let deadline = tokio::time::Instant::now() + DRAIN;
        let news = Arc::clone(&self.news);
        self.flush();
        while !self.acting.is_empty() {
            tokio::select! {
                Some(done) = self.tasks.join_next() => {
                    self.ended(self.clock.now(), done);
                    self.flush();
                }
                () = news.1.notified() => self.written(self.clock.now().monotonic),
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        let cut = self.acting.iter().filter_map(|Attempt { run, step, .. }| {
            let run = self.engine.state().runs.get(run)?;
            let service = run.purpose.service().map(|service| self.name(service));
            let of = service.or(run.purpose.pipeline()).unwrap_or_default();
            Some(format!("{} {} of {of}", run.id, run.spec(*step)?.name))
        });
        let cut = cut.collect();
        self.turn(Input::Stopping { why: "asked to end".to_owned() });
        self.flush();
        self.snapshot(1);
        self.tasks.shutdown().await;
        self.drivers.plugins.stop().await;
        Drained { cut, writer: self.writer.take() }
    }
}
