//! What must hold all along? The checker follows the journal by itself and trusts nothing that the engine counts.
//!
//! The numbers in its messages say which it is: 1 effects after events, 2 value once, 3 replay,
//! 4 one instance, 5 budgets, 6 heals keyed to incidents, 7 never for our own trouble, 8 nothing owed is lost,
//! 9 everything mends once faults stop, 10 reports add up, 11 the same seed gives the same journal (a test).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lidless_core::check::CheckOutcome;
use lidless_core::effect::{Command, Input};
use lidless_core::engine::{MARK_EVERY, MARK_SLACK};
use lidless_core::event::{Confirmation, Event, Notice, Outcome, Record};
use lidless_core::health::Health;
use lidless_core::id::{CheckId, IncidentId, RunId, ServiceId};
use lidless_core::pipeline::plan::Purpose;
use lidless_core::report::Report;
use lidless_core::spec::{Budget, HealSpec, Spec};
use lidless_core::state::State;

use crate::adoption::Adoption;
use crate::world::World;

/// What an input said, as far as invariants ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    /// A probe of this check found it failing, for certain or not.
    Failing {
        check: CheckId,
        certain: bool,
    },
    /// A person asks for a restart.
    Asked {
        force: bool,
    },
    Other,
}

impl Said {
    pub(crate) fn of(input: &Input) -> Said {
        match input {
            Input::Probed { check, outcome: CheckOutcome::Fail { failure, .. }, .. } => {
                Said::Failing { check: *check, certain: failure.certain }
            }
            Input::Command(Command::Restart { force, .. }) => Said::Asked { force: *force },
            Input::Probed { .. }
            | Input::Started { .. }
            | Input::ConfigLoaded(_)
            | Input::Performed { .. }
            | Input::Confirmed { .. }
            | Input::Delivered { .. }
            | Input::Handle { .. }
            | Input::Ending
            | Input::OrdersOnly
            | Input::Weighed { .. }
            | Input::Command(
                Command::Run { .. }
                | Command::Miss { .. }
                | Command::Approve { .. }
                | Command::Resume { .. }
                | Command::Cancel { .. }
                | Command::Resolve { .. },
            )
            | Input::StoreFailed { .. }
            | Input::StoreMended
            | Input::Tick
            | Input::Stopping { .. } => Said::Other,
        }
    }
}

/// A heal that counts in the budgets.
#[derive(Clone, Copy, Debug)]
struct Heal {
    service: ServiceId,
    run: RunId,
    at: Duration,
    /// Still counted under the service's present budget, and under the host's.
    counts: bool,
    counts_host: bool,
}

/// A budget without room.
struct Spent {
    count: usize,
    budget: Budget,
    /// The service's own, not the host's.
    own: bool,
}

impl std::fmt::Display for Spent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whose = if self.own { "service" } else { "host" };
        write!(f, "heal {} of {} within the window of the {whose}", self.count + 1, self.budget.attempts)
    }
}

/// The checker.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    spec: Arc<Spec>,
    ids: Vec<ServiceId>,
    /// The boot of the machine: what was given up in another is tried anew.
    boot_id: String,
    heals: Vec<Heal>,
    /// Runs under way about a service, and whether they are heals.
    runs: BTreeMap<RunId, (ServiceId, bool)>,
    /// Acts on a service that were lost, one after the other.
    lost: BTreeMap<ServiceId, u32>,
    /// The service of each open incident.
    incidents: BTreeMap<IncidentId, ServiceId>,
    /// Incidents somebody was told of.
    told: BTreeSet<IncidentId>,
    /// Services that were given up: the next slow try, and the last one.
    given_up: BTreeMap<ServiceId, (Duration, Option<Duration>)>,
    /// Failing answers handed over since the check was last well.
    fails: BTreeMap<CheckId, u32>,
    /// Steps that may go on without lidless.
    adoption: Adoption,
}

impl Checker {
    /// Judges a turn whose events are durable or kept for later.
    pub(crate) fn turn(&mut self, said: Said, state: &State, events: &[Record]) -> Result<(), String> {
        if let Said::Failing { check, .. } = said {
            *self.fails.entry(check).or_default() += 1;
        }
        for record in events {
            self.judge(said, state, events, record)?;
            self.adoption.take(record)?;
            self.note(record);
        }
        Ok(())
    }

