//! What each node does for itself of the work of a type of jobs, such as collecting on its own disk. Who pauses the type
//! means that as well.

use std::time::Duration;

use futures::future::BoxFuture;

use super::Handler;
use crate::meta::{MetaStore, jobs};
use crate::model::fault::Fault;

/// Time between two looks whether a run that is under way is to end.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// A handler that does nothing while a type of jobs is paused. A run that is under way then is dropped where it is, which
/// its contract allows.
pub struct Pausable<H> {
    /// The type.
    pub kind: &'static str,
    /// Where pauses are noted.
    pub meta: MetaStore,
    /// What is done.
    pub handler: H,
}

impl<H> Pausable<H> {
    async fn is_paused(&self) -> Result<bool, Fault> {
        let kind = self.kind;
        self.meta
            .read("find pause", move |session| {
                Box::pin(jobs::is_paused(session, kind))
            })
            .await
    }

    async fn paused(&self) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            // A database that does not answer ends no run; the run itself may.
            if matches!(self.is_paused().await, Ok(true)) {
                return;
            }
        }
    }
}

impl<H: Handler> Handler for Pausable<H> {
    fn name(&self) -> &'static str {
        self.handler.name()
    }

    fn run(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async {
            if self.is_paused().await? {
                return Ok(());
            }
            tokio::select! {
                done = self.handler.run() => done,
                () = self.paused() => {
                    tracing::info!(task = self.name(), "task paused");
                    Ok(())
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::meta::Durability;
    use crate::telemetry::Metrics;

    /// Counts its runs; the first one ends and the others do not.
    struct Counted(Arc<AtomicUsize>);

    impl Handler for Counted {
        fn name(&self) -> &'static str {
            "counted"
        }

        fn run(&self) -> BoxFuture<'_, Result<(), Fault>> {
            Box::pin(async {
                match self.0.fetch_add(1, Ordering::SeqCst) {
                    0 => Ok(()),
                    _ => std::future::pending().await,
                }
            })
        }
    }

    #[tokio::test]
    async fn work_beside_a_type_of_jobs_is_paused_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.db");
        let meta = MetaStore::open(&path, Durability::Relaxed, Metrics::new()).unwrap();
        let runs = Arc::new(AtomicUsize::new(0));
        let pausable = Pausable {
            kind: "counted",
            meta: meta.clone(),
            handler: Counted(Arc::clone(&runs)),
        };
        let pause = async |kind: &'static str, is_paused: bool| {
            let changed: Result<(), Fault> = meta
                .transact("change pause", move |session| {
                    Box::pin(async move {
                        match is_paused {
                            true => jobs::pause(session, kind, 1).await,
                            false => jobs::resume(session, kind).await,
                        }
                    })
                })
                .await;
            changed.unwrap();
        };
        pause("counted", true).await;
        pausable.run().await.unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), 0);
        pause("counted", false).await;
        pause("other", true).await;
        pausable.run().await.unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        // It would not end by itself.
        let running = pausable.run();
        let pausing = async {
            while runs.load(Ordering::SeqCst) < 2 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            pause("counted", true).await;
        };
        let (ended, ()) = tokio::time::timeout(Duration::from_secs(60), async {
            tokio::join!(running, pausing)
        })
        .await
        .unwrap();
        ended.unwrap();
    }
}
