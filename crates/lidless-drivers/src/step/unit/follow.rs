//! When has a unit ended, and how? It is asked whenever systemd says that it changed, and now and then beside that.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;
use zbus::{MatchRule, MessageStream, message};

use super::super::Log;
use super::super::answer::Said;
use super::super::output::Lines;
use super::ANSWER_MAX;
use super::files::Folder;
use crate::child::Ended;
use crate::systemd::transient;
use crate::systemd::unit::{self, Ending, Unit};
use crate::systemd::{Bus, BusError, SYSTEMD};

/// So often what it says is read, and systemd asked, though nothing was heard.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long it may take to be gone once it is killed.
const KILLED_MAX: Duration = Duration::from_millis(500);
/// How long a unit that was asked for may not be there yet.
const START_MAX: Duration = Duration::from_secs(2);

/// What became of a unit.
pub(in super::super) enum Followed {
    /// It ended.
    Ended(Ended, Said),
    /// Nobody can say, and why.
    Lost(String),
}

enum Look {
    Running(Unit),
    Ended(Unit, Ending),
    Gone,
}

/// Waits for the end of a unit, and ends it at the deadline.
pub(super) async fn follow(
    bus: &Bus,
    name: &str,
    folder: &Folder,
    deadline: Instant,
    log: &dyn Log,
) -> Followed {
    let began = Instant::now();
    let mut lines = Lines::new(log);
    let mut heard = 0;
    let mut changes: Option<MessageStream> = None;
    let (mut seen, mut overdue) = (false, false);
    let (unit, ending) = loop {
        heard = hear(folder, heard, &mut lines).await;
        let now = Instant::now();
        let looked = look(bus, name, (now + ANSWER_MAX).min(deadline.max(now) + KILLED_MAX)).await;
        let why = match looked {
            Ok(Look::Ended(unit, ending)) => break (unit, ending),
            Ok(Look::Gone) if seen || began.elapsed() >= START_MAX => {
                return Followed::Lost(format!("{name} is gone, and nobody knows how it ended"));
            }
            Ok(Look::Gone) => format!("{name} is not there"),
            Ok(Look::Running(unit)) => {
                seen = true;
                if changes.is_none() {
                    changes = subscribe(bus, &unit.path).await;
                    // What changed before we listened is seen at once.
                    if changes.is_some() {
                        continue;
                    }
                }
                format!("{name} cannot be ended")
            }
            Err(err) => err.reason(),
        };
        let now = Instant::now();
        if now >= deadline + KILLED_MAX {
            return Followed::Lost(why);
        }
        if now >= deadline && !overdue {
            overdue = true;
            // Where it fails, systemd's own deadline holds.
            let _ = transient::kill(bus, name, now + KILLED_MAX).await;
        }
        let next = if overdue { deadline + KILLED_MAX } else { deadline }.min(now + LOOK_EVERY);
        tokio::select! {
            true = changed(&mut changes) => {}
            () = tokio::time::sleep_until(next) => {}
        }
    };
    loop {
        let more = hear(folder, heard, &mut lines).await;
        if more == heard {
            break;
        }
        heard = more;
    }
    let complaint = lines.end();
    let reading = folder.clone();
    let stdout = match tokio::task::spawn_blocking(move || reading.said()).await {
        Ok(Ok(stdout)) => stdout,
        Ok(Err(err)) => return Followed::Lost(format!("what it said cannot be read: {err}")),
        Err(err) => return Followed::Lost(format!("what it said cannot be read: {err}")),
    };
    let (code, signal) = (ending.exit_code(), ending.signal());
    if code.is_none() && signal.is_none() {
        return Followed::Lost(format!("{name} is {}", ending.describe(&unit)));
    }
    let timed_out = code.is_none() && (overdue || ending.result.as_deref() == Some("timeout"));
    let (stderr, took) = (Vec::new(), began.elapsed());
    Followed::Ended(
        Ended { code, signal, stdout: Vec::new(), stderr, took, timed_out },
        Said { stdout, complaint },
    )
}

/// Passes on what it wrote to its standard error since; returns how much that is in all.
async fn hear(folder: &Folder, heard: u64, lines: &mut Lines<'_>) -> u64 {
    let folder = folder.clone();
    match tokio::task::spawn_blocking(move || folder.complaint(heard)).await {
        Ok(Ok(piece)) => {
            lines.push(&piece);
            heard + piece.len() as u64
        }
        // Its words are lost, not its answer.
        Ok(Err(_)) | Err(_) => heard,
    }
}

async fn look(bus: &Bus, name: &str, deadline: Instant) -> Result<Look, BusError> {
    let Some(unit) = unit::find(bus, name, deadline).await? else { return Ok(Look::Gone) };
    if !unit.is_known() && unit.job.is_none() {
        return Ok(Look::Gone);
    }
    let is_over = matches!(unit.active.as_str(), "inactive" | "failed") || unit.sub == "exited";
    if unit.job.is_some() || !is_over {
        return Ok(Look::Running(unit));
    }
    let ending = unit.ending(bus, deadline).await?;
    // Let go between two questions, it would tell nothing.
    Ok(if ending.result.is_none() { Look::Gone } else { Look::Ended(unit, ending) })
}

/// Returns what tells of a unit's changes; without it, there is a look now and then.
async fn subscribe(bus: &Bus, path: &str) -> Option<MessageStream> {
    let deadline = Instant::now() + ANSWER_MAX;
    let rule = MatchRule::builder()
        .msg_type(message::Type::Signal)
        .sender(SYSTEMD)
        .interface("org.freedesktop.DBus.Properties")
        .member("PropertiesChanged")
        .path(path);
    let rule = rule.build().ok()?;
    bus.line(deadline).await.ok()?.signals(rule, deadline).await.ok()
}

/// Waits for a change. False where none will be told any more.
async fn changed(changes: &mut Option<MessageStream>) -> bool {
    let Some(stream) = changes else { return false };
    if let Some(Ok(_)) = stream.next().await {
        return true;
    }
    *changes = None;
    false
}
