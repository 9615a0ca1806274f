//! Which pages of other origins a browser may let at a bucket: rules, and which of them answers a request.

use serde::{Deserialize, Serialize};

/// Most rules of a bucket.
const RULES_MAX: usize = 100;
/// Most characters of a rule's id.
const ID_MAX: usize = 255;

/// What a page may ask a browser for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CorsMethod {
    /// Read.
    Get,
    /// Write.
    Put,
    /// Read the headers.
    Head,
    /// Send a form, or an operation that is a POST.
    Post,
    /// Delete.
    Delete,
}

impl CorsMethod {
    /// The method of this name; methods have case. `None` for one that no rule can allow.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Get, Self::Put, Self::Head, Self::Post, Self::Delete]
            .into_iter()
            .find(|method| method.as_str() == name)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorsRule {
    /// Its owner's name for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Methods it allows; not empty.
    pub methods: Vec<CorsMethod>,
    /// Origins it allows, each with at most one `*` for any text; not empty.
    pub origins: Vec<String>,
    /// Headers a page may send, each with at most one `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_headers: Vec<String>,
    /// Headers of the answer a page may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expose_headers: Vec<String>,
    /// Seconds for which a browser may remember the answer to a preflight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<i32>,
}

/// Why rules were refused ("PutBucketCors").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsError {
    /// No rule, or a rule without a method or an origin.
    Incomplete,
    /// More than a hundred rules.
    TooMany,
    /// An id that is too long.
    LongId,
    /// An id that two rules have.
    SameId,
    /// An origin with more than one `*`.
    Origin(String),
    /// A header to be sent with more than one `*`.
    AllowedHeader(String),
    /// A header to be read with a `*`.
    ExposeHeader(String),
    /// A time below zero.
    MaxAge,
}

/// Checks the rules of a bucket.
pub fn check(rules: &[CorsRule]) -> Result<(), CorsError> {
    if rules.is_empty() {
        return Err(CorsError::Incomplete);
    }
    if rules.len() > RULES_MAX {
        return Err(CorsError::TooMany);
    }
    for (index, rule) in rules.iter().enumerate() {
        if rule.methods.is_empty() || rule.origins.is_empty() {
            return Err(CorsError::Incomplete);
        }
        if let Some(id) = &rule.id {
            if id.chars().count() > ID_MAX {
                return Err(CorsError::LongId);
            }
            if rules[..index].iter().any(|other| other.id == rule.id) {
                return Err(CorsError::SameId);
            }
        }
        let stars = |text: &&String| text.matches('*').count();
        if let Some(origin) = rule.origins.iter().find(|origin| stars(origin) > 1) {
            return Err(CorsError::Origin(origin.clone()));
        }
        if let Some(name) = rule.allowed_headers.iter().find(|name| stars(name) > 1) {
            return Err(CorsError::AllowedHeader(name.clone()));
        }
        if let Some(name) = rule.expose_headers.iter().find(|name| stars(name) > 0) {
            return Err(CorsError::ExposeHeader(name.clone()));
        }
        if rule.max_age_seconds.is_some_and(|seconds| seconds < 0) {
            return Err(CorsError::MaxAge);
        }
    }
    Ok(())
}

/// The rule that answers, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed<'r> {
    /// The rule.
    pub rule: &'r CorsRule,
    /// Whether it allows every origin, so that the answer may name none.
    pub any_origin: bool,
}

/// The first rule that allows `method` to pages of `origin` that send the headers of these names. Origins are
/// compared with their case, names of headers without.
pub fn find<'r>(
    rules: &'r [CorsRule],
    origin: &str,
    method: CorsMethod,
    headers: &[&str],
) -> Option<Allowed<'r>> {
    rules.iter().find_map(|rule| {
        let pattern = rule
            .origins
            .iter()
            .find(|pattern| matches(pattern, origin))?;
        let sends = |name: &&str| {
            let name = name.to_ascii_lowercase();
            rule.allowed_headers
                .iter()
                .any(|pattern| matches(&pattern.to_ascii_lowercase(), &name))
        };
        (rule.methods.contains(&method) && headers.iter().all(sends)).then_some(Allowed {
            rule,
            any_origin: pattern == "*",
        })
    })
}

