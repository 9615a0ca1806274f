//! `meta` and `health`: the database as a whole, and the server as others see it.

use clap::{Args, Subcommand};

use super::{Failure, OPERATING_THREADS, Printer, block_on, encode};
use crate::app::{self, CopiedTable, CopyPhase, Database, Probe};
use crate::config::Config;
use crate::telemetry;

#[derive(Debug, Subcommand)]
pub(super) enum MetaCommand {
    /// Copy all rows of an install that is not served into an empty database, of any kind
    ///
    /// A database is a data directory, sqlite:FILE, postgres://USER:PASSWORD@HOST:PORT/DATABASE or the same with
    /// mysql. So that a password need not stand on the command line, where other users see it, the variables
    /// OSPROXY_COPY_FROM and OSPROXY_COPY_TO may name the databases, and @FILE reads one from a file.
    ///
    /// A copy that was interrupted leaves a database that cannot be served; the same command starts it again. Bytes
    /// of objects, the master key and the configuration stay where they are.
    Copy(Copy),
}

#[derive(Debug, Args)]
pub(super) struct Copy {
    /// The database of the install
    #[arg(
        long,
        value_name = "DATABASE",
        env = "OSPROXY_COPY_FROM",
        hide_env_values = true
    )]
    from: String,
    /// The empty database to fill
    #[arg(
        long,
        value_name = "DATABASE",
        env = "OSPROXY_COPY_TO",
        hide_env_values = true
    )]
    to: String,
}

#[derive(Debug, Args)]
pub(super) struct Health {
    /// Ask only whether the process answers, not whether it can serve
    #[arg(long)]
    live: bool,
}

/// Copies and reports every table.
pub(super) fn meta(
    config: &Config,
    printer: &Printer,
    command: MetaCommand,
) -> Result<(), Failure> {
    let MetaCommand::Copy(Copy { from, to }) = command;
    let (from, to) = (database("--from", &from)?, database("--to", &to)?);
    if from == to {
        return Err(Failure::Usage(
            "--to: expected another database than --from".to_owned(),
        ));
    }
    let log = telemetry::Config {
        level: "warn".to_owned(),
        ..config.log.clone()
    };
    telemetry::init(&log).map_err(|error| Failure::Usage(error.to_string()))?;
    let spinner = printer.spinner("looking at both databases");
    let mut progress = |now: app::CopyProgress<'_>| {
        let doing = match now.phase {
            CopyPhase::Clear => "deleting what an interrupted copy left of",
            CopyPhase::Copy => "copying",
            CopyPhase::Verify => "verifying",
        };
        spinner.set_message(format!("{doing} {}, {} rows", now.table, now.rows));
    };
    let copied = block_on(
        OPERATING_THREADS,
        app::copy_meta(config, &from, &to, &mut progress),
    );
    spinner.finish_and_clear();
    let report = copied??;
    let rows: u64 = report.tables.iter().map(|table| table.rows).sum();
    let width = report
        .tables
        .iter()
        .map(|table| table.table.len())
        .max()
        .unwrap_or(0);
    let line = |table: &CopiedTable| {
        format!(
            "{:width$}  {:>12}  {}",
            table.table, table.rows, table.checksum
        )
    };
    let lines: Vec<String> = report.tables.iter().map(line).collect();
    let text = format!(
        "{}\n{rows} rows copied and verified. Serve from the new database only: the old one stays as it is.\n\
         The master key is not in it: give every node master.key or OSPROXY_MASTER_KEY.",
        lines.join("\n")
    );
    printer.done(&encode(&report)?, &text)
}

/// A database as it was given, or in the file that was.
fn database(name: &str, text: &str) -> Result<Database, Failure> {
    let read;
    let text = match text.strip_prefix('@') {
        None => text,
        Some(file) => {
            read = std::fs::read_to_string(file)
                .map_err(|error| Failure::Usage(format!("{name}: {file}: {error}")))?;
            read.trim()
        }
    };
    Database::parse(text).map_err(|problem| Failure::Usage(format!("{name}: {problem}")))
}

/// Asks the server that the configuration names.
pub(super) fn health(config: &Config, printer: &Printer, health: &Health) -> Result<(), Failure> {
    let (probe, text) = match health.live {
        true => (Probe::Alive, "alive"),
        false => (Probe::Ready, "ready"),
    };
    block_on(OPERATING_THREADS, app::probe(config, probe))??;
    printer.done(&serde_json::json!({ "health": text }), text)
}
