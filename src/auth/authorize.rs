//! The one decision: whether somebody may do something, from policies, access control lists and settings.
//!
//! The rules, in AWS's order ("How Amazon S3 authorizes a request"), with three choices of our own:
//!
//! - An explicit denial wins, wherever it stands.
//! - The holders of a tenant's keys may do everything in the tenant's buckets, with every object in them,
//!   whoever wrote it (a choice: at AWS an object that another account wrote is out of the bucket owner's reach).
//!   A key with a policy of its own needs that policy's word, or the bucket's policy must name the key or
//!   everybody. A temporary key needs its session policy's word too.
//! - Others need the bucket policy's word or a list's; the holder of a key with a policy needs that as well.
//! - Lists count unless the bucket's ownership is `BucketOwnerEnforced`. A bucket without that setting is
//!   `ObjectWriter` (a choice: applications that send lists expect them to count).
//! - A tenant's keys without policies can always read, replace and delete the bucket's policy (a choice, made
//!   at AWS for the account's root alone): a policy that denies its owner is not for ever.
//!
//! A question about an object may turn on its tags or its list. The common one does not, so the object is read
//! only when [`Verdict::NeedsObject`] asks for it.

use super::policy::{Judgement, Request, Truth, Value, Who, resource};
use super::{Action, Authority, Identity, Place, Policy};
use crate::model::acl::{Acl, Grantee, Permission};
use crate::model::bucket::{Bucket, Ownership, PublicAccessBlock};
use crate::model::fault::Fault;
use crate::model::ids::BucketId;
use crate::model::object::Tags;

use std::sync::Arc;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub enum Principal<'a> {
    /// Nobody said who they are.
    Anonymous,
    /// The holder of an access key, proven by a signature.
    Key(&'a Identity),
    /// A part of S3 itself, by its name such as `logging.s3.amazonaws.com`.
    Service(&'a str),
}

/// What it is about.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// The caller's account.
    Account,
    /// A bucket that is to be made.
    NewBucket(&'a str),
    /// A bucket.
    Bucket(&'a Bucket),
    /// A key of a bucket.
    Object(&'a Bucket, &'a str),
}

/// What is known of the object.
#[derive(Debug, Clone, Copy)]
pub enum Facts<'a> {
    /// Nobody has looked.
    Unread,
    /// There is none.
    Missing,
    /// The request itself makes it, and was allowed to.
    New,
    /// What permission can turn on.
    Found {
        /// Its tags.
        tags: &'a Tags,
        /// Its list; `None` is the bucket's owner's, and private.
        acl: Option<&'a Acl>,
    },
}

/// One question of permission.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// Who asks.
    pub principal: Principal<'a>,
    /// For what.
    pub action: Action,
    /// About what.
    pub target: Target<'a>,
    /// What is known of the object.
    pub object: Facts<'a>,
    /// The values that condition keys have for the request, asked by names in lower case, except for what
    /// follows a slash. Those of the principal and the object are known here.
    pub context: &'a (dyn Fn(&str) -> Value + Sync),
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Allowed,
    /// No.
    Denied,
    /// It depends on the object: ask again with its [`Facts`].
    NeedsObject,
}

impl From<Truth> for Verdict {
    fn from(allowed: Truth) -> Self {
        match allowed {
            Truth::No => Self::Denied,
            Truth::Unknown => Self::NeedsObject,
            Truth::Yes => Self::Allowed,
        }
    }
}

/// Which of its tenant's buckets a caller is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// All of them.
    All,
    /// Those whose keys it may list.
    Listable,
    /// The question itself is denied.
    None,
}

/// A bucket's policy as it was read.
#[derive(Debug)]
pub(super) struct BucketPolicy {
    policy: Policy,
    is_public: bool,
}

/// Which policies are remembered: a revision's is never another's.
pub(super) type Revision = (BucketId, i64);

/// What a list must grant for an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needed {
    OnBucket(Permission),
    OnObject(Permission),
}

impl Authority {
    /// Whether the principal may do the action to the target: the one place where that is decided, asked by
    /// every facade for every operation, for every key of a batch and for every source of a copy. See the
    /// module's rules.
    pub fn authorize(&self, question: &Question<'_>) -> Verdict {
        let (bucket, key) = match question.target {
            Target::Account => return question.of_account("*"),
            Target::NewBucket(name) => return question.of_account(&resource(name, None)),
            Target::Bucket(bucket) => (bucket, None),
            Target::Object(bucket, key) => (bucket, Some(key)),
        };
        let is_own = match question.principal {
            Principal::Key(identity) => identity.tenant.id == bucket.tenant,
            Principal::Anonymous | Principal::Service(_) => false,
        };
        if is_own && bucket.settings.policy.is_none() && !question.has_own_policies() {
            return Verdict::Allowed;
        }
        if is_own && question.action.is_of_policy() && !question.has_own_policies() {
            return Verdict::Allowed;
        }
        let policy = match self.bucket_policy(bucket) {
            Ok(policy) => policy,
            Err(fault) => {
                // It was checked when it was set. What nobody can read, nobody is let in by.
                tracing::error!(%fault, "read bucket policy");
                return Verdict::Denied;
            }
        };
        let resource = resource(bucket.name.as_str(), key);
        let own = question.own(&resource);
        let said = policy.as_ref().map_or(Judgement::SILENT, |policy| {
            question.judge(&policy.policy, &resource)
        });
        let allowed = if is_own {
            own.session.and(own.identity.or(said.allowed))
        } else {
            let is_closed = blocked(bucket).restrict_public_buckets
                && policy.is_some_and(|policy| policy.is_public);
            let is_service = matches!(question.principal, Principal::Service(_));
            if is_closed && !is_service {
                return Verdict::Denied;
            }
            let granted = said.allowed.or(said.allowed_account);
            let granted = match granted {
                Truth::Yes => granted,
                _ => granted.or(question.listed(bucket)),
            };
            own.session.and(own.identity).and(granted)
        };
        allowed.and(!own.denied.or(said.denied)).into()
    }

