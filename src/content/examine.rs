//! Whether the bytes of a copy are those that its blob's rows promise.
//!
//! - A content that is stored as it came: its SHA-256, or its MD5 where no SHA-256 is recorded (a bucket without dedup),
//!   or its CRC-64/NVME where it is a piece of a content that lies in several blobs.
//! - An encrypted one: every frame opens under its data key, and what comes out has that digest.
//! - One under a key that only the customer has, and a piece that was stored before pieces had a checksum: nothing but
//!   the length. Their copies can be compared with each other, and no more.

use std::ops::Range;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::frames::Opener;
use super::sealing::opening;
use super::{ContentStore, Work};
use crate::meta::contents::{CopyRow, Location, Place};
use crate::meta::findings::{Promise, Promised};
use crate::model::digest::{Crc64Hasher, Fingerprint, Md5Hasher, Sha256Digest};
use crate::model::fault::{Fault, Kind};
use crate::model::ids::ContentId;

/// A copy that was read to its end, and has nothing wrong that could be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Examined {
    /// The digest of its bytes as they lie there.
    pub(super) digest: Sha256Digest,
    /// Whether a digest or a tag vouches for every byte.
    pub(super) is_proven: bool,
}

impl ContentStore {
    /// Reads a whole copy and compares it with what is promised. [`Kind::Corrupt`] when it is not that or ends early,
    /// [`Kind::NotFound`] when it is not there; any other fault says nothing of its bytes.
    pub(super) async fn examine(
        &self,
        copy: &CopyRow,
        promise: &Promise,
        work: &Work,
    ) -> Result<Examined, Fault> {
        let mut checks = Vec::with_capacity(promise.contents.len());
        for content in &promise.contents {
            checks.extend(self.check_of(content).await?);
        }
        let is_proven = covers(
            checks.iter().map(|check| check.stored.clone()).collect(),
            promise.size,
        );
        let mut reader = self.read_copy(copy, 0..promise.size).await?;
        let (mut whole, mut at) = (Sha256::new(), 0);
        while let Some(bytes) = reader.next().await {
            let bytes = bytes?;
            work.pace.take(bytes.len()).await;
            whole.update(&bytes);
            for check in &mut checks {
                check.take(at, &bytes)?;
            }
            at += bytes.len() as u64;
        }
        for check in checks {
            check.finish()?;
        }
        Ok(Examined {
            digest: Sha256Digest(whole.finalize().into()),
            is_proven,
        })
    }

    /// What a content's bytes are held against; `None` when there is nothing.
    async fn check_of(&self, content: &Promised) -> Result<Option<Check>, Fault> {
        let expected = Expected::from(content.fingerprint);
        let opener = match &content.sealing {
            None if matches!(expected, Expected::Nothing) => return Ok(None),
            None => None,
            Some(sealing) if sealing.key.is_none() || content.length == 0 => return Ok(None),
            Some(_) => {
                let location = Location {
                    place: Place::Stored {
                        offset: content.offset,
                        copies: Vec::new(),
                    },
                    length: content.length,
                    sealing: content.sealing.clone(),
                };
                // A key that does not open says nothing of the copy.
                let opening = opening(&self.keys, None, content.id, &location).await;
                let opening = opening.map_err(|fault| {
                    Fault::new(Kind::Internal, "examine copy")
                        .context("the content's key is not to be had")
                        .source(fault)
                })?;
                opening.map(|opening| opening.begin(0..content.length).0)
            }
        };
        Ok(Some(Check {
            content: content.id.0,
            stored: content.offset..content.offset + content.stored_length,
            left: content.length,
            opener,
            expected,
        }))
    }
}

enum Expected {
    Sha256(Sha256, Sha256Digest),
    Md5(Md5Hasher, [u8; 16]),
    Crc64(Crc64Hasher, u64),
    Nothing,
}

impl From<Option<Fingerprint>> for Expected {
    fn from(fingerprint: Option<Fingerprint>) -> Self {
        match fingerprint {
            Some(Fingerprint::Sha256(wanted)) => Self::Sha256(Sha256::new(), wanted),
            Some(Fingerprint::Md5(wanted)) => Self::Md5(Md5Hasher::default(), wanted),
            Some(Fingerprint::Crc64Nvme(wanted)) => Self::Crc64(Crc64Hasher::default(), wanted),
            None => Self::Nothing,
        }
    }
}

