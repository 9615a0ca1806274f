//! Access control lists: as headers, as documents, and the operations that read and replace them.
//!
//! Where a list is private to the bucket's owner nothing is stored: that is what no list means.

use std::sync::Arc;

use http::HeaderMap;
use s3s::dto::{self, *};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::access::Caller;
use super::body::DocumentDigests;
use super::notification::origin_of;
use super::{Gateway, convert, error};
use crate::model::acl::{self, Acl, Permission};
use crate::model::bucket::{Bucket, Ownership};
use crate::namespace::{ChangeRequest, VersionChange};

/// Most grants of a list ("Access control list overview").
const GRANTS_MAX: usize = 100;
/// The groups that grants may name.
const GROUPS: [(acl::Grantee, &str); 3] = [
    (
        acl::Grantee::AllUsers,
        "http://acs.amazonaws.com/groups/global/AllUsers",
    ),
    (
        acl::Grantee::AuthenticatedUsers,
        "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
    ),
    (
        acl::Grantee::LogDelivery,
        "http://acs.amazonaws.com/groups/s3/LogDelivery",
    ),
];
const PERMISSIONS: [(Permission, &str); 5] = [
    (Permission::FullControl, "FULL_CONTROL"),
    (Permission::Read, "READ"),
    (Permission::Write, "WRITE"),
    (Permission::ReadAcp, "READ_ACP"),
    (Permission::WriteAcp, "WRITE_ACP"),
];
/// The headers that grant, and what.
const GRANT_HEADERS: [(&str, Permission); 5] = [
    ("x-amz-grant-read", Permission::Read),
    ("x-amz-grant-write", Permission::Write),
    ("x-amz-grant-read-acp", Permission::ReadAcp),
    ("x-amz-grant-write-acp", Permission::WriteAcp),
    ("x-amz-grant-full-control", Permission::FullControl),
];
/// Whom AWS has write what nobody signed: the canonical user id of nobody.
const ANONYMOUS: &str = "65a011a29cdf8ec533ec3d1ccaae921c";
/// Whom the canned list `aws-exec-read` lets read: the canonical user id of EC2.
const EC2: (&str, &str) = (
    "6aa5a366c34c1cbe25dc49211496e913e0351eb0e8c37aa3477e40942ec6b97c",
    "za-team",
);

/// What a list is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    Bucket,
    Object,
}

/// A list as the headers of a request ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Nothing,
    Canned(String),
    Granted(Vec<acl::Grant>),
}

fn grant(grantee: acl::Grantee, permission: Permission) -> acl::Grant {
    acl::Grant {
        grantee,
        permission,
    }
}

/// The list that lets in its owner alone.
fn private(owner: &acl::Owner) -> Acl {
    Acl {
        grants: vec![grant(
            acl::Grantee::Tenant(owner.clone()),
            Permission::FullControl,
        )],
        owner: owner.clone(),
    }
}

/// A canned list ("Canned ACL" in the S3 user guide); `None` for a name that is none.
fn canned(name: &str, about: About, owner: &acl::Owner, bucket_owner: &acl::Owner) -> Option<Acl> {
    use acl::Grantee::{AllUsers, AuthenticatedUsers, LogDelivery, Tenant};
    let to_bucket_owner = |permission| match about {
        About::Object if owner != bucket_owner => {
            vec![grant(Tenant(bucket_owner.clone()), permission)]
        }
        About::Object | About::Bucket => Vec::new(),
    };
    let more = match name {
        "private" => Vec::new(),
        "public-read" => vec![grant(AllUsers, Permission::Read)],
        "public-read-write" => vec![
            grant(AllUsers, Permission::Read),
            grant(AllUsers, Permission::Write),
        ],
        "authenticated-read" => vec![grant(AuthenticatedUsers, Permission::Read)],
        "aws-exec-read" => vec![grant(Tenant(ec2()), Permission::Read)],
        "bucket-owner-read" => to_bucket_owner(Permission::Read),
        "bucket-owner-full-control" => to_bucket_owner(Permission::FullControl),
        "log-delivery-write" => vec![
            grant(LogDelivery, Permission::Write),
            grant(LogDelivery, Permission::ReadAcp),
        ],
        _ => return None,
    };
    let mut list = private(owner);
    list.grants.extend(more);
    Some(list)
}

