//! Addresses that may hold secrets.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// Where a server is. Prints as no more than what kind it is: the rest may be secret.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ServerUrl(String);

impl ServerUrl {
    /// All of it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A password may hold any character, and options may be secrets too: only the scheme is certain.
        match self.0.split_once("://") {
            Some((scheme, _)) => write!(f, "{scheme}://***"),
            None => f.write_str(if self.0.is_empty() { "" } else { "***" }),
        }
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ServerUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Refuses what a URL says behind its place unless its `known` parameters, of which one as `name[NAME]` may hold any NAME,
/// are all that it says. The error names the one that there is not, unless that may be a piece of a password, and never a
/// value. A fragment is refused too: its `#` is one that was meant as part of something else.
pub fn check_query(url: &str, known: &[&str]) -> Result<(), String> {
    if url.contains('#') {
        return Err("expected no `#`: in a name or password it is written as %23".to_owned());
    }
    let Some((_, query)) = url.split_once('?') else {
        return Ok(());
    };
    let names = query.split('&').filter(|pair| !pair.is_empty());
    let names = names.map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
    let mut names = names.map(|name| name.replace("%5B", "[").replace("%5D", "]"));
    let is_known = |name: &str| {
        known.iter().any(|known| match known.split_once("[NAME]") {
            Some((group, _)) => {
                let inner = name.strip_prefix(group).and_then(|it| it.strip_prefix('['));
                inner.is_some_and(|it| it.ends_with(']') && it.len() > 1)
            }
            None => name == *known,
        })
    };
    let Some(odd) = names.find(|name| !is_known(name)) else {
        return Ok(());
    };
    // A `?` in a password begins the query there, and an `&` in one ends a parameter.
    let may_be_secret = query.contains('@') || query.to_lowercase().contains("password=");
    let odd = match may_be_secret {
        true => "another".to_owned(),
        false => format!("`{odd}`"),
    };
    let known = match known {
        [] => "no parameters".to_owned(),
        known => format!("no parameters but {}", known.join(", ")),
    };
    Err(format!("expected {known}, found {odd}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_may_say_what_is_known_and_nothing_else() {
        let known = ["node", "options[NAME]"];
        for url in [
            "redis://h",
            "redis://h?",
            "redis://h?node=a:1&node=b:2",
            "postgres://h/d?options[a]=b&",
            "postgres://h/d?options%5Ba%5D=b",
        ] {
            assert_eq!(check_query(url, &known), Ok(()), "{url}");
        }
        for url in ["x://h?foo", "x://h?node=a&foo=b"] {
            let refused = check_query(url, &known).unwrap_err();
            assert!(
                refused.contains("`foo`") && refused.contains("node"),
                "{refused}"
            );
        }
        for url in [
            "x://h?options[=b",
            "x://h?options[]=b",
            "x://h?options=b",
            "x://h#node=a",
        ] {
            assert!(check_query(url, &known).is_err(), "{url}");
        }
        assert_eq!(
            check_query("x://h?foo", &[]),
            Err("expected no parameters, found `foo`".to_owned())
        );
    }

    #[test]
    fn a_name_that_may_be_a_piece_of_a_password_is_not_repeated() {
        for url in [
            "redis://u:12?hush@h",
            "redis://u:12?hush=hush&node=hush@h",
            "redis-sentinel://h?sentinelPassword=a&hush",
            "redis://u:12#hush@h",
        ] {
            let refused = check_query(url, &["node"]).unwrap_err();
            assert!(!refused.contains("hush"), "{refused}");
        }
    }
}
