//! Lifecycle rules of a bucket, and the headers that tell what they will do.

use std::collections::HashSet;
use std::fmt::Write as _;

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::access::Caller;
use super::body::DocumentDigests;
use super::convert;
use super::{Gateway, error};
use crate::model::bucket::Bucket;
use crate::model::clock::Millis;
use crate::model::lifecycle::{
    self as rules, DAY, Due, Expiration, Filter, FilterForm, Lifecycle, Noncurrent, Rule, Subject,
    When,
};
use crate::model::names::ObjectKey as Key;
use crate::model::object::{Version, VersionId};
use crate::namespace::Written;

/// Most rules of a bucket.
const RULES_MAX: usize = 1000;
/// Most characters of a rule's id.
const ID_MAX: usize = 255;
/// Most noncurrent versions that a rule keeps.
const KEEP_MAX: i32 = 100;
/// Days an object must be old before it moves to a class for infrequent access.
const INFREQUENT_DAYS: u32 = 30;
/// What S3 answers as the smallest object that is moved, unless it was told another.
const MINIMUM_SIZE: &str = "all_storage_classes_128K";

/// A number of days that must be positive; `what` is how S3 names it.
fn days(days: Option<i32>, what: &str) -> S3Result<u32> {
    let days = days.ok_or_else(error::malformed_xml)?;
    u32::try_from(days)
        .ok()
        .filter(|&days| days > 0)
        .ok_or_else(|| s3_error!(InvalidArgument, "{what} must be a positive integer"))
}

fn midnight(date: &Timestamp) -> S3Result<Millis> {
    let date = convert::millis(date);
    match date.rem_euclid(DAY) {
        0 => Ok(date),
        _ => Err(s3_error!(InvalidArgument, "'Date' must be at midnight GMT")),
    }
}

fn size(bound: Option<i64>) -> S3Result<Option<u64>> {
    bound
        .map(|bound| {
            u64::try_from(bound).map_err(|_| {
                s3_error!(
                    InvalidArgument,
                    "'ObjectSizeGreaterThan' and 'ObjectSizeLessThan' must not be negative"
                )
            })
        })
        .transpose()
}

fn tag(tag: Tag) -> S3Result<(String, String)> {
    let key = tag.key.filter(|key| !key.is_empty());
    Ok((
        key.ok_or_else(error::malformed_xml)?,
        tag.value.unwrap_or_default(),
    ))
}

fn filter(prefix: Option<String>, given: Option<LifecycleRuleFilter>) -> S3Result<Filter> {
    let given = match (prefix, given) {
        (Some(prefix), None) => {
            return Ok(Filter {
                form: FilterForm::Legacy,
                prefix: Some(prefix),
                ..Filter::default()
            });
        }
        (None, Some(given)) => given,
        (Some(_), Some(_)) => {
            return Err(s3_error!(
                InvalidRequest,
                "Base level prefix cannot be used in Lifecycle V2, prefixes are only supported in the Filter."
            ));
        }
        (None, None) => return Err(error::malformed_xml()),
    };
    // An empty prefix says nothing, and clients send it beside other conditions.
    let conditions = [
        given
            .prefix
            .as_deref()
            .is_some_and(|prefix| !prefix.is_empty()),
        given.tag.is_some(),
        given.object_size_greater_than.is_some(),
        given.object_size_less_than.is_some(),
        given.and.is_some(),
    ];
    if conditions.iter().filter(|given| **given).count() > 1 {
        return Err(error::malformed_xml());
    }
    let filter = match given.and {
        None => Filter {
            form: FilterForm::Plain,
            prefix: given.prefix,
            tags: given.tag.map(tag).transpose()?.into_iter().collect(),
            larger_than: size(given.object_size_greater_than)?,
            smaller_than: size(given.object_size_less_than)?,
        },
        Some(and) => {
            let tags = and.tags.unwrap_or_default().into_iter().map(tag);
            Filter {
                form: FilterForm::And,
                prefix: and.prefix,
                tags: tags.collect::<S3Result<_>>()?,
                larger_than: size(and.object_size_greater_than)?,
                smaller_than: size(and.object_size_less_than)?,
            }
        }
    };
    let names: HashSet<&str> = filter.tags.iter().map(|(name, _)| name.as_str()).collect();
    if names.len() < filter.tags.len() {
        return Err(s3_error!(
            InvalidRequest,
            "Duplicate Tag Keys are not allowed."
        ));
    }
    if let (Some(larger), Some(smaller)) = (filter.larger_than, filter.smaller_than)
        && larger >= smaller
    {
        return Err(s3_error!(
            InvalidRequest,
            "'ObjectSizeLessThan' has to be a value greater than 'ObjectSizeGreaterThan'"
        ));
    }
    Ok(filter)
}