fn ec2() -> acl::Owner {
    acl::Owner {
        id: EC2.0.to_owned(),
        name: EC2.1.to_owned(),
    }
}

fn nobody() -> acl::Owner {
    acl::Owner {
        id: ANONYMOUS.to_owned(),
        name: String::new(),
    }
}

/// Whether a list lets in everybody, or everybody with a key.
fn is_public(list: &Acl) -> bool {
    list.grants.iter().any(|grant| {
        matches!(
            grant.grantee,
            acl::Grantee::AllUsers | acl::Grantee::AuthenticatedUsers
        )
    })
}

/// Whether a list grants anything to anybody but its owner.
pub(super) fn grants_others(list: &Acl) -> bool {
    list.grants.iter().any(|grant| match &grant.grantee {
        acl::Grantee::Tenant(tenant) => tenant.id != list.owner.id,
        _ => true,
    })
}

/// The list as it is stored: nothing for what no list means.
fn stored(list: Acl, bucket_owner: &acl::Owner) -> Option<Acl> {
    (list != private(bucket_owner)).then_some(list)
}

fn not_supported() -> s3s::S3Error {
    error::custom(
        "AccessControlListNotSupported",
        400,
        "The bucket does not allow ACLs",
    )
}

fn malformed() -> s3s::S3Error {
    error::custom(
        "MalformedACLError",
        400,
        "The XML you provided was not well-formed or did not validate against our published schema",
    )
}

pub(super) fn conflicts_with_ownership() -> s3s::S3Error {
    error::custom(
        "InvalidBucketAclWithObjectOwnership",
        400,
        "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting",
    )
}

fn is_enforced(ownership: Option<Ownership>) -> bool {
    ownership == Some(Ownership::BucketOwnerEnforced)
}

impl Gateway {
    /// The list that the headers of a request ask for.
    async fn wanted_list(&self, headers: &HeaderMap) -> S3Result<Wanted> {
        let canned = convert::header(headers, "x-amz-acl")?;
        let mut grants = Vec::new();
        let mut has_grants = false;
        for (name, permission) in GRANT_HEADERS {
            let Some(text) = convert::header(headers, name)? else {
                continue;
            };
            has_grants = true;
            for entry in text.split(',').map(str::trim) {
                let (kind, value) = entry
                    .split_once('=')
                    .ok_or_else(|| error::invalid_argument("Argument format not recognized"))?;
                let value = value.trim().trim_matches('"');
                let grantee = match kind.trim().to_ascii_lowercase().as_str() {
                    "id" => self.grantee_by_id(value).await?,
                    "uri" => grantee_by_uri(value)?,
                    "emailaddress" => return Err(unresolvable()),
                    _ => return Err(error::invalid_argument("Argument format not recognized")),
                };
                grants.push(grant(grantee, permission));
            }
        }
        match (canned, has_grants) {
            (Some(_), true) => Err(s3_error!(
                InvalidRequest,
                "Specifying both Canned ACLs and Header Grants is not allowed"
            )),
            (Some(name), false) => Ok(Wanted::Canned(name.to_owned())),
            (None, true) if grants.len() > GRANTS_MAX => Err(malformed()),
            (None, true) => Ok(Wanted::Granted(grants)),
            (None, false) => Ok(Wanted::Nothing),
        }
    }

    async fn grantee_by_id(&self, id: &str) -> S3Result<acl::Grantee> {
        let owner = if id == EC2.0 {
            ec2()
        } else if id == ANONYMOUS {
            nobody()
        } else {
            let found = self.authority.tenant_by_owner_id(id).await;
            let found = found.map_err(error::of_fault)?;
            let tenant = found.ok_or_else(|| error::invalid_argument("Invalid id"))?;
            acl::Owner {
                id: tenant.owner_id,
                name: tenant.name,
            }
        };
        Ok(acl::Grantee::Tenant(owner))
    }

