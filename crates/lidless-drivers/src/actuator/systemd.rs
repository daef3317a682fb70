//! How is a systemd unit restarted? By a job of systemd's own, whose end is awaited, and which is never guessed at.
//!
//! systemd limits by itself how often a unit may be started. Our restarts are bounded by lidless's budget, so its limit is
//! lifted when it is in the way, once an act, and the output says so.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use lidless_core::event::{Confirmation, Outcome};
use lidless_core::spec::Action;
use lidless_core::time::Now;
use tokio::time::{Instant, timeout_at};
use zbus::OwnedObjectPath;
use zbus::{MatchRule, MessageStream, message};

use crate::actuator::Actuator;
use crate::check::BoxFuture;
use crate::systemd::unit::{self, Started, Unit};
use crate::systemd::{Bus, BusError, Call, SYSTEMD};

/// How long systemd may take to say how a unit is, before it counts as unavailable. An act may take far longer.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// When to ask again about a job that runs.
const RETRY_RUNNING: Duration = Duration::from_millis(200);
/// When to ask again a systemd that does not answer.
const RETRY_SILENT: Duration = Duration::from_secs(1);
/// How far the wall clock may stray from engine time between an intent and now without having been set.
const CLOCK_SLACK: Duration = Duration::from_secs(1);

/// Engine time now.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Starts, restarts and reloads a unit.
pub struct SystemdActuator {
    bus: Arc<Bus>,
    unit: String,
    clock: Clock,
}

/// How a job ended.
struct JobEnd {
    id: u32,
    /// `done`, or one of many words for that it was not.
    result: String,
}

impl SystemdActuator {
    /// Returns an actuator of the unit with this name; without a suffix, of the service.
    pub fn new(bus: Arc<Bus>, unit: &str, clock: Clock) -> Self {
        SystemdActuator { bus, unit: unit::full_name(unit), clock }
    }

    /// Does it. An `Err` is an outcome too: the one that cut it short.
    async fn act(&self, action: Action, timeout: Duration) -> Result<Outcome, Outcome> {
        let began = Instant::now();
        let deadline = began + timeout;
        // First something that changes nothing: if systemd is silent now, then nothing was done. Once the job is asked for,
        // silence means that nobody knows.
        let looked = unit::find(&self.bus, &self.unit, deadline.min(began + LOOK_TIMEOUT)).await;
        let Some(unit) = looked.map_err(unavailable)? else {
            return Err(Outcome::NotApplied { reason: format!("no such unit: {}", self.unit) });
        };
        let before =
            unit.invocation(&self.bus, deadline.min(began + LOOK_TIMEOUT)).await.map_err(unavailable)?;

        let end = self.job(action, &unit, timeout, deadline).await?;
        if end.result == "done" {
            return Ok(Outcome::Applied { output: self.told(&unit, &end, deadline).await });
        }
        if !self.start_limit_hit(action, &unit, &end, before, deadline).await {
            return Ok(self.not_applied(&end, deadline).await);
        }
        self.reset(&unit, deadline).await?;
        let end = self.job(action, &unit, timeout, deadline).await?;
        if end.result == "done" {
            let told = self.told(&unit, &end, deadline).await;
            return Ok(Outcome::Applied { output: format!("reset a start limit; {told}") });
        }
        Ok(match self.not_applied(&end, deadline).await {
            Outcome::NotApplied { reason } => {
                Outcome::NotApplied { reason: format!("{reason}; reset a start limit before") }
            }
            other @ (Outcome::Applied { .. }
            | Outcome::Found { .. }
            | Outcome::Refused { .. }
            | Outcome::Unavailable { .. }
            | Outcome::Missing { .. }
            | Outcome::Unknown { .. }) => other,
        })
    }