/// One content while the bytes that it lies in are read: those of a copy of its blob, or of what it is a part of.
pub(super) struct Check {
    content: i64,
    /// Where it lies in them.
    stored: Range<u64>,
    /// Bytes of it that are still to come.
    left: u64,
    opener: Option<Opener>,
    expected: Expected,
}

impl Check {
    /// A content that lies at `stored` as it is.
    pub(super) fn plain(content: ContentId, stored: Range<u64>, fingerprint: Fingerprint) -> Self {
        Self {
            content: content.0,
            left: stored.end - stored.start,
            stored,
            opener: None,
            expected: Expected::from(Some(fingerprint)),
        }
    }

    /// Where its last byte lies, and the one after it begins.
    pub(super) fn end(&self) -> u64 {
        self.stored.end
    }

    /// Takes the bytes from `at` on.
    pub(super) fn take(&mut self, at: u64, bytes: &Bytes) -> Result<(), Fault> {
        let start = self.stored.start.max(at);
        let end = self.stored.end.min(at + bytes.len() as u64);
        if start >= end {
            return Ok(());
        }
        let own = bytes.slice((start - at) as usize..(end - at) as usize);
        if self.opener.is_none() {
            self.hash(&own);
            return Ok(());
        }
        if let Some(opener) = &mut self.opener {
            opener.push(&own);
        }
        while let Some(opened) = self.opener.as_mut().map(Opener::next) {
            match opened {
                Ok(Some(plain)) => self.hash(&plain),
                Ok(None) => break,
                Err(fault) => {
                    return Err(fault.context(format_args!("content {}", self.content)));
                }
            }
        }
        Ok(())
    }

    fn hash(&mut self, bytes: &[u8]) {
        self.left = self.left.saturating_sub(bytes.len() as u64);
        match &mut self.expected {
            Expected::Sha256(hasher, _) => hasher.update(bytes),
            Expected::Md5(hasher, _) => hasher.update(bytes),
            Expected::Crc64(hasher, _) => hasher.update(bytes),
            Expected::Nothing => {}
        }
    }

    /// [`Kind::Corrupt`] unless all of it was taken and is right.
    pub(super) fn finish(self) -> Result<(), Fault> {
        let is_right = self.left == 0
            && match self.expected {
                Expected::Sha256(hasher, wanted) => {
                    let digest: [u8; 32] = hasher.finalize().into();
                    digest == wanted.0
                }
                Expected::Md5(hasher, wanted) => hasher.finish() == wanted,
                Expected::Crc64(hasher, wanted) => hasher.finish() == wanted,
                Expected::Nothing => true,
            };
        if is_right {
            return Ok(());
        }
        Err(Fault::new(Kind::Corrupt, "examine copy")
            .context(format_args!("content {}", self.content))
            .context("its bytes are not those that were stored"))
    }
}

/// Whether every byte below `size` lies in one of the ranges.
fn covers(mut ranges: Vec<Range<u64>>, size: u64) -> bool {
    ranges.sort_by_key(|range| range.start);
    let mut end = 0;
    for range in ranges {
        if range.start > end {
            return false;
        }
        end = end.max(range.end);
    }
    end >= size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_what_has_no_gap() {
        assert!(covers(vec![], 0));
        assert!(!covers(vec![], 1));
        assert!(covers(vec![5..10, 0..5], 10));
        assert!(covers(vec![0..8, 0..8, 2..10], 10));
        assert!(!covers(vec![0..4, 5..10], 10));
        assert!(!covers(vec![0..4, 4..9], 10));
    }

    #[test]
    fn a_content_between_others_is_held_against_its_own_bytes_only() {
        let blob = Bytes::from_static(b"xxxxabcdefyyyy");
        let check = |wanted: &[u8]| Check {
            content: 1,
            stored: 4..10,
            left: 6,
            opener: None,
            expected: Expected::Sha256(Sha256::new(), Sha256Digest(Sha256::digest(wanted).into())),
        };
        for step in 1..=blob.len() {
            let run = |mut check: Check| {
                for at in (0..blob.len()).step_by(step) {
                    let piece = blob.slice(at..(at + step).min(blob.len()));
                    check.take(at as u64, &piece).unwrap();
                }
                check.finish()
            };
            run(check(b"abcdef")).unwrap();
            assert_eq!(run(check(b"abcdeg")).unwrap_err().kind(), Kind::Corrupt);
        }
        // A copy that ends early is not well because its begin is.
        let mut short = check(b"abc");
        short.take(0, &blob.slice(..7)).unwrap();
        assert!(short.finish().is_err());
    }
}