fn expiration(given: LifecycleExpiration) -> S3Result<Expiration> {
    match (given.days, given.date, given.expired_object_delete_marker) {
        (Some(number), None, None) => {
            days(Some(number), "'Days' for Expiration action").map(Expiration::Days)
        }
        (None, Some(date), None) => midnight(&date).map(Expiration::Date),
        (None, None, Some(markers)) => Ok(Expiration::Markers(markers)),
        _ => Err(error::malformed_xml()),
    }
}

fn noncurrent(given: NoncurrentVersionExpiration) -> S3Result<Noncurrent> {
    Ok(Noncurrent {
        days: days(
            given.noncurrent_days,
            "'NoncurrentDays' for NoncurrentVersionExpiration action",
        )?,
        keep: keep(
            given.newer_noncurrent_versions,
            "NoncurrentVersionExpiration",
        )?,
    })
}

fn keep(number: Option<i32>, action: &str) -> S3Result<Option<u32>> {
    number
        .map(|number| {
            u32::try_from(number)
                .ok()
                .filter(|_| (1..=KEEP_MAX).contains(&number))
                .ok_or_else(|| {
                    s3_error!(
                        InvalidArgument,
                        "'NewerNoncurrentVersions' for {action} action must be a positive integer not greater than {KEEP_MAX}"
                    )
                })
        })
        .transpose()
}

/// The class that objects move to, and the fewest days before they may.
fn class(class: Option<TransitionStorageClass>) -> S3Result<(String, u32)> {
    let class = class.ok_or_else(error::malformed_xml)?;
    match class.as_str() {
        "STANDARD_IA" | "ONEZONE_IA" => Ok((class.as_str().to_owned(), INFREQUENT_DAYS)),
        "INTELLIGENT_TIERING" | "GLACIER" | "GLACIER_IR" | "DEEP_ARCHIVE" => {
            Ok((class.as_str().to_owned(), 0))
        }
        _ => Err(error::malformed_xml()),
    }
}

fn transition_days(days: i32, least: u32, class: &str, action: &str) -> S3Result<u32> {
    let days = u32::try_from(days).map_err(|_| {
        s3_error!(
            InvalidArgument,
            "'Days' in {action} action must be nonnegative"
        )
    })?;
    if days < least {
        return Err(s3_error!(
            InvalidArgument,
            "'Days' in {action} action must be greater than or equal to {least} for storageClass '{class}'"
        ));
    }
    Ok(days)
}

fn transition(given: Transition) -> S3Result<rules::Transition> {
    let (class, least) = class(given.storage_class)?;
    let when = match (given.days, given.date) {
        (Some(days), None) => When::Days(transition_days(days, least, &class, "Transition")?),
        (None, Some(date)) => When::Date(midnight(&date)?),
        _ => return Err(error::malformed_xml()),
    };
    Ok(rules::Transition { when, class })
}

