//! How does a command of the owner's heal a service? It is run as it is written, and its exit code is the answer.

use std::io;
use std::path::Path;
use std::time::Duration;

use lidless_core::event::{Confirmation, Outcome};
use lidless_core::spec::Action;
use lidless_core::time::Now;
use tokio::time::Instant;

use super::Actuator;
use super::inflight::InFlight;
use crate::check::BoxFuture;
use crate::child::{CommandSpec, Ended, Leftovers, run_noted};
use crate::process::launch::chain;
use crate::process::signal::signal_name;

/// How much of what a command says is kept: enough for its first line.
const OUTPUT_MAX: usize = 4096;

/// When to ask again about a command that is still at work.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Runs one command to start or restart, and perhaps another to reload.
#[derive(Clone, Debug)]
pub struct ExecActuator {
    restart: CommandSpec,
    reload: Option<CommandSpec>,
    in_flight: Option<InFlight>,
}

impl ExecActuator {
    /// Runs these commands. What they leave behind stays: a start script's service must outlive the script.
    pub fn new(restart: CommandSpec, reload: Option<CommandSpec>) -> Self {
        let leave = |command| CommandSpec { leftovers: Leftovers::Leave, ..command };
        ExecActuator { restart: leave(restart), reload: reload.map(leave), in_flight: None }
    }

    /// Remembers in this directory which command is at work, so that the next lidless runs no other beside it.
    pub fn remembering(self, slot: &Path) -> io::Result<Self> {
        Ok(ExecActuator { in_flight: Some(InFlight::open(slot)?), ..self })
    }

    /// Makes sure that no command of an earlier act is at work. An `Err` says that one is.
    async fn clear(&self, deadline: Instant) -> Result<(), String> {
        let looked = self.in_flight.as_ref().map_or(Ok(None), InFlight::running);
        let Some(earlier) = looked.map_err(|err| cannot_look(&err))? else { return Ok(()) };
        if earlier.is_overdue() && earlier.ended(deadline).await.map_err(|err| cannot_look(&err))? {
            return Ok(());
        }
        Err(format!("an earlier command is still at work: process {}", earlier.pid))
    }

    /// Waits for a command that another lidless started, for as long as it may take.
    async fn ask(&self, deadline: Instant) -> Confirmation {
        let still = |reason: String, retry_after| Confirmation::StillUnknown { reason, retry_after };
        let waited = async {
            let Some(earlier) = self.in_flight.as_ref().map_or(Ok(None), InFlight::running)? else {
                return Ok(None);
            };
            Ok((!earlier.ended(deadline).await?).then_some(earlier.pid))
        };
        match waited.await {
            // Waiting longer would not teach us more, and the checks can tell whether it helped.
            Ok(None) => still("a command cannot be asked whether it was done".to_owned(), Duration::ZERO),
            Ok(Some(pid)) => still(format!("the command is still at work: process {pid}"), ASK_AGAIN),
            Err(err) => still(cannot_look(&err), ASK_AGAIN),
        }
    }
}

impl Actuator for ExecActuator {
    fn perform(&self, action: Action, timeout: Duration) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let command = match (action, &self.reload) {
                (Action::Start | Action::Restart, _) => &self.restart,
                (Action::Reload, Some(reload)) => reload,
                (Action::Reload, None) => {
                    return Outcome::Unavailable { reason: "there is no command to reload it".to_owned() };
                }
            };
            if let Err(reason) = self.clear(Instant::now() + timeout).await {
                return Outcome::Unavailable { reason };
            }
            let in_flight = self.in_flight.clone();
            let note = move |pid| {
                // The heal goes on: what cannot be remembered can still help.
                if let Some(Err(err)) = in_flight.map(|last| last.note(pid, timeout)) {
                    tracing::warn!(pid, error = %err, "A command at work could not be recorded.");
                }
            };
            match run_noted(command, None, timeout, OUTPUT_MAX, note).await {
                Ok(ended) => judge(&ended),
                Err(err) => Outcome::Unavailable { reason: chain(&err) },
            }
        })
    }

    fn confirm(&self, _action: Action, _intent_at: Now, timeout: Duration) -> BoxFuture<'_, Confirmation> {
        Box::pin(self.ask(Instant::now() + timeout))
    }
}

