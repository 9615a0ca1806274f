//! Telling of what happened: events go into the outbox in the transaction of what they tell of.

use std::sync::Arc;

use super::{Condition, Namespace, lock_bucket_alone};
use crate::meta::Session;
use crate::meta::{buckets, events};
use crate::model::bucket::Bucket;
use crate::model::clock::{Millis, iso8601};
use crate::model::digest::ETag;
use crate::model::fault::Fault;
use crate::model::ids::UidGenerator;
use crate::model::names::ObjectKey;
use crate::model::notification::{
    Event, Notification, Origin, Place, Record, Subject, Telling, TestEvent,
};
use crate::model::object::VersionId;

/// How a version came to be, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// How.
    pub event: Event,
    /// By whom.
    pub origin: Origin,
}

impl Default for Cause {
    /// A put of the server's own.
    fn default() -> Self {
        Self {
            event: Event::CreatedByPut,
            origin: Origin::default(),
        }
    }
}

/// What happened to an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Happened<'a> {
    /// What.
    pub(super) event: Event,
    /// To which key.
    pub(super) key: &'a ObjectKey,
    /// To which version, where clients know it by an id.
    pub(super) version: Option<VersionId>,
    /// Its bytes and ETag.
    pub(super) content: Option<(u64, ETag)>,
    /// By whom.
    pub(super) origin: &'a Origin,
    /// When.
    pub(super) at: Millis,
}

/// Inserts what the receivers of `bucket` are told. Ids are minted here, under the key's lock, so that those of
/// one key rise in the order of its changes.
pub(super) async fn tell(
    session: &mut Session,
    uids: &UidGenerator,
    bucket: &Bucket,
    happened: Happened<'_>,
) -> Result<(), Fault> {
    let Some(notification) = &bucket.settings.notification else {
        return Ok(());
    };
    let place = Place {
        bucket: bucket.name.as_str(),
        owner: &notification.owner,
        region: &bucket.region,
    };
    let key = happened.key.as_str();
    let mut told = notification.about(happened.event, key).peekable();
    if told.peek().is_none() {
        return Ok(());
    }
    let (size, etag) = match happened.content {
        Some((size, etag)) => (size, etag.to_string()),
        None => (0, String::new()),
    };
    let version = happened.version.map(|id| id.to_string());
    let subject = Subject {
        key,
        size,
        etag: &etag,
        version: version.as_deref(),
    };
    let time = iso8601(happened.at);
    for configuration in told {
        let id = uids.next()?;
        let telling = Telling {
            event: happened.event,
            configuration: &configuration.id,
            time: &time,
            sequence: id,
        };
        let record = Record::new(telling, place, subject, happened.origin);
        let event = events::NewEvent {
            id,
            target: configuration.target(),
            bucket: bucket.id,
            payload: &events::payload(&record)?,
            created: happened.at,
        };
        events::insert(session, &event).await?;
    }
    Ok(())
}

impl Namespace {
    /// Wakes delivery after a commit that may have told of something in `bucket`.
    pub(super) fn ring(&self, bucket: &Bucket) {
        if bucket.settings.notification.is_some() {
            self.bell.ring();
        }
    }

    /// Sets who is told of what happens in a bucket, and sends each of them the test event that S3 sends; both
    /// as one step.
    pub async fn set_notification(
        &self,
        bucket: &Bucket,
        notification: Notification,
        request_id: &str,
    ) -> Result<(), Condition> {
        let (id, rev, now) = (bucket.id, bucket.rev, self.clock.now());
        let test = TestEvent::new(bucket.name.as_str(), &iso8601(now), request_id);
        let payload = events::test_payload(&test)?;
        let uids = Arc::clone(&self.uids);
        let outcome = self
            .meta
            .transact("set notification", move |session| {
                let (uids, payload) = (Arc::clone(&uids), payload.clone());
                let notification = notification.clone();
                Box::pin(async move {
                    let mut bucket = lock_bucket_alone(session, id, rev, None).await?;
                    for configuration in &notification.configurations {
                        let event = events::NewEvent {
                            id: uids.next()?,
                            target: configuration.target(),
                            bucket: id,
                            payload: &payload,
                            created: now,
                        };
                        events::insert(session, &event).await?;
                    }
                    bucket.settings.notification =
                        Some(notification).filter(|notification| !notification.is_empty());
                    bucket.rev += 1;
                    Ok::<_, Condition>(buckets::update(session, &bucket).await?)
                })
            })
            .await;
        self.changed(bucket, &outcome);
        outcome?;
        self.bell.ring();
        Ok(())
    }
}