    fn judge(&self, said: Said, state: &State, events: &[Record], record: &Record) -> Result<(), String> {
        match &record.event {
            Event::IncidentOpened { check, service, .. } => {
                let Said::Failing { check: asked, certain } = said else {
                    return Err(format!("(7) an incident of {service} was opened without a failing answer"));
                };
                let wanted = state.check_spec(*check).map_or(1, |spec| spec.fail_after);
                let seen = self.fails.get(check).copied().unwrap_or_default();
                if asked != *check || (!certain && seen < wanted) {
                    return Err(format!("(7) {check} is down after {seen} of {wanted} failing answers"));
                }
            }
            Event::RunCreated { run, purpose: Purpose::Heal { service, incident }, .. } => {
                self.judge_heal(said, state, (*run, *service, *incident), record.at.monotonic)?;
                let begun = events.iter().any(
                    |record| matches!(&record.event, Event::StepIntent { run: of, step: 0, .. } if of == run),
                );
                if !begun {
                    return Err(format!(
                        "(6) {run} was created, but not begun in the turn that saw the failure"
                    ));
                }
            }
            Event::RunCreated { run, purpose: Purpose::Manual { service, .. }, .. } => {
                let Said::Asked { force } = said else {
                    return Err(format!("(6) {run} restarts {service} by hand, and nobody asked for it"));
                };
                if !force && let Some(spent) = self.spent(*service, record.at.monotonic) {
                    return Err(format!("(5) {run} was asked for without force, and is {spent}"));
                }
            }
            Event::GaveUp { incident, retry_at, .. } => {
                let heal = self.incidents.get(incident).and_then(|service| self.heal_spec(*service));
                let wanted = record.at.monotonic + heal.map(|heal| heal.retry_after).unwrap_or_default();
                if *retry_at < wanted {
                    return Err(format!("(5) {incident} was given up, but is tried again too early"));
                }
            }
            Event::IncidentClosed { incident, .. } if self.told.contains(incident) => {
                let resolved = events.iter().any(|record| {
                    matches!(&record.event,
                        Event::NoticeOwed { what: Notice::Resolved { incident: of, .. }, .. } if of == incident)
                });
                if !resolved {
                    return Err(format!("(8) {incident} was told of, and nobody is told that it is over"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn judge_heal(
        &self,
        said: Said,
        state: &State,
        (run, service, incident): (RunId, ServiceId, IncidentId),
        now: Duration,
    ) -> Result<(), String> {
        let Said::Failing { check, .. } = said else {
            return Err(format!("(6) {run} heals {service}, but no failing answer was at hand"));
        };
        if !state.services[service.index()].checks.contains(&check) {
            return Err(format!("(6) {run} heals {service} because {check} of another service fails"));
        }
        let open = self.incidents.get(&incident).is_some_and(|of| *of == service);
        if !open && !state.incidents.contains_key(&incident) {
            return Err(format!("(6) {run} is keyed to {incident}, which is not open"));
        }
        let Some(heal) = self.heal_spec(service) else {
            return Err(format!("(5) {run} heals {service}, which has no heal"));
        };
        if let Some((retry_at, last)) = self.given_up.get(&service) {
            let too_early = now < *retry_at || last.is_some_and(|last| now < last + heal.retry_after);
            if too_early {
                return Err(format!("(5) {run} is a slow try before its time"));
            }
        }
        match self.spent(service, now) {
            Some(spent) if !(spent.own && self.given_up.contains_key(&service)) => {
                Err(format!("(5) {run} is {spent}"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Says which budget has no room for one more heal of a service; the host's counts for slow tries too.
    fn spent(&self, service: ServiceId, now: Duration) -> Option<Spent> {
        let within = |per: Duration, one: &&Heal| now.saturating_sub(one.at) < per;
        let over = |count: usize, budget: Budget, own: bool| {
            (count as u64 >= u64::from(budget.attempts)).then_some(Spent { count, budget, own })
        };
        let host = self.spec.host_budget.and_then(|host| {
            let count = self.heals.iter().filter(|one| one.counts_host && within(host.per, one)).count();
            over(count, host, false)
        });
        host.or_else(|| {
            let own = self.heal_spec(service)?.budget;
            let mine = self.heals.iter().filter(|one| one.service == service && one.counts);
            over(mine.filter(|one| within(own.per, one)).count(), own, true)
        })
    }

    /// Follows one record.
    fn note(&mut self, record: &Record) {
        match &record.event {
            Event::Started { boot, .. } => {
                let boot_id = boot.split_once('+').map_or(boot.as_str(), |(id, _)| id);
                if self.boot_id != boot_id {
                    self.boot_id = boot_id.to_owned();
                    self.given_up.clear();
                }
            }
            Event::ConfigApplied { spec, services, .. } => self.configured(spec, services),
            Event::HealthChanged { check, to: Health::Up | Health::Unknown, .. } => {
                self.fails.remove(check);
            }
            Event::IncidentOpened { incident, service, .. } => {
                self.incidents.insert(*incident, *service);
            }
            Event::IncidentClosed { incident, .. } => {
                if let Some(service) = self.incidents.remove(incident) {
                    self.given_up.remove(&service);
                }
            }
            Event::GaveUp { incident, retry_at, .. } => {
                if let Some(service) = self.incidents.get(incident) {
                    self.given_up.entry(*service).or_insert((Duration::ZERO, None)).0 = *retry_at;
                }
            }
            Event::RunCreated { run, purpose, .. } => {
                let at = record.at.monotonic;
                let Some(service) = purpose.service() else { return };
                let heal = matches!(purpose, Purpose::Heal { .. });
                self.runs.insert(*run, (service, heal));
                if let Some((_, last)) = self.given_up.get_mut(&service).filter(|_| heal) {
                    *last = Some(at);
                }
                if heal || matches!(purpose, Purpose::Manual { .. }) {
                    self.heals.push(Heal { service, run: *run, at, counts: true, counts_host: true });
                }
            }
            Event::StepOutcome { run, outcome: Outcome::Unavailable { .. }, .. } => {
                self.lost_in_a_row(*run);
                self.take_back(*run);
            }
            Event::StepConfirmed { run, answer: Confirmation::NotApplied { .. }, .. } => {
                let by_hand = self.runs.get(run).is_none_or(|(_, heal)| !heal);
                if !by_hand && self.lost_in_a_row(*run) == 1 {
                    self.take_back(*run);
                }
            }
            Event::StepOutcome { run, outcome: Outcome::Applied { .. } | Outcome::Found { .. }, .. }
            | Event::StepConfirmed { run, answer: Confirmation::Applied { .. }, .. } => {
                if let Some((service, _)) = self.runs.get(run) {
                    self.lost.remove(service);
                }
            }
            Event::RunFinished { run, .. } => {
                self.runs.remove(run);
            }
            Event::NoticeOwed { what, .. } => self.told.extend(what.incident()),
            _ => {}
        }
    }

    /// Counts the acts on a run's service that were lost one after the other.
    fn lost_in_a_row(&mut self, run: RunId) -> u32 {
        let Some((service, _)) = self.runs.get(&run) else { return 0 };
        let lost = self.lost.entry(*service).or_default();
        *lost += 1;
        *lost
    }

    fn take_back(&mut self, run: RunId) {
        if let Some(at) = self.heals.iter().position(|heal| heal.run == run) {
            let heal = self.heals.remove(at);
            if let Some((_, last)) = self.given_up.get_mut(&heal.service) {
                *last = None;
            }
        }
    }

    /// A budget that changed counts from now on.
    fn configured(&mut self, spec: &Arc<Spec>, ids: &[ServiceId]) {
        let old = std::mem::replace(&mut self.spec, Arc::clone(spec));
        let old_ids = std::mem::replace(&mut self.ids, ids.to_vec());
        let heal_of = |spec: &Spec, ids: &[ServiceId], id: ServiceId| {
            let at = ids.iter().position(|known| *known == id)?;
            spec.services.get(at)?.heal.clone()
        };
        for heal in &mut self.heals {
            let before = heal_of(&old, &old_ids, heal.service);
            let changed = before != heal_of(spec, ids, heal.service);
            heal.counts &= !changed;
            heal.counts_host &= old.host_budget == spec.host_budget;
            if changed && let Some((_, last)) = self.given_up.get_mut(&heal.service) {
                *last = None;
            }
        }
    }

    fn heal_spec(&self, id: ServiceId) -> Option<&HealSpec> {
        let at = self.ids.iter().position(|known| *known == id)?;
        self.spec.services.get(at)?.heal.as_ref()
    }

    /// Forgets what a crash took: only what is durable is followed.
    pub(crate) fn crashed(&mut self, durable: &[Record]) {
        let handed = std::mem::take(&mut self.fails);
        *self = Checker::default();
        for record in durable {
            self.note(record);
            drop(self.adoption.take(record));
            // What made the count start again may be lost as well: the durable count stands.
            if let Event::HealthChanged { check, to: Health::Suspect { fails }, .. } = &record.event {
                self.fails.insert(*check, *fails);
            }
        }
        for (check, fails) in handed {
            let known = self.fails.entry(check).or_default();
            *known = fails.max(*known);
        }
    }
}

/// Judges the end: nothing that was owed is lost, and the report adds up.
pub(crate) fn at_the_end(
    durable: &[Record],
    state: &State,
    world: &World,
    absences: &[(Duration, Duration)],
) -> Result<(), String> {
    let mut report = Report::default();
    let mut first = Vec::new();
    for record in durable {
        report.apply(record).map_err(|err| format!("(10) the report cannot follow: {err}"))?;
        first.resize(report.state().services.len(), record.at.monotonic);
        if let Event::NoticeOwed { notice, what } = &record.event {
            let key = (notice.0, format!("{what:?}"));
            if !world.taken.contains(&key) {
                return Err(format!("(8) {notice} was never delivered: {what:?}"));
            }
        }
    }
    if report.state() != state {
        return Err("(3) the journal, replayed, is not the engine's state".to_owned());
    }
    for (index, since) in first.into_iter().enumerate() {
        let Ok(id) = u32::try_from(index).map(ServiceId) else { continue };
        let sums = report.uptime(id, state.at);
        let (sum, elapsed) =
            (sums.up + sums.down + sums.unmeasured, state.at.monotonic.saturating_sub(since));
        if sum != elapsed {
            return Err(format!("(10) {id}: {sums:?} adds up to {sum:?}, not to {elapsed:?}"));
        }
        // A sleep is noticed by the mark that was missed.
        let end = state.at.monotonic;
        let unseen = absences.iter().map(|(from, to)| (*to).min(end).saturating_sub((*from).max(since)));
        let unseen: Duration = unseen.map(|time| time.saturating_sub(MARK_EVERY + MARK_SLACK)).sum();
        if sums.unmeasured < unseen {
            return Err(format!("(10) {id}: {sums:?}, but for {unseen:?} nobody looked"));
        }
    }
    Ok(())
}