    /// Which of its tenant's buckets a caller is shown. At AWS it is all or an error; a key that was given some
    /// buckets only is shown those, as clients expect that list before any bucket (a choice of ours).
    pub fn shown(&self, question: &Question<'_>) -> Shown {
        if !matches!(question.principal, Principal::Key(_)) {
            return Shown::None;
        }
        let own = question.own("*");
        match (own.denied, own.identity.and(own.session)) {
            (Truth::Yes | Truth::Unknown, _) => Shown::None,
            (Truth::No, Truth::Yes) => Shown::All,
            (Truth::No, _) => Shown::Listable,
        }
    }

    /// A bucket's policy, read once per revision.
    fn bucket_policy(&self, bucket: &Bucket) -> Result<Option<Arc<BucketPolicy>>, Fault> {
        let Some(text) = &bucket.settings.policy else {
            return Ok(None);
        };
        let revision: Revision = (bucket.id, bucket.rev);
        if let Some(known) = self.policies.get(&revision) {
            return Ok(Some(known));
        }
        let policy = Policy::stored(text, Place::Bucket(bucket.name.as_str()))?;
        let read = Arc::new(BucketPolicy {
            is_public: policy.is_public(),
            policy,
        });
        self.policies.insert(revision, Arc::clone(&read));
        Ok(Some(read))
    }
}

/// What a caller's own policies say.
struct Own {
    denied: Truth,
    /// The key's policy allows it, or there is none.
    identity: Truth,
    /// The session's policy allows it, or there is none.
    session: Truth,
}

