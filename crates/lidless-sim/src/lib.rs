//! Does the engine keep its promises when everything goes wrong? A virtual clock, a fake world, crash points, one seed.
//!
//! `scenario`: what is looked after, and how badly does it go? `world`: services, actuators, a chain, receivers.
//! `act`, `chain`: what becomes of an act, of a step that moves value? `journal`: what survives a crash? `driver`: the
//! daemon's loop in miniature. `matrix`: the same, exhaustively, for one run. `invariants`: what must hold all along? `calm`: does everything mend once faults stop?
//! The dependency list is the proof that core needs no async runtime.

mod act;
mod adoption;
mod calm;
mod chain;
mod driver;
mod effects;
mod invariants;
mod journal;
pub mod matrix;
mod recovery;
mod rng;
mod scenario;
mod schedule;
mod world;

pub use driver::{Findings, Options, rehearse};
