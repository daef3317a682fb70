//! Which moments of the pipelines' calendars have come? Looked for beside the dispatcher, by the wall clock, wherever it jumps.
//!
//! A moment is over once the journal says so (`State::schedules`): one that a clock set back brings again begins nothing, and
//! what a clock set forward, a sleep or a crash has left out is caught up as its `catch_up` says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lidless_core::effect::{Command, Input, Reply};
use lidless_core::state::State;
use lidless_core::trigger::{CatchUp, Due, Trigger};

use super::clock::Clock;
use super::dispatcher::Daemon;
use super::effects::Done;
use super::status::rfc3339;
use crate::schedule::Moments;

/// So often at least we look at the wall clock: it may have been set.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// A moment that is later than this was missed.
const LATE_MS: i64 = 60_000;
/// No more missed moments than this are caught up at once; those before them are gone.
const CATCH_UP_MAX: usize = 1_000;
/// No more runs of a pipeline than this wait, where every moment has its run.
const WAITING_MAX: usize = 2_000;
/// So many moments of a calendar are looked at in one go.
const READ_MAX: usize = 100_000;
/// So many orders are given in one go, so that probes have their turn between them.
const ORDERS_MAX: usize = 100;
/// A clock that is this much behind a moment that is over was wrong then: it would be silent until that comes again.
const SET_RIGHT_MS: i64 = 3 * 3_600_000;

/// What is known of calendars besides the journal.
#[derive(Debug, Default)]
pub(super) struct Calendar {
    /// By expression and zone.
    read: BTreeMap<(String, String), Option<Moments>>,
    /// By pipeline whose clock was set right: how far it has come since.
    set_right: BTreeMap<String, i64>,
}

/// What was found: orders to be given, perhaps none.
#[derive(Debug)]
pub(super) struct Looked {
    calendar: Calendar,
    orders: Vec<Order>,
}

/// What becomes of a moment; of several that are missed, the last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Order {
    pipeline: String,
    at_ms: i64,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Run { by: String },
    Miss { count: u64, why: &'static str },
}

/// A pipeline with a calendar, as the engine knows it.
#[derive(Clone, Debug)]
struct Page {
    pipeline: String,
    /// The last moment that is over.
    last_ms: i64,
    /// How many of its runs are not over, and how many may be under way at once.
    unfinished: usize,
    at_once: usize,
    crons: Vec<Cron>,
}

#[derive(Clone, Debug)]
struct Cron {
    expression: String,
    zone: String,
    catch_up: CatchUp,
}

impl Daemon {
    /// Begins to look, unless there is no calendar, or somebody looks already.
    pub(super) fn look_at_calendar(&mut self) {
        let pages = pages(self.engine.state());
        if !pages.is_empty()
            && let Some(calendar) = self.calendar.take()
        {
            self.tasks.spawn(look(calendar, pages, self.clock.clone()));
        }
    }

    /// Gives the orders, and looks on.
    pub(super) fn fire(&mut self, looked: Looked) {
        self.calendar = Some(looked.calendar);
        for Order { pipeline, at_ms, what } in looked.orders {
            let due = Due::Cron(at_ms);
            let miss = |count, why| Command::Miss { pipeline: pipeline.clone(), due, count, why };
            match what {
                What::Miss { count, why } => drop(self.turn(Input::Command(miss(count, why.to_owned())))),
                What::Run { by } => {
                    let before = self.engine.state().seq;
                    let run = Command::Run {
                        pipeline: pipeline.clone(),
                        by,
                        inputs: String::new(),
                        from: None,
                        key: Some(format!("cron {}", rfc3339(at_ms))),
                        due: Some(due),
                        wait: true,
                    };
                    let reply = self.turn(Input::Command(run));
                    // What begins nothing leaves no trace, and would be looked at for ever.
                    if self.engine.state().seq == before {
                        let why = match reply {
                            Some(Reply::Started(run)) => format!("{run} was begun for it already"),
                            Some(Reply::Noted | Reply::Refused(_)) | None => "it cannot be begun".to_owned(),
                        };
                        self.turn(Input::Command(miss(1, why)));
                    }
                }
            }
        }
        self.look_at_calendar();
    }
}

