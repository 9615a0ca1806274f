//! Keys over a database of their own.

use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::meta::{Bell, Durability, MetaStore, identities};
use crate::model::clock::Clock;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{ContentId, EPOCH, TenantId, UidGenerator};
use crate::telemetry::Metrics;

struct Install {
    dir: TempDir,
    meta: MetaStore,
    uids: Arc<UidGenerator>,
    clock: Clock,
}

impl Install {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let meta = MetaStore::open(
            &dir.path().join("meta.db"),
            Durability::Relaxed,
            Metrics::new(),
        )
        .unwrap();
        let clock = Clock::manual(EPOCH + 1_000_000);
        let uids = UidGenerator::new(clock.clone(), 0, clock.now());
        uids.extend(clock.now() + 1_000_000);
        for (id, name) in [(1, "default"), (2, "other")] {
            meta.transact("tenant", move |session| {
                Box::pin(async move {
                    let tenant = identities::TenantRow {
                        id: TenantId(id),
                        name: name.into(),
                        owner_id: name.into(),
                        created: 0,
                    };
                    identities::insert_tenant(session, &tenant).await
                })
            })
            .await
            .unwrap_or_else(|fault: Fault| panic!("{fault}"));
        }
        Self {
            dir,
            meta,
            uids: Arc::new(uids),
            clock,
        }
    }

    async fn keys(&self) -> Keys {
        let master = MasterKey::load(self.dir.path(), None, &self.meta)
            .await
            .unwrap();
        Keys::new(
            self.meta.clone(),
            master,
            Arc::clone(&self.uids),
            self.clock.clone(),
            Bell::default(),
        )
    }
}

const MINE: TenantId = TenantId(1);
const OTHER: TenantId = TenantId(2);
const CONTENT: ContentId = ContentId(77);

fn named(key_id: &str, alias: Option<&str>) -> NewKmsKey {
    NewKmsKey {
        tenant: "default".into(),
        key_id: Some(key_id.into()),
        alias: alias.map(str::to_owned),
        description: "for tests".into(),
    }
}

/// Whether two data keys are equal, told by what they encrypt.
fn same(a: &DataKey, b: &DataKey) -> bool {
    let probe = |key: &DataKey| seal::seal(&key.cipher(), b"probe", b"x").unwrap();
    seal::open(&a.cipher(), b"probe", &probe(b)).is_some()
}

#[tokio::test]
async fn a_data_key_unwraps_for_its_content_alone_also_after_a_restart() {
    let install = Install::new().await;
    let keys = install.keys().await;
    let key = keys.of_tenant(MINE).await.unwrap();
    assert_eq!(keys.of_tenant(MINE).await.unwrap(), key);
    assert_ne!(keys.of_tenant(OTHER).await.unwrap(), key);
    let data = DataKey::draw().unwrap();
    let wrapped = keys.wrap(key, &data, CONTENT).await.unwrap();
    let keys = install.keys().await;
    assert_eq!(keys.of_tenant(MINE).await.unwrap(), key);
    let opened = keys.unwrap(wrapped.version, &wrapped.bytes, CONTENT).await;
    assert!(same(&opened.unwrap(), &data));
    let moved = keys.unwrap(wrapped.version, &wrapped.bytes, ContentId(78));
    let Err(KeyError::Fault(fault)) = moved.await else {
        panic!("opened for another content");
    };
    assert_eq!(fault.kind(), Kind::Corrupt);
}

#[tokio::test]
async fn rotation_leaves_old_versions_readable_and_wraps_with_the_new_one() {
    let install = Install::new().await;
    let keys = install.keys().await;
    let key = keys.of_tenant(MINE).await.unwrap();
    keys.of_tenant(OTHER).await.unwrap();
    let data = DataKey::draw().unwrap();
    let old = keys.wrap(key, &data, CONTENT).await.unwrap();
    assert_eq!(keys.rotate_tenants(Some("default")).await.unwrap(), 1);
    let new = keys.wrap(key, &data, CONTENT).await.unwrap();
    assert_ne!(old.version, new.version);
    for wrapped in [&old, &new] {
        let opened = keys.unwrap(wrapped.version, &wrapped.bytes, CONTENT).await;
        assert!(same(&opened.unwrap(), &data));
    }
    // A sealed key is of one version.
    assert!(keys.unwrap(new.version, &old.bytes, CONTENT).await.is_err());
    assert_eq!(keys.rotate_tenants(None).await.unwrap(), 2);
    let missing = keys.rotate_tenants(Some("nobody")).await.unwrap_err();
    assert!(matches!(missing, KeyError::NoSuchTenant(_)), "{missing}");
    let versions: Vec<_> = keys
        .list()
        .await
        .unwrap()
        .iter()
        .map(|key| key.version)
        .collect();
    assert_eq!(versions, [3, 2]);
}

