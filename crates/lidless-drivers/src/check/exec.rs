//! What does a command say? Its exit code decides, as the Nagios plugin protocol and shells have it.

use std::error::Error as _;
use std::time::Duration;

use lidless_core::check::{CheckFailure, CheckOutcome, FailureKind};

use super::nagios::PluginOutput;
use super::wording::{Short, first_line};
use super::{BoxFuture, Check, verdict};
use crate::child::{self, CommandSpec, Ended};

/// How much of a command's output is kept.
const OUTPUT_MAX: usize = 64 * 1024;

/// What a command check runs, and how its answer is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExecSettings {
    /// The command. What it leaves behind is its own choice: see `Leftovers`.
    pub command: CommandSpec,
    /// What exit code 1 counts as.
    pub warning: Warning,
}

/// What a warning, exit code 1, counts as.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Warning {
    /// The service works, if not well.
    #[default]
    Pass,
    /// It does not.
    Fail,
}

/// Asks a command.
#[derive(Debug)]
pub struct ExecCheck {
    settings: ExecSettings,
}

/// What a probe by command found out beyond its outcome.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ExecDetails {
    /// The exit code, where there was one.
    pub exit_code: Option<i32>,
    /// What it wrote, read as a plugin's output.
    pub output: PluginOutput,
}

impl ExecCheck {
    /// Prepares a check.
    pub fn new(settings: ExecSettings) -> Self {
        ExecCheck { settings }
    }

    /// Asks once, and returns what else the command said. Ends within `timeout`, and the time to kill what is overdue.
    pub async fn probe_detailed(&self, timeout: Duration) -> (CheckOutcome, ExecDetails) {
        let ended = match child::run(&self.settings.command, None, timeout, OUTPUT_MAX).await {
            Ok(ended) => ended,
            Err(err) => {
                let reason = match err.source() {
                    Some(source) => format!("{err}: {source}"),
                    None => err.to_string(),
                };
                return (CheckOutcome::Inconclusive { reason }, ExecDetails::default());
            }
        };
        let output = PluginOutput::parse(&ended.stdout);
        let outcome = self.judge(&ended, &output, timeout);
        (outcome, ExecDetails { exit_code: ended.code, output })
    }

    fn judge(&self, ended: &Ended, output: &PluginOutput, timeout: Duration) -> CheckOutcome {
        if ended.timed_out {
            let detail = format!("no answer within {}; process group killed", Short(timeout));
            let overdue = Err(verdict::Trouble::target(FailureKind::Timeout, detail));
            return verdict::conclude(overdue, ended.took, timeout);
        }
        let answer = ended.code.map_or(Answer::Bad, |code| answer(code, self.settings.warning));
        match answer {
            Answer::Good => CheckOutcome::Pass { latency: ended.took },
            Answer::Bad => {
                let mut failure = CheckFailure::new(FailureKind::Command, says(ended, output));
                failure.latency = ended.took;
                failure.exit_code = ended.code;
                CheckOutcome::Fail { latency: ended.took, failure }
            }
            Answer::None => CheckOutcome::Inconclusive { reason: says(ended, output) },
        }
    }
}

impl Check for ExecCheck {
    fn probe(&self, timeout: Duration) -> BoxFuture<'_, CheckOutcome> {
        Box::pin(async move { self.probe_detailed(timeout).await.0 })
    }
}

enum Answer {
    Good,
    Bad,
    None,
}

fn answer(code: i32, warning: Warning) -> Answer {
    match (code, warning) {
        (0, _) | (1, Warning::Pass) => Answer::Good,
        // 3 is the protocol's "unknown"; 126 and 127 are the shell's "cannot run it": the service was not asked.
        (3 | 126 | 127, _) => Answer::None,
        // Not in the protocol, but what a plain command ends with when it fails: `curl` with 7, 22 or 28, and a shell whose
        // command was killed with 128 and the signal.
        (_, Warning::Pass | Warning::Fail) => Answer::Bad,
    }
}

/// Returns the command's own words, or else how it ended.
fn says(ended: &Ended, output: &PluginOutput) -> String {
    let how = match (ended.code, ended.signal) {
        (Some(126), _) => "exit code 126: cannot be executed".to_owned(),
        (Some(127), _) => "exit code 127: command not found".to_owned(),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended without an exit code".to_owned(),
    };
    let words = [output.text.clone(), first_line(&ended.stdout), first_line(&ended.stderr)];
    match words.into_iter().find(|words| !words.is_empty()) {
        Some(words) => format!("{words} ({how})"),
        None => how,
    }
}
