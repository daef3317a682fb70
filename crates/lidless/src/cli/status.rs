//! `lidless status`: how do things stand? One line a service, or everything about one.

use std::collections::VecDeque;
use std::time::Duration;

use super::daemon;
use super::events::{self, Wanted};
use super::exit::{Exit, Failure};
use super::globals::{Globals, plural};
use super::output::{Cell, Mark, Table};
use crate::api::EventLine;
use crate::api::client::Client;
use crate::config::units::nearest;
use crate::runtime::status::{IncidentStatus, ServiceStatus, Status};
use crate::words::span;

/// So many of a service's last events are shown.
const EVENTS_SHOWN: usize = 10;
/// So far back they are looked for: a screen must not depend on the length of history.
const EVENTS_BACK: u64 = 20_000;

/// Shows how all services stand, or one in detail.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lidless status\n  lidless status api\n  lidless status --json | jq '.services[].health'\n\n\
    Exit code 0 when every service asked about is up (a first failure that is not confirmed yet counts as up), 1 when one is not."
)]
pub struct StatusArgs {
    /// Show everything about this one
    #[arg(value_name = "SERVICE")]
    pub service: Option<String>,
}

/// Shows it.
pub fn run(args: &StatusArgs, globals: &Globals) -> Exit {
    globals.wait_for(show(args, globals)).unwrap_or_else(|failure| globals.report(&failure))
}

async fn show(args: &StatusArgs, globals: &Globals) -> Result<Exit, Failure> {
    let client = daemon::find(globals)?;
    let mut status: Status = client.get("/v1/status").await?;
    let all = status.services.clone();
    if let Some(name) = &args.service {
        status.services.retain(|service| service.name == *name);
        if status.services.is_empty() {
            return Err(unknown_service(name, all.iter().map(|service| service.name.as_str())));
        }
    }
    if globals.json() {
        globals.document(&status);
    } else if let (Some(_), [service]) = (&args.service, status.services.as_slice()) {
        let last = last_events(&client, &service.name, status.seq).await?;
        one(globals, service, &all, &last);
    } else {
        overview(globals, &status);
    }
    let well = |service: &ServiceStatus| matches!(service.health.as_str(), "up" | "suspect");
    Ok(if status.services.iter().all(well) { Exit::Ok } else { Exit::Unhealthy })
}

/// Says that there is no such service, and which one may be meant.
pub(super) fn unknown_service<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    let known: Vec<&str> = known.collect();
    let failure = Failure::new(Exit::Usage, format!("there is no service `{name}`"));
    match nearest(name, known.iter().copied()) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None if (1..=12).contains(&known.len()) => failure.hint(format!("there are: {}", known.join(", "))),
        None => failure.hint("`lidless status` lists them all"),
    }
}

async fn last_events(client: &Client, service: &str, seq: u64) -> Result<VecDeque<EventLine>, Failure> {
    let wanted = Wanted {
        after: Some(seq.saturating_sub(EVENTS_BACK)),
        service: Some(service.to_owned()),
        ..Wanted::default()
    };
    let mut last = VecDeque::with_capacity(EVENTS_SHOWN + 1);
    events::from_daemon(client, &wanted, |line| {
        last.push_back(line);
        if last.len() > EVENTS_SHOWN {
            last.pop_front();
        }
        true
    })
    .await?;
    Ok(last)
}

fn overview(globals: &Globals, status: &Status) {
    let style = &globals.style;
    let mut counts = Vec::new();
    for word in ["up", "suspect", "recovering", "down", "unknown"] {
        let count = status.services.iter().filter(|service| service.health == word).count();
        if count > 0 {
            counts.push(format!("{} {count} {word}", style.mark(Mark::of_word(word)).trim_end()));
        }
    }
    let since = jiff::Timestamp::now().duration_since(status.started.parse().unwrap_or_default());
    let since = span(since.try_into().unwrap_or_default());
    let head = format!("{}   {}   ", style.bold(&status.site), counts.join("   "));
    globals
        .print(&format!("{head}{}", style.dim(&format!("watching for {since}, {} probes", status.probes))));
    if let Some(why) = &status.degraded {
        let text = format!("the journal cannot be written: {why}");
        globals.print(&format!("  {} {}", style.mark(Mark::Down), style.paint(Mark::Down, &text)));
    }
    if status.owed > 0 {
        let text = format!("{} not delivered yet", plural(status.owed, "message"));
        globals.print(&format!("  {} {text}", style.mark(Mark::Suspect)));
    }
    for orphan in &status.orphans {
        let (pid, service) = (orphan.pid, &orphan.service);
        let text = format!("process {pid} of no service runs on, once of `{service}`: {}", orphan.command);
        globals.print(&format!("  {} {text}", style.mark(Mark::Suspect)));
    }
    let mut table = Table::default();
    for service in &status.services {
        let mark = Mark::of_word(&service.health);
        let latency = service.checks.iter().filter_map(|check| check.latency_us).max();
        table.row(vec![
            Cell::Shape(mark),
            Cell::Text(service.name.clone()),
            Cell::Painted(mark, service.health.clone()),
            Cell::Text(span(Duration::from_millis(service.since_ms))),
            Cell::Text(latency.map_or_else(|| "-".to_owned(), |us| span(Duration::from_micros(us)))),
            Cell::Text(story(service)),
        ]);
    }
    for line in table.lines(style, "  ") {
        globals.print(&line);
    }
    let bad = status.services.iter().find(|service| service.incident.is_some());
    if let Some(bad) = bad {
        globals.say(&format!("{} lidless status {}", globals.style_err.bold("more:"), bad.name));
    }
}

