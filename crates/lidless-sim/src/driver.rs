//! What does the daemon do, in miniature? Input, turn, append, effects, answers; until something breaks or all is well.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lidless_core::effect::{Command, Effect, Input};
use lidless_core::engine::Engine;
use lidless_core::id::{CheckId, Seq};
use lidless_core::spec::Spec;
use lidless_core::time::Now;

use crate::invariants::{Checker, Said, at_the_end};
use crate::journal::Journal;
use crate::rng::Rng;
use crate::scenario::{Scenario, YIELD};
use crate::schedule::{Happening, Schedule};
use crate::world::World;

/// How to rehearse.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Prints every input, event and effect.
    pub trace: bool,
    /// Hashes the journal.
    pub hash: bool,
    /// Mutation: effects are performed before their events are durable.
    pub effects_first: bool,
    /// Looks away when an effect outruns its record, so that only what follows from it can be caught.
    pub consequences_only: bool,
    /// Mutation: what waited for a full disk is done once there is room, whatever was decided meanwhile.
    pub late_effects: bool,
    /// Mutation: the plan declares a value step repeatable that is not.
    pub repeatable_value: bool,
}

/// What a rehearsal came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    /// Inputs that the engine took.
    pub turns: u64,
    /// Times that lidless died.
    pub crashes: u64,
    /// Effects that were performed.
    pub effects: u64,
    /// Records in the journal.
    pub records: u64,
    /// Heals that were begun.
    pub heals: u64,
    /// Transactions that landed.
    pub landed: u64,
    /// Virtual time.
    pub elapsed: Duration,
    /// The journal's hash, where it was asked for.
    pub hash: u64,
    /// The first invariant that broke.
    pub broken: Option<String>,
}

/// Rehearses one seed.
pub fn rehearse(seed: u64, options: Options) -> Findings {
    Sim::new(seed, options).run()
}

/// lidless died.
#[derive(Debug)]
pub(crate) struct Crash;

/// How the probes of one check stand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Probing {
    pub(crate) last: Duration,
    pub(crate) under_way: u32,
    pub(crate) plan: u64,
}

pub(crate) struct Sim {
    pub(crate) options: Options,
    pub(crate) scenario: Scenario,
    pub(crate) rng: Rng,
    pub(crate) seed: u64,
    pub(crate) engine: Engine,
    pub(crate) journal: Journal,
    /// When lidless died, while it is dead.
    pub(crate) died_at: Option<Duration>,
    /// From when to when nobody looked: lidless was dead, or the machine slept.
    pub(crate) absences: Vec<(Duration, Duration)>,
    /// Effects that wait for their record, and which record.
    pub(crate) held: Vec<(Seq, Effect)>,
    pub(crate) world: World,
    pub(crate) schedule: Schedule,
    pub(crate) checker: Checker,
    pub(crate) found: Findings,
    pub(crate) now: Duration,
    pub(crate) wall_offset_ms: i64,
    /// Which life of lidless this is: answers to an earlier one are lost.
    pub(crate) epoch: u64,
    /// lidless runs.
    pub(crate) alive: bool,
    pub(crate) recovering: bool,
    /// The configuration that is read at the next start.
    pub(crate) spec: Arc<Spec>,
    pub(crate) probing: BTreeMap<CheckId, Probing>,
    /// When everything must be well, once faults have stopped.
    pub(crate) until: Option<Duration>,
    idle_ticks: u32,
}

impl Sim {
    fn new(seed: u64, options: Options) -> Sim {
        let mut rng = Rng::new(seed, 1);
        let scenario = Scenario::new(&mut rng, options.repeatable_value);
        let spec = Arc::new(scenario.spec(&mut rng));
        Sim {
            world: World::new(seed, scenario.flap),
            options,
            scenario,
            rng,
            seed,
            engine: Engine::new(seed),
            journal: Journal::default(),
            held: Vec::new(),
            died_at: None,
            absences: Vec::new(),
            schedule: Schedule::default(),
            checker: Checker::default(),
            found: Findings::default(),
            now: Duration::from_secs(1),
            wall_offset_ms: 1_800_000_000_000,
            epoch: 0,
            alive: false,
            recovering: false,
            spec,
            probing: BTreeMap::new(),
            until: None,
            idle_ticks: 0,
        }
    }

    fn run(mut self) -> Findings {
        self.schedule.at(self.now, Happening::Boot);
        self.schedule.at(self.now, Happening::Fault);
        while self.found.broken.is_none() {
            let chaos_over =
                self.now >= self.scenario.chaos || self.found.turns >= u64::from(self.scenario.turns_max);
            match self.until {
                None if chaos_over => self.calm_down(),
                None => {}
                Some(_) if self.alive && self.all_well() => {
                    self.finish();
                    break;
                }
                Some(until) if self.now > until => {
                    let what = self.what_is_wrong();
                    self.broke(format!("(9) not well long after faults stopped: {what}"));
                }
                Some(_) => {}
            }
            if self.next().is_err() {
                self.died();
            }
            if let Some(what) = self.world.broken.take() {
                self.broke(what);
            }
        }
        self.found.elapsed = self.now;
        self.found.landed = self.world.landed();
        self.found.records = self.journal.records().len() as u64;
        if self.options.hash {
            match self.journal.hash() {
                Ok(hash) => self.found.hash = hash,
                Err(what) => self.broke(format!("(3) {what}")),
            }
        }
        self.found
    }

