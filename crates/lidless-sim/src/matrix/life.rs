//! What does one life of lidless do, in the matrix? The daemon's loop in miniature, with a point to be cut at before and after
//! everything that it does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lidless_core::effect::{Command, Effect, Input};
use lidless_core::engine::Engine;
use lidless_core::event::{Outcome, Record};
use lidless_core::id::{RunId, Seq};
use lidless_core::pipeline::plan::{Class, StepSpec};
use lidless_core::pipeline::run::Phase;
use lidless_core::spec::Spec;
use lidless_core::time::Now;

use super::outside::{Appended, Kind, Outside};

/// Longer than any time-out.
const LONG: Duration = Duration::from_secs(3_600);
/// Longer than an attempt.
const SOME: Duration = Duration::from_secs(15);
/// More turns than any case takes.
const TURNS_MAX: u32 = 4_000;

/// Why a life is over before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Over {
    Died,
    Fenced,
}

/// What is to happen at which points, and how far we are.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    pub(super) planned: Vec<(u32, Kind)>,
    /// Points passed.
    pub(super) passed: u32,
    /// Points after the first cut.
    pub(super) since_first: u32,
}

/// All of a case.
pub(super) struct Case<'a> {
    pub(super) out: Outside,
    pub(super) cuts: Cuts,
    pub(super) specs: [&'a Arc<Spec>; 2],
    /// What the steps really are, whatever the plan declares.
    pub(super) classes: [Class; 8],
    pub(super) turns: u32,
    pub(super) held: bool,
    /// Mutation: what a handle names is let out before that is durable.
    pub(super) handle_last: bool,
}

enum Next {
    Input(Input),
    /// The effect of an attempt is let out.
    Out {
        run: RunId,
        step: u32,
        attempt: u32,
    },
}

struct Life {
    engine: Engine,
    epoch: u64,
    queue: BTreeMap<(Duration, u64), Next>,
    count: u64,
    /// Effects that wait for their record.
    ledge: Vec<(Seq, Effect)>,
    /// Records that could not be written yet.
    unwritten: Vec<Record>,
    cancel: bool,
}

impl Case<'_> {
    /// Lets lidless live, and live again, until the run is over.
    pub(super) fn play(&mut self) {
        while self.out.broken.is_none() && self.live() == Err(Over::Died) {}
    }

    fn live(&mut self) -> Result<(), Over> {
        // Whoever begins takes the lease: everybody else is fenced from here on.
        self.out.epoch += 1;
        let mut life = Life {
            engine: Engine::new(1),
            epoch: self.out.epoch,
            queue: BTreeMap::new(),
            count: 0,
            ledge: Vec::new(),
            unwritten: Vec::new(),
            cancel: false,
        };
        for record in &self.out.journal {
            if let Err(err) = life.engine.apply(record) {
                self.out.broken = Some(format!("the journal cannot be replayed: {err}"));
                return Ok(());
            }
        }
        self.out.now += Duration::from_secs(1);
        let boot = "boot+0".to_owned();
        life.feed(self, Input::Started { boot, version: "0".to_owned() })?;
        let spec = Arc::clone(self.specs[usize::from(self.out.upgraded)]);
        life.feed(self, Input::ConfigLoaded(spec))?;
        life.feed(self, Input::Command(order()))?;
        while self.out.broken.is_none() {
            if life.is_done() {
                return Ok(());
            }
            life.next(self)?;
        }
        Ok(())
    }

    fn point(&mut self, life: &mut Life) -> Result<(), Over> {
        let at = self.cuts.passed;
        self.cuts.passed += 1;
        let first = self.cuts.planned.first().map_or(u32::MAX, |(first, _)| *first);
        self.cuts.since_first += u32::from(at > first);
        let Some(kind) = self.cuts.planned.iter().find(|(of, _)| *of == at).map(|(_, kind)| *kind) else {
            return Ok(());
        };
        match kind {
            Kind::Crash => return Err(Over::Died),
            Kind::Upgrade => {
                (self.out.upgraded, self.out.missing) = (true, true);
                return Err(Over::Died);
            }
            Kind::Pause => self.out.now += LONG,
            Kind::Takeover => {
                self.out.now += LONG;
                self.out.world.lands(self.out.now);
                self.play();
            }
            Kind::LostAck | Kind::LostAppend => self.out.next_append = Some(kind),
            Kind::StoreDown => self.out.down_until = self.out.now + Duration::from_secs(4),
            Kind::DiskFull => self.out.down_until = self.out.now + SOME,
            Kind::ClockJump => self.out.wall_offset_ms -= 3_600_000,
            Kind::Cancel => life.cancel = true,
        }
        Ok(())
    }
}

/// Whoever triggers the run tries until it is told; the key makes that one run.
fn order() -> Command {
    Command::Run {
        pipeline: "pay".to_owned(),
        by: "a test".to_owned(),
        inputs: String::new(),
        from: None,
        key: Some("order 7".to_owned()),
        due: None,
        wait: true,
    }
}

