//! How does a run of named steps survive anything? One machinery for heals and pipelines, split by question.
//!
//! `plan`: what are the steps? `run`: where does a run stand? `drive`: what does it do next? `retry`: when again?
//! `settle`: what does an answer mean?

pub(crate) mod drive;
pub mod plan;
pub mod retry;
pub mod run;
pub(crate) mod settle;
