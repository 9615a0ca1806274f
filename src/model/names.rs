//! What clients may call things: parsed once at the edge, valid ever after.

use std::fmt;

/// Longest key in bytes of UTF-8 ("Naming Amazon S3 objects").
pub const KEY_MAX_BYTES: usize = 1024;

/// Why a name was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameError {
    /// Breaks a rule of "Bucket naming rules".
    Bucket,
    /// The key is longer than [`KEY_MAX_BYTES`].
    KeyTooLong,
    /// The key is empty or holds a NUL byte.
    Key,
}

/// A bucket's name: 3 to 63 of `a-z 0-9 . -`, globally unique.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketName(String);

impl BucketName {
    /// Checks `name` against the rules for general purpose buckets in the S3 user guide.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        let bytes = name.as_bytes();
        let edge_ok =
            |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let charset_ok = bytes
            .iter()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'));
        let is_ip = name.parse::<std::net::Ipv4Addr>().is_ok();
        let reserved = ["xn--", "sthree-", "amzn-s3-demo-"]
            .iter()
            .any(|front| name.starts_with(front))
            || ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"]
                .iter()
                .any(|back| name.ends_with(back));
        if (3..=63).contains(&bytes.len())
            && charset_ok
            && edge_ok(bytes.first())
            && edge_ok(bytes.last())
            && !["..", ".-", "-."].iter().any(|pair| name.contains(pair))
            && !is_ip
            && !reserved
        {
            Ok(Self(name.to_owned()))
        } else {
            Err(NameError::Bucket)
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object's full name inside its bucket: 1 to 1024 bytes of UTF-8, without NUL. Ordered by bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Checks the length and the one forbidden character. `.` and `..` segments are ordinary names here.
    pub fn parse(key: &str) -> Result<Self, NameError> {
        if key.len() > KEY_MAX_BYTES {
            return Err(NameError::KeyTooLong);
        }
        if key.is_empty() || key.contains('\0') {
            return Err(NameError::Key);
        }
        Ok(Self(key.to_owned()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key as the bytes it is ordered by.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names_follow_the_published_rules() {
        for good in ["abc", "a-b.c", "0ab", &"a".repeat(63)] {
            assert!(BucketName::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "ab",
            "Abc",
            "a_b",
            "-ab",
            "ab-",
            ".ab",
            "ab.",
            "a..b",
            "192.168.1.1",
            "xn--abc",
            "abc-s3alias",
            "a.-b",
            "a-.b",
            "abc.mrap",
            "",
            &"a".repeat(64),
        ] {
            assert_eq!(BucketName::parse(bad), Err(NameError::Bucket), "{bad}");
        }
    }

    #[test]
    fn keys_are_limited_by_bytes_not_characters() {
        assert!(ObjectKey::parse(&"é".repeat(512)).is_ok());
        assert_eq!(
            ObjectKey::parse(&format!("{}a", "é".repeat(512))),
            Err(NameError::KeyTooLong)
        );
        assert_eq!(ObjectKey::parse(""), Err(NameError::Key));
        assert!(ObjectKey::parse("a//../b").is_ok());
    }
}
