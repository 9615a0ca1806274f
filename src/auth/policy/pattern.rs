//! Texts with wildcards and policy variables.
//!
//! `*` stands for any run of characters, `?` for one, `${key}` for the value of a condition key,
//! `${key, 'default'}` for that or else the default, and `${*}`, `${?}` and `${$}` for the characters
//! themselves ("IAM policy elements: Variables and tags").

use super::{Malformed, Value};

/// One piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Char(char),
    One,
    Many,
    Variable {
        key: String,
        default: Option<String>,
    },
}

/// Whether letters are told apart by their case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Sensitive,
    Ignored,
}

/// What of a pattern's signs has a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signs {
    /// `*` and `?`.
    pub(super) wildcards: bool,
    /// `${...}`: only in documents of version 2012-10-17.
    pub(super) variables: bool,
}

/// A parsed text, with the signs that count in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Piece>);

/// Why a pattern has no fixed form for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unresolved {
    /// A variable has no value: nothing matches.
    Absent,
    /// A variable's value is not known yet.
    Unknown,
}

impl Pattern {
    /// Reads a text. A variable that does not end is malformed.
    pub(super) fn parse(text: &str, signs: Signs) -> Result<Self, Malformed> {
        let mut pieces = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if signs.variables
                && let Some(after) = rest.strip_prefix("${")
            {
                let (name, tail) = after.split_once('}').ok_or(Malformed::SYNTAX)?;
                pieces.push(variable(name));
                rest = tail;
                continue;
            }
            pieces.push(match first {
                '*' if signs.wildcards => Piece::Many,
                '?' if signs.wildcards => Piece::One,
                other => Piece::Char(other),
            });
            rest = &rest[first.len_utf8()..];
        }
        Ok(Self(pieces))
    }

    /// Whether it stands for one text whatever the request.
    pub(super) fn is_fixed(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Char(_)))
    }

    /// The pattern with the values of its variables, which hold no wildcards of their own.
    fn resolve(&self, lookup: &dyn Fn(&str) -> Value) -> Result<Vec<Piece>, Unresolved> {
        let mut pieces = Vec::with_capacity(self.0.len());
        for piece in &self.0 {
            let Piece::Variable { key, default } = piece else {
                pieces.push(piece.clone());
                continue;
            };
            let value = match (lookup(key), default) {
                (Value::Unknown, _) => return Err(Unresolved::Unknown),
                // A variable stands for one value; several have no one text.
                (Value::Is(values), _) if values.len() == 1 => values.into_iter().next(),
                (_, default) => default.clone(),
            };
            let value = value.ok_or(Unresolved::Absent)?;
            pieces.extend(value.chars().map(Piece::Char));
        }
        Ok(pieces)
    }

    /// Whether `text` is one that the pattern stands for.
    pub(super) fn matches(
        &self,
        text: &str,
        case: Case,
        lookup: &dyn Fn(&str) -> Value,
    ) -> Result<bool, Unresolved> {
        let has_variables = self
            .0
            .iter()
            .any(|piece| matches!(piece, Piece::Variable { .. }));
        if has_variables {
            Ok(glob(&self.resolve(lookup)?, text, case))
        } else {
            Ok(glob(&self.0, text, case))
        }
    }

    /// Whether `text` matches, variables counting as any run of characters.
    pub(super) fn could_match(&self, text: &str, case: Case) -> bool {
        let widened: Vec<Piece> = self
            .0
            .iter()
            .map(|piece| match piece {
                Piece::Variable { .. } => Piece::Many,
                other => other.clone(),
            })
            .collect();
        glob(&widened, text, case)
    }

    /// The characters that stand for themselves, in order; wildcards as they are written.
    pub(super) fn fixed_text(&self) -> String {
        let written = self.0.iter().map(|piece| match piece {
            Piece::Char(character) => *character,
            Piece::One => '?',
            Piece::Many | Piece::Variable { .. } => '*',
        });
        written.collect()
    }

    /// The pattern's parts between `separator`s, at most `limit` of them.
    pub(super) fn split(&self, separator: char, limit: usize) -> Vec<Self> {
        let mut parts = vec![Vec::new()];
        for piece in &self.0 {
            if *piece == Piece::Char(separator) && parts.len() < limit {
                parts.push(Vec::new());
            } else if let Some(part) = parts.last_mut() {
                part.push(piece.clone());
            }
        }
        parts.into_iter().map(Self).collect()
    }

    /// Whether a wildcard or variable is in it, so that it may stand for texts of several forms.
    pub(super) fn is_open(&self) -> bool {
        !self.is_fixed()
    }
}

/// What is between `${` and `}`.
fn variable(name: &str) -> Piece {
    match name.trim() {
        "*" => return Piece::Char('*'),
        "?" => return Piece::Char('?'),
        "$" => return Piece::Char('$'),
        _ => {}
    }
    let (key, default) = match name.split_once(',') {
        Some((key, default)) => (key, Some(default.trim().trim_matches('\'').to_owned())),
        None => (name, None),
    };
    Piece::Variable {
        key: key.trim().to_owned(),
        default,
    }
}

