//! How does a run of named steps survive anything? One machinery for heals and pipelines, split by question.
//!
//! `plan`: what are the steps? `run`: where does a run stand? `record`: what does an event change? `drive`: what begins
//! next? `settle`: what does an answer mean? `undo`: how does a run turn round and end? `clock`: what does time change?
//! `retry`: when again? `start`: what begins a run? `queue`: which run has its turn?

pub(crate) mod clock;
pub(crate) mod drive;
pub mod plan;
pub(crate) mod queue;
mod record;
pub mod retry;
pub mod run;
pub(crate) mod settle;
pub(crate) mod start;
pub(crate) mod undo;
