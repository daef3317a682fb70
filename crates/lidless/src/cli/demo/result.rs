//! What came of the demo? Which faults there are, how long each heal took, and how that is told.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::Globals;
use crate::cli::exit::Exit;
use crate::words::span;

/// A way to break something.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Kill,
    Answer500,
    Hang,
    Drip,
    Exit,
    KillLidless,
}

impl Fault {
    pub(super) const ALL: [Fault; 6] =
        [Fault::Kill, Fault::Answer500, Fault::Hang, Fault::Drip, Fault::Exit, Fault::KillLidless];

    /// The name for scripts.
    fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Answer500 => "answer_500",
            Fault::Hang => "hang",
            Fault::Drip => "drip",
            Fault::Exit => "exit",
            Fault::KillLidless => "kill_lidless",
        }
    }

    pub(super) fn title(self) -> &'static str {
        match self {
            Fault::Kill => "kill -9 of the service",
            Fault::Answer500 => "the service answers 500",
            Fault::Hang => "the service hangs: it accepts and never answers",
            Fault::Drip => "the service drips: one byte every 100 ms",
            Fault::Exit => "the service exits with code 1",
            Fault::KillLidless => "kill -9 of lidless itself, and of the service while nobody watches",
        }
    }
}

/// One fault and its heal.
pub(super) struct Row {
    pub(super) fault: Fault,
    pub(super) noticed: Option<Duration>,
    pub(super) healed: Option<Duration>,
}

/// Whether nothing stayed broken.
pub(super) fn all_healed(rows: &[Row]) -> bool {
    rows.iter().all(|row| row.healed.is_some())
}

/// Tells what came of it: a table of a demo that went to its end, a document in any case.
pub(super) fn show(globals: &Globals, rows: &[Row], exit: Exit) {
    if globals.json() {
        globals.document(&document(rows, exit));
    } else if exit == Exit::Ok || !all_healed(rows) {
        table(globals, rows);
    }
}

fn document(rows: &[Row], exit: Exit) -> Value {
    let faults = rows.iter().map(|row| {
        let ms =
            |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        json!({
            "fault": row.fault.name(),
            "title": row.fault.title(),
            "noticed_ms": ms(row.noticed),
            "healed_ms": ms(row.healed),
        })
    });
    let faults: Vec<_> = faults.collect();
    json!({ "schema": "lidless/demo/1", "all_healed": exit == Exit::Ok, "faults": faults })
}

fn table(globals: &Globals, rows: &[Row]) {
    globals.print(&format!("\n{:<70} {:>9} {:>9}", "fault", "noticed", "healed"));
    for row in rows {
        let time = |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), span);
        let title = row.fault.title();
        globals.print(&format!("{title:<70} {:>9} {:>9}", time(row.noticed), time(row.healed)));
    }
    let healed = rows.iter().filter(|row| row.healed.is_some()).count();
    globals.print(&format!(
        "\n{healed} of {} healed. Next: lidless serve examples/quickstart/lidless.yaml",
        rows.len()
    ));
}
