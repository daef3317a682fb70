//! How are things named inside the engine? Dense newtypes: no bare integer crosses a function.
//!
//! Names of services and checks live at the edges (config, screens, the journal's `ConfigApplied` record);
//! the engine counts. An id is never reused within one journal.

use serde::{Deserialize, Serialize};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    )*};
}

ids! {
    /// What users depend on. Dense: an index into the engine's table of services.
    ServiceId(u32), "service-";
    /// What is asked of a service. Dense: an index into the engine's table of checks.
    CheckId(u32), "check-";
    /// From first sign to verified recovery.
    IncidentId(u64), "inc-";
    /// One execution of a pipeline.
    RunId(u64), "run-";
    /// Something that we owe the world: a message in the outbox.
    NoticeId(u64), "notice-";
    /// The position of a record in the journal; the first is 1.
    Seq(u64), "";
}

impl ServiceId {
    /// The index of the service in a dense table.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl CheckId {
    /// The index of the check in a dense table.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl Seq {
    /// The position after this one.
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}
