//! Does this machine agree with the configuration? Asks each check once, and looks for the commands and users that it names.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lidless_core::check::{CheckOutcome, FailureKind};
use lidless_core::spec::ServiceSpec;
use lidless_drivers::check::Check;
use serde::Serialize;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::exit::{Exit, Failure};
use super::globals::{Globals, plural};
use super::output::{Cell, Mark, Table};
use crate::config::Resolved;
use crate::config::settings::{CheckKind, RunKind, ServiceSettings};
use crate::runtime::{Clock, Drivers, build_drivers};
use crate::words::span;

/// So many checks are asked at once: more would run out of descriptors before they run out of time.
const AT_ONCE: usize = 128;
/// A driver that misses its own deadline by this is broken.
const GRACE: Duration = Duration::from_secs(2);

/// What became of one question.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Line {
    service: String,
    /// The check's name, or what else was looked at.
    what: String,
    answer: Answer,
    /// How long it took, or what is wrong.
    text: String,
    /// What was asked.
    asks: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Pass,
    Fail,
    /// Nobody could tell.
    Inconclusive,
    /// There is nothing to ask yet: lidless has not started it.
    NotStarted,
}

impl Line {
    /// Whether a person should look before this configuration is used.
    pub(super) fn is_bad(&self) -> bool {
        match self.answer {
            Answer::Pass | Answer::NotStarted => false,
            Answer::Fail | Answer::Inconclusive => true,
        }
    }

    fn mark(&self) -> Mark {
        match self.answer {
            Answer::Pass => Mark::Up,
            Answer::Fail => Mark::Down,
            Answer::Inconclusive => Mark::Suspect,
            Answer::NotStarted => Mark::Unknown,
        }
    }
}

/// Asks everything once; the lines come in the order of the configuration.
pub(super) async fn ask(resolved: &Resolved) -> Result<Vec<Line>, Failure> {
    let (drivers, scratch) = drivers(resolved)?;
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut asking = JoinSet::new();
    let mut lines = Vec::new();
    for (service, spec) in resolved.services.iter().zip(&resolved.spec.services) {
        lines.extend(missing(service));
        let not_started = not_started(service, &drivers).await;
        for (settings, check) in service.checks.iter().zip(&spec.checks) {
            let Some(driver) = drivers.check(&service.name, &settings.name) else { continue };
            let at = lines.len();
            lines.push(line(spec, &check.name, Answer::NotStarted, "`lidless serve` starts it", &check.asks));
            if !not_started {
                asking.spawn(probe(at, driver, check.timeout, Arc::clone(&permits)));
            }
        }
    }
    while let Some(asked) = asking.join_next().await {
        match asked {
            Ok((at, answer, text)) => (lines[at].answer, lines[at].text) = (answer, text),
            Err(err) => return Err(Failure::of(Exit::Unhealthy, &err).hint("this is a bug in lidless")),
        }
    }
    drop(scratch);
    Ok(lines)
}

async fn probe(
    at: usize,
    driver: Arc<dyn Check>,
    timeout: Duration,
    permits: Arc<Semaphore>,
) -> (usize, Answer, String) {
    let _permit = permits.acquire().await;
    match tokio::time::timeout(timeout + GRACE, driver.probe(timeout)).await {
        Ok(CheckOutcome::Pass { latency }) => (at, Answer::Pass, span(latency)),
        Ok(CheckOutcome::Fail { failure, .. }) => (at, Answer::Fail, failure.detail),
        Ok(CheckOutcome::Inconclusive { reason }) => (at, Answer::Inconclusive, reason),
        Err(_) => (at, Answer::Inconclusive, format!("no answer within {}", span(timeout + GRACE))),
    }
}

/// Whether lidless itself is to run the service, and no lidless does yet.
async fn not_started(service: &ServiceSettings, drivers: &Drivers) -> bool {
    let process = service.checks.iter().find(|check| check.kind == CheckKind::Process);
    let Some(driver) = process.and_then(|check| drivers.check(&service.name, &check.name)) else {
        return matches!(service.run, Some(RunKind::Process(_)));
    };
    match driver.probe(GRACE).await {
        CheckOutcome::Fail { failure, .. } => failure.kind == FailureKind::NotRunning,
        CheckOutcome::Pass { .. } | CheckOutcome::Inconclusive { .. } => false,
    }
}

/// Builds the drivers on what a running lidless remembers of its processes, where that may be read; else on nothing.
fn drivers(resolved: &Resolved) -> Result<(Drivers, Option<TempDir>), Failure> {
    let clock = Clock::resume(None);
    let state_dir = resolved.store_path.parent().unwrap_or(Path::new("."));
    if state_dir.join("slots").is_dir()
        && let Ok(drivers) = build_drivers(resolved, state_dir, &clock)
    {
        return Ok((drivers, None));
    }
    let scratch = scratch().map_err(|err| {
        let why = format!("cannot make a folder in {}: {err}", std::env::temp_dir().display());
        Failure::new(Exit::of_io(&err, Exit::Unhealthy), why).hint("TMPDIR names another place")
    })?;
    // Folders are made for the processes' output; here they go with the rest.
    let mut resolved = resolved.clone();
    for service in &mut resolved.services {
        if let Some(RunKind::Process(process)) = &mut service.run {
            process.log = scratch.path().join("logs").join(&service.name);
        }
    }
    let built = build_drivers(&resolved, scratch.path(), &clock);
    let drivers =
        built.map_err(|err| Failure::of(Exit::Config, &err).hint("mend it, then `lidless check --live`"))?;
    Ok((drivers, Some(scratch)))
}

