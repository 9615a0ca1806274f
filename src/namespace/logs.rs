//! Access logs of buckets: lines are gathered in memory and delivered as objects of another bucket.
//!
//! As at S3 this is best effort: lines that a crash catches in memory are lost, and so are those that come while
//! [`LINES_MAX_BYTES`] wait. Delivery is an ordinary put; it comes from no request, so it is in no log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{
    Body, BodyHint, Cause, Condition, Namespace, PUT_MAX_BYTES, PutRequest, Target, Wanted,
};
use crate::meta::Bell;
use crate::model::bucket::Bucket;
use crate::model::clock::Millis;
use crate::model::ids::{BucketId, TenantId};
use crate::model::logging::{KeyFormat, LogObject, Logging};
use crate::model::names::{BucketName, ObjectKey};
use crate::model::object::{Headers, Lock, Tags, WriteConditions};

/// Bytes after which a log object is delivered before its time.
const OBJECT_MAX_BYTES: usize = 1 << 20;
/// Bytes of all lines that wait together; more are dropped.
const LINES_MAX_BYTES: usize = 16 << 20;

/// Lines that wait.
#[derive(Default)]
pub(super) struct LogBuffer {
    waiting: Mutex<Waiting>,
    /// Rung when a log object is full.
    full: Bell,
}

#[derive(Default)]
struct Waiting {
    batches: HashMap<BatchKey, Batch>,
    /// Of all batches, those under delivery included.
    bytes: usize,
    dropped: u64,
}

/// Lines of one log object: of one bucket under one configuration, and of one day where that is in its name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct BatchKey {
    bucket: BucketId,
    target: String,
    prefix: String,
    day: i64,
}

struct Batch {
    logging: Logging,
    name: BucketName,
    tenant: TenantId,
    region: String,
    first: Millis,
    lines: Vec<u8>,
}

/// What one delivery did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogReport {
    /// Log objects that were written.
    pub objects: u64,
    /// Lines that were lost since the last time: there was no room, or their target is gone.
    pub dropped: u64,
}

impl LogBuffer {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, bucket: &Bucket, logging: &Logging, time: Millis, line: &str) {
        let mut waiting = self.lock();
        if waiting.bytes + line.len() > LINES_MAX_BYTES {
            waiting.dropped += 1;
            return;
        }
        waiting.bytes += line.len();
        let key = BatchKey {
            bucket: bucket.id,
            target: logging.target.clone(),
            prefix: logging.prefix.clone(),
            day: match logging.key_format {
                KeyFormat::ByEventTime => time.div_euclid(crate::model::lifecycle::DAY),
                _ => 0,
            },
        };
        let batch = waiting.batches.entry(key).or_insert_with(|| Batch {
            logging: logging.clone(),
            name: bucket.name.clone(),
            tenant: bucket.tenant,
            region: bucket.region.clone(),
            first: time,
            lines: Vec::new(),
        });
        let was_full = batch.lines.len() >= OBJECT_MAX_BYTES;
        batch.lines.extend_from_slice(line.as_bytes());
        let is_full = batch.lines.len() >= OBJECT_MAX_BYTES;
        drop(waiting);
        // Rung once for each object: one that cannot be delivered now waits for its time.
        if is_full && !was_full {
            self.full.ring();
        }
    }

    /// Counts the bytes of a batch as gone, and its lines as lost when they are.
    fn forget(&self, bytes: usize, lost: u64) {
        let mut waiting = self.lock();
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        waiting.dropped += lost;
    }

    /// Puts back what could not be delivered; its bytes were counted all the while.
    fn restore(&self, key: BatchKey, batch: Batch) {
        let mut waiting = self.lock();
        match waiting.batches.get_mut(&key) {
            Some(newer) => {
                newer.first = batch.first;
                newer.lines.splice(0..0, batch.lines);
            }
            None => {
                waiting.batches.insert(key, batch);
            }
        }
    }
}

