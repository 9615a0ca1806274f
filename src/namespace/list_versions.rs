//! Pages of versions and delete markers: keys in byte order, each key's versions from the newest on.

use super::listing::{common_prefix, prefix_end};
use super::{Condition, Namespace};
use crate::meta::Session;
use crate::meta::listing::{self, From, ListedVersion};
use crate::model::bucket::Bucket;
use crate::model::fault::Fault;
use crate::model::ids::BucketId;
use crate::model::names::ObjectKey;
use crate::model::object::VersionId;

/// Which versions are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionQuery {
    /// Only keys that begin so.
    pub prefix: String,
    /// Groups keys up to its next place after the prefix.
    pub delimiter: Option<String>,
    /// Begin after this key, or after everything below this common prefix ...
    pub key_marker: String,
    /// ... or with what of this key is older than this version.
    pub version_marker: Option<VersionId>,
    /// Most entries, versions, markers and common prefixes together.
    pub limit: usize,
}

/// A page of versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionPage {
    /// By key, and from the newest on.
    pub versions: Vec<ListedVersion>,
    /// In byte order.
    pub common_prefixes: Vec<String>,
    /// Whether more follow.
    pub truncated: bool,
    /// The last entry of a truncated page: a version, or a common prefix.
    pub next: Option<(String, Option<VersionId>)>,
}

/// The page has no room for an entry that follows.
struct Full;

/// Builds one page.
struct Builder<'q> {
    query: &'q VersionQuery,
    page: VersionPage,
    last: Option<(String, Option<VersionId>)>,
}

impl Builder<'_> {
    fn room(&self) -> usize {
        let taken = self.page.versions.len() + self.page.common_prefixes.len();
        self.query.limit.saturating_sub(taken)
    }

    fn group<'k>(&self, key: &'k str) -> Option<&'k str> {
        let delimiter = self.query.delimiter.as_deref()?;
        common_prefix(key, &self.query.prefix, delimiter)
    }

    /// Notes the entry before one that has no room, or lets it in.
    fn enter(&mut self, entry: (String, Option<VersionId>)) -> Result<(), Full> {
        if self.room() == 0 {
            self.page.truncated = true;
            self.page.next = self.last.take();
            return Err(Full);
        }
        self.last = Some(entry);
        Ok(())
    }

    fn version(&mut self, version: ListedVersion) -> Result<(), Full> {
        self.enter((version.key.as_str().to_owned(), Some(version.id)))?;
        self.page.versions.push(version);
        Ok(())
    }

    fn prefix(&mut self, group: String) -> Result<(), Full> {
        self.enter((group.clone(), None))?;
        self.page.common_prefixes.push(group);
        Ok(())
    }

    /// Current versions and the older ones of the same keys, both in order.
    fn merge(
        &mut self,
        current: Vec<ListedVersion>,
        noncurrent: Vec<ListedVersion>,
    ) -> Result<(), Full> {
        let mut older = noncurrent.into_iter().peekable();
        for version in current {
            let key = version.key.clone();
            self.version(version)?;
            while let Some(next) = older.next_if(|next| next.key == key) {
                self.version(next)?;
            }
        }
        Ok(())
    }
}

/// Where the next keys come from.
enum Next {
    At(Vec<u8>),
    After(Vec<u8>),
}

async fn page(
    session: &mut Session,
    bucket: BucketId,
    query: &VersionQuery,
) -> Result<VersionPage, Fault> {
    let mut builder = Builder {
        query,
        page: VersionPage::default(),
        last: None,
    };
    if query.limit > 0 {
        // Whether it filled up or came to an end makes no difference here: the page knows.
        let _ = fill(session, bucket, &mut builder).await?;
    }
    Ok(builder.page)
}

async fn fill(
    session: &mut Session,
    bucket: BucketId,
    builder: &mut Builder<'_>,
) -> Result<Result<(), Full>, Fault> {
    macro_rules! or_full {
        ($outcome:expr) => {
            if let Err(full) = $outcome {
                return Ok(Err(full));
            }
        };
    }
    let query = builder.query;
    let (prefix, marker) = (query.prefix.as_str(), query.key_marker.as_str());
    let end = prefix_end(prefix.as_bytes());
    let group = builder.group(marker);
    let mut next = if marker < prefix || marker.is_empty() {
        Next::At(prefix.as_bytes().to_vec())
    } else if group == Some(marker) {
        match prefix_end(marker.as_bytes()) {
            Some(past) => Next::At(past),
            None => return Ok(Ok(())),
        }
    } else {
        if let (Some(id), Ok(key), None) = (query.version_marker, ObjectKey::parse(marker), group)
            && marker.starts_with(prefix)
        {
            let rest = listing::older_than(session, bucket, &key, id, query.limit + 1).await?;
            for version in rest {
                or_full!(builder.version(version));
            }
        }
        Next::After(marker.as_bytes().to_vec())
    };
    loop {
        // Among common prefixes a seek finds the next one; a row more would be passed over.
        let batch = match query.delimiter {
            Some(_) => 1,
            None => builder.room() + 1,
        };
        let from = match &next {
            Next::At(start) => From::At(start),
            Next::After(start) => From::After(start),
        };
        let rows = listing::current(session, bucket, from, end.as_deref(), batch).await?;
        let exhausted = rows.len() < batch;
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return Ok(Ok(()));
        };
        if let Some(group) = builder.group(first.key.as_str()) {
            let group = group.to_owned();
            let past = prefix_end(group.as_bytes());
            or_full!(builder.prefix(group));
            match past {
                Some(past) => next = Next::At(past),
                None => return Ok(Ok(())),
            }
            continue;
        }
        let (first, last) = (first.key.clone(), last.key.clone());
        let limit = builder.room() + 1;
        let older = listing::noncurrent(session, bucket, &first, &last, limit).await?;
        or_full!(builder.merge(rows, older));
        if exhausted {
            return Ok(Ok(()));
        }
        next = Next::After(last.as_bytes().to_vec());
    }
}

impl Namespace {
    /// A page of a bucket's versions and delete markers.
    pub async fn list_versions(
        &self,
        bucket: &Bucket,
        query: VersionQuery,
    ) -> Result<VersionPage, Condition> {
        let find = |bucket| {
            let query = query.clone();
            self.meta.scan("list versions", move |session| {
                Box::pin(async move {
                    let page = page(session, bucket, &query).await?;
                    Ok((page != VersionPage::default()).then_some(page))
                })
            })
        };
        Ok(self.found_in(bucket, find).await?.unwrap_or_default())
    }
}
