//! Why is a heal that is due not done?

use serde::{Deserialize, Serialize};

use crate::id::ServiceId;

/// Why a heal that is due is not done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Because {
    /// A service that it depends on has an incident.
    DependencyDown {
        /// Which one.
        service: ServiceId,
    },
    /// All services together have used up the host's budget.
    HostBudgetSpent,
    /// Its configuration names no way to heal it.
    NoHeal,
    /// The process ended with a code by which it says "do not restart me".
    ExitCode {
        /// The code.
        code: i32,
    },
}

impl Because {
    /// Whether it goes by without anybody doing anything about this service.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Because::DependencyDown { .. } | Because::HostBudgetSpent => true,
            Because::NoHeal | Because::ExitCode { .. } => false,
        }
    }
}
