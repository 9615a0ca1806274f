//! Digests, checksums and ETags: what a body is known by, computed in one pass.
//!
//! Identity is SHA-256 plus length over bytes the server hashed itself. MD5 is the ETag and nothing else.
//! The three CRCs are computed for every content because they cost next to nothing, so that a later request
//! that carries one can be compared without reading the bytes again.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc_fast::CrcAlgorithm;
use md5::{Digest as _, Md5};
use sha1::Sha1;
use sha2::Sha256;

/// A SHA-256 digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256Digest(pub [u8; 32]);

impl Sha256Digest {
    /// Parses the 64 lower-case hexadecimal digits of `x-amz-content-sha256`.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

/// The checksum algorithms a client may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChecksumAlgorithm {
    /// CRC-32 as in ISO-HDLC.
    Crc32,
    /// CRC-32C (Castagnoli).
    Crc32c,
    /// CRC-64/NVME.
    Crc64Nvme,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl ChecksumAlgorithm {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Crc32,
        Self::Crc32c,
        Self::Crc64Nvme,
        Self::Sha1,
        Self::Sha256,
    ];

    /// The name S3 uses, as in `x-amz-checksum-algorithm`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// Parses S3's name, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(text))
    }

    /// Bytes of a value.
    pub fn len_bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }

    /// Whether the checksum of a whole can be computed from those of its parts.
    pub fn is_linear(self) -> bool {
        self.crc().is_some()
    }
}

/// A checksum over one run of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    /// How it was computed.
    pub algorithm: ChecksumAlgorithm,
    /// The value, big-endian for the CRCs; [`ChecksumAlgorithm::len_bytes`] long.
    pub value: Vec<u8>,
}

impl Checksum {
    /// Parses the Base64 of a request header; `None` when it is not that or has the wrong length.
    pub fn parse(algorithm: ChecksumAlgorithm, text: &str) -> Option<Self> {
        let value = BASE64.decode(text).ok()?;
        (value.len() == algorithm.len_bytes()).then_some(Self { algorithm, value })
    }

    /// The Base64 that headers carry.
    pub fn to_base64(&self) -> String {
        BASE64.encode(&self.value)
    }
}

/// Whether an object's checksum covers its bytes or its parts' checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumKind {
    /// Over the whole object's bytes.
    FullObject,
    /// Over the concatenated checksums of this many parts.
    Composite,
}

impl ChecksumKind {
    /// The name S3 uses, as in `x-amz-checksum-type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FullObject => "FULL_OBJECT",
            Self::Composite => "COMPOSITE",
        }
    }
}

/// The checksum an object is stored with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectChecksum {
    /// Algorithm and value.
    pub checksum: Checksum,
    /// What the value covers.
    pub kind: ChecksumKind,
    /// How many parts a composite value was made from.
    pub parts: Option<u32>,
}

impl ObjectChecksum {
    /// A checksum over whole bytes.
    pub fn full(checksum: Checksum) -> Self {
        Self {
            checksum,
            kind: ChecksumKind::FullObject,
            parts: None,
        }
    }

    /// What headers carry: Base64, for a composite followed by `-` and the number of parts.
    pub fn to_header(&self) -> String {
        match (self.kind, self.parts) {
            (ChecksumKind::Composite, Some(parts)) => {
                format!("{}-{parts}", self.checksum.to_base64())
            }
            _ => self.checksum.to_base64(),
        }
    }
}

/// Why the checksums of parts could not be joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotJoinable;

/// Joins the checksums of parts, given as value and length in bytes, into that of the whole object.
///
/// Composite: the algorithm over the concatenated values ("Checking object integrity" in the S3 user guide).
/// Full object: linear combination, for CRCs only.
pub fn join_checksums(
    algorithm: ChecksumAlgorithm,
    kind: ChecksumKind,
    parts: &[(Vec<u8>, u64)],
) -> Result<ObjectChecksum, NotJoinable> {
    match kind {
        ChecksumKind::Composite => {
            let mut hasher = ChecksumHasher::new(algorithm);
            for (value, _) in parts {
                hasher.update(value);
            }
            Ok(ObjectChecksum {
                checksum: hasher.finish(),
                kind,
                parts: Some(parts.len() as u32),
            })
        }
        ChecksumKind::FullObject => {
            let crc = algorithm.crc().ok_or(NotJoinable)?;
            let mut joined: Option<u64> = None;
            for (value, length) in parts {
                let next = value
                    .iter()
                    .fold(0u64, |acc, byte| (acc << 8) | u64::from(*byte));
                joined = Some(match joined {
                    None => next,
                    Some(before) => crc_fast::checksum_combine(crc, before, next, *length),
                });
            }
            let value = joined.ok_or(NotJoinable)?;
            Ok(ObjectChecksum::full(Checksum {
                algorithm,
                value: crc_bytes(algorithm, value),
            }))
        }
    }
}

fn crc_bytes(algorithm: ChecksumAlgorithm, value: u64) -> Vec<u8> {
    value.to_be_bytes()[8 - algorithm.len_bytes()..].to_vec()
}

