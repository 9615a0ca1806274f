//! What becomes of a key's versions when one is written or deleted.
//!
//! [`plan`] is the pure rule. The transactions here carry it out under the key's lock, and are the only ones
//! that add versions or take them away: whatever writes or deletes comes through [`VersionWriter`] or
//! [`Deletion`], so that conditions, locks, references and counts are decided in one place.

use std::sync::Arc;

use super::notify::{Happened, tell};
use super::{Cause, Condition, Namespace, Recheck, lock_bucket, release};
use crate::meta::objects::{self, Change, Locked, LockedKey, NewEntry, Place};
use crate::meta::{Contended, Session, version_parts};
use crate::model::bucket::{Bucket, Versioning};
use crate::model::clock::Millis;
use crate::model::fault::Fault;
use crate::model::ids::{SenderId, Uid, UidGenerator};
use crate::model::names::ObjectKey;
use crate::model::notification::{Event, Origin};
use crate::model::object::{
    Entry, Marker, Retention, Tags, Version, VersionId, WriteConditions, WriteDecision,
};

/// What becomes of the versions there are, when another becomes current.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    /// Whether the current one stays, as a noncurrent one; else it goes.
    keeps_current: bool,
    /// The place of a noncurrent one that goes: the null version, of which there is only one.
    drops: Option<i64>,
    /// Whether the new one is the null version.
    is_null: bool,
    /// The new one's place.
    ord: i64,
    /// Where the null version stands from now on.
    null_ord: Option<i64>,
}

fn plan(versioning: Versioning, row: Option<&LockedKey>) -> Plan {
    let ord = row.map_or(1, |row| row.current.ord + 1);
    let null_ord = row.and_then(|row| row.null_ord);
    let current_is_null = row.is_some_and(|row| row.current.is_null);
    match versioning {
        Versioning::Enabled => Plan {
            keeps_current: true,
            drops: None,
            is_null: false,
            ord,
            null_ord,
        },
        Versioning::Never | Versioning::Suspended => Plan {
            keeps_current: !current_is_null,
            drops: null_ord.filter(|_| !current_is_null),
            is_null: true,
            ord,
            null_ord: Some(ord),
        },
    }
}

/// The id a client is told, where the bucket keeps versions or did.
fn shown(bucket: &Bucket, id: VersionId) -> Option<VersionId> {
    (bucket.versioning != Versioning::Never).then_some(id)
}

/// Turns the outcome of a write's conditions into the domain's answer.
pub(super) fn decide(
    conditions: &WriteConditions,
    row: Option<&LockedKey>,
) -> Result<(), Condition> {
    let current = row.and_then(|row| {
        let object = row.current.object.as_ref()?;
        Some((&object.etag, row.current.modified, object.size))
    });
    match conditions.decide(current) {
        WriteDecision::Proceed => Ok(()),
        WriteDecision::Failed => Err(Condition::PreconditionFailed),
        WriteDecision::NoSuchKey => Err(Condition::NoSuchKey),
    }
}

/// What a transaction counts while it adds versions and takes them away.
#[derive(Debug, Default)]
struct Tally {
    objects: i64,
    bytes: i64,
}

/// A key, and what a transaction that changes it needs.
pub(super) struct Slot {
    pub(super) uids: Arc<UidGenerator>,
    pub(super) worker: u16,
    /// The bucket as it was when the request was admitted.
    pub(super) bucket: Arc<Bucket>,
    pub(super) key: ObjectKey,
    pub(super) recheck: Option<Recheck>,
}

impl Slot {
    /// The row that such a transaction locks.
    pub(super) fn row(&self) -> Contended {
        Contended::Key(self.bucket.id, self.key.clone())
    }

    /// Locks bucket and key.
    async fn lock(
        &self,
        session: &mut Session,
    ) -> Result<(Arc<Bucket>, Option<LockedKey>), Condition> {
        let bucket = lock_bucket(session, &self.bucket, self.recheck.as_ref()).await?;
        let row = objects::lock(session, bucket.id, &self.key).await?;
        Ok((bucket, row))
    }

