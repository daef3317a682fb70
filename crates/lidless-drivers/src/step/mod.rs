//! What does it take to be a step? To act once within a deadline, and to say what became of an attempt in doubt.

pub mod exec;
pub mod http;
pub mod leftovers;
pub mod plugin;
pub mod unit;
pub mod when;

mod answer;
mod decimal;
mod last;
mod output;
mod talk;
mod time;

pub use answer::exact;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::check::BoxFuture;

/// Does one step of a pipeline.
pub trait Step: Send + Sync {
    /// Does it. Ends within `timeout`, and the time to kill what is overdue.
    ///
    /// Who drops the future ends the attempt half way, and has to treat it as [`FailureClass::Unknown`].
    fn perform<'a>(&'a self, call: &'a Call, timeout: Duration, host: &'a dyn Host) -> BoxFuture<'a, Answer>;

    /// Says whether an attempt with this idempotency key took effect. Read-only, repeatable.
    fn confirm<'a>(&'a self, call: &'a Call, timeout: Duration, log: &'a dyn Log) -> BoxFuture<'a, Found>;

    /// Says what it would do now, in one line for people that begins with the verb, as "run ./book"; none where it cannot tell.
    /// Changes nothing.
    fn plan<'a>(
        &'a self,
        call: &'a Call,
        timeout: Duration,
        host: &'a dyn Host,
    ) -> BoxFuture<'a, Result<Option<String>, String>> {
        let _ = (call, timeout, host);
        Box::pin(std::future::ready(Ok(None)))
    }

    /// Says whether [`Step::confirm`] can ever tell. Where it cannot, it answers `StillUnknown` at once.
    fn can_confirm(&self) -> bool;

    /// Ends an attempt that goes on though the future that did it was dropped. Needs do nothing where none does.
    fn end<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, ()> {
        let _ = call;
        Box::pin(std::future::ready(()))
    }

    /// Lets go of what was kept of an attempt: what became of it is on record.
    fn forget<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, ()> {
        let _ = call;
        Box::pin(std::future::ready(()))
    }
}

/// One attempt at a step.
#[derive(Clone, PartialEq, Debug)]
pub struct Call {
    /// The run.
    pub run: String,
    /// The pipeline that the run is of.
    pub pipeline: String,
    /// The step's name.
    pub step: String,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The same for every attempt of a step of a run, so that the world can tell a repetition from a second order.
    pub idempotency_key: String,
    /// What the run was given: an object.
    pub inputs: Value,
    /// What the steps before it gave: an object, from a step's name to its output. All attempts of a run share it.
    pub outputs: Arc<Value>,
    /// What earlier attempts, and this one, have handed to [`Host::keep`], oldest first: by these the effect can be found again.
    pub handles: Vec<Value>,
    /// What it takes back, where that is what it is for.
    pub undoes: Option<Undoes>,
    /// The time that it was given, for people: of what is left of it the disk may have had its share.
    pub allotted: Option<Duration>,
}

/// A step that took effect and is to be taken back.
#[derive(Clone, PartialEq, Debug)]
pub struct Undoes {
    /// Its name.
    pub step: String,
    /// The key of its attempts.
    pub idempotency_key: String,
    /// What it gave.
    pub output: Value,
    /// By which its effect can be found.
    pub handles: Vec<Value>,
}

/// What became of an attempt.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    /// It took effect.
    Applied {
        /// What later steps may use: an object.
        output: Value,
        /// What it moved.
        amounts: Vec<Amount>,
        /// By which the effect can be found again: a transaction's hash, say.
        handle: Option<Value>,
    },
    /// It failed.
    Failed {
        /// One line for people.
        error: String,
        /// What may follow.
        class: FailureClass,
    },
}

/// What a failure says about the effect, and so about what may follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailureClass {
    /// It had no effect, and another attempt may do better.
    Transient,
    /// It had no effect, and another attempt would fail as well.
    Permanent,
    /// Nobody knows whether it took effect. **Invariant:** never repeated before it was confirmed.
    Unknown,
}

/// A signed amount of something. Never a float.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Amount {
    /// Of what: "EUR", "USDC".
    pub asset: String,
    /// How many of its smallest unit; below zero: it went away.
    pub minor: i128,
}

/// What is known of an attempt in doubt.
#[derive(Clone, PartialEq, Debug)]
pub enum Found {
    /// It took effect.
    Applied {
        /// What later steps may use: an object.
        output: Value,
        /// How we know.
        evidence: String,
    },
    /// It did not, and never will.
    NotApplied {
        /// How we know.
        evidence: String,
    },
    /// It did not, by its own word: it has ended since, and its failure is one like any other.
    Failed {
        /// One line for people.
        error: String,
        /// Another attempt would fail as well.
        for_good: bool,
    },
    /// Ask again later.
    StillUnknown {
        /// Why.
        reason: String,
        /// When to ask again, where the answer says so.
        retry_after: Option<Duration>,
    },
}

/// Takes what a step has to tell while it works.
pub trait Log: Send + Sync {
    /// Takes a line of its standard error, as it comes. Must not block.
    ///
    /// Without its line end and at most 4 KiB long; control characters have become spaces.
    fn line(&self, line: &str);
}

/// What a step may ask of whoever runs it.
pub trait Host: Log {
    /// Makes a handle durable: a signed transaction and its hash, say. **Invariant:** what a handle names leaves the machine only
    /// after this was answered with `Ok`. An `Err` says why it could not be kept; then nothing may leave.
    fn keep<'a>(&'a self, handle: &'a Value) -> BoxFuture<'a, Result<(), String>>;
}
