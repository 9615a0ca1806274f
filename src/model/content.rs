//! A content: where its bytes lie, and the pure rules of slicing it by ranges.

use std::ops::Range;

use crate::model::ids::{ContentId, WrapKeyId};

/// What the contents of a space are protected by. Contents under different keys are never shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protection {
    /// Nothing: the bytes lie as they came.
    None,
    /// The tenant's own key.
    Tenant,
    /// A key of the tenant's KMS.
    Kms(WrapKeyId),
}

/// Most levels of extents below a content; deeper ones would be a loop in the rows.
pub const DEPTH_MAX: usize = 2;

/// A range a client asked for, as in RFC 9110 section 14.1.2; inclusive as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeRequest {
    /// `bytes=first-` or `bytes=first-last`.
    From {
        /// First byte wanted.
        first: u64,
        /// Last byte wanted; `None` is the end.
        last: Option<u64>,
    },
    /// `bytes=-length`: the last bytes.
    Suffix {
        /// How many.
        length: u64,
    },
}

/// No byte of the range exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsatisfiable;

impl RangeRequest {
    /// Reads a `Range` header. `None` for one that must be ignored: another unit, more than one range, or none that
    /// the grammar knows.
    pub fn parse(text: &str) -> Option<Self> {
        let spec = text.trim().strip_prefix("bytes=")?.trim();
        let (first, last) = spec.split_once('-')?;
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if first.is_empty() {
            return digits(last).then(|| Self::Suffix {
                length: last.parse().unwrap_or(u64::MAX),
            });
        }
        if !digits(first) || !(last.is_empty() || digits(last)) {
            return None;
        }
        let first = first.parse().unwrap_or(u64::MAX);
        let last = (!last.is_empty()).then(|| last.parse().unwrap_or(u64::MAX));
        // A last byte before the first makes the whole header invalid, and an invalid one is ignored.
        if last.is_some_and(|last| last < first) {
            return None;
        }
        Some(Self::From { first, last })
    }

    /// The half-open range of a representation of `length` bytes.
    pub fn resolve(self, length: u64) -> Result<Range<u64>, Unsatisfiable> {
        match self {
            Self::From { first, last } => {
                if first >= length || last.is_some_and(|last| last < first) {
                    return Err(Unsatisfiable);
                }
                let end = last.map_or(length, |last| last.saturating_add(1).min(length));
                Ok(first..end)
            }
            Self::Suffix { length: wanted } => {
                if wanted == 0 || length == 0 {
                    return Err(Unsatisfiable);
                }
                Ok(length.saturating_sub(wanted)..length)
            }
        }
    }
}

/// A run of a composite content inside another content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where the run begins in the composite.
    pub start: u64,
    /// Bytes in the run; never 0.
    pub length: u64,
    /// The content that holds the run.
    pub child: ContentId,
    /// Where the run begins in `child`.
    pub child_offset: u64,
}

/// A part of an extent: what to read of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The content to read.
    pub child: ContentId,
    /// The half-open range of it.
    pub range: Range<u64>,
}

/// What to read, in order, for `range` of a composite whose extents are sorted and without gaps.
/// Empty when the range is.
pub fn slice(extents: &[Extent], range: &Range<u64>) -> Vec<Slice> {
    let first = extents.partition_point(|extent| extent.start + extent.length <= range.start);
    extents[first..]
        .iter()
        .take_while(|extent| extent.start < range.end)
        .filter(|_| range.start < range.end)
        .map(|extent| {
            let from = range.start.max(extent.start) - extent.start;
            let to = range.end.min(extent.start + extent.length) - extent.start;
            Slice {
                child: extent.child,
                range: extent.child_offset + from..extent.child_offset + to,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn suffix_longer_than_the_object_is_the_whole_object() {
        assert_eq!(RangeRequest::Suffix { length: 10 }.resolve(4), Ok(0..4));
    }

    #[test]
    fn ranges_without_a_byte_are_unsatisfiable() {
        let from = |first, last| RangeRequest::From { first, last };
        assert_eq!(from(4, None).resolve(4), Err(Unsatisfiable));
        assert_eq!(from(0, None).resolve(0), Err(Unsatisfiable));
        assert_eq!(
            RangeRequest::Suffix { length: 0 }.resolve(4),
            Err(Unsatisfiable)
        );
        assert_eq!(from(1, Some(u64::MAX)).resolve(4), Ok(1..4));
    }

    proptest! {
        #[test]
        fn slices_read_the_same_bytes_as_the_whole(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..8),
            a in 0u64..200, b in 0u64..200,
        ) {
            let whole: Vec<u8> = parts.concat();
            let mut start = 0;
            let extents: Vec<Extent> = parts.iter().enumerate().map(|(index, part)| {
                let extent = Extent { start, length: part.len() as u64, child: ContentId(index as i64), child_offset: 0 };
                start += part.len() as u64;
                extent
            }).collect();
            let from = a.min(whole.len() as u64);
            let to = b.clamp(from, from.max(whole.len() as u64)).min(whole.len() as u64);
            let mut read = Vec::new();
            for piece in slice(&extents, &(from..to)) {
                let part = &parts[piece.child.0 as usize];
                read.extend_from_slice(&part[piece.range.start as usize..piece.range.end as usize]);
            }
            prop_assert_eq!(&read[..], &whole[from as usize..to as usize]);
        }
    }
}
