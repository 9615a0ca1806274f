//! How far a long piece of work is, for whoever waits for it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// What is being done, and how much of it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is done now, as a person would say it.
    pub step: Cow<'static, str>,
    /// How much of it is done.
    pub done: u64,
    /// How much there is, where that is known.
    pub total: Option<u64>,
}

impl Progress {
    /// So much is done of a step.
    pub fn new(step: impl Into<Cow<'static, str>>, done: u64, total: Option<u64>) -> Self {
        Self {
            step: step.into(),
            done,
            total,
        }
    }
}

/// Told of progress, often: it must be quick.
pub type Tell<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// For work that nobody waits for.
pub fn untold(_: Progress) {}
