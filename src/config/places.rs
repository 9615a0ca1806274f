//! Where blobs go: backends, and the placements that are made of them.

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

use figment::value::Value;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Config, ConfigError, expected, show};

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
        }
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
}

/// Section `[placement.NAME]`: to which backends the blobs of a bucket go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// Backends that get a copy of each blob, the one to read from first. They are kept for as long as a bucket is
    /// at this placement.
    pub backends: Vec<String>,
    /// How many copies must be durable before an upload is answered; without it all. The others are written later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies_required: Option<NonZeroU32>,
    /// Whether clients may ask for it when they make a bucket, as location `REGION:NAME`.
    #[serde(default)]
    pub open: bool,
}

impl Placement {
    /// A backend alone.
    fn of_backend(name: &str) -> Self {
        Self {
            backends: vec![name.to_owned()],
            copies_required: None,
            open: false,
        }
    }

    /// One with every setting.
    pub(super) fn example() -> Self {
        Self {
            copies_required: NonZeroU32::new(1),
            ..Self::of_backend(Backend::LOCAL)
        }
    }

    /// How many copies must be durable before an upload is answered.
    pub fn copies_required(&self) -> usize {
        self.copies_required
            .map_or(self.backends.len(), |it| it.get() as usize)
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

/// Options whose values may be shown; any other may be a secret.
const SHOWN: [&str; 6] = [
    "root",
    "bucket",
    "container",
    "endpoint",
    "region",
    "enable_virtual_host_style",
];

impl Options {
    fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| {
            let is_shown = SHOWN.contains(&name.as_str());
            (name.as_str(), if is_shown { value } else { "***" })
        })
    }
}

impl<'de> Deserialize<'de> for Options {
    /// Takes texts, whole numbers and flags; `8` and `"8"` are the same.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut options = BTreeMap::new();
        for (name, value) in BTreeMap::<String, Value>::deserialize(from)? {
            let text = match &value {
                Value::String(_, text) => text.clone(),
                Value::Bool(..) | Value::Num(..) => show(&value),
                _ => {
                    let problem = format!("expected a text, a number or a flag for {name}");
                    return Err(D::Error::custom(problem));
                }
            };
            options.insert(name, text);
        }
        Ok(Self(options))
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

impl Config {
    /// Every placement by name: the configured ones, and each backend alone.
    pub fn placements(&self) -> BTreeMap<&str, Placement> {
        let alone = |name| (name, Placement::of_backend(name));
        let backends = self.backend.keys().map(String::as_str).map(alone);
        let configured = self.placement.iter();
        backends
            .chain(configured.map(|(name, placement)| (name.as_str(), placement.clone())))
            .collect()
    }

    pub(super) fn check_placements(&self) -> Result<(), ConfigError> {
        let backends: Vec<&str> = self.backend.keys().map(String::as_str).collect();
        for (name, placement) in &self.placement {
            let key = |what: &str| format!("placement.{name}.{what}");
            let listed = &placement.backends;
            let twice = (1..listed.len()).any(|at| listed[..at].contains(&listed[at]));
            let unknown = listed.iter().any(|name| !self.backend.contains_key(name));
            if listed.is_empty() || twice || unknown {
                return Err(expected(
                    &key("backends"),
                    format_args!("some of the backends {}, each once", backends.join(", ")),
                    listed.join(", "),
                ));
            }
            if self.backend.contains_key(name) && *listed != [name.clone()] {
                return Err(expected(
                    &key("backends"),
                    format_args!("{name} alone, because a backend has this name too"),
                    listed.join(", "),
                ));
            }
            if placement.copies_required() > listed.len() {
                return Err(expected(
                    &key("copies_required"),
                    format_args!("at most {}", listed.len()),
                    placement.copies_required(),
                ));
            }
        }
        let placements = self.placements();
        if !placements.contains_key(self.storage.placement.as_str()) {
            let names: Vec<&str> = placements.into_keys().collect();
            return Err(expected(
                "storage.placement",
                format_args!("one of the placements and backends {}", names.join(", ")),
                &self.storage.placement,
            ));
        }
        Ok(())
    }
}

impl Config {
    /// Whether a backend is one of each node. Alone with an embedded database, there is nobody else to reach it.
    pub fn is_of_node(&self, backend: &Backend) -> bool {
        backend.scope == Scope::Node && self.meta.server().is_some()
    }

    pub(super) fn check_nodes(&self) -> Result<(), ConfigError> {
        self.node.check().map_err(ConfigError)?;
        if self.meta.server().is_some() || !self.node.name.is_empty() {
            self.node.check_name().map_err(ConfigError)?;
        }
        let own = self
            .backend
            .iter()
            .find(|(_, backend)| self.is_of_node(backend));
        if let Some((name, _)) = own
            && self.node.listen.is_empty()
        {
            return Err(expected(
                "node.listen",
                format_args!(
                    "an address where other nodes read what backend.{name} of scope \"node\" holds"
                ),
                "none",
            ));
        }
        let manifests = self.backend.get(self.manifests_backend());
        if self.manifests.enabled && manifests.is_some_and(|it| self.is_of_node(it)) {
            return Err(expected(
                "manifests.backend",
                "a backend that every node reaches",
                self.manifests_backend(),
            ));
        }
        Ok(())
    }
}