    /// The list of an object that is to be made, from the headers or form fields of the request; `None` for what
    /// the bucket's owner owns alone.
    pub(super) async fn acl_of_new_object(
        &self,
        caller: &Caller,
        bucket: &Bucket,
        headers: &HeaderMap,
    ) -> S3Result<Option<Acl>> {
        let wanted = self.wanted_list(headers).await?;
        if wanted == Wanted::Nothing && caller.is_of(bucket) {
            return Ok(None);
        }
        let bucket_owner = self.owner_of(bucket).await?;
        let writer = caller.owner().unwrap_or_else(nobody);
        let ownership = bucket.settings.ownership.unwrap_or_default();
        if ownership == Ownership::BucketOwnerEnforced {
            return match allowed_when_enforced(&wanted, &bucket_owner) {
                true => Ok(None),
                false => Err(not_supported()),
            };
        }
        let hands_over = ownership == Ownership::BucketOwnerPreferred
            && matches!(&wanted, Wanted::Canned(name) if name == "bucket-owner-full-control");
        let owner = if hands_over { &bucket_owner } else { &writer };
        let list = resolve(wanted, About::Object, owner, &bucket_owner)?;
        refuse_blocked(bucket, &list)?;
        Ok(stored(list, &bucket_owner))
    }

    /// The list of a bucket that is to be made.
    pub(super) async fn acl_of_new_bucket(
        &self,
        owner: &acl::Owner,
        ownership: Option<Ownership>,
        headers: &HeaderMap,
    ) -> S3Result<Option<Acl>> {
        let wanted = self.wanted_list(headers).await?;
        let list = resolve(wanted, About::Bucket, owner, owner)?;
        if is_enforced(ownership) && grants_others(&list) {
            return Err(conflicts_with_ownership());
        }
        Ok(stored(list, owner))
    }

    /// The list that a request replaces another with: in its headers or in its document.
    async fn replacement(
        &self,
        about: About,
        bucket: &Bucket,
        headers: &HeaderMap,
        document: Option<AccessControlPolicy>,
        owner: &acl::Owner,
    ) -> S3Result<Acl> {
        let bucket_owner = self.owner_of(bucket).await?;
        let enforced = is_enforced(bucket.settings.ownership);
        let wanted = self.wanted_list(headers).await?;
        let list = match (wanted, document) {
            (Wanted::Nothing, None) => {
                return Err(error::custom(
                    "MissingSecurityHeader",
                    400,
                    "Your request was missing a required header",
                ));
            }
            (Wanted::Nothing, Some(document)) => self.of_document(document, owner).await?,
            (Wanted::Canned(_) | Wanted::Granted(_), Some(_)) => {
                return Err(error::custom(
                    "UnexpectedContent",
                    400,
                    "This request does not support content",
                ));
            }
            (wanted, None) => {
                if enforced && !allowed_when_enforced(&wanted, &bucket_owner) {
                    return Err(not_supported());
                }
                resolve(wanted, about, owner, &bucket_owner)?
            }
        };
        if enforced && list != private(&bucket_owner) {
            return Err(not_supported());
        }
        refuse_blocked(bucket, &list)?;
        Ok(list)
    }

    /// A list as a document has it, of what `owner` owns.
    async fn of_document(
        &self,
        document: AccessControlPolicy,
        owner: &acl::Owner,
    ) -> S3Result<Acl> {
        let named = document.owner.and_then(|owner| owner.id);
        let named = named.ok_or_else(malformed)?;
        // A list gives rights, never the thing itself.
        if named != owner.id {
            return Err(error::access_denied());
        }
        let mut grants = Vec::new();
        let given = document.grants.ok_or_else(malformed)?;
        if given.len() > GRANTS_MAX {
            return Err(malformed());
        }
        for given in given {
            let wanted = given.permission.ok_or_else(malformed)?;
            let permission = PERMISSIONS
                .iter()
                .find(|(_, name)| *name == wanted.as_str())
                .map(|(permission, _)| *permission)
                .ok_or_else(malformed)?;
            let grantee = given.grantee.ok_or_else(malformed)?;
            let grantee = match (grantee.type_.as_str(), grantee.id, grantee.uri) {
                (Type::CANONICAL_USER, Some(id), _) => self.grantee_by_id(&id).await?,
                (Type::GROUP, _, Some(uri)) => grantee_by_uri(&uri)?,
                (Type::AMAZON_CUSTOMER_BY_EMAIL, _, _) => return Err(unresolvable()),
                _ => return Err(malformed()),
            };
            grants.push(grant(grantee, permission));
        }
        Ok(Acl {
            owner: owner.clone(),
            grants,
        })
    }

