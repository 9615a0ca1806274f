//! What may be wrong with what is stored, told so that an operator knows which versions it is about.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::ids::Uid;
use crate::model::object::VersionId;

/// Entries of each list of a report; their number is told in full.
pub const LISTED_MAX: usize = 1000;

/// A version whose bytes, or some of whose rows, are not there or not as they should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostObject {
    /// Its bucket.
    pub bucket: String,
    /// Its key.
    pub key: String,
    /// Its number, as the native API knows it.
    pub uid: i64,
    /// How S3 names the version, `null` for a null version; `None` for an upload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    /// How S3 names the upload, when it is about the parts of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload_id: Option<String>,
    /// Whether it is the current version.
    pub is_current: bool,
}

impl LostObject {
    /// A version of a key.
    pub fn version(bucket: String, key: String, uid: Uid, is_null: bool) -> Self {
        let id = match is_null {
            true => VersionId::Null,
            false => VersionId::Of(uid),
        };
        Self {
            bucket,
            key,
            uid: uid.0,
            version_id: Some(id.to_string()),
            upload_id: None,
            is_current: false,
        }
    }
}

/// Bucket and key, and how S3 names what it is of the key.
impl fmt::Display for LostObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.bucket, self.key)?;
        if let Some(id) = &self.version_id {
            write!(f, " version {id}")?;
        }
        if let Some(id) = &self.upload_id {
            write!(f, " upload {id}")?;
        }
        write!(f, " uid {}", self.uid)
    }
}

/// A list of which the first entries are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed<T> {
    /// How many there are.
    pub count: u64,
    /// The first ones.
    pub first: Vec<T>,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self {
            count: 0,
            first: Vec::new(),
        }
    }
}

impl<T> Listed<T> {
    /// Counts an entry, and keeps it among the first [`LISTED_MAX`].
    pub fn push(&mut self, entry: T) {
        self.count += 1;
        if self.first.len() < LISTED_MAX {
            self.first.push(entry);
        }
    }
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// A row says that a copy is live, and the backend that it is not there.
    Missing,
    /// A copy is shorter or longer than its blob.
    WrongLength,
    /// A copy's bytes are not those that were stored.
    Corrupt,
    /// The copies of a blob differ, and nothing says which of them is right.
    Differing,
    /// A blob at a backend that no row names, older than the grace.
    Orphan,
    /// A blob that is live and has no live copy.
    NoCopy,
    /// The row of a copy whose blob has none.
    NoBlob,
    /// A stored content whose blob is gone or condemned.
    ContentWithoutBlob,
    /// A composite content whose extents are not whole, or point nowhere.
    BrokenExtents,
    /// A version whose content is gone.
    VersionWithoutContent,
    /// A part of an upload whose content is gone.
    PartWithoutContent,
    /// A content that nothing refers to and that no release tells the collector of.
    UnreferencedContent,
    /// A live blob in which no content lies.
    UnusedBlob,
}

impl Problem {
    /// Its name, in rows and for operators.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::WrongLength => "wrong-length",
            Self::Corrupt => "corrupt",
            Self::Differing => "differing",
            Self::Orphan => "orphan",
            Self::NoCopy => "no-copy",
            Self::NoBlob => "no-blob",
            Self::ContentWithoutBlob => "content-without-blob",
            Self::BrokenExtents => "broken-extents",
            Self::VersionWithoutContent => "version-without-content",
            Self::PartWithoutContent => "part-without-content",
            Self::UnreferencedContent => "unreferenced-content",
            Self::UnusedBlob => "unused-blob",
        }
    }

    /// The problem of a copy by its name in a row.
    pub fn of_copy(name: &str) -> Option<Self> {
        [
            Self::Missing,
            Self::WrongLength,
            Self::Corrupt,
            Self::Differing,
        ]
        .into_iter()
        .find(|problem| problem.as_str() == name)
    }
}

/// What was done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repair {
    /// Nothing: it was not asked for, or nothing can be done.
    None,
    /// Reads go to a good copy already, and another one is to be written: the job `mend` does that.
    Begun,
    /// It is as it should be.
    Done,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What.
    pub problem: Problem,
    /// At which backend, when it is about a copy.
    pub backend: Option<String>,
    /// The name there.
    pub name: Option<String>,
    /// The blob. A text: the number is too long for some who read JSON.
    pub blob: Option<String>,
    /// The content, alike.
    pub content: Option<String>,
    /// What was seen.
    pub detail: String,
    /// What was done about it.
    pub repair: Repair,
    /// The versions whose bytes it is about.
    pub versions: Listed<LostObject>,
}

impl Finding {
    /// A finding that nothing was done about.
    pub fn new(problem: Problem, detail: impl Into<String>) -> Self {
        Self {
            problem,
            backend: None,
            name: None,
            blob: None,
            content: None,
            detail: detail.into(),
            repair: Repair::None,
            versions: Listed::default(),
        }
    }
}

/// Findings, and how many there are of each kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// How many of each problem.
    pub by_problem: BTreeMap<Problem, u64>,
    /// How many were not repaired to the end.
    pub left: u64,
    /// They themselves.
    pub all: Listed<Finding>,
}

impl Findings {
    /// Adds one.
    pub fn push(&mut self, finding: Finding) {
        *self.by_problem.entry(finding.problem).or_default() += 1;
        self.left += u64::from(finding.repair != Repair::Done);
        self.all.push(finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_called_the_same_in_rows_and_in_reports() {
        for problem in [
            Problem::Missing,
            Problem::WrongLength,
            Problem::Corrupt,
            Problem::Differing,
            Problem::VersionWithoutContent,
            Problem::UnusedBlob,
        ] {
            let told = serde_json::to_value(problem).unwrap();
            assert_eq!(told, problem.as_str());
        }
        assert_eq!(Problem::of_copy("differing"), Some(Problem::Differing));
        assert_eq!(Problem::of_copy("orphan"), None);
    }

    #[test]
    fn versions_are_told_as_s3_names_them() {
        let version =
            |is_null| LostObject::version("b".to_owned(), "k".to_owned(), Uid(255), is_null);
        assert_eq!(
            version(false).to_string(),
            "b/k version 00000000000000ff uid 255"
        );
        assert_eq!(version(true).to_string(), "b/k version null uid 255");
        assert_eq!(
            serde_json::to_string(&version(false)).unwrap(),
            r#"{"bucket":"b","key":"k","uid":255,"version_id":"00000000000000ff","is_current":false}"#
        );
        let upload = LostObject {
            version_id: None,
            upload_id: Some("00000000000000ff".to_owned()),
            ..version(false)
        };
        assert_eq!(upload.to_string(), "b/k upload 00000000000000ff uid 255");
    }

    #[test]
    fn a_long_list_is_counted_in_full_and_kept_in_part() {
        let mut findings = Findings::default();
        for number in 0..LISTED_MAX as u64 + 5 {
            let mut finding = Finding::new(Problem::Corrupt, "");
            if number < 3 {
                finding.repair = Repair::Done;
            }
            findings.push(finding);
        }
        assert_eq!(findings.all.count, LISTED_MAX as u64 + 5);
        assert_eq!(findings.all.first.len(), LISTED_MAX);
        assert_eq!(findings.left, LISTED_MAX as u64 + 2);
        assert_eq!(
            findings.by_problem[&Problem::Corrupt],
            LISTED_MAX as u64 + 5
        );
    }
}
