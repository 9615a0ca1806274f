//! Who asks, and the questions of permission that a request asks on its way.
//!
//! What was allowed is kept with the caller: a read confirms it of the version that it found, and a commit asks
//! again when the bucket has changed.

use std::sync::Arc;

use s3s::{S3Error, S3Request, S3Result, s3_error};

use super::sent::{Document, Proof, Sent};
use super::{Gateway, convert, error};
use crate::auth::{
    Action, Authority, Facts, Identity, Principal, Question, Shown, Target, Verdict,
};
use crate::model::acl::{Acl, Owner};
use crate::model::bucket::Bucket;
use crate::model::ids::SenderId;
use crate::model::object::{Tags, Version};
use crate::namespace::{Condition, Recheck};

/// Who asks, about which bucket; put into the request once it may go on.
#[derive(Clone)]
pub(super) struct Caller {
    /// The holder of the access key; `None` when nobody signed.
    pub(super) identity: Option<Arc<Identity>>,
    /// The request, as policies see it.
    pub(super) sent: Arc<Sent>,
    /// The bucket of the request's path, where the operation needs one that exists.
    pub(super) bucket: Option<Arc<Bucket>>,
    /// What was asked and allowed.
    pub(super) answered: Arc<Vec<Answered>>,
}

/// A question that was answered with yes, to be asked again when the bucket has changed.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    action: Action,
    key: Option<String>,
    object: Found,
}

/// What is known of an object, with nothing borrowed.
#[derive(Debug, Clone)]
pub(super) enum Found {
    Unread,
    Missing,
    New,
    Object { tags: Tags, acl: Option<Acl> },
}

/// A version of a key, as a request names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'k> {
    pub(super) key: &'k str,
    /// `None` for the current one.
    pub(super) version: Option<&'k str>,
}

impl Found {
    fn facts(&self) -> Facts<'_> {
        match self {
            Self::Unread => Facts::Unread,
            Self::Missing => Facts::Missing,
            Self::New => Facts::New,
            Self::Object { tags, acl } => Facts::Found {
                tags,
                acl: acl.as_ref(),
            },
        }
    }
}

impl Caller {
    pub(super) fn new(identity: Option<Arc<Identity>>, sent: Sent) -> Self {
        Self {
            identity,
            sent: Arc::new(sent),
            bucket: None,
            answered: Arc::new(Vec::new()),
        }
    }

    /// Who passed the access check of this request.
    pub(super) fn of<T>(request: &S3Request<T>) -> S3Result<&Self> {
        request
            .extensions
            .get::<Self>()
            .ok_or_else(|| s3_error!(InternalError, "The request was not checked."))
    }

    /// The bucket of the request's path.
    pub(super) fn bucket(&self) -> S3Result<&Arc<Bucket>> {
        self.bucket
            .as_ref()
            .ok_or_else(|| error::of_condition(Condition::NoSuchBucket))
    }

    /// The holder of the access key, for what nobody can do unsigned.
    pub(super) fn signed(&self) -> S3Result<&Arc<Identity>> {
        self.identity.as_ref().ok_or_else(error::access_denied)
    }

    /// The access key that gains possession of what this request sends: only its holder's own requests, and
    /// never a temporary key, whose holder is whoever got it.
    pub(super) fn sender(&self) -> Option<SenderId> {
        let identity = self.identity.as_ref()?;
        let own = self.sent.proof == Proof::Header && !identity.is_temporary();
        own.then_some(identity.sender)
    }

    /// How the request proved who it is from.
    pub(super) fn proof(&self) -> Proof {
        self.sent.proof
    }

    /// The caller as the owner of what it makes; `None` when nobody signed.
    pub(super) fn owner(&self) -> Option<Owner> {
        self.identity.as_ref().map(|identity| Owner {
            id: identity.tenant.owner_id.clone(),
            name: identity.tenant.name.clone(),
        })
    }

    /// Whether the caller is of the tenant that owns a bucket.
    pub(super) fn is_of(&self, bucket: &Bucket) -> bool {
        self.identity
            .as_ref()
            .is_some_and(|identity| identity.tenant.id == bucket.tenant)
    }

    /// The caller with what its document says, for questions that turn on it.
    pub(super) fn with_document(&self, values: Vec<(String, Vec<String>)>) -> Self {
        let mut sent = (*self.sent).clone();
        sent.document = Document::Read(values);
        Self {
            sent: Arc::new(sent),
            ..self.clone()
        }
    }

