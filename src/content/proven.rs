//! The bytes of a content while they are read to be stored anew, held against the digest that it is known by, or each of
//! its parts against that of the part.
//!
//! What is read is to be known by a digest of its own afterwards, which would vouch for whatever a disk gave back: so
//! nothing is made of bytes that were not right to the last. What has no digest, and a part of which only a piece is
//! read, is taken as it is read; where it is encrypted its frames vouch for it.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::examine::Check;
use super::receive::compute;
use super::{ContentStore, Reader};
use crate::meta::joined;
use crate::model::fault::Fault;
use crate::model::ids::ContentId;

/// A reader of a content, and what its bytes must be.
pub struct Proven {
    reader: Reader,
    /// What is not read to its end yet, the next first.
    left: VecDeque<Check>,
    /// The next byte of the content.
    at: u64,
}

impl From<Reader> for Proven {
    /// Bytes that the caller holds against what it knows of them.
    fn from(reader: Reader) -> Self {
        Self {
            reader,
            left: VecDeque::new(),
            at: 0,
        }
    }
}

impl Proven {
    /// The next bytes; `None` after all of them. [`crate::model::fault::Kind::Corrupt`] with the bytes that end a part
    /// which is not what was stored: those before them are not to be used then.
    pub async fn next(&mut self) -> Option<Result<Bytes, Fault>> {
        Some(match self.reader.next().await? {
            Ok(bytes) => self.hold(bytes).await,
            Err(fault) => Err(fault),
        })
    }

    async fn hold(&mut self, bytes: Bytes) -> Result<Bytes, Fault> {
        let at = self.at;
        self.at += bytes.len() as u64;
        if self.left.is_empty() {
            return Ok(bytes);
        }
        let (mut left, held) = (std::mem::take(&mut self.left), bytes.clone());
        let hold = move || {
            hold(&mut left, at, &held)?;
            Ok(left)
        };
        self.left = compute(bytes.len(), hold).await?;
        Ok(bytes)
    }
}

impl ContentStore {
    /// Holds what `reader` reads, the bytes `range` of a content, against what is known of them.
    pub async fn proven(
        &self,
        reader: Reader,
        of: ContentId,
        range: Range<u64>,
    ) -> Result<Proven, Fault> {
        let at = range.start;
        let parts = self.meta.scan("find digests of parts", move |session| {
            Box::pin(joined::parts(session, of, range))
        });
        let parts = parts.await?.into_iter();
        let left = parts.map(|part| {
            let range = part.start..part.start + part.length;
            Check::plain(part.content, range, part.fingerprint)
        });
        Ok(Proven {
            reader,
            left: left.collect(),
            at,
        })
    }
}

/// Takes the bytes from `at` on, and lets go of what is right to its end.
fn hold(left: &mut VecDeque<Check>, at: u64, bytes: &Bytes) -> Result<(), Fault> {
    let end = at + bytes.len() as u64;
    while let Some(first) = left.front_mut() {
        first.take(at, bytes)?;
        if first.end() > end {
            break;
        }
        if let Some(whole) = left.pop_front() {
            whole.finish()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::model::digest::{Crc64Hasher, Fingerprint, Sha256Digest};
    use crate::model::fault::Kind;

    #[test]
    fn each_part_is_held_against_its_own_digest_whatever_the_bytes_come_in() {
        let body = Bytes::from_static(b"abcdefghij");
        let of = |wanted: &[u8]| Fingerprint::Sha256(Sha256Digest(Sha256::digest(wanted).into()));
        let crc = |wanted: &[u8]| {
            let mut hasher = Crc64Hasher::default();
            hasher.update(wanted);
            Fingerprint::Crc64Nvme(hasher.finish())
        };
        let run = |wanted: [&[u8]; 2], step: usize| {
            // Nothing is known of the bytes between.
            let mut left = VecDeque::from([
                Check::plain(ContentId(1), 0..4, of(wanted[0])),
                Check::plain(ContentId(2), 6..10, crc(wanted[1])),
            ]);
            for at in (0..body.len()).step_by(step) {
                let piece = body.slice(at..(at + step).min(body.len()));
                hold(&mut left, at as u64, &piece)?;
            }
            assert!(left.is_empty());
            Ok::<_, Fault>(())
        };
        for step in 1..=body.len() {
            run([b"abcd", b"ghij"], step).unwrap();
            for wrong in [[b"abcx", b"ghij"], [b"abcd", b"xhij"]] {
                let wrong = [&wrong[0][..], &wrong[1][..]];
                assert_eq!(run(wrong, step).unwrap_err().kind(), Kind::Corrupt);
            }
        }
    }
}