/// Makes a folder that goes when it is no longer needed. Everybody may write where it lies, and we may be root: its name
/// cannot be foreseen, it is new, and nobody else may enter it, so nothing in it can be somebody's link.
fn scratch() -> std::io::Result<TempDir> {
    tempfile::Builder::new().prefix("lidless-check-").permissions(Permissions::from_mode(0o700)).tempdir()
}

/// Returns a line for each command and user that this machine does not have.
fn missing(service: &ServiceSettings) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut fail = |what: &str, text: String, asks: &str| {
        let (service, what, asks) = (service.name.clone(), what.to_owned(), asks.to_owned());
        lines.push(Line { service, what, answer: Answer::Fail, text, asks });
    };
    match &service.run {
        None | Some(RunKind::Systemd(_)) => {}
        Some(RunKind::Process(process)) => {
            if let Some(why) = not_a_command(&process.command, &process.dir) {
                fail("run.process.command", why, "");
            }
            if !process.dir.is_dir() {
                fail("run.process.dir", format!("{} is not a folder", process.dir.display()), "");
            }
            if let Some(user) = process.user.as_ref().filter(|user| !is_user(user)) {
                fail("run.process.user", format!("this machine has no user `{user}`"), "");
            }
        }
        Some(RunKind::Exec(exec)) => {
            for (what, command) in
                [("run.exec.restart", Some(&exec.restart)), ("run.exec.reload", exec.reload.as_ref())]
            {
                if let Some(why) = command.and_then(|command| not_a_command(command, &exec.dir)) {
                    fail(what, why, "");
                }
            }
        }
    }
    lines
}

/// Says why a command could not be started. A name without a slash is looked for as `exec` does.
fn not_a_command(command: &[String], dir: &Path) -> Option<String> {
    let program = command.first()?;
    let runs = |path: &Path| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        let path = dir.join(program);
        return match path.metadata() {
            Ok(_) if runs(&path) => None,
            Ok(_) => Some(format!("{} is not executable", path.display())),
            Err(err) => Some(format!("{}: {err}", path.display())),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| runs(&dir.join(program)));
    (!found).then(|| format!("there is no command `{program}` in PATH"))
}

/// `id` asks every source of users that the machine has.
fn is_user(user: &str) -> bool {
    let asked =
        Command::new("id").args(["-u", "--", user]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    asked.is_ok_and(|status| status.success())
}

fn line(service: &ServiceSpec, what: &str, answer: Answer, text: &str, asks: &str) -> Line {
    let (what, text, asks) = (what.to_owned(), text.to_owned(), asks.to_owned());
    Line { service: service.name.clone(), what, answer, text, asks }
}

/// Prints the lines and what they come to.
pub(super) fn show(globals: &Globals, lines: &[Line]) {
    if lines.is_empty() {
        return;
    }
    let mut table = Table::default();
    for line in lines {
        table.row(vec![
            Cell::Shape(line.mark()),
            Cell::Text(format!("{}.{}", line.service, line.what)),
            Cell::Painted(line.mark(), line.text.clone()),
            Cell::Text(line.asks.clone()),
        ]);
    }
    for line in table.lines(&globals.style, "  ") {
        globals.print(&line);
    }
    let bad = lines.iter().filter(|line| line.is_bad()).count();
    if bad > 0 {
        globals.say(&format!("{} not as it should be; nothing was changed", plural(bad, "answer")));
        globals
            .say(&format!("{} mend it, then `lidless check --live` again", globals.style_err.bold("hint:")));
    } else if lines.iter().any(|line| line.answer == Answer::NotStarted) {
        globals.say("what lidless is to run itself was not asked: `lidless serve` starts it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As root one would write wherever such a link leads.
    #[tokio::test]
    async fn a_link_laid_in_the_way_is_not_followed() {
        let theirs = tempfile::tempdir().expect("a folder");
        let trap = std::env::temp_dir().join(format!("lidless-check-{}", std::process::id()));
        std::os::unix::fs::symlink(theirs.path(), &trap).expect("a link");
        let yaml = "version: 1\nstore: { path: nowhere/s.db }\nservices:\n  a:\n    run: { process: { command: [\"true\"] } }\n    \
             checks: { alive: { process: {} } }\n";
        let loaded = crate::config::from_str("lidless.yaml", yaml).expect("it is valid");
        let built = drivers(&loaded.resolved);
        std::fs::remove_file(&trap).expect("the link is still there");
        let Ok((_drivers, Some(scratch))) = built else { panic!("there is a folder of our own") };
        assert_eq!(theirs.path().read_dir().expect("a folder").count(), 0, "nothing went through the link");
        let mode = scratch.path().metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn commands_are_found_as_exec_finds_them() {
        let missing = |program: &str| not_a_command(&[program.to_owned()], Path::new("/usr"));
        assert_eq!(missing("sh"), None);
        assert_eq!(missing("/bin/sh"), None);
        assert_eq!(missing("bin/env"), None, "relative to the working directory");
        assert!(missing("no-such-command-here").is_some_and(|why| why.contains("PATH")));
        assert!(missing("/etc/passwd").is_some_and(|why| why.contains("not executable")));
        assert!(missing("./nothing").is_some());
    }

    #[test]
    fn users_are_those_of_the_machine() {
        assert!(is_user("root"));
        assert!(is_user("0"));
        assert!(!is_user("no-such-user-here"));
        assert!(!is_user("--help"));
    }
}
