//! The command line, and the plan of a run that it makes.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Keys in one directory.
pub(crate) const KEYS_PER_DIRECTORY: u64 = 200;
/// The bound on operations where only a time is given.
const MAX_OPERATIONS: u64 = 100_000_000;
/// The bound on time where only a count is given.
const MAX_SECONDS: f64 = 3_600.0;

/// What to do over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Put the keys 0, 1, 2 ..., each with a content of its own.
    Put,
    /// Put one content, which the server has, under the keys 0, 1, 2 ...
    PutDup,
    /// The same, signed and with `Expect: 100-continue`: the body goes out only when asked for.
    PutInstant,
    /// Get keys below `--keys` in a pseudo-random order; every 16th is compared byte by byte.
    Get,
    /// Head of keys below `--keys` in a pseudo-random order.
    Head,
    /// Delete the keys 0, 1, 2 ...
    Delete,
    /// Like put, trying failed ones again: makes the objects that others need.
    Fill,
    /// Upload whole objects in parts, `--concurrency` parts in flight, one object at a time.
    Multipart,
    /// Walk the bucket by pages; an operation is a page.
    List,
}

/// Puts load on one S3 endpoint and prints one line of JSON.
#[derive(Debug, Parser)]
#[command(name = "load")]
pub(crate) struct Arguments {
    /// What to do; without it, this help is shown.
    pub workload: Option<Workload>,
    /// Address of the server.
    #[arg(long, default_value = "127.0.0.1:9000")]
    pub endpoint: SocketAddr,
    /// Access key to sign with.
    #[arg(long, env = "LOAD_ACCESS_KEY", default_value = "")]
    pub access_key: String,
    /// Its secret.
    #[arg(
        long,
        env = "LOAD_SECRET_KEY",
        default_value = "",
        hide_env_values = true
    )]
    pub secret_key: String,
    /// Bucket to work in.
    #[arg(long, default_value = "bench")]
    pub bucket: String,
    /// Create the bucket first, unless it exists.
    #[arg(long)]
    pub create_bucket: bool,
    /// With --create-bucket: everything in it is to be encrypted, under a key of the server's.
    #[arg(long)]
    pub encrypt: bool,
    /// Goes before every key; letters, digits, `-`, `_`, `.` and `/` only.
    #[arg(long, default_value = "", value_parser = parse_prefix)]
    pub prefix: String,
    /// Size of an object: a number with or without KiB, MiB, GiB.
    #[arg(long, default_value = "4KiB", value_parser = parse_size)]
    pub size: u64,
    /// Connections.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub concurrency: u64,
    /// Operations at most.
    #[arg(long)]
    pub count: Option<u64>,
    /// Number of the first key to put or delete.
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// Seconds after which no operation is begun.
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Objects there are: what get and head choose from, and a list must find.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub keys: u64,
    /// What contents are made from; a get needs that of the put.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Sign the SHA-256 of bodies instead of UNSIGNED-PAYLOAD.
    #[arg(long)]
    pub signed: bool,
    /// Size of a part.
    #[arg(long, default_value = "8MiB", value_parser = parse_size)]
    pub part_size: u64,
    /// List with `delimiter=/`.
    #[arg(long)]
    pub delimiter: bool,
    /// Keys a page.
    #[arg(long, default_value_t = 1000)]
    pub max_keys: u64,
    /// A process of the server, its descendants included; may be repeated.
    #[arg(long)]
    pub server_pid: Vec<u32>,
    /// Threads of this client.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub threads: u64,
    /// Given by cargo to every benchmark; ignored.
    #[arg(long, hide = true)]
    pub bench: bool,
}

/// A run's fixed values.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What to do.
    pub workload: Workload,
    /// Size of an object, in bytes.
    pub size: u64,
    /// Connections.
    pub concurrency: u64,
    /// Operations at most.
    pub count: u64,
    /// Number of the first key to put or delete.
    pub first: u64,
    /// No operation begins later than this.
    pub seconds: Duration,
    /// Objects there are.
    pub keys: u64,
    /// What contents are made from.
    pub seed: u64,
    /// Goes before every key.
    pub prefix: String,
    /// Sign bodies.
    pub signed: bool,
    /// Size of a part, in bytes.
    pub part_size: u64,
    /// List with `delimiter=/`.
    pub delimiter: bool,
    /// Keys a page.
    pub max_keys: u64,
}

impl Plan {
    /// The plan that the arguments ask for; `None` when they name no workload.
    pub(crate) fn new(arguments: &Arguments) -> Option<Self> {
        let seconds = arguments.seconds.unwrap_or(MAX_SECONDS);
        let count = match (arguments.count, arguments.seconds) {
            (Some(count), _) => count,
            (None, Some(_)) => MAX_OPERATIONS,
            (None, None) => 1,
        };
        Some(Self {
            workload: arguments.workload?,
            size: arguments.size,
            concurrency: arguments.concurrency,
            count: count.min(MAX_OPERATIONS),
            first: arguments.first.min(u64::MAX - MAX_OPERATIONS),
            seconds: Duration::from_secs_f64(seconds.clamp(0.0, MAX_SECONDS)),
            keys: arguments.keys,
            seed: arguments.seed,
            prefix: arguments.prefix.clone(),
            signed: arguments.signed,
            part_size: arguments.part_size.max(1),
            delimiter: arguments.delimiter,
            max_keys: arguments.max_keys,
        })
    }

    /// The key of an object by its number.
    pub(crate) fn key(&self, number: u64) -> String {
        let directory = number / KEYS_PER_DIRECTORY;
        format!("{}dir{directory:03}/file{number:05}", self.prefix)
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        unit => return Err(format!("`{unit}` is none of B, KiB, MiB, GiB")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("`{text}` does not begin with a number"))?;
    number
        .checked_mul(unit)
        .ok_or_else(|| format!("`{text}` is too large"))
}

fn parse_prefix(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("has characters that would need encoding".to_owned())
    }
}
