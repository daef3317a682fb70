//! `lidless runs`, `resume`, `cancel`, `approve` and `resolve`: how do pipelines' runs stand, and what may a person do with one?

use std::time::Duration;

use super::daemon;
use super::events;
use super::exit::{Exit, Failure};
use super::explain::Telling;
use super::globals::{Globals, plural};
use super::output::{Cell, Mark, Table};
use super::run::{Followed, follow};
use crate::api::client::Client;
use crate::api::{RunAnswer, RunOrder, RunStatus, RunWhat, Runs};
use crate::story::{Story, words_of};
use crate::words::span;

/// How long whoever resumes a run waits for its end.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Lists the runs of pipelines, or shows one.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lidless runs\n  lidless runs run-7\n  lidless runs --json | jq '.runs[] | select(.state == \"held\")'"
)]
pub struct RunsArgs {
    /// Only this one, with its steps
    #[arg(value_name = "RUN")]
    pub run: Option<String>,
}

/// Goes on with a run that failed, at the step that failed.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  lidless resume run-7\n\nWhat is done stays done and is not repeated.")]
pub struct ResumeArgs {
    /// Which one
    #[arg(value_name = "RUN")]
    pub run: String,
}

/// Begins no further step of a run.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lidless cancel run-7\n\nA step under way goes on to its end: nobody could tell what half of it did."
)]
pub struct CancelArgs {
    /// Which one
    #[arg(value_name = "RUN")]
    pub run: String,
}

/// Says yes, or no, to a step that waits for it.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lidless approve run-7\n  lidless approve run-7 HARVEST\n  lidless approve run-7 --no --why 'gas is too dear'\n\n\
    What you say is in the journal, with your name."
)]
pub struct ApproveArgs {
    /// Which one
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Which step, where several wait
    #[arg(value_name = "STEP")]
    pub step: Option<String>,
    /// Say no: the step fails
    #[arg(long)]
    pub no: bool,
    /// Why not
    #[arg(long, value_name = "TEXT", requires = "no")]
    pub why: Option<String>,
}

/// Says what became of a step that waits for a person.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lidless resolve run-7 HARVEST --applied --evidence 'tx 0x3f9c is in block 21883402'\n  \
    lidless resolve run-7 HARVEST --not-applied --evidence 'nonce 91 is spent by another tx'\n\n\
    It is written in the journal with your name. Look before you answer: the run believes you."
)]
pub struct ResolveArgs {
    /// Which run
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Which step
    #[arg(value_name = "STEP")]
    pub step: String,
    /// It took effect: the run goes on behind it
    #[arg(long, required_unless_present = "not_applied", conflicts_with = "not_applied")]
    pub applied: bool,
    /// It had no effect, and never will
    #[arg(long)]
    pub not_applied: bool,
    /// How you know
    #[arg(long, value_name = "TEXT")]
    pub evidence: String,
}

/// Lists them.
pub fn run(args: &RunsArgs, globals: &Globals) -> Exit {
    globals.wait_for(list(args, globals)).unwrap_or_else(|failure| globals.report(&failure))
}

/// Resumes one.
pub fn resume(args: &ResumeArgs, globals: &Globals) -> Exit {
    order(&args.run, RunWhat::Resume, globals)
}

/// Cancels one.
pub fn cancel(args: &CancelArgs, globals: &Globals) -> Exit {
    order(&args.run, RunWhat::Cancel, globals)
}

/// Approves a step of one.
pub fn approve(args: &ApproveArgs, globals: &Globals) -> Exit {
    let no = args.no.then(|| args.why.clone().unwrap_or_default());
    order(&args.run, RunWhat::Approve { step: args.step.clone(), no }, globals)
}

/// Resolves a step of one.
pub fn resolve(args: &ResolveArgs, globals: &Globals) -> Exit {
    if args.evidence.trim().is_empty() {
        let failure = Failure::new(Exit::Usage, "--evidence is empty");
        return globals.report(&failure.hint("say how you know: it is what the next person has to go by"));
    }
    let (step, evidence) = (args.step.clone(), args.evidence.clone());
    order(&args.run, RunWhat::Resolve { step, applied: args.applied, evidence }, globals)
}

async fn list(args: &RunsArgs, globals: &Globals) -> Result<Exit, Failure> {
    let client = daemon::find(globals)?;
    let mut document: Runs = client.get("/v1/runs").await?;
    if let Some(wanted) = &args.run {
        let mut telling = Telling::of(wanted)?;
        let events = telling.wanted();
        events::from_daemon(&client, &events, |line| telling.take(&line)).await?;
        let story = telling.end()?;
        if !globals.json() {
            show(&story, globals);
            return Ok(Exit::Ok);
        }
        document.runs.retain(|run| is(run, wanted));
        let Some(run) = document.runs.first_mut() else {
            let failure = Failure::new(Exit::Usage, format!("`{wanted}` is not at hand any more"));
            return Err(failure.hint(format!("lidless explain {wanted} --json")));
        };
        for (step, told) in run.steps.iter_mut().zip(&story.steps) {
            step.took_ms = told.took_ms;
        }
    }
    if globals.json() {
        globals.document(&document);
        return Ok(Exit::Ok);
    }
    let mut table = Table::default();
    for run in &document.runs {
        let mark = match run.state.as_str() {
            "done" => Mark::Up,
            "failed" | "cancelled" | "undone" => Mark::Down,
            "in_doubt" | "held" | "stuck" | "parked" | "approval" => Mark::Unknown,
            _ => Mark::Step,
        };
        let at = run.at.as_ref().map_or_else(String::new, |at| format!(" at {at}"));
        let reason = run.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        table.row(vec![
            Cell::Shape(mark),
            Cell::Text(run.id.clone()),
            Cell::Text(run.pipeline.clone()),
            Cell::Text(globals.time(&run.created)),
            Cell::Text(run.by.clone()),
            Cell::Painted(mark, format!("{}{at}{reason}", run.state.replace('_', " "))),
        ]);
    }
    for line in table.lines(&globals.style, "") {
        globals.print(&line);
    }
    if document.runs.is_empty() {
        globals.say(&match document.pipelines.first() {
            None => "no runs, and no pipelines in the configuration".to_owned(),
            Some(first) => format!("no runs yet; begin one: lidless run {first}"),
        });
    }
    Ok(Exit::Ok)
}

