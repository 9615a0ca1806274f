//! Names of blobs, as every backend sees them.
//!
//! A name is 32 lower-case hexadecimal digits: 16 of the blob id, whose high bits are the time the blob was
//! born, then 16 random ones. It says nothing about what the blob holds, is used once, and sorts by birth.
//! At a backend the blob lies at `xx/<name>`, where `xx` are the first two random digits, so that services
//! with directories, and the file system, spread their entries evenly over 256 of them.
//!
//! A blob that was adopted from another system keeps its name there, which may be any: see [`CopyName`]. Nothing is ever
//! written under such a name, and no listing gives it.
//!
//! Beside the directories lies [`MARKER`], which says of which install the blobs are, and is none of them.
//!
//! Manifests have names of the same shape: the first digit, the sign of the id, is 8 or more, all others are random
//! but the two of the directory, which is the last one. So they are found without listing every blob.

use std::fmt;
use std::sync::Arc;

/// Digits of the id, and of the random part.
const HALF: usize = 16;
/// How many directories the names are spread over.
pub(super) const FAN_OUT: usize = 256;
/// The directory of manifests, which blobs share.
pub(super) const MANIFESTS: usize = FAN_OUT - 1;
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The object at the root of a backend that says whose the blobs there are.
pub const MARKER: &str = "osproxy-install";

/// The name of one copy of a blob at its backend.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobName([u8; 2 * HALF]);

impl BlobName {
    /// A new name for the blob `id`; no two calls answer the same.
    pub fn new(id: i64) -> Self {
        let random = getrandom::u64()
            .expect("the system's random source does not fail once the process is running");
        Self::from_parts(id, random)
    }

    /// A new name for an object of a manifest.
    pub fn new_manifest() -> Self {
        let random = || {
            getrandom::u64()
                .expect("the system's random source does not fail once the process is running")
        };
        Self::from_parts(
            (random() | 1 << 63).cast_signed(),
            random() | (MANIFESTS as u64) << 56,
        )
    }

    /// Whether this names an object of a manifest, and no blob.
    pub fn is_manifest(&self) -> bool {
        self.id() < 0 && self.directory() == MANIFESTS
    }

    /// The name in `text`, or `None` when it was not made by [`BlobName::new`].
    pub fn parse(text: &str) -> Option<Self> {
        let digits = <[u8; 2 * HALF]>::try_from(text.as_bytes()).ok()?;
        digits
            .iter()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
            .then_some(Self(digits))
    }

    /// The id of the blob.
    pub fn id(&self) -> i64 {
        let id = u64::from_str_radix(&self.as_str()[..HALF], 16)
            .expect("a name consists of hexadecimal digits");
        id.cast_signed()
    }

    /// The id as the name begins with it.
    pub(super) fn id_digits(&self) -> &str {
        &self.as_str()[..HALF]
    }

    /// The 32 digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }

    /// The directory of this name, below [`FAN_OUT`].
    pub(super) fn directory(&self) -> usize {
        usize::from_str_radix(self.directory_name(), 16)
            .expect("a name consists of hexadecimal digits")
    }

    /// Where the blob lies below the root of its backend.
    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.directory_name(), self.as_str())
    }

    /// The name of a blob found at `path`; `None` when no blob of ours lies there.
    pub(super) fn from_path(path: &str) -> Option<Self> {
        let (directory, name) = path.trim_start_matches('/').split_once('/')?;
        Self::parse(name).filter(|name| name.directory_name() == directory)
    }

    fn directory_name(&self) -> &str {
        &self.as_str()[HALF..HALF + 2]
    }

    fn from_parts(id: i64, random: u64) -> Self {
        let mut digits = [0; 2 * HALF];
        let halves = [id.cast_unsigned(), random];
        for (half, out) in halves.iter().zip(digits.chunks_exact_mut(HALF)) {
            for (byte, pair) in half.to_be_bytes().iter().zip(out.chunks_exact_mut(2)) {
                pair[0] = DIGITS[usize::from(byte >> 4)];
                pair[1] = DIGITS[usize::from(byte & 0x0f)];
            }
        }
        Self(digits)
    }
}

/// Longest name of an adopted object, as a copy's row holds it.
const ADOPTED_MAX_BYTES: usize = 1024;
/// What the name of an adopted object begins with in its row; no name of ours does.
const ADOPTED_MARK: char = '/';

/// The name of a copy that is there to be read or deleted: one of ours, or that of an object adopted in place.
///
/// As text it is the 32 digits, or a slash and the path below the root of the backend.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CopyName(Named);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Named {
    Ours(BlobName),
    /// With the slash before it.
    Adopted(Arc<str>),
}

impl CopyName {
    /// The name of an object to be adopted that lies at `path` below the root of its backend. `None` for a path that
    /// is not plain, or at which a blob of ours could lie: that one would be swept; or for that of the marker.
    pub fn adopt(path: &str) -> Option<Self> {
        let is_plain = |part: &str| {
            let is_odd = |c: char| c == '\\' || c.is_control();
            !part.is_empty() && part != "." && part != ".." && !part.contains(is_odd)
        };
        let fits = path.len() < ADOPTED_MAX_BYTES && path.split('/').all(is_plain);
        let is_free = BlobName::from_path(path).is_none() && path != MARKER;
        (fits && is_free).then(|| Self(Named::Adopted(format!("{ADOPTED_MARK}{path}").into())))
    }

