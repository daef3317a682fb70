//! Why has a plugin not answered, and may something have left the machine meanwhile?

use std::time::Duration;

use super::super::FailureClass;
use super::PROTOCOL;
use super::wire::Op;
use crate::check::wording::Short;

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PluginError {
    /// It could not be started.
    #[error("plugin `{plugin}`: {why}")]
    Start {
        /// The plugin.
        plugin: String,
        /// What happened.
        why: String,
        /// Whether it may go better another time.
        is_transient: bool,
    },
    /// It speaks another version of the protocol.
    #[error(
        "plugin `{plugin}` speaks protocol {theirs}, and this lidless speaks {PROTOCOL}; they must be of one age"
    )]
    Protocol {
        /// The plugin.
        plugin: String,
        /// The version that it speaks.
        theirs: String,
    },
    /// It answered in time, but not as it must.
    #[error("plugin `{plugin}`: {why}")]
    Malformed {
        /// The plugin.
        plugin: String,
        /// What is wrong with its answer.
        why: String,
    },
    /// It said that it cannot.
    #[error("plugin `{plugin}`: {error}")]
    Refused {
        /// The plugin.
        plugin: String,
        /// What it said.
        error: String,
        /// What it said may follow.
        class: FailureClass,
    },
    /// It offers other kinds of steps.
    #[error("plugin `{plugin}` has no kind `{kind}`; it has {}", offers.join(", "))]
    NoSuchKind {
        /// The plugin.
        plugin: String,
        /// What was looked for.
        kind: String,
        /// What it has.
        offers: Vec<String>,
    },
    /// It has ended, or was killed for breaking the protocol.
    #[error("plugin `{plugin}` {why}")]
    Broken {
        /// The plugin.
        plugin: String,
        /// What it did: "ended with exit code 1".
        why: String,
        /// Whether the request had left for the plugin.
        was_sent: bool,
    },
    /// It did not answer in time, and was killed.
    #[error("not done within {}", Short(*within))]
    Overdue {
        /// How long it had.
        within: Duration,
        /// Whether the request had left for the plugin.
        was_sent: bool,
    },
    /// It was not ready to be asked in time.
    #[error("plugin `{plugin}` was not ready within {}", Short(*within))]
    NotReady {
        /// The plugin.
        plugin: String,
        /// How long it had.
        within: Duration,
    },
    /// It has just ended, and is given a pause.
    #[error("plugin `{plugin}` is started again in {}: {why}", Short(*left))]
    Pausing {
        /// The plugin.
        plugin: String,
        /// How it ended last.
        why: String,
        /// How long the pause still is.
        left: Duration,
    },
    /// It was stopped for good.
    #[error("plugin `{plugin}` was stopped")]
    Stopped {
        /// The plugin.
        plugin: String,
    },
}

impl PluginError {
    /// What it says about an attempt for whose sake this was asked.
    pub(super) fn class(&self, op: Op) -> FailureClass {
        match self {
            PluginError::Start { is_transient: true, .. }
            | PluginError::NotReady { .. }
            | PluginError::Pausing { .. }
            | PluginError::Stopped { .. } => FailureClass::Transient,
            PluginError::Start { is_transient: false, .. }
            | PluginError::Protocol { .. }
            | PluginError::Malformed { .. }
            | PluginError::NoSuchKind { .. } => FailureClass::Permanent,
            PluginError::Refused { class: FailureClass::Permanent, .. } => FailureClass::Permanent,
            // It was asked to describe itself: nothing can have left.
            PluginError::Refused { class: FailureClass::Transient | FailureClass::Unknown, .. } => {
                FailureClass::Transient
            }
            PluginError::Broken { was_sent, .. } | PluginError::Overdue { was_sent, .. } => {
                if *was_sent && op.lets_out() { FailureClass::Unknown } else { FailureClass::Transient }
            }
        }
    }

    /// When it may be asked again, where that is known.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            PluginError::Pausing { left, .. } => Some(*left),
            PluginError::Start { .. }
            | PluginError::Protocol { .. }
            | PluginError::Malformed { .. }
            | PluginError::Refused { .. }
            | PluginError::NoSuchKind { .. }
            | PluginError::Broken { .. }
            | PluginError::Overdue { .. }
            | PluginError::NotReady { .. }
            | PluginError::Stopped { .. } => None,
        }
    }

    /// The same, of a request that was never sent.
    pub(super) fn unsent(self) -> PluginError {
        match self {
            PluginError::Broken { plugin, why, was_sent: _ } => {
                PluginError::Broken { plugin, why, was_sent: false }
            }
            PluginError::Overdue { within, was_sent: _ } => PluginError::Overdue { within, was_sent: false },
            other @ (PluginError::Start { .. }
            | PluginError::Protocol { .. }
            | PluginError::Malformed { .. }
            | PluginError::Refused { .. }
            | PluginError::NoSuchKind { .. }
            | PluginError::NotReady { .. }
            | PluginError::Pausing { .. }
            | PluginError::Stopped { .. }) => other,
        }
    }
}
