//! Wrapping keys at an operator's word, and data keys wrapped anew after a rotation.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::engine::{Failure, JobHandler, Outcome, Run};
use crate::content::{ContentStore, RewrapReport};
use crate::keys::{KeyError, KeyStatus, Keys, NewKmsKey};
use crate::model::progress::{Tell, untold};

/// What an operator wants of the wrapping keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyCommand {
    /// All keys, and how many contents each wraps.
    Status,
    /// New versions of the tenants' own keys.
    Rotate {
        /// Of this tenant alone.
        tenant: Option<String>,
    },
    /// A new KMS key.
    CreateKms(NewKmsKey),
    /// Allow the use of a KMS key.
    EnableKms(KmsName),
    /// Forbid it.
    DisableKms(KmsName),
    /// A new version of a KMS key.
    RotateKms(KmsName),
}

/// Which KMS key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KmsName {
    /// The tenant's name.
    pub tenant: String,
    /// The key id, or `alias/` and the alias.
    pub key: String,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReport {
    /// The keys it was about, as they are now.
    pub keys: Vec<KeyStatus>,
    /// Keys that got a new version.
    pub rotated: u64,
    /// Data keys that were wrapped anew.
    pub rewrap: RewrapReport,
}

/// The wrapping keys and what they wrap.
pub struct Keyring {
    keys: Arc<Keys>,
    content: Arc<ContentStore>,
}

impl Keyring {
    /// A keyring over `keys` for what `content` holds.
    pub fn new(keys: Arc<Keys>, content: Arc<ContentStore>) -> Self {
        Self { keys, content }
    }

    /// Does what was asked. After a rotation it wraps anew until nothing is left; when that is cut short, the
    /// next run of [`Rewrap`] goes on.
    pub async fn run(&self, command: KeyCommand, tell: Tell<'_>) -> Result<KeyReport, KeyError> {
        let only = |key| KeyReport {
            keys: vec![key],
            ..KeyReport::default()
        };
        match command {
            KeyCommand::Status => Ok(KeyReport {
                keys: self.keys.list().await?,
                ..KeyReport::default()
            }),
            KeyCommand::Rotate { tenant } => Ok(KeyReport {
                rotated: self.keys.rotate_tenants(tenant.as_deref()).await?,
                rewrap: self.content.rewrap(tell).await?,
                keys: self.keys.list().await?,
            }),
            KeyCommand::CreateKms(new) => self.keys.create_kms(new).await.map(only),
            KeyCommand::EnableKms(name) => {
                let key = self.keys.enable_kms(&name.tenant, &name.key, true).await?;
                Ok(only(key))
            }
            KeyCommand::DisableKms(name) => {
                let key = self.keys.enable_kms(&name.tenant, &name.key, false).await?;
                Ok(only(key))
            }
            KeyCommand::RotateKms(name) => {
                let key = self.keys.rotate_kms(&name.tenant, &name.key).await?;
                Ok(KeyReport {
                    rotated: 1,
                    rewrap: self.content.rewrap(tell).await?,
                    ..only(key)
                })
            }
        }
    }
}

/// Goes on with what a rotation left: data keys that an older version wraps still.
pub struct Rewrap(pub Arc<ContentStore>);

impl JobHandler for Rewrap {
    fn kind(&self) -> &'static str {
        "rewrap"
    }

    fn run<'a>(&'a self, _: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async {
            let report = self.0.rewrap(&untold).await?;
            let RewrapReport { rewrapped, failed } = report;
            if rewrapped + failed > 0 {
                tracing::info!(rewrapped, failed, "data keys wrapped anew");
            }
            Ok(Outcome::report(&report)?)
        })
    }
}
