//! Is a systemd unit active? systemd is asked over D-Bus, and tells when the state changes.
//!
//! `active` is what systemd knows: that the main process lives. A process that is stopped or hangs is `active` too; whether
//! it answers is for another check to ask.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lidless_core::check::{CheckFailure, CheckOutcome, FailureKind};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use zbus::OwnedVariant;
use zbus::{MatchRule, message};

use crate::check::{BoxFuture, Check};
use crate::systemd::unit::{self, Unit};
use crate::systemd::{Bus, BusError, SYSTEMD};

/// The longest that subscribing to a unit's signals may take.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// The wait after subscribing failed. Until then the state is only polled.
const RESUBSCRIBE_AFTER: Duration = Duration::from_secs(1);

/// Asks whether a unit is active.
#[derive(Debug)]
pub struct SystemdCheck {
    bus: Arc<Bus>,
    unit: String,
    seen: Arc<Seen>,
    listener: OnceLock<Listener>,
}

/// The state that was seen last, by a probe or by a signal, and who waits for another one.
#[derive(Debug, Default)]
struct Seen {
    state: Mutex<Option<State>>,
    changed: Notify,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    active: String,
    sub: String,
}

/// Receives the signals of one unit for as long as the check lives.
///
/// It is a task of its own because signals must be taken in as they come, whether or not somebody waits for a change:
/// left lying, they would hold up the connection that all drivers share.
#[derive(Debug)]
struct Listener(JoinHandle<()>);

impl SystemdCheck {
    /// Returns a check of the unit with this name; without a suffix, of the service.
    pub fn new(bus: Arc<Bus>, unit: &str) -> Self {
        let unit = unit::full_name(unit);
        SystemdCheck { bus, unit, seen: Arc::default(), listener: OnceLock::new() }
    }

    async fn ask(&self, deadline: Instant) -> Result<Verdict, BusError> {
        let Some(unit) = unit::find(&self.bus, &self.unit, deadline).await? else {
            return Ok(Verdict::Unclear(format!("no such unit: {}", self.unit)));
        };
        self.seen.note(&State { active: unit.active.clone(), sub: unit.sub.clone() });
        let verdict = judge(&unit);
        let Verdict::Down(mut failure) = verdict else { return Ok(verdict) };
        let ending = unit.ending(&self.bus, deadline).await?;
        failure.detail = ending.describe(&unit);
        Ok(Verdict::Down(failure.with_exit_code(ending.exit_code())))
    }
}

impl Check for SystemdCheck {
    fn probe(&self, timeout: Duration) -> BoxFuture<'_, CheckOutcome> {
        Box::pin(async move {
            let began = Instant::now();
            let verdict = self.ask(began + timeout).await;
            let latency = began.elapsed();
            match verdict {
                Ok(Verdict::Up) => CheckOutcome::Pass { latency },
                Ok(Verdict::Down(failure)) => {
                    CheckOutcome::Fail { latency, failure: CheckFailure { latency, ..failure } }
                }
                Ok(Verdict::Unclear(reason)) => CheckOutcome::Inconclusive { reason },
                Err(err) => CheckOutcome::Inconclusive { reason: err.reason() },
            }
        })
    }

    fn changed(&self) -> Option<BoxFuture<'_, ()>> {
        Some(Box::pin(async move {
            self.listener.get_or_init(|| {
                let (bus, unit, seen) = (Arc::clone(&self.bus), self.unit.clone(), Arc::clone(&self.seen));
                Listener(tokio::spawn(async move { listen(&bus, &unit, &seen).await }))
            });
            self.seen.changed.notified().await;
        }))
    }
}

enum Verdict {
    Up,
    Down(CheckFailure),
    Unclear(String),
}

/// What the state of a unit means.
fn judge(unit: &Unit) -> Verdict {
    let state = format!("{} ({})", unit.active, unit.sub);
    let down = || Verdict::Down(CheckFailure::new(FailureKind::Unit, state.clone()).certain());
    // Between the two halves of a restart the unit is `inactive` for a moment, and a start may have to wait for others:
    // with such a job in the queue it is not down but under way.
    if let Some(job) = unit.job.as_ref().filter(|job| job.kind != "stop")
        && unit.active != "active"
    {
        return Verdict::Unclear(format!("{state}, with job {} to {} it under way", job.id, job.kind));
    }
    match (unit.active.as_str(), unit.sub.as_str()) {
        ("active", _) => Verdict::Up,
        // The process is dead, and systemd waits before it tries again.
        ("activating", sub) if sub.starts_with("auto-restart") => down(),
        ("inactive", _) if !unit.is_known() => Verdict::Unclear(match unit.load.as_str() {
            "not-found" => format!("no such unit: {}", unit.id),
            load => format!("no such unit: {} is {load}", unit.id),
        }),
        ("inactive" | "failed", _) => down(),
        _ => Verdict::Unclear(state),
    }
}

