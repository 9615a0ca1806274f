//! The decision, as a table of cases: who, what, under which settings.

use super::*;
use crate::meta::Durability;
use crate::model::acl::{Acl, Grant, Grantee, Owner, Permission};
use crate::model::bucket::{Bucket, Dedup, Ownership, PublicAccessBlock, Settings, Versioning};
use crate::model::ids::{BucketId, EPOCH, SpaceId};
use crate::model::names::BucketName;
use crate::model::object::Tags;
use crate::telemetry::Metrics;

/// The bucket `b` of tenant `acme`, whose settings a case changes.
fn bucket(change: impl FnOnce(&mut Settings)) -> Bucket {
    let mut settings = Settings::default();
    change(&mut settings);
    Bucket {
        id: BucketId(7),
        name: BucketName::parse("bucket").unwrap(),
        tenant: TenantId(1),
        space: SpaceId(1),
        dedup: Dedup::Object,
        versioning: Versioning::Never,
        object_lock: false,
        created: 0,
        region: String::new(),
        rev: 1,
        settings,
    }
}

fn policy(statements: &str) -> Option<String> {
    Some(format!(
        r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#
    ))
}

fn allow(principal: &str, action: &str, resource: &str) -> String {
    format!(
        r#"{{"Effect":"Allow","Principal":{principal},"Action":"{action}","Resource":"arn:aws:s3:::{resource}"}}"#
    )
}

fn deny(principal: &str, action: &str, resource: &str) -> String {
    allow(principal, action, resource).replace("Allow", "Deny")
}

