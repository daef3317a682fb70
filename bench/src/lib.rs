//! What do the benches share? Starting and ending real processes, asking them over HTTP, and writing down what came out.
//!
//! Each bench is a binary of its own: `cargo run --release -p lidless-bench --bin reaction`. See bench/README.md.

pub mod demo;
pub mod disk;
pub mod figures;
pub mod gaps;
pub mod http;
pub mod journal;
pub mod lidless;
pub mod load;
pub mod peers;
pub mod process;
pub mod report;
pub mod torment;

/// What ends a bench early: a text for people. A bench handles no error, it reports it.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;
