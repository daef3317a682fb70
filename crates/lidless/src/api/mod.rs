//! How does the command line reach the daemon? HTTP with JSON over a Unix socket; the peer's uid decides what it may do.

pub mod client;
mod gate;
mod host;
mod routes;
mod runs;
mod server;

pub use routes::{EventLine, RestartAnswer, RestartRequest};
pub use runs::{RunAnswer, RunOrder, RunRequest, RunStatus, RunWhat, Runs, StepStatus};
pub use server::{ServeError, Server};