    pub(super) async fn get_bucket_acl(
        &self,
        request: S3Request<GetBucketAclInput>,
    ) -> S3Result<S3Response<GetBucketAclOutput>> {
        let bucket = Caller::of(&request)?.bucket()?;
        let list = self.bucket_acl(bucket).await?;
        Ok(S3Response::new(GetBucketAclOutput {
            grants: Some(grants_of(&list)),
            owner: Some(owner_dto(list.owner)),
        }))
    }

    /// A bucket's list, also where none is stored.
    async fn bucket_acl(&self, bucket: &Bucket) -> S3Result<Acl> {
        let owner = self.owner_of(bucket).await?;
        let list = bucket.settings.acl.clone();
        let list = list.filter(|_| !is_enforced(bucket.settings.ownership));
        Ok(list.unwrap_or_else(|| private(&owner)))
    }

    pub(super) async fn put_bucket_acl(
        &self,
        request: S3Request<PutBucketAclInput>,
    ) -> S3Result<S3Response<PutBucketAclOutput>> {
        let caller = Caller::of(&request)?.clone();
        DocumentDigests::compare(&request)?;
        let bucket = caller.bucket()?;
        let owner = self.owner_of(bucket).await?;
        let list = self
            .replacement(
                About::Bucket,
                bucket,
                &request.headers,
                request.input.access_control_policy,
                &owner,
            )
            .await?;
        let list = stored(list, &owner);
        self.change_bucket(&caller, move |bucket| {
            bucket.settings.acl.clone_from(&list);
        })
        .await?;
        Ok(S3Response::new(PutBucketAclOutput::default()))
    }

    pub(super) async fn get_object_acl(
        &self,
        request: S3Request<GetObjectAclInput>,
    ) -> S3Result<S3Response<GetObjectAclOutput>> {
        let caller = Caller::of(&request)?;
        let (bucket, input) = (caller.bucket()?, &request.input);
        let key = convert::object_key(&input.key)?;
        let id = convert::version_id(input.version_id.as_deref())?;
        let version = self.namespace.head(bucket, &key, id).await;
        let version = version
            .map_err(|condition| self.not_found(caller, bucket, input.key.as_str(), condition))?;
        caller.confirm(self, &version)?;
        let list = self.object_acl(bucket, version.acl.clone()).await?;
        let mut response = S3Response::new(GetObjectAclOutput {
            grants: Some(grants_of(&list)),
            owner: Some(owner_dto(list.owner)),
            request_charged: None,
        });
        set_version(&mut response, super::read::shown(bucket, version.id()));
        Ok(response)
    }

    /// An object's list, also where none is stored or none counts.
    async fn object_acl(&self, bucket: &Bucket, list: Option<Acl>) -> S3Result<Acl> {
        match list.filter(|_| !is_enforced(bucket.settings.ownership)) {
            Some(list) => Ok(list),
            None => Ok(private(&self.owner_of(bucket).await?)),
        }
    }

