//! When is a check down? Debounces outcomes into one `Health`.
//!
//! Knows nothing of sockets or clocks: an answer comes in, the next health goes out. Rise and fall are counted in
//! consecutive answers; time enters only through how soon the next probe follows (`Engine::probe_plan`).

use serde::{Deserialize, Serialize};

/// The debounced verdict on one check.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Health {
    /// Nobody could ask, or nobody has asked yet. Neither up nor down.
    #[default]
    Unknown,
    /// The last answers were passes.
    Up,
    /// Failing, but not yet often enough to believe it.
    Suspect {
        /// Consecutive failures so far, at least 1.
        fails: u32,
    },
    /// Failed `fail_after` times in a row, or for certain.
    Down,
    /// Was down; passing, but not yet often enough to believe it.
    Recovering {
        /// Consecutive passes so far, at least 1.
        passes: u32,
    },
}

impl Health {
    /// Whether users are held to feel it: down, or not yet recovered.
    pub fn is_down(self) -> bool {
        matches!(self, Health::Down | Health::Recovering { .. })
    }

    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Health::Unknown => "unknown",
            Health::Up => "up",
            Health::Suspect { .. } => "suspect",
            Health::Down => "down",
            Health::Recovering { .. } => "recovering",
        }
    }
}

/// An outcome as debouncing sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The target is well.
    Pass,
    /// The target is not well, as far as one probe can tell.
    Fail,
    /// The target is not well, and no second probe could say otherwise.
    FailCertain,
}

/// How many answers in a row it takes to change one's mind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thresholds {
    /// Consecutive failures until `Down`, at least 1.
    pub fail_after: u32,
    /// Consecutive passes from `Down` until `Up`, at least 1.
    pub recover_after: u32,
}

/// Returns the health after one more answer.
///
/// `in_incident` says that an open incident counts this check: then a pass after `Unknown` begins a recovery instead of
/// ending it, since the last thing known of the target was that it was down.
pub fn next(health: Health, answer: Answer, limits: Thresholds, in_incident: bool) -> Health {
    match (answer, health) {
        (Answer::FailCertain, _) => Health::Down,
        (Answer::Fail, Health::Unknown | Health::Up) => suspect(1, limits),
        (Answer::Fail, Health::Suspect { fails }) => suspect(fails.saturating_add(1), limits),
        (Answer::Fail, Health::Down | Health::Recovering { .. }) => Health::Down,
        (Answer::Pass, Health::Up | Health::Suspect { .. }) => Health::Up,
        (Answer::Pass, Health::Unknown) if !in_incident => Health::Up,
        (Answer::Pass, Health::Unknown | Health::Down) => recovering(1, limits),
        (Answer::Pass, Health::Recovering { passes }) => recovering(passes.saturating_add(1), limits),
    }
}

fn suspect(fails: u32, limits: Thresholds) -> Health {
    if fails >= limits.fail_after { Health::Down } else { Health::Suspect { fails } }
}

fn recovering(passes: u32, limits: Thresholds) -> Health {
    if passes >= limits.recover_after { Health::Up } else { Health::Recovering { passes } }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds words (pass, fail, dead) to a fresh check and returns the healths passed through.
    fn check(fail_after: u32, recover_after: u32, answers: &str, expected: &str) {
        let mut health = Health::Unknown;
        let mut seen = Vec::new();
        for word in answers.split_whitespace() {
            let answer = match word {
                "pass" => Answer::Pass,
                "fail" => Answer::Fail,
                _ => Answer::FailCertain,
            };
            health = next(health, answer, Thresholds { fail_after, recover_after }, false);
            seen.push(match health {
                Health::Suspect { fails } => format!("suspect({fails})"),
                Health::Recovering { passes } => format!("recovering({passes})"),
                other => other.word().to_owned(),
            });
        }
        assert_eq!(seen.join(" "), expected, "{fail_after}/{recover_after}: {answers}");
    }

    #[test]
    fn three_failures_in_a_row_are_down() {
        check(3, 2, "pass fail fail fail", "up suspect(1) suspect(2) down");
    }

    #[test]
    fn a_pass_in_between_starts_the_count_again() {
        check(2, 2, "pass fail pass fail fail", "up suspect(1) up suspect(1) down");
    }

    #[test]
    fn recovery_takes_passes_in_a_row() {
        check(1, 2, "fail pass fail pass pass", "down recovering(1) down recovering(1) up");
    }

    #[test]
    fn a_certain_failure_needs_no_second_opinion() {
        check(3, 1, "pass dead pass", "up down up");
    }

    #[test]
    fn a_first_pass_is_up_at_once_but_not_within_an_incident() {
        let limits = Thresholds { fail_after: 2, recover_after: 2 };
        assert_eq!(next(Health::Unknown, Answer::Pass, limits, false), Health::Up);
        assert_eq!(next(Health::Unknown, Answer::Pass, limits, true), Health::Recovering { passes: 1 });
    }
}
