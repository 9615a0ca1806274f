//! Keys and tenants on a real database, refusals included.

use std::sync::Arc;

use super::*;
use crate::meta::Durability;
use crate::model::ids::{EPOCH, UidGenerator};
use crate::telemetry::Metrics;

struct Install {
    dir: tempfile::TempDir,
    meta: MetaStore,
    clock: Clock,
    uids: Arc<UidGenerator>,
    changed: Bell,
}

impl Install {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.db");
        let meta = MetaStore::open(&path, Durability::Relaxed, Metrics::new()).unwrap();
        let clock = Clock::manual(EPOCH + 1_000_000);
        let uids = Arc::new(UidGenerator::new(clock.clone(), 0, EPOCH));
        uids.extend(EPOCH + 100_000_000);
        Self {
            dir,
            meta,
            clock,
            uids,
            changed: Bell::default(),
        }
    }

    fn registry(&self) -> Registry {
        Registry::new(self.meta.clone(), self.clock.clone(), self.changed.clone())
    }

    async fn master_key(&self) -> MasterKey {
        MasterKey::load(self.dir.path(), None, &self.meta)
            .await
            .unwrap()
    }

    async fn authority(&self) -> Authority {
        Authority::new(
            self.meta.clone(),
            self.master_key().await,
            self.clock.clone(),
            Arc::clone(&self.uids),
            self.changed.clone(),
        )
    }

    async fn key(&self, tenant: &str, given: Option<Pair>) -> Result<NewKey, Refused> {
        let master_key = self.master_key().await;
        self.registry()
            .create_key(tenant, given, None, &self.uids, &master_key)
            .await
    }

    async fn root(&self, given: Option<Pair>) -> Result<RootKey, Refused> {
        let master_key = self.master_key().await;
        let registry = self.registry();
        ensure_root(&registry, &master_key, &self.uids, self.dir.path(), given).await
    }

    fn root_file(&self) -> std::path::PathBuf {
        self.dir.path().join("root-credentials")
    }
}

fn pair(access_key: &str, secret_key: &str) -> Option<Pair> {
    Some(Pair {
        access_key: access_key.to_owned(),
        secret_key: Secret::new(secret_key.to_owned()),
    })
}

#[tokio::test]
async fn a_first_start_makes_one_root_key_and_a_second_keeps_it() {
    let install = Install::new();
    let made = install.root(None).await.unwrap();
    assert_eq!(made, RootKey::Created(install.root_file()));
    let text = std::fs::read_to_string(install.root_file()).unwrap();
    assert_eq!(
        install.root(None).await.unwrap(),
        RootKey::Kept(install.root_file())
    );
    assert_eq!(std::fs::read_to_string(install.root_file()).unwrap(), text);
    let keys = install.registry().keys().await.unwrap();
    assert_eq!(keys.len(), 1);
    let authority = install.authority().await;
    let identity = authority
        .identity(&keys[0].access_key)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(identity.tenant.name, DEFAULT_TENANT);
    assert!(text.contains(identity.secret.reveal()));
    assert!(!format!("{identity:?}").contains(identity.secret.reveal()));
}

#[tokio::test]
async fn a_start_that_crashed_between_file_and_row_is_finished_by_the_next() {
    let install = Install::new();
    let unfinished = install.dir.path().join("root-credentials.new");
    let text = "[default]\naws_access_key_id = OSABC\naws_secret_access_key = hushhush\n";
    std::fs::write(&unfinished, text).unwrap();
    for _ in 0..2 {
        // The second round is a crash between the row and the file's name.
        install.root(None).await.unwrap();
        assert!(!unfinished.exists());
        std::fs::rename(install.root_file(), &unfinished).unwrap();
    }
    let authority = install.authority().await;
    let identity = authority.identity("OSABC").await.unwrap().unwrap();
    assert_eq!(identity.secret.reveal(), "hushhush");
}

