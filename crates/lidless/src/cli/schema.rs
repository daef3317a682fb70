//! `lidless schema`: what does an editor need to know about the configuration?

use super::exit::Exit;
use super::globals::Globals;
use crate::config;

/// Prints the JSON Schema of the configuration, for editors.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  lidless schema > lidless.schema.json\n\n\
    Then begin the configuration with:\n  # yaml-language-server: $schema=./lidless.schema.json")]
pub struct SchemaArgs {}

/// Prints the schema.
pub fn run(_args: &SchemaArgs, globals: &Globals) -> Exit {
    globals.document(&config::schema());
    Exit::Ok
}