    pub(super) async fn put_object_acl(
        &self,
        request: S3Request<PutObjectAclInput>,
    ) -> S3Result<S3Response<PutObjectAclOutput>> {
        let caller = Caller::of(&request)?.clone();
        let origin = origin_of(&request)?;
        DocumentDigests::compare(&request)?;
        let (bucket, input) = (caller.bucket()?, request.input);
        let key = convert::object_key(&input.key)?;
        let id = convert::version_id(input.version_id.as_deref())?;
        let version = self.namespace.head(bucket, &key, id).await;
        let version = version
            .map_err(|condition| self.not_found(&caller, bucket, input.key.as_str(), condition))?;
        caller.confirm(self, &version)?;
        let owner = self.object_acl(bucket, version.acl.clone()).await?.owner;
        let list = self
            .replacement(
                About::Object,
                bucket,
                &request.headers,
                input.access_control_policy,
                &owner,
            )
            .await?;
        let bucket_owner = self.owner_of(bucket).await?;
        let changed = self
            .namespace
            .change(ChangeRequest {
                bucket: Arc::clone(bucket),
                key,
                origin,
                // The version whose owner was looked at.
                version: Some(version.id()),
                change: VersionChange::Acl(stored(list, &bucket_owner)),
                recheck: Some(caller.recheck(self)),
            })
            .await
            .map_err(error::of_condition)?;
        let mut response = S3Response::new(PutObjectAclOutput::default());
        set_version(&mut response, changed.map(|id| id.to_string()));
        Ok(response)
    }
}

/// Only what gives the bucket's owner everything can be asked for where lists are of no effect.
fn allowed_when_enforced(wanted: &Wanted, bucket_owner: &acl::Owner) -> bool {
    match wanted {
        Wanted::Nothing => true,
        Wanted::Canned(name) => name == "bucket-owner-full-control",
        Wanted::Granted(grants) => *grants == private(bucket_owner).grants,
    }
}

fn resolve(
    wanted: Wanted,
    about: About,
    owner: &acl::Owner,
    bucket_owner: &acl::Owner,
) -> S3Result<Acl> {
    match wanted {
        Wanted::Nothing => Ok(private(owner)),
        Wanted::Granted(grants) => Ok(Acl {
            owner: owner.clone(),
            grants,
        }),
        Wanted::Canned(name) => canned(&name, about, owner, bucket_owner)
            .ok_or_else(|| error::invalid_argument("The canned ACL is not one.")),
    }
}

/// Refuses a public list where the bucket blocks such.
fn refuse_blocked(bucket: &Bucket, list: &Acl) -> S3Result<()> {
    let block = bucket.settings.public_access_block.unwrap_or_default();
    if block.block_public_acls && is_public(list) {
        Err(error::access_denied())
    } else {
        Ok(())
    }
}

fn grantee_by_uri(uri: &str) -> S3Result<acl::Grantee> {
    GROUPS
        .iter()
        .find(|(_, name)| *name == uri)
        .map(|(grantee, _)| grantee.clone())
        .ok_or_else(|| error::invalid_argument("Invalid group uri"))
}

/// Tenants have no addresses, so none names one.
fn unresolvable() -> s3s::S3Error {
    s3_error!(
        UnresolvableGrantByEmailAddress,
        "The e-mail address you provided does not match any account on record."
    )
}

/// An owner as answers have it.
pub(super) fn owner_dto(owner: acl::Owner) -> dto::Owner {
    dto::Owner {
        id: Some(owner.id),
        display_name: Some(owner.name).filter(|name| !name.is_empty()),
    }
}

/// The grants of a list, those to groups first: their order means nothing, and some clients sort them by names
/// that groups have none of.
fn grants_of(list: &Acl) -> Vec<dto::Grant> {
    let is_group = |grant: &&acl::Grant| !matches!(grant.grantee, acl::Grantee::Tenant(_));
    let groups = list.grants.iter().filter(is_group);
    let tenants = list.grants.iter().filter(|grant| !is_group(grant));
    let named = groups.chain(tenants).map(|grant| {
        let group = |kind: &acl::Grantee| {
            let found = GROUPS.iter().find(|(grantee, _)| grantee == kind);
            found.map(|(_, uri)| (*uri).to_owned())
        };
        let grantee = match &grant.grantee {
            acl::Grantee::Tenant(owner) => dto::Grantee {
                display_name: Some(owner.name.clone()).filter(|name| !name.is_empty()),
                email_address: None,
                id: Some(owner.id.clone()),
                type_: Type::from_static(Type::CANONICAL_USER),
                uri: None,
            },
            kind => dto::Grantee {
                display_name: None,
                email_address: None,
                id: None,
                type_: Type::from_static(Type::GROUP),
                uri: group(kind),
            },
        };
        let found = PERMISSIONS
            .iter()
            .find(|(kind, _)| *kind == grant.permission);
        dto::Grant {
            grantee: Some(grantee),
            permission: found.map(|(_, name)| dto::Permission::from_static(name)),
        }
    });
    named.collect()
}

