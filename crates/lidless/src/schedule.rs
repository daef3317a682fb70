//! What does a calendar of cron say, and in which zone?

mod moments;

pub use moments::{Moments, next_after};
