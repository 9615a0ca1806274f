//! The whole configuration: what can be set, where it is set, and what is refused.
//!
//! Layers, later ones win: defaults, the file named by `--config` or `OSPROXY_CONFIG`, the environment as
//! `OSPROXY_SECTION__NAME`, flags of the command line. A key or variable that does not exist is refused by name.
//! `config/reference.toml` shows every key. Each section belongs to the module that obeys it; this file only
//! gathers them.

mod backend;
mod layers;
mod places;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};

use figment::providers::{Format as _, Serialized, Toml};
use figment::value::Value;
use figment::{Figment, Provider as _};
use serde::{Deserialize, Serialize};

pub use backend::{Backend, Options, Scope};
pub use places::Placement;

use layers::Layer;

use crate::blob;
use crate::keys::Secret;
use crate::meta;
use crate::model::url::ServerUrl;
use crate::tasks;

/// Every setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The directory of the embedded database, the root key and local blobs. Made at the first start.
    pub data_dir: PathBuf,
    /// The S3 endpoint.
    pub s3: S3,
    /// The native API.
    pub native: crate::native::Config,
    /// The administration endpoint.
    pub admin: Admin,
    /// Limits of every listener.
    pub http: crate::http::Config,
    /// The database.
    pub meta: Meta,
    /// This process among others that share a database.
    pub node: crate::cluster::Config,
    /// What carries hints between them.
    pub redis: crate::cluster::HintsConfig,
    /// Logging.
    pub log: crate::telemetry::Config,
    /// How content is stored, kept and collected.
    pub storage: Storage,
    /// Memory.
    pub limits: Limits,
    /// Work outside of requests.
    pub jobs: tasks::engine::Config,
    /// Copies of blobs are read again and compared with what was stored.
    pub scrub: tasks::scrub::Config,
    /// Joined parts are read again and stored once with equal bytes.
    pub merge: tasks::merge::Config,
    /// When lifecycle rules are looked at.
    pub lifecycle: tasks::lifecycle::Config,
    /// Access logs of buckets.
    pub logging: tasks::logs::Config,
    /// Events of buckets and where they can be sent.
    pub notification: tasks::events::Config,
    /// The namespace kept at a backend, for the day the database is lost.
    pub manifests: crate::manifest::Config,
    /// Where blobs are kept, by name.
    pub backend: BTreeMap<String, Backend>,
    /// Where the blobs of a bucket go, by name. Every backend is a placement of its own name beside these.
    pub placement: BTreeMap<String, Placement>,
    /// What is only taken from the environment.
    #[serde(skip)]
    pub secrets: Secrets,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./osproxy-data"),
            s3: S3::default(),
            native: crate::native::Config::default(),
            admin: Admin::default(),
            http: crate::http::Config::default(),
            meta: Meta::default(),
            node: crate::cluster::Config::default(),
            redis: crate::cluster::HintsConfig::default(),
            log: crate::telemetry::Config::default(),
            storage: Storage::default(),
            limits: Limits::default(),
            jobs: tasks::engine::Config::default(),
            scrub: tasks::scrub::Config::default(),
            merge: tasks::merge::Config::default(),
            lifecycle: tasks::lifecycle::Config::default(),
            logging: tasks::logs::Config::default(),
            notification: tasks::events::Config::default(),
            manifests: crate::manifest::Config::default(),
            backend: BTreeMap::from([(Backend::LOCAL.to_owned(), Backend::local())]),
            placement: BTreeMap::new(),
            secrets: Secrets::default(),
        }
    }
}

// ---- [s3] ----

/// Section `[s3]`: the S3 endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct S3 {
    /// Address and port; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Base domains of virtual-host requests (`bucket.DOMAIN`), without a port. Path style always works.
    pub domains: Vec<String>,
    /// Base domains under which buckets are served as websites (`bucket.DOMAIN`), without a port; none of
    /// `domains`.
    pub website_domains: Vec<String>,
    /// The region that signatures must name and GetBucketLocation answers.
    pub region: String,
    /// Whether an upload of content that the same access key has sent before may be answered without its body.
    pub instant: InstantUpload,
    /// Size in bytes of the largest file in a browser upload (POST with a policy).
    pub max_post_bytes: u64,
    /// Which requests may carry a key of the client's own (SSE-C).
    pub customer_keys: CustomerKeys,
    /// Addresses or CIDRs of proxies in front of this endpoint. Only from them are `X-Forwarded-For` and
    /// `X-Forwarded-Proto` believed, by which policies know a client's address and whether it came by TLS.
    pub trusted_proxies: Vec<String>,
}

impl Default for S3 {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9000)),
            domains: Vec::new(),
            website_domains: Vec::new(),
            region: "us-east-1".to_owned(),
            instant: InstantUpload::Auto,
            max_post_bytes: 5 << 30,
            customer_keys: CustomerKeys::Any,
            trusted_proxies: Vec::new(),
        }
    }
}

/// Whether instant uploads are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstantUpload {
    /// When the client waits for `100 Continue` and the signature covers a known digest.
    Auto,
    /// Never; every body is read.
    Off,
}

/// Which requests may carry a key of the client's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CustomerKeys {
    /// All: that they come encrypted is the operator's business.
    Any,
    /// Those that a proxy marks with `X-Forwarded-Proto: https`.
    Https,
}

