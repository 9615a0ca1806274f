//! A bucket's lifecycle rules, and what they say of a version at a time.
//!
//! Everything here is a pure rule ("Managing the lifecycle of objects" in the S3 user guide). Transitions are
//! kept and answered and change nothing: all storage classes are one here.

use serde::{Deserialize, Serialize};

use crate::model::clock::Millis;

/// A day of the calendar.
pub const DAY: Millis = 86_400_000;

/// How long a day is. Rules count from the next midnight, as S3 does; a day that is shortened for tests begins
/// at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar {
    day: Millis,
}

impl Calendar {
    /// A calendar whose days have `day` milliseconds, at least one.
    pub fn new(day: Millis) -> Self {
        Self { day: day.max(1) }
    }

    /// The time `days` after `since`, at midnight.
    fn after(self, since: Millis, days: u32) -> Millis {
        let time = since.saturating_add(self.day.saturating_mul(Millis::from(days)));
        if self.day == DAY {
            time.div_euclid(DAY)
                .saturating_add(Millis::from(time.rem_euclid(DAY) > 0))
                .saturating_mul(DAY)
        } else {
            time
        }
    }
}

/// The rules of a bucket, in the order in which they were given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lifecycle {
    /// The rules; their ids differ.
    pub rules: Vec<Rule>,
    /// The smallest object that is moved, as the client named it; echoed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_size: Option<String>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its id.
    pub id: String,
    /// Whether it is in force.
    pub enabled: bool,
    /// What it is about.
    pub filter: Filter,
    /// What becomes of current versions, or of delete markers that are left over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<Expiration>,
    /// What becomes of versions that were replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noncurrent: Option<Noncurrent>,
    /// Days after which an upload that was not completed is aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort_days: Option<u32>,
    /// Kept to be answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transitions: Vec<Transition>,
    /// Kept to be answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub noncurrent_transitions: Vec<NoncurrentTransition>,
}

/// How a filter was written, so that it is answered the same way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterForm {
    /// A prefix beside the rule's other parts, as in the first version of the document.
    Legacy,
    /// At most one condition.
    #[default]
    Plain,
    /// Several conditions, joined by `And`.
    And,
}

/// What a rule is about: all conditions hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// How it was written.
    pub form: FilterForm,
    /// The key begins so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The object has all of these tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<(String, String)>,
    /// It is larger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub larger_than: Option<u64>,
    /// It is smaller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smaller_than: Option<u64>,
}

/// What becomes of current versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expiration {
    /// They expire so many days after they were written; so do delete markers that are left over.
    Days(u32),
    /// They expire from this time on.
    Date(Millis),
    /// Whether delete markers go once no version is left behind them.
    Markers(bool),
}

/// What becomes of versions that were replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noncurrent {
    /// Days after which they go, counted from when they were replaced.
    pub days: u32,
    /// How many of the newest are kept all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<u32>,
}

/// When an object is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum When {
    /// So many days after it was written.
    Days(u32),
    /// From this time on.
    Date(Millis),
}

/// A move to another storage class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// When.
    pub when: When,
    /// Where to.
    pub class: String,
}

/// A move of versions that were replaced to another storage class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoncurrentTransition {
    /// When, and how many stay.
    pub when: Noncurrent,
    /// Where to.
    pub class: String,
}

/// A version as rules see it.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its key.
    pub key: &'a str,
    /// Its bytes.
    pub size: u64,
    /// Its tags.
    pub tags: &'a [(String, String)],
    /// When it was written.
    pub modified: Millis,
}

/// What a rule will do, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due<'a> {
    /// From when on.
    pub at: Millis,
    /// The rule's id.
    pub rule: &'a str,
}

impl Filter {
    /// Whether the key may be meant, whatever else the filter asks for.
    fn covers(&self, key: &str) -> bool {
        self.prefix
            .as_deref()
            .is_none_or(|prefix| key.starts_with(prefix))
    }

    /// Whether only a prefix is asked for: all that can be said of uploads and delete markers, which have
    /// neither size nor tags.
    pub fn is_prefix(&self) -> bool {
        self.tags.is_empty() && self.larger_than.is_none() && self.smaller_than.is_none()
    }

    fn matches(&self, subject: &Subject<'_>) -> bool {
        self.covers(subject.key)
            && self.larger_than.is_none_or(|bound| subject.size > bound)
            && self.smaller_than.is_none_or(|bound| subject.size < bound)
            && self.tags.iter().all(|tag| subject.tags.contains(tag))
    }
}

/// The earlier one; of two at the same time the first.
fn earliest<'a>(dues: impl Iterator<Item = Due<'a>>) -> Option<Due<'a>> {
    dues.reduce(|first, next| if next.at < first.at { next } else { first })
}

impl Lifecycle {
    fn enabled(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(|rule| rule.enabled)
    }

