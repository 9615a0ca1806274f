//! The command line: what can be asked, how it is answered, and the exit codes.
//!
//! Answers go to standard output, as text for people or with `--json` as one JSON document; errors and the log
//! go to standard error. The exit code is 0 when it was done, 1 when it was not, 2 when the command line or the
//! configuration is wrong; of `fsck` and `scrub` it is 1 when something is wrong, and 2 when that could not be told. A
//! secret is printed only by the command that generated it.

mod encryption;
mod fsck;
mod import;
mod jobs;
mod meta;
mod moving;
mod process;
mod recover;
mod scrub;
mod text;
mod watch;

use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use encryption::{EncryptionCommand, KmsCommand};
use fsck::FsckCommand;
use import::ImportCommand;
use jobs::JobsCommand;
use meta::{Health, MetaCommand};
use moving::MoveCommand;
use process::{block_on, log_panics, raise_file_limit};
use recover::RecoverCommand;
use scrub::ScrubCommand;
use text::{date, size};
use watch::Watch;

use crate::app::{self, KeyState, Operator, Pair, Secret};
use crate::config::{Config, Overrides};
use crate::telemetry;

/// Done.
const DONE: u8 = 0;
/// Not done; standard error says why.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
const USAGE: u8 = 2;

/// Threads of a command.
const OPERATING_THREADS: usize = 2;
/// Secrets shorter than this can be found from one signed request by trying.
const SECRET_SHORT: usize = 16;

/// S3 gateway that stores every distinct content once, on any storage vendor.
///
/// Without a command it serves. The embedded default needs nothing: S3 on 127.0.0.1:9000, data in
/// ./osproxy-data.
#[derive(Debug, Parser)]
#[command(version)]
struct CommandLine {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct Settings {
    /// A configuration file; without it the one named by OSPROXY_CONFIG, if any
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the database, the root key and local blobs are
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address and port of the S3 endpoint
    #[arg(long, global = true, value_name = "ADDRESS")]
    s3_listen: Option<SocketAddr>,
    /// Serve the native API too, at this address and port
    #[arg(long, global = true, value_name = "ADDRESS")]
    native_listen: Option<SocketAddr>,
    /// Address and port of health, metrics and administration
    #[arg(long, global = true, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
    /// Answer with JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT
    Serve,
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Tenants: accounts that own buckets and access keys
    #[command(subcommand)]
    Tenants(TenantsCommand),
    /// Access keys; changes are in force on a running server within a second
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Encryption at rest: the keys that wrap the data keys of contents
    #[command(subcommand)]
    Encryption(EncryptionCommand),
    /// KMS keys of tenants, which clients name for SSE-KMS
    #[command(subcommand)]
    Kms(KmsCommand),
    /// Jobs: work outside of requests, what waits and runs and what became of it
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// The database of an install as a whole
    #[command(subcommand)]
    Meta(MetaCommand),
    /// Ask the server on this machine whether it can serve; exit code 0 when it can
    Health(Health),
    /// List all buckets with what they hold
    Buckets,
    /// Show logical and stored bytes and their ratio
    Stats,
    /// Move all blobs of a backend to another, or a bucket to another placement, while they are used
    Move(MoveCommand),
    /// List the nodes that share the database, with what they have open
    Nodes,
    /// Delete the bytes that nothing refers to and whose grace has passed
    Gc,
    /// Compare the database with what lies at the backends; exit code 0 when all is well, 1 when not, 2 when it could not tell
    Fsck(FsckCommand),
    /// Read every copy again now, mend bad ones from good ones, and say what came of it; exit codes as of fsck
    Scrub(ScrubCommand),
    /// Rebuild a lost database from the manifests at the backends
    Recover(RecoverCommand),
    /// Adopt the uids and objects of an existing osproxy where they lie, without copying bytes; no server may run here
    ///
    /// Each object is read once, compared with its row, and stays where it is; files get their old uids. What cannot be
    /// adopted is listed by its uid. Run it again and it adopts what is new. So that a password need not stand on the
    /// command line, where other users see it, the variable OSPROXY_IMPORT_DATABASE may name the database, and @FILE
    /// reads it from a file. Stop the old osproxy first.
    ImportOsproxy(ImportCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check all settings and show those in effect
    Check,
}

#[derive(Debug, Subcommand)]
enum TenantsCommand {
    /// Make a tenant
    Create {
        /// Its name
        name: String,
    },
    /// List all tenants
    List,
    /// Delete a tenant that has neither buckets nor access keys
    Delete {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make an access key; without a given pair it is generated and its secret shown once
    Create {
        /// Whose it is
        #[arg(long, default_value = app::DEFAULT_TENANT)]
        tenant: String,
        /// The access key to make, together with a secret
        #[arg(long, value_name = "TEXT")]
        access_key: Option<String>,
        /// Its secret; `-` reads one line from standard input, which other users cannot see
        #[arg(
            long,
            value_name = "TEXT",
            env = "OSPROXY_SECRET_KEY",
            hide_env_values = true,
            allow_hyphen_values = true
        )]
        secret_key: Option<String>,
        /// A policy of what its holder may do, as JSON; without it all that the tenant may
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
    /// Policies of access keys: what their holders may do
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// List all access keys but the temporary ones, without their secrets
    List,
    /// Forbid the use of an access key
    Disable {
        /// The access key
        access_key: String,
    },
    /// Allow the use of a disabled access key
    Enable {
        /// The access key
        access_key: String,
    },
    /// Delete an access key
    Delete {
        /// The access key
        access_key: String,
    },
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Show the policy of an access key
    Show {
        /// The access key
        access_key: String,
    },
    /// Give an access key a policy; sessions that it began are narrowed too
    Set {
        /// The access key
        access_key: String,
        /// The policy as JSON; `-` reads it from standard input
        file: PathBuf,
    },
    /// Take the policy of an access key away: it may do all that its tenant may
    Delete {
        /// The access key
        access_key: String,
    },
}

/// Why the command was not done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    App(#[from] app::Error),
    #[error("cannot start threads: {0}")]
    Threads(#[from] process::NoThreads),
    #[error("{0}")]
    Other(String),
    /// Standard output says what is wrong.
    #[error("something is wrong with what is stored")]
    Found,
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            // Help and version come this way too, and are no error.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { DONE });
        }
    };
    let json = line.settings.json;
    let failure = match dispatch(line) {
        Ok(()) => return ExitCode::from(DONE),
        Err(failure) => failure,
    };
    let text = failure.to_string();
    if matches!(failure, Failure::Found) {
        // The answer has said it.
    } else if json {
        eprintln!("{}", json!({ "error": text }));
    } else {
        eprintln!("error: {text}");
    }
    ExitCode::from(match failure {
        Failure::Usage(_) => USAGE,
        Failure::App(_) | Failure::Threads(_) | Failure::Other(_) | Failure::Found => FAILED,
    })
}

