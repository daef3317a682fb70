//! `lidless events`: what happened? The journal in words, from the daemon or from the file.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use lidless_core::event::{Event, Outcome, Verdict};
use lidless_core::id::{RunId, Seq};
use lidless_store::{EventFilter, SqliteReader};
use serde_json::json;

use super::exit::{Exit, Failure};
use super::globals::Globals;
use super::output::{Cell, Format, Mark, Table};
use super::{daemon, since};
use crate::api::EventLine;
use crate::api::client::{Client, Lasting};
use crate::runtime::status::Status;
use crate::story;
use crate::words::Names;

/// How many records are read from a file in one go.
const PAGE: usize = 1_000;

/// Shows what happened, and with -f what happens.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  lidless events --since 1h\n  lidless events -f --service api\n  lidless events -n 20\n  \
    lidless events --since yesterday -o jsonl | jq -r .text\n  lidless events --store /var/lib/lidless/lidless.db\n\n\
    Without a daemon, --config and --store read the journal itself; nothing in it is changed."
)]
pub struct EventsArgs {
    /// Go on with what happens from now on; with --json one document a line
    #[arg(short, long)]
    pub follow: bool,
    /// Only what is not older: 14d, 10min, 2026-11-01, `today`, `yesterday`
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only what comes after this record: each event has its number in --json
    #[arg(long, value_name = "SEQ")]
    pub after: Option<u64>,
    /// Only what is about this service
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
    /// At most so many: the last ones, or with --after the first ones
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<usize>,
    /// Read this journal, without asking a daemon
    #[arg(long, value_name = "PATH", conflicts_with_all = ["follow", "connect"])]
    pub store: Option<PathBuf>,
}

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) after: Option<u64>,
    pub(super) since_ms: Option<i64>,
    pub(super) service: Option<String>,
    pub(super) follow: bool,
    /// Only what is of the story of this run.
    pub(super) run: Option<RunId>,
}

/// Shows them.
pub fn run(args: &EventsArgs, globals: &Globals) -> Exit {
    match show(args, globals) {
        Ok(()) => Exit::Ok,
        Err(failure) => globals.report(&failure),
    }
}

fn show(args: &EventsArgs, globals: &Globals) -> Result<(), Failure> {
    let now = jiff::Timestamp::now().to_zoned_datetime(globals.zone());
    let since_ms = args.since.as_ref().map(|text| since::parse(text, &now));
    let since_ms =
        since_ms.transpose().map_err(|why| Failure::new(Exit::Usage, why).hint("lidless events --help"))?;
    let mut wanted = Wanted {
        after: args.after,
        since_ms: since_ms.map(|time| time.as_millisecond()),
        service: args.service.clone(),
        ..Wanted::default()
    };
    let mut shown = Shown { globals, args, held: VecDeque::new(), count: 0, last: None };
    if let Some(store) = &args.store {
        from_store(store, &wanted, |line| shown.take(line))?;
        shown.end();
        return Ok(());
    }
    let client = match daemon::find(globals) {
        Ok(client) => client,
        Err(failure) if args.follow || globals.args.config.is_none() => return Err(failure),
        Err(_) => {
            let store = daemon::store(globals)?;
            globals.say(&format!("no lidless answers; reading its journal {}", store.display()));
            from_store(&store, &wanted, |line| shown.take(line))?;
            shown.end();
            return Ok(());
        }
    };
    globals.wait_for(async {
        if !args.follow {
            wanted.after = last_only(&client, args).await?.or(wanted.after);
            from_daemon(&client, &wanted, |line| shown.take(line)).await?;
            shown.end();
            return Ok(());
        }
        // The past is what is there now: of it --limit wants the end. What comes later is shown as it comes.
        let now: Status = client.get("/v1/status").await?;
        wanted.after = last_before(now.seq, args).or(wanted.after);
        from_daemon(&client, &wanted, |line| line.seq <= now.seq && shown.take(line)).await?;
        shown.release();
        let mut last = match args.limit {
            // The limit cut the list: what was cut off comes next.
            Some(limit) if args.after.is_some() && shown.count >= limit => {
                shown.last.or(args.after).unwrap_or(0)
            }
            Some(_) | None => now.seq.max(args.after.unwrap_or(0)),
        };
        wanted = Wanted { after: Some(last), since_ms: None, follow: true, ..wanted };
        let following = from_daemon(&client, &wanted, |line| {
            last = line.seq;
            shown.put(&[line]);
            globals.flush()
        });
        match following.await {
            Ok(()) if !globals.flush() => return Ok(()),
            // A daemon that ends, in order or not, may cut the conversation in the middle of a line.
            Ok(()) => {}
            Err(failure) if failure.exit == Exit::Unreachable => {}
            Err(failure) => return Err(failure),
        }
        let failure =
            Failure::new(Exit::Unreachable, format!("lidless at {} ended", client.path().display()));
        Err(failure.hint(format!("once it is back: lidless events -f --after {last}")))
    })
}