    /// The questions of this request once more, for a commit that finds its bucket changed: it must not use a
    /// permission that was withdrawn since.
    pub(super) fn recheck(&self, gateway: &Gateway) -> Recheck {
        self.recheck_of(gateway, self.answered.to_vec())
    }

    /// The same for questions that were asked apart.
    pub(super) fn recheck_of(&self, gateway: &Gateway, answered: Vec<Answered>) -> Recheck {
        let (caller, authority) = (self.clone(), Arc::clone(&gateway.authority));
        Arc::new(move |bucket| {
            answered.iter().all(|answered| {
                let target = target(bucket, answered.key.as_deref());
                let facts = answered.object.facts();
                let verdict = caller.decide(&authority, answered.action, target, facts);
                verdict == Verdict::Allowed
            })
        })
    }

    /// Answers again, of the version that was read, what turned on the object: another one may have come since
    /// it was looked at.
    pub(super) fn confirm(&self, gateway: &Gateway, version: &Version) -> S3Result<()> {
        self.confirm_of(gateway, self.bucket()?, &self.answered, version)
    }

    /// The same for questions that were asked apart.
    pub(super) fn confirm_of(
        &self,
        gateway: &Gateway,
        bucket: &Bucket,
        answered: &[Answered],
        version: &Version,
    ) -> S3Result<()> {
        let facts = Facts::Found {
            tags: &version.tags,
            acl: version.acl.as_ref(),
        };
        let turned =
            |answered: &&Answered| matches!(answered.object, Found::Object { .. } | Found::Missing);
        for answered in answered.iter().filter(turned) {
            let target = target(bucket, answered.key.as_deref());
            let verdict = self.decide(&gateway.authority, answered.action, target, facts);
            if verdict != Verdict::Allowed {
                return Err(error::access_denied());
            }
        }
        Ok(())
    }

    fn principal(&self) -> Principal<'_> {
        match &self.identity {
            Some(identity) => Principal::Key(identity),
            None => Principal::Anonymous,
        }
    }

    pub(super) fn decide(
        &self,
        authority: &Authority,
        action: Action,
        target: Target<'_>,
        object: Facts<'_>,
    ) -> Verdict {
        authority.authorize(&Question {
            principal: self.principal(),
            action,
            target,
            object,
            context: &|key| self.sent.value(key),
        })
    }
}

fn target<'t>(bucket: &'t Bucket, key: Option<&'t str>) -> Target<'t> {
    match key {
        Some(key) => Target::Object(bucket, key),
        None => Target::Bucket(bucket),
    }
}

impl Gateway {
    /// The one question of permission, asked for every operation, for every key of a batch and every source of a
    /// copy. With a version id it is the question about versions. Reads the object only when it turns on it.
    pub(super) async fn ask(
        &self,
        caller: &Caller,
        action: Action,
        bucket: &Bucket,
        object: Option<Named<'_>>,
    ) -> S3Result<Answered> {
        let action = match object {
            Some(Named {
                version: Some(_), ..
            }) => action.on_version(),
            _ => action,
        };
        let mut answered = Answered {
            action,
            key: object.map(|object| object.key.to_owned()),
            object: Found::Unread,
        };
        let target = target(bucket, object.map(|object| object.key));
        let decide = |facts| caller.decide(&self.authority, action, target, facts);
        match (decide(Facts::Unread), object) {
            (Verdict::Allowed, _) => return Ok(answered),
            (Verdict::NeedsObject, Some(object)) => {
                answered.object = self.find(bucket, object).await?;
            }
            (Verdict::Denied | Verdict::NeedsObject, _) => return Err(error::access_denied()),
        }
        match decide(answered.object.facts()) {
            Verdict::Allowed => Ok(answered),
            // What is left is the request's own document: whoever reads it asks again.
            Verdict::NeedsObject if matches!(caller.sent.document, Document::Unread(_)) => {
                Ok(answered)
            }
            // Who may list is told by the operation that there is nothing to be allowed.
            Verdict::Denied
                if matches!(answered.object, Found::Missing)
                    && self.may_see(caller, bucket, object.map_or("", |object| object.key)) =>
            {
                Ok(answered)
            }
            Verdict::Denied | Verdict::NeedsObject => Err(error::access_denied()),
        }
    }

