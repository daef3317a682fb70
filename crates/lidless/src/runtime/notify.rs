//! How is the world told? Each message goes to the log, and to every command that the configuration names.

use std::time::Duration;

use lidless_core::engine::Engine;
use lidless_core::event::Notice;
use lidless_core::id::{NoticeId, ServiceId};
use lidless_drivers::child::{self, CommandSpec};
use serde::Serialize;

use crate::words;

/// How long one delivery may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How much of a notifier's output is kept for its error message.
const OUTPUT_MAX: usize = 4096;

/// What is told, as JSON on the command's standard input.
#[derive(Clone, Debug, Serialize)]
pub struct Message {
    /// The form of this document.
    pub schema: &'static str,
    /// Tells copies of one message apart from two messages: delivery is at least once.
    pub id: u64,
    /// The word: "gave_up", "will_not_heal", "actuator_unavailable", "resolved", "run_held", "store_degraded".
    pub kind: &'static str,
    /// The installation.
    pub site: String,
    /// Whose, by name.
    pub service: Option<String>,
    /// Which incident: "inc-7".
    pub incident: Option<String>,
    /// One line for people.
    pub text: String,
}

impl Message {
    /// Puts a message of the outbox into words; none if nobody owes it any more.
    pub(super) fn of(engine: &Engine, notice: NoticeId) -> Option<Message> {
        let state = engine.state();
        let what = &state.outbox.get(&notice)?.what;
        let name =
            |id: ServiceId| state.services.get(id.index()).map_or_else(String::new, |s| s.name.clone());
        let why = |what: &Notice| {
            let incident = what.incident().and_then(|id| state.incidents.get(&id))?;
            Some(format!(": {}", incident.failure.detail))
        };
        let cause = why(what).unwrap_or_default();
        let (kind, service, text) = match what {
            Notice::GaveUp { service, attempts, .. } => {
                let name = name(*service);
                let text = format!(
                    "{name} is down{cause}; its budget is spent ({attempts} heals did not keep it up); trying slowly now"
                );
                ("gave_up", Some(name), text)
            }
            Notice::WillNotHeal { service, because, .. } => {
                let reason = words::because_text(because, name);
                let name = name(*service);
                let text = format!("{name} is down{cause}; not healed because {reason}");
                ("will_not_heal", Some(name), text)
            }
            Notice::ActuatorUnavailable { service, reason, .. } => {
                let name = name(*service);
                let text = format!("{name} is down{cause}; it cannot be healed: {reason}");
                ("actuator_unavailable", Some(name), text)
            }
            Notice::Resolved { service, .. } => {
                let name = name(*service);
                let text = format!("{name} is up again");
                ("resolved", Some(name), text)
            }
            Notice::RunHeld { run, step, reason } => {
                ("run_held", None, format!("{run} waits for a person at {step}: {reason}"))
            }
            Notice::ApprovalAsked { run, step, ask } => {
                let ask = if ask.is_empty() { String::new() } else { format!(": {ask}") };
                let text = format!("{run} waits for a yes at {step}{ask}; lidless approve {run} {step}");
                ("approval_asked", None, text)
            }
            Notice::StoreDegraded { reason } => (
                "store_degraded",
                None,
                format!("the journal cannot be written: {reason}; healing goes on without it"),
            ),
        };
        Some(Message {
            schema: "lidless/notice/1",
            id: notice.0,
            kind,
            site: state.spec.site.clone(),
            service,
            incident: what.incident().map(|id| id.to_string()),
            text,
        })
    }
}

/// Somebody to tell.
#[derive(Clone, Debug)]
pub(super) struct Notifier {
    name: String,
    command: CommandSpec,
}

impl Notifier {
    /// Returns a notifier that runs a command with the message on its standard input.
    pub(super) fn exec(name: String, command: CommandSpec) -> Notifier {
        Notifier { name, command }
    }

    /// Its name in the configuration.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Delivers once. `Err` says why it was not taken.
    pub(super) async fn deliver(&self, message: &Message) -> Result<(), String> {
        let input = serde_json::to_vec(message).map_err(|err| err.to_string())?;
        let ended = child::run(&self.command, Some(&input), TIMEOUT, OUTPUT_MAX).await;
        let ended = ended.map_err(|err| err.to_string())?;
        if ended.timed_out {
            return Err(format!("no end within {TIMEOUT:?}"));
        }
        match ended.code {
            Some(0) => Ok(()),
            Some(code) => {
                let said = String::from_utf8_lossy(&ended.stderr);
                Err(format!("exit {code}: {}", said.lines().next().unwrap_or("")))
            }
            None => Err("killed by a signal".to_owned()),
        }
    }
}