impl S3 {
    fn check(&self) -> Result<(), ConfigError> {
        let is_label = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        };
        if !is_label(&self.region) {
            return Err(expected(
                "s3.region",
                "lower-case letters, digits and hyphens",
                &self.region,
            ));
        }
        for (key, domains) in [
            ("s3.domains", &self.domains),
            ("s3.website_domains", &self.website_domains),
        ] {
            if let Some(domain) = domains.iter().find(|name| !name.split('.').all(is_label)) {
                return Err(expected(
                    key,
                    "lower-case host names without a port",
                    domain,
                ));
            }
        }
        if let Some(domain) = self
            .website_domains
            .iter()
            .find(|domain| self.domains.contains(domain))
        {
            return Err(expected(
                "s3.website_domains",
                "other domains than those of s3.domains",
                domain,
            ));
        }
        Ok(())
    }
}

// ---- [admin] ----

/// Section `[admin]`: health, metrics and administration. Whoever reaches this address is an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address and port; port 0 takes any free one.
    pub listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9001)),
        }
    }
}

// ---- [meta] ----

/// Section `[meta]`: the database that holds the namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Meta {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE` or `mysql://...`, which several nodes may share; empty for
    /// SQLite in the data directory. The database must exist; its tables are made.
    pub url: ServerUrl,
    /// Most connections to that server at a time, a quarter of them for reads alone. Up to four more are for what
    /// shows that the node is alive.
    pub connections: NonZeroU32,
}

impl Default for Meta {
    fn default() -> Self {
        Self {
            url: ServerUrl::default(),
            connections: const { NonZeroU32::new(32).expect("not zero") },
        }
    }
}

impl Meta {
    /// The URL of a server database, unless the embedded one is used.
    pub fn server(&self) -> Option<&str> {
        Some(self.url.reveal()).filter(|url| !url.is_empty())
    }

    fn check(&self) -> Result<(), ConfigError> {
        let checked = self.server().map_or(Ok(()), meta::check_url);
        checked.map_err(|problem| ConfigError(format!("meta.url: {problem}")))
    }
}

// ---- [storage] ----

/// Section `[storage]`: how content is stored, kept and collected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// The placement of new buckets: one of `[placement.NAME]`, or a backend alone. A bucket keeps the one it was
    /// made with until it is moved.
    pub placement: String,
    /// What must be on stable storage before an answer.
    pub durability: Durability,
    /// Bytes; content up to this size lives in its database row and has no blob.
    pub inline_max_bytes: u64,
    /// Bytes; bodies up to this size are held in memory until it is known whether they are stored already.
    pub memory_max_bytes: u64,
    /// Seconds after its last release before content without a reference is collected. Fewer than 600, the longest that
    /// a transaction may wait for its commit, are for tests.
    pub grace_seconds: NonZeroU64,
    /// Seconds that a collected blob's bytes stay at the backend. A database that is restored from a backup names
    /// blobs that were collected since, so this must be at least the time between backups. The default covers a
    /// copy taken by hand; a longer one would hold the room of every overwrite for as long.
    pub blob_retention_seconds: u64,
    /// Days after which a multipart upload that was not touched is aborted.
    pub stale_upload_days: NonZeroU32,
    /// Seconds between two runs of the collector.
    pub collect_interval_seconds: NonZeroU64,
    /// Seconds between two sweeps, which list every blob at every backend and delete those that no row names.
    pub sweep_interval_seconds: NonZeroU64,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            placement: Backend::LOCAL.to_owned(),
            durability: Durability::Durable,
            inline_max_bytes: 16 << 10,
            memory_max_bytes: 256 << 10,
            grace_seconds: const { NonZeroU64::new(3600).expect("not zero") },
            blob_retention_seconds: 3600,
            stale_upload_days: const { NonZeroU32::new(7).expect("not zero") },
            collect_interval_seconds: const { NonZeroU64::new(60).expect("not zero") },
            sweep_interval_seconds: const { NonZeroU64::new(3600).expect("not zero") },
        }
    }
}

/// What must be on stable storage before an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Bytes, directory entries and the commit.
    Durable,
    /// Nothing: a crash of the machine may lose the last seconds of acknowledged writes.
    Relaxed,
}

impl Storage {
    fn check(&self) -> Result<(), ConfigError> {
        if self.inline_max_bytes > self.memory_max_bytes {
            return Err(expected(
                "storage.inline_max_bytes",
                "at most storage.memory_max_bytes",
                self.inline_max_bytes,
            ));
        }
        Ok(())
    }
}

// ---- [limits] ----

/// Section `[limits]`: what all requests share, and what a tenant may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of all buffers for reading from file systems together; more wait.
    pub read_buffer_bytes: NonZeroU64,
    /// Bytes of all parts on their way to services other than `fs`; more wait.
    pub part_buffer_bytes: NonZeroU64,
    /// Most buckets of one tenant.
    pub buckets_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            read_buffer_bytes: const { NonZeroU64::new(64 << 20).expect("not zero") },
            part_buffer_bytes: const { NonZeroU64::new(176 << 20).expect("not zero") },
            buckets_max: 10_000,
        }
    }
}

