//! What do we tell people? The messages of the outbox, and which of them say the same.

use std::mem;

use serde::{Deserialize, Serialize};

use crate::event::Because;
use crate::id::{IncidentId, RunId, ServiceId};

/// A message that we owe the world.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "notice", rename_all = "snake_case")]
pub enum Notice {
    /// The machine could not mend it.
    GaveUp {
        /// Which incident.
        incident: IncidentId,
        /// Whose.
        service: ServiceId,
        /// How often it was tried.
        attempts: u32,
    },
    /// The machine will not mend it, and says why.
    WillNotHeal {
        /// Which incident.
        incident: IncidentId,
        /// Whose.
        service: ServiceId,
        /// Why not.
        because: Because,
    },
    /// The means of healing fail.
    ActuatorUnavailable {
        /// Which incident.
        incident: IncidentId,
        /// Whose.
        service: ServiceId,
        /// Why.
        reason: String,
    },
    /// What somebody was told of is over.
    Resolved {
        /// Which incident.
        incident: IncidentId,
        /// Whose.
        service: ServiceId,
    },
    /// A run waits for a person.
    RunHeld {
        /// Which run.
        run: RunId,
        /// The step's name.
        step: String,
        /// Why.
        reason: String,
    },
    /// A step begins with a person's yes.
    ApprovalAsked {
        /// Which run.
        run: RunId,
        /// The step's name.
        step: String,
        /// What the person is asked, besides the step's name.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        ask: String,
    },
    /// The journal cannot be written.
    StoreDegraded {
        /// Why.
        reason: String,
    },
}

impl Notice {
    /// Whether a person who has read this one learns nothing new from the other.
    pub fn says_the_same(&self, other: &Notice) -> bool {
        match (self, other) {
            (Notice::WillNotHeal { because: one, .. }, Notice::WillNotHeal { because: two, .. }) => {
                mem::discriminant(one) == mem::discriminant(two)
            }
            _ => mem::discriminant(self) == mem::discriminant(other),
        }
    }

    /// The incident that it is about, if it is about one.
    pub fn incident(&self) -> Option<IncidentId> {
        match self {
            Notice::GaveUp { incident, .. }
            | Notice::WillNotHeal { incident, .. }
            | Notice::ActuatorUnavailable { incident, .. }
            | Notice::Resolved { incident, .. } => Some(*incident),
            Notice::RunHeld { .. } | Notice::ApprovalAsked { .. } | Notice::StoreDegraded { .. } => None,
        }
    }
}
