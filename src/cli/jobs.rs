//! `jobs`: work outside of requests.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::text::date;
use super::{Failure, Printer, encode, plain};
use crate::app::{JobFilter, JobSummary, Operator, Wish};
use crate::model::clock::Millis;
use crate::model::ids::JobId;
use crate::model::job::State;

#[derive(Debug, Subcommand)]
pub(super) enum JobsCommand {
    /// List jobs, the newest first
    List(Wanted),
    /// Show all of one job
    Show {
        /// Its number
        id: i64,
    },
    /// Run a failed or cancelled job again, or one that waits at once
    Retry {
        /// Its number
        id: i64,
    },
    /// End a job: one that waits at once, one that runs when its node hears of it
    Cancel {
        /// Its number
        id: i64,
    },
    /// Keep the jobs of a type from running, and stop those that run; they go on when it is resumed
    Pause {
        /// The type
        r#type: String,
    },
    /// Let the jobs of a type run again
    Resume {
        /// The type
        r#type: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Wanted {
    /// Only of this type
    #[arg(long, value_name = "TYPE")]
    r#type: Option<String>,
    /// Only in this state: waiting, running, done, failed or cancelled
    #[arg(long, value_parser = parse_state)]
    state: Option<State>,
    /// Only those older than this one
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
    /// At most so many, up to 200
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    max: usize,
}

fn parse_state(name: &str) -> Result<State, String> {
    State::parse(name).ok_or_else(|| {
        let names = State::ALL.map(State::as_str);
        format!("expected one of {}", names.join(", "))
    })
}

pub(super) async fn jobs(
    operator: &Operator,
    printer: &Printer,
    command: JobsCommand,
) -> Result<(), Failure> {
    let (id, wish) = match command {
        JobsCommand::List(wanted) => return list(operator, printer, wanted).await,
        JobsCommand::Show { id } => {
            let job = operator.job(JobId(id)).await?;
            return printer.done(&encode(&job)?, &text(&job));
        }
        JobsCommand::Pause { r#type: kind } => {
            operator.pause_jobs(&kind).await?;
            let answer = json!({ "type": kind, "paused": true });
            return printer.done(&answer, &format!("jobs of type {kind} are paused"));
        }
        JobsCommand::Resume { r#type: kind } => {
            operator.resume_jobs(&kind).await?;
            let answer = json!({ "type": kind, "paused": false });
            return printer.done(&answer, &format!("jobs of type {kind} may run"));
        }
        JobsCommand::Retry { id } => (JobId(id), Wish::Retry),
        JobsCommand::Cancel { id } => (JobId(id), Wish::Cancel),
    };
    let job = operator.wish_of_job(id, wish).await?;
    let state = match job.cancelling {
        true => "told to end",
        false => job.state.as_str(),
    };
    printer.done(&encode(&job)?, &format!("job {id} is {state}"))
}

async fn list(operator: &Operator, printer: &Printer, wanted: Wanted) -> Result<(), Failure> {
    let filter = JobFilter {
        kind: wanted.r#type,
        state: wanted.state,
        before: wanted.before.map(JobId),
        limit: wanted.max,
    };
    let report = operator.jobs(filter).await?;
    if printer.json {
        return printer.done(&encode(&report)?, "");
    }
    let row = |job: &JobSummary| {
        let is_kept = job.paused && job.next_run.is_some();
        let state = if is_kept { "paused" } else { &job.state };
        let due = job.next_run.or(job.lease_until);
        vec![
            ("id", json!(job.id)),
            ("type", json!(job.kind)),
            ("state", json!(state)),
            ("progress", json!(progress(job))),
            ("attempt", json!(job.attempt)),
            ("next_run", json!(due.map(date))),
            ("last_end", json!(job.ended.map(date))),
            ("reason", json!(job.reason)),
        ]
    };
    printer.table(report.jobs.iter().map(row))
}

fn progress(job: &JobSummary) -> Option<String> {
    match (job.done, job.total) {
        (0, None) => None,
        (done, None) => Some(done.to_string()),
        (done, Some(total)) => Some(format!("{done} of {total}")),
    }
}

fn text(job: &JobSummary) -> String {
    let time = |time: Option<Millis>| json!(time.map(date));
    let lines: [(&str, Value); 19] = [
        ("id", json!(job.id)),
        ("type", json!(job.kind)),
        ("state", json!(job.state)),
        ("paused", json!(job.paused)),
        ("cancelling", json!(job.cancelling)),
        ("key", json!(job.key)),
        ("payload", job.payload.clone()),
        (
            "period",
            json!(job.period.map(|period| format!("{} s", period / 1000))),
        ),
        ("progress", json!(progress(job))),
        ("runs", json!(job.runs)),
        ("attempt", json!(job.attempt)),
        ("node", json!(job.node)),
        ("created", time(Some(job.created))),
        ("started", time(job.started)),
        ("ended", time(job.ended)),
        ("next run", time(job.next_run)),
        ("lease until", time(job.lease_until)),
        ("report", json!(job.report)),
        ("reason", json!(job.reason)),
    ];
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{name:12} {}", plain(&value));
    }
    text.trim_end().to_owned()
}
