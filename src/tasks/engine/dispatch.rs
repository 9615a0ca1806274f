//! Which jobs this node claims, and when it looks for them.
//!
//! A look asks for the next jobs of every type that there is room for, in one read, and claims those whose time has
//! come, each in a transaction of its own. Then it sleeps until the next time that it saw, a ring of the bell, the
//! end of a run, or a poll. Which types are paused, and which jobs another node took in between, is decided under the
//! lock of the row.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::turn::{self, Turn};
use super::{Handlers, Parts, lease_time};
use crate::meta::jobs;
use crate::model::clock::{Millis, millis, random_fraction};
use crate::model::fault::Fault;
use crate::model::ids::JobId;
use crate::model::job::{Claimed, Claimer};
use crate::tasks::jitter;

/// Most jobs of one type that are looked at together.
const LOOK_MAX: usize = 32;
/// A look that could not claim all that was due is followed by the next after about so long.
const MISSED_PAUSE: Duration = Duration::from_millis(100);
/// Nodes that know of the same time come at moments that differ by so much.
const SPREAD: Duration = Duration::from_millis(100);
/// Time between two counts of what waits.
const MEASURE_INTERVAL: Duration = Duration::from_secs(15);
/// Jobs of one type that are counted at most.
const COUNT_MAX: usize = 10_000;

/// Looks for jobs and starts their runs.
pub(super) struct Dispatcher {
    parts: Arc<Parts>,
    handlers: Handlers,
    stop: CancellationToken,
    runs: JoinSet<&'static str>,
    /// Runs by type.
    busy: HashMap<&'static str, usize>,
}

/// Jobs that this node has room for.
struct Look {
    /// Those that are due, with the time of the first of their type.
    due: Vec<(Millis, JobId, &'static str)>,
    /// When the first of the others will be.
    next: Option<Millis>,
}

impl Dispatcher {
    pub(super) fn new(parts: Parts, handlers: Handlers, stop: CancellationToken) -> Self {
        Self {
            parts: Arc::new(parts),
            handlers,
            stop,
            runs: JoinSet::new(),
            busy: HashMap::new(),
        }
    }

    /// Claims and runs until it is stopped, and then waits for the end of the runs.
    pub(super) async fn run(mut self, mut rings: watch::Receiver<()>) {
        let stop = self.stop.clone();
        let poll = Duration::from_secs(self.parts.config.poll_seconds.get());
        let mut measured: Option<tokio::time::Instant> = None;
        while !stop.is_cancelled() {
            // Rings from here on are heard after the look.
            rings.borrow_and_update();
            let pause = match self.fill().await {
                Ok(pause) => pause.min(jitter(self.parts.bell.patience(poll))),
                Err(fault) => {
                    tracing::warn!(%fault, "look for jobs");
                    jitter(poll)
                }
            };
            if measured.is_none_or(|at| at.elapsed() >= MEASURE_INTERVAL) {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = self.measure() => measured = Some(tokio::time::Instant::now()),
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                Ok(()) = rings.changed() => {}
                Some(ended) = self.runs.join_next() => self.ended(ended),
                () = tokio::time::sleep(pause) => {}
            }
        }
        // Each was told by the same token.
        while self.runs.join_next().await.is_some() {}
    }

    fn ended(&mut self, run: Result<&'static str, tokio::task::JoinError>) {
        // Panics of handlers are caught in the run.
        if let Ok(kind) = run
            && let Some(busy) = self.busy.get_mut(kind)
        {
            *busy = busy.saturating_sub(1);
        }
    }

    /// For how many more runs of a type this node has room.
    fn room_for(&self, kind: &str) -> usize {
        let Some(handler) = self.handlers.get(kind) else {
            return 0;
        };
        if !handler.stands() && self.is_full() {
            return 0;
        }
        let busy = self.busy.get(kind).copied().unwrap_or(0);
        handler.at_once().saturating_sub(busy)
    }

    /// Types that this node has room for, and for how many runs of each.
    fn room(&self) -> Vec<(&'static str, usize)> {
        self.handlers
            .keys()
            .map(|kind| (*kind, self.room_for(kind)))
            .filter(|(_, room)| *room > 0)
            .collect()
    }

    fn is_full(&self) -> bool {
        let counted = |(kind, busy): (&&str, &usize)| {
            let stands = self.handlers.get(*kind).is_some_and(|it| it.stands());
            if stands { 0 } else { *busy }
        };
        self.busy.iter().map(counted).sum::<usize>() >= self.parts.config.concurrency.get() as usize
    }

