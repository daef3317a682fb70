//! How is an effect performed? Each as one future that always ends, in time, with an answer; a panic is an answer too.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use lidless_core::check::CheckOutcome;
use lidless_core::effect::Input;
use lidless_core::event::{Confirmation, Outcome};
use lidless_core::id::{CheckId, NoticeId, RunId};
use lidless_core::spec::Action;
use lidless_core::time::Now;
use lidless_drivers::actuator::Actuator;
use lidless_drivers::check::Check;
use lidless_drivers::step::unit::Units;
use lidless_drivers::step::{Answer, Call, Host, Step};

use tokio_util::sync::CancellationToken;

use super::calendar::Looked;
use super::notify::{Message, Notifier};
use super::scheduler::Launch;
use super::steps::{self, Calling};

/// How long past its deadline a driver may take before it is cut off; drivers keep their own deadlines.
const GRACE: Duration = Duration::from_secs(1);

/// How long a step that nobody wants any more may take to end by itself.
const INTERRUPT_GRACE: Duration = Duration::from_secs(10);

/// How long it may take to end, or to let go of, what outlives us.
const END_MAX: Duration = Duration::from_secs(10);

/// What a finished task has to say.
#[derive(Debug)]
pub(super) enum Done {
    /// A probe ended.
    Probed { check: CheckId, began: Duration, hedge: Option<u32>, outcome: CheckOutcome },
    /// A delivery ended; these notifiers have taken the message.
    Delivered { notice: NoticeId, taken: BTreeSet<usize>, result: Result<(), String> },
    /// Something else ended, and this is for the engine.
    Input(Input),
    /// Old words of runs are gone.
    Tidied,
    /// A check's target has probably changed.
    Changed { check: CheckId },
    /// Something was let go that nobody needs any more.
    LetGo,
    /// Moments of calendars have come, or it is time to look anew.
    Calendar(Looked),
}

/// Probes once.
pub(super) async fn probe(check: Arc<dyn Check>, launch: Launch, began: Duration) -> Done {
    let Launch { check: id, timeout, hedge } = launch;
    // No second timer beside the driver's own: this runs ten thousand times a second. The scheduler gives lost probes up.
    let outcome = match AssertUnwindSafe(check.probe(timeout)).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(_) => CheckOutcome::Inconclusive { reason: "a bug in lidless: the probe panicked".to_owned() },
    };
    Done::Probed { check: id, began, hedge, outcome }
}

/// Waits until a check's target has changed.
pub(super) async fn changed(check: Arc<dyn Check>, id: CheckId) -> Done {
    if let Some(changed) = check.changed()
        && AssertUnwindSafe(changed).catch_unwind().await.is_ok()
    {
        return Done::Changed { check: id };
    }
    // Without a signal there is polling; this task then only waits to be dropped.
    std::future::pending().await
}

/// Which attempt an act belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Attempt {
    pub(super) run: RunId,
    pub(super) step: u32,
    pub(super) attempt: u32,
}

/// Acts once.
pub(super) async fn act(actuator: Arc<dyn Actuator>, of: Attempt, action: Action, timeout: Duration) -> Done {
    let acting = AssertUnwindSafe(actuator.perform(action, timeout)).catch_unwind();
    let outcome = match tokio::time::timeout(timeout + GRACE, acting).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Outcome::Unknown { reason: "a bug in lidless: the actuator panicked".to_owned() },
        Err(_) => Outcome::Unknown { reason: format!("the actuator did not answer within {timeout:?}") },
    };
    performed(of, outcome)
}

/// Does a step of a pipeline once.
pub(super) async fn step(
    calling: Calling,
    of: Attempt,
    timeout: Duration,
    interrupt: CancellationToken,
) -> Done {
    let Calling { step, call, log } = calling;
    let performing = AssertUnwindSafe(step.perform(&call, timeout, &log)).catch_unwind();
    let interrupted = async {
        interrupt.cancelled().await;
        tokio::time::sleep(INTERRUPT_GRACE).await;
    };
    let reason = tokio::select! {
        done = tokio::time::timeout(timeout + GRACE, performing) => match done {
            Ok(Ok(answer)) => {
                keep(&answer, &log).await;
                return performed(of, steps::outcome(answer));
            }
            Ok(Err(_)) => "a bug in lidless: the step panicked".to_owned(),
            Err(_) => format!("the step did not answer within {timeout:?}"),
        },
        () = interrupted => "cancelled while it was under way".to_owned(),
    };
    // Only what outlives us is still there: it would end by itself at its deadline at the latest.
    drop(tokio::time::timeout(END_MAX, step.end(&call)).await);
    performed(of, Outcome::Unknown { reason })
}