fn dispatch(line: CommandLine) -> Result<(), Failure> {
    let CommandLine { settings, command } = line;
    let overrides = Overrides {
        data_dir: settings.data_dir,
        s3_listen: settings.s3_listen,
        native_listen: settings.native_listen,
        admin_listen: settings.admin_listen,
    };
    let config = Config::load(settings.config.as_deref(), &overrides)
        .map_err(|error| Failure::Usage(error.to_string()))?;
    let printer = Printer {
        json: settings.json,
    };
    match command.unwrap_or(Command::Serve) {
        Command::Serve => serve(config),
        Command::Config(ConfigCommand::Check) => printer.settings(&config),
        Command::Tenants(command) => operate(config, async |operator| {
            tenants(operator, &printer, command).await
        }),
        Command::Keys(command) => operate(config, async |operator| {
            keys(operator, &printer, command).await
        }),
        Command::Encryption(command) => operate(config, async |operator| {
            encryption::encryption(operator, &printer, command).await
        }),
        Command::Kms(command) => operate(config, async |operator| {
            encryption::kms(operator, &printer, command).await
        }),
        Command::Move(command) => operate(config, async |operator| {
            moving::moving(operator, &printer, command).await
        }),
        Command::Jobs(command) => operate(config, async |operator| {
            jobs::jobs(operator, &printer, command).await
        }),
        Command::Meta(command) => meta::meta(&config, &printer, command),
        Command::Health(health) => meta::health(&config, &printer, &health),
        Command::Buckets => operate(config, async |operator| buckets(operator, &printer).await),
        Command::Stats => operate(config, async |operator| stats(operator, &printer).await),
        Command::Nodes => operate(config, async |operator| nodes(operator, &printer).await),
        Command::Gc => operate(config, async |operator| gc(operator, &printer).await),
        Command::Fsck(command) => fsck::fsck(config, &printer, command),
        Command::Scrub(command) => scrub::scrub(config, &printer, &command),
        Command::Recover(command) => recover::recover(&config, &printer, &command),
        Command::ImportOsproxy(command) => import::import(&config, &printer, command),
    }
}

