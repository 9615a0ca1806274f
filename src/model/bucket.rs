//! A bucket and its settings.

use crate::model::clock::Millis;
use crate::model::ids::{BucketId, SpaceId, TenantId};
use crate::model::names::BucketName;

/// Whether and how a bucket shares bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dedup {
    /// Every upload is stored by itself.
    Off,
    /// Equal objects and equal parts are stored once.
    Object,
}

/// One bucket as it was read; `rev` rises with every change of its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Its id; a bucket made again under the same name has another.
    pub id: BucketId,
    /// Its global name.
    pub name: BucketName,
    /// The tenant that owns it.
    pub tenant: TenantId,
    /// Which bytes it may share.
    pub space: SpaceId,
    /// Whether it shares them.
    pub dedup: Dedup,
    /// When it was made.
    pub created: Millis,
    /// The region it was made in, empty for the default.
    pub region: String,
    /// Changes whenever a setting does.
    pub rev: i64,
}
