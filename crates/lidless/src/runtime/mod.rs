//! How does the engine meet the world? One dispatcher owns it; probes and acts run beside it and report back.
//!
//! Nothing is decided here: inputs go in, durable records come out first, then their effects are performed.

mod boot;
mod calendar;
mod clock;
pub(crate) mod code;
mod dispatcher;
mod drivers;
mod effects;
pub(crate) mod follow;
mod gather;
mod handle;
mod ledge;
mod notify;
mod outflow;
mod outputs;
pub mod plan;
mod plugins;
mod probed;
mod recover;
mod run_logs;
mod scheduler;
mod slots;
pub mod status;
mod steps;
pub mod systemd_notify;

pub use boot::{BootError, Booted, boot, boot_for_orders, boot_once};
pub use clock::Clock;
pub use dispatcher::Daemon;
pub use drivers::{DriverError, Drivers, build as build_drivers};
pub use handle::{Drained, Handle, Lost, Options, View};
pub use notify::Message as NoticeMessage;
pub use recover::{RecoverError, Recovered, recover};