fn serve(config: Config) -> Result<(), Failure> {
    telemetry::init(&config.log).map_err(|error| Failure::Usage(error.to_string()))?;
    log_panics();
    raise_file_limit();
    Ok(block_on(process::serving_threads(), app::serve(config))??)
}

/// Runs a command on the install of the data directory.
fn operate(
    config: Config,
    command: impl AsyncFnOnce(&Operator) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let log = telemetry::Config {
        level: "warn".to_owned(),
        ..config.log.clone()
    };
    telemetry::init(&log).map_err(|error| Failure::Usage(error.to_string()))?;
    block_on(OPERATING_THREADS, async {
        let operator = Operator::open(config).await?;
        let outcome = command(&operator).await;
        operator.close().await;
        outcome
    })?
}

async fn tenants(
    operator: &Operator,
    printer: &Printer,
    command: TenantsCommand,
) -> Result<(), Failure> {
    match command {
        TenantsCommand::Create { name } => {
            operator.create_tenant(&name).await?;
            printer.done(&json!({ "tenant": name }), &format!("tenant {name} made"))
        }
        TenantsCommand::Delete { name } => {
            operator.delete_tenant(&name).await?;
            printer.done(
                &json!({ "tenant": name }),
                &format!("tenant {name} deleted"),
            )
        }
        TenantsCommand::List => {
            let tenants = operator.tenants().await?;
            let row = |tenant: &app::TenantSummary| {
                vec![
                    ("name", json!(tenant.name)),
                    ("buckets", json!(tenant.buckets)),
                    ("keys", json!(tenant.keys)),
                    ("created", json!(date(tenant.created))),
                    ("owner_id", json!(tenant.owner_id)),
                ]
            };
            printer.table(tenants.iter().map(row))
        }
    }
}

async fn keys(operator: &Operator, printer: &Printer, command: KeysCommand) -> Result<(), Failure> {
    let (access_key, state, what) = match command {
        KeysCommand::Create {
            tenant,
            access_key,
            secret_key,
            policy,
        } => {
            let policy = policy.as_deref().map(read_policy).transpose()?;
            return create_key(operator, printer, &tenant, access_key, secret_key, policy).await;
        }
        KeysCommand::Policy(command) => return key_policy(operator, printer, command).await,
        KeysCommand::List => {
            let keys = operator.keys().await?;
            let row = |key: &app::KeySummary| {
                let state = if key.active { "active" } else { "disabled" };
                vec![
                    ("access_key", json!(key.access_key)),
                    ("tenant", json!(key.tenant)),
                    ("state", json!(state)),
                    ("created", json!(date(key.created))),
                    ("policy", json!(if key.has_policy { "yes" } else { "no" })),
                ]
            };
            return printer.table(keys.iter().map(row));
        }
        KeysCommand::Disable { access_key } => (access_key, KeyState::Disabled, "disabled"),
        KeysCommand::Enable { access_key } => (access_key, KeyState::Active, "enabled"),
        KeysCommand::Delete { access_key } => (access_key, KeyState::Deleted, "deleted"),
    };
    operator.set_key_state(&access_key, state).await?;
    printer.done(
        &json!({ "access_key": access_key, "state": what }),
        &format!("access key {access_key} {what}"),
    )
}

