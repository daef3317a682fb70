//! When is which check probed? A heap of due times; no herd, no overlap, no drift.
//!
//! A check whose probe is slow delays no other check: probes run beside each other, and of one check only one at a time,
//! save the hedges that confirm a hang and the fresh probes that judge an act.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use lidless_core::effect::ProbePlan;
use lidless_core::id::CheckId;

/// No more probes of one check at once than this, whatever is asked.
const IN_FLIGHT_MAX: u32 = 4;
/// Due times lie on a grid of so many points an interval.
const GRID: u128 = 200;
/// So long after its deadline a probe that has not ended is given up; drivers keep their deadlines, so that would be a bug.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// Each probe earns so much of a hedge.
const HEDGE_SHARE: f64 = 0.1;
/// Hedges that may be saved up.
const HEDGE_CREDIT_MAX: f64 = 50.0;
/// First probes are spread at this rate, up to one interval.
const START_SPREAD: Duration = Duration::from_micros(200);

/// A probe to be started now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Launch {
    pub(super) check: CheckId,
    /// It ends by then.
    pub(super) timeout: Duration,
    /// The probe that it confirms, if it is a hedge.
    pub(super) hedge: Option<u32>,
}

/// How the probe that a hedge confirms stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Confirmed {
    /// It has not ended yet.
    #[default]
    Open,
    /// It found the target well, or nobody knows: the hedge, which had less time, says nothing against that.
    Void,
    /// It failed: the hedge's failure counts beside it.
    Failed,
}

/// All due times.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    slots: Vec<Slot>,
    heap: BinaryHeap<Reverse<Due>>,
    /// What hedges may still be started. Where everything is slow it is we who are overloaded, and hedging would feed that.
    hedge_credit: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    live: bool,
    /// Only the heap entry with this number counts; older ones are void.
    ticket: u32,
    /// When a fresh probe is wanted, even beside one in flight.
    forced: Option<Duration>,
    /// The next probe is due but one is in flight.
    overdue: bool,
    in_flight: u32,
    /// The due time of the last probe that was not a hedge.
    last_due: Duration,
    /// When the last probe that was not a hedge must have ended.
    deadline: Duration,
    hedges: u32,
    hedge_ticket: u32,
    /// The number of the last probe that was not a hedge, and how it stands.
    group: u32,
    confirmed: Confirmed,
    /// Whether the regular probes were spread over the interval, once, after the first.
    spread: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Duration,
    check: CheckId,
    why: Why,
    ticket: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    Interval,
    Hedge,
    Forced,
}

impl Scheduler {
    /// Takes over the set of checks to probe. Those that stay keep their times.
    pub(super) fn sync(&mut self, checks: impl ExactSizeIterator<Item = (CheckId, Duration)>, now: Duration) {
        self.hedge_credit = HEDGE_CREDIT_MAX;
        for slot in &mut self.slots {
            slot.live = false;
        }
        let count = u32::try_from(checks.len()).unwrap_or(u32::MAX);
        for (check, every) in checks {
            if check.index() >= self.slots.len() {
                self.slots.resize_with(check.index() + 1, Slot::default);
            }
            let slot = &mut self.slots[check.index()];
            slot.live = true;
            if slot.ticket == 0 {
                let spread = every.min(START_SPREAD.saturating_mul(count));
                // One alone has no neighbour to be spread from.
                slot.spread = spread > every / 2 || count == 1;
                self.set(check, now + spread.mul_f64(fraction(check)));
            }
        }
    }

