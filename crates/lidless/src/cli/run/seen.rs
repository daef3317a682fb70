//! What is shown of a run as it goes by?

use std::collections::BTreeMap;
use std::time::Duration;

use lidless_core::event::{Confirmation, Event, Outcome, Record, Verdict};
use serde::Serialize;
use serde_json::Value;

use super::super::globals::Globals;
use super::super::output::Mark;
use crate::api::EventLine;
use crate::words::{output_text, span};

/// How one step went, for scripts.
#[derive(Clone, Debug, Serialize)]
pub(super) struct StepReport {
    name: String,
    /// "done", "failed", "unknown" or "held".
    state: &'static str,
    /// What it put out, where it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Value>,
    text: String,
    took_ms: u64,
}

/// How far it is of interest to whoever waits.
pub(super) enum End {
    Over(Verdict),
    Held {
        name: String,
        reason: String,
    },
    Stuck {
        name: String,
        reason: String,
    },
    /// Nobody can be asked here.
    Awaits {
        name: String,
    },
}

/// Watches one run go by.
pub(super) struct Seen<'a> {
    globals: &'a Globals,
    run: &'a str,
    names: Vec<String>,
    width: usize,
    /// Somebody sees what is under way.
    terminal: bool,
    /// There is no daemon that could be told anything.
    local: bool,
    /// When each attempt under way began.
    began: BTreeMap<u32, Duration>,
    pub(super) steps: Vec<StepReport>,
    pub(super) end: Option<End>,
}

impl<'a> Seen<'a> {
    pub(super) fn new(
        globals: &'a Globals,
        run: &'a str,
        names: Vec<String>,
        of: usize,
        local: bool,
    ) -> Seen<'a> {
        Seen {
            local,
            globals,
            run,
            width: names.iter().take(of).map(String::len).max().unwrap_or(0),
            names,
            terminal: !globals.json() && globals.style_err.terminal,
            began: BTreeMap::new(),
            steps: Vec::new(),
            end: None,
        }
    }

    /// Takes the next event; `false` once there is nothing more to wait for.
    pub(super) fn take(&mut self, line: &EventLine) -> bool {
        let Record { at, event, .. } = &line.record;
        if event.run().is_none_or(|run| run.to_string() != self.run) {
            return true;
        }
        let took =
            |step: &u32| at.monotonic.saturating_sub(self.began.get(step).copied().unwrap_or(at.monotonic));
        match event {
            Event::StepIntent { step, .. } => {
                self.began.insert(*step, at.monotonic);
                if self.terminal {
                    self.globals.redraw(&format!(" → {} ...", self.name(*step)));
                }
            }
            Event::StepOutcome { step, outcome, .. } => match outcome {
                Outcome::Applied { output } | Outcome::Found { output } => {
                    self.done(*step, output, took(step))
                }
                Outcome::NotApplied { reason }
                | Outcome::Refused { reason }
                | Outcome::Unavailable { reason } => {
                    self.step(*step, Mark::Down, "failed", &format!("failed: {reason}"), took(step));
                }
                Outcome::Missing { reason } => {
                    self.step(*step, Mark::Suspect, "parked", &format!("parked: {reason}"), took(step));
                }
                Outcome::Unknown { reason } => {
                    self.step(
                        *step,
                        Mark::Unknown,
                        "unknown",
                        &format!("outcome unknown: {reason}"),
                        took(step),
                    );
                }
            },
            Event::StepConfirmed { step, answer, .. } => match answer {
                Confirmation::Applied { evidence, output } => {
                    let output = output.clone().unwrap_or_default();
                    self.step(*step, Mark::Step, "done", &format!("it was done: {evidence}"), took(step));
                    if let Some(last) = self.steps.last_mut() {
                        last.output = serde_json::from_str(&output).ok();
                    }
                }
                Confirmation::NotApplied { .. }
                | Confirmation::Failed { .. }
                | Confirmation::StillUnknown { .. } => {
                    self.globals.say(&format!("   {}: {}", self.name(*step), line.text));
                }
            },
            Event::StepRetry { step, .. } => {
                self.globals.say(&format!("   {}: {}", self.name(*step), line.text));
            }
            Event::StepHeld { step, reason, .. } => {
                self.end = Some(End::Held { name: self.name(*step), reason: reason.clone() });
            }
            Event::StepStuck { step, reason, .. } => {
                self.end = Some(End::Stuck { name: self.name(*step), reason: reason.clone() });
            }
            Event::StepFailed { step, reason, .. } => {
                self.step(*step, Mark::Down, "failed", &format!("failed: {reason}"), Duration::ZERO);
            }
            Event::StepSkipped { step, reason, .. } => {
                self.step(*step, Mark::None, "skipped", &format!("skipped: {reason}"), Duration::ZERO);
            }
            Event::StepAwaits { step, .. } if self.local => {
                self.end = Some(End::Awaits { name: self.name(*step) });
            }
            Event::StepAwaits { step, .. } => {
                self.globals.say(&format!("   {}", line.text));
                self.globals.say(&format!("   say yes: lidless approve {} {}", self.run, self.name(*step)));
            }
            Event::RunFinished { verdict, .. } => self.end = Some(End::Over(verdict.clone())),
            Event::StepResolved { .. }
            | Event::StepApproved { .. }
            | Event::RunTurned { undo: true, .. }
            | Event::RunResumed { .. }
            | Event::CancelAsked { .. } => {
                self.globals.say(&format!("   {}", line.text));
            }
            _ => {}
        }
        self.end.is_none()
    }

    fn name(&self, step: u32) -> String {
        self.names.get(step as usize).cloned().unwrap_or_else(|| format!("step {}", step + 1))
    }

    fn done(&mut self, step: u32, output: &str, took: Duration) {
        self.step(step, Mark::Step, "done", &output_text(output), took);
        if let Some(last) = self.steps.last_mut() {
            last.output = serde_json::from_str(output).ok();
        }
    }

    fn step(&mut self, step: u32, mark: Mark, state: &'static str, text: &str, took: Duration) {
        let name = self.name(step);
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if !self.globals.json() {
            let style = &self.globals.style;
            let (shape, took, width) = (style.mark(mark), style.dim(&span(took)), self.width);
            if self.terminal {
                self.globals.redraw("");
            }
            self.globals.print(format!(" {shape} {name:<width$} {text}   {took}").trim_end());
        }
        self.steps.push(StepReport { name, state, output: None, text: text.to_owned(), took_ms });
    }
}