    /// Gives up what a version referred to, whose row is gone or about to be replaced.
    async fn give_up(
        &self,
        session: &mut Session,
        version: &Locked,
        now: Millis,
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        let Some(object) = &version.object else {
            return Ok(());
        };
        release(session, &self.uids, object.content, now).await?;
        if object.etag.parts.is_some() {
            version_parts::delete(session, version.uid).await?;
        }
        tally.objects -= 1;
        tally.bytes -= object.size as i64;
        Ok(())
    }

    async fn count(&self, session: &mut Session, tally: Tally) -> Result<(), Fault> {
        if tally.objects == 0 && tally.bytes == 0 {
            return Ok(());
        }
        objects::add_usage(
            session,
            self.bucket.id,
            self.worker,
            tally.objects,
            tally.bytes,
        )
        .await
    }

    /// Makes `entry` the current version as planned.
    async fn replace(
        &self,
        session: &mut Session,
        row: Option<&LockedKey>,
        plan: Plan,
        entry: &Entry,
        sender: Option<SenderId>,
    ) -> Result<(), Condition> {
        let (bucket, key) = (self.bucket.id, &self.key);
        let mut tally = Tally::default();
        let now = match entry {
            Entry::Object(version) => {
                tally.objects = 1;
                tally.bytes = version.size as i64;
                version.modified
            }
            Entry::Marker(marker) => marker.modified,
        };
        match row {
            Some(row) if plan.keeps_current => {
                objects::push_down(session, bucket, key, row.current.ord).await?;
            }
            Some(row) => {
                check_removal(&row.current, now, false)?;
                self.give_up(session, &row.current, now, &mut tally).await?;
            }
            None => {}
        }
        if let Some(ord) = plan.drops
            && let Some(old) = objects::noncurrent(session, bucket, key, ord).await?
        {
            check_removal(&old, now, false)?;
            objects::delete_noncurrent(session, bucket, key, ord).await?;
            self.give_up(session, &old, now, &mut tally).await?;
        }
        let new = NewEntry {
            entry,
            sender,
            ord: plan.ord,
            null_ord: plan.null_ord,
        };
        objects::write(session, bucket, key, new, row.is_some()).await?;
        Ok(self.count(session, tally).await?)
    }

    /// A version of a locked key by its id.
    async fn find(
        &self,
        session: &mut Session,
        row: &LockedKey,
        id: VersionId,
    ) -> Result<Option<(Place, Locked)>, Fault> {
        let (bucket, key) = (self.bucket.id, &self.key);
        let current = &row.current;
        let found = match id {
            VersionId::Null if current.is_null => {
                return Ok(Some((Place::Current, current.clone())));
            }
            VersionId::Of(uid) if !current.is_null && current.uid == uid => {
                return Ok(Some((Place::Current, current.clone())));
            }
            VersionId::Null => match row.null_ord {
                Some(ord) => objects::noncurrent(session, bucket, key, ord).await?,
                None => None,
            },
            VersionId::Of(uid) => objects::noncurrent_by_uid(session, bucket, key, uid)
                .await?
                .filter(|found| !found.is_null),
        };
        Ok(found.map(|found| (Place::Noncurrent(found.ord), found)))
    }
}

fn check_removal(version: &Locked, now: Millis, bypass: bool) -> Result<(), Condition> {
    match &version.object {
        Some(object) if !object.lock.allows_removal(now, bypass) => Err(Condition::Locked),
        _ => Ok(()),
    }
}

/// Writes versions of one key.
pub(super) struct VersionWriter {
    pub(super) slot: Slot,
    pub(super) conditions: WriteConditions,
    pub(super) cause: Cause,
}

impl VersionWriter {
    /// Decides the conditions under the key's lock, writes the version, keeps or releases what it replaces,
    /// counts. Answers the id that clients name it by.
    pub(super) async fn write(
        &self,
        session: &mut Session,
        mut version: Version,
        sender: Option<SenderId>,
    ) -> Result<Option<VersionId>, Condition> {
        let (bucket, row) = self.slot.lock(session).await?;
        decide(&self.conditions, row.as_ref())?;
        if !bucket.object_lock && !version.lock.is_empty() {
            return Err(Condition::NoObjectLock);
        }
        if bucket.object_lock && version.lock.retention.is_none() {
            let default = bucket.settings.default_retention;
            version.lock.retention = default.map(|default| default.from(version.modified));
        }
        let plan = plan(bucket.versioning, row.as_ref());
        version.is_null = plan.is_null;
        // A null version is answered without an id, as long as none of another kind is made beside it.
        let id = (bucket.versioning == Versioning::Enabled).then_some(version.id());
        let happened = Happened {
            event: self.cause.event,
            key: &self.slot.key,
            version: id,
            content: Some((version.size, version.etag)),
            origin: &self.cause.origin,
            at: version.modified,
        };
        let entry = Entry::Object(Box::new(version));
        self.slot
            .replace(session, row.as_ref(), plan, &entry, sender)
            .await?;
        tell(session, &self.slot.uids, &bucket, happened).await?;
        Ok(id)
    }
}