/// The pipelines with a calendar.
fn pages(state: &State) -> Vec<Page> {
    let pages = state.spec.pipelines.iter().filter_map(|spec| {
        let crons = spec.triggers.iter().filter_map(|trigger| match trigger {
            Trigger::Cron { expression, zone, catch_up } => {
                Some(Cron { expression: expression.clone(), zone: zone.clone(), catch_up: *catch_up })
            }
            Trigger::Every { .. } | Trigger::Incident { .. } | Trigger::Run { .. } => None,
        });
        let crons: Vec<Cron> = crons.collect();
        let last_ms = state.schedules.get(&spec.name)?.cron_ms.filter(|_| !crons.is_empty())?;
        let runs = state.runs.values().filter(|run| run.purpose.pipeline() == Some(spec.name.as_str()));
        let (unfinished, at_once) = (runs.count(), spec.at_once());
        Some(Page { pipeline: spec.name.clone(), last_ms, unfinished, at_once, crons })
    });
    pages.collect()
}

/// Waits until something is due, but not for long: then everything is looked at anew.
async fn look(mut calendar: Calendar, pages: Vec<Page>, clock: Clock) -> Done {
    let began = Instant::now();
    let pages = std::sync::Arc::new(pages);
    loop {
        let (known, now_ms) = (std::sync::Arc::clone(&pages), clock.now().wall_ms);
        // Where moments are many and rare this takes its time, and nobody's probe is to wait for it.
        let looking = tokio::task::spawn_blocking(move || {
            let orders = calendar.due(&known, now_ms);
            let next = if orders.is_empty() { calendar.next(&known, now_ms) } else { None };
            (calendar, orders, next)
        });
        let (looked, orders, next) = match looking.await {
            Ok(looked) => looked,
            Err(err) => {
                tracing::error!(error = %err, "A calendar could not be read; this is a bug in lidless.");
                tokio::time::sleep(LOOK_EVERY).await;
                (Calendar::default(), Vec::new(), None)
            }
        };
        calendar = looked;
        let left = LOOK_EVERY.saturating_sub(began.elapsed());
        if !orders.is_empty() || left.is_zero() {
            return Done::Calendar(Looked { calendar, orders });
        }
        let until = next.map_or(LOOK_EVERY, |next| {
            Duration::from_millis(u64::try_from(next.saturating_sub(clock.now().wall_ms)).unwrap_or(0))
        });
        tokio::time::sleep(until.min(left)).await;
    }
}

impl Calendar {
    /// Returns what has come, of each pipeline in order.
    fn due(&mut self, pages: &[Page], now_ms: i64) -> Vec<Order> {
        let mut orders = Vec::new();
        for page in pages {
            let room = ORDERS_MAX - orders.len();
            let mut of_page = self.of_page(page, now_ms);
            of_page.truncate(room);
            if let (Some(last), Some(come)) = (of_page.last(), self.set_right.get_mut(&page.pipeline)) {
                *come = last.at_ms;
            }
            orders.append(&mut of_page);
            if orders.len() >= ORDERS_MAX {
                break;
            }
        }
        orders
    }

    /// Returns when something comes next.
    fn next(&mut self, pages: &[Page], now_ms: i64) -> Option<i64> {
        let mut next = None;
        for page in pages {
            let from = self.from(page, now_ms).max(now_ms);
            let of_page = page.crons.iter().filter_map(|cron| self.moments(cron)?.after(from));
            next = of_page.chain(next).min();
        }
        next
    }

