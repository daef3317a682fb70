//! Was it appended? Reads the slot and compares names until that is a yes or a no.

use lidless_core::id::Seq;

use super::error::{AppendError, ReadError};
use super::port::RunStore;
use super::record::Batch;

/// How long to go on.
pub struct Patience<'a> {
    /// How often it is appended, at most.
    pub tries_max: u32,
    /// Called before every try but the first, with how many there were: may wait.
    pub pause: &'a mut dyn FnMut(u32),
}

/// What is in the slots of a batch.
enum Slots {
    /// The batch.
    Ours,
    /// Something else, or nothing yet.
    NotOurs,
    /// It could not be read.
    Unread,
    /// They were trimmed.
    Gone,
}

/// Appends a batch once, however often it is asked to and whatever acknowledgement is lost.
///
/// * `Ok` means that the batch is there, by this or an earlier attempt, with each record once.
/// * [`AppendError::Unknown`] means that the tries were used up: the same batch may be settled again, and must be before
///   anything else is appended. It is also what an append that failed for sure becomes, if one before it is in doubt.
/// * [`AppendError::Compacted`] means that it is too late to ask.
/// * Every other error means that the batch is not there, and never will be by an attempt made in here.
///
/// That it asks again while an earlier request may be on its way is safe, because a slot is taken once: whichever comes
/// first is the batch, the other one is refused. That a refusal by the fence is final is so because an epoch that was lost
/// never comes back, for the request on its way neither.
pub fn append_settled<S: RunStore + ?Sized>(
    store: &mut S,
    batch: &Batch,
    patience: Patience<'_>,
) -> Result<Seq, AppendError> {
    if let Some(why) = batch.unfit() {
        return Err(AppendError::Unfit { why });
    }
    let mut in_doubt = false;
    for count in 0..patience.tries_max.max(1) {
        if count > 0 {
            (patience.pause)(count);
        }
        let err = match store.append(batch) {
            Ok(seq) => return Ok(seq),
            Err(err) => err,
        };
        match err {
            AppendError::Unknown => {
                in_doubt = true;
                match look(store, batch) {
                    Slots::Ours => return Ok(batch.last()),
                    Slots::Gone => return Err(AppendError::Compacted),
                    // Not yet, perhaps.
                    Slots::NotOurs | Slots::Unread => {}
                }
            }
            // Perhaps by an attempt of ours, in here or before a crash.
            AppendError::Fenced | AppendError::Ended | AppendError::SeqTaken { .. } => {
                match look(store, batch) {
                    Slots::Ours => return Ok(batch.last()),
                    Slots::NotOurs => return Err(err),
                    Slots::Gone => return Err(AppendError::Compacted),
                    Slots::Unread => in_doubt = true,
                }
            }
            AppendError::Failed(failed) if failed.is_retryable() && in_doubt => {}
            AppendError::Failed(_) if in_doubt => return Err(AppendError::Unknown),
            AppendError::Unfit { .. }
            | AppendError::Gap { .. }
            | AppendError::Compacted
            | AppendError::Failed(_) => return Err(err),
        }
    }
    Err(AppendError::Unknown)
}

fn look<S: RunStore + ?Sized>(store: &mut S, batch: &Batch) -> Slots {
    match store.read(&batch.run, batch.expect, batch.entries.len()) {
        Ok(page) => {
            // A page may end early, but has one record at least, and a batch is there whole.
            let same = page.records.iter().zip(&batch.entries).all(|(there, ours)| there.id == ours.id);
            match same && !page.records.is_empty() && page.last >= batch.last() {
                true => Slots::Ours,
                false => Slots::NotOurs,
            }
        }
        Err(ReadError::Compacted) => Slots::Gone,
        Err(ReadError::Failed(_)) => Slots::Unread,
    }
}
