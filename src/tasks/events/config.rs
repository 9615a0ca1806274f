//! Section `[notification]`: who can be told of events, and for how long it is tried.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize, Serializer};

/// Most targets. Each has a job of its own.
pub(super) const TARGETS_MAX: usize = 100;

/// Section `[notification]`: events of buckets and where they can be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seconds after which an event that its target did not take is dropped and counted as given up.
    pub give_up_seconds: NonZeroU64,
    /// The targets, by the name that ends their ARN.
    pub target: BTreeMap<String, Target>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            give_up_seconds: const { NonZeroU64::new(345_600).expect("not zero") },
            target: BTreeMap::new(),
        }
    }
}

/// Section `[notification.target.NAME]`: one receiver of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// How it gets them.
    pub kind: Kind,
    /// Where it is; not for a queue.
    #[serde(default)]
    pub url: Address,
    /// The bearer token of a webhook.
    #[serde(default)]
    pub token: Token,
    /// The key of a Redis stream.
    #[serde(default)]
    pub stream: String,
    /// Seconds for one attempt.
    #[serde(default = "Target::default_timeout_seconds")]
    pub timeout_seconds: NonZeroU64,
}

/// How a target gets its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Each is posted to a URL.
    Webhook,
    /// Each is added to a Redis stream.
    Redis,
    /// They are kept here, and read and acknowledged over the admin API.
    Queue,
}

impl Target {
    fn default_timeout_seconds() -> NonZeroU64 {
        const { NonZeroU64::new(10).expect("not zero") }
    }

    /// What a setting of any target looks like, for layers that need to know.
    pub fn example() -> Self {
        Self {
            kind: Kind::Queue,
            url: Address::default(),
            token: Token::default(),
            stream: String::new(),
            timeout_seconds: Self::default_timeout_seconds(),
        }
    }
}

impl Config {
    /// Checks what the types do not. The error names the key.
    pub fn check(&self) -> Result<(), String> {
        if self.target.len() > TARGETS_MAX {
            return Err(format!(
                "notification.target: expected at most {TARGETS_MAX} targets, found {}",
                self.target.len()
            ));
        }
        for (name, target) in &self.target {
            let is_plain = !name.is_empty()
                && name.len() <= 64
                && name
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
            if !is_plain {
                return Err(format!(
                    "notification.target: expected names of at most 64 lower-case letters, digits, hyphens and underscores, found {name:?}"
                ));
            }
            target
                .check()
                .map_err(|(key, problem)| format!("notification.target.{name}.{key}: {problem}"))?;
        }
        Ok(())
    }
}

impl Target {
    fn check(&self) -> Result<(), (&'static str, String)> {
        let schemes: &[&str] = match self.kind {
            Kind::Webhook => &["http://", "https://"],
            Kind::Redis => &["redis://", "rediss://"],
            Kind::Queue => &[],
        };
        let url = self.url.reveal();
        if !schemes.is_empty() && !schemes.iter().any(|scheme| url.starts_with(scheme)) {
            return Err((
                "url",
                format!("expected a URL with {}", schemes.join(" or ")),
            ));
        }
        let unused = |key, what: &str| Err((key, format!("expected none for a {what}")));
        match self.kind {
            Kind::Redis if self.stream.is_empty() => {
                Err(("stream", "expected the key of a stream".to_owned()))
            }
            Kind::Redis if !self.token.is_empty() => unused("token", "redis target"),
            Kind::Webhook if !self.stream.is_empty() => unused("stream", "webhook"),
            Kind::Queue if !url.is_empty() => unused("url", "queue"),
            Kind::Queue if !self.token.is_empty() => unused("token", "queue"),
            Kind::Queue if !self.stream.is_empty() => unused("stream", "queue"),
            _ => Ok(()),
        }
    }
}

/// A secret that prints as `***`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// The secret.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn shown(&self) -> &'static str {
        if self.0.is_empty() { "" } else { "***" }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl Serialize for Token {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

/// A URL that prints without the user, password and query in it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Address(String);

impl Address {
    /// The whole URL.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn shown(&self) -> String {
        let plain = self.0.split(['?', '#']).next().unwrap_or_default();
        match plain.split_once("://") {
            Some((scheme, rest)) => {
                let (authority, path) = match rest.split_once('/') {
                    Some((authority, path)) => (authority, format!("/{path}")),
                    None => (rest, String::new()),
                };
                match authority.rsplit_once('@') {
                    Some((_, host)) => format!("{scheme}://***@{host}{path}"),
                    None => format!("{scheme}://{authority}{path}"),
                }
            }
            None => plain.to_owned(),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(kind: Kind, url: &str, token: &str, stream: &str) -> Target {
        Target {
            kind,
            url: Address(url.to_owned()),
            token: Token(token.to_owned()),
            stream: stream.to_owned(),
            ..Target::example()
        }
    }

    #[test]
    fn a_target_has_what_its_kind_needs_and_no_more() {
        for (target, expected) in [
            (target(Kind::Webhook, "http://h/x", "t", ""), None),
            (target(Kind::Webhook, "", "", ""), Some("url")),
            (target(Kind::Webhook, "http://h", "", "s"), Some("stream")),
            (target(Kind::Redis, "redis://h", "", "s"), None),
            (target(Kind::Redis, "http://h", "", "s"), Some("url")),
            (target(Kind::Redis, "redis://h", "", ""), Some("stream")),
            (target(Kind::Queue, "", "", ""), None),
            (target(Kind::Queue, "http://h", "", ""), Some("url")),
        ] {
            assert_eq!(
                target.check().err().map(|(key, _)| key),
                expected,
                "{target:?}"
            );
        }
    }

    #[test]
    fn secrets_in_targets_print_as_stars() {
        let target = target(
            Kind::Redis,
            "redis://user:hidden@host:1/2?password=hidden",
            "hidden",
            "s",
        );
        let printed = format!("{target:?}");
        assert!(!printed.contains("hidden"), "{printed}");
        assert!(printed.contains("redis://***@host:1/2"), "{printed}");
    }

    #[test]
    fn names_are_plain() {
        let mut config = Config::default();
        config.target.insert("A b".to_owned(), Target::example());
        assert!(config.check().is_err());
    }
}
