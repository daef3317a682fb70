//! What did it come to? A report is a fold of the journal: up, down, and time that nobody measured, told apart.
//!
//! Downtime begins at the first failing answer of the row that led to `Down`, for that is when users felt it.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::apply::IllegalEvent;
use crate::engine::{MARK_EVERY, MARK_SLACK};
use crate::event::{Confirmation, Event, Outcome, Record, Verdict};
use crate::health::Health;
use crate::id::{CheckId, RunId, ServiceId};
use crate::pipeline::drive::LEFT;
use crate::pipeline::plan::Purpose;
use crate::state::State;
use crate::time::{Now, micros};

/// How the time of one service was spent. The three add up to the time since the service was first configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Uptime {
    /// All checks were well.
    #[serde(rename = "up_us", with = "micros")]
    pub up: Duration,
    /// At least one check was down, from its first sign to its verified recovery.
    #[serde(rename = "down_us", with = "micros")]
    pub down: Duration,
    /// lidless was not running, or could not ask: neither up nor down.
    #[serde(rename = "unmeasured_us", with = "micros")]
    pub unmeasured: Duration,
    /// Incidents begun.
    pub incidents: u32,
    /// Heals that were verified.
    pub healed: u32,
    /// Heals that were not.
    pub heals_failed: u32,
    /// What people did by hand.
    pub interventions: u32,
}

impl Uptime {
    /// The share of measured time that was up, in parts per million; none if nothing was measured.
    pub fn up_ppm(&self) -> Option<u32> {
        let measured = (self.up + self.down).as_micros();
        if measured == 0 {
            return None;
        }
        u32::try_from(self.up.as_micros() * 1_000_000 / measured).ok()
    }
}

/// The fold itself: feed it every record in order, then ask.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    state: State,
    services: Vec<Tally>,
    /// Heals under way whose last answer says that nothing was done, or that nobody could judge what was.
    void: BTreeSet<RunId>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Tally {
    /// Up to here the time is accounted for; none before the service was configured.
    #[serde(default, with = "crate::time::micros_opt")]
    until: Option<Duration>,
    /// Measured as up since the first sign of trouble, and down if the trouble proves real.
    #[serde(with = "micros")]
    in_question: Duration,
    sums: Uptime,
}

/// What a stretch of time counts as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counts {
    Up,
    InQuestion,
    Down,
    Unmeasured,
}

impl Report {
    /// Takes the next record.
    pub fn apply(&mut self, record: &Record) -> Result<(), IllegalEvent> {
        let crashed = self.state.running && matches!(record.event, Event::Started { .. });
        for index in 0..self.services.len() {
            // After a crash the last record is the last that is known; what followed it was seen by nobody.
            if crashed {
                self.pass(index, record.at.monotonic, Counts::Unmeasured);
            } else {
                self.watched(index, record.at.monotonic, self.counts(index));
            }
        }
        let run = match &record.event {
            Event::RunFinished { run, .. } => {
                let purpose = self.state.runs.get(run).map(|run| run.purpose.clone());
                purpose.filter(|_| !self.void.remove(run))
            }
            Event::StepOutcome { run, outcome, .. } => {
                self.void(*run, matches!(outcome, Outcome::Unavailable { .. } | Outcome::Unknown { .. }));
                None
            }
            Event::StepConfirmed { run, answer: Confirmation::NotApplied { .. }, .. } => {
                self.void(*run, true);
                None
            }
            Event::StepConfirmed { run, answer: Confirmation::Applied { .. }, .. } => {
                self.void(*run, false);
                None
            }
            _ => None,
        };
        self.state.apply(record)?;
        if self.services.len() < self.state.services.len() {
            let fresh = Tally { until: Some(record.at.monotonic), ..Tally::default() };
            self.services.resize(self.state.services.len(), fresh);
        }
        self.count(record, run);
        Ok(())
    }

    /// Returns the sums of a service as of `now`, or as of the last record if lidless was not running then.
    pub fn uptime(&self, service: ServiceId, now: Now) -> Uptime {
        let mut copy = Report { services: self.services.clone(), ..Report::default() };
        let Some(counts) = self.services.get(service.index()).map(|_| self.counts(service.index())) else {
            return Uptime::default();
        };
        copy.watched(service.index(), now.monotonic, counts);
        let tally = copy.services[service.index()];
        let mut sums = tally.sums;
        // Trouble that is neither proved nor refuted yet: so far nobody may call it down.
        sums.up += tally.in_question;
        sums
    }

    /// The state that the records add up to.
    pub fn state(&self) -> &State {
        &self.state
    }

    fn counts(&self, index: usize) -> Counts {
        let service = &self.state.services[index];
        if !self.state.running || service.index.is_none() {
            return Counts::Unmeasured;
        }
        let health = |check: &CheckId| self.state.checks[check.index()].health;
        if service.checks.iter().any(|check| health(check).is_down()) {
            Counts::Down
        } else if service.checks.is_empty()
            || service.checks.iter().any(|check| health(check) == Health::Unknown)
        {
            Counts::Unmeasured
        } else if service.checks.iter().any(|check| matches!(health(check), Health::Suspect { .. })) {
            Counts::InQuestion
        } else {
            Counts::Up
        }
    }

    /// Accounts for time in which lidless ran. While it does, a record follows the last one within `MARK_EVERY`: where none
    /// did, the machine slept or lidless was stopped, and nobody looked.
    fn watched(&mut self, index: usize, to: Duration, counts: Counts) {
        let until = self.services[index].until.unwrap_or(to);
        if to > until + MARK_EVERY + MARK_SLACK {
            self.pass(index, until + MARK_EVERY, counts);
            self.pass(index, to, Counts::Unmeasured);
        } else {
            self.pass(index, to, counts);
        }
    }

    fn pass(&mut self, index: usize, to: Duration, counts: Counts) {
        let tally = &mut self.services[index];
        let Some(until) = tally.until else { return };
        let stretch = to.saturating_sub(until);
        tally.until = Some(until.max(to));
        if counts != Counts::InQuestion {
            let doubtful = std::mem::take(&mut tally.in_question);
            match counts {
                Counts::Down => tally.sums.down += doubtful,
                Counts::Up | Counts::Unmeasured | Counts::InQuestion => tally.sums.up += doubtful,
            }
        }
        match counts {
            Counts::Up => tally.sums.up += stretch,
            Counts::InQuestion => tally.in_question += stretch,
            Counts::Down => tally.sums.down += stretch,
            Counts::Unmeasured => tally.sums.unmeasured += stretch,
        }
    }

    fn void(&mut self, run: RunId, void: bool) {
        if void {
            self.void.insert(run);
        } else {
            self.void.remove(&run);
        }
    }

    fn count(&mut self, record: &Record, finished: Option<Purpose>) {
        let mut bump = |service: ServiceId, change: fn(&mut Uptime)| {
            if let Some(tally) = self.services.get_mut(service.index()) {
                change(&mut tally.sums);
            }
        };
        match (&record.event, finished) {
            (Event::IncidentOpened { service, .. }, _) => bump(*service, |sums| sums.incidents += 1),
            (Event::Intervention { service, .. }, _) => bump(*service, |sums| sums.interventions += 1),
            (Event::RunFinished { verdict: Verdict::Done, .. }, Some(Purpose::Heal { service, .. })) => {
                bump(service, |sums| sums.healed += 1);
            }
            (
                Event::RunFinished { verdict: Verdict::Failed { reason, .. }, .. },
                Some(Purpose::Heal { service, .. }),
            ) if reason != LEFT => {
                bump(service, |sums| sums.heals_failed += 1);
            }
            _ => {}
        }
    }
}