    /// Asks for a job and waits for its end.
    async fn job(
        &self,
        action: Action,
        unit: &Unit,
        timeout: Duration,
        deadline: Instant,
    ) -> Result<JobEnd, Outcome> {
        let line = self.bus.line(deadline).await.map_err(unavailable)?;
        // Subscribed before the call, or the end of a quick job would be lost.
        let rule = job_removed(&unit.id)
            .map_err(|err| Outcome::NotApplied { reason: format!("bad unit name: {err}") })?;
        let mut ends = line.signals(rule, deadline).await.map_err(unavailable)?;
        let method = match action {
            Action::Start => "StartUnit",
            Action::Restart => "RestartUnit",
            Action::Reload => "ReloadUnit",
        };
        let answer = line.call(Call::manager(method), &(&unit.id, "replace"), deadline).await;
        let job: OwnedObjectPath = match answer {
            Ok(answer) => answer
                .body()
                .deserialize()
                .map_err(|err| unknown(format!("the answer to {method}: {err}")))?,
            Err(err) => return Err(self.refused(action, err)),
        };
        let id = job.rsplit('/').next().and_then(|id| id.parse().ok()).unwrap_or_default();
        match timeout_at(deadline, end_of(&mut ends, &job)).await {
            Ok(Some(result)) => Ok(JobEnd { id, result }),
            Ok(None) => Err(unknown(format!("the connection to systemd broke while job {id} ran"))),
            Err(_) => Err(unknown(format!("job {id} still running after {}", seconds(timeout)))),
        }
    }

    /// What it means that a job was not accepted.
    fn refused(&self, action: Action, err: BusError) -> Outcome {
        let act = format!("{} {}", action.word(), self.unit);
        match err {
            BusError::Unreachable { .. } => unavailable(err),
            BusError::Silent { .. } | BusError::Broken { .. } | BusError::Garbled { .. } => {
                unknown(format!("asked to {act}: {}", err.reason()))
            }
            BusError::Refused { name, text } => match name.rsplit('.').next() {
                Some("AccessDenied" | "InteractiveAuthorizationRequired" | "NotAuthorized") => {
                    Outcome::Unavailable {
                        reason: format!(
                            "not allowed to {act} ({text}); run lidless as root, or allow it by a polkit rule for \
                         org.freedesktop.systemd1.manage-units"
                        ),
                    }
                }
                Some(_) | None => Outcome::NotApplied { reason: format!("cannot {act}: {text}") },
            },
        }
    }

    /// Whether a start failed because systemd would not even try.
    ///
    /// The unit's `Result` does not always say so: what it failed of before comes first. But a start that was refused leaves
    /// the invocation as it was, for nothing was started; one that failed by itself does not.
    async fn start_limit_hit(
        &self,
        action: Action,
        unit: &Unit,
        end: &JobEnd,
        before: Option<Vec<u8>>,
        deadline: Instant,
    ) -> bool {
        let starts = match action {
            Action::Start | Action::Restart => true,
            Action::Reload => false,
        };
        // What cannot be read now is no reason to start again.
        let after = async {
            let now = unit::find(&self.bus, &unit.id, deadline).await?;
            let ending = unit.ending(&self.bus, deadline).await?;
            Ok::<_, BusError>((now, ending.result, unit.invocation(&self.bus, deadline).await?))
        };
        let Ok((Some(now), result, invocation)) = after.await else { return false };
        starts
            && end.result == "failed"
            && now.active == "failed"
            && (result.as_deref() == Some("start-limit-hit") || invocation == before)
    }

    async fn reset(&self, unit: &Unit, deadline: Instant) -> Result<(), Outcome> {
        let line = self.bus.line(deadline).await.map_err(unavailable)?;
        match line.call(Call::manager("ResetFailedUnit"), &(&unit.id,), deadline).await {
            Ok(_) => Ok(()),
            Err(err) => Err(Outcome::NotApplied {
                reason: format!(
                    "the start limit of {} is reached, and resetting it failed: {}",
                    unit.id,
                    err.reason()
                ),
            }),
        }
    }

    async fn told(&self, unit: &Unit, end: &JobEnd, deadline: Instant) -> String {
        match unit.main_pid(&self.bus, deadline).await {
            Ok(Some(pid)) => format!("job {} done; main process {pid}", end.id),
            // The job is done all the same.
            Ok(None) | Err(_) => format!("job {} done", end.id),
        }
    }