    /// Claims what is due, as far as there is room; answers when to look again.
    async fn fill(&mut self) -> Result<Duration, Fault> {
        while let Some(ended) = self.runs.try_join_next() {
            self.ended(ended);
        }
        let room = self.room();
        if room.is_empty() {
            return Ok(Duration::MAX);
        }
        let look = tokio::select! {
            // A database that does not answer does not keep the node from its end.
            () = self.stop.cancelled() => return Ok(Duration::MAX),
            look = self.look(room) => look?,
        };
        let mut left = false;
        for (_, id, kind) in look.due {
            if self.stop.is_cancelled() {
                return Ok(Duration::MAX);
            }
            if self.room_for(kind) > 0 && self.claim(id, kind).await? != Claimed::Yes {
                left = true;
            }
        }
        let now = self.parts.clock.now();
        let until = look.next.map_or(Duration::MAX, |next| {
            Duration::from_millis(next.saturating_sub(now).max(1) as u64)
        });
        let until = until.saturating_add(SPREAD.mul_f64(random_fraction()));
        Ok(if left {
            until.min(jitter(MISSED_PAUSE))
        } else {
            until
        })
    }

    async fn look(&self, room: Vec<(&'static str, usize)>) -> Result<Look, Fault> {
        let now = self.parts.clock.now();
        self.parts
            .meta
            .scan("look for jobs", move |session| {
                Box::pin(async move {
                    let paused = jobs::pauses(session).await?;
                    let mut look = Look {
                        due: Vec::new(),
                        next: None,
                    };
                    for (kind, room) in room {
                        if paused.iter().any(|paused| paused == kind) {
                            continue;
                        }
                        // More than there is room for: other nodes take some, and one tells when to look again.
                        let limit = room.saturating_mul(2).saturating_add(1).min(LOOK_MAX);
                        let found = jobs::next(session, kind, limit).await?;
                        let (mut due, later): (Vec<_>, Vec<_>) =
                            found.into_iter().partition(|(due, _)| *due <= now);
                        if let Some((next, _)) = later.first() {
                            look.next = Some(look.next.map_or(*next, |found| found.min(*next)));
                        }
                        let first = due.first().map_or(now, |(due, _)| *due);
                        // Nodes that look at the same time begin at different ones.
                        let begin = (due.len() as f64 * random_fraction()) as usize;
                        due.rotate_left(begin);
                        look.due
                            .extend(due.into_iter().map(|(_, id)| (first, id, kind)));
                    }
                    // The type whose first has waited longest comes first.
                    look.due.sort_by_key(|(first, ..)| *first);
                    Ok::<_, Fault>(look)
                })
            })
            .await
    }

    /// Claims one job and starts its run.
    async fn claim(&mut self, id: JobId, kind: &'static str) -> Result<Claimed, Fault> {
        let Some(handler) = self.handlers.get(kind) else {
            return Ok(Claimed::No);
        };
        let parts = &self.parts;
        let claimer = Claimer {
            node: parts.node,
            now: parts.clock.now(),
            lease: millis(lease_time(&parts.config)),
            attempts_max: handler.attempts_max(),
        };
        let began = tokio::time::Instant::now();
        let (claimed, job) = parts
            .meta
            .transact("claim job", move |session| {
                Box::pin(async move {
                    let Some(mut job) = jobs::lock(session, id).await? else {
                        return Ok::<_, Fault>((Claimed::No, None));
                    };
                    if jobs::is_paused(session, kind).await? {
                        return Ok((Claimed::No, None));
                    }
                    let claimed = job.claim(&claimer);
                    if claimed != Claimed::No {
                        jobs::save(session, &job).await?;
                    }
                    Ok((claimed, Some(job)))
                })
            })
            .await?;
        match (claimed, job) {
            (Claimed::Yes, Some(job)) => {
                let turn = Turn {
                    parts: Arc::clone(parts),
                    handler: Arc::clone(handler),
                    began,
                    stop: self.stop.clone(),
                };
                self.runs.spawn(turn.run(job));
                *self.busy.entry(kind).or_default() += 1;
            }
            (Claimed::Ended, Some(job)) => {
                parts.metrics.job_done(kind, job.state.as_str());
                turn::tell(job.state.as_str(), &job);
            }
            _ => {}
        }
        Ok(claimed)
    }

    async fn measure(&self) {
        let kinds: Vec<_> = self.handlers.keys().copied().collect();
        let now = self.parts.clock.now();
        let counted: Result<Vec<_>, Fault> = self
            .parts
            .meta
            .scan("count jobs", move |session| {
                Box::pin(async move {
                    let mut counted = Vec::new();
                    for kind in kinds {
                        let waiting = jobs::waiting(session, kind, now, COUNT_MAX).await?;
                        counted.push((kind, waiting));
                    }
                    Ok(counted)
                })
            })
            .await;
        match counted {
            Ok(counted) => {
                for (kind, waiting) in counted {
                    self.parts.metrics.jobs_waiting(kind, waiting);
                }
            }
            Err(fault) => tracing::debug!(%fault, "count jobs"),
        }
    }
}