// ---- secrets ----

/// What is only taken from the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// `OSPROXY_ROOT_ACCESS_KEY` and `OSPROXY_ROOT_SECRET_KEY`: the root key in place of a generated one.
    pub root: Option<RootKey>,
    /// `OSPROXY_MASTER_KEY`: what seals the secrets in the database, in place of the file in the data directory.
    pub master_key: Option<Secret>,
}

/// A root key given by the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootKey {
    /// The access key id.
    pub access_key: String,
    /// Its secret.
    pub secret_key: Secret,
}

// ---- loading ----

/// Why a configuration is refused. The text begins with the key or variable at fault.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ConfigError(String);

/// Settings of the command line, which win over all others.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--s3-listen`
    pub s3_listen: Option<SocketAddr>,
    /// `--native-listen`, which also enables it.
    pub native_listen: Option<SocketAddr>,
    /// `--admin-listen`
    pub admin_listen: Option<SocketAddr>,
}

/// The start of every variable that is ours.
const PREFIX: &str = "OSPROXY_";

impl Config {
    /// Loads all layers and checks the result. `file` is the one of `--config`; without it `OSPROXY_CONFIG` may
    /// name one. No file is read that was not named, and a named file must exist.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut environment = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            let value = value
                .into_string()
                .map_err(|_| ConfigError(format!("{name}: expected UTF-8")))?;
            environment.insert(name.to_owned(), value);
        }
        Self::load_from(file, environment, overrides)
    }

    fn load_from(
        file: Option<&Path>,
        mut environment: BTreeMap<String, String>,
        overrides: &Overrides,
    ) -> Result<Self, ConfigError> {
        let named = environment.remove("OSPROXY_CONFIG").map(PathBuf::from);
        // The command line's own: the secret of a key to make, and the databases of a copy and an import.
        for name in [
            "OSPROXY_SECRET_KEY",
            "OSPROXY_COPY_FROM",
            "OSPROXY_COPY_TO",
            "OSPROXY_IMPORT_DATABASE",
        ] {
            environment.remove(name);
        }
        let secrets = Secrets::take(&mut environment)?;
        let mut layers = Figment::new();
        if let Some(path) = file.or(named.as_deref()) {
            let source = path.display().to_string();
            let text = std::fs::read_to_string(path)
                .map_err(|error| ConfigError(format!("{source}: {error}")))?;
            let sections = Toml::string(&text)
                .data()
                .map_err(|error| ConfigError(format!("{source}: {error}")))?;
            layers = layers.merge(Layer { source, sections });
        }
        layers::check_hyphens(&environment, &layers)?;
        layers = layers
            .merge(Layer::of_environment(&environment)?)
            .merge(Layer::of_overrides(overrides));
        let mut defaults = Self::default();
        if layers.find_value("backend.local.service").is_ok() {
            // Another service under this name must not inherit the options of the default one.
            defaults.backend.remove(Backend::LOCAL);
        }
        let is_local_set = layers.find_value("backend.local").is_ok();
        let layers = Figment::from(Serialized::defaults(defaults)).merge(layers);
        let mut config: Self = layers.extract().map_err(explain)?;
        config.secrets = secrets;
        if !is_local_set {
            config.leave_out_local();
        }
        config.check()?;
        Ok(config)
    }

    /// Every setting in effect as `section.key` and its value, sorted, with secrets as `***`.
    pub fn effective(&self) -> Vec<(String, String)> {
        let mut settings = Vec::new();
        if let Ok(value) = Value::serialize(self) {
            flatten("", &value, &mut settings);
        }
        settings
    }

    /// The backend that manifests go to.
    pub fn manifests_backend(&self) -> &str {
        match self.manifests.backend.as_str() {
            "" => match self.placement.get(&self.storage.placement) {
                Some(placement) => placement.backends.first().map_or("", String::as_str),
                None => &self.storage.placement,
            },
            name => name,
        }
    }

    /// Checks what the types do not, across sections too.
    fn check(&self) -> Result<(), ConfigError> {
        self.s3.check()?;
        self.http.check().map_err(ConfigError)?;
        self.log
            .filter()
            .map_err(|error| ConfigError(error.to_string()))?;
        self.meta.check()?;
        self.storage.check()?;
        self.redis.check().map_err(ConfigError)?;
        self.notification.check().map_err(ConfigError)?;
        self.native.check().map_err(ConfigError)?;
        for (key, other) in [
            ("s3.listen", self.s3.listen),
            ("admin.listen", self.admin.listen),
        ] {
            let same = self.native.listen == other && other.port() != 0;
            if self.native.enabled && same {
                let wanted = format!("another address than {key}");
                return Err(expected("native.listen", wanted, self.native.listen));
            }
        }
        if self.s3.listen == self.admin.listen && self.s3.listen.port() != 0 {
            return Err(expected(
                "admin.listen",
                "another address than s3.listen",
                self.admin.listen,
            ));
        }
        for (key, name) in self
            .backend
            .keys()
            .map(|name| ("backend", name))
            .chain(self.placement.keys().map(|name| ("placement", name)))
        {
            let is_plain = !name.is_empty()
                && name.len() <= 32
                && name
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
            if !is_plain {
                return Err(expected(
                    key,
                    "names of at most 32 lower-case letters, digits, hyphens and underscores",
                    name,
                ));
            }
        }
        for (name, backend) in &self.backend {
            blob::check(&backend.to_blob_config())
                .map_err(|problem| ConfigError(format!("backend.{name}.{problem}")))?;
        }
        self.check_placements()?;
        self.check_places()?;
        if !self.backend.contains_key(self.manifests_backend()) {
            return Err(expected(
                "manifests.backend",
                "the name of a backend, or nothing for the first of storage.placement",
                &self.manifests.backend,
            ));
        }
        self.check_nodes()
    }
}