#[tokio::test]
async fn a_root_key_of_the_environment_replaces_its_secret_and_makes_no_file() {
    let install = Install::new();
    for secret in ["first-secret", "first-secret", "second-secret"] {
        let given = pair("ROOT", secret);
        assert_eq!(install.root(given).await.unwrap(), RootKey::Given);
        let authority = install.authority().await;
        let identity = authority.identity("ROOT").await.unwrap().unwrap();
        assert_eq!(identity.secret.reveal(), secret);
    }
    assert!(!install.root_file().exists());
    assert_eq!(install.root(None).await.unwrap(), RootKey::None);
}

#[tokio::test]
async fn a_root_key_of_another_tenant_is_refused() {
    let install = Install::new();
    install.root(None).await.unwrap();
    install
        .registry()
        .create_tenant("other", &install.uids)
        .await
        .unwrap();
    install
        .key("other", pair("THEIRS", "secret-1"))
        .await
        .unwrap();
    let refused = install.root(pair("THEIRS", "secret-2")).await.unwrap_err();
    assert!(
        matches!(
            refused,
            Refused::AccessKeyTaken {
                differs: "tenant",
                ..
            }
        ),
        "{refused}"
    );
}

#[tokio::test]
async fn a_missing_or_foreign_master_key_is_refused_once_secrets_are_sealed() {
    let install = Install::new();
    install.root(None).await.unwrap();
    let file = install.dir.path().join("master.key");
    std::fs::write(&file, "00".repeat(32)).unwrap();
    let load = || MasterKey::load(install.dir.path(), None, &install.meta);
    let refused = load().await.unwrap_err();
    assert!(matches!(refused, MasterKeyError::Wrong), "{refused}");
    std::fs::remove_file(&file).unwrap();
    let refused = load().await.unwrap_err();
    assert!(matches!(refused, MasterKeyError::Missing(_)), "{refused}");
    assert!(!file.exists());
}

#[tokio::test]
async fn a_generated_key_has_its_form_and_is_not_repeated() {
    let install = Install::new();
    install.root(None).await.unwrap();
    let first = install.key(DEFAULT_TENANT, None).await.unwrap();
    let second = install.key(DEFAULT_TENANT, None).await.unwrap();
    assert_ne!(first, second);
    assert!(first.is_new);
    let access_key = &first.pair.access_key;
    assert!(access_key.starts_with("OS") && access_key.len() == 20);
    assert!(
        access_key
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    );
    let secret = first.pair.secret_key.reveal();
    assert!(secret.len() == 40 && secret.bytes().all(|byte| byte.is_ascii_alphanumeric()));
}

#[tokio::test]
async fn the_same_key_again_is_a_success_and_another_secret_or_tenant_is_refused() {
    let install = Install::new();
    install.root(None).await.unwrap();
    let registry = install.registry();
    registry
        .create_tenant("other", &install.uids)
        .await
        .unwrap();
    assert!(
        install
            .key("other", pair("AKEY", "secret-1"))
            .await
            .unwrap()
            .is_new
    );
    assert!(
        !install
            .key("other", pair("AKEY", "secret-1"))
            .await
            .unwrap()
            .is_new
    );
    for (tenant, secret, expected) in [
        ("other", "secret-2", "secret key"),
        (DEFAULT_TENANT, "secret-1", "tenant"),
    ] {
        match install.key(tenant, pair("AKEY", secret)).await.unwrap_err() {
            Refused::AccessKeyTaken { differs, .. } => assert_eq!(differs, expected),
            refused => panic!("{refused}"),
        }
    }
    registry
        .set_state("AKEY", KeyState::Disabled)
        .await
        .unwrap();
    let refused = install
        .key("other", pair("AKEY", "secret-1"))
        .await
        .unwrap_err();
    assert!(matches!(refused, Refused::KeyDisabled(_)), "{refused}");
}

