//! `import-osproxy`: an existing osproxy taken over.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::Args;

use super::process::block_on;
use super::text::size;
use super::{Failure, OPERATING_THREADS, Printer, encode};
use crate::app::{self, ImportOrder, ImportReport, Secret};
use crate::config::Config;
use crate::telemetry;

/// Files that are shown to people; JSON has up to ten thousand.
const SHOWN_MAX: usize = 20;

#[derive(Debug, Args)]
pub(super) struct ImportCommand {
    /// The database of the existing osproxy: postgres://USER:PASSWORD@HOST:PORT/DATABASE or the same with mysql, or
    /// @FILE that holds it
    #[arg(
        long,
        value_name = "URL",
        env = "OSPROXY_IMPORT_DATABASE",
        hide_env_values = true
    )]
    database: String,
    /// The backend that holds its objects, each bucket a folder below the root
    #[arg(long, value_name = "BACKEND", required_unless_present = "bucket")]
    backend: Option<String>,
    /// A bucket that is the root of a backend of its own; may be given again
    #[arg(long, value_name = "BUCKET=BACKEND", value_parser = pair)]
    bucket: Vec<(String, String)>,
    /// Never delete an adopted object, also when nothing refers to it any more
    #[arg(long)]
    keep_objects: bool,
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((bucket, backend)) if !bucket.is_empty() && !backend.is_empty() => {
            Ok((bucket.to_owned(), backend.to_owned()))
        }
        _ => Err("expected BUCKET=BACKEND"),
    }
}

pub(super) fn import(
    config: &Config,
    printer: &Printer,
    command: ImportCommand,
) -> Result<(), Failure> {
    let log = telemetry::Config {
        level: "warn".to_owned(),
        ..config.log.clone()
    };
    telemetry::init(&log).map_err(|error| Failure::Usage(error.to_string()))?;
    let buckets: BTreeMap<String, String> = command.bucket.iter().cloned().collect();
    if buckets.len() != command.bucket.len() {
        return Err(Failure::Usage(
            "--bucket: a bucket was named twice".to_owned(),
        ));
    }
    let order = ImportOrder {
        database: database(&command.database)?,
        backend: command.backend,
        buckets,
        keep_objects: command.keep_objects,
    };
    let watch = printer.watch("looking at the old database");
    let tell = |now| watch.tell(now);
    let report = block_on(OPERATING_THREADS, app::import(config, &order, &tell))??;
    drop(watch);
    printer.done(&encode(&report)?, &describe(&report))
}

/// The URL as it was given, or in the file that was.
fn database(text: &str) -> Result<Secret, Failure> {
    let url = match text.strip_prefix('@') {
        None => text.to_owned(),
        Some(file) => {
            let read = std::fs::read_to_string(file)
                .map_err(|error| Failure::Usage(format!("--database: {file}: {error}")))?;
            read.trim().to_owned()
        }
    };
    Ok(Secret::new(url))
}

fn describe(report: &ImportReport) -> String {
    let mut text = format!(
        "files        {}\n\
         adopted      {}, {}\n\
         already      {}\n\
         handed over  {}\n\
         not adopted  {}\n",
        report.files,
        report.adopted,
        size(report.adopted_bytes),
        report.already,
        report.handed_over,
        report.refused.values().sum::<u64>(),
    );
    for refusal in report.refusals.iter().take(SHOWN_MAX) {
        let _ = writeln!(text, "  {}  {}", refusal.uid, refusal.detail);
    }
    if report.refusals.len() > SHOWN_MAX {
        let _ = writeln!(text, "  and more; --json lists them");
    }
    text.trim_end().to_owned()
}
