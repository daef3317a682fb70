//! What may be said about a step beside what it does?

use std::sync::Arc;
use std::time::Duration;

use lidless_core::pipeline::plan::Class;
use lidless_core::spec::Backoff;

use super::step::{Ask, IntoStep, Made};

const MINUTE: Duration = Duration::from_secs(60);
/// How often doubt is put to whoever can tell, and how often a step that is harmless is done again after a crash.
const TRIES: u32 = 10;

/// What is said about a step beside what it does. What is left out is as in a configuration.
#[derive(Clone)]
pub struct StepOptions {
    pub(super) attempts: u32,
    pub(super) backoff: Backoff,
    pub(super) timeout: Duration,
    pub(super) class: Option<Class>,
    pub(super) value: bool,
    pub(super) confirm: Option<Arc<dyn Ask>>,
    pub(super) tries: u32,
    pub(super) undo: Option<Made>,
}

/// Returns the options of a step of which nothing is said.
pub fn opts() -> StepOptions {
    StepOptions {
        attempts: 1,
        backoff: Backoff { min: Duration::from_secs(1), max: MINUTE },
        timeout: MINUTE,
        class: None,
        value: false,
        confirm: None,
        tries: TRIES,
        undo: None,
    }
}

impl StepOptions {
    /// Attempts in all, after proven failures. Default: 1.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> StepOptions {
        self.attempts = attempts.max(1);
        self
    }

    /// The first and the longest wait before another attempt; it doubles. Default: 1 s to 1 min.
    #[must_use]
    pub fn backoff(mut self, min: Duration, max: Duration) -> StepOptions {
        self.backoff = Backoff { min, max: max.max(min) };
        self
    }

    /// The longest that one attempt may take. Default: 1 min.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> StepOptions {
        self.timeout = timeout;
        self
    }

    /// What may be done when nobody knows whether it took effect. Default: what a type says of itself; confirmable with
    /// [`StepOptions::confirm`]; else idempotent.
    #[must_use]
    pub fn class(mut self, class: Class) -> StepOptions {
        self.class = Some(class);
        self
    }

    /// It moves value: it waits while the journal cannot be trusted, and must be confirmable or one-shot.
    #[must_use]
    pub fn value(mut self) -> StepOptions {
        self.value = true;
        self
    }

    /// Who is asked whether it took effect, after a crash or a time-out. It only looks.
    #[must_use]
    pub fn confirm(mut self, ask: impl Ask) -> StepOptions {
        self.confirm = Some(Arc::new(ask));
        self
    }

    /// What takes it back: a function or a [`Step`](crate::Step), which learns from [`Context::undoes`](crate::Context::undoes)
    /// what. Where a later step fails, what was done before it is taken back in reverse; where something of it that moves value
    /// cannot be, a person is waited for.
    #[must_use]
    pub fn undo<Form>(mut self, step: impl IntoStep<Form>) -> StepOptions {
        self.undo = Some(step.into_step());
        self
    }

    /// How often it is asked before a person is. Default: 10.
    #[must_use]
    pub fn tries(mut self, tries: u32) -> StepOptions {
        self.tries = tries.max(1);
        self
    }
}