/// A key or version to be deleted.
#[derive(Clone)]
pub struct DeleteRequest {
    /// Where.
    pub bucket: Arc<Bucket>,
    /// Which key.
    pub key: ObjectKey,
    /// Which version, for good; `None` deletes the key: for good, or by a marker where versions are kept.
    pub version: Option<VersionId>,
    /// Decided on the current version, under the key's lock.
    pub conditions: WriteConditions,
    /// Only while this is the version that goes, or that a marker is put before.
    pub only: Option<Uid>,
    /// Why it is deleted.
    pub reason: Reason,
    /// Who deletes it, for those who are told of it.
    pub origin: Origin,
    /// Whether the caller may pass over governance retention, and wants to.
    pub bypass_governance: bool,
    /// Asked when the bucket's settings changed since the request was admitted.
    pub recheck: Option<Recheck>,
}

/// Why something is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reason {
    /// A client asked for it.
    #[default]
    Asked,
    /// A lifecycle rule says so.
    Expired,
}

/// What was deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deleted {
    /// The marker that was made, or the version that is gone.
    pub version_id: Option<VersionId>,
    /// Whether that is a delete marker.
    pub marker: bool,
}

/// One deletion with the id it will use; may run several times.
struct Deletion {
    slot: Slot,
    request: DeleteRequest,
    marker: Uid,
    now: Millis,
}

impl Deletion {
    async fn run(&self, session: &mut Session) -> Result<Deleted, Condition> {
        let request = &self.request;
        let (bucket, row) = self.slot.lock(session).await?;
        decide(&request.conditions, row.as_ref())?;
        if let Some(id) = request.version {
            return match row {
                Some(row) => self.remove(session, &bucket, &row, id).await,
                None => Ok(Deleted {
                    version_id: Some(id),
                    marker: false,
                }),
            };
        }
        if let Some(only) = request.only
            && row.as_ref().is_none_or(|row| row.current.uid != only)
        {
            return Err(Condition::PreconditionFailed);
        }
        if bucket.versioning == Versioning::Never {
            if let Some(row) = row {
                self.remove(session, &bucket, &row, VersionId::Null).await?;
            }
            return Ok(Deleted::default());
        }
        let plan = plan(bucket.versioning, row.as_ref());
        let marker = Marker {
            uid: self.marker,
            is_null: plan.is_null,
            modified: self.now,
        };
        let id = marker.id();
        let entry = Entry::Marker(marker);
        self.slot
            .replace(session, row.as_ref(), plan, &entry, None)
            .await?;
        let event = match request.reason {
            Reason::Asked => Event::MarkerCreated,
            Reason::Expired => Event::ExpiredByMarker,
        };
        self.tell(session, &bucket, event, Some(id)).await?;
        Ok(Deleted {
            version_id: Some(id),
            marker: true,
        })
    }

