//! What is lidless made of above its engine? Configuration, runtime, the local API, and the command line.
//!
//! The binary is a thin shell over this library.
//!
//! # Pipelines of your own code
//!
//! A program composes a pipeline from `async` functions and types, and gets the daemon's engine with it: steps run in order,
//! a failure names its step and says why, and with [`Pipeline::store`] a crash at any moment leaves nothing done twice or
//! forgotten.
//!
//! ```
//! use lidless::{Context, Pipeline, StepError};
//!
//! async fn check_health(_: Context) -> Result<&'static str, StepError> { Ok("api and node answer") }
//! async fn rebalance(_: Context) -> Result<(), StepError> { Ok(()) }
//! async fn compound(_: Context) -> Result<u64, StepError> { Ok(137) }
//! async fn harvest(context: Context) -> Result<(), StepError> {
//!     let compounded: u64 = context.output("COMPOUND")?;
//!     Err(format!("gas is above max_fee, for {compounded} gwei"))?
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), lidless::PipelineError> {
//! let report = Pipeline::new("vault")
//!     .step("HEALTH_CHECK", check_health)
//!     .step("REBALANCE", rebalance)
//!     .step("COMPOUND", compound)
//!     .step("HARVEST", harvest)
//!     .run()
//!     .await?;
//! assert!(!report.success);
//! assert_eq!(report.failed_at.as_deref(), Some("HARVEST"));
//! assert_eq!(report.error.as_deref(), Some("gas is above max_fee, for 137 gwei"));
//! # Ok(())
//! # }
//! ```
//!
//! A step that moves value says how it is settled after a crash: see [`StepOptions::value`], [`StepOptions::confirm`] and
//! [`Step`]. Each step can be tried alone with [`Context::test`]. For many runs at once: [`Pipeline::open`].

pub mod api;
pub mod cli;
pub mod compose;
pub mod config;
pub mod demo_service;
pub mod runtime;
pub mod schedule;
pub mod story;
pub mod telemetry;
pub mod words;

pub use compose::{
    Composed, Context, Found, Pipeline, PipelineError, Report, Seen, Step, StepError, StepOptions,
    StepOutcome, StepReport, opts,
};
pub use lidless_core::id::RunId;
pub use lidless_core::pipeline::plan::Class;
