//! How is lidless itself run in a bench? The release binary beside this one, a config in a directory of its own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Problem;
use crate::demo::Service;
use crate::process::Guarded;

/// Finds the binary: `$LIDLESS_BIN`, or `lidless` beside this bench.
pub fn binary() -> Result<PathBuf, Problem> {
    let beside = std::env::current_exe()?.with_file_name("lidless");
    let path = std::env::var_os("LIDLESS_BIN").map_or(beside, PathBuf::from);
    if path.is_file() {
        return Ok(path);
    }
    Err(format!("there is no {}; run `cargo build --release` first", path.display()).into())
}

/// How a healed service of a bench is watched.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// Between two probes.
    pub every: Duration,
    /// The deadline of one.
    pub timeout: Duration,
    /// Between two probes while health is in question.
    pub confirm_every: Duration,
    /// Failures until down.
    pub fail_after: u32,
    /// How long a heal must stay well.
    pub stay: Duration,
}

/// A config in which lidless runs the services itself, checks them over HTTP and restarts them without limit.
pub fn healing(dir: &Path, binary: &Path, services: &[Service], watch: Watch) -> Result<PathBuf, Problem> {
    let mut text = head(dir);
    for (index, service) in services.iter().enumerate() {
        let command = service.command(binary).iter().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(", ");
        write!(
            text,
            "  app-{index}:\n    run: {{ process: {{ command: [{command}] }} }}\n    checks:\n      health: {{ http: {{ url: \
             \"http://127.0.0.1:{}/health\" }}, every: {}ms, timeout: {}ms, \
             confirm_every: {}ms, fail_after: {} }}\n    heal: {{ restart: {{ \
             attempts: 100000, per: 1h, backoff: 0s..0s }}, verify: {{ stay: {}ms }} }}\n",
            service.port,
            watch.every.as_millis(),
            watch.timeout.as_millis(),
            watch.confirm_every.as_millis(),
            watch.fail_after,
            watch.stay.as_millis()
        )?;
    }
    save(dir, &text)
}

/// A config of `targets` services that are only watched, each with one HTTP check at an interval of one second.
pub fn watching(dir: &Path, targets: u32, port: u16) -> Result<PathBuf, Problem> {
    let mut text = head(dir);
    for id in 0..targets {
        // An address each, from 127.0.1.0 on: distinct targets for every layer, as real ones would be.
        let [_, a, b, c] = (id + 256).to_be_bytes();
        writeln!(
            text,
            "  t{id}:\n    checks:\n      health: {{ http: {{ url: \"http://127.{a}.{b}.{c}:{port}/t{id}\" }}, every: 1s, timeout: 1s }}"
        )?;
    }
    save(dir, &text)
}

/// No page on a port, and no limit on the heals of all services together: a bench breaks more than any real day does.
fn head(dir: &Path) -> String {
    let store = store(dir);
    format!(
        "version: 1\nsite: bench\nweb: off\nstore: {{ path: \"{}\" }}\nlimits: {{ heals: {{ attempts: 1000000, per: 1h }} }}\n\
         services:\n",
        store.display()
    )
}

fn save(dir: &Path, text: &str) -> Result<PathBuf, Problem> {
    let path = dir.join("lidless.yaml");
    std::fs::write(&path, text)?;
    Ok(path)
}

/// The journal of the instance in `dir`.
pub fn store(dir: &Path) -> PathBuf {
    dir.join("lidless.db")
}

/// Starts `lidless serve`, with its output in the directory's `lidless.log`.
pub fn serve(binary: &Path, config: &Path) -> Result<Guarded, Problem> {
    Guarded::start(
        "lidless",
        Command::new(binary).arg("serve").arg(config),
        &config.with_file_name("lidless.log"),
    )
}

/// Its version, for the record.
pub fn version(binary: &Path) -> String {
    crate::peers::first_line(Command::new(binary).arg("--version")).unwrap_or_default()
}
