//! What happens next? One queue for everything, ordered by virtual time, and by order of asking within it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lidless_core::effect::Input;
use lidless_core::id::CheckId;
use lidless_core::spec::Spec;

/// Something that happens at a time.
#[derive(Debug)]
pub(crate) enum Happening {
    /// An answer reaches lidless, if it is still the one that asked.
    Answer { epoch: u64, input: Input },
    /// A probe is due; void if the check was planned anew since.
    Probe { epoch: u64, check: CheckId, plan: u64 },
    /// A probe is due, whatever was planned.
    ProbeOnce { epoch: u64, check: CheckId },
    /// An act on a service reaches a stage.
    Act { service: usize, job: u64, stage: Stage },
    /// An instance dies.
    Dies { service: usize, instance: u64, exit: i32 },
    /// A transaction lands.
    Lands { tx: u64 },
    /// A receiver takes a message.
    Taken { key: (u64, String) },
    /// Something goes wrong.
    Fault,
    /// The configuration of before comes back.
    Reload { spec: Arc<Spec> },
    /// The disk has room again.
    Room,
    /// lidless is started again.
    Boot,
    /// A person looks at what the machine will not mend.
    Person,
}

/// How far an act is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// The old instance is gone.
    Stops,
    /// The new one is there.
    Starts,
    /// It is given up half-way.
    Cut,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    queue: BTreeMap<(Duration, u64), Happening>,
    count: u64,
}

impl Schedule {
    pub(crate) fn at(&mut self, at: Duration, what: Happening) {
        self.count += 1;
        self.queue.insert((at, self.count), what);
    }

    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn pop(&mut self) -> Option<(Duration, Happening)> {
        self.queue.pop_first().map(|((at, _), what)| (at, what))
    }
}