/// A batch on its way. Put back when its delivery is given up half-way, as at a stop.
struct Taken<'b> {
    buffer: &'b LogBuffer,
    held: Option<(BatchKey, Batch)>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some((key, batch)) = self.held.take() {
            self.buffer.restore(key, batch);
        }
    }
}

fn lines_in(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

impl Namespace {
    /// Takes one line for the log of `bucket`, which has one.
    pub fn log(&self, bucket: &Bucket, time: Millis, line: &str) {
        if let Some(logging) = &bucket.settings.logging {
            self.logs.push(bucket, logging, time, line);
        }
    }

    /// Rung when lines should be delivered before their time.
    pub fn full_logs(&self) -> Bell {
        self.logs.full.clone()
    }

    /// Delivers all lines that wait. Those whose target does not take them now wait for the next time; those
    /// whose target is gone are dropped.
    pub async fn deliver_logs(&self) -> LogReport {
        let keys: Vec<BatchKey> = self.logs.lock().batches.keys().cloned().collect();
        let mut report = LogReport::default();
        for key in keys {
            let Some(batch) = self.logs.lock().batches.remove(&key) else {
                continue;
            };
            let (bytes, lines) = (batch.lines.len(), lines_in(&batch.lines));
            let mut taken = Taken {
                buffer: &self.logs,
                held: Some((key, batch)),
            };
            let Some((_, batch)) = &taken.held else {
                continue;
            };
            match self.deliver_log(batch).await {
                Ok(()) => {
                    report.objects += 1;
                    taken.held = None;
                    self.logs.forget(bytes, 0);
                }
                Err(Condition::Fault(fault)) if fault.is_retryable() => {
                    tracing::warn!(%fault, "log not delivered yet");
                }
                Err(condition) => {
                    tracing::warn!(?condition, target = batch.logging.target, "log dropped");
                    taken.held = None;
                    self.logs.forget(bytes, lines);
                }
            }
        }
        report.dropped = std::mem::take(&mut self.logs.lock().dropped);
        report
    }

    async fn deliver_log(&self, batch: &Batch) -> Result<(), Condition> {
        let name = BucketName::parse(&batch.logging.target).map_err(|_| Condition::NoSuchBucket)?;
        let target = self.bucket(&name).await?;
        if target.tenant != batch.tenant {
            return Err(Condition::NoSuchBucket);
        }
        let key = batch.logging.key(LogObject {
            bucket: batch.name.as_str(),
            region: &batch.region,
            first: batch.first,
            delivered: self.clock.now(),
            unique: self.uids.next()?,
        });
        let key = ObjectKey::parse(&key).map_err(|_| Condition::NoSuchKey)?;
        let protected = self.target(&target, Wanted::Default).await?;
        let received = self.receive_bytes(&protected, &batch.lines).await?;
        let put = PutRequest {
            bucket: Arc::clone(&target),
            key,
            cause: Cause::default(),
            headers: Headers {
                content_type: Some("text/plain".to_owned()),
                ..Headers::default()
            },
            tags: Tags::default(),
            checksum: None,
            conditions: WriteConditions::default(),
            sender: None,
            acl: None,
            encryption: protected.encryption().cloned(),
            lock: Lock::default(),
            recheck: None,
        };
        self.put(put, received).await.map(|_| ())
    }

    /// Receives a body that is in memory.
    async fn receive_bytes(
        &self,
        target: &Target,
        bytes: &[u8],
    ) -> Result<super::Received, Condition> {
        let hint = BodyHint {
            length: Some(bytes.len() as u64),
            limit: PUT_MAX_BYTES,
            verified_sha256: None,
            sha1: false,
        };
        let bytes = Bytes::copy_from_slice(bytes);
        let mut body = std::pin::pin!(futures::stream::iter([Ok(bytes)]));
        let body: Body<'_> = body.as_mut();
        self.receive(target, hint, body)
            .await
            .map_err(|error| match error {
                super::ReceiveError::Fault(fault) => Condition::Fault(fault),
                // A body in memory neither breaks off nor is longer than it says.
                _ => Condition::TooLarge,
            })
    }
}