async fn create_key(
    operator: &Operator,
    printer: &Printer,
    tenant: &str,
    access_key: Option<String>,
    secret_key: Option<String>,
    policy: Option<String>,
) -> Result<(), Failure> {
    let given = match (access_key, secret_key) {
        (None, None) => None,
        (Some(access_key), Some(secret_key)) => Some(Pair {
            access_key,
            secret_key: read_secret(secret_key)?,
        }),
        _ => {
            let problem = "--access-key and a secret go together; give the secret with --secret-key, on standard input with --secret-key -, or as OSPROXY_SECRET_KEY, or give neither to have both generated";
            return Err(Failure::Usage(problem.to_owned()));
        }
    };
    let is_generated = given.is_none();
    let made = operator.create_key(tenant, given, policy).await?;
    let (access_key, secret_key) = (&made.pair.access_key, made.pair.secret_key.reveal());
    if secret_key.len() < SECRET_SHORT {
        eprintln!(
            "warning: the secret is short; one of {SECRET_SHORT} characters or more is safer"
        );
    }
    let mut answer = json!({ "access_key": access_key, "tenant": tenant, "new": made.is_new });
    let mut text = match made.is_new {
        true => format!("access key {access_key} of tenant {tenant} made"),
        false => format!("access key {access_key} of tenant {tenant} was there already"),
    };
    if is_generated {
        answer["secret_key"] = json!(secret_key);
        let _ = write!(text, "\nsecret key {secret_key}\nIt is not shown again.");
    }
    printer.done(&answer, &text)
}

async fn key_policy(
    operator: &Operator,
    printer: &Printer,
    command: PolicyCommand,
) -> Result<(), Failure> {
    let (access_key, policy, what) = match command {
        PolicyCommand::Show { access_key } => {
            let policy = operator.key_policy(&access_key).await?;
            let text = policy.as_deref().unwrap_or("none");
            return printer.done(&json!({ "access_key": access_key, "policy": policy }), text);
        }
        PolicyCommand::Set { access_key, file } => (access_key, Some(read_policy(&file)?), "set"),
        PolicyCommand::Delete { access_key } => (access_key, None, "deleted"),
    };
    operator.set_key_policy(&access_key, policy).await?;
    printer.done(
        &json!({ "access_key": access_key, "policy": what }),
        &format!("policy of access key {access_key} {what}"),
    )
}

/// A policy in a file, or on standard input for `-`. Its checks are the server's.
fn read_policy(file: &Path) -> Result<String, Failure> {
    let read = match file.as_os_str() == "-" {
        true => io::read_to_string(io::stdin().lock()),
        false => std::fs::read_to_string(file),
    };
    let text = read.map_err(|error| Failure::Other(format!("{}: {error}", file.display())))?;
    Ok(text.trim().to_owned())
}

/// The secret as it was given, or one line of standard input for `-`.
fn read_secret(given: String) -> Result<Secret, Failure> {
    if given != "-" {
        return Ok(Secret::new(given));
    }
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::Other(format!("standard input: {error}")))?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(Secret::new(line))
}

async fn buckets(operator: &Operator, printer: &Printer) -> Result<(), Failure> {
    let buckets = operator.buckets().await?;
    let row = |bucket: &app::BucketUsage| {
        vec![
            ("name", json!(bucket.name)),
            ("tenant", json!(bucket.tenant)),
            ("objects", json!(bucket.objects)),
            ("logical_bytes", json!(bucket.logical_bytes)),
            ("created", json!(date(bucket.created))),
        ]
    };
    printer.table(buckets.iter().map(row))
}

async fn stats(operator: &Operator, printer: &Printer) -> Result<(), Failure> {
    let stats = operator.stats().await?;
    let text = format!(
        "objects        {}\n\
         logical bytes  {}\n\
         stored bytes   {}  ({} in rows, {} in blobs)\n\
         ratio          {:.2}\n\
         contents       {}\n\
         deleting       {}",
        stats.objects,
        size(stats.logical_bytes),
        size(stats.stored_bytes),
        stats.inline_bytes,
        stats.blob_bytes,
        stats.ratio,
        stats.contents,
        size(stats.deleting_bytes),
    );
    printer.done(&encode(&stats)?, &text)
}

async fn nodes(operator: &Operator, printer: &Printer) -> Result<(), Failure> {
    let nodes = operator.nodes().await?;
    let row = |node: &app::NodeStatus| {
        vec![
            // Too long for the numbers of some who read JSON.
            ("id", json!(node.id.to_string())),
            ("name", json!(node.name)),
            ("worker", json!(node.worker)),
            ("address", json!(node.address)),
            ("backends", json!(node.backends.join(", "))),
            ("beat_age_ms", json!(node.beat_age_ms)),
            ("oldest_read_ms", json!(node.oldest_read_ms)),
            ("oldest_write_ms", json!(node.oldest_write_ms)),
        ]
    };
    printer.table(nodes.iter().map(row))
}