    async fn not_applied(&self, end: &JobEnd, deadline: Instant) -> Outcome {
        let state = self.state(deadline).await;
        Outcome::NotApplied {
            reason: format!("job {} ended as {}: {} is {state}", end.id, end.result, self.unit),
        }
    }

    async fn state(&self, deadline: Instant) -> String {
        let unit = match unit::find(&self.bus, &self.unit, deadline).await {
            Ok(Some(unit)) => unit,
            Ok(None) => return "not there".to_owned(),
            Err(err) => return format!("in an unknown state ({})", err.reason()),
        };
        unit.ending(&self.bus, deadline).await.unwrap_or_default().describe(&unit)
    }

    /// Looks for traces of an act.
    async fn traces(
        &self,
        action: Action,
        intent_at: Now,
        deadline: Instant,
    ) -> Result<Confirmation, BusError> {
        let Some(unit) = unit::find(&self.bus, &self.unit, deadline).await? else {
            return Ok(Confirmation::NotApplied { evidence: format!("no such unit: {}", self.unit) });
        };
        let state = format!("{} ({})", unit.active, unit.sub);
        if let Some(job) = &unit.job {
            let reason = format!("job {} to {} it is under way, {state}", job.id, job.kind);
            return Ok(Confirmation::StillUnknown { reason, retry_after: RETRY_RUNNING });
        }
        // On its way without a job: stopping, or reloading. A wait before systemd's own restart has no end to wait for.
        if !matches!(unit.active.as_str(), "active" | "inactive" | "failed")
            && !unit.sub.starts_with("auto-restart")
        {
            return Ok(Confirmation::StillUnknown { reason: state, retry_after: RETRY_RUNNING });
        }
        if action == Action::Reload {
            return self.reload_traces(&unit, intent_at, deadline).await;
        }
        let started = unit.started(&self.bus, deadline).await?;
        let (active, since) = (unit.active == "active", self.is_after(started, intent_at));
        let state = match active {
            true => "active".to_owned(),
            false => format!("{} is {}", unit.id, unit.ending(&self.bus, deadline).await?.describe(&unit)),
        };
        let evidence = format!("{state}, started {} ago", seconds(Clocks::read(&self.clock).since(started)));
        Ok(match action {
            // Done is done: whether it helped is for the checks to say, and so is that it died of it again.
            Action::Start | Action::Restart if since => Confirmation::Applied { evidence, output: None },
            // A start asks for no more than that it is active.
            Action::Start | Action::Reload if active => Confirmation::Applied { evidence, output: None },
            Action::Restart if active => {
                Confirmation::NotApplied { evidence: format!("{evidence}, before it was to be restarted") }
            }
            Action::Start | Action::Restart | Action::Reload => Confirmation::NotApplied { evidence: state },
        })
    }

    async fn reload_traces(
        &self,
        unit: &Unit,
        intent_at: Now,
        deadline: Instant,
    ) -> Result<Confirmation, BusError> {
        Ok(match unit.reloaded(&self.bus, deadline).await? {
            Some((at, true)) if self.is_after(at, intent_at) => Confirmation::Applied {
                evidence: "its reload commands ran since, and succeeded".to_owned(),
                output: None,
            },
            Some((at, false)) if self.is_after(at, intent_at) => {
                Confirmation::NotApplied { evidence: "its reload commands ran since, and failed".to_owned() }
            }
            Some(_) => {
                Confirmation::NotApplied { evidence: "its reload commands have not run since".to_owned() }
            }
            // Such a reload leaves no trace. To do it again harms nothing.
            None => Confirmation::NotApplied { evidence: "nothing shows that it was reloaded".to_owned() },
        })
    }

    fn is_after(&self, started: Started, intent_at: Now) -> bool {
        is_after(started, intent_at, Clocks::read(&self.clock))
    }
}

impl Actuator for SystemdActuator {
    fn perform(&self, action: Action, timeout: Duration) -> BoxFuture<'_, Outcome> {
        Box::pin(async move { self.act(action, timeout).await.unwrap_or_else(|outcome| outcome) })
    }

    fn confirm(&self, action: Action, intent_at: Now, timeout: Duration) -> BoxFuture<'_, Confirmation> {
        Box::pin(async move {
            let traces = self.traces(action, intent_at, Instant::now() + timeout).await;
            traces.unwrap_or_else(|err| Confirmation::StillUnknown {
                reason: err.reason(),
                retry_after: RETRY_SILENT,
            })
        })
    }
}

