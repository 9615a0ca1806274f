//! A version of an object: its headers, tags and checksum, and the truth tables of preconditions.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::acl::Acl;
use crate::model::clock::Millis;
use crate::model::digest::{ETag, ObjectChecksum};
use crate::model::ids::{ContentId, Uid};

/// Most bytes of user metadata, names and values together ("Working with object metadata").
pub const METADATA_MAX_BYTES: usize = 2048;

/// The headers a version is stored with and answered with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// `Content-Type`; `None` is answered as `binary/octet-stream`.
    pub content_type: Option<String>,
    /// `Content-Encoding`, without `aws-chunked`.
    pub content_encoding: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Expires`, as the client wrote it.
    pub expires: Option<String>,
    /// `x-amz-website-redirect-location`.
    pub website_redirect: Option<String>,
    /// User metadata: lower-case names without `x-amz-meta-`, values as text, sorted by name.
    pub metadata: Vec<(String, String)>,
}

impl Headers {
    /// Bytes of user metadata as S3 counts them.
    pub fn metadata_bytes(&self) -> usize {
        self.metadata
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum()
    }

    /// Whether nothing was given, so that the row can leave the column empty.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An object's tags, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags(pub Vec<(String, String)>);

/// Why tags were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagError {
    /// More than an object or a bucket may have.
    TooMany,
    /// A name that is empty, too long, begins with `aws:` or holds a character S3 does not allow.
    Name,
    /// A value that is too long or holds a character S3 does not allow.
    Value,
    /// The same name twice.
    Duplicate,
}

impl Tags {
    /// Most tags of an object.
    const OBJECT_MAX: usize = 10;
    /// Most tags of a bucket.
    const BUCKET_MAX: usize = 50;

    /// Checks the limits of "Categorizing your storage using tags": 10 tags, names of 1 to 128 characters,
    /// values of 0 to 256.
    pub fn parse(pairs: Vec<(String, String)>) -> Result<Self, TagError> {
        Self::parse_up_to(Self::OBJECT_MAX, pairs)
    }

    /// Checks the tags of a bucket: the same limits, but 50 tags.
    pub fn parse_of_bucket(pairs: Vec<(String, String)>) -> Result<Self, TagError> {
        Self::parse_up_to(Self::BUCKET_MAX, pairs)
    }

    fn parse_up_to(most: usize, mut pairs: Vec<(String, String)>) -> Result<Self, TagError> {
        let allowed = |text: &str| {
            text.chars()
                .all(|c| c.is_alphanumeric() || c == ' ' || "+-=._:/@".contains(c))
        };
        if pairs.len() > most {
            return Err(TagError::TooMany);
        }
        for (index, (name, value)) in pairs.iter().enumerate() {
            let reserved = name
                .get(..4)
                .is_some_and(|front| front.eq_ignore_ascii_case("aws:"));
            if name.is_empty() || name.chars().count() > 128 || !allowed(name) || reserved {
                return Err(TagError::Name);
            }
            if value.chars().count() > 256 || !allowed(value) {
                return Err(TagError::Value);
            }
            if pairs[..index].iter().any(|(other, _)| other == name) {
                return Err(TagError::Duplicate);
            }
        }
        pairs.sort();
        Ok(Self(pairs))
    }
}

/// Which version of a key, as clients name it: opaque to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionId {
    /// The one version that was written while the bucket did not keep versions.
    Null,
    /// Any other: 16 hexadecimal digits.
    Of(Uid),
}

impl VersionId {
    /// Parses a client's text; `None` for what was never given out.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "null" {
            return Some(Self::Null);
        }
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let uid = i64::from_str_radix(text, 16).ok().filter(|_| digits)?;
        Some(Self::Of(Uid(uid)))
    }
}

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Of(uid) => write!(f, "{:016x}", uid.0),
        }
    }
}

/// How strictly a version is retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RetentionMode {
    /// Who has the permission may bypass it.
    Governance,
    /// Nobody may.
    Compliance,
}

/// Until when a version is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// How strictly.
    pub mode: RetentionMode,
    /// Until when.
    pub until: Millis,
}

/// What keeps a version from being deleted or overwritten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// For a time.
    pub retention: Option<Retention>,
    /// Until somebody lifts it; `None` when it was never set.
    pub legal_hold: Option<bool>,
}

impl Lock {
    /// Whether nothing was ever set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the version may be removed at `now`. `bypass`: by one who may pass over governance.
    pub fn allows_removal(&self, now: Millis, bypass: bool) -> bool {
        if self.legal_hold == Some(true) {
            return false;
        }
        match self.retention {
            Some(retention) if retention.until > now => {
                bypass && retention.mode == RetentionMode::Governance
            }
            _ => true,
        }
    }

    /// Whether the retention may be replaced by `new` at `now`: made longer always, otherwise weakened only in
    /// governance mode and by one who may pass over it.
    pub fn allows_retention(&self, new: Option<Retention>, now: Millis, bypass: bool) -> bool {
        let Some(old) = self.retention.filter(|old| old.until > now) else {
            return true;
        };
        let keeps = new.is_some_and(|new| new.mode == old.mode && new.until >= old.until);
        keeps || (bypass && old.mode == RetentionMode::Governance)
    }
}

/// How a version's bytes are encrypted, as far as its own row tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encryption {
    /// Under the tenant's key.
    S3,
    /// Under a named key.
    Kms {
        /// The key's id.
        key: String,
        /// The context the client gave, as it gave it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        context: Option<String>,
        /// Whether a bucket key was wanted; it makes no difference here and is only answered.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        bucket_key: bool,
    },
    /// Under a key that only the client has.
    Customer {
        /// The MD5 of that key, by which another one is told at once.
        key_md5: [u8; 16],
    },
}

/// A delete marker: the key is as good as gone while this is its current version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Its stable number.
    pub uid: Uid,
    /// Whether it is the null version.
    pub is_null: bool,
    /// When it was made.
    pub modified: Millis,
}

impl Marker {
    /// What clients name it by.
    pub fn id(&self) -> VersionId {
        id_of(self.uid, self.is_null)
    }
}

fn id_of(uid: Uid, is_null: bool) -> VersionId {
    if is_null {
        VersionId::Null
    } else {
        VersionId::Of(uid)
    }
}

/// One immutable state of a key that holds bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its stable number.
    pub uid: Uid,
    /// Whether it is the null version.
    pub is_null: bool,
    /// The content it refers to.
    pub content: ContentId,
    /// Bytes.
    pub size: u64,
    /// What S3 answers as ETag; carries the number of parts.
    pub etag: ETag,
    /// When it was written.
    pub modified: Millis,
    /// Headers and user metadata.
    pub headers: Headers,
    /// Tags.
    pub tags: Tags,
    /// The checksum it is answered with; `None` for versions stored before it was known.
    pub checksum: Option<ObjectChecksum>,
    /// Its access control list; `None`: the bucket's tenant owns it, and nobody else was granted anything.
    pub acl: Option<Acl>,
    /// How its bytes are encrypted.
    pub encryption: Option<Encryption>,
    /// What keeps it.
    pub lock: Lock,
}

impl Version {
    /// What clients name it by.
    pub fn id(&self) -> VersionId {
        id_of(self.uid, self.is_null)
    }
}

/// One state of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// With bytes.
    Object(Box<Version>),
    /// Without.
    Marker(Marker),
}

/// The list in an `If-Match` or `If-None-Match` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ETagList {
    /// `*`.
    Any,
    /// The texts between the quotes; one that no ETag of ours can equal is kept and never matches.
    Tags(Vec<String>),
}

impl ETagList {
    /// Parses the header's value; entries may come without quotes, as some clients send them.
    pub fn parse(value: &str) -> Self {
        if value.trim() == "*" {
            return Self::Any;
        }
        let tags = value
            .split(',')
            .map(|entry| {
                let entry = entry.trim();
                let entry = entry.strip_prefix("W/").unwrap_or(entry);
                entry.trim_matches('"').to_owned()
            })
            .collect();
        Self::Tags(tags)
    }

    fn matches(&self, etag: &ETag) -> bool {
        match self {
            Self::Any => true,
            Self::Tags(tags) => {
                let text = etag.to_string();
                tags.iter().any(|tag| tag.eq_ignore_ascii_case(&text))
            }
        }
    }
}

/// The conditions of a read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadConditions {
    /// `If-Match`.
    pub if_match: Option<ETagList>,
    /// `If-None-Match`.
    pub if_none_match: Option<ETagList>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<Millis>,
    /// `If-Unmodified-Since`.
    pub if_unmodified_since: Option<Millis>,
}

/// How the conditions of a read came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadDecision {
    /// They hold.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

impl ReadConditions {
    /// RFC 9110 section 13.2.2, in which a failed `If-None-Match` wins over a passed `If-Modified-Since`
    /// and a passed `If-Match` over a failed `If-Unmodified-Since`, as the GetObject page says too.
    pub fn decide(&self, etag: &ETag, modified: Millis) -> ReadDecision {
        // HTTP dates have whole seconds.
        let modified = modified.div_euclid(1000) * 1000;
        match (&self.if_match, self.if_unmodified_since) {
            (Some(list), _) if !list.matches(etag) => return ReadDecision::Failed,
            (None, Some(date)) if modified > date => return ReadDecision::Failed,
            _ => {}
        }
        match (&self.if_none_match, self.if_modified_since) {
            (Some(list), _) if list.matches(etag) => ReadDecision::NotModified,
            (None, Some(date)) if modified <= date => ReadDecision::NotModified,
            _ => ReadDecision::Proceed,
        }
    }
}

/// The conditions of a write or delete, decided under the key's lock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteConditions {
    /// `If-Match`.
    pub if_match: Option<ETagList>,
    /// `If-None-Match`.
    pub if_none_match: Option<ETagList>,
    /// `x-amz-if-match-last-modified-time` of a delete.
    pub if_modified_at: Option<Millis>,
    /// `x-amz-if-match-size` of a delete.
    pub if_size: Option<u64>,
}

/// How the conditions of a write came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteDecision {
    /// They hold.
    Proceed,
    /// 412.
    Failed,
    /// `If-Match` on a key that has no current version: 404 ("Conditional writes" in the S3 user guide).
    NoSuchKey,
}

impl WriteConditions {
    /// Whether there is any condition at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Decides on the current version, given as ETag, time and size; `None` when the key has none.
    pub fn decide(&self, current: Option<(&ETag, Millis, u64)>) -> WriteDecision {
        let Some((etag, modified, size)) = current else {
            let wants_one =
                self.if_match.is_some() || self.if_modified_at.is_some() || self.if_size.is_some();
            return if wants_one {
                WriteDecision::NoSuchKey
            } else {
                WriteDecision::Proceed
            };
        };
        let holds = self.if_match.as_ref().is_none_or(|list| list.matches(etag))
            && !self
                .if_none_match
                .as_ref()
                .is_some_and(|list| list.matches(etag))
            && self
                .if_modified_at
                .is_none_or(|date| modified.div_euclid(1000) == date.div_euclid(1000))
            && self.if_size.is_none_or(|wanted| wanted == size);
        if holds {
            WriteDecision::Proceed
        } else {
            WriteDecision::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: &str = "25f9e794323b453885f5181f1b624d0b";

    fn etag() -> ETag {
        ETag::parse(ETAG).unwrap()
    }

    fn list(text: &str) -> Option<ETagList> {
        Some(ETagList::parse(text))
    }

    #[test]
    fn read_conditions_follow_the_published_precedence() {
        let same = format!("\"{ETAG}\"");
        let cases = [
            (list(&same), None, None, None, ReadDecision::Proceed),
            (list("\"x\""), None, None, None, ReadDecision::Failed),
            (None, list(&same), None, None, ReadDecision::NotModified),
            (None, list("\"x\", *"), None, None, ReadDecision::Proceed),
            (None, list("*"), None, None, ReadDecision::NotModified),
            // If-Match holds and If-Unmodified-Since fails: 200.
            (list(&same), None, None, Some(1000), ReadDecision::Proceed),
            // If-None-Match fails and If-Modified-Since holds: 304.
            (
                None,
                list(&same),
                Some(1000),
                None,
                ReadDecision::NotModified,
            ),
            (None, None, Some(5000), None, ReadDecision::NotModified),
            (None, None, Some(4000), None, ReadDecision::Proceed),
            (None, None, None, Some(4000), ReadDecision::Failed),
            (None, None, None, Some(5000), ReadDecision::Proceed),
        ];
        for (index, (if_match, if_none_match, since, unmodified, expected)) in
            cases.into_iter().enumerate()
        {
            let conditions = ReadConditions {
                if_match,
                if_none_match,
                if_modified_since: since,
                if_unmodified_since: unmodified,
            };
            assert_eq!(conditions.decide(&etag(), 5400), expected, "case {index}");
        }
    }

    #[test]
    fn write_conditions_decide_on_the_current_version() {
        let tag = etag();
        let current = Some((&tag, 5400, 9));
        let only = |if_match, if_none_match| WriteConditions {
            if_match,
            if_none_match,
            ..WriteConditions::default()
        };
        assert_eq!(only(None, None).decide(None), WriteDecision::Proceed);
        assert_eq!(only(None, list("*")).decide(None), WriteDecision::Proceed);
        assert_eq!(only(None, list("*")).decide(current), WriteDecision::Failed);
        assert_eq!(
            only(list(ETAG), None).decide(current),
            WriteDecision::Proceed
        );
        assert_eq!(only(list("x"), None).decide(current), WriteDecision::Failed);
        assert_eq!(only(list("*"), None).decide(None), WriteDecision::NoSuchKey);
    }

    #[test]
    fn a_version_id_is_null_or_sixteen_digits() {
        for id in [
            VersionId::Null,
            VersionId::Of(Uid(0x12ab)),
            VersionId::Of(Uid(i64::MAX)),
        ] {
            assert_eq!(VersionId::parse(&id.to_string()), Some(id));
        }
        for text in [
            "",
            "Null",
            "+00000000000000f",
            "12ab",
            "ffffffffffffffff",
            "00000000000000012",
        ] {
            assert_eq!(VersionId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_lock_gives_way_only_to_those_who_may() {
        use RetentionMode::{Compliance, Governance};
        let lock = |mode, until| Lock {
            retention: Some(Retention { mode, until }),
            legal_hold: None,
        };
        let held = Lock {
            legal_hold: Some(true),
            ..Lock::default()
        };
        let lifted = Lock {
            legal_hold: Some(false),
            ..Lock::default()
        };
        // lock, without bypass, with bypass; at time 100
        let cases = [
            (Lock::default(), true, true),
            (held, false, false),
            (lifted, true, true),
            (lock(Governance, 101), false, true),
            (lock(Governance, 100), true, true),
            (lock(Compliance, 101), false, false),
            (lock(Compliance, 99), true, true),
        ];
        for (index, (lock, without, with)) in cases.into_iter().enumerate() {
            assert_eq!(lock.allows_removal(100, false), without, "case {index}");
            assert_eq!(lock.allows_removal(100, true), with, "case {index}");
        }
        let new = |mode, until| Some(Retention { mode, until });
        let cases = [
            (lock(Governance, 200), new(Governance, 300), true, true),
            (lock(Governance, 200), new(Governance, 150), false, true),
            (lock(Governance, 200), new(Compliance, 300), false, true),
            (lock(Governance, 200), None, false, true),
            (lock(Compliance, 200), new(Compliance, 200), true, true),
            (lock(Compliance, 200), new(Compliance, 150), false, false),
            (lock(Compliance, 200), new(Governance, 300), false, false),
            (lock(Compliance, 200), None, false, false),
            (lock(Compliance, 50), None, true, true),
        ];
        for (index, (lock, new, without, with)) in cases.into_iter().enumerate() {
            assert_eq!(
                lock.allows_retention(new, 100, false),
                without,
                "case {index}"
            );
            assert_eq!(lock.allows_retention(new, 100, true), with, "case {index}");
        }
    }

    #[test]
    fn tags_have_limits() {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert!(Tags::parse(vec![pair("a", "b c"), pair("ä", "")]).is_ok());
        assert_eq!(
            Tags::parse(vec![pair("a", "1"), pair("a", "2")]),
            Err(TagError::Duplicate)
        );
        assert_eq!(Tags::parse(vec![pair("", "1")]), Err(TagError::Name));
        assert_eq!(Tags::parse(vec![pair("aws:a", "1")]), Err(TagError::Name));
        assert_eq!(
            Tags::parse(vec![pair(&"k".repeat(129), "1")]),
            Err(TagError::Name)
        );
        assert_eq!(
            Tags::parse(vec![pair("k", &"v".repeat(257))]),
            Err(TagError::Value)
        );
        let many = (0..11).map(|i| pair(&i.to_string(), "")).collect();
        assert_eq!(Tags::parse(many), Err(TagError::TooMany));
    }
}
