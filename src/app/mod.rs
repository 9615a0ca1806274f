//! The composition root: the only place that knows all the pieces.
//!
//! ```text
//!   serve     data directory, lock --> stores --> domain --> tasks --> facades --> listeners
//!             a signal, and then the same way back
//!   Operator  the same install from the command line, beside a running server or without one
//!   recover   a new database from the manifests at the backends
//!   import    what an existing osproxy stored, where it lies
//! ```

mod directory;
mod health;
mod import;
mod meta_copy;
mod operator;
mod recover;
mod serve;
mod stores;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use crate::admin::ClientError;
use crate::keys::MasterKeyError;
use crate::manifest::RecoverError;
use crate::model::fault::{Fault, Kind};

pub use crate::auth::{DEFAULT_TENANT, KeyState, KeySummary, NewKey, Pair, Refused, TenantSummary};
pub use crate::cluster::NodeStatus;
pub use crate::content::{Act, Depth, FsckOrder, FsckReport};
pub use crate::import::Report as ImportReport;
pub use crate::keys::{KeyError, KeyStatus, NewKmsKey, Secret};
pub use crate::manifest::{Options as RecoverOptions, Report as RecoverReport};
pub use crate::meta::copy::{
    CopiedTable, CopyReport, Phase as CopyPhase, Progress as CopyProgress,
};
pub use crate::model::finding::{Finding, LostObject, Repair};
pub use crate::tasks::{
    BucketUsage, GcReport, JobError, JobFilter, JobSummary, JobsReport, KeyCommand, KeyReport,
    KmsName, Mirrors, MoveError, MoveOrder, MoveSummary, ScrubReport, Stats, Wish,
};
pub use health::{Probe, probe};
pub use import::{ImportOrder, import};
pub use meta_copy::{Database, copy_meta};
pub use operator::Operator;
pub use recover::recover;
pub use serve::serve;

/// Why a command or a start came to nothing. The texts are for an operator and say what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds the lock on the data directory.
    #[error(
        "another osproxy uses the data directory {}{}; stop it first, or name another directory with --data-dir",
        .dir.display(), .pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process, as far as it is known.
        pid: Option<u32>,
    },
    /// A command was given a directory without an install.
    #[error(
        "there is no osproxy data in {}; start `osproxy serve` there once, or name another directory with --data-dir",
        .0.display()
    )]
    NoInstall(PathBuf),
    /// The server that runs on the data directory did not do what it was asked.
    #[error("asked the running server (process {pid}), but {source}")]
    Server {
        /// Its process.
        pid: u32,
        /// What went wrong.
        source: ClientError,
    },
    /// The server did not say that it is well.
    #[error("not healthy: {0}")]
    Unwell(ClientError),
    /// A file or directory cannot be used.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A listener cannot have its address.
    #[error("{setting}: {source}")]
    Listen {
        /// The setting that names the address.
        setting: &'static str,
        /// Why.
        source: Fault,
    },
    /// The process cannot listen for signals.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    /// A second signal came before the requests in flight had finished.
    #[error("stopped at once by a second signal; requests in flight were cut")]
    Cut,
    /// A listener ended without being asked to.
    #[error("the {0} listener ended by itself; the log says why")]
    ListenerEnded(&'static str),
    /// Refused by the rules of keys and tenants.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// There is no master key to work with.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// Refused by the rules of moves.
    #[error(transparent)]
    Move(#[from] MoveError),
    /// Refused by the rules of wrapping keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No server would do it.
    #[error(
        "scrub.enabled is false, so no server scrubs; `osproxy fsck --read` reads every copy at once, and mends with --repair"
    )]
    ScrubDisabled,
    /// Refused by the rules of jobs.
    #[error(transparent)]
    Job(#[from] JobError),
    /// A recovery came to nothing.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// A recovery was interrupted, and what there is of the database is not the whole.
    #[error("`osproxy recover` was interrupted here; run it again, it goes on")]
    Unrecovered,
    /// The database is new, and manifests of another one lie at a backend.
    #[error(
        "the database is new, and backend {0} holds the manifests of an install: to rebuild it, run `osproxy recover`; to begin anew, give the backend another place"
    )]
    ForeignManifests(String),
    /// A store failed, or cannot work as it is configured.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl Error {
    /// Whether the same start may succeed later, with nothing changed.
    fn may_pass(&self) -> bool {
        let fault = match self {
            Self::Fault(fault)
            | Self::Listen { source: fault, .. }
            | Self::Refused(Refused::Fault(fault))
            | Self::MasterKey(MasterKeyError::Fault(fault)) => fault,
            _ => return false,
        };
        matches!(fault.kind(), Kind::Busy | Kind::Unavailable | Kind::Unknown)
    }
}
