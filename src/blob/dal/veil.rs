//! What a service says, without what nobody else is to know.

use std::fmt::{Display, Write as _};
use std::sync::Arc;

use crate::blob::config::{BackendConfig, bare, is_plain};

/// What stands for a secret.
const STARS: &str = "***";
/// Bytes of the shortest value that is looked for: shorter ones keep no secret, and are in every text.
const SECRET_MIN_BYTES: usize = 3;
/// What ends an address within a text.
const ENDS: [char; 9] = [' ', '\n', '\t', '"', '\'', '<', '>', '`', '}'];

/// Takes the secrets of one backend out of texts of its service: an address that failed may carry a token, and an
/// answer may quote the request.
#[derive(Clone)]
pub(super) struct Veil {
    /// As they may stand in a text, longest first.
    secrets: Arc<[String]>,
}

impl Veil {
    pub(super) fn over(config: &BackendConfig) -> Self {
        let mut values: Vec<&str> = Vec::new();
        for (option, value) in &config.options {
            if option == "endpoint" {
                let rest = value.split_once("://").map_or(&**value, |(_, rest)| rest);
                if let Some((user, _)) = rest.rsplit_once('@') {
                    values.push(user);
                    values.extend(user.split_once(':').map(|(_, password)| password));
                }
                values.extend(rest.split_once('?').map(|(_, query)| query));
            } else if !is_plain(option) && !matches!(&**value, "true" | "false") {
                values.push(value);
            }
        }
        let mut secrets: Vec<String> = values
            .into_iter()
            .filter(|value| value.len() >= SECRET_MIN_BYTES)
            .flat_map(|value| [value.to_owned(), encoded(value, ""), encoded(value, "/")])
            .collect();
        secrets.sort_unstable_by(|a, b| (b.len(), b).cmp(&(a.len(), a)));
        secrets.dedup();
        Self {
            secrets: secrets.into(),
        }
    }

    /// The text that `said` prints, without the secrets and without the user and query of any address.
    pub(super) fn text(&self, said: impl Display) -> String {
        let mut text = said.to_string();
        for secret in &*self.secrets {
            text = text.replace(secret.as_str(), STARS);
        }
        let mut shown = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(at) = rest.find("://") {
            let (before, address) = rest.split_at(at);
            let end = address.find(ENDS).unwrap_or(address.len());
            shown.push_str(before);
            shown.push_str(&bare(&address[..end]));
            rest = &address[end..];
        }
        shown.push_str(rest);
        shown
    }
}

/// As an address has it: all but what is never encoded, and `kept`, in percent form.
fn encoded(value: &str, kept: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        let c = char::from(byte);
        match c.is_ascii_alphanumeric() || "-._~".contains(c) || kept.contains(c) {
            true => text.push(c),
            // Writing to a text does not fail.
            false => drop(write!(text, "%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_what_addresses_carry_are_taken_out() {
        let config = BackendConfig::new(
            "webhdfs",
            [
                ("root", "/plain"),
                ("endpoint", "http://user:p@ss@host:1/x?sig=QUERY"),
                ("delegation", "HUSH SECRET/+"),
                ("disable_list_batch", "true"),
            ],
        );
        let veil = Veil::over(&config);
        for (said, shown) in [
            ("true /plain stays", "true /plain stays"),
            ("has HUSH SECRET/+ inside", "has *** inside"),
            (
                "uri: http://host:1/x/plain?op=OPEN&delegation=HUSH%20SECRET%2F%2B, response: y",
                "uri: http://host:1/x/plain response: y",
            ),
            ("sent HUSH%20SECRET/%2B away", "sent *** away"),
            (
                "at http://user:p@ss@host:1/x, and p@ss",
                "at http://***@host:1/x, and ***",
            ),
            ("other ftp://a:b@c/d", "other ftp://***@c/d"),
            ("said QUERY", "said QUERY"),
            ("said sig=QUERY", "said ***"),
        ] {
            assert_eq!(veil.text(said), shown);
        }
    }
}
