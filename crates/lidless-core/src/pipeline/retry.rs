//! When again? Exponential backoff with jitter, as a pure function of a seed.

use std::time::Duration;

use crate::spec::Backoff;
use crate::time::whole_micros;

/// The first wait when `min` is zero but a second retry must not be immediate.
const FLOOR: Duration = Duration::from_millis(250);

/// Returns the wait before the next try after `done` tries.
///
/// `min · 2^(done-1)`, at most `max`, plus up to a quarter of it as jitter so that what failed together does not come
/// back together. With `min` zero the first retry is immediate and the doubling begins at 250 ms. `done` zero is no wait.
pub fn delay(backoff: Backoff, done: u32, seed: u64) -> Duration {
    let (base, doublings) = match (done, backoff.min.is_zero()) {
        (0, _) | (1, true) => return Duration::ZERO,
        (done, true) => (FLOOR, done - 2),
        (done, false) => (backoff.min, done - 1),
    };
    let factor = 1_u32.checked_shl(doublings.min(30)).unwrap_or(u32::MAX);
    let wait = base.saturating_mul(factor).min(backoff.max);
    whole_micros(wait + wait.mul_f64(0.25 * unit(mix(seed))))
}

/// Scrambles 64 bits (the finaliser of SplitMix64: Steele, Lea, Flood 2014).
pub fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Maps 64 random bits to [0, 1).
fn unit(bits: u64) -> f64 {
    // 53 bits fit a double exactly.
    #[allow(clippy::cast_precision_loss)]
    let high = (bits >> 11) as f64;
    high / 9_007_199_254_740_992.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(backoff: (u64, u64), done: u32) -> (u64, u64) {
        let backoff = Backoff { min: Duration::from_secs(backoff.0), max: Duration::from_secs(backoff.1) };
        let waits: Vec<_> = (0..200).map(|seed| delay(backoff, done, seed)).collect();
        let low = waits.iter().min().expect("200 waits").as_millis();
        let high = waits.iter().max().expect("200 waits").as_millis();
        (u64::try_from(low).expect("small"), u64::try_from(high).expect("small"))
    }

    #[test]
    fn waits_double_up_to_the_maximum_with_a_quarter_of_jitter() {
        assert_eq!(secs((1, 60), 0), (0, 0));
        for (done, base) in [(1, 1000), (2, 2000), (3, 4000), (7, 60_000), (40, 60_000)] {
            let (low, high) = secs((1, 60), done);
            assert!(low >= base && low < base + base / 20, "{done}: {low}");
            assert!(high <= base + base / 4 && high > base + base / 5, "{done}: {high}");
        }
    }

    #[test]
    fn a_zero_minimum_retries_once_at_once() {
        assert_eq!(secs((0, 60), 1), (0, 0));
        assert!(secs((0, 60), 2).0 >= 250);
        assert_eq!(secs((0, 0), 9), (0, 0));
    }
}
