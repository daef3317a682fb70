//! What does `cargo xtask test` run, in which order, and with which arguments?

use std::process::ExitCode;

use serde_json::Value;

use crate::steps::{Done, Steps};
use crate::{install, shell, tidy};

/// Boots a real systemd for the tests that heal its units.
const SYSTEMD_HOST: &str = "crates/lidless-drivers/tests/support/systemd-host.sh";
/// What `--quick` leaves out, by the name of the test binary.
const SLOW: [&str; 3] = ["systemd", "kill", "crash"];
/// The same, for nextest. It refuses a pattern that matches no binary, so `xtask` is in it and let in again.
const NOT_SLOW: &str = "not binary(/^(systemd.*|kill.*|crash.*|xtask)$/) | binary(=xtask)";

/// What the command line asked for.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    quick: bool,
    no_install: bool,
    keep_going: bool,
}

impl Options {
    /// Reads the flags, or returns the one that it does not know.
    pub(crate) fn parse(flags: &[&str]) -> Result<Options, String> {
        let mut options = Options::default();
        for flag in flags {
            match *flag {
                "--quick" => options.quick = true,
                "--no-install" => options.no_install = true,
                "--keep-going" => options.keep_going = true,
                other => return Err(other.to_owned()),
            }
        }
        Ok(options)
    }
}

/// Runs every step and prints the table.
pub(crate) fn run(options: Options) -> ExitCode {
    let mut steps = Steps::new(options.keep_going);

    steps.run("set-up", "cargo xtask setup", || match options.no_install {
        true => Done::skipped("--no-install"),
        false => install::for_tests().into(),
    });
    steps.run("systemd image", &format!("{SYSTEMD_HOST} build"), || systemd_image(options));
    steps.command("format", &["cargo", "fmt", "--all", "--check"]);
    let clippy = ["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    steps.command("clippy", &clippy);
    steps.run("tidy", "cargo xtask tidy", || tidy::check_and_print().into());
    deny(&mut steps);
    tests(&mut steps, options);
    steps.command("doc tests", &["cargo", "test", "--workspace", "--doc", "--locked"]);
    let seeds = if options.quick { "200" } else { "2000" };
    steps.command(
        "simulator",
        &["cargo", "run", "--release", "--locked", "-p", "lidless-sim", "--", "--seeds", seeds],
    );

    steps.finish()
}

fn systemd_image(options: Options) -> Done {
    let script = shell::root().join(SYSTEMD_HOST);
    if options.quick {
        Done::skipped("--quick leaves those tests out")
    } else if !script.is_file() {
        Done::skipped(&format!("{SYSTEMD_HOST} is not there"))
    } else if !shell::is_root() {
        Done::skipped("booting a systemd needs root")
    } else if shell::find("debootstrap").is_none() {
        Done::skipped("debootstrap is missing")
    } else {
        Done::of(shell::command("bash").arg(script).arg("build"))
    }
}

/// Licences, bans and sources. The bans are in tidy too, so that a machine without cargo-deny still has them.
fn deny(steps: &mut Steps) {
    let check = ["cargo", "deny", "check", "bans", "licenses", "sources"];
    if shell::succeeds("cargo", &["deny", "--version"]) {
        steps.command("deny", &check);
    } else if std::env::var_os("LIDLESS_DENY").is_some_and(|value| value == "1") {
        steps.command("install cargo-deny", &["cargo", "install", "cargo-deny", "--locked"]);
        steps.command("deny", &check);
    } else {
        steps.run("deny", &check.join(" "), || {
            Done::skipped("cargo-deny is not installed (LIDLESS_DENY=1 installs it); tidy checks the bans")
        });
    }
}

/// Unit, property, snapshot, conformance and real-component tests.
fn tests(steps: &mut Steps, options: Options) {
    if shell::succeeds("cargo", &["nextest", "--version"]) {
        let profile = if shell::in_ci() { "ci" } else { "default" };
        let mut line = vec!["cargo", "nextest", "run", "--workspace", "--locked", "--profile", profile];
        if options.quick {
            line.extend(["-E", NOT_SLOW]);
        }
        steps.command("tests", &line);
        return;
    }
    steps.run("nextest", "cargo install cargo-nextest --locked", || {
        Done::skipped("cargo-nextest is not installed, so plain `cargo test` runs: no deadline per test")
    });
    let mut line = vec!["cargo", "test", "--workspace", "--locked", "--no-fail-fast", "--lib", "--bins"];
    let quick_ones;
    if options.quick {
        quick_ones = quick_test_targets();
        line.extend(quick_ones.iter().flat_map(|name| ["--test", name]));
    } else {
        line.push("--tests");
    }
    steps.command("tests", &line);
}

/// The test binaries that are not slow, for `cargo test` cannot filter by binary.
fn quick_test_targets() -> Vec<String> {
    let metadata =
        shell::output("cargo", &["metadata", "--no-deps", "--format-version", "1"]).unwrap_or_default();
    let metadata: Value = serde_json::from_str(&metadata).unwrap_or_default();
    let targets = metadata["packages"].as_array().into_iter().flatten();
    let targets = targets.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    targets
        .filter(|target| target["kind"][0] == "test")
        .filter_map(|target| target["name"].as_str())
        .filter(|name| !SLOW.iter().any(|slow| name.starts_with(slow)))
        .map(str::to_owned)
        .collect()
}
