//! What the install holds, added up.

use serde::Serialize;

use crate::meta::{MetaStore, buckets, contents, identities};
use crate::model::clock::Millis;
use crate::model::fault::Fault;

/// Buckets read in one go.
const PAGE: usize = 1000;

/// Adds up what is stored. Scans; asks nothing of the backends.
pub struct Survey {
    meta: MetaStore,
}

/// What the whole install holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stats {
    /// Bytes of all objects as clients see them.
    pub logical_bytes: u64,
    /// Bytes that hold them: in rows and in blobs.
    pub stored_bytes: u64,
    /// Logical through stored bytes; 1 when nothing is stored.
    pub ratio: f64,
    /// Objects.
    pub objects: u64,
    /// Contents that hold bytes of their own.
    pub contents: u64,
    /// Stored bytes that lie in rows.
    pub inline_bytes: u64,
    /// Stored bytes that lie in blobs.
    pub blob_bytes: u64,
    /// Bytes of blobs that wait for their deletion; not among the stored ones.
    pub deleting_bytes: u64,
}

/// What one bucket holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BucketUsage {
    /// Its name.
    pub name: String,
    /// The name of the tenant that owns it.
    pub tenant: String,
    /// When it was made, in milliseconds since 1970.
    pub created: Millis,
    /// Objects in it.
    pub objects: u64,
    /// Their bytes.
    pub logical_bytes: u64,
}

impl Survey {
    /// A survey of an open database.
    pub fn new(meta: MetaStore) -> Self {
        Self { meta }
    }

    /// Everything. Changes made meanwhile may be counted in one figure and not in another.
    pub async fn stats(&self) -> Result<Stats, Fault> {
        let (totals, (objects, logical_bytes)) = self
            .meta
            .scan("add up contents", |session| {
                Box::pin(async move {
                    let totals = contents::totals(session).await?;
                    Ok::<_, Fault>((totals, buckets::usage(session, None).await?))
                })
            })
            .await?;
        let stored_bytes = totals.inline_bytes + totals.blob_bytes;
        Ok(Stats {
            logical_bytes,
            stored_bytes,
            ratio: ratio(logical_bytes, stored_bytes),
            objects,
            contents: totals.contents,
            inline_bytes: totals.inline_bytes,
            blob_bytes: totals.blob_bytes,
            deleting_bytes: totals.deleting_bytes,
        })
    }

    /// Every bucket, by tenant and name.
    pub async fn buckets(&self) -> Result<Vec<BucketUsage>, Fault> {
        self.meta
            .scan("add up buckets", |session| {
                Box::pin(async move {
                    let mut found = Vec::new();
                    for tenant in identities::tenants(session).await? {
                        let mut after = String::new();
                        loop {
                            let page = buckets::list(session, tenant.id, "", &after, PAGE).await?;
                            let Some(last) = page.last() else { break };
                            after = last.name.as_str().to_owned();
                            for bucket in page {
                                let (objects, logical_bytes) =
                                    buckets::usage(session, Some(bucket.id)).await?;
                                found.push(BucketUsage {
                                    name: bucket.name.as_str().to_owned(),
                                    tenant: tenant.name.clone(),
                                    created: bucket.created,
                                    objects,
                                    logical_bytes,
                                });
                            }
                        }
                    }
                    Ok::<_, Fault>(found)
                })
            })
            .await
    }
}

fn ratio(logical_bytes: u64, stored_bytes: u64) -> f64 {
    if stored_bytes == 0 {
        1.0
    } else {
        logical_bytes as f64 / stored_bytes as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_of_nothing_is_one() {
        assert_eq!(ratio(0, 0), 1.0);
        assert_eq!(ratio(300, 100), 3.0);
        assert_eq!(ratio(0, 100), 0.0);
    }
}
