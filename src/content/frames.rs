//! Encrypted bytes that stay seekable.
//!
//! A content is cut into frames of equal length, the last one shorter; an empty content has one empty frame.
//! Each is stored as
//!
//! ```text
//!   n bytes   AES-256-GCM of the frame; nonce: 4 zero bytes and the frame's index as u64, big-endian;
//!             associated data: the index again, and 1 for the last frame, else 0
//!   16 bytes  tag
//! ```
//!
//! The key is random and of this content alone, so that no nonce is used twice. A frame that is changed, moved
//! or taken from another content does not open, nor does a content that ends early.

use std::ops::Range;
use std::sync::Arc;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use bytes::{Bytes, BytesMut};

use crate::model::fault::{Fault, Kind};

/// Bytes in a frame of new contents: small enough for a cheap seek, large enough that the tag costs nothing.
pub(super) const FRAME_BYTES: u32 = 64 * 1024;
const TAG_BYTES: u64 = 16;

/// How a content of `length` bytes is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frames {
    frame: u64,
    length: u64,
}

impl Frames {
    /// `None` for frames without bytes, which cannot be.
    pub(super) fn new(frame_bytes: u32, length: u64) -> Option<Self> {
        (frame_bytes > 0).then_some(Self {
            frame: u64::from(frame_bytes),
            length,
        })
    }

    fn count(&self) -> u64 {
        self.length.div_ceil(self.frame).max(1)
    }

    /// Bytes that the whole takes when it is stored.
    pub(super) fn stored_length(&self) -> u64 {
        self.length + self.count() * TAG_BYTES
    }

    /// The longest content whose stored form takes no more than `stored_max` bytes.
    pub(super) fn capacity(frame_bytes: u32, stored_max: u64) -> u64 {
        let frame = u64::from(frame_bytes);
        let (whole, rest) = (
            stored_max / (frame + TAG_BYTES),
            stored_max % (frame + TAG_BYTES),
        );
        whole * frame + rest.saturating_sub(TAG_BYTES)
    }

    /// The first frame of those that `range` of the content lies in, and where they are stored.
    fn covering(&self, range: &Range<u64>) -> (u64, Range<u64>) {
        let stored = self.frame + TAG_BYTES;
        let (first, end) = (range.start / self.frame, range.end.div_ceil(self.frame));
        let end = (end * stored).min(self.stored_length());
        (first, first * stored..end)
    }

    /// Bytes of the frame `index`.
    fn bytes_in(&self, index: u64) -> u64 {
        (self.length - index * self.frame).min(self.frame)
    }
}

fn nonce(index: u64) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&index.to_be_bytes());
    Nonce::from(nonce)
}

fn bound(index: u64, is_last: bool) -> [u8; 9] {
    let mut bound = [0; 9];
    bound[..8].copy_from_slice(&index.to_be_bytes());
    bound[8] = u8::from(is_last);
    bound
}

/// Encrypts a content from its first byte to its last.
pub(super) struct Sealer {
    cipher: Aes256Gcm,
    index: u64,
    /// The frame being filled. A full one waits until it is known not to be the last.
    pending: BytesMut,
}

impl Sealer {
    pub(super) fn new(cipher: Aes256Gcm) -> Self {
        Self {
            cipher,
            index: 0,
            pending: BytesMut::new(),
        }
    }

    /// Takes the next bytes and returns the frames that are complete with them.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<Bytes, Fault> {
        let frame = FRAME_BYTES as usize;
        let mut sealed = BytesMut::with_capacity(self.pending.len() + bytes.len() + 256);
        while !bytes.is_empty() {
            if self.pending.len() == frame {
                self.seal(false, &mut sealed)?;
            }
            let (now, rest) = bytes.split_at(bytes.len().min(frame - self.pending.len()));
            self.pending.extend_from_slice(now);
            bytes = rest;
        }
        Ok(sealed.freeze())
    }

    /// Ends the content and returns its last frame.
    pub(super) fn finish(mut self) -> Result<Bytes, Fault> {
        let mut sealed = BytesMut::with_capacity(self.pending.len() + TAG_BYTES as usize);
        self.seal(true, &mut sealed)?;
        Ok(sealed.freeze())
    }

    fn seal(&mut self, is_last: bool, into: &mut BytesMut) -> Result<(), Fault> {
        let start = into.len();
        into.extend_from_slice(&self.pending);
        let tag = self
            .cipher
            .encrypt_inout_detached(
                &nonce(self.index),
                &bound(self.index, is_last),
                (&mut into[start..]).into(),
            )
            .map_err(|_| Fault::new(Kind::Internal, "encrypt frame"))?;
        into.extend_from_slice(&tag);
        self.pending.clear();
        self.index += 1;
        Ok(())
    }
}

