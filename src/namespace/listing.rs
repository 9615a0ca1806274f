//! Listing: pages of keys and common prefixes.
//!
//! A page is built by an accumulator that is fed rows in order and says where to go on: after a common
//! prefix the scan jumps past everything below it, so that a page costs in proportion to what it returns.

use super::{Condition, Namespace};
use crate::meta::Session;
use crate::meta::listing::{self, From, ListedKey};
use crate::model::bucket::Bucket;
use crate::model::fault::Fault;
use crate::model::ids::BucketId;

/// Rows fetched at once while common prefixes are being skipped: a seek finds the next one, a row more would be
/// passed over.
const SMALL_BATCH: usize = 1;

/// Which keys are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Only keys that begin so.
    pub prefix: String,
    /// Groups keys up to its next place after the prefix.
    pub delimiter: Option<String>,
    /// Begin after this key, or after everything below this common prefix.
    pub after: String,
    /// Most entries, keys and common prefixes together.
    pub limit: usize,
}

/// A page of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// In byte order.
    pub keys: Vec<ListedKey>,
    /// In byte order.
    pub common_prefixes: Vec<String>,
    /// Whether more follow.
    pub truncated: bool,
    /// The last entry of a truncated page: [`ListQuery::after`] of the next one.
    pub next: Option<String>,
}

/// The common prefix a key falls under, if the delimiter comes after the prefix.
pub(super) fn common_prefix<'k>(key: &'k str, prefix: &str, delimiter: &str) -> Option<&'k str> {
    let rest = key.get(prefix.len()..)?;
    let at = rest.find(delimiter)?;
    key.get(..prefix.len() + at + delimiter.len())
}

/// The first name after all that begin with `prefix`; `None` when there is no such bound.
pub(super) fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return Some(end);
        }
        end.pop();
    }
    None
}

/// Where the next rows come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Next {
    At(Vec<u8>),
    After(Vec<u8>),
    Nowhere,
}

/// What to do with the rows that follow the one just taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Continue,
    /// The page is full and more follows.
    Full,
}

/// Builds one page.
struct Accumulator<'q> {
    query: &'q ListQuery,
    page: ListPage,
    last: Option<String>,
}

impl<'q> Accumulator<'q> {
    fn new(query: &'q ListQuery) -> Self {
        Self {
            query,
            page: ListPage::default(),
            last: None,
        }
    }

    /// Where the first rows come from.
    fn start(&self) -> Next {
        let (prefix, after) = (self.query.prefix.as_str(), self.query.after.as_str());
        if after < prefix || after.is_empty() {
            return Next::At(prefix.as_bytes().to_vec());
        }
        if let Some(delimiter) = &self.query.delimiter
            && common_prefix(after, prefix, delimiter) == Some(after)
        {
            return prefix_end(after.as_bytes()).map_or(Next::Nowhere, Next::At);
        }
        Next::After(after.as_bytes().to_vec())
    }

    fn is_full(&self) -> bool {
        self.page.keys.len() + self.page.common_prefixes.len() >= self.query.limit
    }

    /// Takes a row. A row below the last common prefix is passed over.
    fn take(&mut self, row: ListedKey) -> Flow {
        let key = row.key.as_str();
        let group = self
            .query
            .delimiter
            .as_deref()
            .and_then(|delimiter| common_prefix(key, &self.query.prefix, delimiter));
        if let Some(group) = group
            && self.page.common_prefixes.last().map(String::as_str) == Some(group)
        {
            return Flow::Continue;
        }
        if self.is_full() {
            self.page.truncated = true;
            self.page.next = self.last.take();
            return Flow::Full;
        }
        match group {
            Some(group) => {
                self.last = Some(group.to_owned());
                self.page.common_prefixes.push(group.to_owned());
            }
            None => {
                self.last = Some(key.to_owned());
                self.page.keys.push(row);
            }
        }
        Flow::Continue
    }

    /// Where the next rows come from, after rows up to `last_row` were taken.
    fn resume(&self, last_row: &str) -> Next {
        match self.page.common_prefixes.last() {
            Some(group) if last_row.starts_with(group.as_str()) => {
                prefix_end(group.as_bytes()).map_or(Next::Nowhere, Next::At)
            }
            _ => Next::After(last_row.as_bytes().to_vec()),
        }
    }
}

async fn page(
    session: &mut Session,
    bucket: BucketId,
    query: &ListQuery,
) -> Result<ListPage, Fault> {
    let mut accumulator = Accumulator::new(query);
    if query.limit == 0 {
        return Ok(accumulator.page);
    }
    let end = prefix_end(query.prefix.as_bytes());
    let mut next = accumulator.start();
    let mut batch = match query.delimiter {
        Some(_) => SMALL_BATCH,
        None => query.limit + 1,
    };
    loop {
        let from = match &next {
            Next::At(start) => From::At(start),
            Next::After(start) => From::After(start),
            Next::Nowhere => return Ok(accumulator.page),
        };
        let rows = listing::scan(session, bucket, from, end.as_deref(), batch).await?;
        let Some(last) = rows.last().map(|row| row.key.as_str().to_owned()) else {
            return Ok(accumulator.page);
        };
        let (exhausted, before) = (rows.len() < batch, accumulator.page.keys.len());
        for row in rows {
            if accumulator.take(row) == Flow::Full {
                return Ok(accumulator.page);
            }
        }
        next = accumulator.resume(&last);
        if exhausted && next == Next::After(last.into_bytes()) {
            return Ok(accumulator.page);
        }
        // Plain keys come in growing batches; among common prefixes most of a batch would be passed over.
        batch = if accumulator.page.keys.len() - before == batch {
            (batch * 4).min(query.limit + 1)
        } else {
            SMALL_BATCH
        };
    }
}

