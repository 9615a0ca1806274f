//! `recover`: a lost database, rebuilt from the manifests at the backends.

use std::fmt::Write as _;

use clap::Args;

use super::process::block_on;
use super::text::{date, size};
use super::{Failure, OPERATING_THREADS, Printer, encode};
use crate::app::{self, LostObject, RecoverOptions, RecoverReport};
use crate::config::Config;
use crate::telemetry;

/// Entries of a list that are shown to people; JSON has up to a thousand.
const SHOWN_MAX: usize = 20;
const DAY: i64 = 86_400_000;

#[derive(Debug, Args)]
pub(super) struct RecoverCommand {
    /// Look for manifests at this backend only
    #[arg(long, value_name = "BACKEND")]
    from: Option<String>,
    /// Read and compare everything, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Go on without manifests that are broken or missing, and tell what that cost
    #[arg(long)]
    skip_broken: bool,
    /// Days for which the sweep spares blobs that no recovered row names
    #[arg(long, value_name = "DAYS", default_value_t = 7)]
    spare_days: u16,
}

pub(super) fn recover(
    config: &Config,
    printer: &Printer,
    command: &RecoverCommand,
) -> Result<(), Failure> {
    let log = telemetry::Config {
        level: "warn".to_owned(),
        ..config.log.clone()
    };
    telemetry::init(&log).map_err(|error| Failure::Usage(error.to_string()))?;
    let options = RecoverOptions {
        from: command.from.clone(),
        skip_broken: command.skip_broken,
        dry_run: command.dry_run,
        spare: i64::from(command.spare_days) * DAY,
    };
    let watch = printer.watch("recovering");
    let tell = |now| watch.tell(now);
    let report = block_on(OPERATING_THREADS, app::recover(config, &options, &tell))??;
    drop(watch);
    printer.done(&encode(&report)?, &describe(&report))
}

fn describe(report: &RecoverReport) -> String {
    let mut text = format!(
        "{} as of {}\n\
         manifests  {} in {} objects, {}; {} that do not count\n\
         tenants    {}, access keys {}\n\
         buckets    {}\n\
         keys       {}, noncurrent versions {}\n\
         contents   {} in {} blobs\n",
        match report.is_dry_run {
            true => "would be recovered",
            false => "recovered",
        },
        date(report.written),
        report.manifests,
        report.objects,
        size(report.bytes),
        report.passed_over,
        report.tenants,
        report.access_keys,
        report.buckets,
        report.keys,
        report.versions,
        report.contents,
        report.blobs,
    );
    for why in &report.skipped {
        let _ = writeln!(text, "skipped    {why}");
    }
    let lost = |text: &mut String, objects: &[LostObject]| {
        for object in objects.iter().take(SHOWN_MAX) {
            let _ = writeln!(text, "  {object}");
        }
        if objects.len() > SHOWN_MAX {
            let _ = writeln!(text, "  and more; --json lists them");
        }
    };
    if report.rows_left_out > 0 {
        let _ = writeln!(
            text,
            "left out   {} rows whose other half was in what was skipped, {} of them versions",
            report.rows_left_out, report.versions_left_out.count
        );
        lost(&mut text, &report.versions_left_out.first);
    }
    if report.without_bytes.count > 0 {
        let _ = writeln!(
            text,
            "no bytes   {} versions whose blobs are at no backend",
            report.without_bytes.count
        );
        lost(&mut text, &report.without_bytes.first);
    }
    if report.newer_blobs.count > 0 {
        let _ = writeln!(
            text,
            "newer      {} blobs written after the newest manifest, which nothing names now",
            report.newer_blobs.count
        );
        for blob in report.newer_blobs.first.iter().take(SHOWN_MAX) {
            let _ = writeln!(
                text,
                "  {} at {} of {}",
                blob.name,
                blob.backend,
                date(blob.born)
            );
        }
    }
    if report.older_unnamed_blobs > 0 {
        let _ = writeln!(
            text,
            "unnamed    {} older blobs that nothing names; the sweep deletes them once it may",
            report.older_unnamed_blobs
        );
    }
    text.trim_end().to_owned()
}
