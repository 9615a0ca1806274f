//! Whole objects uploaded in parts, several parts in flight, one object at a time.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{Client, Failure, PayloadDigest, SendBody, Upload};
use crate::content::ContentId;
use crate::list::{between, unescape};
use crate::objects::OPERATION_LIMIT;
use crate::plan::Plan;
use crate::tally::Tally;

/// How much of a part is read back around each boundary looked at.
const PROBE_BYTES: u64 = 64 * 1024;
/// How many parts of an object are looked at again.
const PROBES: u64 = 4;

/// One upload under way, shared by its connections.
struct Course {
    plan: Arc<Plan>,
    key: String,
    upload_id: String,
    content: ContentId,
    next: AtomicU64,
}

/// A part that the server has taken.
struct Part {
    number: u64,
    etag: String,
    sent_bytes: u64,
}

/// Uploads `plan.count` objects and returns the connections with what was seen.
pub(crate) async fn run(mut clients: Vec<Client>, plan: &Arc<Plan>) -> (Vec<Client>, Tally) {
    let mut tally = Tally::default();
    let begin = Instant::now();
    for number in 0..plan.count {
        if begin.elapsed() >= plan.seconds {
            break;
        }
        let started = Instant::now();
        let (returned, seen) = upload(clients, plan, number).await;
        clients = returned;
        match seen {
            Ok(sent_bytes) => {
                tally.succeeded(number, started.elapsed());
                tally.sent_bytes += sent_bytes;
            }
            Err(failure) => {
                clients.iter_mut().for_each(Client::disconnect);
                tally.failed(&failure);
            }
        }
        if clients.is_empty() {
            break;
        }
    }
    (clients, tally)
}

/// Looks at the first uploaded object again: its length, and the beginnings of some parts.
pub(crate) async fn revisit(client: &mut Client, plan: &Plan, tally: &mut Tally) {
    let Some(&number) = tally.done.first() else {
        return;
    };
    match probe(client, plan, number).await {
        Ok(probed) => tally.verified += probed,
        Err(failure) => tally.failed(&failure),
    }
}

async fn probe(client: &mut Client, plan: &Plan, number: u64) -> Result<u64, Failure> {
    let key = plan.key(number);
    client.head(&key, plan.size).await?;
    let parts = plan.size.div_ceil(plan.part_size);
    let step = parts.div_ceil(PROBES).max(1) as usize;
    let mut probed = 0;
    for part in (0..parts).step_by(step) {
        let start = part * plan.part_size;
        let end = plan.size.min(start + PROBE_BYTES.min(plan.part_size));
        let content = ContentId::new(plan.seed, number).part(part + 1);
        client.get_range(&key, start..end, content).await?;
        probed += 1;
    }
    Ok(probed)
}

/// Uploads one object; the answer is the bytes sent.
async fn upload(
    mut clients: Vec<Client>,
    plan: &Arc<Plan>,
    number: u64,
) -> (Vec<Client>, Result<u64, Failure>) {
    let key = plan.key(number);
    let created = match clients.first_mut() {
        Some(client) => create(client, &key).await,
        None => Err(Failure::Wrong("no connection is left".to_owned())),
    };
    let upload_id = match created {
        Ok(upload_id) => upload_id,
        Err(failure) => return (clients, Err(failure)),
    };
    let course = Arc::new(Course {
        plan: Arc::clone(plan),
        content: ContentId::new(plan.seed, number),
        key,
        upload_id,
        next: AtomicU64::new(0),
    });
    let (mut clients, parts) = send_parts(clients, &course).await;
    let seen = match (parts, clients.first_mut()) {
        (Ok(parts), Some(client)) => complete(client, &course, parts).await,
        (Err(failure), _) => Err(failure),
        (_, None) => Err(Failure::Wrong("no connection is left".to_owned())),
    };
    (clients, seen)
}

async fn create(client: &mut Client, key: &str) -> Result<String, Failure> {
    let answer = client.post(key, "uploads=", b"").await?;
    between(&answer, "<UploadId>", "</UploadId>")
        .map(unescape)
        .ok_or_else(|| Failure::Wrong(format!("no upload id in: {answer}")))
}

async fn send_parts(
    clients: Vec<Client>,
    course: &Arc<Course>,
) -> (Vec<Client>, Result<Vec<Part>, Failure>) {
    let mut tasks = JoinSet::new();
    for mut client in clients {
        let course = Arc::clone(course);
        tasks.spawn(async move {
            let parts = send_some(&mut client, &course).await;
            (client, parts)
        });
    }
    let mut clients = Vec::new();
    let mut parts = Ok(Vec::new());
    while let Some(done) = tasks.join_next().await {
        let sent = match done {
            Ok((client, sent)) => {
                clients.push(client);
                sent
            }
            Err(error) => Err(Failure::Wrong(format!("a task ended: {error}"))),
        };
        match (&mut parts, sent) {
            (Ok(parts), Ok(sent)) => parts.extend(sent),
            (Ok(_), Err(failure)) => parts = Err(failure),
            (Err(_), _) => {}
        }
    }
    (clients, parts)
}

async fn send_some(client: &mut Client, course: &Course) -> Result<Vec<Part>, Failure> {
    let plan = &course.plan;
    let mut parts = Vec::new();
    loop {
        let index = course.next.fetch_add(1, Ordering::Relaxed);
        let start = index.saturating_mul(plan.part_size);
        if start >= plan.size {
            return Ok(parts);
        }
        let number = index + 1;
        let content = course.content.part(number);
        let size = plan.part_size.min(plan.size - start);
        let digest = if plan.signed {
            client.digest(content, size)
        } else {
            PayloadDigest::Unsigned
        };
        let upload = Upload {
            content,
            size,
            digest: &digest,
            send: SendBody::AtOnce,
        };
        let upload_id = encode(&course.upload_id);
        let query = format!("partNumber={number}&uploadId={upload_id}");
        let sent = timeout(OPERATION_LIMIT, client.put(&course.key, &query, &upload)).await;
        let uploaded =
            sent.map_err(|_| Failure::Wrong(format!("part {number}: no answer in time")))??;
        parts.push(Part {
            number,
            etag: uploaded
                .etag
                .ok_or_else(|| Failure::Wrong(format!("part {number} has no ETag")))?,
            sent_bytes: uploaded.sent_bytes,
        });
    }
}

async fn complete(
    client: &mut Client,
    course: &Course,
    mut parts: Vec<Part>,
) -> Result<u64, Failure> {
    parts.sort_unstable_by_key(|part| part.number);
    let mut body = String::from("<CompleteMultipartUpload>");
    for Part { number, etag, .. } in &parts {
        write!(
            body,
            "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        )
        .expect("writing to memory does not fail");
    }
    body.push_str("</CompleteMultipartUpload>");
    let query = format!("uploadId={}", encode(&course.upload_id));
    let answer = timeout(
        OPERATION_LIMIT,
        client.post(&course.key, &query, body.as_bytes()),
    )
    .await
    .map_err(|_| Failure::Wrong("complete: no answer in time".to_owned()))??;
    // S3 may report a failure in the body of an answer that began as 200.
    if between(&answer, "<ETag>", "</ETag>").is_none() {
        return Err(Failure::Wrong(format!("complete: {answer}")));
    }
    Ok(parts.iter().map(|part| part.sent_bytes).sum())
}

/// Percent-encodes a query value as Signature Version 4 wants it.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to memory does not fail");
        }
    }
    encoded
}
