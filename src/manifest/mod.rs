//! Manifests: the namespace, kept at a backend beside the blobs, encrypted, so that it can be rebuilt when the
//! database is lost.
//!
//! ```text
//!   a transaction --> changes (SQL, the same transaction)
//!                        |  Manifests::write, now and then
//!                        v
//!   snapshot <-- segment <-- segment <-- ...          objects at a backend, each after the one before
//!                        |
//!                        v  recover, into an empty database
//! ```
//!
//! - A *segment* is what changed since the manifest before it; a *snapshot* is everything, and needs nothing before
//!   it. Both are read in one snapshot of the database, so each manifest, with those it follows, is the namespace
//!   at one moment, references included. When the segments have grown beyond their snapshot, a new one is written
//!   and the old objects are deleted: space and the time to recover follow the live namespace.
//! - A change is deleted from SQL only after the segment that holds its outcome is durable and counts. A crash at
//!   any step leaves at worst an object that does not count, and the changes, which are written again: an entry is
//!   the state of a group of rows, and the newest state wins.
//! - One writer at a time holds a claim in SQL. Should a paused one go on after its claim has ended, its object
//!   does not count: the next manifest names the one it follows, and skips that one.
//! - Everything is encrypted and authenticated under a key derived from the master key. Names say no more than
//!   that an object is of a manifest.
//! - [`recover`] takes the newest manifest whose chain is whole, puts the rows together in a scratch database, and
//!   inserts them. It deletes nothing at any backend.

mod format;
mod load;
mod recover;
mod report;
mod writer;

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

pub use recover::{Options, RecoverError, Recovery, recover};
pub use report::{Report, UnnamedBlob};
pub use writer::{Manifests, Parts, Written};

/// Section `[manifests]`: the namespace kept at a backend, for the day the database is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether manifests are written. The same on all nodes of one database. Off unless it is set: on the embedded
    /// default the database and the blobs share a disk, which are lost together, and each small write would pay for
    /// it. Where blobs are elsewhere it should be on.
    pub enabled: bool,
    /// Seconds between two manifests: what is written within them is lost with the database.
    pub interval_seconds: NonZeroU64,
    /// The backend they go to; empty: that of new buckets.
    pub backend: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            interval_seconds: const { NonZeroU64::new(60).expect("not zero") },
            backend: String::new(),
        }
    }
}
