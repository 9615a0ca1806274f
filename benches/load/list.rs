//! Walks of a bucket by ListObjectsV2 pages.
//!
//! Each page must have entries, at most as many as asked for, and begin behind the one before; a
//! walk that reaches the end must have found every key (or every directory, with a delimiter).

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{Client, Failure};
use crate::multipart::encode;
use crate::objects::{FAILURES_IN_A_ROW, OPERATION_LIMIT};
use crate::plan::{KEYS_PER_DIRECTORY, Plan};
use crate::tally::Tally;

/// A walk as far as it got; the next page continues here.
#[derive(Default)]
struct Walk {
    token: Option<String>,
    last_entry: Option<String>,
    entries: u64,
}

/// Walks on every connection until the time or the count of pages is over.
pub(crate) async fn run(clients: Vec<Client>, plan: &Arc<Plan>) -> (Vec<Client>, Tally) {
    let mut tasks = JoinSet::new();
    for client in clients {
        tasks.spawn(work(client, Arc::clone(plan)));
    }
    let mut clients = Vec::new();
    let mut tally = Tally::default();
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok((client, part)) => {
                clients.push(client);
                tally.merge(part);
            }
            Err(error) => tally.failed(&Failure::Wrong(format!("a task ended: {error}"))),
        }
    }
    (clients, tally)
}

async fn work(mut client: Client, plan: Arc<Plan>) -> (Client, Tally) {
    let begin = Instant::now();
    let mut tally = Tally::default();
    let mut walk = Walk::default();
    let mut page = Vec::new();
    let mut failures = 0;
    let share = plan.count.div_ceil(plan.concurrency);
    for number in 0..share {
        if begin.elapsed() >= plan.seconds || failures >= FAILURES_IN_A_ROW {
            break;
        }
        let query = query(&plan, &walk);
        let started = Instant::now();
        let listed = timeout(OPERATION_LIMIT, client.list(&query, &mut page)).await;
        let took = started.elapsed();
        let seen = match listed {
            Ok(Ok(())) => walk.advance(&plan, &page),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::Wrong("no answer in time".to_owned())),
        };
        match seen {
            Ok(()) => {
                tally.succeeded(number, took);
                tally.verified += 1;
                failures = 0;
            }
            Err(failure) => {
                tally.failed(&failure);
                client.disconnect();
                walk = Walk::default();
                failures += 1;
            }
        }
    }
    (client, tally)
}

/// The query of the walk's next page, its names in order as the signature wants them.
fn query(plan: &Plan, walk: &Walk) -> String {
    let mut pairs = Vec::new();
    if let Some(token) = &walk.token {
        pairs.push(format!("continuation-token={}", encode(token)));
    }
    if plan.delimiter {
        pairs.push("delimiter=%2F".to_owned());
    }
    pairs.push("list-type=2".to_owned());
    pairs.push(format!("max-keys={}", plan.max_keys));
    if !plan.prefix.is_empty() {
        pairs.push(format!("prefix={}", encode(&plan.prefix)));
    }
    pairs.join("&")
}

impl Walk {
    /// Takes a page in, or begins again after the last one.
    fn advance(&mut self, plan: &Plan, page: &[u8]) -> Result<(), Failure> {
        let page = std::str::from_utf8(page)
            .map_err(|_| Failure::Wrong("a page is not text".to_owned()))?;
        let (open, close, expected) = if plan.delimiter {
            let directories = plan.keys.div_ceil(KEYS_PER_DIRECTORY);
            ("<CommonPrefixes>", "</CommonPrefixes>", directories)
        } else {
            ("<Key>", "</Key>", plan.keys)
        };
        let entries = page.matches(open).count() as u64;
        let first = between(page, open, close);
        let last = page
            .rfind(open)
            .and_then(|at| between(&page[at..], open, close));
        if entries == 0 || entries > plan.max_keys {
            return Err(Failure::Wrong(format!("a page has {entries} entries")));
        }
        if self.last_entry.as_deref() >= first {
            return Err(Failure::Wrong(format!(
                "a page begins with {first:?} after {:?}",
                self.last_entry
            )));
        }
        self.entries += entries;
        self.last_entry = last.map(str::to_owned);
        if page.contains("<IsTruncated>true</IsTruncated>") {
            let token = between(page, "<NextContinuationToken>", "</NextContinuationToken>")
                .ok_or_else(|| Failure::Wrong("a cut page has no token".to_owned()))?;
            self.token = Some(unescape(token));
            return Ok(());
        }
        let found = std::mem::take(self).entries;
        if found == expected {
            return Ok(());
        }
        Err(Failure::Wrong(format!(
            "a walk found {found} entries, expected {expected}"
        )))
    }
}

/// What stands between two tags, at their first occurrence.
pub(crate) fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let start = text.find(open)? + open.len();
    let length = text[start..].find(close)?;
    Some(&text[start..start + length])
}

/// Resolves the entities that XML writers put into tokens and ids.
pub(crate) fn unescape(text: &str) -> String {
    const ENTITIES: [(&str, &str); 9] = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&#43;", "+"),
        ("&#x2F;", "/"),
        ("&amp;", "&"),
    ];
    let mut resolved = text.to_owned();
    for (entity, character) in ENTITIES {
        resolved = resolved.replace(entity, character);
    }
    resolved
}