    /// Lets the next thing happen.
    fn next(&mut self) -> Result<(), Crash> {
        let queued = self.schedule.next_at().unwrap_or(Duration::MAX);
        let wake = self.engine.next_wake().filter(|_| self.alive);
        if let Some(wake) = wake.filter(|wake| *wake <= queued) {
            self.idle_ticks = if wake <= self.now { self.idle_ticks + 1 } else { 0 };
            self.now = self.now.max(wake);
            if self.idle_ticks > 100 {
                self.broke("(9) the engine wants to be woken again and again, and does nothing".to_owned());
            }
            return self.feed(Input::Tick);
        }
        let Some((at, what)) = self.schedule.pop() else {
            self.broke("(9) nothing will ever happen again".to_owned());
            return Ok(());
        };
        self.idle_ticks = 0;
        self.now = self.now.max(at);
        self.happens(what)
    }

    fn happens(&mut self, what: Happening) -> Result<(), Crash> {
        match what {
            Happening::Answer { epoch, input } if epoch == self.epoch => self.answered(input),
            Happening::Probe { epoch, check, plan } if epoch == self.epoch => {
                if self.probing.get(&check).is_some_and(|probing| probing.plan == plan) {
                    self.probe(check, false);
                }
                Ok(())
            }
            Happening::ProbeOnce { epoch, check } if epoch == self.epoch => {
                self.probe(check, true);
                Ok(())
            }
            // Whoever asked is dead.
            Happening::Answer { .. } | Happening::Probe { .. } | Happening::ProbeOnce { .. } => Ok(()),
            Happening::Act { service, job, stage } => {
                self.world.act_goes_on(&mut self.schedule, service, job, stage, self.now);
                Ok(())
            }
            Happening::Dies { service, instance, exit } => {
                self.world.dies(service, instance, exit);
                Ok(())
            }
            Happening::Lands { tx } => {
                self.world.lands(tx);
                Ok(())
            }
            Happening::Taken { key } => {
                self.world.taken.insert(key);
                Ok(())
            }
            Happening::Fault => self.fault(),
            Happening::Reload { spec } => self.reload(spec),
            Happening::Room => self.room(),
            Happening::Boot => self.boot(),
            Happening::Person => self.person(),
        }
    }

    pub(crate) fn clock(&self) -> Now {
        let millis = i64::try_from(self.now.as_millis()).unwrap_or(i64::MAX);
        Now { monotonic: self.now, wall_ms: self.wall_offset_ms + millis }
    }

    /// Hands one input to the engine, makes its events durable, then does what it asks for.
    pub(crate) fn feed(&mut self, input: Input) -> Result<(), Crash> {
        self.found.turns += 1;
        let said = Said::of(&input);
        self.trace(|sim| format!("{:>12.3} < {input:?}", sim.now.as_secs_f64()));
        let turn = self.engine.handle(self.clock(), input);
        if self.options.trace {
            for record in &turn.events {
                println!("{:>12} | {} {:?}", "", record.seq, record.event);
            }
        }
        if turn.events.is_empty() && turn.effects.is_empty() {
            return Ok(());
        }
        self.idle_ticks = 0;
        if self.options.effects_first {
            self.perform_all(&turn, false)?;
        }
        self.crash_point("before an append")?;
        let written = self.journal.append(&turn.events);
        if let Err(what) = self.checker.turn(said, self.engine.state(), &turn.events) {
            self.broke(what);
        }
        self.crash_point("after an append")?;
        self.found.heals += heals(&turn.events);
        if !self.options.effects_first {
            self.perform_all(&turn, written.is_err())?;
        }
        if !self.journal.held_back() && self.rng.chance(50) {
            self.journal.save_snapshot(self.engine.state());
        }
        if written.is_err() && self.engine.state().degraded.is_none() {
            self.feed(Input::StoreFailed { reason: "no space left on device".to_owned() })?;
        }
        Ok(())
    }

    /// Draws whether lidless dies here.
    pub(crate) fn crash_point(&mut self, place: &'static str) -> Result<(), Crash> {
        let chance = if self.recovering { self.scenario.crash_again } else { self.scenario.crash };
        if self.world.calm || !self.rng.chance(chance) {
            return Ok(());
        }
        self.trace(|sim| format!("{:>12.3} ! lidless dies {place}", sim.now.as_secs_f64()));
        self.found.crashes += 1;
        Err(Crash)
    }

