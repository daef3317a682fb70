//! Who does what the engine asks for? Hands effects to the fake world and brings the answers back; plans probes.

use std::time::Duration;

use lidless_core::effect::{Effect, Input, Turn};
use lidless_core::event::{Confirmation, Outcome};
use lidless_core::id::{CheckId, RunId, Seq, ServiceId};
use lidless_core::pipeline::plan::StepCall;
use lidless_core::pipeline::run::Phase;

use crate::act::ActKey;
use crate::driver::{Crash, Probing, Sim};
use crate::scenario::NAMES;
use crate::schedule::Happening;

impl Sim {
    /// Performs a turn's effects. While its events could not be written, nothing that moves value is begun.
    pub(crate) fn perform_all(&mut self, turn: &Turn, unwritten: bool) -> Result<(), Crash> {
        let needs = turn.events.last().map(|record| record.seq).unwrap_or_default();
        for effect in &turn.effects {
            self.crash_point("before an effect")?;
            self.trace(|_| format!("{:>12} > {effect:?}", ""));
            self.found.effects += 1;
            self.perform(effect, needs, unwritten);
            self.crash_point("after an effect")?;
        }
        Ok(())
    }

    /// What waited for its record goes out now, if it is still wanted.
    pub(crate) fn release(&mut self) -> Result<(), Crash> {
        let last = self.journal.last();
        let (out, held) = std::mem::take(&mut self.held).into_iter().partition(|(needs, _)| *needs <= last);
        self.held = held;
        for (needs, effect) in out {
            if self.options.late_effects || self.engine.still_wanted(&effect, self.now) {
                self.crash_point("before an effect that was held")?;
                self.trace(|_| format!("{:>12} > held until now: {effect:?}", ""));
                self.found.effects += 1;
                self.perform(&effect, needs, false);
                self.crash_point("after an effect that was held")?;
            }
        }
        Ok(())
    }

    fn perform(&mut self, effect: &Effect, needs: Seq, unwritten: bool) {
        match effect {
            Effect::Perform { run, step, attempt, name, call, deadline } => {
                let (run, step, attempt) = (*run, *step, *attempt);
                let moves_value = self.moves_value(run, step);
                if moves_value && unwritten {
                    if self.engine.state().degraded.is_some() {
                        self.broke(format!(
                            "(1) {run} begins to move value though the journal cannot be written"
                        ));
                    }
                    // It waits for its record, and the engine's time goes on.
                    return self.held.push((needs, effect.clone()));
                }
                self.durable_first(needs, moves_value);
                let key = self.key(run, step);
                let times = (self.now, *deadline);
                let answer = match call {
                    StepCall::Act { service, action } => match self.real(*service) {
                        Some(at) => {
                            self.world.act(&self.scenario, &mut self.schedule, at, (key, *action), times)
                        }
                        None => {
                            Some((self.now, Outcome::Unavailable { reason: "no such service".to_owned() }))
                        }
                    },
                    StepCall::External { .. } => {
                        self.world.step(&self.scenario, &mut self.schedule, key, name, times)
                    }
                    StepCall::Verify { .. }
                    | StepCall::Require { .. }
                    | StepCall::Nothing
                    | StepCall::Wait { .. }
                    | StepCall::Service { .. } => {
                        return self.broke("(1) a step of the engine's own was handed out".to_owned());
                    }
                };
                if let Some((at, outcome)) = answer {
                    self.answer_at(at, Input::Performed { run, step, attempt, outcome });
                }
            }
            Effect::Confirm { run, step, attempt, call, intent_at, .. } => {
                self.durable_first(needs, false);
                let key = self.key(*run, *step);
                let mut from = self.now;
                let answer = match call {
                    StepCall::External { .. } if self.may_go_on(*run, *step) => {
                        let (at, answer) = self.world.adopt_step(&self.scenario, key, self.now);
                        from = at;
                        answer
                    }
                    StepCall::Act { service, .. } => match self.real(*service) {
                        Some(at) => self.world.confirm_act(&self.scenario, at, intent_at.monotonic),
                        None => Confirmation::NotApplied { evidence: "no such service".to_owned() },
                    },
                    StepCall::External { .. }
                    | StepCall::Require { .. }
                    | StepCall::Verify { .. }
                    | StepCall::Nothing
                    | StepCall::Wait { .. }
                    | StepCall::Service { .. } => self.world.confirm_step(&self.scenario, key),
                };
                if self.forgets(self.scenario.lost) {
                    return;
                }
                let at = from + self.rng.millis(1, 500);
                let (run, step, attempt) = (*run, *step, *attempt);
                self.answer_at(at, Input::Confirmed { run, step, attempt, answer });
            }
            Effect::Deliver { notice } => {
                self.durable_first(needs, false);
                let Some(owed) = self.engine.state().outbox.get(notice) else {
                    return self.broke(format!("(8) {notice} is to be delivered, but not in the outbox"));
                };
                let key = (notice.0, format!("{:?}", owed.what));
                let at = self.now + self.rng.millis(1, 2_000);
                let trouble = !self.world.calm && self.rng.chance(self.scenario.undelivered);
                if !trouble || self.rng.chance(2_000) {
                    self.schedule.at(at, Happening::Taken { key });
                }
                if self.forgets(self.scenario.undelivered) {
                    return;
                }
                let result = if trouble { Err("status 503".to_owned()) } else { Ok(()) };
                self.answer_at(at, Input::Delivered { notice: *notice, result });
            }
            Effect::Weigh { run, step, .. } => {
                let at = self.now + self.rng.millis(0, 20);
                let holds = Ok(self.rng.chance(8_000));
                self.answer_at(at, Input::Weighed { run: *run, step: *step, holds });
            }
            // Whether it ends sooner is up to the world.
            Effect::Interrupt { .. } => {}
            Effect::ProbeAt { service, at } => {
                for check in self.checks_of(*service) {
                    let what = Happening::ProbeOnce { epoch: self.epoch, check };
                    self.schedule.at((*at).max(self.now), what);
                }
            }
        }
    }