/// What there is to say about a service that is not simply up.
fn story(service: &ServiceStatus) -> String {
    let failing = service.checks.iter().find_map(|check| check.failure.as_ref().map(|why| (check, why)));
    match (&service.incident, &service.run, failing) {
        (Some(incident), _, failing) => {
            // The present failure says more than the one that opened the incident.
            let why = failing.map_or(incident.failure.as_str(), |(_, why)| why);
            format!("{} {why} ({})", incident.id, progress(service, incident))
        }
        (None, Some(run), _) => run.clone(),
        (None, None, Some((check, why))) => format!("{}: {why}", check.name),
        (None, None, None) => String::new(),
    }
}

fn progress(service: &ServiceStatus, incident: &IncidentStatus) -> String {
    service.run.clone().unwrap_or_else(|| incident.outcome.clone())
}

fn one(globals: &Globals, service: &ServiceStatus, all: &[ServiceStatus], last: &VecDeque<EventLine>) {
    let style = &globals.style;
    let mark = Mark::of_word(&service.health);
    let since = span(Duration::from_millis(service.since_ms));
    let head = format!("{} {}", style.mark(mark), style.bold(&service.name));
    globals.print(&format!("{head}  {} for {since}", style.paint(mark, &service.health)));
    let mut checks = Table::default();
    for check in &service.checks {
        let mark = Mark::of_word(&check.health);
        let latency = check.latency_us.map_or_else(|| "-".to_owned(), |us| span(Duration::from_micros(us)));
        // "http http://..." and "process the process" say one thing twice.
        let twice = check.asks.contains(&check.kind);
        let asks = if twice { check.asks.clone() } else { format!("{} {}", check.kind, check.asks) };
        let why = check.failure.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        checks.row(vec![
            Cell::Shape(mark),
            Cell::Text(check.name.clone()),
            Cell::Painted(mark, check.health.clone()),
            Cell::Text(latency),
            Cell::Text(format!("{asks}{why}")),
        ]);
    }
    let field = |name: &str, text: &str| {
        globals.print(&format!("  {} {text}", style.dim(&format!("{name:<9}"))));
    };
    for (at, line) in checks.lines(style, "").iter().enumerate() {
        field(if at == 0 { "checks" } else { "" }, line);
    }
    if !service.depends_on.is_empty() {
        let shown = service.depends_on.iter().map(|name| {
            let health =
                all.iter().find(|other| other.name == *name).map_or("unknown", |other| other.health.as_str());
            format!("{} {name} {health}", style.mark(Mark::of_word(health)).trim_end())
        });
        field("needs", &shown.collect::<Vec<_>>().join("   "));
    }
    match &service.heals_left {
        Some(heals) => {
            let per = span(Duration::from_secs(heals.per_s));
            field("heals", &format!("{} of {} left in {per}", heals.left, heals.attempts));
        }
        None => field("heals", "none: lidless only watches it"),
    }
    if let Some(run) = &service.run {
        field("run", run);
    }
    if let Some(incident) = &service.incident {
        let lasted = span(Duration::from_millis(incident.lasted_ms));
        let heals = plural(usize::try_from(incident.heals).unwrap_or(usize::MAX), "heal");
        field(
            "incident",
            &format!("{} for {lasted}: {} ({heals}; {})", incident.id, incident.failure, incident.outcome),
        );
    }
    for (at, line) in events::lines(globals, last.iter(), false).iter().enumerate() {
        field(if at == 0 { "events" } else { "" }, line);
    }
    if service.health != "up" {
        globals.say(&format!(
            "{} lidless events -f --service {}",
            globals.style_err.bold("more:"),
            service.name
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::unknown_service;

    #[test]
    fn a_slip_of_the_finger_is_recognised() {
        let hint = |name: &str| unknown_service(name, ["api", "postgres"].into_iter()).hint;
        assert_eq!(hint("postgers").as_deref(), Some("did you mean `postgres`?"));
        assert_eq!(hint("ap").as_deref(), Some("did you mean `api`?"));
        assert_eq!(hint("redis").as_deref(), Some("there are: api, postgres"));
        assert_eq!(
            unknown_service("x", std::iter::empty()).hint.as_deref(),
            Some("`lidless status` lists them all")
        );
    }
}
