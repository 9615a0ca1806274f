//! `fsck`: whether the database and the backends agree.

use std::fmt::Write as _;

use clap::Args;

use super::{Failure, Printer, encode, operate, text::size};
use crate::app::{Act, Depth, Finding, FsckOrder, FsckReport, Repair};
use crate::config::Config;

/// Findings, and versions of each, that the text shows.
const SHOWN_MAX: usize = 20;

#[derive(Debug, Args)]
pub(super) struct FsckCommand {
    /// Look at this backend only, and not at the rows by themselves
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Mend copies from good ones at other backends, delete what no row names, and hand what nothing refers to to the
    /// collector
    #[arg(long)]
    repair: bool,
    /// Read every byte and compare it with what was stored; otherwise copies are only asked for their length
    #[arg(long)]
    read: bool,
    /// With --read: read at most so many bytes per second
    #[arg(long, value_name = "BYTES", requires = "read", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
}

/// Exit code 0: all is well, or was repaired; 1: something is wrong; 2: it could not be told.
pub(super) fn fsck(config: Config, printer: &Printer, command: FsckCommand) -> Result<(), Failure> {
    let order = FsckOrder {
        backend: command.backend,
        depth: match command.read {
            true => Depth::All,
            false => Depth::Length,
        },
        act: match command.repair {
            true => Act::Mend,
            false => Act::Report,
        },
        bytes_per_second: command.rate,
    };
    let outcome = operate(config, async |operator| {
        let watch = printer.watch("comparing");
        let report = operator.fsck(&order, &|now| watch.tell(now)).await?;
        drop(watch);
        printer.done(&encode(&report)?, &text_of(&report))?;
        if report.findings.left > 0 {
            return Err(Failure::Found);
        }
        if report.unchecked > 0 {
            let reason = report.reason.unwrap_or_default();
            return Err(Failure::Other(format!(
                "{} copies or backends could not be looked at: {reason}",
                report.unchecked
            )));
        }
        Ok(())
    });
    outcome.map_err(|failure| match failure {
        Failure::Found => Failure::Found,
        other => Failure::Usage(other.to_string()),
    })
}

fn text_of(report: &FsckReport) -> String {
    let mut text = format!(
        "blobs      {}, {} copies, {} read\n\
         listed     {}, {} too young to judge, {} not ours\n\
         unchecked  {}\n",
        report.blobs,
        report.copies,
        size(report.bytes),
        report.listed,
        report.young,
        report.foreign,
        report.unchecked,
    );
    if let Some(reason) = &report.reason {
        let _ = writeln!(text, "           {reason}");
    }
    let findings = &report.findings;
    if findings.all.count == 0 {
        let _ = writeln!(text, "findings   none");
    }
    for (problem, count) in &findings.by_problem {
        let _ = writeln!(text, "findings   {count} {}", problem.as_str());
    }
    for finding in findings.all.first.iter().take(SHOWN_MAX) {
        show(&mut text, finding);
    }
    if findings.all.count > SHOWN_MAX as u64 {
        let _ = writeln!(text, "and more; --json lists them");
    }
    text.trim_end().to_owned()
}

fn show(text: &mut String, finding: &Finding) {
    let _ = write!(text, "{}: ", finding.problem.as_str());
    for (what, value) in [
        ("backend", &finding.backend),
        ("name", &finding.name),
        ("blob", &finding.blob),
        ("content", &finding.content),
    ] {
        if let Some(value) = value {
            let _ = write!(text, "{what} {value}, ");
        }
    }
    let done = match finding.repair {
        Repair::None => "",
        Repair::Begun => "; repair begun",
        Repair::Done => "; repaired",
    };
    let _ = writeln!(text, "{}{done}", finding.detail);
    for version in finding.versions.first.iter().take(SHOWN_MAX) {
        let _ = writeln!(text, "  {version}");
    }
    if finding.versions.count > SHOWN_MAX as u64 {
        let _ = writeln!(text, "  {} versions in all", finding.versions.count);
    }
}
