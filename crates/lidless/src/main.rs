//! What is this process to be? A launcher that becomes a service, or the command line.

use std::process::ExitCode;

use lidless_drivers::process::{LAUNCH_COMMAND, launch_main};

fn main() -> ExitCode {
    // Before anything else: how soon a killed service is back depends on this, and the launcher must have no threads.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|verb| verb == LAUNCH_COMMAND) {
        return launch_main(args);
    }
    lidless::cli::main()
}
