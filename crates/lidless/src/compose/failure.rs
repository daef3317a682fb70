//! How does a step say that it failed? By any error; where it knows more, by what that says about the effect.

use std::error::Error;
use std::fmt;

use lidless_drivers::step::FailureClass;

/// Why a step failed, and what that says about its effect.
///
/// Everything that is an error, and a plain text, becomes one with `?`; its whole chain of causes is the reason. Such an error
/// does not say whether the step took effect. Where that could matter, in a [`Class::Confirmable`](crate::Class) or
/// [`Class::OneShot`](crate::Class) step, it is in doubt then; all others have just failed, and may be tried again.
///
/// It is no [`std::error::Error`] itself, for else no error could become one.
#[derive(Clone, PartialEq, Eq)]
pub struct StepError {
    reason: String,
    /// None: it does not say.
    class: Option<FailureClass>,
}

impl StepError {
    /// It had no effect, and another attempt may do better.
    pub fn transient(reason: impl Into<Box<dyn Error + Send + Sync>>) -> StepError {
        StepError::of(reason, FailureClass::Transient)
    }

    /// It had no effect, and another attempt would fail as well.
    pub fn permanent(reason: impl Into<Box<dyn Error + Send + Sync>>) -> StepError {
        StepError::of(reason, FailureClass::Permanent)
    }

    /// Nobody knows whether it took effect.
    pub fn unknown(reason: impl Into<Box<dyn Error + Send + Sync>>) -> StepError {
        StepError::of(reason, FailureClass::Unknown)
    }

    /// The reason, with its causes.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What it says of the effect of a step. A strict one must not be done twice.
    pub(super) fn class(&self, strict: bool) -> FailureClass {
        let unsaid = if strict { FailureClass::Unknown } else { FailureClass::Transient };
        self.class.unwrap_or(unsaid)
    }

    fn of(reason: impl Into<Box<dyn Error + Send + Sync>>, class: FailureClass) -> StepError {
        StepError { reason: chain(&*reason.into()), class: Some(class) }
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for StepError {
    fn from(err: E) -> StepError {
        StepError { reason: chain(&*err.into()), class: None }
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl fmt::Debug for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class {
            None => f.write_str(&self.reason),
            Some(class) => write!(f, "{} ({class:?})", self.reason),
        }
    }
}

/// An error with its causes in one line. Many an error repeats its cause in its own text: then it is said once.
fn chain(err: &(dyn Error + 'static)) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        let said = err.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = err.source();
    }
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the ledger")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn any_error_says_its_causes_once_and_leaves_the_effect_open() {
        let io = || std::io::Error::other("disk gone");
        let boxed: Box<dyn Error + Send + Sync> = Box::new(Outer(io()));
        for (err, text) in [
            (StepError::from("gas is above max_fee"), "gas is above max_fee"),
            (StepError::from("two\n  lines\n".to_owned()), "two; lines"),
            (StepError::from(Outer(io())), "cannot read the ledger: disk gone"),
            (StepError::from(boxed), "cannot read the ledger: disk gone"),
            (StepError::from(io()), "disk gone"),
        ] {
            assert_eq!(err.reason(), text);
            assert_eq!(err.class(false), FailureClass::Transient);
            assert_eq!(err.class(true), FailureClass::Unknown, "nobody may guess");
        }
        assert_eq!(StepError::transient("no").class(true), FailureClass::Transient, "it says so");
    }
}
