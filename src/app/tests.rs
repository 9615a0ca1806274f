//! A whole server in this process, and commands beside it.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::serve::Running;
use super::*;
use crate::admin::RunFile;
use crate::config::Config;
use crate::model::progress::untold;
use crate::telemetry::Metrics;

fn config(dir: &tempfile::TempDir) -> Config {
    let mut config = Config {
        data_dir: dir.path().join("data"),
        ..Config::default()
    };
    config.s3.listen.set_port(0);
    config.admin.listen.set_port(0);
    config
}

async fn operator(config: &Config) -> Operator {
    Operator::open(config.clone()).await.unwrap()
}

/// The status of one admin request with these lines in its head.
async fn ask(admin: SocketAddr, head: &str) -> u16 {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let request = format!("{head}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_work_beside_a_server_and_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    match Operator::open(config.clone()).await.err().unwrap() {
        Error::NoInstall(path) => assert_eq!(path, config.data_dir),
        error => panic!("{error}"),
    }
    let running = Running::start(&config, &Metrics::new()).await.unwrap();
    let beside = operator(&config).await;
    beside.create_tenant("second").await.unwrap();
    let made = beside.create_key("second", None, None).await.unwrap();
    let keys = beside.keys().await.unwrap();
    assert_eq!(keys.len(), 2);
    assert!(
        keys.iter()
            .any(|key| key.access_key == made.pair.access_key)
    );
    assert_eq!(beside.stats().await.unwrap().stored_bytes, 0);
    assert!(beside.buckets().await.unwrap().is_empty());
    // By the server, which holds the lock, and then without it.
    let told = Mutex::new(0);
    let tell = |_| *told.lock().unwrap() += 1;
    assert_eq!(beside.gc(&tell).await.unwrap(), GcReport::default());
    assert!(*told.lock().unwrap() > 0, "the server tells nothing");
    running.stop(Duration::ZERO).await;
    assert!(RunFile::read(&config.data_dir).unwrap().is_none());
    assert_eq!(beside.gc(&untold).await.unwrap(), GcReport::default());
    beside.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let running = Running::start(&config, &Metrics::new()).await.unwrap();
    let refused = Running::start(&config, &Metrics::new())
        .await
        .err()
        .unwrap();
    assert!(matches!(refused, Error::InUse { .. }), "{refused}");
    running.stop(Duration::ZERO).await;
    Running::start(&config, &Metrics::new())
        .await
        .unwrap()
        .stop(Duration::ZERO)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken_is_refused_by_its_setting_and_leaves_no_install() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(&dir);
    config.admin.listen = taken.local_addr().unwrap();
    let refused = Running::start(&config, &Metrics::new())
        .await
        .err()
        .unwrap();
    assert!(
        refused.to_string().starts_with("admin.listen: "),
        "{refused}"
    );
    let error = Operator::open(config).await.err().unwrap();
    assert!(matches!(error, Error::NoInstall(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_routes_answer_whom_they_should() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let running = Running::start(&config, &Metrics::new()).await.unwrap();
    let RunFile { admin, token, pid } = RunFile::read(&config.data_dir).unwrap().unwrap();
    assert_eq!(pid, std::process::id());
    let token = token.reveal();
    for (line, host, credentials, expected) in [
        ("GET /healthz", "anything.example", "", 200),
        ("GET /readyz", "anything.example", "", 200),
        ("GET /metrics", "anything.example", "", 200),
        ("GET /nothing", "127.0.0.1", "", 404),
        ("GET /v1/stats", "127.0.0.1", token, 200),
        ("POST /v1/gc", "localhost", token, 200),
        ("GET /v1/gc", "localhost", token, 405),
        ("GET /v1/stats", "127.0.0.1", "", 401),
        ("GET /v1/stats", "127.0.0.1", &token[1..], 401),
        ("POST /v1/gc", "127.0.0.1", "wrong", 401),
        ("POST /v1/gc", "rebound.example", token, 403),
    ] {
        let head =
            format!("{line} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {credentials}");
        assert_eq!(ask(admin, &head).await, expected, "{line} {host}");
    }
    running.draining.cancel();
    for (path, expected) in [("readyz", 503), ("healthz", 200)] {
        let head = format!("GET /{path} HTTP/1.1\r\nHost: localhost");
        assert_eq!(ask(admin, &head).await, expected, "{path}");
    }
    running.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_holds_the_lock_and_does_not_answer_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let running = Running::start(&config, &Metrics::new()).await.unwrap();
    let mut file = RunFile::read(&config.data_dir).unwrap().unwrap();
    let beside = operator(&config).await;
    file.admin.set_port(1);
    file.write(&config.data_dir).unwrap();
    let error = beside.gc(&untold).await.unwrap_err();
    assert!(matches!(error, Error::Server { .. }), "{error}");
    // Of another process: left behind, and not to be asked.
    file.pid += 1;
    file.write(&config.data_dir).unwrap();
    let error = beside.gc(&untold).await.unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    beside.close().await;
    running.stop(Duration::ZERO).await;
}
