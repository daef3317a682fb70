//! What can be typed? The verbs, the flags that they share, and how they end.
//!
//! stdout is data and stderr is words ([`output`]); every ending has its exit code ([`exit`]); a verb is a module with its
//! `Args` and a `run`.

pub mod check;
pub mod completions;
mod daemon;
pub mod demo;
pub mod events;
pub mod exit;
pub mod explain;
mod globals;
pub mod incidents;
mod init;
mod live;
mod log;
pub mod output;
pub mod restart;
pub mod run;
pub mod runs;
mod save;
pub mod schema;
pub mod serve;
mod since;
pub mod status;
pub mod store;
mod triggers;
mod waiting;
pub mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub use daemon::socket_for_store;
pub use exit::{Exit, Failure};
pub use globals::{GlobalArgs, Globals};

use crate::demo_service::{self, DemoServiceArgs};

/// The verbs in the order in which one meets them. Every verb that is not hidden stands here once.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Start", &["demo", "check", "serve", "schema", "completions", "man"]),
    ("See", &["status", "events", "incidents", "runs", "explain"]),
    ("Act", &["watch", "restart", "run", "resume", "cancel", "approve", "resolve"]),
    ("Keep", &["store"]),
];

const EXIT_CODES: &str = "\
Exit codes:
  0    done; everything asked about is healthy
  1    the thing asked about is not healthy, or what was asked for was tried and failed
  2    usage: an unknown verb, flag or name
  3    the configuration is invalid
  4    the daemon cannot be reached, or the store is in use by another lidless
  5    permission denied
  6    refused by a guard, such as a spent restart budget; nothing was done
  7    nobody knows whether a step took effect: look before you do it again
  75   not now, but soon: try again
  128+N  ended by signal N

Where the daemon is looked for:
  at --connect or LIDLESS_SOCKET; else beside the store that --config names; else at
  /run/lidless/lidless.sock, $XDG_RUNTIME_DIR/lidless/lidless.sock,
  beside the store of ./lidless.yaml, and ./lidless-data/lidless.sock";

const EXAMPLES: &str = "\
Examples:
  lidless demo                                        see it heal, for a minute
  lidless check lidless.yaml && lidless serve lidless.yaml
  lidless status
  lidless watch http://127.0.0.1:8080/health --heal 'systemctl restart myapp'";

#[derive(Debug, Parser)]
#[command(
    name = "lidless",
    version,
    about = "Watches services, heals them, and proves it.",
    after_help = EXAMPLES,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
struct Cli {
    #[command(flatten)]
    globals: GlobalArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Demo(demo::DemoArgs),
    Check(check::CheckArgs),
    Serve(serve::ServeArgs),
    Schema(schema::SchemaArgs),
    Completions(completions::CompletionsArgs),
    Man(completions::ManArgs),
    Status(status::StatusArgs),
    Events(events::EventsArgs),
    Incidents(incidents::IncidentsArgs),
    Watch(watch::WatchArgs),
    Restart(restart::RestartArgs),
    Run(run::RunArgs),
    Runs(runs::RunsArgs),
    Explain(explain::ExplainArgs),
    Resume(runs::ResumeArgs),
    Cancel(runs::CancelArgs),
    Resolve(runs::ResolveArgs),
    Approve(runs::ApproveArgs),
    Store(store::StoreArgs),
    /// Runs the small service that the demo and the quick start heal.
    #[command(hide = true)]
    DemoService(DemoServiceArgs),
}

/// Is the program, from the arguments to the exit code.
pub fn main() -> ExitCode {
    std::panic::set_hook(Box::new(say_bug));
    run(std::env::args_os())
}

fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let parsed = command().try_get_matches_from(args).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(err) => {
            // A reader of the help that went away is no error.
            drop(err.print());
            return ExitCode::from(u8::try_from(err.exit_code()).unwrap_or(Exit::Usage.code()));
        }
    };
    // Those that stay, and start others.
    let stays = match &cli.verb {
        Verb::Run(args) => args.local,
        verb => matches!(verb, Verb::Serve(_) | Verb::Watch(_) | Verb::Demo(_)),
    };
    if stays && let Some(code) = init::stand_in() {
        return code;
    }
    let globals = Globals::new(cli.globals);
    let exit = match &cli.verb {
        Verb::Demo(args) => demo::run(args, &globals),
        Verb::Check(args) => check::run(args, &globals),
        Verb::Serve(args) => serve::run(args, &globals),
        Verb::Schema(args) => schema::run(args, &globals),
        Verb::Completions(args) => completions::run(args, &globals),
        Verb::Man(args) => completions::run_man(args, &globals),
        Verb::Status(args) => status::run(args, &globals),
        Verb::Events(args) => events::run(args, &globals),
        Verb::Incidents(args) => incidents::run(args, &globals),
        Verb::Watch(args) => watch::run(args, &globals),
        Verb::Restart(args) => restart::run(args, &globals),
        Verb::Run(args) => run::run(args, &globals),
        Verb::Runs(args) => runs::run(args, &globals),
        Verb::Explain(args) => explain::run(args, &globals),
        Verb::Resume(args) => runs::resume(args, &globals),
        Verb::Cancel(args) => runs::cancel(args, &globals),
        Verb::Resolve(args) => runs::resolve(args, &globals),
        Verb::Approve(args) => runs::approve(args, &globals),
        Verb::Store(args) => store::run(args, &globals),
        Verb::DemoService(args) => return demo_service::run(args.clone()),
    };
    globals.finish(exit).into()
}

/// Returns the command as clap knows it, with the verbs in groups.
fn command() -> clap::Command {
    let command = Cli::command().after_long_help(format!("{EXAMPLES}\n\n{EXIT_CODES}"));
    let mut verbs = String::new();
    for (group, names) in GROUPS {
        verbs.push_str(&format!("{group}:\n"));
        for name in names {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            verbs.push_str(&format!("  {name:<12} {about}\n"));
        }
        verbs.push('\n');
    }
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{verbs}Options of every verb:\n{{options}}{{after-help}}"
    ))
}

/// Replaces Rust's own words about a panic: whoever reads them can do nothing with a line number.
fn say_bug(panic: &std::panic::PanicHookInfo<'_>) {
    use std::io::Write as _;
    let mut err = std::io::stderr().lock();
    let at = panic.location().map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
    let payload = panic.payload();
    let why = payload.downcast_ref::<&str>().copied();
    let why =
        why.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no reason given");
    drop(writeln!(
        err,
        "error: this is a bug in lidless {}, please report it: {why}{at}",
        env!("CARGO_PKG_VERSION")
    ));
    drop(writeln!(err, "hint: nothing is lost that was acknowledged; `lidless store verify` proves it"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_verb_stands_in_one_group_and_says_what_it_does() {
        let command = command();
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let mut verbs: Vec<&str> = Vec::new();
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            verbs.push(verb.get_name());
            assert!(verb.get_about().is_some(), "{} says nothing", verb.get_name());
            let examples = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(examples.contains("lidless "), "{} has no example", verb.get_name());
        }
        verbs.sort_unstable();
        grouped.sort_unstable();
        assert_eq!(grouped, verbs);
    }
}