#[tokio::test]
async fn wrong_names_and_secrets_are_refused_and_secrets_not_repeated() {
    let install = Install::new();
    install.root(None).await.unwrap();
    let long = "x".repeat(129);
    for access_key in [
        "",
        "ab",
        "a b",
        "a/b",
        "a,b",
        "deleted:1",
        "-ab",
        "äöü",
        &long,
    ] {
        let refused = install
            .key(DEFAULT_TENANT, pair(access_key, "secret"))
            .await;
        assert!(
            matches!(refused, Err(Refused::AccessKeyText(_))),
            "{access_key}"
        );
    }
    let long = "x".repeat(257);
    for secret in ["", "xy", "with space", "with\nline", "hüsch", &long] {
        let refused = install
            .key(DEFAULT_TENANT, pair("AKEY", secret))
            .await
            .unwrap_err();
        assert!(matches!(refused, Refused::SecretText), "{refused}");
        assert!(secret.len() < 3 || !refused.to_string().contains(secret));
    }
    let long = "x".repeat(65);
    for tenant in ["", "a b", "deleted:1", ".a", "é", &long] {
        let refused = install
            .registry()
            .create_tenant(tenant, &install.uids)
            .await;
        assert!(matches!(refused, Err(Refused::TenantName(_))), "{tenant}");
    }
}

#[tokio::test]
async fn unknown_tenants_and_keys_are_refused_by_name() {
    let install = Install::new();
    install.root(None).await.unwrap();
    let refused = install.key("nobody", None).await.unwrap_err();
    assert!(matches!(&refused, Refused::NoSuchTenant(name) if name == "nobody"));
    let registry = install.registry();
    let refused = registry
        .set_state("NOKEY", KeyState::Deleted)
        .await
        .unwrap_err();
    assert!(matches!(&refused, Refused::NoSuchKey(name) if name == "NOKEY"));
    let refused = registry.delete_tenant("nobody").await.unwrap_err();
    assert!(matches!(refused, Refused::NoSuchTenant(_)));
}

