//! When is `lidless watch --once` decided? At the first good answer; else when the heals are used up, or, where nothing heals,
//! when so many checks have failed.

use std::time::Duration;

use lidless_core::event::{Because, Event};
use lidless_core::health::Health;
use lidless_core::id::CheckId;

use crate::runtime::Handle;
use crate::words::Told;

/// So often is looked what the last answer was.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);
/// From check to check at least, where nothing heals: each answer must be seen by a look.
pub(super) const EVERY_MIN: Duration = Duration::from_millis(250);

/// Well, or why it is not to be made well.
pub(super) type Verdict = Result<(), String>;

/// What is known so far.
pub(super) struct Once {
    tries: u32,
    is_open: bool,
    /// Failed checks of an incident that nothing will heal.
    unhealed: Option<Failed>,
}

#[derive(Default)]
struct Failed {
    count: u32,
    /// When the last of them was answered.
    at: Duration,
}

impl Once {
    pub(super) fn new(tries: u32) -> Once {
        Once { tries, is_open: false, unhealed: None }
    }

    /// Takes a record. An open incident ends with its own record.
    pub(super) fn hear(&mut self, told: &Told) -> Option<Verdict> {
        match &told.record.event {
            Event::IncidentOpened { .. } => {
                self.is_open = true;
                None
            }
            Event::HealthChanged { to: Health::Up, .. } => (!self.is_open).then_some(Ok(())),
            Event::IncidentClosed { .. } => Some(Ok(())),
            Event::GaveUp { attempts, .. } => Some(Err(format!("{attempts} heals did not help"))),
            Event::HealHeld { because: Because::NoHeal, .. } => {
                self.unhealed = Some(Failed::default());
                None
            }
            Event::HealHeld { .. } => Some(Err(told.text.clone())),
            _ => None,
        }
    }

    /// Looks at the last answer: one that changes nothing leaves no record.
    pub(super) async fn look(&mut self, handle: &Handle) -> Option<Verdict> {
        let seen = handle.query(|view| view.engine.observed(CheckId(0)).cloned()).await.ok().flatten()?;
        if seen.inconclusive > 0 {
            return (seen.inconclusive >= self.tries).then_some(seen.reason).flatten().map(Err);
        }
        let (failed, failure) = (self.unhealed.as_mut()?, seen.failure?);
        if failed.at != seen.at {
            *failed = Failed { count: failed.count + 1, at: seen.at };
        }
        (failed.count >= self.tries).then_some(Err(failure.detail))
    }
}