/// Shows the steps of one run.
fn show(story: &Story, globals: &Globals) {
    let style = &globals.style;
    globals.print(&style.bold(&story.headline()));
    let mut table = Table::default();
    for step in &story.steps {
        // What takes others back is of interest once it is at work.
        if step.undoes.is_some() && step.attempts == 0 && step.state == "idle" {
            continue;
        }
        let mark = match step.state {
            "done" => Mark::Up,
            "failed" | "undone" => Mark::Down,
            "in_doubt" | "held" | "stuck" | "parked" | "approval" => Mark::Unknown,
            "running" | "waiting" => Mark::Step,
            _ => Mark::None,
        };
        let attempts = match step.attempts {
            0 => String::new(),
            count => plural(count as usize, "attempt"),
        };
        let took = step.took_ms.map_or_else(String::new, |took| span(Duration::from_millis(took)));
        table.row(vec![
            Cell::Shape(mark),
            Cell::Text(step.name.clone()),
            Cell::Painted(mark, words_of(step.state).to_owned()),
            Cell::Text(attempts),
            Cell::Text(took),
            Cell::Text(step.reason.clone().unwrap_or_default()),
        ]);
    }
    for line in table.lines(style, " ") {
        globals.print(&line);
    }
    globals.say(&format!("{} lidless explain {}", globals.style_err.bold("what happened:"), story.run));
    for next in story.next().iter().filter(|next| !next.starts_with("lidless runs")) {
        globals.say(&format!("{} {next}", globals.style_err.bold("next:")));
    }
}

/// There is no run of this name.
pub(super) fn no_such(name: &str) -> Failure {
    Failure::new(Exit::Usage, format!("there is no run `{name}`")).hint("lidless runs")
}

fn is(run: &RunStatus, wanted: &str) -> bool {
    run.id == wanted || run.id.strip_prefix("run-") == Some(wanted)
}

fn order(run: &str, what: RunWhat, globals: &Globals) -> Exit {
    globals.wait_for(give(run, what, globals)).unwrap_or_else(|failure| globals.report(&failure))
}

async fn give(run: &str, what: RunWhat, globals: &Globals) -> Result<Exit, Failure> {
    let client = daemon::find(globals)?;
    let (waits, now) = match &what {
        RunWhat::Resume | RunWhat::Resolve { .. } => (true, ""),
        RunWhat::Cancel => (false, "no further step begins"),
        RunWhat::Approve { no: None, .. } => (false, "approved"),
        RunWhat::Approve { no: Some(_), .. } => (false, "not approved"),
    };
    match client.post("/v1/runs", &RunOrder { run: run.to_owned(), what }).await? {
        RunAnswer::Refused { why, code } => Err(refused(&client, why, &code).await),
        RunAnswer::Started { run, after } if waits => {
            let runs: Runs = client.get("/v1/runs").await?;
            let found = runs.runs.iter().find(|status| is(status, &run));
            let pipeline = found.map_or("", |status| status.pipeline.as_str());
            follow(&client, globals, Followed { pipeline, run: &run, after, timeout: PATIENCE, local: false })
                .await
        }
        RunAnswer::Started { run, .. } => {
            if globals.json() {
                globals.document(&serde_json::json!({ "schema": "lidless/run/1", "run": run }));
            } else {
                globals.print(&format!("{run}: {now}"));
            }
            Ok(Exit::Ok)
        }
    }
}

/// Explains a refusal, and says what to type next.
pub(super) async fn refused(client: &Client, why: String, code: &str) -> Failure {
    match code {
        "not_found" => {
            let known = client.get::<Runs>("/v1/runs").await.map(|runs| runs.pipelines).unwrap_or_default();
            not_found(why, &known)
        }
        code => refusal(why, code),
    }
}

/// There is no such pipeline or run, but others.
pub(super) fn not_found(why: String, pipelines: &[String]) -> Failure {
    let failure = Failure::new(Exit::Usage, why);
    match pipelines {
        [] => failure.hint("the configuration has no pipelines: see docs/config.md"),
        names => failure.hint(format!("pipelines: {}; runs: lidless runs", names.join(", "))),
    }
}

/// Explains a refusal of something that there is.
pub(super) fn refusal(why: String, code: &str) -> Failure {
    match code {
        "forbidden" => Failure::new(Exit::Permission, why).hint("as the user that runs lidless, or as root"),
        "busy" => Failure::new(Exit::TryAgain, why).hint("lidless runs"),
        _ => Failure::new(Exit::Refused, why).hint("lidless runs"),
    }
}