impl Seen {
    /// Keeps a state, and says whether it is another one than before. The first one is none.
    fn note(&self, state: &State) -> bool {
        // A `State` is replaced as a whole: whoever panicked left none half written.
        let mut seen = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = seen.as_ref().is_some_and(|seen| seen != state);
        *seen = Some(state.clone());
        changed
    }

    /// The same, and wakes up whoever waits for a change.
    fn tell(&self, state: &State) {
        if self.note(state) {
            self.changed.notify_one();
        }
    }
}

async fn listen(bus: &Bus, name: &str, seen: &Seen) {
    loop {
        // Ends when the connection does, or when it could not subscribe. Then polling goes on alone until it can again.
        if let Err(err) = listen_once(bus, name, seen).await {
            tracing::debug!(unit = name, reason = err.reason(), "No signals from systemd; polling only.");
            tokio::time::sleep(RESUBSCRIBE_AFTER).await;
        }
    }
}

async fn listen_once(bus: &Bus, name: &str, seen: &Seen) -> Result<(), BusError> {
    let deadline = Instant::now() + SUBSCRIBE_TIMEOUT;
    let Some(unit) = unit::find(bus, name, deadline).await? else {
        return Err(BusError::Unreachable { reason: format!("no unit can be named {name}") });
    };
    let rule = properties_changed(&unit.path)
        .map_err(|err| BusError::Garbled { method: "ListUnitsByNames".into(), err })?;
    let mut signals = bus.line(deadline).await?.signals(rule, deadline).await?;
    // What changed before the subscription took effect, and after the last probe, is told by no signal.
    if let Some(unit) = unit::find(bus, name, deadline).await? {
        seen.tell(&State { active: unit.active, sub: unit.sub });
    }
    while let Some(Ok(signal)) = signals.next().await {
        if let Some(state) = state_in(&signal) {
            seen.tell(&state);
        }
    }
    Ok(())
}

fn properties_changed(path: &str) -> zbus::Result<MatchRule<'_>> {
    MatchRule::builder()
        .msg_type(message::Type::Signal)
        .sender(SYSTEMD)
        .path(path)
        .interface("org.freedesktop.DBus.Properties")
        .member("PropertiesChanged")
        .add_arg(unit::UNIT)
        .build()
}

fn state_in(signal: &message::Message) -> Option<State> {
    type Changed = (String, std::collections::HashMap<String, OwnedVariant>, Vec<String>);
    let body = signal.body();
    let (_, mut changed, _): Changed = body.deserialize().ok()?;
    let mut take = |name| String::try_from(changed.remove(name)?).ok();
    Some(State { active: take("ActiveState")?, sub: take("SubState")? })
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systemd::unit::Job;

    fn judged(active: &str, sub: &str, load: &str, job: Option<&str>) -> String {
        let word = String::from;
        let job = job.map(|kind| Job { id: 7, kind: word(kind) });
        let id = word("app.service");
        let unit = Unit { id, path: word("/"), load: word(load), active: word(active), sub: word(sub), job };
        match judge(&unit) {
            Verdict::Up => word("up"),
            Verdict::Down(failure) => format!("down, {}: {}", failure.certain, failure.detail),
            Verdict::Unclear(reason) => format!("unclear: {reason}"),
        }
    }

    #[test]
    fn a_unit_is_down_only_when_systemd_is_sure_and_not_about_to_start_it() {
        for (active, sub, load, job, verdict) in [
            ("active", "running", "loaded", None, "up"),
            ("active", "running", "not-found", None, "up"),
            ("active", "running", "loaded", Some("stop"), "up"),
            ("failed", "failed", "loaded", None, "down, true: failed (failed)"),
            ("inactive", "dead", "loaded", None, "down, true: inactive (dead)"),
            ("inactive", "dead", "loaded", Some("stop"), "down, true: inactive (dead)"),
            (
                "inactive",
                "dead",
                "loaded",
                Some("restart"),
                "unclear: inactive (dead), with job 7 to restart it under way",
            ),
            ("activating", "auto-restart", "loaded", None, "down, true: activating (auto-restart)"),
            ("activating", "start-pre", "loaded", None, "unclear: activating (start-pre)"),
            ("reloading", "reload", "loaded", None, "unclear: reloading (reload)"),
            ("deactivating", "stop-sigterm", "loaded", None, "unclear: deactivating (stop-sigterm)"),
            ("inactive", "dead", "not-found", None, "unclear: no such unit: app.service"),
            ("inactive", "dead", "masked", None, "unclear: no such unit: app.service is masked"),
        ] {
            assert_eq!(judged(active, sub, load, job), verdict);
        }
    }
}
