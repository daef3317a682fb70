//! How does a Rust program compose a pipeline of its own code? Steps are closures or types; the engine is the daemon's.
//!
//! * `step` and `context`: what a step is, what it is told and may ask for; `failure`: how it says that it failed
//! * `pipeline` and `options`: what is put together; `composed`: what then runs; `report`: how it went
//! * `code`: how the driver of steps calls the program; `progress`: how records become a report

mod code;
mod composed;
mod context;
mod failure;
mod options;
mod pipeline;
mod problem;
mod progress;
mod report;
mod step;

pub use lidless_drivers::step::Undoes;

pub use composed::Composed;
pub use context::Context;
pub use failure::StepError;
pub use options::{StepOptions, opts};
pub use pipeline::Pipeline;
pub use problem::PipelineError;
pub use report::{Report, Seen, StepOutcome, StepReport};
pub use step::{Ask, Found, IntoStep, OfFunction, OfType, Step};
