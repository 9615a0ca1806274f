//! Sections `[placement.NAME]`: to which backends the blobs of buckets go.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Backend, Config, ConfigError, Scope, expected};
use crate::blob;

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
    /// Takes out the backend that is there without being configured, where nodes share a database and nothing goes to it:
    /// it would be another directory at each of them.
    pub(super) fn leave_out_local(&mut self) {
        let is_used = self.storage.placement == Backend::LOCAL
            || self.manifests_backend() == Backend::LOCAL
            || self.placement.iter().any(|(name, placement)| {
                name == Backend::LOCAL || placement.backends.iter().any(|it| it == Backend::LOCAL)
            });
        if self.meta.server().is_some() && !is_used {
            self.backend.remove(Backend::LOCAL);
        }
    }

    /// Refuses what the name of a backend does not tell apart: two that are one place, each of which would list what
    /// only the other's rows name, and one that is another place at each node.
    pub(super) fn check_places(&self) -> Result<(), ConfigError> {
        let mut placed: Vec<(&str, blob::BackendConfig)> = Vec::new();
        for (name, backend) in &self.backend {
            let root = backend.options.0.get("root");
            if let Some(root) = root.filter(|root| Path::new(root).is_relative())
                && backend.is_disk()
                && backend.scope == Scope::Shared
                && self.meta.server().is_some()
            {
                let alone = std::path::absolute(self.data_dir.join(root));
                let alone = alone.unwrap_or_else(|_| self.data_dir.join(root));
                return Err(expected(
                    &format!("backend.{name}.options.root"),
                    format_args!(
                        "an absolute directory that every node has mounted, because meta.url names a database that nodes \
                         share; or scope = \"node\" for a disk of each node's own, or a service (one node alone may \
                         name its own directory: \"{}\")",
                        alone.display()
                    ),
                    root,
                ));
            }
            let place = backend.placed_in(&self.data_dir);
            if let Some((other, _)) = placed.iter().find(|(_, it)| blob::is_one_place(it, &place)) {
                return Err(ConfigError(format!(
                    "backend.{name}.options: expected another place than that of backend.{other}{}",
                    match name == Backend::LOCAL || *other == Backend::LOCAL {
                        true =>
                            "; \"local\" is there without being configured, with the directory \"blobs\"",
                        false => "",
                    }
                )));
            }
            placed.push((name, place));
        }
        Ok(())
    }

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