#[tokio::test]
async fn kms_keys_go_by_id_alias_and_arn_within_their_tenant() {
    let install = Install::new().await;
    let keys = install.keys().await;
    let made = keys
        .create_kms(named("k1", Some("alias/mine")))
        .await
        .unwrap();
    assert_eq!(made.key_id.as_deref(), Some("k1"));
    let id = keys.kms(MINE, "k1").await.unwrap().id;
    for reference in [
        "alias/mine",
        "arn:aws:kms:us-east-1:000000000000:key/k1",
        "arn:aws:kms:eu-west-1:1:alias/mine",
    ] {
        assert_eq!(
            keys.kms(MINE, reference).await.unwrap().id,
            id,
            "{reference}"
        );
    }
    for reference in [
        "",
        "k2",
        "mine",
        "key/k1",
        "alias/k1",
        "alias/",
        "arn:aws:kms",
        "arn:a:b:c:d:",
    ] {
        let missing = keys.kms(MINE, reference).await.unwrap_err();
        assert!(
            matches!(missing, KeyError::NoSuchKey(_)),
            "{reference}: {missing}"
        );
    }
    assert!(keys.kms(OTHER, "k1").await.is_err());
    for taken in [named("k1", None), named("k2", Some("mine"))] {
        let refused = keys.create_kms(taken).await.unwrap_err();
        assert!(matches!(refused, KeyError::Taken(_)), "{refused}");
    }
    for wrong in [
        named("", None),
        named("a b", None),
        named("k3", Some("aws/s3")),
        named("k3", Some("alias/")),
    ] {
        let refused = keys.create_kms(wrong).await.unwrap_err();
        assert!(matches!(refused, KeyError::Text { .. }), "{refused}");
    }
    let drawn = NewKmsKey {
        key_id: None,
        ..named("", None)
    };
    let drawn = keys.create_kms(drawn).await.unwrap().key_id.unwrap();
    assert_eq!(drawn.len(), 36);
    assert!(keys.kms(MINE, &drawn).await.is_ok());
}

#[tokio::test]
async fn the_tenants_own_key_is_no_kms_key() {
    let install = Install::new().await;
    let keys = install.keys().await;
    keys.of_tenant(MINE).await.unwrap();
    let refused = keys.enable_kms("default", "", false).await.unwrap_err();
    assert!(matches!(refused, KeyError::NoSuchKey(_)), "{refused}");
}

#[tokio::test]
async fn the_default_kms_key_is_made_once() {
    let install = Install::new().await;
    let keys = install.keys().await;
    let first = keys.kms_default(MINE).await.unwrap();
    assert_eq!(keys.kms_default(MINE).await.unwrap(), first);
    assert_eq!(keys.kms(MINE, "alias/aws/s3").await.unwrap(), first);
    assert_ne!(keys.kms_default(OTHER).await.unwrap().id, first.id);
}

#[tokio::test]
async fn a_disabled_key_wraps_and_unwraps_nothing_until_it_is_enabled() {
    let install = Install::new().await;
    let keys = install.keys().await;
    keys.create_kms(named("k1", None)).await.unwrap();
    let key = keys.kms(MINE, "k1").await.unwrap().id;
    let data = DataKey::draw().unwrap();
    let wrapped = keys.wrap(key, &data, CONTENT).await.unwrap();
    let beside = install.keys().await;
    beside.wrap(key, &data, CONTENT).await.unwrap();
    assert!(
        !keys
            .enable_kms("default", "k1", false)
            .await
            .unwrap()
            .enabled
    );
    let is_disabled = |error: KeyError| matches!(error, KeyError::Disabled(_));
    assert!(is_disabled(keys.kms(MINE, "k1").await.unwrap_err()));
    assert!(is_disabled(
        keys.wrap(key, &data, CONTENT).await.unwrap_err()
    ));
    let opened = keys.unwrap(wrapped.version, &wrapped.bytes, CONTENT).await;
    assert!(is_disabled(opened.unwrap_err()));
    assert!(is_disabled(
        keys.rotate_kms("default", "k1").await.unwrap_err()
    ));
    // Another node finds out by itself.
    tokio::time::sleep(REMEMBERED_FOR + std::time::Duration::from_millis(100)).await;
    assert!(is_disabled(
        beside.wrap(key, &data, CONTENT).await.unwrap_err()
    ));
    keys.enable_kms("default", "k1", true).await.unwrap();
    let opened = keys.unwrap(wrapped.version, &wrapped.bytes, CONTENT).await;
    assert!(same(&opened.unwrap(), &data));
}

#[tokio::test]
async fn a_lost_or_wrong_master_key_is_noticed_where_only_wrapping_keys_are_sealed() {
    let install = Install::new().await;
    install.keys().await.of_tenant(MINE).await.unwrap();
    let wrong = Secret::new("ab".repeat(32));
    let load = |given| MasterKey::load(install.dir.path(), given, &install.meta);
    let refused = load(Some(&wrong)).await.unwrap_err();
    assert!(matches!(refused, MasterKeyError::Wrong), "{refused}");
    std::fs::remove_file(install.dir.path().join("master.key")).unwrap();
    let refused = load(None).await.unwrap_err();
    assert!(matches!(refused, MasterKeyError::Missing(_)), "{refused}");
}

#[test]
fn a_customers_key_unwraps_only_what_it_wrapped() {
    let key = |fill: u8| CustomerKey::new(&[fill; KEY_BYTES]).unwrap();
    let data = DataKey::draw().unwrap();
    let wrapped = key(1).wrap(&data, CONTENT).unwrap();
    assert!(same(&key(1).unwrap(&wrapped, CONTENT).unwrap(), &data));
    assert!(key(2).unwrap(&wrapped, CONTENT).is_none());
    assert!(key(1).unwrap(&wrapped, ContentId(78)).is_none());
    for place in 0..wrapped.len() {
        let mut damaged = wrapped.clone();
        damaged[place] ^= 1;
        assert!(key(1).unwrap(&damaged, CONTENT).is_none(), "byte {place}");
    }
    assert!(CustomerKey::new(&[0; 31]).is_none());
    assert!(CustomerKey::new(&[0; 33]).is_none());
    let shown = format!("{:?} {data:?}", key(0x41));
    assert!(
        shown.contains("***") && !shown.contains("41") && !shown.contains("65"),
        "{shown}"
    );
}