impl Life {
    fn is_done(&self) -> bool {
        let state = self.engine.state();
        state.runs.is_empty()
            && !state.ended.is_empty()
            && self.unwritten.is_empty()
            && state.degraded.is_none()
    }

    fn next(&mut self, case: &mut Case<'_>) -> Result<(), Over> {
        case.turns += 1;
        if case.turns > TURNS_MAX {
            let runs = self.engine.state().runs.values().map(|run| (&run.steps, &run.turned, run.cancelled));
            case.out.broken = Some(format!("it never ends: {:?}", runs.collect::<Vec<_>>()));
            return Ok(());
        }
        if std::mem::take(&mut self.cancel)
            && let Some(run) = self.engine.state().runs.keys().next().copied()
        {
            return self.feed(case, Input::Command(Command::Cancel { run, by: "ann".to_owned() }));
        }
        let state = self.engine.state();
        if state.runs.is_empty() && state.ended.is_empty() && state.degraded.is_none() {
            return self.feed(case, Input::Command(order()));
        }
        let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
        let wake = self.engine.next_wake();
        let store = (!self.unwritten.is_empty()).then_some(case.out.down_until.max(case.out.now));
        let soon = [queued, store].into_iter().flatten().min();
        match (soon, wake) {
            // Nothing is on its way but the mark of each minute: whoever is asked for comes.
            (None, _) if self.waits_for_a_person() => self.person(case),
            (Some(soon), wake) if wake.is_none_or(|wake| soon <= wake) => {
                case.out.now = case.out.now.max(soon);
                case.out.world.lands(case.out.now);
                case.point(self)?;
                if store == Some(soon) {
                    return self.mend(case);
                }
                match self.queue.pop_first().map(|(_, next)| next) {
                    Some(Next::Input(input)) => self.feed(case, input),
                    Some(Next::Out { run, step, attempt }) => self.let_out(case, run, step, attempt),
                    None => Ok(()),
                }
            }
            (_, Some(wake)) => {
                case.out.now = case.out.now.max(wake);
                case.out.world.lands(case.out.now);
                case.point(self)?;
                self.feed(case, Input::Tick)
            }
            (Some(_) | None, None) => {
                case.out.broken = Some("nothing will ever happen again".to_owned());
                Ok(())
            }
        }
    }

    fn feed(&mut self, case: &mut Case<'_>, input: Input) -> Result<(), Over> {
        let millis = i64::try_from(case.out.now.as_millis()).unwrap_or(i64::MAX);
        let now =
            Now { monotonic: case.out.now, wall_ms: 1_800_000_000_000 + case.out.wall_offset_ms + millis };
        let turn = self.engine.handle(now, input);
        self.unwritten.extend(turn.events);
        let upto = self.engine.state().seq;
        self.ledge.extend(turn.effects.into_iter().map(|effect| (upto, effect)));
        if !self.unwritten.is_empty() {
            case.point(self)?;
            self.write(case)?;
            case.point(self)?;
        }
        if !self.unwritten.is_empty() && self.engine.state().degraded.is_none() {
            return self.feed(case, Input::StoreFailed { reason: "no space left on device".to_owned() });
        }
        self.release(case)
    }

