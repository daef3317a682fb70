//! How does lidless touch the world? Checks ask it, actuators and steps change it. One folder a port, one file a kind.
//!
//! Drivers decide nothing: they answer within their deadline, and say "inconclusive" or "unknown" where they do not know.

pub mod actuator;
pub mod check;
pub mod child;
pub mod process;
pub mod step;
pub mod systemd;