    /// Whether any rule in force does anything here.
    pub fn acts(&self) -> bool {
        self.enabled().any(|rule| {
            matches!(
                rule.expiration,
                Some(Expiration::Days(_) | Expiration::Date(_) | Expiration::Markers(true))
            ) || rule.noncurrent.is_some()
                || rule.abort_days.is_some()
        })
    }

    /// Whether any rule in force looks at versions that were replaced.
    pub fn acts_on_noncurrent(&self) -> bool {
        self.enabled().any(|rule| rule.noncurrent.is_some())
    }

    /// What every key begins with that a rule in force may be about.
    pub fn common_prefix(&self) -> &str {
        let mut prefixes = self
            .enabled()
            .map(|rule| rule.filter.prefix.as_deref().unwrap_or_default());
        let first = prefixes.next().unwrap_or_default();
        prefixes.fold(first, |common, prefix| {
            let shared = common
                .char_indices()
                .zip(prefix.chars())
                .take_while(|((_, a), b)| a == b)
                .last()
                .map_or(0, |((at, a), _)| at + a.len_utf8());
            &common[..shared]
        })
    }

    /// When a current version expires, and by which rule. The earliest of several rules wins.
    pub fn expiry(&self, subject: &Subject<'_>, calendar: Calendar) -> Option<Due<'_>> {
        earliest(self.enabled().filter_map(|rule| {
            let at = match rule.expiration? {
                Expiration::Days(days) => calendar.after(subject.modified, days),
                Expiration::Date(date) => date,
                Expiration::Markers(_) => return None,
            };
            rule.filter
                .matches(subject)
                .then_some(Due { at, rule: &rule.id })
        }))
    }

    /// When a delete marker goes that no version is left behind.
    pub fn marker_expiry(
        &self,
        key: &str,
        modified: Millis,
        calendar: Calendar,
    ) -> Option<Due<'_>> {
        earliest(self.enabled().filter_map(|rule| {
            let at = match rule.expiration? {
                Expiration::Days(days) => calendar.after(modified, days),
                Expiration::Date(date) => date,
                Expiration::Markers(true) => modified,
                Expiration::Markers(false) => return None,
            };
            let is_meant = rule.filter.covers(key) && rule.filter.is_prefix();
            is_meant.then_some(Due { at, rule: &rule.id })
        }))
    }

