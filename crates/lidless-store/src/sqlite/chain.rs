//! What does a row's hash cover? Its place, its content, and the hash of the row before it.
//!
//! A hash stored beside its row finds accidents and casual edits. Whoever can rewrite the whole file can rewrite every
//! hash too; against that only a copy of the head elsewhere helps.

use std::sync::LazyLock;

use blake3::hazmat::{ContextKey, HasherExt as _, hash_derive_key_context};
use lidless_core::id::{Seq, ServiceId};
use lidless_core::time::Now;

/// A BLAKE3 hash.
pub(crate) type Hash = [u8; 32];

/// What tells the hash of a row from all others: half the work, were it worked out for each.
static ROW: LazyLock<ContextKey> = LazyLock::new(|| hash_derive_key_context("lidless journal 1: row"));

/// The `prev` of the first row.
pub(crate) const GENESIS: Hash = [0; 32];

/// The end of the journal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tip {
    pub(super) seq: Seq,
    pub(super) at: Now,
    pub(super) hash: Hash,
}

impl Tip {
    /// The end of a journal without rows.
    pub(super) const EMPTY: Tip =
        Tip { seq: Seq(0), at: Now { monotonic: std::time::Duration::ZERO, wall_ms: 0 }, hash: GENESIS };
}

/// Returns the hash of a row. The other columns are derived from the body, and compared with it by `verify`.
pub(super) fn row_hash(prev: &[u8], seq: Seq, service: Option<ServiceId>, body: &[u8]) -> Hash {
    let service = service.map_or(u64::MAX, |id| u64::from(id.0));
    // The body comes last, and all before it has a fixed length: no two rows give the same bytes.
    let mut hasher = blake3::Hasher::new_from_context_key(&ROW);
    hasher.update(prev).update(&seq.0.to_le_bytes()).update(&service.to_le_bytes()).update(body);
    *hasher.finalize().as_bytes()
}

/// Returns the hash of a snapshot.
pub(super) fn snapshot_hash(chain: &[u8], seq: Seq, state: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key("lidless journal 1: snapshot");
    hasher.update(chain).update(&seq.0.to_le_bytes()).update(state);
    *hasher.finalize().as_bytes()
}
