//! What happens by chance? A stream of numbers from one seed: the same seed, the same world.

use std::time::Duration;

use lidless_core::pipeline::retry::mix;

/// A stream of random-looking numbers.
#[derive(Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// Returns the stream `stream` of a seed; streams of one seed don't resemble each other.
    pub(crate) fn new(seed: u64, stream: u64) -> Rng {
        Rng(mix(mix(seed) ^ mix(stream.wrapping_mul(0xA076_1D64_78BD_642F))))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Returns a number in `low..=high`.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// Returns a small number in `low..=high`.
    pub(crate) fn small(&mut self, low: u32, high: u32) -> u32 {
        u32::try_from(self.range(u64::from(low), u64::from(high))).unwrap_or(high)
    }

    /// Returns true so many times in 10,000.
    pub(crate) fn chance(&mut self, per_10k: u32) -> bool {
        per_10k > 0 && self.next() % 10_000 < u64::from(per_10k)
    }

    /// Returns a time in `low..=high` milliseconds, with a random part below the millisecond.
    pub(crate) fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(self.range(low * 1000, high * 1000))
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let count = of.len() as u64;
        &of[usize::try_from(self.next() % count).unwrap_or(0)]
    }
}