    /// Takes one version away for good; one that is not there is a success.
    async fn remove(
        &self,
        session: &mut Session,
        settings: &Bucket,
        row: &LockedKey,
        id: VersionId,
    ) -> Result<Deleted, Condition> {
        let (bucket, key) = (self.slot.bucket.id, &self.slot.key);
        let gone = |marker| Deleted {
            version_id: Some(id),
            marker,
        };
        let Some((place, version)) = self.slot.find(session, row, id).await? else {
            return Ok(gone(false));
        };
        if self.request.only.is_some_and(|only| only != version.uid) {
            return Err(Condition::PreconditionFailed);
        }
        check_removal(&version, self.now, self.request.bypass_governance)?;
        match place {
            Place::Current => {
                let null_ord = row.null_ord.filter(|_| !version.is_null);
                objects::pull_up(session, bucket, key, null_ord).await?;
            }
            Place::Noncurrent(ord) => {
                objects::delete_noncurrent(session, bucket, key, ord).await?;
                if version.is_null {
                    objects::forget_null(session, bucket, key).await?;
                }
            }
        }
        let mut tally = Tally::default();
        self.slot
            .give_up(session, &version, self.now, &mut tally)
            .await?;
        self.slot.count(session, tally).await?;
        let event = match self.request.reason {
            Reason::Asked => Event::Removed,
            Reason::Expired => Event::Expired,
        };
        self.tell(session, settings, event, shown(settings, id))
            .await?;
        Ok(gone(version.object.is_none()))
    }

    async fn tell(
        &self,
        session: &mut Session,
        bucket: &Bucket,
        event: Event,
        version: Option<VersionId>,
    ) -> Result<(), Fault> {
        let happened = Happened {
            event,
            key: &self.slot.key,
            version,
            content: None,
            origin: &self.request.origin,
            at: self.now,
        };
        tell(session, &self.slot.uids, bucket, happened).await
    }
}

/// What of a version is to be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionChange {
    /// Its tags.
    Tags(Tags),
    /// Its access control list.
    Acl(Option<crate::model::acl::Acl>),
    /// Its retention.
    Retention {
        /// The new one; `None` takes it away.
        retention: Option<Retention>,
        /// Whether the caller may pass over governance, and wants to.
        bypass_governance: bool,
    },
    /// Its legal hold.
    LegalHold(bool),
}

/// A part of a version to be replaced.
#[derive(Clone)]
pub struct ChangeRequest {
    /// Where.
    pub bucket: Arc<Bucket>,
    /// Which key.
    pub key: ObjectKey,
    /// Which version; `None` is the current one.
    pub version: Option<VersionId>,
    /// What.
    pub change: VersionChange,
    /// Who changes it, for those who are told of it.
    pub origin: Origin,
    /// Asked when the bucket's settings changed since the request was admitted.
    pub recheck: Option<Recheck>,
}

impl Namespace {
    fn slot(&self, bucket: &Arc<Bucket>, key: &ObjectKey, recheck: &Option<Recheck>) -> Slot {
        Slot {
            uids: Arc::clone(&self.uids),
            worker: self.worker,
            bucket: Arc::clone(bucket),
            key: key.clone(),
            recheck: recheck.clone(),
        }
    }

    pub(super) fn writer(
        &self,
        bucket: &Arc<Bucket>,
        key: &ObjectKey,
        conditions: WriteConditions,
        recheck: &Option<Recheck>,
        cause: Cause,
    ) -> Arc<VersionWriter> {
        Arc::new(VersionWriter {
            slot: self.slot(bucket, key, recheck),
            conditions,
            cause,
        })
    }

    /// Deletes a key or one version of it. What is not there is a success, unless a condition wants it.
    /// [`Condition::Locked`] when the version that would go is retained or held.
    pub async fn delete(&self, request: DeleteRequest) -> Result<Deleted, Condition> {
        let deletion = Arc::new(Deletion {
            slot: self.slot(&request.bucket, &request.key, &request.recheck),
            marker: Uid(self.uids.next()?),
            now: self.clock.now(),
            request,
        });
        let bucket = Arc::clone(&deletion.request.bucket);
        let deleted = self
            .meta
            .transact_at(deletion.slot.row(), "delete", move |session| {
                let deletion = Arc::clone(&deletion);
                Box::pin(async move { deletion.run(session).await })
            })
            .await?;
        self.ring(&bucket);
        Ok(deleted)
    }

    /// Replaces a part of a version, and answers the id clients name it by.
    pub async fn change(&self, request: ChangeRequest) -> Result<Option<VersionId>, Condition> {
        let slot = Arc::new(self.slot(&request.bucket, &request.key, &request.recheck));
        let (request, now) = (Arc::new(request), self.clock.now());
        let bucket = Arc::clone(&request.bucket);
        let id = self
            .meta
            .transact_at(slot.row(), "change version", move |session| {
                let (slot, request) = (Arc::clone(&slot), Arc::clone(&request));
                Box::pin(async move { change(session, &slot, &request, now).await })
            })
            .await?;
        self.ring(&bucket);
        Ok(id)
    }
}