fn identity(tenant: i64, access_key: &str, own: Option<&str>) -> Identity {
    let name = if tenant == 1 { "acme" } else { "other" };
    let own = own.map(|text| {
        let text = format!(r#"{{"Version":"2012-10-17","Statement":[{text}]}}"#);
        Policy::parse(&text, Place::Key).unwrap()
    });
    Identity {
        sender: SenderId(tenant * 10),
        access_key: access_key.to_owned(),
        tenant: TenantRow {
            id: TenantId(tenant),
            name: name.to_owned(),
            owner_id: format!("{name}-owner"),
            created: 0,
        },
        secret: Secret::new("secret".to_owned()),
        expires_at: None,
        policy: own,
        temporary: None,
    }
}

fn temporary(tenant: i64, own: Option<&str>, session: Option<&str>) -> Identity {
    let mut key = identity(tenant, "TEMP", own);
    key.temporary = Some(Temporary {
        parent: "ROOT".to_owned(),
        policy: session.map(|text| {
            let text = format!(r#"{{"Version":"2012-10-17","Statement":[{text}]}}"#);
            Policy::parse(&text, Place::Key).unwrap()
        }),
        role: Some(("reader".to_owned(), "s1".to_owned())),
    });
    key
}

fn own(effect: &str, action: &str, resource: &str) -> String {
    format!(r#"{{"Effect":"{effect}","Action":"{action}","Resource":"{resource}"}}"#)
}

struct Court(
    Authority,
    #[allow(dead_code, reason = "keeps the database's folder")] tempfile::TempDir,
);

impl Court {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.db");
        let meta = MetaStore::open(&path, Durability::Relaxed, Metrics::new()).unwrap();
        let clock = Clock::manual(EPOCH + 1_000_000);
        let uids = Arc::new(UidGenerator::new(clock.clone(), 0, EPOCH));
        let key = MasterKey::load(dir.path(), None, &meta).await.unwrap();
        Self(Authority::new(meta, key, clock, uids, Bell::default()), dir)
    }

    fn ask(
        &self,
        principal: Principal<'_>,
        action: Action,
        bucket: &Bucket,
        key: Option<&str>,
        object: Facts<'_>,
    ) -> Verdict {
        self.0.policies.invalidate_all();
        // Each case is another revision of the one bucket.
        let fresh = Bucket {
            rev: self.0.clock.now() + next(),
            ..bucket.clone()
        };
        self.0.authorize(&Question {
            principal,
            action,
            target: match key {
                Some(key) => Target::Object(&fresh, key),
                None => Target::Bucket(&fresh),
            },
            object,
            context: &|key| match key {
                "aws:sourceip" => policy::Value::Is(vec!["10.0.0.7".to_owned()]),
                _ => policy::Value::Absent,
            },
        })
    }
}

fn next() -> i64 {
    use std::sync::atomic::{AtomicI64, Ordering};
    static NEXT: AtomicI64 = AtomicI64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn owner(name: &str) -> Owner {
    Owner {
        id: format!("{name}-owner"),
        name: name.to_owned(),
    }
}

fn list(grants: &[(Grantee, Permission)]) -> Acl {
    Acl {
        owner: owner("acme"),
        grants: grants
            .iter()
            .map(|(grantee, permission)| Grant {
                grantee: grantee.clone(),
                permission: *permission,
            })
            .collect(),
    }
}

const EVERYBODY: &str = r#""*""#;
use Verdict::{Allowed, Denied, NeedsObject};

#[tokio::test]
async fn policies_decide_who_may_do_what() {
    let court = Court::new().await;
    let root = identity(1, "ROOT", None);
    let narrow_policy = own("Allow", "s3:Get*", "arn:aws:s3:::bucket/a/*");
    let narrow = identity(1, "NARROW", Some(&narrow_policy));
    let other = identity(2, "OTHER", None);
    let bound_policy = own("Allow", "s3:PutObject", "*");
    let bound = identity(2, "BOUND", Some(&bound_policy));
    let anonymous = Principal::Anonymous;
    let (root, narrow) = (Principal::Key(&root), Principal::Key(&narrow));
    let (other, bound) = (Principal::Key(&other), Principal::Key(&bound));
    let get = Action::GetObject;

    let none = bucket(|_| ());
    let open = bucket(|s| s.policy = policy(&allow(EVERYBODY, "s3:GetObject", "bucket/*")));
    let to_other = bucket(|s| {
        s.policy = policy(&allow(r#"{"AWS":"other"}"#, "s3:*", "bucket/*"));
    });
    let to_narrow = bucket(|s| {
        s.policy = policy(&allow(
            r#"{"AWS":"arn:aws:iam::acme:user/NARROW"}"#,
            "s3:*",
            "bucket/*",
        ));
    });
    let to_own_account = bucket(|s| {
        s.policy = policy(&allow(r#"{"AWS":"acme"}"#, "s3:*", "bucket/*"));
    });
    let closed = bucket(|s| {
        s.policy = policy(
            &[
                allow(EVERYBODY, "s3:*", "bucket/*"),
                deny(EVERYBODY, "s3:*", "bucket/*"),
            ]
            .join(","),
        );
    });
    let restricted = bucket(|s| {
        s.policy = policy(&allow(EVERYBODY, "s3:GetObject", "bucket/*"));
        s.public_access_block = Some(PublicAccessBlock {
            restrict_public_buckets: true,
            ..PublicAccessBlock::default()
        });
    });
    let cases = [
        // who, action, bucket, key, verdict
        (root, get, &none, "k", Allowed),
        (other, get, &none, "k", NeedsObject),
        (anonymous, get, &none, "k", NeedsObject),
        (other, Action::PutObject, &none, "k", Denied),
        (narrow, get, &none, "a/k", Allowed),
        (narrow, get, &none, "b/k", Denied),
        (narrow, Action::PutObject, &none, "a/k", Denied),
        // A bucket's policy lets in whom it names.
        (anonymous, get, &open, "k", Allowed),
        (anonymous, Action::PutObject, &open, "k", Denied),
        (other, get, &open, "k", Allowed),
        (other, Action::PutObject, &to_other, "k", Allowed),
        (anonymous, get, &to_other, "k", NeedsObject),
        // Of another tenant's key both policies are asked.
        (bound, Action::PutObject, &to_other, "k", Allowed),
        (bound, get, &to_other, "k", Denied),
        // Of an own key either is enough, when it names the key or everybody.
        (narrow, get, &open, "b/k", Allowed),
        (narrow, Action::PutObject, &to_narrow, "b/k", Allowed),
        (narrow, Action::PutObject, &to_own_account, "b/k", Denied),
        // A denial wins.
        (root, get, &closed, "k", Denied),
        (other, get, &closed, "k", Denied),
        (anonymous, get, &closed, "k", Denied),
        // Public policies can be kept to the own tenant.
        (root, get, &restricted, "k", Allowed),
        (other, get, &restricted, "k", Denied),
        (anonymous, get, &restricted, "k", Denied),
    ];
    for (index, (who, action, bucket, key, verdict)) in cases.into_iter().enumerate() {
        let found = court.ask(who, action, bucket, Some(key), Facts::Unread);
        assert_eq!(found, verdict, "case {index}: {action} {key}");
    }
}

#[tokio::test]
async fn a_policy_that_denies_everybody_can_be_taken_away_by_the_tenant() {
    let court = Court::new().await;
    let locked = bucket(|s| s.policy = policy(&deny(EVERYBODY, "s3:*", "bucket")));
    let root = identity(1, "ROOT", None);
    let bound_policy = own("Allow", "s3:*", "*");
    let bound = identity(1, "BOUND", Some(&bound_policy));
    let other = identity(2, "OTHER", None);
    for action in [
        Action::GetBucketPolicy,
        Action::PutBucketPolicy,
        Action::DeleteBucketPolicy,
    ] {
        let ask = |key| court.ask(Principal::Key(key), action, &locked, None, Facts::Unread);
        assert_eq!(ask(&root), Allowed);
        assert_eq!(ask(&bound), Denied);
        assert_eq!(ask(&other), Denied);
    }
    let list = Action::ListBucket;
    let found = court.ask(Principal::Key(&root), list, &locked, None, Facts::Unread);
    assert_eq!(found, Denied);
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_lets_nobody_in() {
    let court = Court::new().await;
    let broken = bucket(|s| s.policy = Some("{".to_owned()));
    let root = identity(1, "ROOT", None);
    let ask = |action| court.ask(Principal::Key(&root), action, &broken, None, Facts::Unread);
    assert_eq!(ask(Action::ListBucket), Denied);
    assert_eq!(ask(Action::DeleteBucketPolicy), Allowed);
}

#[tokio::test]
async fn lists_let_in_whom_they_name() {
    let court = Court::new().await;
    let (root, other) = (identity(1, "ROOT", None), identity(2, "OTHER", None));
    let bound_policy = own("Deny", "s3:GetObject", "*");
    let bound = identity(2, "BOUND", Some(&bound_policy));
    let (root, other) = (Principal::Key(&root), Principal::Key(&other));
    let bound = Principal::Key(&bound);
    let anonymous = Principal::Anonymous;
    let to_other = Grantee::Tenant(owner("other"));

    let public = bucket(|s| s.acl = Some(list(&[(Grantee::AllUsers, Permission::Read)])));
    let signed = bucket(|s| {
        s.acl = Some(list(&[(Grantee::AuthenticatedUsers, Permission::Read)]));
    });
    let writable = bucket(|s| s.acl = Some(list(&[(to_other.clone(), Permission::Write)])));
    let full = bucket(|s| s.acl = Some(list(&[(to_other.clone(), Permission::FullControl)])));
    let enforced = bucket(|s| {
        s.acl = Some(list(&[(Grantee::AllUsers, Permission::FullControl)]));
        s.ownership = Some(Ownership::BucketOwnerEnforced);
    });
    let ignored = bucket(|s| {
        s.acl = Some(list(&[
            (Grantee::AllUsers, Permission::FullControl),
            (to_other.clone(), Permission::Read),
        ]));
        s.public_access_block = Some(PublicAccessBlock {
            ignore_public_acls: true,
            ..PublicAccessBlock::default()
        });
    });
    let list_keys = Action::ListBucket;
    let cases = [
        (anonymous, list_keys, &public, Allowed),
        (other, list_keys, &public, Allowed),
        (anonymous, Action::PutObject, &public, Denied),
        (anonymous, Action::GetBucketAcl, &public, Denied),
        (anonymous, list_keys, &signed, Denied),
        (other, list_keys, &signed, Allowed),
        (other, Action::PutObject, &writable, Allowed),
        (other, Action::DeleteObject, &writable, Allowed),
        (other, list_keys, &writable, Denied),
        (other, Action::PutBucketAcl, &full, Allowed),
        (other, Action::GetBucketAcl, &full, Allowed),
        (other, Action::PutBucketPolicy, &full, Denied),
        (other, Action::DeleteBucket, &full, Denied),
        (anonymous, list_keys, &full, Denied),
        (other, list_keys, &enforced, Denied),
        (root, list_keys, &enforced, Allowed),
        (anonymous, list_keys, &ignored, Denied),
        (other, list_keys, &ignored, Allowed),
        (other, Action::PutObject, &ignored, Denied),
        (bound, list_keys, &public, Denied),
    ];
    for (index, (who, action, bucket, verdict)) in cases.into_iter().enumerate() {
        let found = court.ask(who, action, bucket, None, Facts::Unread);
        assert_eq!(found, verdict, "case {index}: {action}");
    }
}

#[tokio::test]
async fn an_objects_list_is_asked_only_when_it_decides() {
    let court = Court::new().await;
    let (root, other) = (identity(1, "ROOT", None), identity(2, "OTHER", None));
    let (root, other) = (Principal::Key(&root), Principal::Key(&other));
    let anonymous = Principal::Anonymous;
    let none = bucket(|_| ());
    let tags = Tags::default();
    let public = list(&[(Grantee::AllUsers, Permission::Read)]);
    let theirs = Acl {
        owner: owner("other"),
        grants: Vec::new(),
    };
    let found = |acl| Facts::Found { tags: &tags, acl };
    for (index, (who, action, object, verdict)) in [
        (root, Action::GetObject, Facts::Unread, Allowed),
        (anonymous, Action::GetObject, Facts::Unread, NeedsObject),
        (anonymous, Action::GetObject, Facts::Missing, Denied),
        (anonymous, Action::GetObject, found(None), Denied),
        (anonymous, Action::GetObject, found(Some(&public)), Allowed),
        (
            anonymous,
            Action::GetObjectVersion,
            found(Some(&public)),
            Allowed,
        ),
        (
            anonymous,
            Action::GetObjectAcl,
            found(Some(&public)),
            Denied,
        ),
        (
            anonymous,
            Action::GetObjectTagging,
            found(Some(&public)),
            Denied,
        ),
        (other, Action::GetObject, found(Some(&theirs)), Denied),
        (other, Action::GetObjectAcl, found(Some(&theirs)), Allowed),
        (other, Action::PutObjectAcl, found(Some(&theirs)), Allowed),
        (
            anonymous,
            Action::PutObjectAcl,
            found(Some(&theirs)),
            Denied,
        ),
        (root, Action::GetObject, found(Some(&theirs)), Allowed),
    ]
    .into_iter()
    .enumerate()
    {
        let verdict_found = court.ask(who, action, &none, Some("k"), object);
        assert_eq!(verdict_found, verdict, "case {index}: {action}");
    }
}

#[tokio::test]
async fn existing_tags_are_read_when_a_policy_wants_them() {
    let court = Court::new().await;
    let statement = r#"{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::bucket/*","Condition":{"StringEquals":{"s3:ExistingObjectTag/open":"yes"}}}"#;
    let tagged = bucket(|s| s.policy = policy(statement));
    let tags = |value: &str| Tags(vec![("open".to_owned(), value.to_owned())]);
    let ask = |object| {
        court.ask(
            Principal::Anonymous,
            Action::GetObject,
            &tagged,
            Some("k"),
            object,
        )
    };
    let (yes, no) = (tags("yes"), tags("no"));
    assert_eq!(ask(Facts::Unread), NeedsObject);
    assert_eq!(ask(Facts::Missing), Denied);
    assert_eq!(
        ask(Facts::Found {
            tags: &yes,
            acl: None
        }),
        Allowed
    );
    assert_eq!(
        ask(Facts::Found {
            tags: &no,
            acl: None
        }),
        Denied
    );
}

#[tokio::test]
async fn a_temporary_key_may_do_what_parent_and_session_allow() {
    let court = Court::new().await;
    let parent = own("Allow", "s3:*", "arn:aws:s3:::bucket/a/*");
    let session = own("Allow", "s3:GetObject", "*");
    let none = bucket(|_| ());
    let open = bucket(|s| s.policy = policy(&allow(EVERYBODY, "s3:*", "bucket/*")));
    let role = bucket(|s| {
        let principal = r#"{"AWS":"arn:aws:iam::acme:role/reader"}"#;
        s.policy = policy(&deny(principal, "s3:*", "bucket/*"));
    });
    for (index, (key, action, bucket, name, verdict)) in [
        (
            temporary(1, None, None),
            Action::PutObject,
            &none,
            "k",
            Allowed,
        ),
        (
            temporary(1, None, Some(&session)),
            Action::GetObject,
            &none,
            "k",
            Allowed,
        ),
        (
            temporary(1, None, Some(&session)),
            Action::PutObject,
            &none,
            "k",
            Denied,
        ),
        (
            temporary(1, None, Some(&session)),
            Action::PutObject,
            &open,
            "k",
            Denied,
        ),
        (
            temporary(1, Some(&parent), Some(&session)),
            Action::GetObject,
            &none,
            "a/k",
            Allowed,
        ),
        (
            temporary(1, Some(&parent), Some(&session)),
            Action::GetObject,
            &none,
            "b/k",
            Denied,
        ),
        (
            temporary(1, None, None),
            Action::GetObject,
            &role,
            "k",
            Denied,
        ),
        (
            temporary(2, None, Some(&session)),
            Action::PutObject,
            &open,
            "k",
            Denied,
        ),
        (
            temporary(2, None, Some(&session)),
            Action::GetObject,
            &open,
            "k",
            Allowed,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let found = court.ask(
            Principal::Key(&key),
            action,
            bucket,
            Some(name),
            Facts::Unread,
        );
        assert_eq!(found, verdict, "case {index}: {action} {name}");
    }
    assert_eq!(
        temporary(1, None, None).arn(),
        "arn:aws:sts::acme:assumed-role/reader/s1"
    );
    assert_eq!(temporary(1, None, None).user_id(), "ROOT:s1");
}

#[tokio::test]
async fn an_account_is_its_keys_own_affair() {
    let court = Court::new().await;
    let team = own("Allow", "s3:CreateBucket", "arn:aws:s3:::team-*");
    let all = own("Allow", "s3:ListAllMyBuckets", "*");
    let never = own("Deny", "s3:ListAllMyBuckets", "*");
    let ask = |principal, action, target| {
        court.0.authorize(&Question {
            principal,
            action,
            target,
            object: Facts::Unread,
            context: &|_| policy::Value::Absent,
        })
    };
    let root = identity(1, "ROOT", None);
    let team = identity(1, "TEAM", Some(&team));
    let create = Action::CreateBucket;
    let (mine, theirs) = (Target::NewBucket("team-a"), Target::NewBucket("other"));
    assert_eq!(ask(Principal::Key(&root), create, theirs), Allowed);
    assert_eq!(ask(Principal::Key(&team), create, mine), Allowed);
    assert_eq!(ask(Principal::Key(&team), create, theirs), Denied);
    assert_eq!(ask(Principal::Anonymous, create, mine), Denied);
    assert_eq!(
        ask(Principal::Key(&root), Action::GetObject, Target::Account),
        Denied
    );
    let shown = |key: &Identity| {
        court.0.shown(&Question {
            principal: Principal::Key(key),
            action: Action::ListAllMyBuckets,
            target: Target::Account,
            object: Facts::Unread,
            context: &|_| policy::Value::Absent,
        })
    };
    assert_eq!(shown(&root), Shown::All);
    assert_eq!(shown(&team), Shown::Listable);
    assert_eq!(shown(&identity(1, "ALL", Some(&all))), Shown::All);
    assert_eq!(shown(&identity(1, "NEVER", Some(&never))), Shown::None);
}

#[tokio::test]
async fn a_service_is_let_in_by_policy_or_list() {
    let court = Court::new().await;
    let logging = Principal::Service("logging.s3.amazonaws.com");
    let principal = r#"{"Service":"logging.s3.amazonaws.com"}"#;
    let by_policy = bucket(|s| {
        s.policy = policy(&allow(principal, "s3:PutObject", "bucket/logs/*"));
    });
    let by_list = bucket(|s| {
        s.acl = Some(list(&[(Grantee::LogDelivery, Permission::Write)]));
    });
    let put =
        |who, bucket, key| court.ask(who, Action::PutObject, bucket, Some(key), Facts::Unread);
    assert_eq!(put(logging, &by_policy, "logs/1"), Allowed);
    assert_eq!(put(logging, &by_policy, "k"), Denied);
    assert_eq!(put(logging, &by_list, "k"), Allowed);
    assert_eq!(put(Principal::Service("x"), &by_list, "k"), Denied);
    assert_eq!(put(Principal::Anonymous, &by_list, "k"), Denied);
}
