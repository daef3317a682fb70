//! How does the command line reach the daemon? HTTP with JSON over a Unix socket; the peer's uid decides what it may do.

pub mod client;
mod gate;
mod hooks;
mod host;
mod plan;
mod routes;
mod runs;
mod server;
mod signature;

pub use hooks::Hooks;
pub use plan::{PlanAnswer, Planned};
pub use routes::{EventLine, RestartAnswer, RestartRequest};
pub use runs::{RunAnswer, RunOrder, RunRequest, RunStatus, RunWhat, Runs, StepStatus};
pub use runs::{named, refused, runs as read_runs};
pub use server::{ServeError, Server};
