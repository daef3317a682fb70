//! What if the disk fails? Wraps a journal and makes its appends go wrong as a plan says.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lidless_core::event::Record;
use lidless_core::id::Seq;
use lidless_core::time::Now;

use crate::{Journal, JournalError};

/// What goes wrong with one append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing was written, and the caller cannot know that.
    LostBefore,
    /// All was written, and the caller cannot know that.
    LostAfter,
    /// The disk is full: nothing was written.
    Full,
    /// The disk failed before anything was written. The handle is poisoned.
    IoBefore,
    /// The disk failed after all was written. The handle is poisoned.
    IoAfter,
}

/// The faults to come, shared with the test that plans them.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    next: VecDeque<Option<Fault>>,
    appends: u64,
    acked: Seq,
}

impl FaultPlan {
    /// Begins a plan in which nothing goes wrong.
    pub fn new() -> Self {
        FaultPlan::default()
    }

    /// Plans a fault for the append after those planned so far.
    pub fn then(&self, fault: Fault) -> &Self {
        self.plan().next.push_back(Some(fault));
        self
    }

    /// Plans `count` appends without a fault.
    pub fn then_pass(&self, count: usize) -> &Self {
        self.plan().next.extend(std::iter::repeat_n(None, count));
        self
    }

    /// Returns how many appends were asked for.
    pub fn appends(&self) -> u64 {
        self.plan().appends
    }

    /// Returns the last sequence number that a caller was told is durable: it must be there whatever happens.
    pub fn acked(&self) -> Seq {
        self.plan().acked
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A journal that fails as planned.
#[derive(Debug)]
pub struct FaultJournal<J> {
    inner: J,
    plan: FaultPlan,
    poisoned: bool,
}

impl<J: Journal> FaultJournal<J> {
    /// Wraps `inner`.
    pub fn new(inner: J, plan: &FaultPlan) -> Self {
        FaultJournal { inner, plan: plan.clone(), poisoned: false }
    }

    fn io_error(&mut self) -> JournalError {
        self.poisoned = true;
        let source = Box::new(io::Error::other("planned fault"));
        JournalError::Io { path: path(), action: "append to", source }
    }
}

impl<J: Journal> Journal for FaultJournal<J> {
    fn append(&mut self, records: &[Record]) -> Result<Seq, JournalError> {
        if self.poisoned {
            return Err(self.io_error());
        }
        let fault = {
            let mut plan = self.plan.plan();
            plan.appends += 1;
            plan.next.pop_front().flatten()
        };
        match fault {
            None => {
                let seq = self.inner.append(records)?;
                self.plan.plan().acked = seq;
                Ok(seq)
            }
            Some(Fault::LostBefore) => Err(JournalError::AckLost { path: path() }),
            Some(Fault::LostAfter) => {
                self.inner.append(records)?;
                Err(JournalError::AckLost { path: path() })
            }
            Some(Fault::Full) => Err(JournalError::Full { path: path() }),
            Some(Fault::IoBefore) => Err(self.io_error()),
            Some(Fault::IoAfter) => {
                self.inner.append(records)?;
                Err(self.io_error())
            }
        }
    }

    fn replay(&mut self, from: Seq, visit: &mut dyn FnMut(Record)) -> Result<Seq, JournalError> {
        self.inner.replay(from, visit)
    }

    fn last(&mut self) -> Result<Option<(Seq, Now)>, JournalError> {
        self.inner.last()
    }

    fn save_snapshot(&mut self, at: Seq, state: &[u8]) -> Result<(), JournalError> {
        self.inner.save_snapshot(at, state)
    }

    fn load_snapshot(&mut self) -> Result<Option<(Seq, Vec<u8>)>, JournalError> {
        self.inner.load_snapshot()
    }

    fn reopen(&mut self) -> Result<(), JournalError> {
        self.inner.reopen()?;
        self.poisoned = false;
        Ok(())
    }

    fn tidy(&mut self) -> Result<(), JournalError> {
        self.inner.tidy()
    }
}

fn path() -> PathBuf {
    Path::new("(fault)").to_owned()
}
