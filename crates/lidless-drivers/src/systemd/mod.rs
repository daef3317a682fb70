//! How is systemd asked and told? Over D-Bus: `bus` is the connection, `unit` reads the state of one unit, `transient` makes one.
//!
//! The check and the actuator of kind `systemd` are built on it. Where there is no D-Bus, as in most containers, every
//! question ends in an error that says so; nothing else is tried.

mod bus;
pub(crate) mod transient;
pub(crate) mod unit;

pub use bus::{Bus, BusError};
pub(crate) use bus::{Call, SYSTEMD};
