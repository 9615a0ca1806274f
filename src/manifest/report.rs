//! What a recovery found and did, for an operator.

use serde::Serialize;

use crate::model::clock::Millis;
use crate::model::finding::{Listed, LostObject};

/// A blob at a backend that no recovered row names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnnamedBlob {
    /// The backend.
    pub backend: String,
    /// Its name there.
    pub name: String,
    /// When it was begun, in milliseconds since 1970.
    pub born: Millis,
}

/// What a recovery found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// When the newest manifest that counts was begun, in milliseconds since 1970: all that was committed by then is
    /// recovered.
    pub written: Millis,
    /// Manifests that were put together.
    pub manifests: u64,
    /// Their objects at the backends.
    pub objects: u64,
    /// The bytes of those.
    pub bytes: u64,
    /// Manifests that were begun and never finished, or that lost a race; they do not count.
    pub passed_over: u64,
    /// Tenants.
    pub tenants: u64,
    /// Access keys.
    pub access_keys: u64,
    /// Buckets.
    pub buckets: u64,
    /// Keys.
    pub keys: u64,
    /// Noncurrent versions.
    pub versions: u64,
    /// Distinct contents.
    pub contents: u64,
    /// Blobs.
    pub blobs: u64,
    /// Objects of manifests that were skipped because they are broken, and why.
    pub skipped: Vec<String>,
    /// Rows that were left out because what they refer to was lost with a broken manifest.
    pub rows_left_out: u64,
    /// Versions that were left out for the same reason.
    pub versions_left_out: Listed<LostObject>,
    /// Versions that were recovered, and whose bytes are at no backend.
    pub without_bytes: Listed<LostObject>,
    /// Blobs that were begun after the newest manifest was written and that no row names: what was written since.
    pub newer_blobs: Listed<UnnamedBlob>,
    /// Older blobs that no row names.
    pub older_unnamed_blobs: u64,
    /// Whether anything was written to the database.
    pub is_dry_run: bool,
}