fn equal(left: char, right: char, case: Case) -> bool {
    left == right || (case == Case::Ignored && left.to_lowercase().eq(right.to_lowercase()))
}

/// Matches greedily and, where that fails, lets the last `*` take one character more: its time is bounded by
/// the product of both lengths, whatever the pattern.
fn glob(pattern: &[Piece], text: &str, case: Case) -> bool {
    let (mut at, mut rest) = (0, text.chars());
    let mut again: Option<(usize, std::str::Chars<'_>)> = None;
    loop {
        let mut ahead = rest.clone();
        let step = match (pattern.get(at), ahead.next()) {
            (Some(Piece::Many), _) => {
                at += 1;
                again = Some((at, rest.clone()));
                continue;
            }
            (None, None) => return true,
            (Some(Piece::One), Some(_)) => true,
            (Some(Piece::Char(wanted)), Some(found)) => equal(*wanted, found, case),
            _ => false,
        };
        if step {
            at += 1;
            rest = ahead;
            continue;
        }
        // What follows the last `*` does not fit here: it takes one more.
        let Some((after, from)) = &mut again else {
            return false;
        };
        if from.next().is_none() {
            return false;
        }
        (at, rest) = (*after, from.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Signs = Signs {
        wildcards: true,
        variables: true,
    };

    fn none(_: &str) -> Value {
        Value::Absent
    }

    fn matches(pattern: &str, text: &str) -> bool {
        let pattern = Pattern::parse(pattern, ALL).unwrap();
        pattern.matches(text, Case::Sensitive, &none).unwrap()
    }

    #[test]
    fn wildcards_match_as_documented() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "a/b", true),
            ("?", "", false),
            ("?", "ä", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("a*b*c", "aXbYbZc", true),
            ("*abc", "ababc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a${*}c", "a*c", true),
            ("a${*}c", "abc", false),
            ("a${?}", "ab", false),
            ("${$}{x}", "${x}", true),
            ("A", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn case_can_be_ignored() {
        let pattern = Pattern::parse("S3:get*", ALL).unwrap();
        assert!(
            pattern
                .matches("s3:GetObject", Case::Ignored, &none)
                .unwrap()
        );
    }

    #[test]
    fn variables_are_replaced_and_their_values_are_no_patterns() {
        let lookup = |key: &str| match key {
            "aws:username" => Value::Is(vec!["*".to_owned()]),
            "s3:prefix" => Value::Is(vec!["a".to_owned(), "b".to_owned()]),
            "later" => Value::Unknown,
            _ => Value::Absent,
        };
        let try_match = |pattern: &str, text: &str| {
            let pattern = Pattern::parse(pattern, ALL).unwrap();
            pattern.matches(text, Case::Sensitive, &lookup)
        };
        assert_eq!(try_match("home/${aws:username}/x", "home/*/x"), Ok(true));
        assert_eq!(try_match("home/${aws:username}/x", "home/bob/x"), Ok(false));
        assert_eq!(try_match("${none}", ""), Err(Unresolved::Absent));
        assert_eq!(try_match("${s3:prefix}", "a"), Err(Unresolved::Absent));
        assert_eq!(try_match("${later}", ""), Err(Unresolved::Unknown));
        assert_eq!(try_match("${none, 'anon'}", "anon"), Ok(true));
        assert!(Pattern::parse("${open", ALL).is_err());
        let old = Signs {
            variables: false,
            ..ALL
        };
        let literal = Pattern::parse("${aws:username}", old).unwrap();
        assert_eq!(
            literal.matches("${aws:username}", Case::Sensitive, &lookup),
            Ok(true)
        );
    }

    /// The definition, with all its time.
    fn slow(pattern: &[char], text: &[char]) -> bool {
        match (pattern.first(), text.first()) {
            (None, None) => true,
            (Some('*'), _) => {
                slow(&pattern[1..], text) || (!text.is_empty() && slow(pattern, &text[1..]))
            }
            (Some('?'), Some(_)) => slow(&pattern[1..], &text[1..]),
            (Some(wanted), Some(found)) if wanted == found => slow(&pattern[1..], &text[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_the_definition_says(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(matches(&pattern, &text), slow(&p, &t));
        }

        #[test]
        fn a_text_without_signs_matches_itself_alone(text in "[a-z/.ä-]{0,40}", other in "[a-z/.ä-]{0,40}") {
            prop_assert!(matches(&text, &text));
            prop_assert_eq!(matches(&text, &other), text == other);
        }

        #[test]
        fn any_text_can_be_read(text in ".{0,60}") {
            let _ = Pattern::parse(&text, ALL);
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "*a".repeat(5000);
        assert!(!matches(&pattern, &"a".repeat(1024)));
        let nearly = format!("{}b", "*a".repeat(500));
        assert!(!matches(&nearly, &"a".repeat(1024)));
    }
}
