//! `move`: a backend's blobs, or a bucket, brought elsewhere while it is used.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::text::{date, size};
use super::{Failure, Printer, encode};
use crate::app::{Mirrors, MoveOrder, MoveSummary, Operator};

/// Time between two looks at a move.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Moves shown together.
const SHOWN_MAX: usize = 50;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct MoveCommand {
    #[command(subcommand)]
    command: Option<MoveSubcommand>,
    /// The backend to move away from; of a bucket, the placement that it is at
    #[arg(long, required = true, value_name = "NAME")]
    from: Option<String>,
    /// The backend, or of a bucket the placement, to move to; each node must have it configured
    #[arg(long, required = true, value_name = "NAME")]
    to: Option<String>,
    /// Move this bucket only
    #[arg(long, value_name = "NAME")]
    bucket: Option<String>,
    /// Read and write at most so many bytes per second; given again, it is the new rate of the same move
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Do it although placements name both backends, and have one copy fewer from then on
    #[arg(long, conflicts_with = "bucket")]
    lose_copies: bool,
    /// Begin it, and do not wait for its end
    #[arg(long)]
    background: bool,
}

#[derive(Debug, Subcommand)]
enum MoveSubcommand {
    /// Show how far moves are, the newest first
    Status,
}

pub(super) async fn moving(
    operator: &Operator,
    printer: &Printer,
    command: MoveCommand,
) -> Result<(), Failure> {
    let (Some(from), Some(to), None) = (command.from, command.to, command.command) else {
        return status(operator, printer).await;
    };
    let order = MoveOrder {
        from,
        to,
        bucket: command.bucket,
        rate: command.rate,
        mirrors: match command.lose_copies {
            true => Mirrors::Lose,
            false => Mirrors::Keep,
        },
    };
    let begun = operator.start_move(order).await?;
    if command.background {
        return finish(printer, &begun);
    }
    if operator.is_idle() {
        eprintln!("no server runs on this install; the move goes on when one does");
    }
    let ended = watch(operator, printer, begun).await?;
    finish(printer, &ended)
}

/// Shows the move until it has ended. Whoever stops watching does not stop it.
async fn watch(
    operator: &Operator,
    printer: &Printer,
    mut now: MoveSummary,
) -> Result<MoveSummary, Failure> {
    let bar = printer.bar();
    let id: i64 = now.id.parse().unwrap_or_default();
    while is_open(&now) {
        bar.set_length(now.total_bytes.max(now.moved_bytes));
        bar.set_position(now.moved_bytes);
        bar.set_message(match (now.state.as_str(), now.failed) {
            ("emptying", _) => "waiting for old copies to be deleted".to_owned(),
            (_, 0) => format!("{} of {}", now.moved, now.total.max(now.moved)),
            (_, failed) => format!("{} moved, {failed} failed and tried again", now.moved),
        });
        tokio::time::sleep(LOOK_INTERVAL).await;
        now = operator.show_move(id).await?;
    }
    bar.finish_and_clear();
    Ok(now)
}

fn is_open(now: &MoveSummary) -> bool {
    matches!(now.state.as_str(), "copying" | "emptying")
}

fn finish(printer: &Printer, now: &MoveSummary) -> Result<(), Failure> {
    printer.done(&encode(now)?, &text(now))?;
    if !is_open(now) && now.failed > 0 {
        return Err(Failure::Other(format!(
            "{} could not be moved, the last because of: {}",
            now.failed,
            now.reason
                .as_deref()
                .unwrap_or("a reason that was not recorded")
        )));
    }
    Ok(())
}

fn text(now: &MoveSummary) -> String {
    let what = match &now.bucket {
        Some(bucket) => format!("bucket {bucket}"),
        None => "all blobs".to_owned(),
    };
    let mut text = format!(
        "{what} from {} to {}: {}, {} and {} moved",
        now.from,
        now.to,
        now.state,
        now.moved,
        size(now.moved_bytes)
    );
    match now.remains {
        Some(0) => text.push_str(&format!("; nothing is left at {}", now.from)),
        Some(left) => text.push_str(&format!("; {left} objects are left at {}", now.from)),
        None => {}
    }
    text
}

async fn status(operator: &Operator, printer: &Printer) -> Result<(), Failure> {
    let moves = operator.list_moves(SHOWN_MAX).await?;
    if printer.json {
        return printer.done(&encode(&moves)?, "");
    }
    let row = |one: &MoveSummary| {
        vec![
            ("id", json!(one.id)),
            ("bucket", json!(one.bucket)),
            ("from", json!(one.from)),
            ("to", json!(one.to)),
            ("state", json!(one.state)),
            ("moved", json!(format!("{} of {}", one.moved, one.total))),
            ("bytes", json!(size(one.moved_bytes))),
            ("failed", json!(one.failed)),
            ("left", json!(one.remains)),
            ("started", json!(date(one.started))),
            ("ended", json!(one.ended.map(date))),
            ("reason", json!(one.reason)),
        ]
    };
    printer.table(moves.iter().map(row))
}
