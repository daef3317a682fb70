//! Why can a pipeline not be run, not be opened, or not be asked for something?

use lidless_core::effect::Refusal;
use lidless_core::id::RunId;
use lidless_store::JournalError;

use super::Report;
use crate::runtime::{Lost, RecoverError};

/// Why a pipeline was not run. That one of its steps failed is no such error: it is in the [`Report`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// It has no steps.
    #[error("pipeline `{pipeline}` has no steps")]
    NoSteps {
        /// Which one.
        pipeline: String,
    },
    /// A failure could not name its step.
    #[error("pipeline `{pipeline}` has two steps named {step}")]
    SameName {
        /// Which pipeline.
        pipeline: String,
        /// The name.
        step: String,
    },
    /// Nobody is paid twice by a default.
    #[error(
        "step {step} of pipeline `{pipeline}` moves value, so it needs `confirm` or the class `OneShot`: nobody could say \
         after a crash whether it took effect"
    )]
    Value {
        /// Which pipeline.
        pipeline: String,
        /// Which step.
        step: String,
    },
    /// A class that promises an answer that nobody gives.
    #[error("step {step} of pipeline `{pipeline}` is confirmable, so it needs `confirm`")]
    NoConfirm {
        /// Which pipeline.
        pipeline: String,
        /// Which step.
        step: String,
    },
    /// What a run is given has names.
    #[error("the inputs of pipeline `{pipeline}` are no object with names and values: {why}")]
    Inputs {
        /// Which pipeline.
        pipeline: String,
        /// What they are.
        why: String,
    },
    /// The store cannot be used.
    #[error("cannot open the store")]
    Store(#[from] JournalError),
    /// The engine cannot come back from the store.
    #[error("cannot recover from the store")]
    Recover(#[from] RecoverError),
    /// The system allows no further thread.
    #[error("cannot start the store's writer")]
    Thread(#[source] std::io::Error),
    /// The store is the journal of something else, and what is unfinished in it could not be finished here.
    #[error("the store belongs to {whose}; give pipeline `{pipeline}` one of its own")]
    NotOurs {
        /// Which pipeline.
        pipeline: String,
        /// Whose it is.
        whose: String,
    },
    /// An earlier run is not over, and cannot go on by itself.
    #[error(
        "{} waits for a person at {}: {}",
        .0.run, .0.failed_at.as_deref().unwrap_or_default(), .0.error.as_deref().unwrap_or_default()
    )]
    Held(Box<Report>),
    /// As many runs of it are under way as there may be.
    #[error("{0} is under way already")]
    Busy(RunId),
    /// There is no such run any more.
    #[error("there is no such run")]
    NotFound,
    /// The run does not stand where that could be done.
    #[error("it cannot be done now: {0}")]
    NotNow(&'static str),
    /// The engine was closed, or its runtime has ended; an unfinished run is finished by who opens the store next.
    #[error("lidless is ending")]
    Lost,
    /// The store could not be closed in good order.
    #[error("the store was not closed in good order: {0}")]
    Close(String),
}

impl From<Lost> for PipelineError {
    fn from(Lost: Lost) -> PipelineError {
        PipelineError::Lost
    }
}

impl From<Refusal> for PipelineError {
    fn from(why: Refusal) -> PipelineError {
        match why {
            Refusal::NotFound => PipelineError::NotFound,
            Refusal::Busy(run) => PipelineError::Busy(run),
            Refusal::NotNow(why) => PipelineError::NotNow(why),
            // Only what is asked of services is refused so.
            Refusal::NoActuator | Refusal::BudgetSpent { .. } => PipelineError::NotNow("it is no service"),
        }
    }
}
