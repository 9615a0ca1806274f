//! Load generator for S3 endpoints.
//!
//! ```text
//! cargo bench --bench load -- put --endpoint 127.0.0.1:9000 --size 1MiB --concurrency 16 \
//!     --seconds 3 --create-bucket --server-pid 4711
//! ```
//!
//! One run is one workload on some keep-alive connections, bounded by a time, a count or both, and
//! ends in one line of JSON: throughput, latencies, errors, and what client, server and the rest of
//! the machine spent. Client and server are meant to share a small machine, so the client is thrifty:
//! one thread, hand-written HTTP and signatures, bodies made in the cache and discarded in place.
//!
//! Keys are `PREFIXdirDDD/fileNNNNN`, 200 in a directory. Contents follow from `--seed` and the
//! object's number, so that one run can check what another has put. Statuses and lengths are always
//! checked, bytes for a part of the GETs and for some objects after a PUT; whatever is wrong is an
//! error, counted and shown. Credentials come from `LOAD_ACCESS_KEY` and `LOAD_SECRET_KEY` or from
//! the command line. The exit code is 0 also when operations failed: read `errors`.

#[path = "load/client.rs"]
mod client;
#[path = "load/content.rs"]
mod content;
#[path = "load/http.rs"]
mod http;
#[path = "load/list.rs"]
mod list;
#[path = "load/measure.rs"]
mod measure;
#[path = "load/multipart.rs"]
mod multipart;
#[path = "load/objects.rs"]
mod objects;
#[path = "load/plan.rs"]
mod plan;
#[path = "load/sign.rs"]
mod sign;
#[path = "load/tally.rs"]
mod tally;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{CommandFactory, Parser, ValueEnum};
use serde::Serialize;

use crate::client::{Client, Failure, Target};
use crate::content::ContentSource;
use crate::measure::{Cost, Server};
use crate::plan::{Arguments, Plan, Workload};
use crate::tally::Tally;

/// What a run prints.
#[derive(Serialize)]
struct Report {
    workload: String,
    size: u64,
    concurrency: u64,
    ops: u64,
    seconds: f64,
    ops_per_s: f64,
    /// Of object bytes, sent or not, in 10^6 a second; zero where no object's bytes are meant.
    mb_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    errors: u64,
    first_error: Option<String>,
    /// Objects or pages whose content was compared and right.
    verified: u64,
    /// Bytes of bodies that were sent.
    sent_bytes: u64,
    client_cpu_s: f64,
    server_cpu_s: f64,
    server_peak_rss_mb: Option<f64>,
    /// Cores in use by anything but server and client.
    other_cpu: f64,
    /// Cores taken by the hypervisor.
    stolen_cpu: f64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(plan) = Plan::new(&arguments) else {
        // What `cargo bench` and `cargo test --all-targets` do without arguments.
        println!("{}", Arguments::command().render_help());
        return ExitCode::SUCCESS;
    };
    let runtime = if arguments.threads == 1 {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
    } else {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(arguments.threads as usize)
            .enable_all()
            .build()
    };
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("load: starting the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&arguments, Arc::new(plan))) {
        Ok(report) => {
            let line = serde_json::to_string(&report).expect("a report is plain numbers and text");
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("load: preparing the run: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments, plan: Arc<Plan>) -> Result<Report, Failure> {
    let server = Server::new(arguments.server_pid.clone());
    let mut clients = connect(arguments).await?;
    let first = &mut clients[0];
    if arguments.create_bucket {
        first.create_bucket().await?;
        if arguments.encrypt {
            first.encrypt_bucket().await?;
        }
    }
    let digest = objects::prepare(first, &plan).await?;

    server.reset_peak();
    let before = server.read();
    let begin = Instant::now();
    let (mut clients, mut tally) = match plan.workload {
        Workload::Multipart => multipart::run(clients, &plan).await,
        Workload::List => list::run(clients, &plan).await,
        _ => objects::run(clients, &plan, digest).await,
    };
    let took = begin.elapsed();
    let cost = server.cost_since(&before);
    let peak_rss_mb = server.peak_rss_mb();

    if let Some(client) = clients.first_mut() {
        match plan.workload {
            Workload::Multipart => multipart::revisit(client, &plan, &mut tally).await,
            Workload::List => {}
            _ => objects::revisit(client, &plan, &mut tally).await,
        }
    }
    let mut report = summarize(&plan, &mut tally, took, &cost);
    report.server_peak_rss_mb = peak_rss_mb.map(|peak| rounded(peak, 1));
    Ok(report)
}

/// As many connected clients as asked for, at least one.
async fn connect(arguments: &Arguments) -> Result<Vec<Client>, Failure> {
    let source = Arc::new(ContentSource::new());
    let target = Arc::new(Target {
        address: arguments.endpoint,
        bucket: arguments.bucket.clone(),
        access_key: arguments.access_key.clone(),
        secret_key: arguments.secret_key.clone(),
    });
    let mut clients = Vec::new();
    for _ in 0..arguments.concurrency {
        let mut client = Client::new(Arc::clone(&target), Arc::clone(&source));
        client.connect().await?;
        clients.push(client);
    }
    Ok(clients)
}

fn summarize(plan: &Plan, tally: &mut Tally, took: Duration, cost: &Cost) -> Report {
    let seconds = took.as_secs_f64();
    let ops = tally.operations();
    let [p50_ms, p99_ms] = tally.percentiles_ms([50.0, 99.0]);
    let object_bytes = match plan.workload {
        Workload::Head | Workload::Delete | Workload::List => 0,
        _ => ops * plan.size,
    };
    let name = plan.workload.to_possible_value();
    Report {
        workload: name.map_or_else(String::new, |value| value.get_name().to_owned()),
        size: plan.size,
        concurrency: plan.concurrency,
        ops,
        seconds: rounded(seconds, 3),
        ops_per_s: rounded(ops as f64 / seconds, 2),
        mb_per_s: rounded(object_bytes as f64 / 1e6 / seconds, 2),
        p50_ms: rounded(p50_ms, 3),
        p99_ms: rounded(p99_ms, 3),
        errors: tally.errors,
        first_error: tally.first_error.take(),
        verified: tally.verified,
        sent_bytes: tally.sent_bytes,
        client_cpu_s: rounded(cost.client_s, 2),
        server_cpu_s: rounded(cost.server_s, 2),
        server_peak_rss_mb: None,
        other_cpu: rounded(cost.other_s / seconds, 3),
        stolen_cpu: rounded(cost.stolen_s / seconds, 3),
    }
}

fn rounded(value: f64, places: i32) -> f64 {
    let scale = 10f64.powi(places);
    (value * scale).round() / scale
}
