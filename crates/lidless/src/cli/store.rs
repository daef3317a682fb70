//! `lidless store`: is the journal what was written?

use std::path::PathBuf;
use std::time::{Duration, Instant};

use lidless_store::{VerifyReport, verify};
use serde_json::json;

use super::daemon;
use super::exit::{Exit, Failure};
use super::globals::{Globals, plural};
use super::output::Mark;
use crate::words::span;

/// Work shorter than this shows no progress.
const QUIET_FOR: Duration = Duration::from_secs(1);
/// From one line of progress to the next where no terminal redraws it.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Looks after the journal.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lidless store verify\n  lidless store verify /var/lib/lidless/lidless.db"
)]
pub struct StoreArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub verb: StoreVerb,
}

/// What can be done with the journal.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum StoreVerb {
    /// Reads every row and names the first that is not what was written; also beside a running daemon
    #[command(
        after_help = "Examples:\n  lidless store verify\n  lidless store verify /var/lib/lidless/lidless.db\n  \
        lidless --config /etc/lidless store verify --json\n\n\
        Exit code 0 when it is whole, 1 when it is broken, 4 when it cannot be read, 5 when you may not.\n\
        Nothing in it is changed. Keep the chain head elsewhere to also notice a rewrite of the whole file."
    )]
    Verify {
        /// The journal [default: that of --config, else of ./lidless.yaml, else the system's]
        #[arg(value_name = "PATH")]
        path: Option<PathBuf>,
    },
}

/// Does it.
pub fn run(args: &StoreArgs, globals: &Globals) -> Exit {
    let StoreVerb::Verify { path } = &args.verb;
    let path = path.clone().map_or_else(|| daemon::store(globals), Ok);
    match path.and_then(|path| verified(path, globals)) {
        Ok(exit) => exit,
        Err(failure) => globals.report(&failure),
    }
}

fn verified(path: PathBuf, globals: &Globals) -> Result<Exit, Failure> {
    let mut progress = Progress::new(globals);
    let report = verify(&path, &mut |done, of| progress.show(done, of));
    progress.end();
    let report = report?;
    if globals.json() {
        globals.document(&document(&path, &report));
    } else if report.problems.is_empty() {
        let rows = plural(usize::try_from(report.rows).unwrap_or(usize::MAX), "record");
        let snapshots = plural(usize::try_from(report.snapshots_ok).unwrap_or(usize::MAX), "snapshot");
        let tick = globals.style.paint(Mark::Up, "✓");
        globals.print(&format!("{tick} {}: {rows}, {snapshots}, nothing changed or missing", path.display()));
        globals.print(&format!("  chain head {}", hex(&report.chain_head)));
    } else {
        for problem in &report.problems {
            globals.print(&format!("{} {problem}", globals.style.mark(Mark::Down)));
        }
        let count = plural(report.problems.len(), "problem");
        let failure =
            Failure::new(Exit::Unhealthy, format!("{}: {count} in {} records", path.display(), report.rows));
        return Err(failure.hint(format!(
            "keep the file as evidence, and begin a new journal: mv {0} {0}.broken",
            path.display()
        )));
    }
    Ok(if report.problems.is_empty() { Exit::Ok } else { Exit::Unhealthy })
}

fn document(path: &std::path::Path, report: &VerifyReport) -> serde_json::Value {
    json!({
        "schema": "lidless/verify/1",
        "path": path.display().to_string(),
        "ok": report.problems.is_empty(),
        "records": report.rows,
        "first": report.first,
        "last": report.last,
        "chain_head": hex(&report.chain_head),
        "snapshots": report.snapshots_ok,
        "problems": report.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A line that is redrawn on a terminal, and one now and then elsewhere.
struct Progress<'a> {
    globals: &'a Globals,
    began: Instant,
    shown: Option<Instant>,
}

impl<'a> Progress<'a> {
    fn new(globals: &'a Globals) -> Progress<'a> {
        Progress { globals, began: Instant::now(), shown: None }
    }

    fn show(&mut self, done: u64, of: u64) {
        let globals = self.globals;
        if globals.args.no_progress
            || globals.args.quiet
            || globals.json()
            || self.began.elapsed() < QUIET_FOR
        {
            return;
        }
        let terminal = globals.style_err.terminal;
        let every = if terminal { Duration::from_millis(100) } else { LINE_EVERY };
        if self.shown.unwrap_or(self.began).elapsed() < every || done == 0 {
            return;
        }
        self.shown = Some(Instant::now());
        let percent = done.saturating_mul(100) / of.max(1);
        let left = u32::try_from(of.saturating_sub(done).saturating_mul(1000) / done).unwrap_or(u32::MAX);
        let left = span(self.began.elapsed().saturating_mul(left) / 1000);
        let line = format!("verified {done} of {of} records ({percent} %), {left} left");
        if terminal { globals.redraw(&line) } else { globals.say(&line) }
    }

    fn end(&self) {
        if self.shown.is_some() && self.globals.style_err.terminal {
            self.globals.redraw("");
        }
    }
}