    /// Returns the earliest due time.
    pub(super) fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse(due)| due.at)
    }

    /// Collects the probes that are due.
    pub(super) fn due(&mut self, now: Duration, plan: impl Fn(CheckId) -> ProbePlan, out: &mut Vec<Launch>) {
        while let Some(Reverse(due)) = self.heap.peek().copied() {
            if due.at > now {
                break;
            }
            self.heap.pop();
            let slot = &mut self.slots[due.check.index()];
            if !slot.live {
                continue;
            }
            let room = slot.in_flight < IN_FLIGHT_MAX;
            match due.why {
                Why::Hedge => {
                    if due.ticket == slot.hedge_ticket && slot.in_flight > 0 && room {
                        self.hedge(due.check, now, out);
                    }
                    continue;
                }
                Why::Forced if slot.forced != Some(due.at) => continue,
                Why::Interval if due.ticket != slot.ticket => continue,
                Why::Forced => slot.forced = None,
                Why::Interval => {}
            }
            if slot.in_flight > 0 && now > slot.deadline + LOST_AFTER {
                slot.in_flight = 0;
            }
            if slot.in_flight > 0 && !(due.why == Why::Forced && room) {
                slot.overdue = true;
                let lost = slot.deadline + LOST_AFTER + LOST_AFTER;
                if due.why == Why::Interval && now < lost {
                    self.set(due.check, lost);
                }
                continue;
            }
            let plan = plan(due.check);
            // A late start does not shift the following ones, unless it is late by more than one interval.
            slot.last_due = if now.saturating_sub(due.at) < plan.after { due.at } else { now };
            slot.deadline = now + plan.timeout;
            slot.overdue = false;
            slot.in_flight += 1;
            slot.hedges = plan.hedges;
            slot.hedge_ticket = slot.hedge_ticket.wrapping_add(1);
            self.hedge_credit = (self.hedge_credit + HEDGE_SHARE).min(HEDGE_CREDIT_MAX);
            slot.group = slot.group.wrapping_add(1);
            slot.confirmed = Confirmed::Open;
            out.push(Launch { check: due.check, timeout: plan.timeout, hedge: None });
            self.arm_hedge(due.check, now);
        }
    }

    /// Takes note that a probe has ended, and plans the next one.
    pub(super) fn ended(&mut self, check: CheckId, now: Duration, plan: ProbePlan) {
        let Some(slot) = self.slots.get_mut(check.index()) else { return };
        slot.in_flight = slot.in_flight.saturating_sub(1);
        if !slot.live {
            return;
        }
        if slot.in_flight == 0 {
            slot.hedge_ticket = slot.hedge_ticket.wrapping_add(1);
        }
        let mut after = plan.after;
        if after == plan.every && !std::mem::replace(&mut slot.spread, true) {
            after = after.mul_f64(0.1 + 0.9 * fraction(check));
        }
        let overdue = std::mem::take(&mut slot.overdue);
        let at = if overdue { now } else { on_grid(slot.last_due + after, plan.every) };
        self.set(check, at.max(now));
    }

    /// Notes how a probe that was not a hedge has ended.
    pub(super) fn main_ended(&mut self, check: CheckId, failed: bool) {
        if let Some(slot) = self.slots.get_mut(check.index()) {
            slot.confirmed = if failed { Confirmed::Failed } else { Confirmed::Void };
        }
    }

    /// How the probe stands that a hedge confirms; one that is no longer the last says nothing.
    pub(super) fn confirmed(&self, check: CheckId, group: u32) -> Confirmed {
        let slot = self.slots.get(check.index()).filter(|slot| slot.group == group);
        slot.map_or(Confirmed::Void, |slot| slot.confirmed)
    }

    /// Asks for a fresh probe at `at`, or earlier if one is planned for earlier.
    pub(super) fn probe_at(&mut self, check: CheckId, at: Duration) {
        let Some(slot) = self.slots.get_mut(check.index()).filter(|slot| slot.live) else { return };
        if slot.forced.is_none_or(|planned| at < planned) {
            slot.forced = Some(at);
            self.heap.push(Reverse(Due { at, check, why: Why::Forced, ticket: 0 }));
        }
    }

    fn set(&mut self, check: CheckId, at: Duration) {
        let slot = &mut self.slots[check.index()];
        slot.ticket = slot.ticket.wrapping_add(1).max(1);
        self.heap.push(Reverse(Due { at, check, why: Why::Interval, ticket: slot.ticket }));
    }

    /// A hang is confirmed beside itself: the hedge ends together with the probe that it confirms.
    fn hedge(&mut self, check: CheckId, now: Duration, out: &mut Vec<Launch>) {
        let slot = &mut self.slots[check.index()];
        let timeout = slot.deadline.saturating_sub(now);
        if slot.hedges == 0 || timeout.is_zero() || self.hedge_credit < 1.0 {
            return;
        }
        self.hedge_credit -= 1.0;
        slot.hedges -= 1;
        slot.in_flight += 1;
        out.push(Launch { check, timeout, hedge: Some(slot.group) });
        self.arm_hedge(check, now);
    }

    fn arm_hedge(&mut self, check: CheckId, now: Duration) {
        let slot = &self.slots[check.index()];
        let left = slot.deadline.saturating_sub(now);
        if slot.hedges > 0 {
            let at = now + left / (slot.hedges + 2);
            self.heap.push(Reverse(Due { at, check, why: Why::Hedge, ticket: slot.hedge_ticket }));
        }
    }
}

