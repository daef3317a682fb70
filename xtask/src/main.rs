//! Which piece of automation was asked for? `cargo xtask help` lists them.
//!
//! What CI runs is here and not in a CI file, so that a laptop runs the same.

mod install;
mod shell;
mod steps;
mod suite;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

  test            everything CI runs, in order, with a table of times at the end:
                  set-up, formatting, clippy, tidy, cargo-deny, all tests, doc tests, the simulator
      --quick         without the slow tests (systemd*, kill*, crash*) and with a tenth of the simulator's seeds
      --no-install    install nothing; what is missing makes its tests skip, saying so
      --keep-going    after a failed step, run the next ones too
  tidy            the tree's own rules, in a second: file sizes and first lines, no ignored tests, no paths of
                  one machine, arrows between crates, banned crates, the pages against the tree
  setup           only install what the tests need (Debian packages; as root or through `sudo -n`)
  bench-setup     install what the benches compare with: monit (Debian), supervisor and superlance (PyPI, in
                  target/bench-venv), and Restate (npm, in target/bench-restate) where there is node
  help            this text

Environment
  CI=true         no colour; nextest's `ci` profile, which shows every failure rather than the first
  NO_COLOR=1      no colour
  LIDLESS_DENY=1  build and install cargo-deny when it is absent (some minutes)

Exit codes: 0 all is well, 1 a step failed or something is missing, 2 usage.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.split_first() {
        Some((&"test", flags)) => match suite::Options::parse(flags) {
            Ok(options) => suite::run(options),
            Err(flag) => usage(&format!("`test` has no flag `{flag}`")),
        },
        Some((&"tidy", [])) => report(tidy::check_and_print()),
        Some((&"setup", [])) => report(install::for_tests()),
        Some((&"bench-setup", [])) => report(install::for_benches()),
        None | Some((&("help" | "--help" | "-h"), _)) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Some((&("tidy" | "setup" | "bench-setup"), _)) => usage("this command has no flags"),
        Some((other, _)) => usage(&format!("there is no command `{other}`")),
    }
}

fn report(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("error: {problem}\n\n{HELP}");
    ExitCode::from(2)
}