/// Computes one checksum.
pub enum ChecksumHasher {
    /// One of the CRCs.
    Crc(ChecksumAlgorithm, crc_fast::Digest),
    /// SHA-1.
    Sha1(Sha1),
    /// SHA-256.
    Sha256(Sha256),
}

impl ChecksumHasher {
    /// A hasher for `algorithm`.
    pub fn new(algorithm: ChecksumAlgorithm) -> Self {
        match algorithm.crc() {
            Some(crc) => Self::Crc(algorithm, crc_fast::Digest::new(crc)),
            None if algorithm == ChecksumAlgorithm::Sha1 => Self::Sha1(Sha1::new()),
            None => Self::Sha256(Sha256::new()),
        }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc(_, digest) => digest.update(bytes),
            Self::Sha1(digest) => digest.update(bytes),
            Self::Sha256(digest) => digest.update(bytes),
        }
    }

    /// The checksum of all bytes added.
    pub fn finish(self) -> Checksum {
        match self {
            Self::Crc(algorithm, digest) => Checksum {
                algorithm,
                value: crc_bytes(algorithm, digest.finalize()),
            },
            Self::Sha1(digest) => Checksum {
                algorithm: ChecksumAlgorithm::Sha1,
                value: digest.finalize().to_vec(),
            },
            Self::Sha256(digest) => Checksum {
                algorithm: ChecksumAlgorithm::Sha256,
                value: digest.finalize().to_vec(),
            },
        }
    }
}

/// Everything a content is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// Bytes hashed.
    pub length: u64,
    /// Identity, together with `length`.
    pub sha256: Sha256Digest,
    /// The ETag of a single put.
    pub md5: [u8; 16],
    /// CRC-32.
    pub crc32: u32,
    /// CRC-32C.
    pub crc32c: u32,
    /// CRC-64/NVME.
    pub crc64nvme: u64,
    /// SHA-1, where a client asked for it.
    pub sha1: Option<[u8; 20]>,
}

impl Digests {
    /// The checksum over these bytes; `None` for a SHA-1 that was not computed.
    pub fn checksum(&self, algorithm: ChecksumAlgorithm) -> Option<Checksum> {
        let value = match algorithm {
            ChecksumAlgorithm::Crc32 => self.crc32.to_be_bytes().to_vec(),
            ChecksumAlgorithm::Crc32c => self.crc32c.to_be_bytes().to_vec(),
            ChecksumAlgorithm::Crc64Nvme => self.crc64nvme.to_be_bytes().to_vec(),
            ChecksumAlgorithm::Sha1 => self.sha1?.to_vec(),
            ChecksumAlgorithm::Sha256 => self.sha256.0.to_vec(),
        };
        Some(Checksum { algorithm, value })
    }

    /// Whether the bytes have this fingerprint.
    pub fn have(&self, fingerprint: Fingerprint) -> bool {
        match fingerprint {
            Fingerprint::Sha256(sha256) => self.sha256 == sha256,
            Fingerprint::Md5(md5) => self.md5 == md5,
            Fingerprint::Crc64Nvme(crc64nvme) => self.crc64nvme == crc64nvme,
        }
    }
}

/// The slower half of a body's hashing, alone so that it can run beside the other half.
pub struct Md5Hasher(Md5);

impl Default for Md5Hasher {
    fn default() -> Self {
        Self(Md5::new())
    }
}

impl Md5Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The MD5 of all bytes added.
    pub fn finish(self) -> [u8; 16] {
        self.0.finalize().into()
    }
}

/// Computes a CRC-64/NVME.
pub struct Crc64Hasher(crc_fast::Digest);

impl Default for Crc64Hasher {
    fn default() -> Self {
        Self(crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme))
    }
}

impl Crc64Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes added.
    pub fn finish(self) -> u64 {
        self.0.finalize()
    }
}

/// The strongest of what a content's row says of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fingerprint {
    /// Of what is found by its digest.
    Sha256(Sha256Digest),
    /// Of what is found by nobody.
    Md5([u8; 16]),
    /// Of a piece of a content that lies in several blobs: it tells what a disk or a line did to the bytes, and not
    /// what somebody did on purpose.
    Crc64Nvme(u64),
}

impl Fingerprint {
    /// Of the digests that a row has.
    pub fn strongest(
        sha256: Option<Sha256Digest>,
        md5: Option<[u8; 16]>,
        crc64nvme: Option<u64>,
    ) -> Option<Self> {
        let weaker = || md5.map(Self::Md5).or(crc64nvme.map(Self::Crc64Nvme));
        sha256.map(Self::Sha256).or_else(weaker)
    }
}

/// The MD5 of `bytes`.
pub fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

/// The other half: identity, checksums and length.
pub struct IdentityHasher {
    length: u64,
    sha256: Option<Sha256>,
    sha1: Option<Sha1>,
    crc32: crc_fast::Digest,
    crc32c: crc_fast::Digest,
    crc64nvme: crc_fast::Digest,
}

