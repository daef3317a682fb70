//! Where does everything come together? One input in, one turn out.
//!
//! Pure: the same state, time and input give the same turn. Decisions live in `watch`, `policy` and `pipeline`; this file
//! routes inputs to them and says when to come back.

use std::time::Duration;

use crate::apply::{IllegalEvent, same_boot};
use crate::check::CheckOutcome;
use crate::effect::{Effect, Input, Turn};
use crate::event::{Confirmation, Event, Notice, Outcome, Record, Verdict};
use crate::id::{CheckId, RunId};
use crate::pipeline::plan::Purpose;
use crate::pipeline::run::{Phase, Run};
use crate::pipeline::{clock, drive, settle, start, undo};
use crate::policy::Ended;
use crate::state::State;
use crate::time::{Now, whole_micros};
pub use crate::turning::Observed;
use crate::turning::{Scratch, Turning};
use crate::{command, configure, outbox, policy, wakes, watch};

/// Without anything else to record, the journal is marked this often: so exact is "not measured" after a crash.
pub const MARK_EVERY: Duration = Duration::from_secs(60);

/// A mark may be late by this much, on a busy machine.
pub const MARK_SLACK: Duration = Duration::from_secs(5);

/// The engine.
#[derive(Debug)]
pub struct Engine {
    pub(crate) state: State,
    pub(crate) scratch: Scratch,
    seed: u64,
    /// `next_wake` as of the last turn that changed anything.
    wake: Option<Duration>,
    /// When the last input came, in engine time.
    last_input: Duration,
}

impl Engine {
    /// Returns an engine that knows nothing yet. `seed` only spreads jitter.
    pub fn new(seed: u64) -> Engine {
        Engine::restore(seed, State::default())
    }

    /// Returns an engine that goes on from a snapshot; `apply` the records after it, then `handle(Started)`.
    pub fn restore(seed: u64, state: State) -> Engine {
        Engine { state, scratch: Scratch::default(), seed, wake: None, last_input: Duration::ZERO }
    }

    /// Applies a record of the journal: recovery, replay, reports.
    pub fn apply(&mut self, record: &Record) -> Result<(), IllegalEvent> {
        self.state.apply(record)
    }

    /// What is known durably.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What was last seen of a check; lost in a crash.
    pub fn observed(&self, check: CheckId) -> Option<&Observed> {
        self.scratch.checks.get(check.index())
    }

    /// Decides. The turn's events are already applied here; nothing of it may be done before they are durable.
    pub fn handle(&mut self, now: Now, input: Input) -> Turn {
        let monotonic = whole_micros(now.monotonic).max(self.state.at.monotonic);
        let now = Now { monotonic, ..now };
        self.note_sleep(monotonic);
        let mut t = Turning {
            state: &mut self.state,
            scratch: &mut self.scratch,
            now,
            seed: self.seed,
            turn: Turn::default(),
        };
        let ticked = matches!(input, Input::Tick);
        route(&mut t, input);
        settle_all(&mut t);
        t.scratch.over.clear();
        let turn = t.turn;
        if ticked || !turn.events.is_empty() || self.scratch.wakes.is_stale() {
            self.wake = wakes::first(&mut Turning {
                now: self.state.at,
                seed: self.seed,
                turn: Turn::default(),
                state: &mut self.state,
                scratch: &mut self.scratch,
            });
        }
        turn
    }

    /// Notices that no input came for longer than we can have been idle: then nobody else's clock went on either.
    fn note_sleep(&mut self, now: Duration) {
        let gap = now.saturating_sub(std::mem::replace(&mut self.last_input, now));
        if !self.state.running || gap <= MARK_EVERY + MARK_SLACK {
            return;
        }
        for (id, run) in &self.state.runs {
            for (step, phase) in run.open_steps() {
                if matches!(phase, Phase::InFlight { .. }) {
                    *self.scratch.slept.entry((*id, step)).or_default() += gap;
                    self.scratch.wakes.touch(*id);
                }
            }
        }
    }

