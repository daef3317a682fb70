//! What does lidless decide? The pure engine: no IO, no clock, no randomness; the same inputs give the same turns.
//!
//! `Engine::handle` is the only place that decides, `State::apply` the only place that changes durable state. The daemon,
//! the simulator and the report run this same code.

mod applied_config;
pub mod apply;
mod because;
pub mod check;
mod command;
mod configure;
pub mod effect;
pub mod engine;
pub mod event;
pub mod health;
pub mod id;
pub mod incident;
pub mod kept;
pub mod notice;
pub mod outbox;
pub mod outcome;
pub mod pipeline;
pub mod policy;
mod probing;
pub mod report;
pub mod spec;
pub mod state;
pub mod time;
pub mod trigger;
mod turning;
mod wakes;
mod watch;