impl IdentityHasher {
    /// `sha256`: whether to compute it here; a signed payload's is verified by the protocol layer while it
    /// streams and need not be computed twice. `sha1`: whether a client asked for it.
    pub fn new(sha256: bool, sha1: bool) -> Self {
        Self {
            length: 0,
            sha256: sha256.then(Sha256::new),
            sha1: sha1.then(Sha1::new),
            crc32: crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc),
            crc32c: crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi),
            crc64nvme: crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme),
        }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if let Some(digest) = &mut self.sha256 {
            digest.update(bytes);
        }
        if let Some(digest) = &mut self.sha1 {
            digest.update(bytes);
        }
        self.crc32.update(bytes);
        self.crc32c.update(bytes);
        self.crc64nvme.update(bytes);
    }

    /// Bytes added so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Joins both halves. `verified` is the SHA-256 that was verified elsewhere; it is used only when this
    /// hasher did not compute one, and `None` is returned when neither exists.
    pub fn finish(self, md5: [u8; 16], verified: Option<Sha256Digest>) -> Option<Digests> {
        let sha256 = match self.sha256 {
            Some(digest) => Sha256Digest(digest.finalize().into()),
            None => verified?,
        };
        Some(Digests {
            length: self.length,
            sha256,
            md5,
            crc32: self.crc32.finalize() as u32,
            crc32c: self.crc32c.finalize() as u32,
            crc64nvme: self.crc64nvme.finalize(),
            sha1: self.sha1.map(|digest| digest.finalize().into()),
        })
    }
}

/// What S3 answers as ETag: an MD5, or the MD5 of the parts' MD5s with their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ETag {
    /// The digest.
    pub md5: [u8; 16],
    /// The number of parts; `None` for a single put.
    pub parts: Option<u32>,
}

impl ETag {
    /// The ETag of a single put.
    pub fn single(md5: [u8; 16]) -> Self {
        Self { md5, parts: None }
    }

    /// The ETag of a multipart upload, from its parts' MD5s in order.
    pub fn multipart<'a>(parts: impl IntoIterator<Item = &'a [u8; 16]>) -> Self {
        let mut digest = Md5::new();
        let mut count = 0;
        for part in parts {
            digest.update(part);
            count += 1;
        }
        Self {
            md5: digest.finalize().into(),
            parts: Some(count),
        }
    }

    /// Parses the text without quotes.
    pub fn parse(text: &str) -> Option<Self> {
        let (digest, parts) = match text.split_once('-') {
            Some((digest, parts)) => (digest, Some(parts.parse().ok()?)),
            None => (text, None),
        };
        let mut md5 = [0; 16];
        hex::decode_to_slice(digest, &mut md5).ok()?;
        Some(Self { md5, parts })
    }
}

impl fmt::Display for ETag {
    /// The text without quotes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; 32];
        hex::encode_to_slice(self.md5, &mut buffer).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&buffer).map_err(|_| fmt::Error)?)?;
        if let Some(parts) = self.parts {
            write!(f, "-{parts}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digests(bytes: &[u8]) -> Digests {
        let mut identity = IdentityHasher::new(true, true);
        identity.update(bytes);
        identity.finish(md5(bytes), None).unwrap()
    }

    #[test]
    fn known_answers_for_123456789() {
        let d = digests(b"123456789");
        assert_eq!(d.crc32, 0xCBF4_3926);
        assert_eq!(d.crc32c, 0xE306_9283);
        assert_eq!(d.crc64nvme, 0xAE8B_1486_0A79_9888);
        assert_eq!(
            ETag::single(d.md5).to_string(),
            "25f9e794323b453885f5181f1b624d0b"
        );
        assert_eq!(
            hex::encode(d.sha1.unwrap()),
            "f7c3bc1d808e04732adf679965ccc34ca7ae3441"
        );
    }

    #[test]
    fn etag_text_round_trips() {
        for text in [
            "25f9e794323b453885f5181f1b624d0b",
            "25f9e794323b453885f5181f1b624d0b-17",
        ] {
            assert_eq!(ETag::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(ETag::parse("xyz"), None);
    }

    #[test]
    fn a_sha256_full_object_checksum_cannot_be_joined() {
        let parts = [(vec![0; 32], 5)];
        assert_eq!(
            join_checksums(ChecksumAlgorithm::Sha256, ChecksumKind::FullObject, &parts),
            Err(NotJoinable)
        );
    }

    proptest! {
        #[test]
        fn joined_crcs_equal_the_crc_of_the_whole(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6)) {
            let whole: Vec<u8> = parts.concat();
            for algorithm in [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Crc64Nvme] {
                let values: Vec<_> = parts
                    .iter()
                    .map(|part| (digests(part).checksum(algorithm).unwrap().value, part.len() as u64))
                    .collect();
                let joined = join_checksums(algorithm, ChecksumKind::FullObject, &values).unwrap();
                prop_assert_eq!(Some(joined.checksum), digests(&whole).checksum(algorithm));
            }
        }
    }
}
