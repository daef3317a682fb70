//! Does a run store keep its promises? The cases that every implementation passes, alone and behind a [`FaultStore`].
//!
//! A [`Place`] is where a store lives: any number of handles open it, and time passes there when it is told to. The cases
//! repeat what failed by a fault as an owner would, so that they also run on stores that fail on their own.
//! A case panics where a promise is broken: this module is for tests.

mod history;
mod leases;
mod logs;
mod session;
mod settling;
mod watches;

use std::sync::Arc;
use std::time::Duration;

pub use history::{Op, history};
pub use session::{Session, batch, key, owner};
pub use settling::{Rival, settle_under};

use super::clock::ManualClock;
use super::error::StoreError;
use super::fault::{FaultScript, FaultStore};
use super::port::RunStore;

/// Opens a handle of a place.
pub type Open = Arc<dyn Fn() -> Result<Box<dyn RunStore>, StoreError> + Send + Sync>;

/// Where a store lives.
#[derive(Clone)]
pub struct Place {
    /// Opens a handle.
    pub open: Open,
    /// Lets time pass by which leases end there: a store with a clock of its own has to wait.
    pub pass: Arc<dyn Fn(Duration) + Send + Sync>,
    /// How long leases last in the cases.
    pub ttl: Duration,
}

impl Place {
    /// Describes a place whose clock is told what time it is.
    pub fn new(open: Open, clock: &ManualClock) -> Self {
        let clock = clock.clone();
        Place { open, pass: Arc::new(move |time| clock.pass(time)), ttl: Duration::from_secs(10) }
    }

    /// Describes the same place, whose handles fail as the script says.
    pub fn behind(&self, script: &FaultScript) -> Self {
        let (open, script) = (Arc::clone(&self.open), script.clone());
        let open: Open =
            Arc::new(move || Ok(Box::new(FaultStore::new(open()?, &script)) as Box<dyn RunStore>));
        Place { open, ..self.clone() }
    }

    fn pass(&self, time: Duration) {
        (self.pass)(time);
    }
}

/// Makes a fresh, empty place.
pub type Factory<'a> = &'a mut dyn FnMut() -> Place;

/// One promise.
pub type Case = fn(&Place);

/// The promises.
pub const CASES: &[(&str, Case)] = &[
    ("of two who acquire, one wins", leases::one_of_two_wins),
    ("a stale epoch is refused", leases::a_stale_epoch_is_refused),
    ("a lease that ends is handed over exactly once", leases::expiry_hands_over_once),
    ("a lease that is renewed lasts, and one that is lost is not renewed", leases::renewing),
    ("an owner who asks again is fenced off from its past", leases::asking_again_fences),
    ("a lease that is given back can be taken at once", leases::released_is_free),
    ("an owner that was paused beyond its lease is fenced", leases::a_paused_owner_is_fenced),
    ("a run that has ended is not acquired", leases::an_ended_run_is_not_acquired),
    ("the same slot twice is there once", logs::twice_is_once),
    ("a batch is there whole or not at all", logs::all_or_none),
    ("records are in order, of each run and of all", logs::order),
    ("what was acknowledged is there after reopening", logs::acked_survives_reopening),
    ("a full disk means that nothing was written", logs::full_is_not_written),
    ("a run that has ended takes nothing more", logs::ended_takes_nothing),
    ("what no store takes is refused", logs::unfit_is_refused),
    ("pages are bounded", logs::pages_are_bounded),
    ("an unknown append is settled by reading", settling::unknown_is_settled),
    ("a watch resumes anywhere without a gap", watches::resumes_without_a_gap),
    ("a watch says when something may be gone", watches::says_what_may_be_gone),
    ("trimming keeps what goes on, and that a run has ended", watches::trimming_keeps),
    ("a watcher that waits is told", watches::waiting),
    ("runs are listed by state, and those that nobody drives", watches::listing),
];

/// Runs every case, each on a fresh place; returns how many there were.
pub fn suite(factory: Factory<'_>) -> usize {
    for (name, case) in CASES {
        // The test harness shows it where the case fails.
        println!("case: {name}");
        case(&factory());
    }
    CASES.len()
}