    /// Invariant 1: an effect is performed only after its events are durable; what moves no value may go on without.
    fn durable_first(&mut self, needs: Seq, moves_value: bool) {
        let durable = self.journal.last() >= needs;
        let tolerated = self.journal.held_back() && !moves_value;
        if !durable && !tolerated && !self.options.consequences_only {
            self.broke(format!("(1) an effect is performed, but its event {needs} is not durable"));
        }
        if moves_value && self.engine.state().degraded.is_some() && !self.options.consequences_only {
            self.broke("(1) value moves while the journal cannot be written".to_owned());
        }
    }

    /// Draws whether a driver breaks its promise and never answers a question.
    fn forgets(&mut self, chance: u32) -> bool {
        !self.world.calm && self.rng.chance(chance / 10)
    }

    fn answer_at(&mut self, at: Duration, input: Input) {
        self.schedule.at(at, Happening::Answer { epoch: self.epoch, input });
    }

    fn moves_value(&self, run: RunId, step: u32) -> bool {
        let run = self.engine.state().runs.get(&run);
        run.and_then(|run| run.spec(step)).is_some_and(|step| step.value)
    }

    /// Whether a step in doubt may have gone on by itself, and was not asked yet.
    fn may_go_on(&self, run: RunId, step: u32) -> bool {
        let run = self.engine.state().runs.get(&run);
        run.is_some_and(|run| {
            let first = matches!(run.phase(step), Phase::InDoubt { asked: 0, .. });
            first && run.spec(step).is_some_and(|spec| spec.adoptable)
        })
    }

    pub(crate) fn key(&self, run: RunId, step: u32) -> ActKey {
        let created = self.engine.state().runs.get(&run).map(|run| run.created.monotonic);
        (run, created.unwrap_or_default(), step)
    }

    /// Returns the service of the world that goes by an id.
    fn real(&self, id: ServiceId) -> Option<usize> {
        let service = self.engine.state().services.get(id.index())?;
        NAMES.iter().position(|name| *name == service.name)
    }

    fn checks_of(&self, service: ServiceId) -> Vec<CheckId> {
        self.engine
            .state()
            .services
            .get(service.index())
            .map(|service| service.checks.clone())
            .unwrap_or_default()
    }

    /// Takes an answer, then plans anew whatever it may have changed.
    pub(crate) fn answered(&mut self, input: Input) -> Result<(), Crash> {
        let seq = self.engine.state().seq;
        let check = match &input {
            Input::Probed { check, .. } => Some(*check),
            _ => None,
        };
        if let Some(probing) = check.and_then(|check| self.probing.get_mut(&check)) {
            probing.under_way = probing.under_way.saturating_sub(1);
        }
        // Just before an intent is written: what waits for the disk then is what must not come too late.
        if matches!(input, Input::Performed { .. }) && !self.world.calm {
            self.disk_may_fill();
        }
        self.feed(input)?;
        if self.engine.state().seq != seq {
            self.plan_all();
        } else if let Some(check) = check {
            self.plan(check);
        }
        Ok(())
    }

    /// Plans the next probe of every configured check.
    pub(crate) fn plan_all(&mut self) {
        let services = &self.engine.state().services;
        let checks: Vec<_> = services.iter().flat_map(|service| service.checks.iter().copied()).collect();
        for check in checks {
            self.plan(check);
        }
    }

    fn plan(&mut self, check: CheckId) {
        let plan = self.engine.probe_plan(check, self.now);
        let probing = self.probing.entry(check).or_insert(Probing { last: self.now, ..Probing::default() });
        probing.plan += 1;
        let at = (probing.last + plan.after).max(self.now);
        let what = Happening::Probe { epoch: self.epoch, check, plan: probing.plan };
        self.schedule.at(at, what);
    }

    /// Starts a probe, unless enough are under way; then the next answer plans anew.
    pub(crate) fn probe(&mut self, check: CheckId, at_once: bool) {
        let state = self.engine.state();
        let Some(spec) = state.check_spec(check) else { return };
        let Some(real) = self.real(state.checks[check.index()].service) else { return };
        let (kind, timeout) = (spec.kind.clone(), spec.timeout);
        let plan = self.engine.probe_plan(check, self.now);
        let probing = self.probing.entry(check).or_default();
        if !at_once && probing.under_way > plan.hedges {
            return;
        }
        probing.under_way += 1;
        probing.last = self.now;
        let (takes, outcome) = self.world.probe(real, &kind, timeout, self.now);
        let input = Input::Probed { check, began: self.now, outcome };
        self.answer_at(self.now + takes, input);
        self.plan(check);
    }
}