    /// The name of the marker, which is read and deleted as an adopted object is.
    pub(super) fn marker() -> Self {
        Self(Named::Adopted(format!("{ADOPTED_MARK}{MARKER}").into()))
    }

    /// The name in `text`, as a copy's row holds it.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix(ADOPTED_MARK) {
            Some(path) => Self::adopt(path),
            None => BlobName::parse(text).map(Self::from),
        }
    }

    /// As a copy's row holds it.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Named::Ours(name) => name.as_str(),
            Named::Adopted(text) => text,
        }
    }

    /// Whether it was made by another system.
    pub fn is_adopted(&self) -> bool {
        self.ours().is_none()
    }

    /// The path of the object below the root of its backend, when it was made by another system.
    pub fn adopted_path(&self) -> Option<&str> {
        match &self.0 {
            Named::Ours(_) => None,
            Named::Adopted(text) => Some(text.trim_start_matches(ADOPTED_MARK)),
        }
    }

    /// The name that was made here.
    pub(super) fn ours(&self) -> Option<&BlobName> {
        match &self.0 {
            Named::Ours(name) => Some(name),
            Named::Adopted(_) => None,
        }
    }

    /// What faults call it: of ours, the id of the blob.
    pub(super) fn label(&self) -> &str {
        match &self.0 {
            Named::Ours(name) => name.id_digits(),
            Named::Adopted(text) => text,
        }
    }

    /// Where it lies below the root of its backend.
    pub(super) fn path(&self) -> String {
        match &self.0 {
            Named::Ours(name) => name.path(),
            Named::Adopted(text) => text.trim_start_matches(ADOPTED_MARK).to_owned(),
        }
    }
}

impl From<BlobName> for CopyName {
    fn from(name: BlobName) -> Self {
        Self(Named::Ours(name))
    }
}

impl From<&BlobName> for CopyName {
    fn from(name: &BlobName) -> Self {
        Self(Named::Ours(*name))
    }
}

impl From<&CopyName> for CopyName {
    fn from(name: &CopyName) -> Self {
        name.clone()
    }
}

impl fmt::Display for CopyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for CopyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CopyName({})", self.as_str())
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobName({})", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_name_parses_back_to_itself(id: i64, random: u64) {
            let name = BlobName::from_parts(id, random);
            prop_assert_eq!(name.as_str(), format!("{:016x}{random:016x}", id.cast_unsigned()));
            prop_assert_eq!(BlobName::parse(name.as_str()), Some(name));
            prop_assert_eq!(BlobName::from_path(&name.path()), Some(name));
            prop_assert_eq!(name.id(), id);
            prop_assert_eq!(name.directory(), (random >> 56) as usize);
        }

        #[test]
        fn only_32_lower_case_hexadecimal_digits_are_a_name(text in ".{0,40}|[0-9a-fA-F]{30,34}") {
            let ours = text.len() == 32
                && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            prop_assert_eq!(BlobName::parse(&text).is_some(), ours);
        }
    }

    proptest! {
        #[test]
        fn every_name_of_a_copy_parses_back_to_itself(path in "[a-z0-9./_-]{1,40}", id: i64) {
            let ours = CopyName::from(BlobName::new(id));
            prop_assert_eq!(CopyName::parse(ours.as_str()), Some(ours.clone()));
            prop_assert!(!ours.is_adopted());
            if let Some(name) = CopyName::adopt(&path) {
                prop_assert_eq!(CopyName::parse(name.as_str()), Some(name.clone()));
                prop_assert_eq!(name.path(), path);
                prop_assert!(name.is_adopted() && BlobName::parse(name.as_str()).is_none());
            }
        }
    }

    #[test]
    fn an_adopted_name_stays_below_its_root_and_apart_from_ours() {
        for path in ["image/7.png", "7.png", "a/b/c", "image/.x"] {
            assert!(CopyName::adopt(path).is_some(), "{path}");
        }
        let ours = BlobName::new(3).path();
        let long = "a".repeat(ADOPTED_MAX_BYTES);
        for path in [
            "", "/", "/a", "a/", "a//b", "..", "../a", "a/../b", "./a", "a\\b", "a\0", &ours,
            &long, MARKER,
        ] {
            assert!(CopyName::adopt(path).is_none(), "{path}");
            assert!(CopyName::parse(&format!("/{path}")).is_none(), "{path}");
        }
    }

    #[test]
    fn names_of_one_blob_differ_and_sort_by_id() {
        assert_ne!(BlobName::new(7), BlobName::new(7));
        assert!(BlobName::new(7) < BlobName::new(8));
    }

    #[test]
    fn no_blob_has_the_name_of_a_manifest() {
        let name = BlobName::new_manifest();
        assert!(
            name.is_manifest() && name.path().starts_with("ff/"),
            "{name}"
        );
        assert_eq!(BlobName::from_path(&name.path()), Some(name));
        assert_ne!(name, BlobName::new_manifest());
        for random in [0, u64::MAX] {
            assert!(!BlobName::from_parts(i64::MAX, random).is_manifest());
        }
    }

    #[test]
    fn a_name_in_the_wrong_directory_is_not_ours() {
        let name = BlobName::from_parts(1, 0xab00_0000_0000_0000);
        assert_eq!(BlobName::from_path(&format!("ab/{name}")), Some(name));
        assert_eq!(BlobName::from_path(&format!("ac/{name}")), None);
        assert_eq!(BlobName::from_path(&format!("x/ab/{name}")), None);
        assert_eq!(BlobName::from_path(name.as_str()), None);
    }
}