#[tokio::test]
async fn a_tenant_is_made_once_and_deleted_only_without_keys() {
    let install = Install::new();
    install.root(None).await.unwrap();
    let registry = install.registry();
    registry
        .create_tenant("third", &install.uids)
        .await
        .unwrap();
    let refused = registry
        .create_tenant("third", &install.uids)
        .await
        .unwrap_err();
    assert!(matches!(refused, Refused::TenantExists(_)));
    install.key("third", pair("AKEY", "secret")).await.unwrap();
    let refused = registry.delete_tenant("third").await.unwrap_err();
    assert!(matches!(
        refused,
        Refused::TenantInUse {
            buckets: 0,
            keys: 1,
            ..
        }
    ));
    registry.set_state("AKEY", KeyState::Deleted).await.unwrap();
    registry.delete_tenant("third").await.unwrap();
    let tenants = registry.tenants().await.unwrap();
    let names: Vec<_> = tenants.iter().map(|tenant| tenant.name.as_str()).collect();
    assert_eq!(names, [DEFAULT_TENANT]);
    assert_eq!(tenants[0].owner_id.len(), 64);
    // The name is free again, for another account.
    registry
        .create_tenant("third", &install.uids)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_disabled_or_deleted_key_is_nobody_at_once_and_elsewhere_within_a_second() {
    let install = Install::new();
    install.root(None).await.unwrap();
    install
        .key(DEFAULT_TENANT, pair("AKEY", "secret"))
        .await
        .unwrap();
    let authority = install.authority().await;
    let elsewhere = Authority::new(
        install.meta.clone(),
        install.master_key().await,
        install.clock.clone(),
        Arc::clone(&install.uids),
        // One that nobody rings.
        Bell::default(),
    );
    for authority in [&authority, &elsewhere] {
        assert!(authority.identity("AKEY").await.unwrap().is_some());
        assert!(authority.identity("UNKNOWN").await.unwrap().is_none());
    }
    let registry = install.registry();
    for (state, expected) in [
        (KeyState::Disabled, false),
        (KeyState::Active, true),
        (KeyState::Deleted, false),
    ] {
        registry.set_state("AKEY", state).await.unwrap();
        let found = authority.identity("AKEY").await.unwrap();
        assert_eq!(found.is_some(), expected, "{state:?}");
        let deadline = std::time::Instant::now() + REMEMBERED_FOR * 20;
        while elsewhere.identity("AKEY").await.unwrap().is_some() != expected {
            assert!(std::time::Instant::now() < deadline, "{state:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(
        authority
            .identity(&"x".repeat(4096))
            .await
            .unwrap()
            .is_none()
    );
}

async fn session(
    authority: &Authority,
    parent: &Identity,
    policy: Option<&str>,
) -> Result<NewSession, NoSession> {
    let wanted = SessionRequest {
        policy: policy.map(str::to_owned),
        role: Some(("reader".to_owned(), "s1".to_owned())),
        lasts: Duration::from_secs(900),
    };
    authority.begin_session(parent, wanted).await
}

#[tokio::test]
async fn a_temporary_key_needs_its_token_and_ends_in_time() {
    let install = Install::new();
    install.root(pair("ROOT", "secret")).await.unwrap();
    let authority = install.authority().await;
    let root = authority.identity("ROOT").await.unwrap().unwrap();
    assert_eq!(root.check_token(None), TokenCheck::Right);
    assert_eq!(root.check_token(Some(b"t")), TokenCheck::Wrong);
    let made = session(&authority, &root, None).await.unwrap();
    let other = session(&authority, &root, None).await.unwrap();
    let key = made.pair.access_key.as_str();
    let held = authority.identity(key).await.unwrap().unwrap();
    assert!(held.is_temporary() && !held.has_policy());
    assert_eq!(held.secret.reveal(), made.pair.secret_key.reveal());
    assert_eq!(held.check_token(None), TokenCheck::Missing);
    assert_eq!(
        held.check_token(Some(other.token.as_bytes())),
        TokenCheck::Wrong
    );
    assert_eq!(
        held.check_token(Some(made.token.as_bytes())),
        TokenCheck::Right
    );
    let again = session(&authority, &held, None).await.unwrap_err();
    assert!(matches!(again, NoSession::Temporary), "{again}");
    assert!(!authority.has_expired(key).await.unwrap());
    install.clock.advance(900_000);
    assert!(authority.identity(key).await.unwrap().is_none());
    assert!(authority.has_expired(key).await.unwrap());
    assert!(!authority.has_expired("ROOT").await.unwrap());
}

#[tokio::test]
async fn expired_keys_are_purged_after_a_day_and_others_kept() {
    let install = Install::new();
    install.root(pair("ROOT", "secret")).await.unwrap();
    let authority = install.authority().await;
    let root = authority.identity("ROOT").await.unwrap().unwrap();
    for _ in 0..3 {
        session(&authority, &root, None).await.unwrap();
    }
    assert_eq!(authority.purge_expired().await.unwrap(), 0);
    install.clock.advance((900 + 86_401) * 1000);
    session(&authority, &root, None).await.unwrap();
    assert_eq!(authority.purge_expired().await.unwrap(), 3);
    assert_eq!(authority.purge_expired().await.unwrap(), 0);
    assert_eq!(install.registry().keys().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_session_is_bound_by_its_parents_policy_and_life() {
    let install = Install::new();
    install.root(pair("ROOT", "secret")).await.unwrap();
    let policy = r#"{"Statement":{"Effect":"Allow","Action":"s3:Get*","Resource":"*"}}"#;
    let registry = install.registry();
    let refused = registry
        .set_key_policy("ROOT", Some("{}".to_owned()))
        .await
        .unwrap_err();
    assert!(matches!(refused, Refused::KeyPolicy(_)), "{refused}");
    registry
        .set_key_policy("ROOT", Some(policy.to_owned()))
        .await
        .unwrap();
    assert_eq!(
        registry.key_policy("ROOT").await.unwrap().as_deref(),
        Some(policy)
    );
    let authority = install.authority().await;
    let root = authority.identity("ROOT").await.unwrap().unwrap();
    let malformed = session(&authority, &root, Some("{")).await.unwrap_err();
    assert!(matches!(malformed, NoSession::Policy(_)), "{malformed}");
    let made = session(&authority, &root, Some(policy)).await.unwrap();
    let key = made.pair.access_key.as_str();
    let held = authority.identity(key).await.unwrap().unwrap();
    assert!(held.policy.is_some() && held.session_policy().is_some());
    for (state, lives) in [
        (KeyState::Disabled, false),
        (KeyState::Active, true),
        (KeyState::Deleted, false),
    ] {
        registry.set_state("ROOT", state).await.unwrap();
        let fresh = install.authority().await;
        assert_eq!(fresh.identity(key).await.unwrap().is_some(), lives);
    }
}
