//! `lidless explain`: what became of a run, and what remains? Its story, from the daemon or from the file.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::events::{self, Wanted};
use super::exit::{Exit, Failure};
use super::globals::Globals;
use super::output::{Cell, Mark, Table};
use super::{daemon, runs};
use crate::api::{self, EventLine};
use crate::runtime::status::rfc3339;
use crate::story::{Story, Tone};
use crate::words::output_text;

/// Tells what became of a run, and what remains.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lidless explain run-7\n  lidless explain 7 --json | jq -r '.facts[].text'\n  \
    lidless explain run-7 --store /var/lib/lidless/lidless.db\n\n\
    Every line has the number of its event: lidless events --after N -n 1 --json shows all of it.\n\
    Without a daemon, --config and --store read the journal itself; nothing in it is changed."
)]
pub struct ExplainArgs {
    /// Which one
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Read this journal, without asking a daemon
    #[arg(long, value_name = "PATH", conflicts_with = "connect")]
    pub store: Option<PathBuf>,
}

/// Tells it.
pub fn run(args: &ExplainArgs, globals: &Globals) -> Exit {
    match explain(args, globals) {
        Ok(()) => Exit::Ok,
        Err(failure) => globals.report(&failure),
    }
}

fn explain(args: &ExplainArgs, globals: &Globals) -> Result<(), Failure> {
    let story = story(args, globals)?;
    if globals.json() {
        globals.document(&document(&story));
        return Ok(());
    }
    let style = &globals.style;
    globals.print(&style.bold(&story.headline()));
    if !story.inputs.is_empty() {
        globals.print(&format!("given  {}", output_text(&story.inputs)));
    }
    let mut table = Table::default();
    for fact in &story.facts {
        table.row(vec![
            Cell::Text(format!("#{}", fact.seq)),
            Cell::Text(globals.time(&fact.time)),
            Cell::Shape(match fact.tone {
                Tone::Plain => Mark::None,
                Tone::Good => Mark::Up,
                Tone::Bad => Mark::Down,
                Tone::Doubt => Mark::Unknown,
                Tone::Waits => Mark::Suspect,
            }),
            Cell::Text(fact.text.clone()),
        ]);
    }
    for line in table.lines(style, "") {
        globals.print(&line);
    }
    let remains = story.remains();
    if !remains.is_empty() {
        globals.print(&format!("remains  {}", remains.join(", ")));
    }
    for next in story.next() {
        globals.print(&format!("next     {next}"));
    }
    Ok(())
}

fn document(story: &Story) -> Value {
    let inputs: Value = serde_json::from_str(&story.inputs).unwrap_or_else(|_| json!({}));
    json!({
        "schema": "lidless/story/1",
        "run": story.run.to_string(),
        "pipeline": story.pipeline(),
        "says": story.headline(),
        "created": rfc3339(story.created.wall_ms),
        "ended": story.end.as_ref().map(|(_, at)| rfc3339(at.wall_ms)),
        "inputs": inputs,
        "facts": story.facts,
        "steps": story.steps,
        "remains": story.remains(),
        "next": story.next(),
    })
}

fn story(args: &ExplainArgs, globals: &Globals) -> Result<Story, Failure> {
    let mut telling = Telling::of(&args.run)?;
    let wanted = telling.wanted();
    let store = match &args.store {
        Some(store) => Some(store.clone()),
        None => match daemon::find(globals) {
            Ok(client) => {
                globals.wait_for(events::from_daemon(&client, &wanted, |line| telling.take(&line)))?;
                None
            }
            Err(failure) if globals.args.config.is_none() => return Err(failure),
            Err(_) => {
                let store = daemon::store(globals)?;
                globals.say(&format!("no lidless answers; reading its journal {}", store.display()));
                Some(store)
            }
        },
    };
    if let Some(store) = store {
        events::from_store(&store, &wanted, |line| telling.take(&line))?;
    }
    telling.end()
}

/// Finds the story of one run among events.
pub(super) struct Telling {
    name: String,
    run: lidless_core::id::RunId,
    story: Option<Story>,
}

impl Telling {
    /// Begins with the run's name, or its number.
    pub(super) fn of(name: &str) -> Result<Telling, Failure> {
        let run = api::named(name).ok_or_else(|| runs::no_such(name))?;
        Ok(Telling { name: name.to_owned(), run, story: None })
    }

    /// The events to be read.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted { run: Some(self.run), ..Wanted::default() }
    }

    pub(super) fn take(&mut self, line: &EventLine) -> bool {
        match &mut self.story {
            Some(story) => story.take(line),
            None => self.story = Story::begin(line, self.run),
        }
        true
    }

    /// The story; a run that no event is about is none.
    pub(super) fn end(self) -> Result<Story, Failure> {
        self.story.ok_or_else(|| runs::no_such(&self.name))
    }
}
