//! Answers to what may take long: how far it is, in lines, and what came of it in the last one.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::Refusal;
use crate::model::progress::Progress;

/// The media type of lines.
pub(super) const LINES: &str = "application/x-ndjson";

/// Time between two lines, also when nothing came of it meanwhile: a client that has gone is noticed by them.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line<T> {
    /// How far it is.
    Progress(Progress),
    /// It was done: the last line.
    Report(T),
    /// It was not done: the last line.
    Failure {
        /// The status of an answer that is not in lines.
        status: u16,
        /// Why.
        error: String,
    },
}

/// Answers with what `work` comes to, in lines to whom accepts them. Work goes on while the answer is read, and ends
/// with it.
pub(super) async fn answer<T, E, F>(
    headers: &HeaderMap,
    work: impl FnOnce(Box<dyn Fn(Progress) + Send + Sync>) -> F,
) -> Response
where
    T: Serialize + Send + 'static,
    E: Into<Refusal> + Send + 'static,
    F: Future<Output = Result<T, E>> + Send + 'static,
{
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let (told, progress) = watch::channel(Progress::new("begun", 0, None));
    let work = work(Box::new(move |now| {
        told.send_replace(now);
    }));
    if accepted != Some(LINES) {
        return match work.await {
            Ok(report) => Json(report).into_response(),
            Err(error) => error.into().into_response(),
        };
    }
    let mut ticks = interval(LINE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begun = Some((Box::pin(work), progress, ticks));
    let lines = stream::unfold(begun, |state| async {
        let (mut work, progress, mut ticks) = state?;
        tokio::select! {
            biased;
            outcome = &mut work => {
                let line = match outcome.map_err(Into::into) {
                    Ok(report) => Line::Report(report),
                    Err(Refusal { status, error }) => Line::Failure {
                        status: status.as_u16(),
                        error,
                    },
                };
                Some((encode(&line), None))
            }
            _ = ticks.tick() => {
                let line = Line::<T>::Progress(progress.borrow().clone());
                Some((encode(&line), Some((work, progress, ticks))))
            }
        }
    });
    ([(CONTENT_TYPE, LINES)], Body::from_stream(lines)).into_response()
}

fn encode<T: Serialize>(line: &Line<T>) -> Result<Bytes, serde_json::Error> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text.into())
}