impl Secrets {
    fn take(environment: &mut BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut take = |name: &str| {
            environment
                .remove(name)
                .map(|value| {
                    if value.is_empty() {
                        Err(ConfigError(format!("{name}: expected a text, found none")))
                    } else {
                        Ok(value)
                    }
                })
                .transpose()
        };
        let access_key = take("OSPROXY_ROOT_ACCESS_KEY")?;
        let secret_key = take("OSPROXY_ROOT_SECRET_KEY")?;
        let master_key = take("OSPROXY_MASTER_KEY")?.map(Secret::new);
        let root = match (access_key, secret_key) {
            (Some(access_key), Some(secret_key)) => Some(RootKey {
                access_key,
                secret_key: Secret::new(secret_key),
            }),
            (None, None) => None,
            (Some(_), None) => {
                return Err(ConfigError(
                    "OSPROXY_ROOT_SECRET_KEY: expected beside OSPROXY_ROOT_ACCESS_KEY".to_owned(),
                ));
            }
            (None, Some(_)) => {
                return Err(ConfigError(
                    "OSPROXY_ROOT_ACCESS_KEY: expected beside OSPROXY_ROOT_SECRET_KEY".to_owned(),
                ));
            }
        };
        Ok(Self { root, master_key })
    }
}

fn flatten(prefix: &str, value: &Value, settings: &mut Vec<(String, String)>) {
    match value {
        Value::Dict(_, dict) => {
            for (name, value) in dict {
                let key = if prefix.is_empty() {
                    name.clone()
                } else {
                    format!("{prefix}.{name}")
                };
                flatten(&key, value, settings);
            }
        }
        other => settings.push((prefix.to_owned(), show(other))),
    }
}

