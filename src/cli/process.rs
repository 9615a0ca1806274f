//! Threads and panics of this process.

use std::future::Future;
use std::time::Duration;

/// Most threads for work that blocks: reading and writing files, hashing long bodies, scans. More waits.
const BLOCKING_THREADS_MAX: usize = 128;
/// How long threads that block may take to end once everything else has.
const THREADS_DEADLINE: Duration = Duration::from_secs(1);

/// Threads of a server: one a core, and never one alone, because reads of the embedded database run on them.
/// More cost a sixth of the small requests that two cores can serve: see `benches/PROFILE.md`.
pub(super) fn serving_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.max(2)
}

/// The operating system gives no threads.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct NoThreads(std::io::Error);

/// Runs `work` to its end on threads that are then let go.
pub(super) fn block_on<T>(threads: usize, work: impl Future<Output = T>) -> Result<T, NoThreads> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .map_err(NoThreads)?;
    let outcome = runtime.block_on(work);
    // What still runs has been told to stop, or was cut by a second signal.
    runtime.shutdown_timeout(THREADS_DEADLINE);
    Ok(outcome)
}

/// Raises the soft limit of open files to the hard one: connections, blobs and directories together pass the
/// usual soft limit of 1024.
pub(super) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    if now.current == now.maximum {
        return;
    }
    let wanted = Rlimit {
        current: now.maximum,
        maximum: now.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "raise the limit of open files");
    }
}

/// Puts panics into the log, in its form and with its fields, instead of beside it.
pub(super) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no text");
        let location = panic.location().map(ToString::to_string);
        tracing::error!(message, location, "panic");
    }));
}