    /// Whether an effect that had to wait for its record may still be performed.
    ///
    /// Time goes on while the disk doesn't: by now the step may be in doubt, held or tried again, and an effect that comes
    /// then comes a second time. One that is not wanted is dropped, for whatever the engine concluded already counts.
    pub fn still_wanted(&self, effect: &Effect, now: Duration) -> bool {
        let at = |run: &RunId, step: &u32, attempt: &u32| {
            let state = self.state.runs.get(run)?.state(*step)?;
            (state.attempt == *attempt).then_some(&state.phase)
        };
        match effect {
            Effect::Perform { run, step, attempt, deadline, .. } => {
                matches!(at(run, step, attempt), Some(Phase::InFlight { .. })) && now < *deadline
            }
            Effect::Confirm { run, step, attempt, .. } => {
                matches!(at(run, step, attempt), Some(Phase::InDoubt { .. }))
            }
            Effect::Deliver { notice } => self.state.outbox.contains_key(notice),
            Effect::ProbeAt { .. } | Effect::Weigh { .. } | Effect::Interrupt { .. } => true,
        }
    }

    /// When `Input::Tick` is due, in engine time. None while there is nothing to wait for.
    pub fn next_wake(&self) -> Option<Duration> {
        self.wake
    }
}

fn route(t: &mut Turning<'_>, input: Input) {
    match input {
        Input::Probed { check, began, outcome } => probed(t, check, began, outcome),
        Input::Performed { run, step, attempt, outcome } => {
            moving(t, run, |t| settle::performed(t, run, step, attempt, outcome));
        }
        Input::Confirmed { run, step, attempt, answer } => {
            moving(t, run, |t| settle::confirmed(t, run, step, attempt, answer));
        }
        Input::Handle { run, step, attempt, handle } => keep(t, run, step, attempt, &handle),
        Input::Weighed { run, step, holds } => moving(t, run, |t| weighed(t, run, step, holds)),
        Input::Delivered { notice, result } => delivered(t, notice, result),
        Input::Started { boot, version } => started(t, boot, version),
        Input::ConfigLoaded(spec) => configure::load(t, spec),
        Input::Command(command) => t.turn.reply = Some(command::given(t, command)),
        Input::StoreFailed { reason } => {
            if t.state.degraded.is_none() {
                t.emit(Event::StoreDegraded { reason: reason.clone() });
                t.owe(Notice::StoreDegraded { reason });
            }
        }
        Input::StoreMended => {
            if t.state.degraded.is_some() {
                t.emit(Event::StoreRecovered);
                for run in all_runs(t) {
                    moving(t, run, |t| clock::mended(t, run));
                }
            }
        }
        Input::Tick => tick(t),
        Input::OrdersOnly => (t.scratch.orders_only, t.scratch.wakes.schedule) = (true, None),
        Input::Ending => t.scratch.ending = true,
        Input::Stopping { why } => t.emit(Event::Stopped { why }),
    }
}

fn probed(t: &mut Turning<'_>, check: CheckId, began: Duration, outcome: CheckOutcome) {
    let Some(state) = t.state.checks.get(check.index()) else { return };
    let service = state.service;
    let run = t.state.services.get(service.index()).and_then(|service| service.run);
    let failing = match run {
        None => {
            // Any pass may be the last that was missing: a heal that failed may have left all checks up.
            let passed = matches!(outcome, CheckOutcome::Pass { .. });
            let failing = watch::probed(t, check, began, outcome);
            if passed {
                watch::close_if_recovered(t, service, Some(check), None);
            }
            failing
        }
        Some(run) => {
            let mut failing = false;
            moving(t, run, |t| failing = watch::probed(t, check, began, outcome));
            if !failing && !t.state.runs.contains_key(&run) {
                watch::close_if_recovered(t, service, Some(check), Some(run));
            }
            failing
        }
    };
    if failing {
        policy::consider(t, service);
    }
}