/// Lets go of what was kept of an attempt whose outcome is durable.
pub(super) async fn forget(step: Arc<dyn Step>, call: Call) -> Done {
    drop(tokio::time::timeout(END_MAX, step.forget(&call)).await);
    Done::LetGo
}

/// Lets go of what is left of all attempts but these.
pub(super) async fn sweep(units: Arc<Units>, keep: Vec<(String, u32)>) -> Done {
    units.sweep(&keep).await;
    Done::LetGo
}

/// Remembers by what an effect can be found again, also where a step says that only at its end: what takes it back needs it.
async fn keep(answer: &Answer, host: &dyn Host) {
    if let Answer::Applied { handle: Some(handle), .. } = answer
        && let Err(why) = host.keep(handle).await
    {
        tracing::warn!(why, "What a step can be found by is not on record.");
    }
}

/// Asks once whether a step of a pipeline took effect.
pub(super) async fn confirm_step(calling: Result<Calling, String>, of: Attempt, timeout: Duration) -> Done {
    let unknown = |reason: String| Confirmation::StillUnknown { reason, retry_after: Duration::from_secs(5) };
    let answer = match calling {
        Err(why) => unknown(why),
        Ok(Calling { step, call, log }) => {
            let asking = AssertUnwindSafe(step.confirm(&call, timeout, &log)).catch_unwind();
            match tokio::time::timeout(timeout + GRACE, asking).await {
                Ok(Ok(found)) => steps::confirmation(found),
                Ok(Err(_)) => unknown("a bug in lidless: the step panicked".to_owned()),
                Err(_) => unknown(format!("the step did not answer within {timeout:?}")),
            }
        }
    };
    Done::Input(Input::Confirmed { run: of.run, step: of.step, attempt: of.attempt, answer })
}

/// Says what became of an attempt.
pub(super) fn performed(of: Attempt, outcome: Outcome) -> Done {
    Done::Input(Input::Performed { run: of.run, step: of.step, attempt: of.attempt, outcome })
}

/// Asks once whether an act took effect.
pub(super) async fn confirm(
    actuator: Option<Arc<dyn Actuator>>,
    of: Attempt,
    action: Action,
    intent_at: Now,
    timeout: Duration,
) -> Done {
    let unknown = |reason: &str| Confirmation::StillUnknown {
        reason: reason.to_owned(),
        retry_after: Duration::from_secs(1),
    };
    let answer = match actuator {
        None => unknown("there is no actuator any more"),
        Some(actuator) => {
            let asking = AssertUnwindSafe(actuator.confirm(action, intent_at, timeout)).catch_unwind();
            match tokio::time::timeout(timeout + GRACE, asking).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => unknown("a bug in lidless: the actuator panicked"),
                Err(_) => unknown("the actuator did not answer"),
            }
        }
    };
    Done::Input(Input::Confirmed { run: of.run, step: of.step, attempt: of.attempt, answer })
}

/// Delivers a message to everybody who has not taken it yet. It stays owed until each has.
pub(super) async fn deliver(
    notifiers: Arc<[Notifier]>,
    notice: NoticeId,
    message: Message,
    mut taken: BTreeSet<usize>,
) -> Done {
    let mut refused = Vec::new();
    for (index, notifier) in notifiers.iter().enumerate() {
        if taken.contains(&index) {
            continue;
        }
        match notifier.deliver(&message).await {
            Ok(()) => {
                taken.insert(index);
            }
            Err(reason) => refused.push(format!("{}: {reason}", notifier.name())),
        }
    }
    let result = if refused.is_empty() { Ok(()) } else { Err(refused.join("; ")) };
    Done::Delivered { notice, taken, result }
}
