//! What time is it for the engine? A clock that goes on where the journal's last record stood.
//!
//! Engine time is CLOCK_BOOTTIME plus an offset. Within one boot the offset stays, so that delays and budgets run on while
//! lidless is not there; after a reboot it is chosen so that time goes on from the last record by what the wall clock says
//! has passed, and never back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lidless_core::time::Now;
use rustix::time::{ClockId, clock_gettime};

/// Reads engine time and wall time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    boot_id: String,
    offset_us: i64,
}

impl Clock {
    /// Returns a clock that goes on from `last`, the journal's last record, written in `boot` (`Event::Started::boot`).
    pub fn resume(last: Option<(Now, &str)>) -> Clock {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let boot_id = boot_id.map_or_else(|_| "unknown".to_owned(), |id| id.trim().to_owned());
        let offset_us = match last {
            None => 0,
            Some((last, boot)) => offset(last, boot, &boot_id, boottime(), wall_ms()),
        };
        Clock { boot_id, offset_us }
    }

    /// Reads both clocks.
    pub fn now(&self) -> Now {
        Now { monotonic: shift(boottime(), self.offset_us), wall_ms: wall_ms() }
    }

    /// What `Event::Started::boot` has to say so that the next lidless can resume this clock.
    pub fn boot(&self) -> String {
        format!("{}{:+}", self.boot_id, self.offset_us)
    }
}

/// Returns the offset for a clock that resumes.
fn offset(last: Now, boot: &str, boot_id: &str, boottime: Duration, wall_ms: i64) -> i64 {
    let kept = boot.strip_prefix(boot_id).and_then(|rest| rest.parse::<i64>().ok());
    if let Some(kept) = kept.filter(|kept| shift(boottime, *kept) >= last.monotonic) {
        return kept;
    }
    let passed = Duration::from_millis(u64::try_from(wall_ms - last.wall_ms).unwrap_or(0));
    micros(last.monotonic.saturating_add(passed)) - micros(boottime)
}

fn shift(time: Duration, offset_us: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros(time).saturating_add(offset_us)).unwrap_or(0))
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

fn boottime() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn resumed(boot: &str, boottime: Duration, wall_ms: i64) -> Duration {
        let last = Now { monotonic: S(1000), wall_ms: 50_000 };
        shift(boottime, offset(last, boot, "abc", boottime, wall_ms))
    }

    #[test]
    fn within_one_boot_time_goes_on_even_while_nobody_looks() {
        assert_eq!(resumed("abc+0", S(1010), 0), S(1010));
        assert_eq!(resumed("abc-5000000", S(1015), 0), S(1010));
    }

    #[test]
    fn after_a_reboot_the_wall_clock_says_how_much_has_passed() {
        assert_eq!(resumed("other+0", S(3), 50_000 + 7_000), S(1007));
    }

    #[test]
    fn time_never_goes_back() {
        assert_eq!(resumed("other+0", S(3), 10_000), S(1000), "the wall clock was set back");
        assert_eq!(resumed("abc+0", S(3), 50_000), S(1000), "a boot time that cannot be");
    }
}