/// Whether a pattern with at most one `*` describes the whole text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((front, back)) => {
            text.len() >= front.len() + back.len()
                && text.starts_with(front)
                && text.ends_with(back)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(origins: &[&str], methods: &[CorsMethod], headers: &[&str]) -> CorsRule {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        CorsRule {
            id: None,
            methods: methods.to_vec(),
            origins: owned(origins),
            allowed_headers: owned(headers),
            expose_headers: Vec::new(),
            max_age_seconds: None,
        }
    }

    #[test]
    fn a_pattern_is_the_text_or_its_ends() {
        for (pattern, text, same) in [
            ("*", "", true),
            ("*", "http://a", true),
            ("*suffix", "foo.suffix", true),
            ("*suffix", "foo.suffix.get", false),
            ("start*end", "startend", true),
            ("start*end", "start1end", true),
            ("start*end", "0start1end", false),
            ("prefix*", "prefix", true),
            ("prefix*", "bla.prefix", false),
            // The ends may not share characters.
            ("aba*ba", "aba", false),
            ("aba*ba", "ababa", true),
            ("http://a", "http://a", true),
            ("http://a", "HTTP://A", false),
            ("http://a", "http://a:80", false),
        ] {
            assert_eq!(matches(pattern, text), same, "{pattern} {text}");
        }
    }

    #[test]
    fn the_first_rule_that_allows_all_that_is_asked_answers() {
        use CorsMethod::{Get, Put};
        let rules = [
            rule(&["http://a", "http://b"], &[Get], &[]),
            rule(&["http://*"], &[Get, Put], &["X-Amz-*", "content-type"]),
            rule(&["*"], &[Get], &["*"]),
        ];
        let found = |origin, method, headers: &[&str]| {
            let allowed = find(&rules, origin, method, headers)?;
            let index = rules.iter().position(|rule| rule == allowed.rule);
            Some((index.unwrap(), allowed.any_origin))
        };
        for (origin, method, headers, expected) in [
            ("http://b", Get, &[][..], Some((0, false))),
            ("http://b", Get, &["x-amz-date"], Some((1, false))),
            ("http://b", Put, &[], Some((1, false))),
            (
                "http://c",
                Put,
                &["X-AMZ-DATE", "Content-Type"],
                Some((1, false)),
            ),
            ("http://c", Put, &["content-types"], None),
            ("http://c", Get, &["range"], Some((2, true))),
            ("https://c", Get, &[], Some((2, true))),
            ("https://c", Put, &[], None),
        ] {
            assert_eq!(
                found(origin, method, headers),
                expected,
                "{origin} {method:?} {headers:?}"
            );
        }
    }

    #[test]
    fn rules_are_checked_as_s3_documents() {
        use CorsMethod::Get;
        let good = rule(&["http://*.a"], &[Get], &["*"]);
        assert_eq!(check(std::slice::from_ref(&good)), Ok(()));
        assert_eq!(check(&vec![good.clone(); 100]), Ok(()));
        let named = |id: &str| CorsRule {
            id: Some(id.to_owned()),
            ..good.clone()
        };
        for (rules, error) in [
            (vec![], CorsError::Incomplete),
            (vec![rule(&[], &[Get], &[])], CorsError::Incomplete),
            (vec![rule(&["*"], &[], &[])], CorsError::Incomplete),
            (vec![good.clone(); 101], CorsError::TooMany),
            (vec![named(&"i".repeat(256))], CorsError::LongId),
            (vec![named("i"), named("i")], CorsError::SameId),
            (
                vec![rule(&["*.a.*"], &[Get], &[])],
                CorsError::Origin("*.a.*".to_owned()),
            ),
            (
                vec![rule(&["*"], &[Get], &["*a*"])],
                CorsError::AllowedHeader("*a*".to_owned()),
            ),
            (
                vec![CorsRule {
                    expose_headers: vec!["x-*".to_owned()],
                    ..good.clone()
                }],
                CorsError::ExposeHeader("x-*".to_owned()),
            ),
            (
                vec![CorsRule {
                    max_age_seconds: Some(-1),
                    ..good.clone()
                }],
                CorsError::MaxAge,
            ),
        ] {
            assert_eq!(check(&rules), Err(error));
        }
    }
}
