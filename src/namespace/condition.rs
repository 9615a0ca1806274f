//! What the domain answers when it does not do what it was asked.

use super::KeyProblem;
use crate::model::clock::Millis;
use crate::model::fault::Fault;
use crate::model::object::VersionId;

/// Why a request was not carried out. Nothing was changed, unless it is a [`Fault`] of kind
/// [`Unknown`](crate::model::fault::Kind::Unknown).
#[derive(Debug)]
pub enum Condition {
    /// No bucket of this name, or it was deleted meanwhile.
    NoSuchBucket,
    /// The name is taken by another tenant.
    BucketTaken,
    /// The name is taken by the caller itself.
    BucketOwned,
    /// The bucket still holds keys, or uploads are open in it.
    BucketNotEmpty,
    /// The tenant has as many buckets as it may.
    TooManyBuckets,
    /// No placement of this name is open to those who make buckets.
    NoSuchPlacement,
    /// The key has no current version.
    NoSuchKey,
    /// The key has no version of this id.
    NoSuchVersion,
    /// The version is a delete marker.
    Marker {
        /// Which.
        id: VersionId,
        /// When it was made.
        modified: Millis,
        /// Whether it was asked for by its id; else it is the current one.
        named: bool,
    },
    /// The version that would go is retained or held.
    Locked,
    /// Versions of this bucket cannot be locked.
    NoObjectLock,
    /// The bucket's settings changed since the request was admitted, and it would not be admitted now.
    Denied,
    /// No open upload of this id under this key.
    NoSuchUpload,
    /// A condition of the request fails.
    PreconditionFailed,
    /// A digest or checksum the client sent is not that of the bytes.
    BadDigest,
    /// A part in the list is not there, or has another ETag or checksum.
    InvalidPart {
        /// Its number in the request.
        number: u32,
    },
    /// The list of parts does not rise.
    InvalidPartOrder,
    /// A part other than the last is smaller than S3 allows.
    PartTooSmall {
        /// Its number.
        number: u32,
        /// Its bytes.
        size: u64,
    },
    /// The list of parts is empty.
    NoParts,
    /// The version has no part of this number.
    NoSuchPart,
    /// The parts lack the checksum that the upload announced.
    ChecksumMissing {
        /// The part.
        number: u32,
    },
    /// The parts do not add up to the size the client expects.
    WrongSize {
        /// What they add up to.
        size: u64,
    },
    /// The object would be larger than S3 allows.
    TooLarge,
    /// The bytes were known when they came and are gone now: they must be sent again.
    ContentGone,
    /// The keys of the request are not what it takes.
    Key(KeyProblem),
    /// A store failed.
    Fault(Fault),
}

impl From<Fault> for Condition {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
