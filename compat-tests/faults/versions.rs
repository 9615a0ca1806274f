//! A key's versions under random writes and deletions, compared with a model that keeps them in a list.

use bytes::Bytes;
use osproxy::model::bucket::Versioning;
use osproxy::model::clock::Clock;
use osproxy::model::ids::EPOCH;
use osproxy::model::object::VersionId;
use osproxy::namespace::VersionQuery;
use proptest::prelude::*;

use crate::install::{GRACE_MILLIS, Install, bytes};

#[derive(Debug, Clone)]
enum Step {
    Put(u8),
    Delete,
    /// The version at this place, counted modulo how many there are.
    DeleteVersion(usize),
    Set(Versioning),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(Step::Put),
        2 => Just(Step::Delete),
        3 => any::<usize>().prop_map(Step::DeleteVersion),
        1 => Just(Step::Set(Versioning::Enabled)),
        1 => Just(Step::Set(Versioning::Suspended)),
    ]
}

/// Newest last; `None` is a delete marker.
type Model = Vec<(VersionId, Option<Bytes>)>;

/// What S3 documents of a new version or marker.
fn push(model: &mut Model, versioning: Versioning, id: VersionId, body: Option<Bytes>) {
    if versioning != Versioning::Enabled {
        model.retain(|(id, _)| *id != VersionId::Null);
    }
    model.push((id, body));
}

async fn listed(install: &Install) -> Vec<(VersionId, bool, bool)> {
    let query = VersionQuery {
        limit: 1000,
        ..VersionQuery::default()
    };
    let page = install
        .namespace
        .list_versions(&install.bucket, query)
        .await
        .unwrap();
    let rows = page.versions.into_iter();
    rows.map(|row| (row.id, row.is_latest, row.object.is_some()))
        .collect()
}

async fn run(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(EPOCH + 1_000_000);
    let mut install = Install::open(dir.path(), &clock).await;
    let (mut model, mut versioning) = (Model::new(), Versioning::Never);
    for step in steps {
        clock.advance(1);
        match step {
            Step::Put(fill) => {
                let body = bytes(fill, 20);
                let written = install.put("k", body.clone()).await;
                let id = written.version_id.unwrap_or(VersionId::Null);
                assert_eq!(id == VersionId::Null, versioning != Versioning::Enabled);
                push(&mut model, versioning, id, Some(body));
            }
            Step::Delete => {
                let deleted = install.delete_version("k", None).await.unwrap();
                if versioning == Versioning::Never {
                    model.clear();
                } else {
                    assert!(deleted.marker);
                    push(&mut model, versioning, deleted.version_id.unwrap(), None);
                }
            }
            Step::DeleteVersion(place) if !model.is_empty() => {
                let (id, body) = model.remove(place % model.len());
                let deleted = install.delete_version("k", Some(id)).await.unwrap();
                assert_eq!(deleted.marker, body.is_none());
            }
            Step::DeleteVersion(_) => {}
            Step::Set(wanted) => {
                versioning = wanted;
                install.set_versioning(wanted).await;
            }
        }
        let expected: Vec<_> = model
            .iter()
            .rev()
            .enumerate()
            .map(|(place, (id, body))| (*id, place == 0, body.is_some()))
            .collect();
        assert_eq!(listed(&install).await, expected);
        let current = model.last().and_then(|(_, body)| body.clone());
        assert_eq!(install.get("k").await, current);
    }
    for (id, body) in &model {
        assert_eq!(install.get_version("k", Some(*id)).await, *body);
    }
    let (objects, stored) = install.usage().await;
    assert_eq!(
        objects,
        model.iter().filter(|(_, body)| body.is_some()).count() as u64
    );
    assert_eq!(stored, objects * 20);
    // Nothing that is still referred to is collected, and nothing else stays.
    install.collect_all().await;
    clock.advance(GRACE_MILLIS + 1);
    for (id, body) in &model {
        assert_eq!(install.get_version("k", Some(*id)).await, *body);
        install.delete_version("k", Some(*id)).await.unwrap();
    }
    assert_eq!(listed(&install).await, []);
    assert_eq!(install.usage().await, (0, 0));
    install.collect_all().await;
    assert_eq!(install.contents().await, 0, "contents leaked");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn versions_are_what_a_list_of_them_would_be(steps in prop::collection::vec(step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
