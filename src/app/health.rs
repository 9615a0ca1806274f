//! Asking a server whether it is well, as a container engine or a supervisor does.

use super::Error;
use crate::admin;
use crate::config::Config;

/// What a server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Whether the process answers.
    Alive,
    /// Whether it can serve: its database answers and it is not stopping.
    Ready,
}

/// Asks the server on this machine that listens where the configuration says.
pub async fn probe(config: &Config, probe: Probe) -> Result<(), Error> {
    let path = match probe {
        Probe::Alive => "/healthz",
        Probe::Ready => "/readyz",
    };
    admin::probe(config.admin.listen, path)
        .await
        .map_err(Error::Unwell)
}
