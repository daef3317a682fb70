//! `lidless incidents`: what went wrong, for how long, and what ended it?

use std::time::Duration;

use super::daemon;
use super::exit::{Exit, Failure};
use super::globals::Globals;
use super::output::{Cell, Mark, Table};
use crate::runtime::status::Incidents;
use crate::words::span;

/// Lists incidents: open ones first, then the last closed, newest first.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  lidless incidents\n  lidless incidents --open --service api\n  \
    lidless incidents --json | jq '.incidents[] | select(.closed == null)'\n\n\
    Exit code 0 also when there are open incidents: `lidless status` is the question for scripts.")]
pub struct IncidentsArgs {
    /// Only those that are not over
    #[arg(long)]
    pub open: bool,
    /// Only those of this service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
    /// At most so many
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<usize>,
}

/// Lists them.
pub fn run(args: &IncidentsArgs, globals: &Globals) -> Exit {
    match globals.wait_for(list(args, globals)) {
        Ok(()) => Exit::Ok,
        Err(failure) => globals.report(&failure),
    }
}

async fn list(args: &IncidentsArgs, globals: &Globals) -> Result<(), Failure> {
    let client = daemon::find(globals)?;
    let mut document: Incidents = client.get("/v1/incidents").await?;
    document.incidents.retain(|incident| {
        (!args.open || incident.closed.is_none())
            && args.service.as_ref().is_none_or(|name| incident.service == *name)
    });
    document.incidents.truncate(args.limit.unwrap_or(usize::MAX));
    if globals.json() {
        globals.document(&document);
        return Ok(());
    }
    let mut table = Table::default();
    for incident in &document.incidents {
        let mark = if incident.closed.is_some() { Mark::Up } else { Mark::Down };
        table.row(vec![
            Cell::Shape(mark),
            Cell::Text(incident.id.clone()),
            Cell::Text(incident.service.clone()),
            Cell::Text(globals.time(&incident.opened)),
            Cell::Text(span(Duration::from_millis(incident.lasted_ms))),
            Cell::Painted(mark, incident.outcome.clone()),
            Cell::Text(incident.failure.clone()),
        ]);
    }
    for line in table.lines(&globals.style, "") {
        globals.print(&line);
    }
    if document.incidents.is_empty() {
        globals.say("no incidents");
    }
    Ok(())
}