/// Moves a run, and draws the conclusions if that ended it.
pub(crate) fn moving(t: &mut Turning<'_>, id: RunId, act: impl FnOnce(&mut Turning<'_>)) {
    // Only those about a service have more to conclude than that they are over.
    let about = |run: &Run| run.purpose.service().map(|service| (service, run.purpose.clone()));
    let about = t.state.runs.get(&id).map(about);
    t.scratch.wakes.touch(id);
    act(t);
    let (Some(about), false) = (about, t.state.runs.contains_key(&id)) else { return };
    t.forget_run(id);
    let Some((service, purpose)) = about else {
        t.scratch.admit = true;
        return;
    };
    let mut last: Option<Ended> = None;
    let mut verdict = None;
    for record in &t.turn.events {
        match &record.event {
            Event::StepOutcome { run, outcome, .. } if *run == id => {
                last = Some(Ended::Answered(outcome.clone()));
            }
            Event::StepConfirmed { run, answer: Confirmation::NotApplied { evidence }, .. }
                if *run == id && settle::looks_again(&purpose) =>
            {
                last = Some(Ended::ProvedUndone { evidence: evidence.clone() });
            }
            Event::RunFinished { run, verdict: found } if *run == id => verdict = Some(found.clone()),
            _ => {}
        }
    }
    if let (Purpose::Heal { .. } | Purpose::Manual { .. } | Purpose::Step { .. }, Some(verdict)) =
        (&purpose, &verdict)
    {
        policy::after_heal(t, service, verdict, last.as_ref());
    }
    // What comes next needs a fresh answer: of the incident if there still is one, of the service in any case.
    let at = t.state.services[service.index()].not_before.max(t.now.monotonic);
    t.effect(Effect::ProbeAt { service, at });
    if let (Purpose::Step { of, step, .. }, Some(verdict)) = (&purpose, &verdict) {
        let (of, step) = (*of, *step);
        let outcome = acted_for_step(verdict, &t.state.services[service.index()].name);
        t.scratch.acted_for.push((of, step, outcome));
    }
    t.scratch.admit = true;
}

/// Does what the end of runs leads to, for other runs, until nothing more does. A loop, for a thousand may wait for each other.
fn settle_all(t: &mut Turning<'_>) {
    let mut seen = 0;
    loop {
        if let Some((run, step, outcome)) = t.scratch.acted_for.pop() {
            let attempt = t.state.runs.get(&run).and_then(|run| run.state(step)).map(|state| state.attempt);
            moving(t, run, |t| settle::performed(t, run, step, attempt.unwrap_or_default(), outcome));
        } else if std::mem::take(&mut t.scratch.admit) {
            let mut after = RunId(0);
            while let Some(run) = start::next_in_line(t, after) {
                after = run;
                moving(t, run, |t| drive::advance(t, run));
            }
        } else if seen < t.turn.events.len() {
            seen = start::follow(t, seen);
        } else {
            return;
        }
    }
}

/// What the end of a run that acted on a service means for the step that it acted for.
fn acted_for_step(verdict: &Verdict, service: &str) -> Outcome {
    match verdict {
        Verdict::Done => Outcome::Applied { output: service.to_owned() },
        Verdict::Failed { step: 0, name, reason } | Verdict::Undone { name, reason, .. } => {
            Outcome::NotApplied { reason: format!("{name} of {service}: {reason}") }
        }
        // It was done, and did not help: doing it again is for a person to decide.
        Verdict::Failed { reason, .. } => {
            Outcome::Refused { reason: format!("{service} was acted on, but it is not well: {reason}") }
        }
        Verdict::Cancelled { name, .. } => {
            Outcome::NotApplied { reason: format!("{name} of {service}: cancelled") }
        }
    }
}