fn noncurrent_transition(
    given: NoncurrentVersionTransition,
) -> S3Result<rules::NoncurrentTransition> {
    const ACTION: &str = "NoncurrentVersionTransition";
    let (class, least) = class(given.storage_class)?;
    let days = given.noncurrent_days.ok_or_else(error::malformed_xml)?;
    Ok(rules::NoncurrentTransition {
        when: Noncurrent {
            days: transition_days(days, least, &class, ACTION)?,
            keep: keep(given.newer_noncurrent_versions, ACTION)?,
        },
        class,
    })
}

fn rule(given: LifecycleRule, new_id: impl FnOnce() -> S3Result<String>) -> S3Result<Rule> {
    let id = match given.id.filter(|id| !id.is_empty()) {
        Some(id) if id.chars().count() > ID_MAX => {
            return Err(s3_error!(
                InvalidArgument,
                "ID length should not exceed allowed limit of {ID_MAX}"
            ));
        }
        Some(id) => id,
        None => new_id()?,
    };
    let enabled = match given.status.as_str() {
        "Enabled" => true,
        "Disabled" => false,
        _ => return Err(error::malformed_xml()),
    };
    let transitions = given.transitions.unwrap_or_default().into_iter();
    let noncurrent_transitions = given
        .noncurrent_version_transitions
        .unwrap_or_default()
        .into_iter();
    let rule = Rule {
        id,
        enabled,
        filter: filter(given.prefix, given.filter)?,
        expiration: given.expiration.map(expiration).transpose()?,
        noncurrent: given
            .noncurrent_version_expiration
            .map(noncurrent)
            .transpose()?,
        abort_days: given
            .abort_incomplete_multipart_upload
            .map(|abort| {
                days(
                    abort.days_after_initiation,
                    "'DaysAfterInitiation' for AbortIncompleteMultipartUpload action",
                )
            })
            .transpose()?,
        transitions: transitions.map(transition).collect::<S3Result<_>>()?,
        noncurrent_transitions: noncurrent_transitions
            .map(noncurrent_transition)
            .collect::<S3Result<_>>()?,
    };
    check_actions(&rule)?;
    Ok(rule)
}

/// What actions a filter may stand before, and that there is one.
fn check_actions(rule: &Rule) -> S3Result<()> {
    let refuse = |action: &str, with: &str| {
        Err(s3_error!(
            InvalidRequest,
            "{action} cannot be specified with {with}."
        ))
    };
    let tagged = !rule.filter.tags.is_empty();
    let sized = rule.filter.larger_than.is_some() || rule.filter.smaller_than.is_some();
    let markers = matches!(rule.expiration, Some(Expiration::Markers(_)));
    let aborts = rule.abort_days.is_some();
    match (tagged, sized) {
        (true, _) if markers => return refuse("ExpiredObjectDeleteMarker", "Tags"),
        (true, _) if aborts => return refuse("AbortIncompleteMultipartUpload", "Tags"),
        (_, true) if markers => return refuse("ExpiredObjectDeleteMarker", "Object Size"),
        (_, true) if aborts => return refuse("AbortIncompleteMultipartUpload", "Object Size"),
        _ => {}
    }
    let acts = rule.expiration.is_some()
        || rule.noncurrent.is_some()
        || aborts
        || !rule.transitions.is_empty()
        || !rule.noncurrent_transitions.is_empty();
    if !acts {
        return Err(s3_error!(
            InvalidRequest,
            "At least one action needs to be specified in a rule."
        ));
    }
    Ok(())
}

