//! Object lock: what a bucket's new versions get, and what keeps a version.

use std::sync::Arc;

use http::HeaderMap;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::access::{Caller, Named};
use super::convert;
use super::{Gateway, error};
use crate::auth::Action;
use crate::model::bucket::{Bucket, DefaultRetention as Default, RetentionPeriod, Versioning};
use crate::model::clock::{Millis, iso8601};
use crate::model::notification::Origin;
use crate::model::object::{Lock, Retention, RetentionMode, Version};
use crate::namespace::{ChangeRequest, Condition, VersionChange};

/// Longest default retention ("Object Lock considerations").
const DAYS_MAX: u32 = 36_500;
const YEARS_MAX: u32 = 100;

/// S3's name of a mode.
pub(super) fn mode_name(mode: RetentionMode) -> &'static str {
    match mode {
        RetentionMode::Governance => "GOVERNANCE",
        RetentionMode::Compliance => "COMPLIANCE",
    }
}

fn mode_of(name: &str) -> Option<RetentionMode> {
    [RetentionMode::Governance, RetentionMode::Compliance]
        .into_iter()
        .find(|mode| mode_name(*mode) == name)
}

/// S3's name of a legal hold that is set or not.
pub(super) fn hold_name(hold: bool) -> &'static str {
    if hold { "ON" } else { "OFF" }
}

fn hold_of(name: &str) -> Option<bool> {
    match name {
        "ON" => Some(true),
        "OFF" => Some(false),
        _ => None,
    }
}