    /// Where a pipeline's calendar goes on.
    fn from(&mut self, page: &Page, now_ms: i64) -> i64 {
        if page.last_ms <= now_ms.saturating_add(SET_RIGHT_MS) {
            self.set_right.remove(&page.pipeline);
            return page.last_ms;
        }
        *self.set_right.entry(page.pipeline.clone()).or_insert_with(|| {
            let (pipeline, last) = (&page.pipeline, rfc3339(page.last_ms));
            tracing::warn!(%pipeline, %last, "The clock was set back; the calendar goes on from now.");
            now_ms
        })
    }

    fn moments(&mut self, cron: &Cron) -> Option<&Moments> {
        let of = (cron.expression.clone(), cron.zone.clone());
        let read = self.read.entry(of).or_insert_with(|| {
            let moments = Moments::of(&cron.expression, &cron.zone);
            if moments.is_none() {
                let Cron { expression, zone, .. } = cron;
                tracing::error!(%expression, %zone, "No run begins by this: the machine knows no such zone.");
            }
            moments
        });
        read.as_ref()
    }

    fn of_page(&mut self, page: &Page, now_ms: i64) -> Vec<Order> {
        let from = self.from(page, now_ms);
        let (mut upto, mut cut) = (now_ms, false);
        let mut come: Vec<(&Cron, Vec<i64>)> = Vec::new();
        for cron in &page.crons {
            let Some(moments) = self.moments(cron) else { continue };
            let after = std::iter::successors(moments.after(from), |last| moments.after(*last));
            let some: Vec<i64> = after.take_while(|at| *at <= upto).take(READ_MAX).collect();
            if let (READ_MAX, Some(last)) = (some.len(), some.last()) {
                (upto, cut) = (*last, true);
            }
            come.push((cron, some));
        }
        // One moment of two expressions is one run, if either wants it.
        let mut fates: BTreeMap<i64, What> = BTreeMap::new();
        for (cron, mut moments) in come {
            moments.retain(|at| *at <= upto);
            let late = moments.partition_point(|at| now_ms - at > LATE_MS);
            let (caught_up, why) = match cron.catch_up {
                // There are more, and newer ones.
                _ if cut => (0, "there were too many"),
                CatchUp::None => (0, "lidless was not there, and nothing is caught up"),
                CatchUp::One => (late.min(1), "lidless was not there, and one run makes up for them"),
                CatchUp::All => (late.min(CATCH_UP_MAX), "lidless was not there, and there were too many"),
            };
            for (index, at_ms) in moments.into_iter().enumerate() {
                if index + caught_up >= late {
                    fates.insert(at_ms, What::Run { by: format!("cron {}", cron.expression) });
                } else {
                    fates.entry(at_ms).or_insert(What::Miss { count: 1, why });
                }
            }
        }
        let all = page.crons.iter().any(|cron| cron.catch_up == CatchUp::All);
        let waiting = if all { WAITING_MAX } else { 1 };
        let room = (page.at_once + waiting).saturating_sub(page.unfinished);
        in_order(&page.pipeline, fates, room)
    }
}

/// Returns the orders by which fates come true: what is missed in a row is one.
fn in_order(pipeline: &str, fates: BTreeMap<i64, What>, mut room: usize) -> Vec<Order> {
    let mut orders: Vec<Order> = Vec::new();
    for (at_ms, fate) in fates {
        let what = match fate {
            What::Run { .. } if room == 0 => What::Miss { count: 1, why: "a run waits for its turn already" },
            What::Run { by } => {
                room -= 1;
                What::Run { by }
            }
            What::Miss { count, why } => What::Miss { count, why },
        };
        match (orders.last_mut(), &what) {
            (
                Some(Order { at_ms: last, what: What::Miss { count, why }, .. }),
                What::Miss { why: same, .. },
            ) if why == same => {
                (*last, *count) = (at_ms, *count + 1);
            }
            _ => orders.push(Order { pipeline: pipeline.to_owned(), at_ms, what }),
        }
    }
    orders
}

#[cfg(test)]
mod tests;