impl Question<'_> {
    fn has_own_policies(&self) -> bool {
        match self.principal {
            Principal::Key(identity) => {
                identity.policy.is_some() || identity.session_policy().is_some()
            }
            Principal::Anonymous | Principal::Service(_) => false,
        }
    }

    /// What is about no bucket that exists: the account's own affair.
    fn of_account(&self, resource: &str) -> Verdict {
        if !matches!(self.principal, Principal::Key(_)) || !self.action.is_of_account() {
            return Verdict::Denied;
        }
        let own = self.own(resource);
        own.identity.and(own.session).and(!own.denied).into()
    }

    fn own(&self, resource: &str) -> Own {
        let mut own = Own {
            denied: Truth::No,
            identity: Truth::Yes,
            session: Truth::Yes,
        };
        let Principal::Key(identity) = self.principal else {
            return own;
        };
        if let Some(policy) = &identity.policy {
            let said = self.judge(policy, resource);
            own.denied = own.denied.or(said.denied);
            own.identity = said.allowed;
        }
        if let Some(policy) = identity.session_policy() {
            let said = self.judge(policy, resource);
            own.denied = own.denied.or(said.denied);
            own.session = said.allowed;
        }
        own
    }

    fn judge(&self, policy: &Policy, resource: &str) -> Judgement {
        policy.judge(&Request {
            who: self.who(),
            action: self.action.as_str(),
            resource,
            lookup: &|key| self.value(key),
        })
    }

    fn who(&self) -> Who<'_> {
        match self.principal {
            Principal::Anonymous => Who::Anonymous,
            Principal::Service(name) => Who::Service(name),
            Principal::Key(identity) => Who::Key {
                tenant: &identity.tenant.name,
                owner_id: &identity.tenant.owner_id,
                access_key: identity.holder(),
                session: identity.role(),
            },
        }
    }

    /// The value of a condition key, given as a policy writes it.
    fn value(&self, key: &str) -> Value {
        let (name, tag) = match key.split_once('/') {
            Some((name, tag)) => (name.to_ascii_lowercase(), Some(tag)),
            None => (key.to_ascii_lowercase(), None),
        };
        let one = |text: Option<String>| text.map_or(Value::Absent, |text| Value::Is(vec![text]));
        match (name.as_str(), tag) {
            ("s3:existingobjecttag", Some(tag)) => match self.object {
                Facts::Unread if matches!(self.target, Target::Object(..)) => Value::Unknown,
                Facts::Unread | Facts::Missing | Facts::New => Value::Absent,
                Facts::Found { tags, .. } => {
                    let found = tags.0.iter().find(|(name, _)| name == tag);
                    one(found.map(|(_, value)| value.clone()))
                }
            },
            ("aws:username", None) => one(self.identity().and_then(|identity| {
                let is_user = identity.role().is_none();
                is_user.then(|| identity.holder().to_owned())
            })),
            ("aws:userid", None) => one(Some(
                self.identity()
                    .map_or_else(|| "anonymous".to_owned(), Identity::user_id),
            )),
            ("aws:principaltype", None) => one(Some(
                match self.identity() {
                    None => "Anonymous",
                    Some(identity) if identity.role().is_some() => "AssumedRole",
                    Some(_) => "User",
                }
                .to_owned(),
            )),
            ("aws:principalarn", None) => one(self.identity().map(Identity::arn)),
            ("aws:principalaccount", None) => {
                one(self.identity().map(|identity| identity.tenant.name.clone()))
            }
            (name, Some(tag)) => (self.context)(&format!("{name}/{tag}")),
            (name, None) => (self.context)(name),
        }
    }

    fn identity(&self) -> Option<&Identity> {
        match self.principal {
            Principal::Key(identity) => Some(identity),
            Principal::Anonymous | Principal::Service(_) => None,
        }
    }

    /// Whether a list lets in somebody who is not of the bucket's tenant.
    fn listed(&self, bucket: &Bucket) -> Truth {
        let is_new = matches!(self.object, Facts::New);
        // Who makes an object says whom it lets in: it will own it. What it may say there, the write decides.
        if is_new && self.action == Action::PutObjectAcl && self.identity().is_some() {
            return Truth::Yes;
        }
        if bucket.settings.ownership == Some(Ownership::BucketOwnerEnforced) {
            return Truth::No;
        }
        let ignore_public = blocked(bucket).ignore_public_acls;
        let granted = |acl: Option<&Acl>, needed| {
            let grants = acl.into_iter().flat_map(|acl| &acl.grants);
            grants
                .filter(|grant| covers(grant.permission, needed))
                .any(|grant| self.is_grantee(&grant.grantee, ignore_public))
        };
        if is_new {
            // Of what a list lets somebody make, it lets it set everything.
            return granted(bucket.settings.acl.as_ref(), Permission::Write).into();
        }
        match needed(self.action) {
            None => Truth::No,
            Some(Needed::OnBucket(needed)) => granted(bucket.settings.acl.as_ref(), needed).into(),
            Some(Needed::OnObject(needed)) => match self.object {
                Facts::Unread => Truth::Unknown,
                Facts::Missing | Facts::New => Truth::No,
                Facts::Found { acl, .. } => {
                    let is_owner = self.identity().is_some_and(|identity| {
                        acl.is_some_and(|acl| acl.owner.id == identity.tenant.owner_id)
                    });
                    // Who owns an object can always let itself in again.
                    let is_list = matches!(needed, Permission::ReadAcp | Permission::WriteAcp);
                    (is_owner && is_list || granted(acl, needed)).into()
                }
            },
        }
    }

    fn is_grantee(&self, grantee: &Grantee, ignore_public: bool) -> bool {
        match (grantee, self.principal) {
            (Grantee::AllUsers, Principal::Anonymous | Principal::Key(_))
            | (Grantee::AuthenticatedUsers, Principal::Key(_)) => !ignore_public,
            (Grantee::Tenant(owner), Principal::Key(identity)) => {
                owner.id == identity.tenant.owner_id
            }
            (Grantee::LogDelivery, Principal::Service(name)) => name == "logging.s3.amazonaws.com",
            _ => false,
        }
    }
}

/// What is refused or ignored of public access to a bucket.
fn blocked(bucket: &Bucket) -> PublicAccessBlock {
    bucket.settings.public_access_block.unwrap_or_default()
}

fn covers(granted: Permission, needed: Permission) -> bool {
    granted == needed || granted == Permission::FullControl
}

/// "Mapping of ACL permissions and access policy permissions" in the S3 user guide. What is not in it, no list
/// can grant.
fn needed(action: Action) -> Option<Needed> {
    use Needed::{OnBucket, OnObject};
    use Permission::{Read, ReadAcp, Write, WriteAcp};
    Some(match action {
        Action::ListBucket | Action::ListBucketVersions | Action::ListBucketMultipartUploads => {
            OnBucket(Read)
        }
        Action::PutObject
        | Action::DeleteObject
        | Action::AbortMultipartUpload
        | Action::ListMultipartUploadParts => OnBucket(Write),
        Action::GetBucketAcl => OnBucket(ReadAcp),
        Action::PutBucketAcl => OnBucket(WriteAcp),
        Action::GetObject
        | Action::GetObjectVersion
        | Action::GetObjectAttributes
        | Action::GetObjectVersionAttributes => OnObject(Read),
        Action::GetObjectAcl | Action::GetObjectVersionAcl => OnObject(ReadAcp),
        Action::PutObjectAcl | Action::PutObjectVersionAcl => OnObject(WriteAcp),
        _ => return None,
    })
}