/// The rules of a document, checked.
fn lifecycle(
    given: BucketLifecycleConfiguration,
    minimum_size: Option<String>,
    new_id: impl Fn() -> S3Result<String>,
) -> S3Result<Lifecycle> {
    if given.rules.is_empty() {
        return Err(error::malformed_xml());
    }
    if given.rules.len() > RULES_MAX {
        return Err(s3_error!(
            InvalidRequest,
            "The number of lifecycle rules must not exceed the allowed limit of {RULES_MAX} rules"
        ));
    }
    let rules: Vec<Rule> = given
        .rules
        .into_iter()
        .map(|given| rule(given, &new_id))
        .collect::<S3Result<_>>()?;
    let ids: HashSet<&str> = rules.iter().map(|rule| rule.id.as_str()).collect();
    if ids.len() < rules.len() {
        return Err(s3_error!(
            InvalidArgument,
            "Rule ID must be unique. Found same ID for more than one rule"
        ));
    }
    let is_legacy = |rule: &Rule| rule.filter.form == FilterForm::Legacy;
    if rules.iter().any(is_legacy) && !rules.iter().all(is_legacy) {
        return Err(s3_error!(
            InvalidRequest,
            "Base level prefix cannot be used in Lifecycle V2, prefixes are only supported in the Filter."
        ));
    }
    Ok(Lifecycle {
        rules,
        minimum_size,
    })
}

fn days_out(days: u32) -> Option<i32> {
    i32::try_from(days).ok()
}

fn size_out(bound: Option<u64>) -> Option<i64> {
    bound.and_then(|bound| i64::try_from(bound).ok())
}

fn filter_out(filter: &Filter) -> (Option<String>, Option<LifecycleRuleFilter>) {
    let mut tags = filter.tags.iter().map(|(key, value)| Tag {
        key: Some(key.clone()),
        value: Some(value.clone()),
    });
    let (larger, smaller) = (size_out(filter.larger_than), size_out(filter.smaller_than));
    match filter.form {
        FilterForm::Legacy => (filter.prefix.clone(), None),
        FilterForm::Plain => {
            let given = LifecycleRuleFilter {
                prefix: filter.prefix.clone(),
                tag: tags.next(),
                object_size_greater_than: larger,
                object_size_less_than: smaller,
                ..LifecycleRuleFilter::default()
            };
            (None, Some(given))
        }
        FilterForm::And => {
            let and = LifecycleRuleAndOperator {
                prefix: filter.prefix.clone(),
                tags: (!filter.tags.is_empty()).then(|| tags.collect()),
                object_size_greater_than: larger,
                object_size_less_than: smaller,
            };
            let given = LifecycleRuleFilter {
                and: Some(and),
                ..LifecycleRuleFilter::default()
            };
            (None, Some(given))
        }
    }
}

fn rule_out(rule: &Rule) -> LifecycleRule {
    let (prefix, filter) = filter_out(&rule.filter);
    let expiration = rule.expiration.map(|expiration| {
        let mut out = LifecycleExpiration::default();
        match expiration {
            Expiration::Days(days) => out.days = days_out(days),
            Expiration::Date(date) => out.date = Some(convert::timestamp(date)),
            Expiration::Markers(markers) => out.expired_object_delete_marker = Some(markers),
        }
        out
    });
    let transitions = rule.transitions.iter().map(|transition| {
        let (days, date) = match transition.when {
            When::Days(days) => (days_out(days), None),
            When::Date(date) => (None, Some(convert::timestamp(date))),
        };
        Transition {
            days,
            date,
            storage_class: Some(transition.class.clone().into()),
        }
    });
    let noncurrent_transitions =
        rule.noncurrent_transitions
            .iter()
            .map(|transition| NoncurrentVersionTransition {
                noncurrent_days: days_out(transition.when.days),
                newer_noncurrent_versions: transition.when.keep.and_then(days_out),
                storage_class: Some(transition.class.clone().into()),
            });
    LifecycleRule {
        id: Some(rule.id.clone()),
        status: ExpirationStatus::from_static(match rule.enabled {
            true => ExpirationStatus::ENABLED,
            false => ExpirationStatus::DISABLED,
        }),
        prefix,
        filter,
        expiration,
        noncurrent_version_expiration: rule.noncurrent.map(|noncurrent| {
            NoncurrentVersionExpiration {
                noncurrent_days: days_out(noncurrent.days),
                newer_noncurrent_versions: noncurrent.keep.and_then(days_out),
            }
        }),
        abort_incomplete_multipart_upload: rule.abort_days.map(|days| {
            AbortIncompleteMultipartUpload {
                days_after_initiation: days_out(days),
            }
        }),
        transitions: (!rule.transitions.is_empty()).then(|| transitions.collect()),
        noncurrent_version_transitions: (!rule.noncurrent_transitions.is_empty())
            .then(|| noncurrent_transitions.collect()),
    }
}