/// What opens the frames of one content.
#[derive(Clone)]
pub(super) struct Opening {
    cipher: Arc<Aes256Gcm>,
    frames: Frames,
}

impl Opening {
    pub(super) fn new(cipher: Aes256Gcm, frames: Frames) -> Self {
        Self {
            cipher: Arc::new(cipher),
            frames,
        }
    }

    /// Begins to decrypt `range` of the content, which must not be empty; answers with which of the stored
    /// bytes are to be pushed.
    pub(super) fn begin(&self, range: Range<u64>) -> (Opener, Range<u64>) {
        let (index, stored) = self.frames.covering(&range);
        let opener = Opener {
            opening: self.clone(),
            index,
            wanted: range,
            buffer: BytesMut::new(),
        };
        (opener, stored)
    }
}

/// Decrypts the frames of one range, in order.
pub(super) struct Opener {
    opening: Opening,
    /// The frame that comes next.
    index: u64,
    /// What is left of the range.
    wanted: Range<u64>,
    buffer: BytesMut,
}

impl Opener {
    /// Takes stored bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The wanted bytes of the next frame; `None` while that is not complete. [`Kind::Corrupt`] when it is
    /// not what was written there.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        let frames = self.opening.frames;
        if self.wanted.is_empty() {
            return Ok(None);
        }
        let length = frames.bytes_in(self.index);
        let stored = (length + TAG_BYTES) as usize;
        if self.buffer.len() < stored {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(stored);
        let tag = frame.split_off(length as usize);
        let is_last = self.index + 1 == frames.count();
        let broken = || {
            Fault::new(Kind::Corrupt, "decrypt frame").context(format_args!("frame {}", self.index))
        };
        let tag = Tag::try_from(&tag[..]).map_err(|_| broken())?;
        self.opening
            .cipher
            .decrypt_inout_detached(
                &nonce(self.index),
                &bound(self.index, is_last),
                (&mut frame[..]).into(),
                &tag,
            )
            .map_err(|_| broken())?;
        let start = self.index * frames.frame;
        let until = self.wanted.end.min(start + length);
        let bytes = frame
            .freeze()
            .slice((self.wanted.start - start) as usize..(until - start) as usize);
        self.wanted.start = until;
        self.index += 1;
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::DataKey;
    use proptest::prelude::*;

    const FRAME: usize = FRAME_BYTES as usize;
    const STORED: usize = FRAME + TAG_BYTES as usize;

    fn plain(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index % 253) as u8).collect()
    }

    fn seal(key: &DataKey, bytes: &[u8], pieces: usize) -> Vec<u8> {
        let mut sealer = Sealer::new(key.cipher());
        let mut sealed = Vec::new();
        for piece in bytes.chunks(pieces.max(1)) {
            sealed.extend_from_slice(&sealer.push(piece).unwrap());
        }
        sealed.extend_from_slice(&sealer.finish().unwrap());
        sealed
    }

    fn open(
        key: &DataKey,
        length: usize,
        sealed: &[u8],
        range: Range<u64>,
    ) -> Result<Vec<u8>, Fault> {
        let frames = Frames::new(FRAME_BYTES, length as u64).unwrap();
        let (mut opener, stored) = Opening::new(key.cipher(), frames).begin(range);
        let short = || Fault::new(Kind::Corrupt, "test").context("too short");
        let stored = sealed
            .get(stored.start as usize..stored.end as usize)
            .ok_or_else(short)?;
        let mut opened = Vec::new();
        for piece in stored.chunks(100_000) {
            opener.push(piece);
            while let Some(bytes) = opener.next()? {
                opened.extend_from_slice(&bytes);
            }
        }
        assert!(opener.buffer.is_empty(), "more was read than needed");
        Ok(opened)
    }

    fn near_borders() -> impl Strategy<Value = usize> {
        (0usize..4, 0usize..5).prop_map(|(frames, off)| (frames * FRAME + off).saturating_sub(2))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn every_range_opens_to_the_bytes_it_had(
            length in prop_oneof![near_borders(), 0usize..300_000],
            a in prop_oneof![near_borders(), 0usize..300_000],
            b in prop_oneof![near_borders(), 0usize..300_000],
            pieces in 1000usize..200_000,
        ) {
            let (bytes, key) = (plain(length), DataKey::draw().unwrap());
            let sealed = seal(&key, &bytes, pieces);
            let frames = Frames::new(FRAME_BYTES, length as u64).unwrap();
            prop_assert_eq!(sealed.len() as u64, frames.stored_length());
            let start = a.min(b).min(length);
            let end = a.max(b).min(length);
            if start < end {
                let opened = open(&key, length, &sealed, start as u64..end as u64).unwrap();
                prop_assert_eq!(&opened[..], &bytes[start..end]);
            }
        }
    }

    #[test]
    fn a_changed_byte_anywhere_is_corrupt() {
        let (bytes, key) = (plain(FRAME + 40), DataKey::draw().unwrap());
        let sealed = seal(&key, &bytes, FRAME);
        let tail = STORED..sealed.len();
        for place in (0..STORED).step_by(997).chain(FRAME..STORED).chain(tail) {
            let mut damaged = sealed.clone();
            damaged[place] ^= 1;
            let fault = open(&key, bytes.len(), &damaged, 0..bytes.len() as u64).unwrap_err();
            assert_eq!(fault.kind(), Kind::Corrupt, "byte {place}");
        }
    }

    #[test]
    fn a_range_reads_only_its_own_frames() {
        let (bytes, key) = (plain(3 * FRAME), DataKey::draw().unwrap());
        let mut sealed = seal(&key, &bytes, FRAME);
        sealed[0] ^= 1;
        sealed[2 * STORED] ^= 1;
        let range = FRAME as u64 + 3..2 * FRAME as u64;
        let opened = open(&key, bytes.len(), &sealed, range).unwrap();
        assert_eq!(opened, &bytes[FRAME + 3..2 * FRAME]);
    }

    #[test]
    fn frames_that_are_swapped_cut_off_or_of_another_content_do_not_open() {
        let (bytes, key) = (plain(3 * FRAME), DataKey::draw().unwrap());
        let whole = 0..bytes.len() as u64;
        let sealed = seal(&key, &bytes, FRAME);
        let swapped = [
            &sealed[STORED..2 * STORED],
            &sealed[..STORED],
            &sealed[2 * STORED..],
        ]
        .concat();
        assert!(open(&key, bytes.len(), &swapped, whole.clone()).is_err());
        // A row that says two frames does not make the second the last.
        assert!(open(&key, 2 * FRAME, &sealed, 0..2 * FRAME as u64).is_err());
        let other = seal(&DataKey::draw().unwrap(), &bytes, FRAME);
        let mixed = [&sealed[..STORED], &other[STORED..]].concat();
        assert!(open(&key, bytes.len(), &mixed, whole.clone()).is_err());
        assert!(open(&DataKey::draw().unwrap(), bytes.len(), &sealed, whole).is_err());
    }

    #[test]
    fn an_empty_content_has_one_frame_and_no_plain_text_is_stored() {
        let key = DataKey::draw().unwrap();
        assert_eq!(seal(&key, b"", 1).len(), TAG_BYTES as usize);
        let bytes = plain(2 * FRAME);
        let sealed = seal(&key, &bytes, 5000);
        assert_eq!(sealed.len(), 2 * STORED);
        assert!(!sealed.windows(8).any(|window| window == &bytes[..8]));
    }
}