async fn change(
    session: &mut Session,
    slot: &Slot,
    request: &ChangeRequest,
    now: Millis,
) -> Result<Option<VersionId>, Condition> {
    let (bucket, row) = slot.lock(session).await?;
    let missing = match request.version {
        Some(_) => Condition::NoSuchVersion,
        None => Condition::NoSuchKey,
    };
    let Some(row) = row else { return Err(missing) };
    let (place, version) = match request.version {
        None => (Place::Current, row.current.clone()),
        Some(id) => slot.find(session, &row, id).await?.ok_or(missing)?,
    };
    let id = match version.is_null {
        true => VersionId::Null,
        false => VersionId::Of(version.uid),
    };
    let Some(object) = &version.object else {
        return Err(Condition::Marker {
            id,
            modified: version.modified,
            named: true,
        });
    };
    let change = match &request.change {
        VersionChange::Tags(tags) => Change::Tags(tags.clone()),
        VersionChange::Acl(acl) => Change::Acl(acl.clone()),
        VersionChange::Retention { .. } | VersionChange::LegalHold(_) if !bucket.object_lock => {
            return Err(Condition::NoObjectLock);
        }
        VersionChange::Retention {
            retention,
            bypass_governance,
        } => {
            if !object
                .lock
                .allows_retention(*retention, now, *bypass_governance)
            {
                return Err(Condition::Locked);
            }
            Change::Retention(*retention)
        }
        VersionChange::LegalHold(hold) => Change::LegalHold(*hold),
    };
    objects::change(session, bucket.id, &slot.key, place, &change).await?;
    let id = shown(&bucket, id);
    let event = match &change {
        Change::Tags(tags) if tags.0.is_empty() => Event::TagsDeleted,
        Change::Tags(_) => Event::TagsPut,
        Change::Acl(_) => Event::AclPut,
        Change::Retention(_) | Change::LegalHold(_) => return Ok(id),
    };
    let happened = Happened {
        event,
        key: &slot.key,
        version: id,
        content: None,
        origin: &request.origin,
        at: now,
    };
    tell(session, &slot.uids, &bucket, happened).await?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ord: i64, is_null: bool, null_ord: Option<i64>) -> LockedKey {
        LockedKey {
            current: Locked {
                uid: Uid(ord),
                ord,
                is_null,
                modified: 0,
                object: None,
            },
            null_ord,
        }
    }

    fn planned(
        versioning: Versioning,
        row: Option<LockedKey>,
    ) -> (bool, Option<i64>, bool, i64, Option<i64>) {
        let plan = plan(versioning, row.as_ref());
        (
            plan.keeps_current,
            plan.drops,
            plan.is_null,
            plan.ord,
            plan.null_ord,
        )
    }

    #[test]
    fn a_bucket_that_keeps_versions_takes_none_away() {
        use Versioning::Enabled;
        assert_eq!(planned(Enabled, None), (true, None, false, 1, None));
        assert_eq!(
            planned(Enabled, Some(row(4, false, None))),
            (true, None, false, 5, None)
        );
        // The null version stays where it is.
        assert_eq!(
            planned(Enabled, Some(row(4, true, Some(4)))),
            (true, None, false, 5, Some(4))
        );
        assert_eq!(
            planned(Enabled, Some(row(4, false, Some(2)))),
            (true, None, false, 5, Some(2))
        );
    }

    #[test]
    fn there_is_never_more_than_one_null_version() {
        use Versioning::{Never, Suspended};
        for versioning in [Never, Suspended] {
            let write = |row| planned(versioning, row);
            assert_eq!(write(None), (true, None, true, 1, Some(1)));
            assert_eq!(
                write(Some(row(4, true, Some(4)))),
                (false, None, true, 5, Some(5))
            );
            assert_eq!(
                write(Some(row(4, false, None))),
                (true, None, true, 5, Some(5))
            );
            assert_eq!(
                write(Some(row(4, false, Some(2)))),
                (true, Some(2), true, 5, Some(5))
            );
        }
    }
}