impl Namespace {
    /// A page of a bucket's current objects.
    pub async fn list(&self, bucket: &Bucket, query: ListQuery) -> Result<ListPage, Condition> {
        let find = |bucket| {
            let query = query.clone();
            self.meta.scan("list objects", move |session| {
                Box::pin(async move {
                    let page = page(session, bucket, &query).await?;
                    Ok((page != ListPage::default()).then_some(page))
                })
            })
        };
        Ok(self.found_in(bucket, find).await?.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::digest::ETag;
    use crate::model::names::ObjectKey;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn row(key: &str) -> ListedKey {
        ListedKey {
            key: ObjectKey::parse(key).unwrap(),
            size: 0,
            etag: ETag::single([0; 16]),
            modified: 0,
            checksum: None,
            owner: None,
        }
    }

    /// Feeds the accumulator from a sorted set as the scan would, `batch` rows at a time.
    fn page_of(keys: &BTreeSet<String>, query: &ListQuery, batch: usize) -> ListPage {
        let mut accumulator = Accumulator::new(query);
        let mut next = accumulator.start();
        loop {
            let rows: Vec<&String> = keys
                .iter()
                .filter(|key| key.starts_with(&query.prefix))
                .filter(|key| match &next {
                    Next::At(start) => key.as_bytes() >= &start[..],
                    Next::After(start) => key.as_bytes() > &start[..],
                    Next::Nowhere => false,
                })
                .take(batch)
                .collect();
            let Some(last) = rows.last() else {
                return accumulator.page;
            };
            for key in &rows {
                if accumulator.take(row(key)) == Flow::Full {
                    return accumulator.page;
                }
            }
            next = accumulator.resume(last);
        }
    }

    /// What S3 documents, written without cleverness.
    fn model(keys: &BTreeSet<String>, prefix: &str, delimiter: Option<&str>) -> Vec<String> {
        let mut entries = BTreeSet::new();
        for key in keys.iter().filter(|key| key.starts_with(prefix)) {
            let group = delimiter.and_then(|delimiter| common_prefix(key, prefix, delimiter));
            entries.insert(group.unwrap_or(key).to_owned());
        }
        entries.into_iter().collect()
    }

    #[test]
    fn a_page_that_ends_on_a_common_prefix_goes_on_behind_it() {
        let keys: BTreeSet<String> = ["a/1", "a/2", "b", "c/1"].map(String::from).into();
        let mut query = ListQuery {
            delimiter: Some("/".into()),
            limit: 1,
            ..ListQuery::default()
        };
        let first = page_of(&keys, &query, 4);
        assert_eq!(first.common_prefixes, ["a/"]);
        assert_eq!(first.next.as_deref(), Some("a/"));
        query.after = "a/".into();
        let second = page_of(&keys, &query, 4);
        assert_eq!(second.keys[0].key.as_str(), "b");
    }

    #[test]
    fn a_start_inside_a_common_prefix_still_shows_it() {
        let keys: BTreeSet<String> = ["a/1", "a/2"].map(String::from).into();
        let query = ListQuery {
            delimiter: Some("/".into()),
            after: "a/1".into(),
            limit: 9,
            ..ListQuery::default()
        };
        assert_eq!(page_of(&keys, &query, 4).common_prefixes, ["a/"]);
    }

    proptest! {
        #[test]
        fn pages_of_any_size_add_up_to_the_whole_listing(
            keys in prop::collection::btree_set("[ab/é]{1,6}", 0..40),
            prefix in "[ab/]{0,2}", delimited in any::<bool>(), limit in 1usize..8, batch in 1usize..6,
        ) {
            let delimiter = delimited.then_some("/");
            let mut seen = Vec::new();
            let mut query = ListQuery {
                prefix: prefix.clone(),
                delimiter: delimiter.map(str::to_owned),
                after: String::new(),
                limit,
            };
            loop {
                let page = page_of(&keys, &query, batch);
                prop_assert!(page.keys.len() + page.common_prefixes.len() <= limit);
                let mut entries: Vec<String> = page.keys.iter().map(|row| row.key.as_str().to_owned()).collect();
                entries.extend(page.common_prefixes.clone());
                entries.sort();
                seen.extend(entries);
                match page.next {
                    Some(next) => query.after = next,
                    None => { prop_assert!(!page.truncated); break; }
                }
            }
            prop_assert_eq!(seen, model(&keys, &prefix, delimiter));
        }
    }
}