/// All clocks at one moment.
#[derive(Clone, Copy)]
struct Clocks {
    engine: Duration,
    monotonic: Duration,
    wall: Duration,
}

impl Clocks {
    #[expect(clippy::disallowed_methods, reason = "systemd tells some moments by the wall clock alone")]
    fn read(engine: &Clock) -> Clocks {
        let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Clocks {
            engine: engine(),
            monotonic: Duration::try_from(monotonic).unwrap_or_default(),
            wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    fn since(&self, started: Started) -> Duration {
        self.monotonic.saturating_sub(Duration::from_micros(started.monotonic_us))
    }
}

/// Whether something that systemd started was started after an intent.
///
/// The monotonic clock decides, for nobody can set it. It stands still while the machine sleeps, though, which makes a start
/// before the sleep look later than it was. So the wall clock must agree, unless it was set since the intent.
fn is_after(started: Started, intent_at: Now, now: Clocks) -> bool {
    if started.monotonic_us == 0 || now.engine.saturating_sub(now.since(started)) < intent_at.monotonic {
        return false;
    }
    let intent_wall = Duration::from_millis(intent_at.wall_ms.try_into().unwrap_or_default());
    let elapsed = now.engine.saturating_sub(intent_at.monotonic);
    let wall_was_set = (intent_wall + elapsed).abs_diff(now.wall) > CLOCK_SLACK;
    wall_was_set || Duration::from_micros(started.wall_us) >= intent_wall
}

fn job_removed(unit: &str) -> zbus::Result<MatchRule<'_>> {
    MatchRule::builder()
        .msg_type(message::Type::Signal)
        .sender(SYSTEMD)
        .interface("org.freedesktop.systemd1.Manager")
        .member("JobRemoved")
        .arg(2, unit)
        .build()
}

/// The result of a job; `None` if the connection ends before the job does.
async fn end_of(ends: &mut MessageStream, job: &OwnedObjectPath) -> Option<String> {
    loop {
        let signal = ends.next().await?.ok()?;
        let removed: zbus::Result<(u32, OwnedObjectPath, String, String)> = signal.body().deserialize();
        if let Ok((_, path, _, result)) = removed
            && path == *job
        {
            return Some(result);
        }
    }
}

fn unavailable(err: BusError) -> Outcome {
    Outcome::Unavailable { reason: err.reason() }
}

fn unknown(reason: String) -> Outcome {
    Outcome::Unknown { reason }
}

fn seconds(time: Duration) -> String {
    if time.subsec_millis() == 0 {
        format!("{} s", time.as_secs())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_US: u64 = 1_000_000;

    /// The intent is at 100 s of engine time and 5,000 s of wall time; it is now 110 s of engine time.
    fn judged(monotonic_now: u64, wall_now: u64, started_monotonic: u64, started_wall: u64) -> bool {
        let now = Clocks {
            engine: Duration::from_secs(110),
            monotonic: Duration::from_secs(monotonic_now),
            wall: Duration::from_secs(wall_now),
        };
        let started =
            Started { monotonic_us: started_monotonic * SECOND_US, wall_us: started_wall * SECOND_US };
        is_after(started, Now { monotonic: Duration::from_secs(100), wall_ms: 5_000_000 }, now)
    }

    #[test]
    fn a_start_is_told_from_one_before_the_intent_whatever_the_wall_clock_does() {
        assert!(judged(50, 5010, 45, 5005), "started after the intent");
        assert!(!judged(50, 5010, 39, 4999), "started before it");
        assert!(judged(50, 1010, 45, 1005), "after it, and the clock was set back in between");
        assert!(!judged(50, 5010, 39, 9000), "before it, and before that the clock was set back");
        assert!(!judged(50, 5010, 45, 4990), "before it, and then the machine slept");
        assert!(!judged(50, 5010, 0, 0), "never started");
    }
}
