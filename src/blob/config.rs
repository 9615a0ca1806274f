//! How backends are configured.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// The value of a service's option as it may be shown: an address without user and query, and as `***` whatever is not
/// known to hold no secret.
pub fn shown<'a>(option: &str, value: &'a str) -> Cow<'a, str> {
    match option {
        "endpoint" => Cow::Owned(bare(value)),
        option if is_plain(option) => Cow::Borrowed(value),
        _ => Cow::Borrowed("***"),
    }
}

/// Whether an option holds no secret, whatever its value.
pub(super) fn is_plain(option: &str) -> bool {
    matches!(
        option,
        "root" | "bucket" | "container" | "region" | "enable_virtual_host_style"
    )
}

/// An address without user and password, query and fragment. Where it cannot be told what belongs to a password,
/// nothing behind the scheme is left.
pub(super) fn bare(address: &str) -> String {
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), address),
    };
    let (place, tail) = rest.split_once(['?', '#']).unwrap_or((rest, ""));
    match place.rsplit_once('@') {
        _ if tail.contains('@') => format!("{scheme}***"),
        Some((_, place)) => format!("{scheme}***@{place}"),
        None => format!("{scheme}{place}"),
    }
}

/// What is on stable storage when a blob is finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Its bytes and its directory entry.
    #[default]
    Durable,
    /// Nothing: a crash of the machine may lose the blob although a row names it. Only `fs` is concerned;
    /// what other services answer is taken as they mean it.
    Relaxed,
}

/// Memory that all streams of all backends share.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Buffers for reading from file systems, in bytes.
    pub read_buffer_bytes: usize,
    /// Parts on their way to all other services, in bytes.
    pub part_buffer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            read_buffer_bytes: 64 << 20,
            part_buffer_bytes: 176 << 20,
        }
    }
}

/// One configured backend.
#[derive(Clone, Serialize, Deserialize)]
pub struct BackendConfig {
    /// `fs` for a directory of this machine, or the name of an OpenDAL service such as `s3`.
    pub service: String,
    /// How long one request, or one piece of a body, may take before it counts as failed. Also how long a
    /// stream waits for its turn. Not used by `fs`.
    #[serde(default = "default_timeout_seconds")]
    pub timeout_seconds: u64,
    /// How often a request that failed for a passing reason is repeated. Not used by `fs`.
    #[serde(default = "default_retries")]
    pub retries: usize,
    /// How many requests are under way at once. Not used by `fs`.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// Bytes of the longest blob; longer contents are kept as several.
    #[serde(default = "default_blob_max_bytes")]
    pub blob_max_bytes: u64,
    /// The service's own options, such as `root`, `bucket` and `endpoint`.
    #[serde(flatten, deserialize_with = "scalars")]
    pub options: BTreeMap<String, String>,
}

fn default_timeout_seconds() -> u64 {
    30
}

fn default_retries() -> usize {
    3
}

fn default_concurrency() -> usize {
    64
}

fn default_blob_max_bytes() -> u64 {
    super::BLOB_MAX_BYTES
}

impl BackendConfig {
    /// A backend of `service` with every common setting at its default.
    pub fn new<const N: usize>(service: &str, options: [(&str, &str); N]) -> Self {
        Self {
            service: service.to_owned(),
            timeout_seconds: default_timeout_seconds(),
            retries: default_retries(),
            concurrency: default_concurrency(),
            blob_max_bytes: default_blob_max_bytes(),
            options: options
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        }
    }
}

impl fmt::Debug for BackendConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options: BTreeMap<_, _> = self
            .options
            .iter()
            .map(|(key, value)| (key, shown(key, value)))
            .collect();
        f.debug_struct("BackendConfig")
            .field("service", &self.service)
            .field("timeout_seconds", &self.timeout_seconds)
            .field("retries", &self.retries)
            .field("concurrency", &self.concurrency)
            .field("blob_max_bytes", &self.blob_max_bytes)
            .field("options", &options)
            .finish()
    }
}

/// Options as text, however the file writes them: `true`, `8` and `"8"`.
fn scalars<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Scalar {
        Flag(bool),
        Integer(i64),
        Text(String),
    }
    struct Options;
    impl<'de> Visitor<'de> for Options {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("options of the service")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut options = BTreeMap::new();
            while let Some(key) = map.next_key::<String>()? {
                let value = match map.next_value() {
                    Ok(Scalar::Flag(flag)) => flag.to_string(),
                    Ok(Scalar::Integer(integer)) => integer.to_string(),
                    Ok(Scalar::Text(text)) => text,
                    Err(_) => {
                        return Err(A::Error::custom(format_args!(
                            "option `{key}` must be text, a whole number, true or false"
                        )));
                    }
                };
                options.insert(key, value);
            }
            Ok(options)
        }
    }
    from.deserialize_map(Options)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn options_may_be_text_numbers_and_flags() {
        let config: BackendConfig = serde_json::from_str(
            r#"{"service": "s3", "retries": 7, "bucket": "b", "n": 8, "flag": true}"#,
        )
        .unwrap();
        assert_eq!(config.retries, 7);
        assert_eq!(config.timeout_seconds, 30);
        let options: Vec<_> = config.options.into_iter().collect();
        assert_eq!(
            options,
            [("bucket", "b"), ("flag", "true"), ("n", "8")].map(|(k, v)| (k.into(), v.into()))
        );
    }

    #[test]
    fn an_option_that_is_a_list_is_refused_by_name() {
        let refused = serde_json::from_str::<BackendConfig>(r#"{"service": "s3", "odd": [1]}"#)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("`odd`"), "{refused}");
    }

    #[test]
    fn an_address_is_shown_without_user_and_query() {
        for (address, seen) in [
            ("https://host:9000/path", "https://host:9000/path"),
            ("host", "host"),
            ("http://user:hush@host/path", "http://***@host/path"),
            ("user:hu@sh/hush@host", "***@host"),
            ("https://host/?sig=hush#hush", "https://host/"),
            ("http://user:hu?sh@host", "http://***"),
            ("http://user:hu#sh@host", "http://***"),
        ] {
            assert_eq!(shown("endpoint", address), seen);
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let config = BackendConfig::new("s3", [("bucket", "b"), ("secret_access_key", "hush")]);
        let shown = format!("{config:?}");
        assert!(
            shown.contains("\"b\"") && !shown.contains("hush"),
            "{shown}"
        );
    }
}
