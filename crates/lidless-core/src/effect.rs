//! What goes in and out of the engine? Inputs, and the effects that it asks for.

use std::sync::Arc;
use std::time::Duration;

use crate::check::CheckOutcome;
use crate::event::{Confirmation, Due, Outcome, Record};
use crate::id::{CheckId, NoticeId, RunId, ServiceId};
use crate::pipeline::plan::StepCall;
use crate::spec::Spec;
use crate::time::Now;

/// What the world, a person or time has to say.
#[derive(Clone, Debug)]
pub enum Input {
    /// lidless has recovered its state and begins to watch. First input after a recovery.
    Started {
        /// Identifies the boot of the machine.
        boot: String,
        /// The version of lidless.
        version: String,
    },
    /// A configuration was read and validated.
    ConfigLoaded(Arc<Spec>),
    /// A probe ended.
    Probed {
        /// Which check.
        check: CheckId,
        /// When the probe began, in engine time: an answer older than an act says nothing about the act.
        began: Duration,
        /// What it found.
        outcome: CheckOutcome,
    },
    /// An effect `Perform` ended.
    Performed {
        /// Which run.
        run: RunId,
        /// Which step.
        step: u32,
        /// Which attempt.
        attempt: u32,
        /// What became of it.
        outcome: Outcome,
    },
    /// An attempt is about to let out what can be found again by this. Answered by an event, or by none: then it must not.
    Handle {
        /// Which run.
        run: RunId,
        /// Which step.
        step: u32,
        /// Which attempt.
        attempt: u32,
        /// The handle, as JSON.
        handle: String,
    },
    /// An effect `Weigh` ended.
    Weighed {
        /// Which run.
        run: RunId,
        /// Which step.
        step: u32,
        /// Whether it holds; if nobody can say, why.
        holds: Result<bool, String>,
    },
    /// An effect `Confirm` ended.
    Confirmed {
        /// Which run.
        run: RunId,
        /// Which step.
        step: u32,
        /// Which attempt.
        attempt: u32,
        /// What the world said.
        answer: Confirmation,
    },
    /// An effect `Deliver` ended.
    Delivered {
        /// Which message.
        notice: NoticeId,
        /// Whether it was taken; if not, why.
        result: Result<(), String>,
    },
    /// A person or a schedule asks for something.
    Command(Command),
    /// The journal cannot be written.
    StoreFailed {
        /// Why.
        reason: String,
    },
    /// The journal can be written again.
    StoreMended,
    /// Time went by: `Engine::next_wake` has come.
    Tick,
    /// From here on nothing begins but what a person orders: no heal, no start of a service, no schedule and no trigger.
    OrdersOnly,
    /// lidless is about to end: what is under way may still answer, and nothing more is begun.
    Ending,
    /// lidless is asked to end.
    Stopping {
        /// Why.
        why: String,
    },
}

/// What a person can ask of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Restart a service now: a manual intervention.
    Restart {
        /// Which one.
        service: ServiceId,
        /// Who asks.
        by: String,
        /// Also when the restart budget is spent.
        force: bool,
    },
    /// Run a pipeline now.
    Run {
        /// Its name.
        pipeline: String,
        /// Who asks.
        by: String,
        /// What it is given, as a JSON object; empty for nothing.
        inputs: String,
        /// The step at which it begins, if not with the first.
        from: Option<String>,
        /// What triggered it: the same key twice is one run.
        key: Option<String>,
        /// The moment of its schedule, if it is that.
        due: Option<Due>,
        /// Whether it waits its turn where as many are under way as may be; else it is refused.
        wait: bool,
    },
    /// Moments of a pipeline's calendar went by, and no run makes up for them.
    Miss {
        /// Its name.
        pipeline: String,
        /// The last of them.
        due: Due,
        /// How many.
        count: u64,
        /// Why.
        why: String,
    },
    /// Say yes or no to a step that waits for it.
    Approve {
        /// Which run.
        run: RunId,
        /// The step's name; none where only one waits.
        step: Option<String>,
        /// An answer other than yes: why not.
        no: Option<String>,
        /// Who.
        by: String,
    },
    /// Go on with a run that has failed, at the step that failed.
    Resume {
        /// Which run.
        run: RunId,
        /// Who asks.
        by: String,
    },
    /// Begin no further step of a run.
    Cancel {
        /// Which run.
        run: RunId,
        /// Who asks.
        by: String,
    },
    /// Say what became of a step that waits for a person.
    Resolve {
        /// Which run.
        run: RunId,
        /// The step's name.
        step: String,
        /// Whether it took effect.
        applied: bool,
        /// How they know.
        evidence: String,
        /// Who says so.
        by: String,
    },
}

