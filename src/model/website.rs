//! A bucket as a static website: its documents, and where requests are sent instead ("Hosting a static
//! website using Amazon S3").

use serde::{Deserialize, Serialize};

/// Most routing rules of a bucket.
const RULES_MAX: usize = 50;
/// The status of a redirection whose rule names none.
const MOVED_PERMANENTLY: u16 = 301;

/// How a bucket is served as a website.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Website {
    /// Nothing of it: every request is sent to another host.
    Elsewhere {
        /// The host, with a port where it has one.
        host: String,
        /// `None` for the request's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scheme: Option<Scheme>,
    },
    /// Its objects.
    Pages {
        /// What is appended to a key that is empty or ends with a slash; not empty and without a slash.
        index: String,
        /// The key of the page shown for errors of clients.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// In order; the first one that applies decides.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        rules: Vec<RoutingRule>,
    },
}

/// How a host is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// In clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// The scheme of this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "http" => Some(Self::Http),
            "https" => Some(Self::Https),
            _ => None,
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// One rule: where requests are sent, and which.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoutingRule {
    /// What keys must begin with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_prefix: Option<String>,
    /// The status that must have come out without the rule, from 400 to 599.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_status: Option<u16>,
    /// Where to; `None` for the request's own host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// How; `None` for the request's own scheme.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// With which key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<NewKey>,
    /// The status of the answer, from 301 to 399; `None` is 301.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// What the key of a redirection is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NewKey {
    /// A text in place of the rule's prefix.
    Prefix(String),
    /// A text in place of the whole key.
    Whole(String),
}

/// Why a website was refused ("PutBucketWebsite").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebsiteError {
    /// The index document is empty or holds a slash.
    Index,
    /// The error document has no name, a host is empty.
    Incomplete,
    /// More than fifty rules.
    TooMany,
    /// A status of errors that is none.
    ErrorStatus(u16),
    /// A status of redirections that is none.
    Status(u16),
}

impl Website {
    /// Checks what the types do not.
    pub fn check(&self) -> Result<(), WebsiteError> {
        let (index, error, rules) = match self {
            Self::Elsewhere { host, .. } if host.is_empty() => {
                return Err(WebsiteError::Incomplete);
            }
            Self::Elsewhere { .. } => return Ok(()),
            Self::Pages {
                index,
                error,
                rules,
            } => (index, error, rules),
        };
        if index.is_empty() || index.contains('/') {
            return Err(WebsiteError::Index);
        }
        if error.as_ref().is_some_and(String::is_empty) {
            return Err(WebsiteError::Incomplete);
        }
        if rules.len() > RULES_MAX {
            return Err(WebsiteError::TooMany);
        }
        for rule in rules {
            if let Some(status) = rule.error_status
                && !(400..600).contains(&status)
            {
                return Err(WebsiteError::ErrorStatus(status));
            }
            if let Some(status) = rule.status
                && !(301..400).contains(&status)
            {
                return Err(WebsiteError::Status(status));
            }
        }
        Ok(())
    }
}

/// Where a request is sent instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirection {
    /// The status of the answer.
    pub status: u16,
    /// `None` for the request's own.
    pub scheme: Option<Scheme>,
    /// `None` for the request's own.
    pub host: Option<String>,
    /// What the key to ask for there begins with, as the owner wrote it: it may be more than a key, such as
    /// `#!/`.
    pub text: String,
    /// What follows of the request's key.
    pub rest: String,
}

/// Where the first rule that applies to `key` sends its request: before anything is looked up without a
/// status, and afterwards with the status of the error that came out.
pub fn redirect(rules: &[RoutingRule], key: &str, error: Option<u16>) -> Option<Redirection> {
    let rule = rules.iter().find(|rule| {
        let prefix = rule.key_prefix.as_deref().unwrap_or_default();
        rule.error_status == error && key.starts_with(prefix)
    })?;
    let prefix = rule.key_prefix.as_deref().unwrap_or_default();
    Some(Redirection {
        status: rule.status.unwrap_or(MOVED_PERMANENTLY),
        scheme: rule.scheme,
        host: rule.host.clone(),
        text: match &rule.key {
            None => String::new(),
            Some(NewKey::Whole(text) | NewKey::Prefix(text)) => text.clone(),
        },
        rest: match &rule.key {
            None => key.to_owned(),
            Some(NewKey::Whole(_)) => String::new(),
            Some(NewKey::Prefix(_)) => key[prefix.len()..].to_owned(),
        },
    })
}

