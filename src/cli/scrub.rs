//! `scrub`: every copy is read again, now.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::text::size;
use super::{Failure, Printer, encode, operate};
use crate::app::{JobSummary, Operator, ScrubReport};
use crate::config::Config;
use crate::model::ids::JobId;

/// Time between two looks at the job.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct ScrubCommand {
    /// Begin it, and do not wait for its end; `osproxy jobs list --type scrub` shows how far it is
    #[arg(long)]
    background: bool,
}

/// Exit code 0: all is well, or was mended; 1: something is wrong; 2: it could not be told.
pub(super) fn scrub(
    config: Config,
    printer: &Printer,
    command: &ScrubCommand,
) -> Result<(), Failure> {
    let outcome = operate(config, async |operator| {
        let report = match operator.begin_scrub().await? {
            Some(job) if command.background => {
                let text = format!("begun as job {}", job.id);
                return printer.done(&json!({ "job": job.id }), &text);
            }
            Some(job) => watch(operator, printer, job).await?,
            None if command.background => {
                let text = "no server runs on this install that could go on with it";
                return Err(Failure::Other(text.to_owned()));
            }
            None => {
                let watch = printer.watch("reading every copy");
                operator.scrub_here(&|now| watch.tell(now)).await?
            }
        };
        printer.done(&encode(&report)?, &text_of(&report))?;
        if report.left > 0 {
            return Err(Failure::Found);
        }
        if report.unchecked > 0 {
            let reason = report.reason.unwrap_or_default();
            return Err(Failure::Other(format!(
                "{} copies could not be looked at: {reason}",
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

/// Shows the job until the pass is at its end. Whoever stops watching does not stop it.
async fn watch(
    operator: &Operator,
    printer: &Printer,
    begun: JobSummary,
) -> Result<ScrubReport, Failure> {
    let id: i64 = begun
        .id
        .parse()
        .map_err(|_| Failure::Other(format!("job {} has no number", begun.id)))?;
    let spinner = printer.spinner("waiting for a server");
    let ended = loop {
        let now = operator.job(JobId(id)).await?;
        if now.ended != begun.ended {
            break now;
        }
        spinner.set_message(match (now.state.as_str(), now.total) {
            _ if now.paused => "paused".to_owned(),
            ("running", Some(total)) => format!("{} of {total} blobs", now.done),
            ("running", None) => "begun".to_owned(),
            _ => "waiting for a server".to_owned(),
        });
        tokio::time::sleep(LOOK_INTERVAL).await;
    };
    spinner.finish_and_clear();
    if let Some(reason) = ended.reason {
        return Err(Failure::Other(format!(
            "{reason}; it is tried again, see `osproxy jobs show {id}`"
        )));
    }
    serde_json::from_value(ended.report.unwrap_or_default())
        .map_err(|error| Failure::Other(format!("the report of job {id}: {error}")))
}

fn text_of(report: &ScrubReport) -> String {
    let mut text = format!(
        "blobs      {}, {} copies, {} read\n\
         bad        {}, {} of them mended\n\
         unchecked  {}",
        report.blobs,
        report.copies,
        size(report.bytes),
        report.bad,
        report.repaired,
        report.unchecked,
    );
    if report.left > 0 {
        text.push_str(&format!(
            "\nleft       {} copies that no good one is there for; `osproxy fsck` names what they are about",
            report.left
        ));
    }
    text
}
