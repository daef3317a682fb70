//! What is an incident? From the first sign to a verified recovery, one per service at a time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::check::CheckFailure;
use crate::event::{Because, Notice};
use crate::id::{CheckId, IncidentId, RunId, ServiceId};
use crate::time::{Now, micros};

/// An open incident.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Incident {
    /// Its name.
    pub id: IncidentId,
    /// Whose.
    pub service: ServiceId,
    /// When it was opened.
    pub opened: Now,
    /// The first failure of the row that led to it, in engine time.
    #[serde(rename = "first_sign_us", with = "micros")]
    pub first_sign: Duration,
    /// The checks that went down in it; it closes when all of them are up.
    pub checks: Vec<CheckId>,
    /// What opened it.
    pub failure: CheckFailure,
    /// The last exit code seen in it: some mean "do not restart me".
    pub exit_code: Option<i32>,
    /// Why a heal that is due is not done.
    pub held: Option<Because>,
    /// Heals begun for it.
    pub heals: u32,
    /// What somebody was told of it. Whoever was told anything must be told of its end.
    pub told: Vec<Notice>,
}

impl Incident {
    /// Whether somebody was told the same already, be it with other figures.
    pub fn was_told(&self, what: &Notice) -> bool {
        self.told.iter().any(|told| told.says_the_same(what))
    }
}

/// What is remembered of an incident that is over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClosedIncident {
    /// What it was.
    pub incident: Incident,
    /// When it was closed.
    pub closed: Now,
    /// The run that mended it; none where it recovered by itself.
    pub healed_by: Option<RunId>,
}