fn set_version<T>(response: &mut S3Response<T>, id: Option<String>) {
    if let Some(id) = id.and_then(|id| http::HeaderValue::try_from(id).ok()) {
        response.headers.insert("x-amz-version-id", id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> acl::Owner {
        acl::Owner {
            id: format!("{name}-id"),
            name: name.to_owned(),
        }
    }

    fn names(list: &Acl) -> Vec<String> {
        let grants = list.grants.iter().map(|grant| match &grant.grantee {
            acl::Grantee::Tenant(owner) => format!("{}:{:?}", owner.name, grant.permission),
            group => format!("{group:?}:{:?}", grant.permission),
        });
        grants.collect()
    }

    #[test]
    fn canned_lists_grant_as_documented() {
        let (writer, holder) = (owner("writer"), owner("holder"));
        for (name, granted) in [
            ("private", &[][..]),
            ("public-read", &["AllUsers:Read"]),
            ("public-read-write", &["AllUsers:Read", "AllUsers:Write"]),
            ("authenticated-read", &["AuthenticatedUsers:Read"]),
            ("aws-exec-read", &["za-team:Read"]),
            ("bucket-owner-read", &["holder:Read"]),
            ("bucket-owner-full-control", &["holder:FullControl"]),
            (
                "log-delivery-write",
                &["LogDelivery:Write", "LogDelivery:ReadAcp"],
            ),
        ] {
            let list = canned(name, About::Object, &writer, &holder).unwrap();
            let mut expected = vec!["writer:FullControl".to_owned()];
            expected.extend(granted.iter().map(|text| (*text).to_owned()));
            assert_eq!(names(&list), expected, "{name}");
        }
        assert_eq!(canned("public", About::Object, &writer, &holder), None);
        let of_bucket = canned("bucket-owner-read", About::Bucket, &holder, &holder).unwrap();
        assert_eq!(names(&of_bucket), ["holder:FullControl"]);
    }

    #[test]
    fn only_a_list_that_says_something_is_stored() {
        let (writer, holder) = (owner("writer"), owner("holder"));
        assert_eq!(stored(private(&holder), &holder), None);
        assert!(stored(private(&writer), &holder).is_some());
        let empty = Acl {
            owner: holder.clone(),
            grants: Vec::new(),
        };
        assert!(stored(empty, &holder).is_some());
    }

    #[test]
    fn everybody_and_everybody_with_a_key_are_the_public() {
        let holder = owner("holder");
        let of = |name| canned(name, About::Bucket, &holder, &holder).unwrap();
        assert!(is_public(&of("public-read")) && is_public(&of("authenticated-read")));
        assert!(!is_public(&of("log-delivery-write")) && grants_others(&of("log-delivery-write")));
        assert!(!grants_others(&of("private")));
    }

    #[test]
    fn enforced_ownership_takes_only_what_changes_nothing() {
        let holder = owner("holder");
        let own = Wanted::Granted(private(&holder).grants);
        for (wanted, allowed) in [
            (Wanted::Nothing, true),
            (Wanted::Canned("bucket-owner-full-control".into()), true),
            (Wanted::Canned("private".into()), false),
            (Wanted::Canned("public-read".into()), false),
            (own, true),
            (Wanted::Granted(private(&owner("x")).grants), false),
        ] {
            assert_eq!(
                allowed_when_enforced(&wanted, &holder),
                allowed,
                "{wanted:?}"
            );
        }
    }
}