    /// Writes what is not written. An acknowledgement that was lost is settled by looking what is there.
    fn write(&mut self, case: &mut Case<'_>) -> Result<(), Over> {
        loop {
            match case.out.append(self.epoch, &self.unwritten) {
                Appended::Durable => {
                    self.unwritten.clear();
                    return Ok(());
                }
                Appended::Fenced => return Err(Over::Fenced),
                Appended::Refused => return Ok(()),
                Appended::Unknown => {
                    case.point(self)?;
                    let last = case.out.last();
                    self.unwritten.retain(|record| record.seq > last);
                    if self.unwritten.is_empty() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn mend(&mut self, case: &mut Case<'_>) -> Result<(), Over> {
        self.write(case)?;
        if self.unwritten.is_empty() { self.feed(case, Input::StoreMended) } else { Ok(()) }
    }

    /// Lets go what is durable, and what needs no journal.
    fn release(&mut self, case: &mut Case<'_>) -> Result<(), Over> {
        let last = case.out.last();
        let degraded = self.engine.state().degraded.is_some();
        let goes = |(upto, effect): &(Seq, Effect)| match effect {
            Effect::Perform { .. } => *upto <= last && !degraded,
            _ => true,
        };
        let (go, stay): (Vec<_>, Vec<_>) = std::mem::take(&mut self.ledge).into_iter().partition(goes);
        self.ledge = stay;
        for (_, effect) in go {
            case.point(self)?;
            // The clock is read here, as the daemon does: a life that stood still finds its time over.
            if self.engine.still_wanted(&effect, case.out.now) {
                self.perform(case, effect);
            }
            case.point(self)?;
        }
        Ok(())
    }

    fn perform(&mut self, case: &mut Case<'_>, effect: Effect) {
        let soon = case.out.now + Duration::from_millis(100);
        match effect {
            Effect::Perform { run, step, attempt, .. } => {
                if std::mem::take(&mut case.out.missing) {
                    let outcome = Outcome::Missing { reason: "no such plugin".to_owned() };
                    return self.at(soon, Next::Input(Input::Performed { run, step, attempt, outcome }));
                }
                self.at(soon, Next::Out { run, step, attempt });
            }
            Effect::Confirm { run, step, attempt, .. } => {
                let answer = case.out.world.confirm((run, step));
                self.at(soon, Next::Input(Input::Confirmed { run, step, attempt, answer }));
            }
            Effect::Deliver { notice } => {
                self.at(soon, Next::Input(Input::Delivered { notice, result: Ok(()) }))
            }
            Effect::Weigh { run, step, .. } => {
                self.at(soon, Next::Input(Input::Weighed { run, step, holds: Ok(true) }));
            }
            Effect::Interrupt { .. } | Effect::ProbeAt { .. } => {}
        }
    }

    /// The driver of a step that can be looked up first has its handle kept; only then it lets the thing out.
    fn let_out(&mut self, case: &mut Case<'_>, run: RunId, step: u32, attempt: u32) -> Result<(), Over> {
        let found = self.engine.state().runs.get(&run).and_then(|of| {
            let state = of.state(step)?;
            let deadline = match &state.phase {
                Phase::InFlight { deadline, .. } => *deadline,
                _ => Duration::ZERO,
            };
            Some((of.spec(step)?.clone(), state.handles.last().cloned(), deadline))
        });
        // Drivers keep their deadlines: what is overdue is ended, and lets nothing out.
        let Some((spec, known, deadline)) = found else { return Ok(()) };
        if case.out.now >= deadline {
            return Ok(());
        }
        if spec.class == Class::Confirmable {
            let handle = case.out.world.handle((run, step), known.as_deref());
            if case.handle_last {
                case.out.world.let_out((run, step), handle.clone());
                case.point(self)?;
            }
            let before = self.engine.state().seq;
            self.feed(case, Input::Handle { run, step, attempt, handle: handle.clone() })?;
            let kept = self.engine.state().seq > before && self.unwritten.is_empty();
            if !kept || case.out.now >= deadline {
                let outcome = Outcome::NotApplied { reason: "its handle could not be kept".to_owned() };
                return self.feed(case, Input::Performed { run, step, attempt, outcome });
            }
            case.point(self)?;
            if case.out.now >= deadline {
                return Ok(());
            }
            case.out.world.let_out((run, step), handle);
        }
        self.hand_in(case, (run, step, attempt), &spec);
        case.point(self)
    }

    fn hand_in(&mut self, case: &mut Case<'_>, (run, step, attempt): (RunId, u32, u32), spec: &StepSpec) {
        let class = case.classes[step as usize];
        let outcome = case.out.world.hand_in(case.out.now, (run, step), &spec.name, class);
        let answered = case.out.now + Duration::from_secs(2);
        self.at(answered, Next::Input(Input::Performed { run, step, attempt, outcome }));
    }

    fn at(&mut self, at: Duration, next: Next) {
        self.count += 1;
        self.queue.insert((at, self.count), next);
    }

    /// Whether nobody can resume it any more.
    fn is_ending(&self, run: RunId) -> bool {
        let run = self.engine.state().runs.get(&run);
        run.is_some_and(|run| run.turned.as_ref().map_or(run.cancelled, |turned| !turned.undoing))
    }

    fn waits_for_a_person(&self) -> bool {
        let mut open = self.engine.state().runs.values().flat_map(|run| run.open_steps());
        open.any(|(_, phase)| phase.waits_for_a_person() || matches!(phase, Phase::Parked { .. }))
    }

    /// Somebody looks at the world and says what is there, or has the missing plugin installed.
    fn person(&mut self, case: &mut Case<'_>) -> Result<(), Over> {
        case.held = true;
        case.point(self)?;
        case.out.now += Duration::from_secs(30);
        case.out.world.lands(case.out.now);
        let open = self.engine.state().runs.values().flat_map(|run| {
            run.open_steps().map(move |(step, phase)| (run.id, step, run.spec(step), phase.clone()))
        });
        let open: Vec<_> = open.map(|(run, step, spec, phase)| (run, step, spec.cloned(), phase)).collect();
        let (by, evidence) = ("ann".to_owned(), "I looked".to_owned());
        for (run, step, spec, phase) in open {
            let command = match phase {
                Phase::Held { .. } | Phase::Parked { .. }
                    if matches!(phase, Phase::Held { .. }) || self.is_ending(run) =>
                {
                    let Some(applied) = case.out.world.truth((run, step)) else { continue };
                    let step = spec.map(|spec| spec.name).unwrap_or_default();
                    Command::Resolve { run, step, applied, evidence, by }
                }
                Phase::Stuck { .. } | Phase::Parked { .. } => Command::Resume { run, by },
                _ => continue,
            };
            return self.feed(case, Input::Command(command));
        }
        Ok(())
    }
}