    /// When a version that was replaced at `since` goes. `newer` versions that were replaced too are younger.
    pub fn noncurrent_expiry(
        &self,
        subject: &Subject<'_>,
        since: Millis,
        newer: u32,
        calendar: Calendar,
    ) -> Option<Due<'_>> {
        earliest(self.enabled().filter_map(|rule| {
            let noncurrent = rule.noncurrent?;
            let is_meant = newer >= noncurrent.keep.unwrap_or(0) && rule.filter.matches(subject);
            is_meant.then(|| Due {
                at: calendar.after(since, noncurrent.days),
                rule: &rule.id,
            })
        }))
    }

    /// When an upload that is not completed is aborted.
    pub fn abort(&self, key: &str, initiated: Millis, calendar: Calendar) -> Option<Due<'_>> {
        earliest(self.enabled().filter_map(|rule| {
            let days = rule.abort_days?;
            rule.filter.covers(key).then(|| Due {
                at: calendar.after(initiated, days),
                rule: &rule.id,
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: Calendar = Calendar { day: DAY };
    const SHORT: Calendar = Calendar { day: 10_000 };

    fn rule(id: &str) -> Rule {
        Rule {
            id: id.to_owned(),
            enabled: true,
            filter: Filter::default(),
            expiration: None,
            noncurrent: None,
            abort_days: None,
            transitions: Vec::new(),
            noncurrent_transitions: Vec::new(),
        }
    }

    fn expiring(id: &str, expiration: Expiration, prefix: &str) -> Rule {
        Rule {
            expiration: Some(expiration),
            filter: Filter {
                prefix: Some(prefix.to_owned()),
                ..Filter::default()
            },
            ..rule(id)
        }
    }

    fn of(rules: Vec<Rule>) -> Lifecycle {
        Lifecycle {
            rules,
            minimum_size: None,
        }
    }

    fn subject(key: &str) -> Subject<'_> {
        Subject {
            key,
            size: 100,
            tags: &[],
            modified: 0,
        }
    }

    #[test]
    fn days_end_at_the_next_midnight_and_short_days_at_once() {
        for (since, days, at) in [
            (0, 1, DAY),
            (1, 1, 2 * DAY),
            (DAY - 1, 1, 2 * DAY),
            (DAY, 1, 2 * DAY),
            (DAY + 1, 30, 32 * DAY),
        ] {
            assert_eq!(REAL.after(since, days), at, "{since} {days}");
        }
        assert_eq!(SHORT.after(3, 2), 20_003);
        assert!(REAL.after(i64::MAX, u32::MAX) > 0);
    }

    #[test]
    fn the_earliest_rule_in_force_wins() {
        let mut off = expiring("off", Expiration::Days(1), "");
        off.enabled = false;
        let rules = of(vec![
            off,
            expiring("other", Expiration::Days(1), "x/"),
            expiring("late", Expiration::Days(9), "a/"),
            expiring("soon", Expiration::Days(3), "a/b"),
            expiring("date", Expiration::Date(5 * DAY), "a/"),
            expiring("markers", Expiration::Markers(true), "a/"),
        ]);
        let due = |key| {
            rules
                .expiry(&subject(key), REAL)
                .map(|due| (due.at, due.rule))
        };
        assert_eq!(due("a/bc"), Some((3 * DAY, "soon")));
        assert_eq!(due("a/c"), Some((5 * DAY, "date")));
        assert_eq!(due("b"), None);
    }

    #[test]
    fn only_what_all_prefixes_share_is_looked_at() {
        let of_prefixes = |prefixes: &[&str]| {
            let rules = prefixes
                .iter()
                .map(|prefix| expiring(prefix, Expiration::Days(1), prefix));
            of(rules.collect()).common_prefix().to_owned()
        };
        assert_eq!(of_prefixes(&["logs/a", "logs/b"]), "logs/");
        assert_eq!(of_prefixes(&["é/1", "è/1"]), "");
        assert_eq!(of_prefixes(&["a/é", "a/é/x"]), "a/é");
        assert_eq!(of_prefixes(&["a", ""]), "");
        assert_eq!(of(vec![rule("all")]).common_prefix(), "");
    }

    #[test]
    fn all_conditions_of_a_filter_must_hold() {
        let tag = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let tags = [tag("a", "1"), tag("b", "2")];
        let full = Filter {
            form: FilterForm::And,
            prefix: Some("p/".to_owned()),
            tags: vec![tag("b", "2")],
            larger_than: Some(99),
            smaller_than: Some(101),
        };
        let good = Subject {
            tags: &tags,
            ..subject("p/k")
        };
        assert!(full.matches(&good));
        for bad in [
            Subject { key: "q/k", ..good },
            Subject { size: 99, ..good },
            Subject { size: 101, ..good },
            Subject {
                tags: &tags[..1],
                ..good
            },
        ] {
            assert!(!full.matches(&bad), "{bad:?}");
        }
        assert!(Filter::default().matches(&good));
    }

    #[test]
    fn a_marker_goes_when_nothing_is_behind_it_by_either_kind_of_rule() {
        let rules = of(vec![
            expiring("now", Expiration::Markers(true), "m/"),
            expiring("no", Expiration::Markers(false), "n/"),
            expiring("days", Expiration::Days(2), "d/"),
            Rule {
                filter: Filter {
                    tags: vec![("a".to_owned(), "1".to_owned())],
                    ..Filter::default()
                },
                ..expiring("tagged", Expiration::Days(1), "")
            },
        ]);
        let due = |key| {
            rules
                .marker_expiry(key, 7, SHORT)
                .map(|due| (due.at, due.rule))
        };
        assert_eq!(due("m/k"), Some((7, "now")));
        assert_eq!(due("n/k"), None);
        assert_eq!(due("d/k"), Some((20_007, "days")));
        assert_eq!(due("k"), None);
    }

    #[test]
    fn the_newest_replaced_versions_are_kept() {
        let mut keeping = rule("keep");
        keeping.noncurrent = Some(Noncurrent {
            days: 1,
            keep: Some(2),
        });
        let rules = of(vec![keeping]);
        let due = |newer| rules.noncurrent_expiry(&subject("k"), 5, newer, SHORT);
        assert_eq!(due(0), None);
        assert_eq!(due(1), None);
        assert_eq!(due(2).map(|due| due.at), Some(10_005));
        assert!(rules.acts_on_noncurrent());
    }

    #[test]
    fn uploads_are_aborted_by_prefix_and_age() {
        let mut aborting = expiring("abort", Expiration::Markers(false), "u/");
        aborting.abort_days = Some(2);
        let rules = of(vec![aborting]);
        let due = rules.abort("u/1", 1, REAL).map(|due| (due.at, due.rule));
        assert_eq!(due, Some((3 * DAY, "abort")));
        assert_eq!(rules.abort("v/1", 1, REAL), None);
    }

    #[test]
    fn a_rule_that_only_moves_does_nothing() {
        let mut moving = rule("move");
        moving.transitions = vec![Transition {
            when: When::Days(30),
            class: "GLACIER".to_owned(),
        }];
        assert!(!of(vec![moving]).acts());
        assert!(!of(vec![expiring("no", Expiration::Markers(false), "")]).acts());
        assert!(of(vec![expiring("yes", Expiration::Markers(true), "")]).acts());
    }
}
