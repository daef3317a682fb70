//! Is a lease over? Time comes from a clock that all who share the store agree on.
//!
//! A store that has a clock of its own (etcd ends leases by itself) takes none of these.

use std::fs;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One reading.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LeaseTime {
    /// Within which `since` goes on: a lease of another era is over, for its owner died with that era.
    pub era: String,
    /// Time since the era began.
    pub since: Duration,
}

/// Tells the time that leases are measured with.
///
/// **Invariant:** within an era it never goes back, in none of the processes that share a store.
pub trait LeaseClock: Send + Sync {
    /// Reads the clock.
    fn now(&self) -> LeaseTime;
}

/// The time since this machine started, which goes on while it is suspended; each boot is an era.
#[derive(Clone, Debug)]
pub struct BootClock {
    era: String,
}

impl BootClock {
    /// Asks the kernel which boot this is.
    pub fn new() -> io::Result<Self> {
        let era = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        Ok(BootClock { era })
    }
}

impl LeaseClock for BootClock {
    fn now(&self) -> LeaseTime {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let (seconds, nanos) =
            (u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0));
        LeaseTime { era: self.era.clone(), since: Duration::new(seconds, nanos) }
    }
}

/// A clock that stands still until it is told otherwise; clones are the same clock.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<Mutex<LeaseTime>>);

impl ManualClock {
    /// Begins an era.
    pub fn new() -> Self {
        ManualClock::default()
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).since += time;
    }

    /// Ends the era and begins one called `era`.
    pub fn reboot(&self, era: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            LeaseTime { era: era.to_owned(), since: Duration::ZERO };
    }
}

impl LeaseClock for ManualClock {
    fn now(&self) -> LeaseTime {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