async fn gc(operator: &Operator, printer: &Printer) -> Result<(), Failure> {
    let watch = printer.watch("collecting");
    let report = operator.gc(&|now| watch.tell(now)).await?;
    drop(watch);
    let mut text = format!(
        "contents  {} looked at, {} deleted\n\
         blobs     {} deleted, {} failed and left for the next time\n\
         sweep     {} listed, {} without a row deleted, {} not ours left alone",
        report.collect.looked_at,
        report.collect.contents,
        report.collect.blobs,
        report.collect.failed,
        report.sweep.listed,
        report.sweep.orphans,
        report.sweep.foreign,
    );
    if report.sweep.refused > 0 {
        let _ = write!(
            text,
            "\n          {} backends left alone, whose blobs may be another install's: see the log",
            report.sweep.refused
        );
    }
    printer.done(&encode(&report)?, &text)
}

/// Writes answers, in the form that was asked for.
struct Printer {
    json: bool,
}

impl Printer {
    fn done(&self, answer: &Value, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let written = if self.json {
            writeln!(out, "{answer}")
        } else {
            writeln!(out, "{text}")
        };
        match written.and_then(|()| out.flush()) {
            // Who reads, as `head` does, has seen enough.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::Other(format!("standard output: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Rows of named cells: a JSON list of objects, or columns under their names.
    fn table(&self, rows: impl Iterator<Item = Vec<(&'static str, Value)>>) -> Result<(), Failure> {
        let rows: Vec<_> = rows.collect();
        let text = match rows.first() {
            None => "none".to_owned(),
            Some(first) => {
                let names = first.iter().map(|(name, _)| *name).collect();
                let cells = rows
                    .iter()
                    .map(|row| row.iter().map(|(_, cell)| plain(cell)));
                text::columns(names, cells.map(Iterator::collect))
            }
        };
        let list = rows
            .into_iter()
            .map(|row| row.into_iter().map(|(name, cell)| (name.to_owned(), cell)))
            .map(|row| Value::Object(row.collect()))
            .collect();
        self.done(&Value::Array(list), &text)
    }

    fn settings(&self, config: &Config) -> Result<(), Failure> {
        let settings = config.effective();
        let mut text = String::new();
        for (name, value) in &settings {
            let _ = writeln!(text, "{name} = {value}");
        }
        let answer = settings
            .into_iter()
            .map(|(name, value)| (name, json!(value)));
        self.done(&Value::Object(answer.collect()), text.trim_end())
    }

    /// How much of so many bytes is done, while a person waits.
    fn bar(&self) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(0);
        let template = "{msg} [{wide_bar}] {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }

    /// Something that moves while a person waits.
    fn spinner(&self, what: &'static str) -> ProgressBar {
        if self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let spinner = ProgressBar::new_spinner().with_message(what);
        spinner.enable_steady_tick(Duration::from_millis(100));
        spinner
    }

    /// The same, for work that tells how far it is.
    fn watch(&self, what: &'static str) -> Watch {
        Watch::new(self.spinner(what))
    }
}

fn plain(cell: &Value) -> String {
    match cell {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn encode(answer: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(answer).map_err(|error| Failure::Other(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(std::iter::once("osproxy").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_holds_together() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn no_command_is_serve_and_flags_stand_anywhere() {
        let line = parse("--data-dir /d --s3-listen 127.0.0.1:0").unwrap();
        assert!(line.command.is_none());
        assert_eq!(line.settings.data_dir.unwrap(), PathBuf::from("/d"));
        let line = parse("serve --admin-listen [::1]:1").unwrap();
        assert!(matches!(line.command, Some(Command::Serve)));
        let line = parse("keys list --json --data-dir /d").unwrap();
        assert!(line.settings.json && line.settings.data_dir.is_some());
    }

    #[test]
    fn wrong_lines_are_usage_errors() {
        for line in [
            "frobnicate",
            "keys",
            "tenants create",
            "serve --s3-listen nowhere",
            "stats extra",
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.use_stderr(), "{line}");
        }
        assert!(!parse("--help").unwrap_err().use_stderr());
    }
}
