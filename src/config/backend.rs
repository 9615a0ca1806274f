//! Section `[backend.NAME]`: where blobs are kept, and what the services need.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::Path;

use figment::value::Value;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::show;
use crate::blob;

/// Section `[backend.NAME]`: one place where blobs are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// The kind of service: `fs`, `s3` and others.
    pub service: String,
    /// Whether all nodes reach it, or each has one of its own under this name.
    #[serde(default)]
    pub scope: Scope,
    /// What the service needs. A relative `root` of `fs` is under `data_dir`.
    #[serde(default)]
    pub options: Options,
    /// Operations at a time.
    #[serde(default = "Backend::default_concurrency")]
    pub concurrency: NonZeroU32,
    /// Seconds for one operation, or for one piece of a transfer.
    #[serde(default = "Backend::default_timeout_seconds")]
    pub timeout_seconds: NonZeroU64,
    /// How often an operation is tried again after a failure that may pass.
    #[serde(default = "Backend::default_retries")]
    pub retries: u32,
    /// Bytes of the longest blob; longer contents are kept as several.
    #[serde(default = "Backend::default_blob_max_bytes")]
    pub blob_max_bytes: u64,
}

impl Backend {
    /// The name of the backend that exists without configuration.
    pub const LOCAL: &str = "local";

    /// The file system under `data_dir`.
    pub(super) fn local() -> Self {
        Self {
            service: "fs".to_owned(),
            scope: Scope::Shared,
            options: Options(BTreeMap::from([("root".to_owned(), "blobs".to_owned())])),
            concurrency: Self::default_concurrency(),
            timeout_seconds: Self::default_timeout_seconds(),
            retries: Self::default_retries(),
            blob_max_bytes: Self::default_blob_max_bytes(),
        }
    }

    /// As the store of blobs takes it.
    pub fn to_blob_config(&self) -> blob::BackendConfig {
        blob::BackendConfig {
            service: self.service.clone(),
            timeout_seconds: self.timeout_seconds.get(),
            retries: self.retries as usize,
            concurrency: self.concurrency.get() as usize,
            blob_max_bytes: self.blob_max_bytes,
            options: self.options.0.clone(),
        }
    }

    /// The same, with a relative directory below `data_dir`.
    pub fn placed_in(&self, data_dir: &Path) -> blob::BackendConfig {
        let mut config = self.to_blob_config();
        if self.is_disk()
            && let Some(root) = config.options.get_mut("root")
        {
            // An absolute one replaces the directory.
            *root = data_dir.join(&*root).to_string_lossy().into_owned();
        }
        config
    }

    /// Whether it is a directory of this machine.
    pub fn is_disk(&self) -> bool {
        self.service == "fs"
    }

    fn default_concurrency() -> NonZeroU32 {
        const { NonZeroU32::new(64).expect("not zero") }
    }

    fn default_timeout_seconds() -> NonZeroU64 {
        const { NonZeroU64::new(30).expect("not zero") }
    }

    fn default_retries() -> u32 {
        3
    }

    fn default_blob_max_bytes() -> u64 {
        blob::BLOB_MAX_BYTES
    }
}

/// Who reaches a backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Every node.
    #[default]
    Shared,
    /// Each node its own; the others read from it through that node.
    Node,
}

/// Options of a service, as text. Those that may be a secret print as `***`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Options(pub BTreeMap<String, String>);

impl Options {
    fn shown(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        let options = self.0.iter();
        options.map(|(name, value)| (name.as_str(), blob::shown(name, value)))
    }
}

impl<'de> Deserialize<'de> for Options {
    /// Takes texts, whole numbers and flags; `8` and `"8"` are the same.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut options = BTreeMap::new();
        for (name, Scalar(text)) in BTreeMap::<String, Scalar>::deserialize(from)? {
            options.insert(name, text);
        }
        Ok(Self(options))
    }
}

/// The value of one option, as text.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match <Value as Deserialize>::deserialize(from)? {
            Value::String(_, text) => Ok(Self(text)),
            value @ (Value::Bool(..) | Value::Num(..)) => Ok(Self(show(&value))),
            _ => Err(D::Error::custom("expected a text, a number or a flag")),
        }
    }
}

impl Serialize for Options {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.shown())
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shown()).finish()
    }
}