/// A value as TOML writes it.
fn show(value: &Value) -> String {
    match value {
        Value::Array(_, items) => {
            let items: Vec<String> = items.iter().map(show).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Bool(_, bool) => bool.to_string(),
        Value::Num(_, number) => match number.to_u128() {
            Some(number) => number.to_string(),
            None => number.to_i128().map_or_else(String::new, |n| n.to_string()),
        },
        other => format!("{:?}", other.as_str().unwrap_or_default()),
    }
}

fn expected(key: &str, what: impl fmt::Display, found: impl fmt::Display) -> ConfigError {
    ConfigError(format!("{key}: expected {what}, found \"{found}\""))
}

/// Puts the key at fault first. Unknown keys come with the keys there are.
fn explain(error: figment::Error) -> ConfigError {
    use figment::error::Kind;
    let mut path = error.path.clone();
    let problem = match &error.kind {
        Kind::UnknownField(name, known) => {
            if path.last() != Some(name) {
                path.push(name.clone());
            }
            format!("there is no such setting, only {}", known.join(", "))
        }
        Kind::MissingField(name) => {
            path.push(name.to_string());
            "expected a value".to_owned()
        }
        Kind::InvalidType(found, wanted) | Kind::InvalidValue(found, wanted) => {
            format!("expected {wanted}, found {found}")
        }
        Kind::UnknownVariant(found, wanted) => {
            format!("expected one of {}, found \"{found}\"", wanted.join(", "))
        }
        other => other.to_string(),
    };
    let source = error
        .metadata
        .as_ref()
        .map_or_else(String::new, |metadata| format!(" (in {})", metadata.name));
    ConfigError(format!("{}: {problem}{source}", path.join(".")))
}

#[cfg(test)]
mod tests {
    use figment::Profile;

    use super::layers::read_as;
    use super::*;

    const REFERENCE: &str = include_str!("../config/reference.toml");

    fn load(file: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("test.toml");
        std::fs::write(&path, file).expect("written");
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Config::load_from(Some(&path), environment, &Overrides::default())
    }

    fn refusal(file: &str, environment: &[(&str, &str)]) -> String {
        load(file, environment).expect_err("refused").to_string()
    }

    #[test]
    fn reference_file_is_the_defaults_and_misses_no_key() {
        assert_eq!(load(REFERENCE, &[]).expect("valid"), Config::default());
        let mut in_file = Vec::new();
        let sections = Toml::string(REFERENCE).data().expect("TOML");
        flatten(
            "",
            &Value::from(sections[&Profile::Default].clone()),
            &mut in_file,
        );
        assert_eq!(in_file, Config::default().effective());
    }

    #[test]
    fn a_disk_of_each_node_needs_a_way_to_it_and_a_name_to_find_it_by() {
        let url = ("OSPROXY_META__URL", "postgres://a:b@c/d");
        let own = "[backend.local]\nservice = \"fs\"\nscope = \"node\"\noptions.root = \"blobs\"\n";
        assert!(refusal(own, &[url]).starts_with("node.listen:"));
        let listen = ("OSPROXY_NODE__LISTEN", "10.0.0.1:9002");
        let all = ("OSPROXY_NODE__LISTEN", "0.0.0.0:9002");
        let config = load(own, &[url, listen]).expect("accepted");
        assert!(config.is_of_node(&config.backend["local"]));
        assert!(refusal(own, &[url, all]).starts_with("node.address:"));
        let address = ("OSPROXY_NODE__ADDRESS", "a.example.org:9002");
        let config = load(own, &[url, all, address]).expect("accepted");
        let bound = "0.0.0.0:9002".parse().expect("an address");
        assert_eq!(config.node.reached_at(bound), "a.example.org:9002");
        for name in ["a b", "a@b", "a/b", &"a".repeat(64)] {
            let name = ("OSPROXY_NODE__NAME", name);
            assert!(refusal(own, &[url, listen, name]).starts_with("node.name:"));
        }
        for (key, value) in [
            ("OSPROXY_NODE__LISTEN", "nowhere"),
            ("OSPROXY_NODE__ADDRESS", "no-port"),
        ] {
            let found = refusal(own, &[url, listen, (key, value)]);
            assert!(found.starts_with("node."), "{found}");
        }
        // Alone with its database, a node has nobody to share with.
        let config = load(own, &[]).expect("accepted");
        assert!(!config.is_of_node(&config.backend["local"]));
    }

    #[test]
    fn nodes_that_share_a_database_do_not_take_a_directory_of_their_own_for_a_shared_one() {
        let url = ("OSPROXY_META__URL", "postgres://a:b@c/d");
        let refused = refusal("", &[url]);
        assert!(
            refused.starts_with("backend.local.options.root: "),
            "{refused}"
        );
        for word in ["absolute", "scope = \"node\"", "osproxy-data/blobs"] {
            assert!(refused.contains(word), "{refused}");
        }
        let root = ("OSPROXY_BACKEND__LOCAL__OPTIONS__ROOT", "/shared");
        assert!(load("", &[url, root]).is_ok());
        let store =
            "[backend.store]\nservice = \"s3\"\noptions = { bucket = \"b\", region = \"r\" }\n";
        // The implicit one is not there where nothing goes to it, so that nothing can be moved to it either.
        let only = format!("{store}[storage]\nplacement = \"store\"\n");
        let config = load(&only, &[url]).expect("valid");
        assert_eq!(config.backend.keys().collect::<Vec<_>>(), ["store"]);
        for with in [
            format!(
                "{store}[storage]\nplacement = \"p\"\n[placement.p]\nbackends = [\"store\", \"local\"]\n"
            ),
            format!("{only}[placement.p]\nbackends = [\"local\"]\n"),
            format!("{only}[manifests]\nbackend = \"local\"\n"),
            format!("{only}[backend.local]\nretries = 1\n"),
            format!("{only}[backend.d]\nservice = \"fs\"\noptions.root = \"d\"\n"),
        ] {
            let refused = refusal(&with, &[url]);
            assert!(refused.contains(".options.root: "), "{with}: {refused}");
            assert!(load(&with, &[]).is_ok(), "{with}");
        }
    }

    #[test]
    fn backends_in_one_bucket_are_two_places_with_other_roots_addresses_or_accounts() {
        let of = |options: &str| {
            format!(
                "[backend.a]\nservice = \"s3\"\noptions = {{ bucket = \"b\", region = \"r\", endpoint = \"https://H/\" }}\n\
                 [backend.b]\nservice = \"s3\"\noptions = {{ bucket = \"b\", region = \"r\", {options} }}"
            )
        };
        for other in [
            "root = \"x\", endpoint = \"https://h\"",
            "endpoint = \"https://h:1\"",
            "endpoint = \"https://h\", access_key_id = \"other\", secret_access_key = \"s\"",
        ] {
            assert!(load(&of(other), &[]).is_ok(), "{other}");
        }
        for same in [
            "endpoint = \"h:443\"",
            "endpoint = \"https://h\", root = \"/\"",
        ] {
            assert!(refusal(&of(same), &[]).starts_with("backend.b.options: "));
        }
        // Each store in memory is its own.
        let memory = "[backend.a]\nservice = \"memory\"\n[backend.b]\nservice = \"memory\"";
        assert!(load(memory, &[]).is_ok());
    }

    #[test]
    fn a_variable_that_means_a_name_with_a_hyphen_is_told_so() {
        let file =
            "[backend.my-store]\nservice = \"s3\"\noptions = { bucket = \"b\", region = \"r\" }\n";
        let variable = "OSPROXY_BACKEND__MY_STORE__OPTIONS__SECRET_ACCESS_KEY";
        let refused = refusal(file, &[(variable, "hush")]);
        assert!(
            refused.starts_with(variable) && refused.contains("hyphen"),
            "{refused}"
        );
        assert!(!refused.contains("hush"), "{refused}");
    }

    #[test]
    fn reference_file_explains_every_key() {
        let mut before = "";
        for line in REFERENCE.lines() {
            if line.contains(" = ") && !line.starts_with('#') {
                assert!(before.starts_with('#'), "no comment above {line}");
            }
            before = line;
        }
    }

    #[test]
    fn examples_of_backends_and_the_variables_they_name_are_accepted() {
        let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/config/backends");
        let mut count = 0;
        for entry in std::fs::read_dir(examples).expect("the examples") {
            let path = entry.expect("an entry").path();
            let text = std::fs::read_to_string(&path).expect("an example");
            let secrets: Vec<String> = text
                .split([' ', ',', '\n'])
                .map(|word| word.trim_end_matches('.'))
                .filter_map(|word| match word.strip_prefix("...__") {
                    Some(option) => Some(format!("OSPROXY_BACKEND__MAIN__OPTIONS__{option}")),
                    None => word.starts_with(PREFIX).then(|| word.to_owned()),
                })
                .collect();
            let secrets: Vec<(&str, &str)> = secrets
                .iter()
                .map(|name| (name.as_str(), "c2VjcmV0"))
                .collect();
            let config = load(&text, &secrets);
            assert!(config.is_ok(), "{}: {config:?}", path.display());
            count += 1;
        }
        assert!(count > 5);
    }

    #[test]
    fn later_layers_win() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("test.toml");
        std::fs::write(
            &path,
            "[s3]\nlisten = \"127.0.0.1:1\"\nregion = \"file-1\"\n",
        )
        .expect("written");
        let environment = BTreeMap::from([
            ("OSPROXY_CONFIG".to_owned(), path.display().to_string()),
            ("OSPROXY_S3__LISTEN".to_owned(), "127.0.0.1:2".to_owned()),
            ("OSPROXY_DATA_DIR".to_owned(), "/elsewhere".to_owned()),
        ]);
        let mut overrides = Overrides::default();
        let config = Config::load_from(None, environment.clone(), &overrides).expect("valid");
        assert_eq!(config.s3.listen.port(), 2);
        assert_eq!(config.s3.region, "file-1");
        assert_eq!(config.data_dir, Path::new("/elsewhere"));
        assert_eq!(config.http, crate::http::Config::default());
        overrides.s3_listen = Some(SocketAddr::from(([127, 0, 0, 1], 3)));
        overrides.data_dir = Some(PathBuf::from("/flag"));
        let config = Config::load_from(None, environment, &overrides).expect("valid");
        assert_eq!(config.s3.listen.port(), 3);
        assert_eq!(config.data_dir, Path::new("/flag"));
    }

    #[test]
    fn environment_reads_a_value_as_what_the_setting_is() {
        let config = load(
            "[backend.vendor]\nservice = \"s3\"\noptions = { bucket = 8, region = \"r\", enable_virtual_host_style = true }\n",
            &[
                ("OSPROXY_S3__DOMAINS", "s3.example.com, s3.test"),
                ("OSPROXY_HTTP__MAX_CONNECTIONS", "7"),
                ("OSPROXY_STORAGE__DURABILITY", "relaxed"),
                ("OSPROXY_BACKEND__VENDOR__OPTIONS__SECRET_ACCESS_KEY", "007"),
                ("OSPROXY_BACKEND__VENDOR__RETRIES", "9"),
            ],
        )
        .expect("valid");
        assert_eq!(config.s3.domains, ["s3.example.com", "s3.test"]);
        assert_eq!(config.http.max_connections.get(), 7);
        assert_eq!(config.storage.durability, Durability::Relaxed);
        let vendor = &config.backend["vendor"];
        assert_eq!(vendor.options.0["secret_access_key"], "007");
        assert_eq!(vendor.options.0["bucket"], "8");
        assert_eq!(vendor.options.0["enable_virtual_host_style"], "true");
        assert_eq!(vendor.retries, 9);
        assert_eq!(config.backend["local"], Backend::local());
    }

    #[test]
    fn every_setting_can_be_set_by_the_environment() {
        let variable = |(key, shown): (String, String)| {
            let name = format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"));
            let text = match shown.strip_prefix('[') {
                Some(list) => list.trim_end_matches(']').replace('"', ""),
                None => shown.trim_matches('"').to_owned(),
            };
            (name, text)
        };
        let effective = Config::default().effective().into_iter();
        let variables: Vec<(String, String)> = effective.map(variable).collect();
        let environment: Vec<(&str, &str)> = variables
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        assert_eq!(load("", &environment).expect("valid"), Config::default());
    }

    #[test]
    fn a_flag_is_true_or_false_and_a_setting_without_default_is_a_text() {
        let read = |default: Value, text: &str| read_as(&default, "OSPROXY_X", text);
        let flag = Value::from(false);
        assert_eq!(read(flag.clone(), "true").unwrap().to_bool(), Some(true));
        assert_eq!(
            read(flag.clone(), " false ").unwrap().to_bool(),
            Some(false)
        );
        assert_eq!(
            read(flag, "yes").unwrap_err().to_string(),
            "OSPROXY_X: expected true or false, found \"yes\""
        );
        let none = Value::serialize(None::<u64>).expect("a value");
        assert_eq!(read(none, "007").unwrap().as_str(), Some("007"));
    }

    #[test]
    fn local_backend_with_another_service_inherits_no_options() {
        let config = load(
            "[backend.local]\nservice = \"s3\"\noptions = { bucket = \"b\", region = \"r\" }\n",
            &[],
        )
        .expect("valid");
        let names: Vec<&String> = config.backend["local"].options.0.keys().collect();
        assert_eq!(names, ["bucket", "region"]);
    }

    #[test]
    fn unknown_keys_and_variables_are_refused_by_name() {
        for (file, key) in [
            ("colour = 1", "colour: "),
            ("[s4]\nlisten = \"\"", "s4: "),
            ("[http]\nmax_conections = 1", "http.max_conections: "),
            ("[backend.local]\nroot = \"x\"", "backend.local.root: "),
        ] {
            let text = refusal(file, &[]);
            assert!(text.starts_with(key), "{text}");
            assert!(text.contains("test.toml"), "{text}");
        }
        for variable in [
            "OSPROXY_COLOUR",
            "OSPROXY_HTTP__COLOUR",
            "OSPROXY_BACKEND__LOCAL__COLOUR",
            "OSPROXY_HTTP__MAX_HEADERS__X",
        ] {
            let text = refusal("", &[(variable, "1")]);
            assert_eq!(text, format!("{variable}: there is no such setting"));
        }
        let text = refusal("", &[("OSPROXY_HTTP", "1")]);
        assert!(text.starts_with("OSPROXY_HTTP: "), "{text}");
    }

    #[test]
    fn wrong_values_are_refused_with_key_and_expectation() {
        for (file, parts) in [
            (
                "[s3]\nlisten = \"nowhere\"",
                ["s3.listen: ", "socket address"],
            ),
            ("[s3]\nlisten = 9000", ["s3.listen: ", "socket address"]),
            ("[s3]\ninstant = \"maybe\"", ["s3.instant: ", "auto, off"]),
            ("[s3]\ndomains = [\"A b\"]", ["s3.domains: ", "host names"]),
            (
                "[s3]\nwebsite_domains = [\"w:80\"]",
                ["s3.website_domains: ", "host names"],
            ),
            (
                "[s3]\ndomains = [\"a.b\"]\nwebsite_domains = [\"a.b\"]",
                ["s3.website_domains: ", "s3.domains"],
            ),
            ("[s3]\nregion = \"\"", ["s3.region: ", "letters"]),
            (
                "[http]\nmax_connections = 0",
                ["http.max_connections: ", "nonzero"],
            ),
            (
                "[http]\nmax_requests = -1",
                ["http.max_requests: ", "expected"],
            ),
            (
                "[http]\nbuffer_bytes = 10",
                ["http.buffer_bytes: ", "at least 8192"],
            ),
            (
                "[http]\naccess_log = true",
                ["http.access_log: ", "expected"],
            ),
            ("[log]\nlevel = \"loud\"", ["log.level: ", "loud"]),
            (
                "[storage]\ninline_max_bytes = 9999999999",
                ["storage.inline_max_bytes: ", "at most"],
            ),
            (
                "[storage]\nplacement = \"x\"",
                ["storage.placement: ", "local"],
            ),
            (
                "[placement.p]\nbackends = [\"x\"]",
                ["placement.p.backends: ", "local"],
            ),
            (
                "[placement.p]\nbackends = []",
                ["placement.p.backends: ", "local"],
            ),
            (
                "[placement.p]\nbackends = [\"local\", \"local\"]",
                ["placement.p.backends: ", "each once"],
            ),
            (
                "[placement.p]\nbackends = [\"local\"]\ncopies_required = 2",
                ["placement.p.copies_required: ", "at most 1"],
            ),
            (
                "[backend.b]\nservice = \"memory\"\n[placement.b]\nbackends = [\"local\"]",
                ["placement.b.backends: ", "b alone"],
            ),
            (
                "[backend.x]\nretries = 1",
                ["backend.x.service: ", "expected"],
            ),
            (
                "[backend.\"X Y\"]\nservice = \"fs\"",
                ["backend: ", "lower-case"],
            ),
            (
                "[admin]\nlisten = \"127.0.0.1:9000\"",
                ["admin.listen: ", "s3.listen"],
            ),
            (
                "[backend.local.options]\nodd = [1]",
                ["backend.local.options.odd: ", "a text"],
            ),
            (
                "[backend.local.options]\nodd = { a = 1 }",
                ["backend.local.options.odd: ", "a text"],
            ),
            (
                "[backend.local.options]\nodd = 1",
                ["backend.local.options: ", "`odd`"],
            ),
            (
                "[backend.local]\nblob_max_bytes = 1000",
                ["backend.local.blob_max_bytes: ", "between"],
            ),
            (
                "[backend.x]\nservice = \"s3\"\noptions.bukcet = \"b\"",
                ["backend.x.options: ", "`bukcet`"],
            ),
            (
                "[backend.x]\nservice = \"s3\"",
                ["backend.x.options: ", "missing option `bucket`"],
            ),
            (
                "[backend.x]\nservice = \"fs\"",
                ["backend.x.options: ", "missing option `root`"],
            ),
            (
                "[backend.x]\nservice = \"s3\"\noptions = { bucket = \"b\", region = \"r\", endpoint = \"not a url\" }",
                ["backend.x.options.endpoint: ", "\"not a url\""],
            ),
            (
                "[backend.x]\nservice = \"s4\"",
                ["backend.x.service: ", "built in are"],
            ),
            (
                "[backend.a]\nservice = \"fs\"\noptions.root = \"./blobs/\"",
                ["backend.local.options: ", "backend.a"],
            ),
            (
                "[backend.a]\nservice = \"s3\"\noptions = { bucket = \"b\", region = \"r\", root = \"x\" }\n\
                 [backend.b]\nservice = \"s3\"\noptions = { bucket = \"b\", region = \"s\", root = \"/x/\" }",
                ["backend.b.options: ", "backend.a"],
            ),
            ("[s3", ["", "test.toml"]),
        ] {
            let text = refusal(file, &[]);
            assert!(text.starts_with(parts[0]), "{file}: {text}");
            assert!(text.contains(parts[1]), "{file}: {text}");
        }
        let text = refusal("", &[("OSPROXY_HTTP__MAX_CONNECTIONS", "many")]);
        assert_eq!(
            text,
            "OSPROXY_HTTP__MAX_CONNECTIONS: expected a whole number, found \"many\""
        );
    }

    #[test]
    fn the_database_url_prints_without_its_password() {
        let url = "postgres://user:p@ss:w%3Frd@db.example:5432/osproxy?password=hush";
        let root = ("OSPROXY_BACKEND__LOCAL__OPTIONS__ROOT", "/shared");
        let config = load("", &[("OSPROXY_META__URL", url), root]).expect("valid");
        assert_eq!(config.meta.server(), Some(url));
        let printed = format!("{config:?} {:?}", config.effective());
        for secret in ["p@", "ss:w", "rd@", "hush"] {
            assert!(!printed.contains(secret), "{printed}");
        }
        assert!(printed.contains("postgres://***"), "{printed}");
        assert_eq!(load("", &[]).expect("valid").meta.server(), None);
    }

    #[test]
    fn a_database_url_with_a_fault_is_refused_by_name_and_unseen() {
        for (url, part) in [
            ("postgresx://u:hush@h/d", "postgres://"),
            ("postgres://u:hush@h:99999/d", "HOST:PORT"),
            ("postgres://u:hush@h/d?sslmod=verify-full", "`sslmod`"),
            ("mysql://u:hush@h/d?ssl-mode=VERIFY_ALL", "`ssl-mode`"),
        ] {
            let text = refusal("", &[("OSPROXY_META__URL", url)]);
            assert!(
                text.starts_with("meta.url: ") && text.contains(part),
                "{text}"
            );
            assert!(!text.contains("hush"), "{text}");
        }
    }

    #[test]
    fn a_redis_url_prints_without_its_password_and_a_wrong_one_is_refused_unseen() {
        let url = "redis-sentinel://user:hu%40sh@h:26379/1?sentinelServiceName=main&node=i:26379";
        let config = load("", &[("OSPROXY_REDIS__URL", url)]).expect("valid");
        assert_eq!(config.redis.url.reveal(), url);
        let printed = format!("{config:?} {:?}", config.effective());
        assert!(!printed.contains("hu%40sh"), "{printed}");
        assert!(printed.contains("redis-sentinel://***"), "{printed}");
        for wrong in [
            "hush",
            "http://hush@h",
            "redis://hush@h:port",
            "redis://hush@h/0/1",
            "redis-sentinel://:hush@h",
            "redis+unix:///hush",
        ] {
            let text = refusal("", &[("OSPROXY_REDIS__URL", wrong)]);
            assert!(text.starts_with("redis.url: "), "{text}");
            assert!(!text.contains("hush"), "{text}");
        }
        for prefix in ["", "a b", "\n"] {
            let text = refusal("", &[("OSPROXY_REDIS__PREFIX", prefix)]);
            assert!(text.starts_with("redis.prefix: "), "{text}");
        }
    }

    #[test]
    fn a_named_file_must_exist() {
        let error = Config::load_from(
            Some(Path::new("/no/such/file.toml")),
            BTreeMap::new(),
            &Overrides::default(),
        )
        .expect_err("refused");
        assert!(error.to_string().starts_with("/no/such/file.toml: "));
    }

    #[test]
    fn secrets_come_from_the_environment_and_print_as_stars() {
        let config = load(
            "[backend.x]\nservice = \"s3\"\noptions = { bucket = \"b\", region = \"r\", access_key_id = \"visible\" }\n",
            &[
                ("OSPROXY_ROOT_ACCESS_KEY", "0123"),
                ("OSPROXY_ROOT_SECRET_KEY", "visible"),
                ("OSPROXY_MASTER_KEY", "visible"),
            ],
        )
        .expect("valid");
        let root = config.secrets.root.as_ref().expect("given");
        assert_eq!(root.access_key, "0123");
        assert_eq!(root.secret_key.reveal(), "visible");
        let printed = format!("{config:?} {:?}", config.effective());
        assert!(!printed.contains("visible"), "{printed}");
        assert!(printed.contains("***"));
    }

    #[test]
    fn half_a_root_key_is_refused() {
        for name in ["OSPROXY_ROOT_ACCESS_KEY", "OSPROXY_ROOT_SECRET_KEY"] {
            let text = refusal("", &[(name, "x")]);
            assert!(text.starts_with("OSPROXY_ROOT_"), "{text}");
        }
    }
}
