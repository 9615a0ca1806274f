//! Turns of this process's transactions at one row that they lock.
//!
//! Who waits for a lock has a connection meanwhile. A row that somebody holds for long, such as a node that was paused
//! in the middle of a commit, would draw all connections to itself; so most of those who want it wait here, where it
//! costs nothing. Turns are fair. They guard nothing: the lock does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::QUEUE_WAIT;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{BucketId, Uid};
use crate::model::names::ObjectKey;

/// Transactions that are at one row at a time: one has its lock, and the next ones have done by then what comes before.
const AT_ONCE: usize = 4;

/// A row that many requests may want at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Contended {
    /// That of a key.
    Key(BucketId, ObjectKey),
    /// That of an open upload.
    Upload(Uid),
}

/// The rows at which somebody is or waits.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<Contended, Arc<Semaphore>>>);

/// A turn, or the wait for one.
pub(super) struct Turn {
    turns: Arc<Turns>,
    row: Contended,
    queue: Option<Arc<Semaphore>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    fn rows(&self) -> MutexGuard<'_, HashMap<Contended, Arc<Semaphore>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn at `row`, which lasts until it is dropped. [`Kind::Busy`] when none comes in time.
    pub(super) async fn take(self: &Arc<Self>, row: Contended) -> Result<Turn, Fault> {
        let queue = {
            let mut rows = self.rows();
            let queue = rows
                .entry(row.clone())
                .or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE)));
            Arc::clone(queue)
        };
        // From here on whatever ends the wait also leaves the queue.
        let mut turn = Turn {
            turns: Arc::clone(self),
            row,
            queue: Some(Arc::clone(&queue)),
            permit: None,
        };
        match tokio::time::timeout(QUEUE_WAIT, queue.acquire_owned()).await {
            Ok(Ok(permit)) => turn.permit = Some(permit),
            _ => {
                return Err(Fault::new(Kind::Busy, "wait for turn")
                    .context("too many transactions want the same row"));
            }
        }
        Ok(turn)
    }
}

impl Drop for Turn {
    /// The last one to leave takes the queue away.
    fn drop(&mut self) {
        let mut rows = self.turns.rows();
        // Both hold on to the queue: given up under the lock, so that the last one finds the map's own alone.
        self.permit = None;
        self.queue = None;
        if rows
            .get(&self.row)
            .is_some_and(|queue| Arc::strong_count(queue) == 1)
        {
            rows.remove(&self.row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn row(uid: i64) -> Contended {
        Contended::Upload(Uid(uid))
    }

    #[tokio::test]
    async fn a_row_takes_a_few_at_a_time_and_another_row_is_free() {
        let turns = Arc::new(Turns::default());
        let mut taken = Vec::new();
        for _ in 0..AT_ONCE {
            taken.push(turns.take(row(1)).await.unwrap());
        }
        // Who gives up leaves the queue.
        assert!(turns.take(row(1)).now_or_never().is_none());
        let other = turns.take(row(2)).await.unwrap();
        let waiting = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.take(row(1)).await }
        });
        tokio::task::yield_now().await;
        taken.pop();
        let late = waiting.await.unwrap().unwrap();
        assert!(turns.take(row(1)).now_or_never().is_none());
        assert_eq!(turns.rows().len(), 2);
        drop((taken, late, other));
        assert!(turns.rows().is_empty(), "a queue that nobody is in");
    }
}
