//! What is in a run store? Runs: each has a log of records, a state, and at times an owner.

use std::fmt;
use std::time::Duration;

use lidless_core::id::Seq;

/// The most entries of one batch: etcd takes 128 operations in a transaction, and a few are needed for the fence.
pub const BATCH_MAX: usize = 64;

/// The most bytes of all bodies of one batch: etcd takes 1.5 MiB in a request.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// The most records (or runs) of one page; a page of a watch ends with a whole batch, and so may have a few more.
pub const PAGE_MAX: usize = 1_000;

/// Bytes of bodies after which a page ends, so that one page is never much more than this and a batch.
pub(super) const PAGE_BYTES_MAX: usize = 4 << 20;

/// Why a text is no name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is no name: 1 to 128 of the characters a-z A-Z 0-9 . _ : @ - are")]
pub struct NameError(
    /// The text.
    pub String,
);

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(String);

        impl $name {
            /// Takes a name of 1 to 128 letters, digits and `. _ : @ -`: part of a key in any store.
            pub fn new(name: &str) -> Result<Self, NameError> {
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._:@-".contains(&byte);
                match (1..=128).contains(&name.len()) && name.bytes().all(fits) {
                    true => Ok($name(name.to_owned())),
                    false => Err(NameError(name.to_owned())),
                }
            }

            /// Returns the name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// Which run. Derived from what triggered it, so that a trigger that fires again finds the run that it began.
    RunKey;
    /// Who drives a run: one incarnation of one lidless. A name is never used again by the next incarnation.
    Owner;
}

/// The fence: whoever took the lease later has a higher one, and only the highest can append.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epoch(pub u64);

/// A position in the history of the whole store. A batch has one; they grow, and leave out numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Revision(pub u64);

impl Revision {
    /// The position after this one.
    pub fn next(self) -> Revision {
        Revision(self.0 + 1)
    }
}

/// Names a record, chosen by its writer before the first attempt to append it: no two records have the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RecordId(pub [u8; 16]);

/// What has become of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunState {
    /// It goes on: somebody should drive it.
    Active,
    /// It waits for a person.
    Held,
    /// It is over, and takes no record any more.
    Ended,
}

/// A record to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its name.
    pub id: RecordId,
    /// Its content, which the store does not look into.
    pub body: Vec<u8>,
}

/// What an owner wants to append: all of it, or nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// To which run.
    pub run: RunKey,
    /// By which right.
    pub epoch: Epoch,
    /// The slot of the first entry: one after the run's last record, or 1.
    pub expect: Seq,
    /// The records.
    pub entries: Vec<Entry>,
    /// What has become of the run with these.
    pub state: RunState,
}

impl Batch {
    /// Returns the slot of the last entry.
    pub fn last(&self) -> Seq {
        Seq(self.expect.0 + (self.entries.len() as u64).saturating_sub(1))
    }

    /// Returns why no store takes it, if so.
    pub(super) fn unfit(&self) -> Option<&'static str> {
        let bytes: usize = self.entries.iter().map(|entry| entry.body.len()).sum();
        match self {
            Batch { expect: Seq(0), .. } => Some("the first slot is 1"),
            Batch { entries, .. } if entries.is_empty() => Some("it has no entry"),
            Batch { entries, .. } if entries.len() > BATCH_MAX => Some("it has more than 64 entries"),
            Batch { .. } if bytes > BODY_BYTES_MAX => Some("its bodies have more than 1 MiB"),
            Batch { .. } => None,
        }
    }
}

/// A record that is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRecord {
    /// Of which run.
    pub run: RunKey,
    /// Its slot in the run; the first is 1, and there are no gaps.
    pub seq: Seq,
    /// Its batch's position in the store.
    pub revision: Revision,
    /// By which right it was written.
    pub epoch: Epoch,
    /// Its name.
    pub id: RecordId,
    /// Its content.
    pub body: Vec<u8>,
}

/// The right to drive a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// What to append with.
    pub epoch: Epoch,
    /// How long it lasts, counted from before the lease was asked for; a store may grant more than it was asked.
    pub ttl: Duration,
}

/// A lease as others see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseView {
    /// Whose.
    pub owner: Owner,
    /// Its fence.
    pub epoch: Epoch,
}

/// A run, without its records.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunHead {
    /// Which.
    pub run: RunKey,
    /// What has become of it.
    pub state: RunState,
    /// Its last record.
    pub last: Seq,
    /// Who drives it now.
    pub lease: Option<LeaseView>,
}

/// Which runs are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunFilter {
    /// Every run that has a record.
    All,
    /// Those in this state.
    In(RunState),
    /// Those that go on and that nobody drives: recovery looks for them all the time, and not for its own name.
    Claimable,
}

/// Some runs, in the order of their keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunPage {
    /// The runs.
    pub runs: Vec<RunHead>,
    /// The store's position when they were read: a watch from the next one misses nothing.
    pub at: Revision,
    /// Where the next page goes on, if there may be one.
    pub next: Option<RunKey>,
}

/// Some records of one run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogPage {
    /// The records, without a gap.
    pub records: Vec<LogRecord>,
    /// The run's last record; 0 where there is none. The page is the end if it has it.
    pub last: Seq,
}

/// Some records of all runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchPage {
    /// The records, in the order of the store; a batch is never cut.
    pub records: Vec<LogRecord>,
    /// Where to go on.
    pub next: Revision,
}

/// Ends a page when it is long enough.
#[derive(Debug)]
pub(super) struct PageLimit {
    records: usize,
    bytes: usize,
    max: usize,
}

impl PageLimit {
    /// Allows up to `max` records, one at least.
    pub(super) fn new(max: usize) -> Self {
        PageLimit { records: 0, bytes: 0, max: max.clamp(1, PAGE_MAX) }
    }

    /// Returns whether nothing more should be begun.
    pub(super) fn is_reached(&self) -> bool {
        self.records >= self.max || self.bytes >= PAGE_BYTES_MAX
    }

    /// Counts a record.
    pub(super) fn count(&mut self, record: &LogRecord) {
        self.records += 1;
        self.bytes += record.body.len();
    }
}