/// The key of the document that answers for `key`.
pub fn document(key: &str, index: &str) -> String {
    match key.is_empty() || key.ends_with('/') {
        true => format!("{key}{index}"),
        false => key.to_owned(),
    }
}

/// The key of the index document that `key` would have with a slash; `None` where it has one or is empty.
pub fn index_below(key: &str, index: &str) -> Option<String> {
    (!key.is_empty() && !key.ends_with('/')).then(|| format!("{key}/{index}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(index: &str, rules: Vec<RoutingRule>) -> Website {
        Website::Pages {
            index: index.to_owned(),
            error: None,
            rules,
        }
    }

    #[test]
    fn a_key_that_ends_with_a_slash_is_answered_by_its_index() {
        for (key, found, below) in [
            ("", "i.html", None),
            ("a/", "a/i.html", None),
            ("a/b/", "a/b/i.html", None),
            ("a", "a", Some("a/i.html")),
            ("a/b", "a/b", Some("a/b/i.html")),
        ] {
            assert_eq!(document(key, "i.html"), found);
            assert_eq!(index_below(key, "i.html").as_deref(), below);
        }
    }

    #[test]
    fn the_first_rule_that_applies_decides() {
        let prefix = |text: &str| Some(text.to_owned());
        let rules = [
            RoutingRule {
                key_prefix: prefix("docs/"),
                key: Some(NewKey::Prefix("documents/".to_owned())),
                ..RoutingRule::default()
            },
            RoutingRule {
                key_prefix: prefix("images/"),
                key: Some(NewKey::Whole("gone.html".to_owned())),
                status: Some(302),
                ..RoutingRule::default()
            },
            RoutingRule {
                key_prefix: prefix("reports/"),
                error_status: Some(404),
                host: Some("other".to_owned()),
                scheme: Some(Scheme::Https),
                ..RoutingRule::default()
            },
            RoutingRule {
                error_status: Some(404),
                key: Some(NewKey::Prefix("404/".to_owned())),
                ..RoutingRule::default()
            },
        ];
        for (key, error, expected) in [
            ("docs/a", None, Some((301, None, "documents/", "a"))),
            ("docs/", None, Some((301, None, "documents/", ""))),
            ("docs", None, None),
            ("images/a/b", None, Some((302, None, "gone.html", ""))),
            ("reports/a", None, None),
            (
                "reports/a",
                Some(404),
                Some((301, Some("other"), "", "reports/a")),
            ),
            ("else", Some(404), Some((301, None, "404/", "else"))),
            ("else", Some(403), None),
            // Without an error to wait for a rule has decided already.
            ("docs/a", Some(404), Some((301, None, "404/", "docs/a"))),
        ] {
            let found = redirect(&rules, key, error);
            let found = found.as_ref().map(|to| {
                (
                    to.status,
                    to.host.as_deref(),
                    to.text.as_str(),
                    to.rest.as_str(),
                )
            });
            assert_eq!(found, expected, "{key} {error:?}");
        }
    }

    #[test]
    fn a_rule_without_a_condition_sends_everything_away() {
        let rules = [RoutingRule {
            host: Some("other".to_owned()),
            ..RoutingRule::default()
        }];
        assert_eq!(redirect(&rules, "", None).unwrap().rest, "");
        assert_eq!(redirect(&rules, "a/ä", None).unwrap().rest, "a/ä");
    }

    #[test]
    fn a_website_is_checked_as_s3_documents() {
        assert_eq!(pages("i.html", vec![]).check(), Ok(()));
        let with = |rule: RoutingRule| pages("i", vec![rule]).check();
        for (checked, error) in [
            (pages("", vec![]).check(), WebsiteError::Index),
            (pages("a/i", vec![]).check(), WebsiteError::Index),
            (
                pages("i", vec![RoutingRule::default(); 51]).check(),
                WebsiteError::TooMany,
            ),
            (
                with(RoutingRule {
                    error_status: Some(399),
                    ..RoutingRule::default()
                }),
                WebsiteError::ErrorStatus(399),
            ),
            (
                with(RoutingRule {
                    status: Some(300),
                    ..RoutingRule::default()
                }),
                WebsiteError::Status(300),
            ),
            (
                Website::Elsewhere {
                    host: String::new(),
                    scheme: None,
                }
                .check(),
                WebsiteError::Incomplete,
            ),
        ] {
            assert_eq!(checked, Err(error));
        }
    }
}
