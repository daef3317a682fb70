//! What should lidless look after? From YAML files to the engine's spec and the drivers' settings, or to every problem at once.
//!
//! The way of a file: [`yaml`] makes a tree of text whose pieces know their places; `read` makes a typed [`model`] of it, by
//! the table in [`shape`]; `validate` holds the parts against each other; [`resolve`] fills in defaults. Each stage goes on
//! after a problem, so that a file with five mistakes takes one run of `lidless check` and not five.

mod load;
pub mod model;
pub mod node;
pub mod problem;
mod read;
pub mod resolve;
mod schema;
pub mod secret;
pub mod settings;
pub mod shape;
pub mod units;
mod validate;
pub mod yaml;

pub use load::{Loaded, from_str, load, load_with};
pub use problem::{Problem, Problems, Severity};
pub use resolve::Secrets;
pub use schema::schema;
pub use secret::Secret;
pub use settings::Resolved;
