//! `lidless check`: is the configuration right, and with `--live` does this machine agree?

use std::path::PathBuf;

use serde_json::{Value, json};

use super::exit::Exit;
use super::globals::{Globals, config_file, plural};
use super::live;
use super::output::Mark;
use super::triggers;
use crate::config::{self, Loaded, Problem, Problems, Secrets, Severity};

/// Checks the configuration, and with --live runs every check once.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lidless check\n  lidless check lidless.yaml --live\n  lidless check --json lidless.yaml | jq '.problems[]'\n\n\
    Exit code 3 when the configuration is invalid; warnings alone do not count. With --live, 1 when a check does not pass.\n\
    Nothing is started, healed or told to anybody."
)]
pub struct CheckArgs {
    /// The configuration files [default: --config, else ./lidless.yaml, else /etc/lidless/lidless.yaml]
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Also run every check once, and look for the commands and users that are named
    #[arg(long)]
    pub live: bool,
}

/// Checks it.
pub fn run(args: &CheckArgs, globals: &Globals) -> Exit {
    let paths = match args.files.as_slice() {
        [] => globals.config_paths(),
        files => files.iter().map(|path| config_file(path)).collect(),
    };
    // Without --live a secret may be missing: the configuration is also checked where it is written.
    let secrets = if args.live { Secrets::Needed } else { Secrets::Optional };
    let loaded = match config::load_with(&paths, secrets) {
        Ok(loaded) => loaded,
        Err(problems) if globals.json() => {
            globals.document(&document(&paths, None, &problems, &[]));
            return Exit::of_config(&problems);
        }
        Err(problems) => return globals.config_problems(&problems),
    };
    globals.config_warnings(&loaded.warnings);
    let lines = if args.live {
        let asked = globals.wait_for(async { live::ask(&loaded.resolved).await });
        match asked {
            Ok(lines) => lines,
            Err(failure) => return globals.report(&failure),
        }
    } else {
        Vec::new()
    };
    if globals.json() {
        globals.document(&document(&paths, Some(&loaded), &loaded.warnings, &lines));
    } else {
        summary(globals, &paths, &loaded);
        live::show(globals, &lines);
        if !args.live {
            let shown: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            let next = globals.style_err.bold("next:");
            globals.say(&format!("{next} lidless check --live {}", shown.join(" ")));
        }
    }
    if lines.iter().any(live::Line::is_bad) { Exit::Unhealthy } else { Exit::Ok }
}

fn summary(globals: &Globals, paths: &[PathBuf], loaded: &Loaded) {
    let shown: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    let files = match loaded.files.len() {
        count if count > paths.len() => format!(" ({count} files)"),
        _ => String::new(),
    };
    let (services, checks) = counts(loaded);
    let warnings = match loaded.warnings.len() {
        0 => String::new(),
        count => format!(", {}", plural(count, "warning")),
    };
    let tick = globals.style.paint(Mark::Up, "✓");
    let pipelines = match loaded.resolved.pipelines.len() {
        0 => String::new(),
        count => format!(", {}", plural(count, "pipeline")),
    };
    let what = format!("{}, {}{pipelines}{warnings}", plural(services, "service"), plural(checks, "check"));
    globals.print(&format!("{tick} {}{files}: {what}", shown.join(" + ")));
    let begun = pipelines_with_triggers(loaded);
    let width = begun.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, triggers) in begun.iter().filter(|(_, triggers)| !triggers.is_empty()) {
        globals.print(&format!("  {name:width$}  {}", triggers.join("; ")));
    }
}

/// Returns each pipeline with what begins a run of it.
fn pipelines_with_triggers(loaded: &Loaded) -> Vec<(&str, Vec<String>)> {
    let resolved = &loaded.resolved;
    let both = resolved.spec.pipelines.iter().zip(&resolved.pipelines);
    both.map(|(spec, settings)| (spec.name.as_str(), triggers::words(spec, settings))).collect()
}

fn counts(loaded: &Loaded) -> (usize, usize) {
    let services = &loaded.resolved.services;
    (services.len(), services.iter().map(|service| service.checks.len()).sum())
}

fn document(paths: &[PathBuf], loaded: Option<&Loaded>, problems: &Problems, lines: &[live::Line]) -> Value {
    let (services, checks) = loaded.map(counts).unwrap_or_default();
    // A path need not be UTF-8, but JSON must be.
    let files = loaded.map_or(paths, |loaded| &loaded.files);
    let files: Vec<_> = files.iter().map(|path| path.display().to_string()).collect();
    let pipeline = |(name, triggers): (&str, Vec<String>)| json!({ "name": name, "triggers": triggers });
    let pipelines: Vec<_> =
        loaded.map(pipelines_with_triggers).unwrap_or_default().into_iter().map(pipeline).collect();
    json!({
        "schema": "lidless/check/1",
        "valid": loaded.is_some(),
        "files": files,
        "services": services,
        "checks": checks,
        "pipelines": pipelines,
        "problems": listed(problems),
        "live": lines,
    })
}

/// Returns every problem with its place, for a document.
pub(super) fn listed(problems: &Problems) -> Vec<Value> {
    problems.list().iter().map(|problem| of_problem(problem, problems)).collect()
}

fn of_problem(problem: &Problem, problems: &Problems) -> Value {
    let at = problem.labels.first().map(|label| label.at);
    let source = at.and_then(|at| problems.sources().get(at.file as usize));
    let place = at.zip(source).map(|(at, source)| {
        let before = source.text.get(..at.start as usize).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    });
    json!({
        "code": problem.code,
        "severity": match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        "message": problem.message,
        "file": source.map(|source| source.name.as_str()),
        "line": place.map(|(line, _)| line),
        "column": place.map(|(_, column)| column),
        "help": problem.help,
    })
}