/// What the engine answers to a `Command`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A run was created for it, or goes on because of it.
    Started(RunId),
    /// It is on record, and no run began.
    Noted,
    /// It must not be done; nothing was.
    Refused(Refusal),
}

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such service or pipeline.
    NotFound,
    /// Nothing in its configuration says how.
    NoActuator,
    /// A run of it is under way.
    Busy(RunId),
    /// The run, or its step, does not stand where that could be done.
    NotNow(&'static str),
    /// The restart budget is spent.
    BudgetSpent {
        /// When there is one again, in engine time.
        until: Duration,
    },
}

/// What the world is asked to do, once the turn's events are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Do a step. Answered by `Input::Performed`.
    Perform {
        /// Which run.
        run: RunId,
        /// Which step.
        step: u32,
        /// Which attempt, from 1.
        attempt: u32,
        /// The step's name.
        name: String,
        /// What to do. Never `Verify`: that is done by probing.
        call: StepCall,
        /// When it ends at the latest, in engine time.
        deadline: Duration,
    },
    /// Ask whether a step took effect. Read-only. Answered by `Input::Confirmed`.
    Confirm {
        /// Which run.
        run: RunId,
        /// Which step.
        step: u32,
        /// Which attempt.
        attempt: u32,
        /// The step's name.
        name: String,
        /// What was to be done.
        call: StepCall,
        /// When the intent was journalled: what happened before is not of this attempt.
        intent_at: Now,
        /// When the asking ends at the latest, in engine time.
        deadline: Duration,
    },
    /// Say whether a step's `when` holds. Read-only. Answered by `Input::Weighed`.
    Weigh {
        /// Which run.
        run: RunId,
        /// Which step.
        step: u32,
        /// The expression.
        when: Arc<str>,
    },
    /// Nobody wants a step under way any more: it may end at once, or go on to its deadline. What became of it is still asked.
    Interrupt {
        /// Which run.
        run: RunId,
        /// Which step.
        step: u32,
        /// Which attempt.
        attempt: u32,
    },
    /// Deliver a message of the outbox. At least once: the id tells copies apart. Answered by `Input::Delivered`.
    Deliver {
        /// Which message; its text is in the engine's outbox.
        notice: NoticeId,
    },
    /// Probe all checks of a service, at the time given and no later: health is in question.
    ProbeAt {
        /// Which service.
        service: ServiceId,
        /// When, in engine time.
        at: Duration,
    },
}

/// What one input led to: events to make durable, then effects to perform. In that order.
#[derive(Debug, Default)]
pub struct Turn {
    /// To be appended to the journal before any effect of this turn.
    pub events: Vec<Record>,
    /// To be performed once the events are durable.
    pub effects: Vec<Effect>,
    /// The answer to a command.
    pub reply: Option<Reply>,
}

/// When and how eagerly to probe a check next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbePlan {
    /// From the start of the last probe to the start of the next one.
    pub after: Duration,
    /// The regular interval; `after` is shorter while health is in question.
    pub every: Duration,
    /// How many more probes may be started beside one that is slow to answer, so that the confirmation of a hang does not
    /// cost a second time-out. Zero when nothing is to be confirmed.
    pub hedges: u32,
    /// The deadline of one probe.
    pub timeout: Duration,
}