/// Whether a request wants to pass over governance; that it may is asked before.
pub(super) fn bypasses_governance(headers: &HeaderMap) -> bool {
    headers
        .get("x-amz-bypass-governance-retention")
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

/// The lock that the headers of a write ask for.
pub(super) fn of_headers(headers: &HeaderMap, now: Millis) -> S3Result<Lock> {
    let mode = convert::header(headers, "x-amz-object-lock-mode")?;
    let until = convert::header(headers, "x-amz-object-lock-retain-until-date")?;
    let hold = convert::header(headers, "x-amz-object-lock-legal-hold")?;
    let retention = match (mode, until) {
        (None, None) => None,
        (Some(mode), Some(until)) => {
            let mode = mode_of(mode)
                .ok_or_else(|| error::invalid_argument("Unknown wormMode directive."))?;
            let until = Timestamp::parse(TimestampFormat::DateTime, until).map_err(|_| {
                error::invalid_argument("The retain until date must be provided in ISO 8601 format")
            })?;
            let until = convert::millis(&until);
            check_future(until, now)?;
            Some(Retention { mode, until })
        }
        _ => {
            return Err(error::invalid_argument(
                "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied",
            ));
        }
    };
    let legal_hold = hold
        .map(|hold| {
            hold_of(hold)
                .ok_or_else(|| error::invalid_argument("Legal Hold must be either of ON or OFF"))
        })
        .transpose()?;
    Ok(Lock {
        retention,
        legal_hold,
    })
}

/// The condition keys that a retention in a document gives values to.
fn values_of(retention: Option<Retention>, now: Millis) -> Vec<(String, Vec<String>)> {
    let Some(retention) = retention else {
        return Vec::new();
    };
    let days = (retention.until - now).max(0) / 86_400_000;
    let value = |name: &str, value: String| (format!("s3:object-lock-{name}"), vec![value]);
    vec![
        value("mode", mode_name(retention.mode).to_owned()),
        value("retain-until-date", iso8601(retention.until)),
        value("remaining-retention-days", days.to_string()),
    ]
}

fn check_future(until: Millis, now: Millis) -> S3Result<()> {
    if until > now {
        Ok(())
    } else {
        Err(error::invalid_argument(
            "The retain until date must be in the future!",
        ))
    }
}

fn check_bucket(bucket: &Bucket) -> S3Result<()> {
    if bucket.object_lock {
        Ok(())
    } else {
        Err(error::of_condition(Condition::NoObjectLock))
    }
}

/// The default retention a document asks for.
fn default_of(rule: ObjectLockRule) -> S3Result<Option<Default>> {
    let Some(retention) = rule.default_retention else {
        return Err(error::malformed_xml());
    };
    let mode = retention
        .mode
        .as_ref()
        .and_then(|mode| mode_of(mode.as_str()));
    let mode = mode.ok_or_else(error::malformed_xml)?;
    let length = |given: i32, most: u32| {
        u32::try_from(given)
            .ok()
            .filter(|given| (1..=most).contains(given))
            .ok_or_else(|| {
                error::custom(
                    "InvalidRetentionPeriod",
                    400,
                    "Default retention period must be a positive integer value of at most 100 years.",
                )
            })
    };
    let period = match (retention.days, retention.years) {
        (Some(days), None) => RetentionPeriod::Days(length(days, DAYS_MAX)?),
        (None, Some(years)) => RetentionPeriod::Years(length(years, YEARS_MAX)?),
        _ => return Err(error::malformed_xml()),
    };
    Ok(Some(Default { mode, period }))
}

fn no_lock() -> s3s::S3Error {
    error::custom(
        "NoSuchObjectLockConfiguration",
        404,
        "The specified object does not have a ObjectLock configuration",
    )
}

impl Gateway {
    pub(super) async fn put_object_lock_configuration(
        &self,
        request: S3Request<PutObjectLockConfigurationInput>,
    ) -> S3Result<S3Response<PutObjectLockConfigurationOutput>> {
        let caller = Caller::of(&request)?.clone();
        let configuration = request.input.object_lock_configuration;
        let configuration = configuration.ok_or_else(error::malformed_xml)?;
        let enabled = configuration.object_lock_enabled;
        if enabled.is_none_or(|enabled| enabled.as_str() != ObjectLockEnabled::ENABLED) {
            return Err(error::malformed_xml());
        }
        let default = match configuration.rule {
            Some(rule) => default_of(rule)?,
            None => None,
        };
        let bucket = caller.bucket()?;
        if bucket.versioning != Versioning::Enabled {
            return Err(s3_error!(
                InvalidBucketState,
                "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration"
            ));
        }
        self.namespace
            .update_bucket(bucket, Some(caller.recheck(self)), move |bucket| {
                if bucket.versioning != Versioning::Enabled {
                    return Err(Condition::NoObjectLock);
                }
                bucket.object_lock = true;
                bucket.settings.default_retention = default;
                Ok(())
            })
            .await
            .map_err(error::of_condition)?;
        Ok(S3Response::new(PutObjectLockConfigurationOutput::default()))
    }

    pub(super) async fn get_object_lock_configuration(
        &self,
        request: S3Request<GetObjectLockConfigurationInput>,
    ) -> S3Result<S3Response<GetObjectLockConfigurationOutput>> {
        let bucket = Caller::of(&request)?.bucket()?;
        if !bucket.object_lock {
            return Err(error::custom(
                "ObjectLockConfigurationNotFoundError",
                404,
                "Object Lock configuration does not exist for this bucket",
            ));
        }
        let rule = bucket.settings.default_retention.map(|default| {
            let (days, years) = match default.period {
                RetentionPeriod::Days(days) => (Some(days as i32), None),
                RetentionPeriod::Years(years) => (None, Some(years as i32)),
            };
            ObjectLockRule {
                default_retention: Some(DefaultRetention {
                    mode: Some(ObjectLockRetentionMode::from_static(mode_name(
                        default.mode,
                    ))),
                    days,
                    years,
                }),
            }
        });
        Ok(S3Response::new(GetObjectLockConfigurationOutput {
            object_lock_configuration: Some(ObjectLockConfiguration {
                object_lock_enabled: Some(ObjectLockEnabled::from_static(
                    ObjectLockEnabled::ENABLED,
                )),
                rule,
            }),
        }))
    }

    pub(super) async fn put_object_retention(
        &self,
        request: S3Request<PutObjectRetentionInput>,
    ) -> S3Result<S3Response<PutObjectRetentionOutput>> {
        let caller = Caller::of(&request)?.clone();
        let bypass_governance = bypasses_governance(&request.headers);
        let input = request.input;
        let bucket = caller.bucket()?;
        check_bucket(bucket)?;
        let wanted = input.retention.ok_or_else(error::malformed_xml)?;
        let retention = match (wanted.mode, wanted.retain_until_date) {
            (None, None) => None,
            (Some(mode), Some(until)) => {
                let mode = mode_of(mode.as_str()).ok_or_else(error::malformed_xml)?;
                let until = convert::millis(&until);
                check_future(until, self.namespace.now())?;
                Some(Retention { mode, until })
            }
            _ => return Err(error::malformed_xml()),
        };
        let named = Named {
            key: &input.key,
            version: input.version_id.as_deref(),
        };
        let values = values_of(retention, self.namespace.now());
        let mut actions = vec![Action::PutObjectRetention];
        if bypass_governance {
            actions.push(Action::BypassGovernanceRetention);
        }
        let change = VersionChange::Retention {
            retention,
            bypass_governance,
        };
        self.change_lock(&caller, named, change, values, &actions)
            .await?;
        Ok(S3Response::new(PutObjectRetentionOutput::default()))
    }

    pub(super) async fn get_object_retention(
        &self,
        request: S3Request<GetObjectRetentionInput>,
    ) -> S3Result<S3Response<GetObjectRetentionOutput>> {
        let caller = Caller::of(&request)?;
        let input = &request.input;
        let version = self
            .lockable(caller, &input.key, input.version_id.as_deref())
            .await?;
        let retention = version.lock.retention.ok_or_else(no_lock)?;
        Ok(S3Response::new(GetObjectRetentionOutput {
            retention: Some(ObjectLockRetention {
                mode: Some(ObjectLockRetentionMode::from_static(mode_name(
                    retention.mode,
                ))),
                retain_until_date: Some(convert::timestamp(retention.until)),
            }),
        }))
    }

    pub(super) async fn put_object_legal_hold(
        &self,
        request: S3Request<PutObjectLegalHoldInput>,
    ) -> S3Result<S3Response<PutObjectLegalHoldOutput>> {
        let caller = Caller::of(&request)?.clone();
        let input = request.input;
        let bucket = caller.bucket()?;
        check_bucket(bucket)?;
        let hold = input
            .legal_hold
            .and_then(|hold| hold.status)
            .and_then(|status| hold_of(status.as_str()))
            .ok_or_else(error::malformed_xml)?;
        let named = Named {
            key: &input.key,
            version: input.version_id.as_deref(),
        };
        let values = vec![(
            "s3:object-lock-legal-hold".to_owned(),
            vec![hold_name(hold).to_owned()],
        )];
        let actions = [Action::PutObjectLegalHold];
        let change = VersionChange::LegalHold(hold);
        self.change_lock(&caller, named, change, values, &actions)
            .await?;
        Ok(S3Response::new(PutObjectLegalHoldOutput::default()))
    }

    pub(super) async fn get_object_legal_hold(
        &self,
        request: S3Request<GetObjectLegalHoldInput>,
    ) -> S3Result<S3Response<GetObjectLegalHoldOutput>> {
        let caller = Caller::of(&request)?;
        let input = &request.input;
        let version = self
            .lockable(caller, &input.key, input.version_id.as_deref())
            .await?;
        let hold = version.lock.legal_hold.ok_or_else(no_lock)?;
        Ok(S3Response::new(GetObjectLegalHoldOutput {
            legal_hold: Some(ObjectLockLegalHold {
                status: Some(ObjectLockLegalHoldStatus::from_static(hold_name(hold))),
            }),
        }))
    }

    /// Changes what keeps a version, by who may do all of `actions` with what the document says.
    async fn change_lock(
        &self,
        caller: &Caller,
        named: Named<'_>,
        change: VersionChange,
        values: Vec<(String, Vec<String>)>,
        actions: &[Action],
    ) -> S3Result<()> {
        let recheck = self.ask_document(caller, values, actions, named).await?;
        self.namespace
            .change(ChangeRequest {
                bucket: Arc::clone(caller.bucket()?),
                origin: Origin::default(),
                key: convert::object_key(named.key)?,
                version: convert::version_id(named.version)?,
                change,
                recheck: Some(recheck),
            })
            .await
            .map_err(error::of_condition)?;
        Ok(())
    }

    /// A version in a bucket whose versions can be locked.
    async fn lockable(&self, caller: &Caller, key: &str, id: Option<&str>) -> S3Result<Version> {
        let bucket = caller.bucket()?;
        check_bucket(bucket)?;
        let (key, id) = (convert::object_key(key)?, convert::version_id(id)?);
        self.namespace
            .head(bucket, &key, id)
            .await
            .map_err(|condition| self.not_found(caller, bucket, key.as_str(), condition))
    }
}