/// Journals what the effect of an attempt can be found by, unless it must not go on.
fn keep(t: &mut Turning<'_>, run: RunId, step: u32, attempt: u32, handle: &str) {
    let state = t.state.runs.get(&run).and_then(|run| run.state(step));
    let current = state.is_some_and(|state| {
        state.attempt == attempt
            && matches!(state.phase, Phase::InFlight { deadline, .. } if t.now.monotonic < deadline)
    });
    // Invariant: nothing leaves by a handle that may be lost with the journal.
    if current && t.state.degraded.is_none() {
        t.emit(Event::StepHandle { run, step, attempt, handle: handle.into() });
    }
}

/// Takes what a step's `when` came to.
fn weighed(t: &mut Turning<'_>, id: RunId, step: u32, holds: Result<bool, String>) {
    if !t.scratch.weighing.remove(&(id, step)) {
        return;
    }
    let Some(run) = t.state.runs.get(&id) else { return };
    let waits = run.ready.contains(&step) && matches!(run.phase(step), Phase::Idle);
    // Whoever has not its turn yet is asked anew when that comes.
    if !waits || !start::has_its_turn(t, run) {
        return;
    }
    match holds {
        Ok(true) => drop(t.scratch.weighed.insert((id, step))),
        Ok(false) => {
            let when = t.state.runs.get(&id).and_then(|run| run.spec(step)?.when.clone());
            let reason = format!("not {}", when.as_deref().unwrap_or("wanted"));
            t.emit(Event::StepSkipped { run: id, step, reason });
        }
        Err(why) => undo::give_up(t, id, step, format!("`when` cannot be answered: {why}")),
    }
    drive::advance(t, id);
}

fn started(t: &mut Turning<'_>, boot: String, version: String) {
    let new_boot = !same_boot(&t.state.boot, &boot);
    t.emit(Event::Started { boot, version });
    *t.scratch = Scratch { new_boot, ..Scratch::default() };
    if t.state.degraded.is_some() {
        // That the journal failed became durable, so it was being written again when lidless died.
        t.emit(Event::StoreRecovered);
    }
    for run in all_runs(t) {
        moving(t, run, |t| clock::recover(t, run));
    }
    deliver_due(t, true);
}

fn tick(t: &mut Turning<'_>) {
    let due = t.scratch.wakes.due(t.now.monotonic);
    for run in due.unwrap_or_else(|| all_runs(t)) {
        moving(t, run, |t| clock::tick(t, run));
    }
    start::tick(t);
    deliver_due(t, false);
    if t.state.running && t.now.monotonic.saturating_sub(t.state.at.monotonic) >= MARK_EVERY {
        t.emit(Event::Marked);
    }
}

fn deliver_due(t: &mut Turning<'_>, all: bool) {
    let now = t.now.monotonic;
    // One on its way is due when its answer is, whatever an earlier try said of the next.
    let due = |id, owed: &outbox::Owed| match t.scratch.delivering.get(id) {
        Some(until) => now >= *until,
        None => all || owed.retry_at <= now,
    };
    let due: Vec<_> = t.state.outbox.iter().filter(|(id, owed)| due(id, owed)).map(|(id, _)| *id).collect();
    for notice in due {
        match t.scratch.delivering.get(&notice) {
            None => t.deliver(notice),
            Some(until) if now >= *until => delivered(t, notice, Err("no answer".to_owned())),
            Some(_) => {}
        }
    }
}

fn delivered(t: &mut Turning<'_>, notice: crate::id::NoticeId, result: Result<(), String>) {
    t.scratch.delivering.remove(&notice);
    t.scratch.wakes.owed = None;
    let Some(owed) = t.state.outbox.get(&notice) else { return };
    match result {
        Ok(()) => t.emit(Event::NoticeDelivered { notice }),
        Err(reason) => {
            let retry_at = t.now.monotonic + outbox::retry_after(owed.failures + 1, t.jitter());
            t.emit(Event::NoticeFailed { notice, reason, retry_at });
        }
    }
}

fn all_runs(t: &Turning<'_>) -> Vec<RunId> {
    t.state.runs.keys().copied().collect()
}
