//! How are samples drawn and summed up? A seeded generator, and minimum, median and maximum.

use std::time::Duration;

use serde::Serialize;

/// A small seeded generator (xorshift64*): the same seed gives the same phases and faults.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts a sequence.
    pub fn new(seed: u64) -> Self {
        // Zero is the one state that xorshift never leaves.
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Returns the next number of 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Returns a number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The upper bits are the better ones; the bias at our small bounds is far below any noise.
        (self.draw() >> 16) % bound.max(1)
    }

    /// Returns a time from `min` up to `max`.
    pub fn between(&mut self, min: Duration, max: Duration) -> Duration {
        let span = u64::try_from(max.saturating_sub(min).as_micros()).unwrap_or(u64::MAX);
        min + Duration::from_micros(self.below(span.max(1)))
    }

    /// Returns one of the items.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let index = usize::try_from(self.below(items.len() as u64)).unwrap_or(0);
        &items[index]
    }
}

/// What a row of times comes to, in seconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Summary {
    /// How many there were.
    pub n: usize,
    /// The shortest.
    pub min_s: f64,
    /// The middle one; of an even number, the mean of the middle two.
    pub median_s: f64,
    /// The longest.
    pub max_s: f64,
}

impl Summary {
    /// Sums up; nothing where there is nothing.
    pub fn of(samples: &[Duration]) -> Option<Summary> {
        let mut sorted: Vec<f64> = samples.iter().map(Duration::as_secs_f64).collect();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let (min_s, max_s) = (*sorted.first()?, *sorted.last()?);
        let median_s = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
        Some(Summary { n, min_s, median_s, max_s })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let times: Vec<Duration> = [4, 1, 3, 10].map(Duration::from_secs).to_vec();
        let summary = Summary::of(&times).unwrap();
        assert_eq!((summary.n, summary.min_s, summary.median_s, summary.max_s), (4, 1.0, 3.5, 10.0));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn the_generator_repeats_itself_and_stays_in_bounds() {
        let (mut a, mut b) = (Random::new(7), Random::new(7));
        for _ in 0..1000 {
            let time = a.between(Duration::from_millis(20), Duration::from_millis(300));
            assert_eq!(time, b.between(Duration::from_millis(20), Duration::from_millis(300)));
            assert!(time >= Duration::from_millis(20) && time < Duration::from_millis(300));
        }
    }
}
