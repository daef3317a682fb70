//! What is lidless made of above its engine? Configuration, runtime, the local API, and the command line.
//!
//! The binary is a thin shell over this library.

pub mod api;
pub mod cli;
pub mod config;
pub mod demo_service;
pub mod runtime;
pub mod schedule;
pub mod story;
pub mod telemetry;
pub mod words;
