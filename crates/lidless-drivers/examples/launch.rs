//! What does a program need to do to run managed processes? Be its own launcher. The tests use it as both.
//!
//! `launch __launch SLOT` is the launcher. `launch manage SLOT OUTPUT SCRIPT` starts a shell script and restarts it for ever.
//! `launch act SLOT MILLISECONDS SCRIPT` runs a shell script as the command that restarts a service.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use lidless_core::spec::Action;
use lidless_drivers::actuator::Actuator;
use lidless_drivers::actuator::exec::ExecActuator;
use lidless_drivers::actuator::process::ProcessActuator;
use lidless_drivers::child::CommandSpec;
use lidless_drivers::process::{LAUNCH_COMMAND, ManagedProcess, ProcessSettings, launch_main};

fn main() -> ExitCode {
    // First of all: the launcher must not have threads.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == LAUNCH_COMMAND) {
        return launch_main(args);
    }
    let args: Vec<_> = std::env::args().skip(2).collect();
    let [slot, second, script] = args.as_slice() else {
        eprintln!("usage: launch manage SLOT OUTPUT SCRIPT | launch act SLOT MILLISECONDS SCRIPT");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    if let Ok(timeout) = second.parse() {
        return runtime.block_on(act(Path::new(slot), script, Duration::from_millis(timeout)));
    }
    let output = second;
    runtime.block_on(async {
        let settings = ProcessSettings::new(["sh", "-c", script], output);
        match ManagedProcess::open(settings, Path::new(slot)) {
            Ok(process) => manage(process).await,
            Err(err) => {
                eprintln!("error: {err}");
                ExitCode::FAILURE
            }
        }
    })
}

async fn act(slot: &Path, script: &str, timeout: Duration) -> ExitCode {
    let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    let command = CommandSpec { argv, ..CommandSpec::default() };
    match ExecActuator::new(command, None).remembering(slot) {
        Ok(actuator) => {
            println!("{:?}", actuator.perform(Action::Restart, timeout).await);
            ExitCode::SUCCESS
        }
        Err(err) => {
            eprintln!("error: {err}");
            ExitCode::FAILURE
        }
    }
}

async fn manage(process: ManagedProcess) -> ExitCode {
    let actuator = ProcessActuator::new(Arc::new(process), Arc::new(|| Duration::ZERO));
    let timeout = Duration::from_secs(10);
    println!("{:?}", actuator.perform(Action::Start, timeout).await);
    loop {
        println!("{:?}", actuator.perform(Action::Restart, timeout).await);
    }
}
