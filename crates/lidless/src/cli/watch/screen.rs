//! What does `lidless watch` show while it runs? Lines for a person at a terminal, records for a script.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;

use lidless_core::event::Event;
use lidless_core::health::Health;
use lidless_core::id::ServiceId;
use lidless_core::report::Report;

use super::WatchArgs;
use super::plan::Plan;
use crate::api::EventLine;
use crate::cli::Globals;
use crate::runtime::Handle;
use crate::words::{Told, span};

/// What the person at the terminal sees, and what scripts read where there is none.
pub(super) struct Screen<'a> {
    plan: &'a Plan,
    args: &'a WatchArgs,
    globals: &'a Globals,
    lines: bool,
    report: Report,
    heals: BTreeSet<u64>,
}

impl<'a> Screen<'a> {
    pub(super) fn new(plan: &'a Plan, args: &'a WatchArgs, globals: &'a Globals) -> Screen<'a> {
        let lines = globals.json() || (!std::io::stdout().is_terminal() && !args.once);
        Screen { plan, args, globals, lines, report: Report::default(), heals: BTreeSet::new() }
    }

    pub(super) fn begin(&self) {
        if self.lines || self.args.once {
            return;
        }
        let heal = match &self.plan.heals {
            Some(heal) => format!("{heal} ({} tries in {})", self.plan.tries, self.plan.per),
            None => "only tell".to_owned(),
        };
        let fails = self.args.fail_after.unwrap_or(3);
        self.globals.say(&format!(
            "watching {} every {}; after {fails} failures: {heal}",
            self.plan.label, self.args.every
        ));
    }

    pub(super) async fn show(&mut self, told: &Told, handle: &Handle) {
        if let Err(err) = self.report.apply(&told.record) {
            self.globals.say(&format!("a bug in lidless: {err}"));
        }
        if self.lines {
            if let Ok(line) = serde_json::to_string(&EventLine::from(told.clone())) {
                self.globals.print(&line);
            }
            return;
        }
        let line = match &told.record.event {
            Event::HealthChanged { to, .. } => {
                let detail = match to {
                    Health::Up => self.latency(handle).await,
                    _ => told.text.clone(),
                };
                Some(self.globals.health_line(*to, &detail))
            }
            Event::StepIntent { .. } => Some(self.globals.arrow_line(&told.text)),
            Event::StepOutcome { .. }
            | Event::GaveUp { .. }
            | Event::HealHeld { .. }
            | Event::BackedOff { .. } => Some(format!("  {}", told.text)),
            Event::RunCreated { run, .. } => {
                self.heals.insert(run.0);
                None
            }
            _ => None,
        };
        if let Some(line) = line {
            let line = format!("{} {line}", self.globals.clock_time());
            if self.args.once { self.globals.say(&line) } else { self.globals.print(&line) }
        }
    }

    async fn latency(&self, handle: &Handle) -> String {
        let read =
            handle.query(|view| view.engine.observed(lidless_core::id::CheckId(0)).map(|seen| seen.latency));
        read.await.ok().flatten().map_or_else(String::new, |latency| format!("answered in {}", span(latency)))
    }

    pub(super) fn end(&self, now: lidless_core::time::Now, probes: u64) {
        let up = self.report.uptime(ServiceId(0), now);
        let share = up
            .up_ppm()
            .map_or_else(String::new, |ppm| format!(", {}.{:02} %", ppm / 10_000, ppm % 10_000 / 100));
        let ran = span(up.up + up.down + up.unmeasured);
        self.globals.say(&format!(
            "ran {ran}: {probes} checks, {} outages ({}{share}), {} heals.  Keep it: the same command with --save",
            up.incidents,
            span(up.down),
            self.heals.len()
        ));
    }
}