    fn fault(&mut self) -> Result<(), Crash> {
        if self.world.calm {
            return Ok(());
        }
        let wait = self.rng.millis(1, self.scenario.fault_every_ms * 2);
        self.schedule.at(self.now + wait, Happening::Fault);
        let name = self.world.fault(self.now, &mut self.schedule);
        self.trace(|sim| format!("{:>12.3} * {name}", sim.now.as_secs_f64()));
        if self.rng.chance(500) {
            let hour = 3_600_000;
            self.wall_offset_ms += if self.rng.chance(5_000) { hour } else { -hour };
        }
        self.disk_may_fill();
        if self.rng.chance(self.scenario.sleep) {
            let woken = self.now + self.rng.millis(1_000, 900_000);
            self.trace(|sim| format!("{:>12.3} * the machine sleeps", sim.now.as_secs_f64()));
            if self.alive {
                self.absences.push((self.now, woken));
            }
            self.now = woken;
        }
        if self.rng.chance(self.scenario.reload) {
            let other = self.rng.chance(3_000);
            let spec = if other {
                self.scenario.spec(&mut self.rng)
            } else {
                self.scenario.touched(&mut self.rng, &self.spec)
            };
            if self.rng.chance(4_000) {
                let soon = self.now + self.rng.millis(1, 8_000);
                self.schedule.at(soon, Happening::Reload { spec: Arc::clone(&self.spec) });
            }
            self.reload(Arc::new(spec))?;
        }
        if self.alive && self.rng.chance(self.scenario.by_hand) {
            let count = self.engine.state().services.len() as u64;
            let service =
                lidless_core::id::ServiceId(u32::try_from(self.rng.next() % count.max(1)).unwrap_or(0));
            let force = self.rng.chance(3_000);
            self.feed(Input::Command(Command::Restart { service, by: "ann".to_owned(), force }))?;
        }
        if self.alive && self.rng.chance(2_000) {
            let wait = self.rng.chance(3_000);
            self.feed(Input::Command(Command::Run {
                pipeline: YIELD.to_owned(),
                by: "ann".to_owned(),
                inputs: String::new(),
                from: None,
                key: None,
                due: None,
                wait,
            }))?;
        }
        if self.alive && self.rng.chance(2_000) {
            self.bookkeeper()?;
        }
        if self.alive && self.rng.chance(2_000) {
            let (by, state) = ("ann".to_owned(), self.engine.state());
            let ended = state.ended.back().map(|ended| ended.run.id);
            let open = state.runs.values().find(|run| run.purpose.service().is_none()).map(|run| run.id);
            let command = match (open, ended) {
                (Some(run), _) if self.rng.chance(3_000) => Some(Command::Cancel { run, by }),
                (_, Some(run)) => Some(Command::Resume { run, by }),
                (_, None) => None,
            };
            if let Some(command) = command {
                self.feed(Input::Command(command))?;
            }
        }
        if self.alive && self.rng.chance(self.scenario.stop) {
            self.feed(Input::Stopping { why: "asked to".to_owned() })?;
            self.trace(|sim| format!("{:>12.3} ! lidless stops", sim.now.as_secs_f64()));
            return Err(Crash);
        }
        Ok(())
    }

    /// Draws whether the disk is full from now on.
    pub(crate) fn disk_may_fill(&mut self) {
        if self.rng.chance(self.scenario.full) && !self.journal.full {
            self.trace(|sim| format!("{:>12.3} * the disk is full", sim.now.as_secs_f64()));
            self.journal.full = true;
            let lasts = self.rng.millis(1_000, 120_000);
            self.schedule.at(self.now + lasts, Happening::Room);
        }
    }

    fn reload(&mut self, spec: Arc<Spec>) -> Result<(), Crash> {
        self.spec = spec;
        if self.alive && !self.world.calm {
            self.feed(Input::ConfigLoaded(Arc::clone(&self.spec)))?;
            self.plan_all();
        }
        Ok(())
    }

    fn finish(&mut self) {
        if let Err(what) =
            at_the_end(self.journal.records(), self.engine.state(), &self.world, &self.absences)
        {
            self.broke(what);
        }
    }

    pub(crate) fn broke(&mut self, what: String) {
        self.trace(|sim| format!("{:>12.3} # BROKEN: {what}", sim.now.as_secs_f64()));
        self.found.broken.get_or_insert(what);
    }

    pub(crate) fn trace(&self, line: impl FnOnce(&Sim) -> String) {
        if self.options.trace {
            println!("{}", line(self));
        }
    }
}

fn heals(events: &[lidless_core::event::Record]) -> u64 {
    use lidless_core::event::Event;
    use lidless_core::pipeline::plan::Purpose;
    let heal = |event: &Event| matches!(event, Event::RunCreated { purpose: Purpose::Heal { .. }, .. });
    events.iter().filter(|record| heal(&record.event)).count() as u64
}
