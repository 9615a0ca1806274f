//! Databases that an earlier version made are brought up to date by the one that opens them, also where that was cut
//! off before.

use std::path::Path;

use osproxy::meta::copy::Place;
use osproxy::meta::{MetaStore, nodes};
use osproxy::model::fault::{Fault, Kind};
use osproxy::telemetry::Metrics;
use sha2::{Digest, Sha256};
use sqlx::Connection;

use crate::install::{Install, bytes, database, open_at, place};
use crate::moves::fresh;

/// The steps of each kind of database, in order, as they lie in the source.
fn steps(kind: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/meta/migrations");
    let files = std::fs::read_dir(folder.join(kind)).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    let texts = files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap());
    texts.collect()
}

fn kind(place: &Place) -> &'static str {
    match place {
        Place::Sqlite(_) => "sqlite",
        Place::Server(url) if url.starts_with("postgres") => "postgres",
        Place::Server(_) => "mysql",
    }
}

/// Runs statements as they are.
pub async fn run(place: &Place, sql: &str) {
    let text = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
    match place {
        Place::Sqlite(path) => rusqlite::Connection::open(path)
            .unwrap()
            .execute_batch(sql)
            .unwrap(),
        Place::Server(url) if url.starts_with("postgres") => {
            let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
            text.execute(&mut connection).await.unwrap();
        }
        Place::Server(url) => {
            let mut connection = sqlx::MySqlConnection::connect(url).await.unwrap();
            text.execute(&mut connection).await.unwrap();
        }
    }
}

/// Makes the database that a version which knew `count` steps left, with the node it was.
async fn leave(place: &Place, count: usize) {
    let steps = steps(kind(place));
    for step in &steps[..count] {
        run(place, step).await;
    }
    match place {
        Place::Sqlite(_) => run(place, &format!("PRAGMA user_version = {count}")).await,
        Place::Server(_) => {
            run(
                place,
                "CREATE TABLE schema_version (version BIGINT NOT NULL PRIMARY KEY)",
            )
            .await;
            for step in 1..=count {
                let sql = format!("INSERT INTO schema_version (version) VALUES ({step})");
                run(place, &sql).await;
            }
        }
    }
    let node = "INSERT INTO nodes (id, lease_until, oldest_read, oldest_write, placement_rev) VALUES (7, 1, 2, 3, 1)";
    run(place, node).await;
}

async fn seven(meta: &MetaStore) -> nodes::NodeRow {
    let rows = meta
        .read("list nodes", |session| Box::pin(nodes::list(session)))
        .await
        .map_err(|fault: Fault| fault)
        .unwrap();
    rows.into_iter().find(|row| row.id == 7).unwrap()
}

#[test]
fn steps_that_have_landed_are_never_changed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/meta/migrations");
    let landed = std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    let mut sums = Vec::new();
    for kind in ["mysql", "postgres", "sqlite"] {
        let files = std::fs::read_dir(folder.join(kind)).unwrap();
        for path in files.map(|file| file.unwrap().path()) {
            let sum = hex::encode(Sha256::digest(std::fs::read(&path).unwrap()));
            let name = path.file_name().unwrap().to_str().unwrap();
            sums.push(format!("{sum}  {kind}/{name}"));
        }
    }
    sums.sort_by(|one, other| one[64..].cmp(&other[64..]));
    let told = "a database that has made a step never makes it again: write a further one, and add it to SHA256SUMS";
    assert_eq!(landed.lines().collect::<Vec<_>>(), sums, "{told}");
}

#[tokio::test]
async fn what_any_earlier_version_left_is_brought_up_to_date() {
    let (dir, _) = fresh();
    let count = steps(kind(&place(dir.path()).await)).len();
    for version in 1..count {
        let (dir, clock) = fresh();
        leave(&place(dir.path()).await, version).await;
        let install = Install::open(dir.path(), &clock).await;
        install.put("k", bytes(1, 100)).await;
        let node = seven(&install.meta).await;
        assert_eq!((node.oldest_read, node.oldest_write), (2, 3), "{version}");
        assert!(node.who.backends.is_empty(), "{version}");
    }
}

#[tokio::test]
async fn of_processes_that_start_at_once_one_makes_the_step_and_all_go_on() {
    let (dir, _) = fresh();
    let place = place(dir.path()).await;
    leave(&place, 1).await;
    let opened = futures::future::join_all((0..6).map(|_| open_at(&place))).await;
    for meta in opened {
        assert!(seven(&meta.unwrap()).await.who.backends.is_empty());
    }
}

#[tokio::test]
async fn a_step_that_was_made_and_not_recorded_is_made_again() {
    let (dir, _) = fresh();
    let place = place(dir.path()).await;
    if kind(&place) != "mysql" {
        println!(
            "skipped: only MySQL can make a step without recording it, elsewhere both are one transaction"
        );
        return;
    }
    let all = steps("mysql");
    for made in 1..=all.len() {
        let (dir, _) = fresh();
        let place = crate::install::place(dir.path()).await;
        leave(&place, 1).await;
        for step in &all[1..made] {
            run(&place, step).await;
        }
        seven(&database(dir.path(), Metrics::new()).await).await;
    }
}

#[tokio::test]
async fn a_schema_of_a_later_version_is_left_alone() {
    let (dir, _) = fresh();
    let place = place(dir.path()).await;
    open_at(&place).await.unwrap().close().await;
    match &place {
        Place::Sqlite(_) => run(&place, "PRAGMA user_version = 999").await,
        Place::Server(_) => {
            run(&place, "INSERT INTO schema_version (version) VALUES (999)").await;
        }
    }
    let refused = open_at(&place).await.err().unwrap();
    assert_eq!(refused.kind(), Kind::Config);
    assert!(refused.to_string().contains("999"), "{refused}");
}
