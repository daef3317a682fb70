//! Is a step that may have gone on without lidless asked for its own answer before anything is decided about it?

use std::collections::BTreeSet;

use lidless_core::event::{Event, Outcome, Record};
use lidless_core::id::RunId;

/// The steps that may go on, and those of them in doubt that nobody has asked yet.
#[derive(Debug, Default)]
pub(crate) struct Adoption {
    adoptable: BTreeSet<(RunId, u32)>,
    unasked: BTreeSet<(RunId, u32)>,
}

impl Adoption {
    /// Judges one record, and follows it.
    pub(crate) fn take(&mut self, record: &Record) -> Result<(), String> {
        match &record.event {
            Event::RunCreated { run, plan, .. } => {
                let steps = (0_u32..).zip(plan.steps()).filter(|(_, spec)| spec.adoptable);
                self.adoptable.extend(steps.map(|(step, _)| (*run, step)));
            }
            Event::StepOutcome { run, step, outcome: Outcome::Unknown { .. }, .. }
                if self.adoptable.contains(&(*run, *step)) =>
            {
                self.unasked.insert((*run, *step));
            }
            Event::StepConfirmed { run, step, .. } | Event::StepResolved { run, step, .. } => {
                self.unasked.remove(&(*run, *step));
            }
            Event::StepRetry { run, step, .. }
            | Event::StepHeld { run, step, .. }
            | Event::StepFailed { run, step, .. }
            | Event::StepIntent { run, step, .. }
                if self.unasked.contains(&(*run, *step)) =>
            {
                return Err(format!("(2) step {step} of {run} may go on, and is decided about unasked"));
            }
            _ => {}
        }
        Ok(())
    }
}
