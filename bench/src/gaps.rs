//! Which intervals were missed? The gaps between the requests that each target has seen.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Width of a bucket of the histogram of gaps, and their number: 10 s in all, the last one open.
const BUCKET_MS: u64 = 5;
const BUCKETS: usize = 2000;

/// Counts requests by target.
#[derive(Debug)]
pub struct Gaps {
    targets: Vec<Target>,
    hung: Range<u32>,
    interval: Duration,
    began: Duration,
    well: Histogram,
    stuck: Histogram,
}

#[derive(Clone, Copy, Default, Debug)]
struct Target {
    requests: u64,
    last: Option<Duration>,
    missed: u64,
    late: u64,
}

#[derive(Debug)]
struct Histogram {
    buckets: Vec<u64>,
    max: Duration,
}

/// What was seen since the reset.
#[derive(Clone, Copy, Default, Debug, Serialize, Deserialize)]
pub struct Stats {
    /// Since the reset.
    pub elapsed_s: f64,
    /// Of the targets that answer.
    pub well: Group,
    /// Of those that never do.
    pub hung: Group,
}

/// What a group of targets has seen.
#[derive(Clone, Copy, Default, Debug, Serialize, Deserialize)]
pub struct Group {
    /// How many targets there are.
    pub targets: u32,
    /// How many of them were asked at all.
    pub seen: u32,
    /// Requests to all of them.
    pub requests: u64,
    /// Gaps longer than one and a half intervals.
    pub gaps_late: u64,
    /// Requests that should have come within such gaps, the open ones at both ends included.
    pub missed: u64,
    /// Of the intervals that there were.
    pub missed_percent: f64,
    /// Half of the gaps were at most this.
    pub gap_ms_p50: u64,
    /// 99 of 100 gaps were at most this.
    pub gap_ms_p99: u64,
    /// The longest gap.
    pub gap_ms_max: u64,
}

impl Gaps {
    /// Begins; targets within `hung` are counted apart.
    pub fn new(hung: Range<u32>) -> Gaps {
        let interval = Duration::from_secs(1);
        let (well, stuck) = (Histogram::new(), Histogram::new());
        Gaps { targets: Vec::new(), hung, interval, began: Duration::ZERO, well, stuck }
    }

    /// Begins anew: `targets` of them are expected to be asked each `interval_ms`.
    pub fn reset(&mut self, targets: u32, interval_ms: u32, now: Duration) {
        self.targets = vec![Target::default(); targets as usize];
        self.interval = Duration::from_millis(u64::from(interval_ms.max(1)));
        self.began = now;
        (self.well, self.stuck) = (Histogram::new(), Histogram::new());
    }

    /// Notes a request.
    pub fn seen(&mut self, id: u32, now: Duration) {
        let index = id as usize;
        if index >= self.targets.len() {
            self.targets.resize(index + 1, Target::default());
        }
        let target = &mut self.targets[index];
        target.requests += 1;
        // The first gap is open to the left: it may miss an interval, but its length says nothing.
        if let Some(last) = target.last {
            let gap = now.saturating_sub(last);
            if self.hung.contains(&id) { self.stuck.add(gap) } else { self.well.add(gap) }
        }
        let missed = missed(now.saturating_sub(target.last.unwrap_or(self.began)), self.interval);
        target.missed += missed;
        target.late += u64::from(missed > 0);
        target.last = Some(now);
    }

    /// Sums up.
    pub fn stats(&self, now: Duration) -> Stats {
        Stats {
            elapsed_s: now.saturating_sub(self.began).as_secs_f64(),
            well: self.group(now, false),
            hung: self.group(now, true),
        }
    }

    fn group(&self, now: Duration, hung: bool) -> Group {
        let gaps = if hung { &self.stuck } else { &self.well };
        let mut group = Group {
            gap_ms_p50: gaps.quantile(0.5),
            gap_ms_p99: gaps.quantile(0.99),
            gap_ms_max: u64::try_from(gaps.max.as_millis()).unwrap_or(u64::MAX),
            ..Group::default()
        };
        for (id, target) in (0_u32..).zip(&self.targets) {
            if self.hung.contains(&id) != hung {
                continue;
            }
            group.targets += 1;
            group.seen += u32::from(target.requests > 0);
            group.requests += target.requests;
            group.gaps_late += target.late;
            group.missed += target.missed;
            group.missed += missed(now.saturating_sub(target.last.unwrap_or(self.began)), self.interval);
        }
        let elapsed = now.saturating_sub(self.began);
        let expected = elapsed.as_secs_f64() / self.interval.as_secs_f64() * f64::from(group.targets);
        group.missed_percent = if expected > 0.0 { 100.0 * group.missed as f64 / expected } else { 0.0 };
        group
    }
}

/// A gap of one interval misses none, one of two intervals misses one; late by less than a half is not missed.
fn missed(gap: Duration, interval: Duration) -> u64 {
    let halves = gap.as_nanos() * 2 / interval.as_nanos();
    u64::try_from(halves.saturating_sub(1) / 2).unwrap_or(u64::MAX)
}

impl Histogram {
    fn new() -> Histogram {
        Histogram { buckets: vec![0; BUCKETS], max: Duration::ZERO }
    }

    fn add(&mut self, gap: Duration) {
        let bucket = usize::try_from(gap.as_millis() / u128::from(BUCKET_MS)).unwrap_or(BUCKETS);
        self.buckets[bucket.min(BUCKETS - 1)] += 1;
        self.max = self.max.max(gap);
    }

    fn quantile(&self, share: f64) -> u64 {
        let wanted = share * self.buckets.iter().sum::<u64>() as f64;
        let mut so_far = 0;
        for (index, count) in (1_u64..).zip(&self.buckets) {
            so_far += count;
            if so_far as f64 >= wanted && so_far > 0 {
                return (index * BUCKET_MS).min(u64::try_from(self.max.as_millis()).unwrap_or(u64::MAX));
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_gap_misses_as_many_intervals_as_fit_into_it_but_one() {
        let counted: Vec<u64> =
            [900, 1400, 1500, 2000, 2400, 2500, 6000].map(|g| missed(ms(g), ms(1000))).to_vec();
        assert_eq!(counted, [0, 0, 1, 1, 1, 2, 5]);
    }

    #[test]
    fn targets_never_asked_miss_every_interval_and_hung_ones_are_counted_apart() {
        let mut gaps = Gaps::new(2..3);
        gaps.reset(3, 1000, ms(5000));
        for second in 0..10 {
            gaps.seen(0, ms(5500 + second * 1000));
        }
        gaps.seen(2, ms(14_500));
        let stats = gaps.stats(ms(15_000));
        assert_eq!(
            (stats.well.targets, stats.well.seen, stats.well.requests, stats.well.missed),
            (2, 1, 10, 9)
        );
        assert_eq!((stats.well.gap_ms_p50, stats.well.gap_ms_max), (1000, 1000));
        assert_eq!((stats.hung.targets, stats.hung.requests, stats.hung.missed), (1, 1, 9));
    }
}
