//! Which steps are code of the program that lidless is a part of? By pipeline, then by step.
//!
//! What a run pins of such a step is its name: after a crash the code is found again under it.

use std::collections::HashMap;
use std::sync::Arc;

use lidless_drivers::step::Step;

/// The word of their kind in the journal.
pub(crate) const KIND: &str = "code";

/// The steps that are code.
#[derive(Clone, Default)]
pub(crate) struct CodeSteps(HashMap<String, HashMap<String, Arc<dyn Step>>>);

impl CodeSteps {
    /// Takes the steps of a pipeline.
    pub(crate) fn of(pipeline: &str, steps: HashMap<String, Arc<dyn Step>>) -> CodeSteps {
        CodeSteps(HashMap::from([(pipeline.to_owned(), steps)]))
    }

    /// Returns the step; an `Err` says that there is none.
    pub(super) fn find(&self, pipeline: &str, step: &str) -> Result<Arc<dyn Step>, String> {
        let found = self.0.get(pipeline).and_then(|steps| steps.get(step));
        found.cloned().ok_or_else(|| format!("this program has no step {step} in pipeline `{pipeline}`"))
    }
}