/// Rounds a due time up to a multiple of 1/200 of the interval: what is due together costs one wake-up together.
fn on_grid(at: Duration, every: Duration) -> Duration {
    let grid = every.as_nanos() / GRID;
    match at.as_nanos().checked_rem(grid) {
        None | Some(0) => at,
        Some(past) => at + Duration::from_nanos(u64::try_from(grid - past).unwrap_or(0)),
    }
}

/// Spreads neighbours far from each other: multiples of the golden ratio, modulo 1 (Knuth, TAOCP 6.4).
fn fraction(check: CheckId) -> f64 {
    (f64::from(check.0) * 0.618_033_988_749_894_9).fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn plan(hedges: u32) -> ProbePlan {
        ProbePlan { after: MS(1000), every: MS(1000), hedges, timeout: MS(400) }
    }

    /// Lets virtual time pass in steps of 1 ms; `takes` says how long a probe takes. Returns when probes began.
    fn run(
        scheduler: &mut Scheduler,
        until: u64,
        hedges: u32,
        takes: impl Fn(CheckId) -> u64,
    ) -> Vec<(u64, u32)> {
        let mut began = Vec::new();
        let mut flying: Vec<(u64, CheckId)> = Vec::new();
        for ms in 0..until {
            let mut out = Vec::new();
            let (ended, still): (Vec<_>, Vec<_>) = flying.into_iter().partition(|(at, _)| *at <= ms);
            flying = still;
            for (_, check) in ended {
                scheduler.ended(check, MS(ms), plan(hedges));
            }
            scheduler.due(MS(ms), |_| plan(hedges), &mut out);
            for launch in out {
                began.push((ms, launch.check.0));
                let timeout = u64::try_from(launch.timeout.as_millis()).expect("small");
                flying.push((ms + takes(launch.check).min(timeout), launch.check));
            }
        }
        began
    }

    fn fresh(count: u32) -> Scheduler {
        let mut scheduler = Scheduler::default();
        scheduler.sync((0..count).map(|id| (CheckId(id), MS(1000))), MS(0));
        scheduler
    }

    #[test]
    fn a_thousand_checks_start_without_a_herd() {
        let began = run(&mut fresh(1000), 5000, 0, |_| 1);
        let busiest = (2000..5000).map(|ms| began.iter().filter(|(at, _)| *at == ms).count()).max();
        assert!(busiest <= Some(12), "{busiest:?} in one millisecond");
        assert!(began.iter().filter(|(at, _)| (3000..4000).contains(at)).count() == 1000);
    }

    #[test]
    fn a_hung_check_moves_no_other() {
        let alone = run(&mut fresh(20), 9000, 0, |_| 1);
        let beside = run(&mut fresh(20), 9000, 0, |check| if check.0 == 3 { 10_000 } else { 1 });
        let others =
            |began: &[(u64, u32)]| began.iter().filter(|(_, id)| *id != 3).copied().collect::<Vec<_>>();
        assert_eq!(others(&alone), others(&beside));
    }

    #[test]
    fn intervals_do_not_drift() {
        let began = run(&mut fresh(1), 20_500, 0, |_| 30);
        let late: Vec<_> = began.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert!(late.iter().all(|gap| *gap == 1000), "{late:?}");
    }

    #[test]
    fn a_slow_probe_is_hedged_and_both_end_together() {
        let began = run(&mut fresh(1), 400, 1, |_| 10_000);
        assert_eq!(began.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 134]);
        let quick = run(&mut fresh(1), 400, 1, |_| 5);
        assert!(quick.iter().all(|(at, _)| *at != 134), "{quick:?}");
    }

    #[test]
    fn where_everything_is_slow_hedges_stay_few() {
        let began = run(&mut fresh(1000), 3000, 2, |_| 390);
        let probes = began.len();
        // Each probe wants two hedges: without a limit there would be thrice as many.
        assert!(probes < 4_600, "{probes} probes for at most 4,000 due");
    }

    #[test]
    fn a_forced_probe_does_not_wait_for_one_that_hangs() {
        let mut scheduler = fresh(1);
        let mut out = Vec::new();
        scheduler.due(MS(0), |_| plan(0), &mut out);
        scheduler.probe_at(CheckId(0), MS(10));
        scheduler.due(MS(10), |_| plan(0), &mut out);
        assert_eq!(out.len(), 2);
    }

    #[test]
    fn a_probe_asked_for_later_does_not_stop_the_regular_ones() {
        let mut scheduler = fresh(1);
        scheduler.probe_at(CheckId(0), MS(5_500));
        let began: Vec<_> = run(&mut scheduler, 6000, 0, |_| 1).into_iter().map(|(at, _)| at).collect();
        assert!(began.contains(&5_500) && began.len() >= 6, "{began:?}");
    }
}
