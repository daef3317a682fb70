//! `lidless run --dry-run`: what would it do?

use super::super::exit::{Exit, Failure};
use super::super::globals::Globals;
use super::super::output::Mark;
use super::super::runs;
use crate::api::client::Client;
use crate::api::{PlanAnswer, RunRequest};
use crate::runtime::plan::Would;

/// Asks, and shows an arrow a step.
pub(super) async fn run(client: &Client, globals: &Globals, request: &RunRequest) -> Result<Exit, Failure> {
    let planned = match client.post("/v1/plan", request).await? {
        PlanAnswer::Refused { why, code } => return Err(runs::refused(client, why, &code).await),
        PlanAnswer::Planned(planned) => planned,
    };
    let fails = planned.steps.iter().find(|step| step.would == Would::Fail);
    let exit = if fails.is_some() { Exit::Unhealthy } else { Exit::Ok };
    if globals.json() {
        globals.document(&planned);
        return Ok(exit);
    }
    let style = &globals.style;
    globals.print(&format!("{}  {}", style.bold(&planned.pipeline), style.dim("nothing is done")));
    let width = planned.steps.iter().map(|step| step.name.chars().count()).max().unwrap_or(0);
    for step in &planned.steps {
        let mark = match step.would {
            Would::Do | Would::Depend => Mark::Step,
            Would::Skip => Mark::None,
            Would::Fail => Mark::Down,
            Would::Unknown => Mark::Unknown,
        };
        globals.print(&format!(" {} {:<width$} {}", style.mark(mark), step.name, step.text));
    }
    match fails {
        None => {
            globals.say(&format!("{} lidless run {}", globals.style_err.bold("do it:"), planned.pipeline))
        }
        Some(step) => {
            globals.say(&format!("{} would end at {}", globals.style_err.bold("mind:"), step.name));
        }
    }
    Ok(exit)
}