/// Returns where the last ones begin, if that can be known without reading: then the daemon need not read it all.
async fn last_only(client: &Client, args: &EventsArgs) -> Result<Option<u64>, Failure> {
    if last_before(u64::MAX, args).is_none() {
        return Ok(None);
    }
    let now: Status = client.get("/v1/status").await?;
    Ok(last_before(now.seq, args))
}

/// Which ones a service or a time means is known only by reading; the last N of all are known by their number.
fn last_before(seq: u64, args: &EventsArgs) -> Option<u64> {
    let EventsArgs { limit: Some(limit), after: None, service: None, since: None, .. } = args else {
        return None;
    };
    Some(seq.saturating_sub(u64::try_from(*limit).unwrap_or(u64::MAX)))
}

/// Asks the daemon; `visit` gets each event, and ends it with `false`.
pub(super) async fn from_daemon(
    client: &Client,
    wanted: &Wanted,
    mut visit: impl FnMut(EventLine) -> bool,
) -> Result<(), Failure> {
    let mut route = format!("/v1/events?follow={}", wanted.follow);
    if let Some(after) = wanted.after {
        route.push_str(&format!("&after={after}"));
    }
    if let Some(since_ms) = wanted.since_ms {
        route.push_str(&format!("&since_ms={since_ms}"));
    }
    if let Some(service) = &wanted.service {
        route.push_str(&format!("&service={}", percent(service)));
    }
    if let Some(run) = wanted.run {
        route.push_str(&format!("&run={run}"));
    }
    let mut strange = None;
    let lasting = if wanted.follow { Lasting::Follows } else { Lasting::Ends };
    let visited = client.lines(&route, lasting, |text| match serde_json::from_str(text) {
        Ok(line) => visit(line),
        Err(err) => {
            strange = Some(err.to_string());
            false
        }
    });
    visited.await?;
    match strange {
        None => Ok(()),
        Some(why) => {
            let failure = Failure::new(
                Exit::Unhealthy,
                format!("lidless at {} speaks otherwise: {why}", client.path().display()),
            );
            Err(failure.hint("the daemon and this command must be of one version: `lidless --version`"))
        }
    }
}

/// Reads the file; names are learnt from the beginning on.
pub(super) fn from_store(
    path: &Path,
    wanted: &Wanted,
    mut visit: impl FnMut(EventLine) -> bool,
) -> Result<(), Failure> {
    let reader = SqliteReader::open(path)?;
    let mut names = Names::default();
    let mut at = Seq(0);
    loop {
        let page = reader.events(at, PAGE, &EventFilter::default())?;
        let Some(last) = page.last() else { return Ok(()) };
        at = last.seq;
        for record in page {
            let wall_ms = record.at.wall_ms;
            let told = names.tell(record);
            let is_wanted = told.record.seq.0 > wanted.after.unwrap_or(0)
                && wanted.since_ms.is_none_or(|since_ms| wall_ms >= since_ms)
                && wanted.run.is_none_or(|run| story::is_about(&told.record.event, run))
                && wanted.service.as_ref().is_none_or(|name| told.service.as_ref() == Some(name));
            if is_wanted && !visit(EventLine::from(told)) {
                return Ok(());
            }
        }
    }
}

/// Writes a name so that it can stand in a query.
fn percent(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte))
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// What was shown, and what is held back until it is known which ones are the last.
struct Shown<'a> {
    globals: &'a Globals,
    args: &'a EventsArgs,
    held: VecDeque<EventLine>,
    count: usize,
    /// The number of the last one that was shown.
    last: Option<u64>,
}

