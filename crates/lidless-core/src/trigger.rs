//! What begins a run of a pipeline, besides a person?

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::{micros, micros_opt};

/// What begins a run of a pipeline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "on", rename_all = "snake_case")]
pub enum Trigger {
    /// Time: so long after the last one. A moment in which a run is under way is missed.
    Every {
        /// From one to the next.
        #[serde(rename = "every_us", with = "micros")]
        every: Duration,
    },
    /// A calendar. Its moments are found outside, for they need the zone's rules.
    Cron {
        /// In the five or six fields of cron.
        expression: String,
        /// The name of the zone.
        zone: String,
        /// What becomes of moments in which lidless did not run.
        catch_up: CatchUp,
    },
    /// An incident of one of these services.
    Incident {
        /// Their names.
        services: Vec<String>,
        /// When.
        when: IncidentMoment,
    },
    /// The end of another pipeline's run.
    Run {
        /// The other pipeline.
        pipeline: String,
        /// Which ends count.
        when: RunEnd,
    },
}

/// What becomes of a calendar's moments that were missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// They are gone.
    #[default]
    None,
    /// One run makes up for all of them.
    One,
    /// Each has its run.
    All,
}

/// At which moment of an incident.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentMoment {
    /// It opens.
    #[default]
    Opened,
    /// The restart budget is spent, or nothing may be done about it.
    GivenUp,
    /// It is over.
    Closed,
}

/// Which end of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunEnd {
    /// It did everything.
    #[default]
    Done,
    /// It failed, undone or not.
    Failed,
    /// Any end.
    Any,
}

/// A moment of a schedule.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Due {
    /// Of an `Every`, in engine time.
    #[serde(rename = "every_us")]
    Every(#[serde(with = "micros")] Duration),
    /// Of a `Cron`, in milliseconds since the Unix epoch.
    #[serde(rename = "cron_ms")]
    Cron(i64),
}

/// How far a pipeline's schedules have come.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Schedule {
    /// The last moment of its `Every`; at first, when lidless got to know it. In engine time.
    #[serde(default, rename = "every_us", with = "micros_opt")]
    pub every: Option<Duration>,
    /// The last moment of its `Cron`; at first, when lidless got to know it. In milliseconds since the Unix epoch.
    #[serde(default)]
    pub cron_ms: Option<i64>,
}