fn cannot_look(err: &io::Error) -> String {
    format!("cannot tell whether an earlier command is still at work: {err}")
}

fn judge(ended: &Ended) -> Outcome {
    let took = ended.took.as_secs_f64();
    if ended.timed_out {
        // How far it came, nobody knows.
        return Outcome::Unknown { reason: format!("killed at its deadline after {took:.1} s") };
    }
    let said = first_line(&ended.stderr).or_else(|| first_line(&ended.stdout));
    let with_words = |how: String| match &said {
        Some(line) => format!("{how}: {line}"),
        None => how,
    };
    match (ended.code, ended.signal) {
        (Some(0), _) => Outcome::Applied { output: format!("exit 0 in {took:.1} s") },
        // By custom of shells: found but not executable, and not found.
        (Some(code @ (126 | 127)), _) => Outcome::Unavailable { reason: with_words(format!("exit {code}")) },
        (Some(code), _) => Outcome::NotApplied { reason: with_words(format!("exit {code}")) },
        // Ended half way by somebody else.
        (None, Some(signal)) => {
            Outcome::Unknown { reason: with_words(format!("killed by {}", signal_name(signal))) }
        }
        (None, None) => Outcome::Unknown { reason: with_words("ended nobody knows how".to_owned()) },
    }
}

fn first_line(text: &[u8]) -> Option<String> {
    const CHARS_MAX: usize = 200;
    let text = String::from_utf8_lossy(text);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().filter(|character| !character.is_control()).take(CHARS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn perform(script: &str, timeout: Duration) -> Outcome {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        let actuator = ExecActuator::new(CommandSpec { argv, ..CommandSpec::default() }, None);
        actuator.perform(Action::Restart, timeout).await
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn the_exit_code_is_the_answer() {
        let applied = perform("echo done", LONG).await;
        assert!(matches!(applied, Outcome::Applied { output } if output.starts_with("exit 0 in 0.")));
        let reason = "exit 3: no such unit".to_owned();
        assert_eq!(
            perform("echo; echo no such unit >&2; exit 3", LONG).await,
            Outcome::NotApplied { reason }
        );
        let reason = "exit 4: said on stdout".to_owned();
        assert_eq!(perform("echo said on stdout; exit 4", LONG).await, Outcome::NotApplied { reason });
        assert!(matches!(perform("/no/such/command", LONG).await, Outcome::Unavailable { .. }));
        let reason = "killed by SIGUSR1".to_owned();
        assert_eq!(perform("kill -USR1 $$", LONG).await, Outcome::Unknown { reason });
    }

    #[tokio::test]
    async fn a_command_that_does_not_end_leaves_doubt() {
        let outcome = perform("sleep 1000", Duration::from_millis(50)).await;
        assert!(
            matches!(outcome, Outcome::Unknown { reason } if reason.starts_with("killed at its deadline"))
        );
    }

    #[tokio::test]
    async fn a_command_that_cannot_be_started_is_no_attempt() {
        let argv = vec!["/no/such/program".to_owned()];
        let actuator = ExecActuator::new(CommandSpec { argv, ..CommandSpec::default() }, None);
        let outcome = actuator.perform(Action::Restart, LONG).await;
        assert!(matches!(outcome, Outcome::Unavailable { reason } if reason.contains("/no/such/program")));
    }

    #[tokio::test]
    async fn reload_has_a_command_of_its_own() {
        let command = |script: &str| {
            let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
            CommandSpec { argv, ..CommandSpec::default() }
        };
        let actuator = ExecActuator::new(command("exit 3"), Some(command("exit 0")));
        assert!(matches!(actuator.perform(Action::Reload, LONG).await, Outcome::Applied { .. }));
        assert!(matches!(actuator.perform(Action::Start, LONG).await, Outcome::NotApplied { .. }));
        let actuator = ExecActuator::new(command("exit 0"), None);
        assert!(matches!(actuator.perform(Action::Reload, LONG).await, Outcome::Unavailable { .. }));
    }
}
