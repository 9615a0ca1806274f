//! Why a request was refused, and the one translation from what the domain answers.
//!
//! What a client is told names nothing of the stores; the log gets the fault with its sources, once, here.

use std::borrow::Cow;

use axum::http::StatusCode;

use crate::auth::LinkProblem;
use crate::http::BodyError;
use crate::model::fault::{Fault, Kind};
use crate::namespace::{Condition, ReceiveError};

/// What kind of refusal it is; each version of the API has a status for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    /// A parameter, a document or a body is wrong.
    Wrong,
    /// No credentials, wrong ones, or a link that opens nothing.
    Unknown,
    /// Whoever asks may not do that.
    Denied,
    /// There is nothing of that name.
    Missing,
    /// The route has no such method.
    Method,
    /// What there is stands against it.
    Conflict,
    /// A condition of the request fails.
    Condition,
    /// No byte of the range exists, of so many.
    Range(u64),
    /// More bytes than are taken.
    TooLarge,
    /// The client stopped sending.
    Stalled,
    /// The same request may succeed later.
    Busy,
    /// A store does not answer.
    Unavailable,
    /// A bug, or broken data.
    Internal,
}

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) problem: Problem,
    /// Safe to show.
    pub(super) text: Cow<'static, str>,
}

impl Refusal {
    pub(super) fn new(problem: Problem, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            problem,
            text: text.into(),
        }
    }

    pub(super) fn wrong(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Problem::Wrong, text)
    }

    pub(super) fn missing() -> Self {
        Self::new(Problem::Missing, "there is nothing of this uid")
    }

    pub(super) fn denied() -> Self {
        Self::new(Problem::Denied, "access denied")
    }

    pub(super) fn unknown() -> Self {
        Self::new(Problem::Unknown, "no credentials, or wrong ones")
    }

    pub(super) fn complete() -> Self {
        Self::new(Problem::Conflict, "the upload is complete already")
    }

    pub(super) fn bad_digest() -> Self {
        Self::wrong("the digest is not that of the bytes")
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault.kind() {
            Kind::Busy => {
                tracing::debug!(%fault, "busy");
                Self::new(Problem::Busy, "busy, try again")
            }
            Kind::Unavailable | Kind::Full => {
                tracing::warn!(%fault, "store unavailable");
                Self::new(Problem::Unavailable, "a store is not available, try again")
            }
            Kind::Unknown => {
                tracing::error!(%fault, "outcome unknown");
                Self::new(
                    Problem::Internal,
                    "the outcome is not known; check before you try again",
                )
            }
            Kind::NotFound | Kind::Corrupt | Kind::Config | Kind::Internal => {
                tracing::error!(%fault, "request failed");
                Self::new(Problem::Internal, "internal error")
            }
        }
    }
}

impl From<Condition> for Refusal {
    fn from(condition: Condition) -> Self {
        match condition {
            Condition::NoSuchBucket
            | Condition::NoSuchKey
            | Condition::NoSuchVersion
            | Condition::Marker { .. } => Self::missing(),
            Condition::NoSuchUpload => Self::new(Problem::Missing, "the upload is not open"),
            Condition::BucketTaken | Condition::BucketOwned => Self::new(
                Problem::Conflict,
                "a bucket of the native API belongs to somebody else",
            ),
            Condition::BucketNotEmpty | Condition::NoSuchPlacement | Condition::TooManyBuckets => {
                Self::new(
                    Problem::Conflict,
                    "a bucket of the native API cannot be made",
                )
            }
            Condition::Locked => Self::new(Problem::Denied, "the object is locked"),
            Condition::NoObjectLock => Self::wrong("the bucket has no object lock"),
            Condition::Denied => Self::denied(),
            Condition::PreconditionFailed => Self::new(Problem::Condition, "a condition fails"),
            Condition::BadDigest => Self::bad_digest(),
            Condition::InvalidPart { number } => {
                Self::new(Problem::Conflict, format!("part {number} has changed"))
            }
            Condition::InvalidPartOrder
            | Condition::NoParts
            | Condition::NoSuchPart
            | Condition::ChecksumMissing { .. } => Self::wrong("the parts are not as named"),
            Condition::PartTooSmall { number, .. } => {
                Self::wrong(format!("part {number} is too small"))
            }
            Condition::WrongSize { size } => {
                Self::wrong(format!("the parts add up to {size} bytes"))
            }
            Condition::TooLarge => too_large(),
            Condition::ContentGone => Self::new(Problem::Busy, "busy, try again"),
            Condition::Key(_) => Self::wrong("the object is encrypted with a key that is needed"),
            Condition::Fault(fault) => fault.into(),
        }
    }
}

impl From<LinkProblem> for Refusal {
    fn from(problem: LinkProblem) -> Self {
        match problem {
            LinkProblem::Expired => Self::wrong("the link has expired"),
            LinkProblem::Time => Self::wrong("the link's date or expire is not possible"),
            LinkProblem::Signature => Self::wrong("the signature is not that of this link"),
            LinkProblem::Fault(fault) => fault.into(),
        }
    }
}

impl From<ReceiveError> for Refusal {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::TooLarge => too_large(),
            ReceiveError::WrongLength => cut(),
            ReceiveError::Fault(fault) => fault.into(),
            ReceiveError::Body(error) => of_body(error.as_ref()),
        }
    }
}

fn too_large() -> Refusal {
    Refusal::new(Problem::TooLarge, "more bytes than are taken")
}

fn cut() -> Refusal {
    Refusal::wrong("the body ended early")
}

/// Translates an error of a request body.
pub(super) fn of_body(error: &(dyn std::error::Error + 'static)) -> Refusal {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<BodyError>() {
            return match error {
                BodyError::TooLarge => too_large(),
                BodyError::Stalled => Refusal::new(Problem::Stalled, "the body stalled"),
                BodyError::Disconnected(_) => cut(),
            };
        }
        if error.is::<http_body_util::LengthLimitError>() {
            return too_large();
        }
        cause = error.source();
    }
    tracing::debug!(%error, "request body failed");
    cut()
}

impl Problem {
    /// The status in the frozen version, whose codes are few.
    pub(super) fn v0(self) -> StatusCode {
        match self {
            Self::Wrong | Self::Conflict | Self::TooLarge | Self::Stalled => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Self::Unknown | Self::Denied => StatusCode::UNAUTHORIZED,
            Self::Missing => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Condition => StatusCode::PRECONDITION_FAILED,
            Self::Range(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Busy | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(super) fn v1(self) -> StatusCode {
        match self {
            Self::Wrong => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Conflict => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Stalled => StatusCode::REQUEST_TIMEOUT,
            Self::Unknown => StatusCode::UNAUTHORIZED,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Missing => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Condition => StatusCode::PRECONDITION_FAILED,
            Self::Range(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Busy | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}