fn no_configuration() -> s3s::S3Error {
    s3_error!(
        NoSuchLifecycleConfiguration,
        "The lifecycle configuration does not exist"
    )
}

/// `x-amz-expiration`: when an object goes, and by which rule.
fn expiration_header(due: Due<'_>) -> Option<String> {
    let date = convert::http_date_header(due.at)?;
    let date = date.to_str().ok()?;
    let mut id = String::with_capacity(due.rule.len());
    for byte in due.rule.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                id.push(char::from(byte));
            }
            _ => {
                let _ = write!(id, "%{byte:02X}");
            }
        }
    }
    Some(format!("expiry-date=\"{date}\", rule-id=\"{id}\""))
}

impl Gateway {
    /// What `x-amz-expiration` says of a version that was just written.
    pub(super) fn expiration_of_written(
        &self,
        bucket: &Bucket,
        key: &str,
        written: &Written,
    ) -> Option<String> {
        let subject = Subject {
            key,
            size: written.size,
            tags: &written.tags.0,
            modified: written.modified,
        };
        self.expiration_of_subject(bucket, &subject)
    }

    /// What `x-amz-expiration` says of a version that was read. Of one that was named it is not known whether it
    /// is the current one.
    pub(super) fn expiration_of(
        &self,
        bucket: &Bucket,
        key: &Key,
        named: Option<VersionId>,
        version: &Version,
    ) -> Option<String> {
        if named.is_some() {
            return None;
        }
        let subject = Subject {
            key: key.as_str(),
            size: version.size,
            tags: &version.tags.0,
            modified: version.modified,
        };
        self.expiration_of_subject(bucket, &subject)
    }

    fn expiration_of_subject(&self, bucket: &Bucket, subject: &Subject<'_>) -> Option<String> {
        let lifecycle = bucket.settings.lifecycle.as_ref()?;
        expiration_header(lifecycle.expiry(subject, self.config.calendar)?)
    }

    /// When an upload is aborted, and the id of the rule that does it.
    pub(super) fn abort_of(
        &self,
        bucket: &Bucket,
        key: &Key,
        initiated: Millis,
    ) -> Option<(Timestamp, String)> {
        let lifecycle = bucket.settings.lifecycle.as_ref()?;
        let due = lifecycle.abort(key.as_str(), initiated, self.config.calendar)?;
        Some((convert::timestamp(due.at), due.rule.to_owned()))
    }