    /// The questions that turn on a request's document, once it is read.
    pub(super) async fn ask_document(
        &self,
        caller: &Caller,
        values: Vec<(String, Vec<String>)>,
        actions: &[Action],
        object: Named<'_>,
    ) -> S3Result<Recheck> {
        let caller = caller.with_document(values);
        let bucket = caller.bucket()?;
        let mut answered = Vec::with_capacity(actions.len());
        for action in actions {
            answered.push(self.ask(&caller, *action, bucket, Some(object)).await?);
        }
        Ok(caller.recheck_of(self, answered))
    }

    /// The question about an object that is to be made.
    pub(super) fn ask_of_new(
        &self,
        caller: &Caller,
        action: Action,
        bucket: &Bucket,
        object: Option<Named<'_>>,
    ) -> S3Result<Answered> {
        let answered = Answered {
            action,
            key: object.map(|object| object.key.to_owned()),
            object: Found::New,
        };
        let target = target(bucket, answered.key.as_deref());
        match caller.decide(&self.authority, action, target, answered.object.facts()) {
            Verdict::Allowed => Ok(answered),
            Verdict::Denied | Verdict::NeedsObject => Err(error::access_denied()),
        }
    }

    /// What permission can turn on, of an object.
    async fn find(&self, bucket: &Bucket, object: Named<'_>) -> S3Result<Found> {
        let key = convert::object_key(object.key)?;
        let id = convert::version_id(object.version)?;
        match self.namespace.head(bucket, &key, id).await {
            Ok(version) => Ok(Found::Object {
                tags: version.tags,
                acl: version.acl,
            }),
            Err(Condition::NoSuchKey | Condition::NoSuchVersion | Condition::Marker { .. }) => {
                Ok(Found::Missing)
            }
            Err(condition) => Err(error::of_condition(condition)),
        }
    }

    /// The answer for what was not found: only who may list a bucket learns what is not in it.
    pub(super) fn not_found(
        &self,
        caller: &Caller,
        bucket: &Bucket,
        key: &str,
        condition: Condition,
    ) -> S3Error {
        let is_absent = matches!(
            condition,
            Condition::NoSuchKey
                | Condition::NoSuchVersion
                | Condition::Marker { named: false, .. }
        );
        let hidden = is_absent && !self.may_see(caller, bucket, key);
        match hidden {
            true => error::access_denied(),
            false => error::of_condition(condition),
        }
    }

    /// Whether the caller may list the keys that begin with `key`, and so learn that it is not there.
    fn may_see(&self, caller: &Caller, bucket: &Bucket, key: &str) -> bool {
        let prefix = ("s3:prefix".to_owned(), vec![key.to_owned()]);
        // Who may list everything need not have the question made anew.
        self.may_list(caller, bucket) || self.may_list(&caller.with_document(vec![prefix]), bucket)
    }

    /// Whether the caller may list a bucket's keys.
    pub(super) fn may_list(&self, caller: &Caller, bucket: &Bucket) -> bool {
        let target = Target::Bucket(bucket);
        let verdict = caller.decide(&self.authority, Action::ListBucket, target, Facts::Unread);
        verdict == Verdict::Allowed
    }

    /// Which of the account's buckets the caller is shown.
    pub(super) fn shown_buckets(&self, caller: &Caller) -> Shown {
        self.authority.shown(&Question {
            principal: caller.principal(),
            action: Action::ListAllMyBuckets,
            target: Target::Account,
            object: Facts::Unread,
            context: &|key| caller.sent.value(key),
        })
    }

    /// Asks about a bucket that is to be made, once its document is read.
    pub(super) fn ask_new_bucket(&self, caller: &Caller, name: &str) -> S3Result<()> {
        let target = Target::NewBucket(name);
        let decide = caller.decide(&self.authority, Action::CreateBucket, target, Facts::Unread);
        match decide {
            Verdict::Allowed => Ok(()),
            Verdict::Denied | Verdict::NeedsObject => Err(error::access_denied()),
        }
    }
}

/// The condition keys that tags in a document give values to.
pub(super) fn values_of(tags: &Tags) -> Vec<(String, Vec<String>)> {
    let names: Vec<String> = tags.0.iter().map(|(name, _)| name.clone()).collect();
    let each = tags.0.iter();
    let mut values: Vec<_> = each
        .map(|(name, value)| {
            let key = format!("s3:requestobjecttag/{name}");
            (key, vec![value.clone()])
        })
        .collect();
    if !names.is_empty() {
        values.push(("s3:requestobjecttagkeys".to_owned(), names));
    }
    values
}