impl Shown<'_> {
    /// Takes the next event of the past; `false` when no more are wanted.
    fn take(&mut self, line: EventLine) -> bool {
        self.held.push_back(line);
        match self.args.limit {
            Some(limit) if self.args.after.is_some() => {
                self.held.truncate(limit);
                self.held.len() < limit
            }
            Some(limit) => {
                while self.held.len() > limit {
                    self.held.pop_front();
                }
                true
            }
            // Nothing need be held for long; columns are then those of a page. One JSON document holds all of it.
            None if self.held.len() >= PAGE && !self.is_one_document() => {
                self.release();
                self.globals.flush()
            }
            None => true,
        }
    }

    fn is_one_document(&self) -> bool {
        self.globals.format() == Format::Json && !self.args.follow
    }

    fn release(&mut self) {
        let held: Vec<EventLine> = self.held.drain(..).collect();
        self.put(&held);
        self.globals.flush();
    }

    fn put(&mut self, lines: &[EventLine]) {
        self.count += lines.len();
        self.last = lines.last().map(|line| line.seq).or(self.last);
        if self.is_one_document() {
            self.globals.document(&json!({ "schema": "lidless/events/1", "events": lines }));
        } else if self.globals.json() {
            for line in lines {
                let text = serde_json::to_string(line).expect("events have text keys and finite numbers");
                self.globals.data(&(text + "\n"));
            }
        } else {
            for line in self::lines(self.globals, lines.iter(), true) {
                self.globals.data(&(self.globals.style.fold(&line) + "\n"));
            }
        }
    }

    fn end(&mut self) {
        self.release();
        if self.count == 0 {
            self.globals.say("no events");
        }
    }
}

/// Puts events into lines of equal columns. The service is named unless all are about the same one.
pub(super) fn lines<'a>(
    globals: &Globals,
    events: impl Iterator<Item = &'a EventLine>,
    with_service: bool,
) -> Vec<String> {
    let mut table = Table::default();
    for line in events {
        let mark = mark_of(&line.record.event);
        let about = match (with_service, &line.service, &line.check) {
            (true, Some(service), Some(check)) => format!("{service}/{check}"),
            (true, Some(service), None) => service.clone(),
            (true, None, _) => "lidless".to_owned(),
            (false, _, check) => check.clone().unwrap_or_default(),
        };
        let text = match mark {
            Mark::Step => line.text.trim_start_matches(['→', ' ']).to_owned(),
            _ => line.text.clone(),
        };
        table.row(vec![
            Cell::Text(globals.time(&line.time)),
            Cell::Text(if with_service { format!("{about:<14}") } else { about }),
            Cell::Shape(mark),
            Cell::Text(text),
        ]);
    }
    table.lines(&globals.style, "")
}

fn mark_of(event: &Event) -> Mark {
    match event {
        Event::HealthChanged { to, .. } => (*to).into(),
        Event::IncidentOpened { .. }
        | Event::IncidentMerged { .. }
        | Event::GaveUp { .. }
        | Event::StoreDegraded { .. }
        | Event::RunFinished { verdict: Verdict::Failed { .. } | Verdict::Undone { .. }, .. }
        | Event::StepStuck { .. }
        | Event::StepFailed { .. }
        | Event::StepOutcome { outcome: Outcome::NotApplied { .. } | Outcome::Refused { .. }, .. } => {
            Mark::Down
        }
        Event::IncidentClosed { .. }
        | Event::StoreRecovered
        | Event::RunFinished { verdict: Verdict::Done, .. }
        | Event::StepOutcome { outcome: Outcome::Applied { .. } | Outcome::Found { .. }, .. } => Mark::Up,
        Event::HealHeld { .. }
        | Event::BackedOff { .. }
        | Event::StepHeld { .. }
        | Event::CancelAsked { .. }
        | Event::StepAwaits { .. }
        | Event::RunTurned { .. }
        | Event::TriggerMissed { .. }
        | Event::RunFinished { verdict: Verdict::Cancelled { .. }, .. }
        | Event::NoticeFailed { .. }
        | Event::StepOutcome { outcome: Outcome::Unavailable { .. } | Outcome::Missing { .. }, .. } => {
            Mark::Suspect
        }
        Event::StepOutcome { outcome: Outcome::Unknown { .. }, .. } | Event::StepLeftToVerify { .. } => {
            Mark::Unknown
        }
        Event::StepIntent { .. } => Mark::Step,
        Event::Started { .. }
        | Event::Stopped { .. }
        | Event::Marked
        | Event::ConfigApplied { .. }
        | Event::RunCreated { .. }
        | Event::StepConfirmed { .. }
        | Event::StepRetry { .. }
        | Event::StepHandle { .. }
        | Event::StepSkipped { .. }
        | Event::StepApproved { .. }
        | Event::StepResolved { .. }
        | Event::RunResumed { .. }
        | Event::NoticeOwed { .. }
        | Event::NoticeDelivered { .. }
        | Event::Intervention { .. } => Mark::None,
    }
}