    pub(super) async fn put_bucket_lifecycle_configuration(
        &self,
        request: S3Request<PutBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<PutBucketLifecycleConfigurationOutput>> {
        let caller = Caller::of(&request)?.clone();
        DocumentDigests::check(&request)?;
        let input = request.input;
        let given = input
            .lifecycle_configuration
            .ok_or_else(error::malformed_xml)?;
        let minimum_size = input
            .transition_default_minimum_object_size
            .map(|size| size.as_str().to_owned());
        if minimum_size.as_deref().is_some_and(|size| {
            size != MINIMUM_SIZE
                && size != TransitionDefaultMinimumObjectSize::VARIES_BY_STORAGE_CLASS
        }) {
            return Err(error::invalid_argument(
                "The transition default minimum object size is not valid.",
            ));
        }
        let lifecycle = lifecycle(given, minimum_size.clone(), random_id)?;
        self.change_bucket(&caller, move |bucket| {
            bucket.settings.lifecycle = Some(lifecycle.clone());
        })
        .await?;
        Ok(S3Response::new(PutBucketLifecycleConfigurationOutput {
            transition_default_minimum_object_size: Some(
                minimum_size
                    .unwrap_or_else(|| MINIMUM_SIZE.to_owned())
                    .into(),
            ),
        }))
    }

    pub(super) async fn get_bucket_lifecycle_configuration(
        &self,
        request: S3Request<GetBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<GetBucketLifecycleConfigurationOutput>> {
        let bucket = Caller::of(&request)?.bucket()?;
        let lifecycle = bucket.settings.lifecycle.as_ref();
        let lifecycle = lifecycle.ok_or_else(no_configuration)?;
        let minimum_size = lifecycle.minimum_size.as_deref().unwrap_or(MINIMUM_SIZE);
        Ok(S3Response::new(GetBucketLifecycleConfigurationOutput {
            rules: Some(lifecycle.rules.iter().map(rule_out).collect()),
            transition_default_minimum_object_size: Some(minimum_size.to_owned().into()),
        }))
    }

    pub(super) async fn delete_bucket_lifecycle(
        &self,
        request: S3Request<DeleteBucketLifecycleInput>,
    ) -> S3Result<S3Response<DeleteBucketLifecycleOutput>> {
        self.change_bucket(Caller::of(&request)?, |bucket| {
            bucket.settings.lifecycle = None;
        })
        .await?;
        Ok(S3Response::new(DeleteBucketLifecycleOutput::default()))
    }
}

/// An id for a rule or configuration that came without one, in the form S3 gives them.
pub(super) fn random_id() -> S3Result<String> {
    let mut bytes = [0; 18];
    getrandom::fill(&mut bytes).map_err(|_| {
        s3_error!(
            InternalError,
            "We encountered an internal error. Please try again."
        )
    })?;
    use base64::Engine as _;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(id: &str) -> LifecycleRule {
        LifecycleRule {
            id: Some(id.to_owned()),
            status: ExpirationStatus::from_static("Enabled"),
            filter: Some(LifecycleRuleFilter::default()),
            prefix: None,
            expiration: Some(LifecycleExpiration {
                days: Some(1),
                ..LifecycleExpiration::default()
            }),
            noncurrent_version_expiration: None,
            abort_incomplete_multipart_upload: None,
            transitions: None,
            noncurrent_version_transitions: None,
        }
    }

    fn code(rules: Vec<LifecycleRule>) -> String {
        let configuration = BucketLifecycleConfiguration { rules };
        match lifecycle(configuration, None, random_id) {
            Ok(_) => "ok".to_owned(),
            Err(error) => error.code().as_str().to_owned(),
        }
    }

    fn with_expiration(expiration: LifecycleExpiration) -> LifecycleRule {
        LifecycleRule {
            expiration: Some(expiration),
            ..given("r")
        }
    }

    fn with_filter(filter: LifecycleRuleFilter) -> LifecycleRule {
        LifecycleRule {
            filter: Some(filter),
            ..given("r")
        }
    }

    #[test]
    fn rules_are_refused_with_the_codes_of_s3() {
        let tag = || Tag {
            key: Some("k".to_owned()),
            value: Some("v".to_owned()),
        };
        let tagged = || LifecycleRuleFilter {
            tag: Some(tag()),
            ..LifecycleRuleFilter::default()
        };
        let cases: Vec<(&str, Vec<LifecycleRule>)> = vec![
            ("ok", vec![given("a"), given("b")]),
            ("MalformedXML", vec![]),
            ("InvalidArgument", vec![given("a"), given("a")]),
            ("InvalidArgument", vec![given(&"i".repeat(256))]),
            ("ok", vec![given(&"i".repeat(255))]),
            (
                "InvalidRequest",
                (0..1001).map(|n| given(&n.to_string())).collect(),
            ),
            (
                "MalformedXML",
                vec![LifecycleRule {
                    status: ExpirationStatus::from_static("enabled"),
                    ..given("r")
                }],
            ),
            (
                "InvalidArgument",
                vec![with_expiration(LifecycleExpiration {
                    days: Some(0),
                    ..LifecycleExpiration::default()
                })],
            ),
            (
                "InvalidArgument",
                vec![with_expiration(LifecycleExpiration {
                    date: Some(convert::timestamp(DAY + 1)),
                    ..LifecycleExpiration::default()
                })],
            ),
            (
                "MalformedXML",
                vec![with_expiration(LifecycleExpiration {
                    date: Some(convert::timestamp(DAY)),
                    days: Some(1),
                    ..LifecycleExpiration::default()
                })],
            ),
            (
                "InvalidRequest",
                vec![LifecycleRule {
                    filter: Some(tagged()),
                    ..with_expiration(LifecycleExpiration {
                        expired_object_delete_marker: Some(true),
                        ..LifecycleExpiration::default()
                    })
                }],
            ),
            (
                "InvalidRequest",
                vec![LifecycleRule {
                    filter: Some(tagged()),
                    abort_incomplete_multipart_upload: Some(AbortIncompleteMultipartUpload {
                        days_after_initiation: Some(1),
                    }),
                    ..given("r")
                }],
            ),
            (
                "InvalidRequest",
                vec![LifecycleRule {
                    expiration: None,
                    ..given("r")
                }],
            ),
            (
                "MalformedXML",
                vec![with_filter(LifecycleRuleFilter {
                    prefix: Some("p".to_owned()),
                    ..tagged()
                })],
            ),
            (
                "MalformedXML",
                vec![LifecycleRule {
                    filter: None,
                    ..given("r")
                }],
            ),
            (
                "InvalidRequest",
                vec![LifecycleRule {
                    prefix: Some("p".to_owned()),
                    ..given("r")
                }],
            ),
            (
                "InvalidArgument",
                vec![LifecycleRule {
                    transitions: Some(vec![Transition {
                        days: Some(29),
                        date: None,
                        storage_class: Some("STANDARD_IA".to_owned().into()),
                    }]),
                    ..given("r")
                }],
            ),
        ];
        for (expected, rules) in cases {
            let shown = format!("{rules:?}");
            assert_eq!(code(rules), expected, "{shown:.300}");
        }
    }

    #[test]
    fn what_is_answered_is_what_was_given() {
        let tag = |name: &str| Tag {
            key: Some(name.to_owned()),
            value: Some("v".to_owned()),
        };
        let full = LifecycleRule {
            filter: Some(LifecycleRuleFilter {
                and: Some(LifecycleRuleAndOperator {
                    prefix: Some("p/".to_owned()),
                    tags: Some(vec![tag("a"), tag("b")]),
                    object_size_greater_than: Some(5),
                    object_size_less_than: Some(9),
                }),
                ..LifecycleRuleFilter::default()
            }),
            noncurrent_version_expiration: Some(NoncurrentVersionExpiration {
                noncurrent_days: Some(3),
                newer_noncurrent_versions: Some(2),
            }),
            transitions: Some(vec![Transition {
                days: Some(0),
                date: None,
                storage_class: Some("GLACIER".to_owned().into()),
            }]),
            ..given("full")
        };
        let parsed = rule(full.clone(), random_id).unwrap();
        assert_eq!(rule_out(&parsed), full);
    }

    #[test]
    fn the_header_names_date_and_rule() {
        let due = Due {
            at: 15_696 * DAY,
            rule: "my rule/1",
        };
        assert_eq!(
            expiration_header(due).unwrap(),
            "expiry-date=\"Sat, 22 Dec 2012 00:00:00 GMT\", rule-id=\"my%20rule%2F1\""
        );
    }
}
