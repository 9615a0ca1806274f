//! Who is told of what happens in a bucket.

use std::collections::HashSet;
use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::access::Caller;
use super::lifecycle::random_id;
use super::{Gateway, error};
use crate::auth::Identity;
use crate::model::bucket::Bucket;
use crate::model::notification::{self, Arn, Configuration, Kind, Notification, Origin, Side};
use crate::telemetry::RequestContext;

/// Most configurations of a bucket.
const CONFIGURATIONS_MAX: usize = 100;
/// Most characters of a configuration's id.
const ID_MAX: usize = 255;
/// Most bytes of a filter's value.
const VALUE_MAX: usize = 1024;

/// Who sent a request, for those who are told of what it does. Nobody is told while the bucket has no
/// notification, and then nothing is made.
pub(super) fn origin(
    bucket: &Bucket,
    identity: Option<&Identity>,
    context: Option<&RequestContext>,
) -> Origin {
    if bucket.settings.notification.is_none() {
        return Origin::default();
    }
    let address = context.and_then(RequestContext::remote);
    Origin {
        principal: identity.map_or_else(
            || "Anonymous".to_owned(),
            |identity| format!("AWS:{}", identity.access_key),
        ),
        address: address
            .map(|address| address.to_string())
            .unwrap_or_default(),
        request_id: context.map_or_else(String::new, |context| context.id().to_string()),
    }
}

/// [`origin`] of a request that passed the access check.
pub(super) fn origin_of<T>(request: &S3Request<T>) -> S3Result<Origin> {
    let caller = Caller::of(request)?;
    let context = request.extensions.get::<Arc<RequestContext>>();
    Ok(origin(
        caller.bucket()?,
        caller.identity.as_deref(),
        context.map(Arc::as_ref),
    ))
}

/// One configuration of any of the three kinds.
struct Given {
    kind: Kind,
    id: Option<String>,
    arn: String,
    events: Vec<Event>,
    filter: Option<NotificationConfigurationFilter>,
}

/// What a tenant may name as receivers.
struct Receivers<'a> {
    targets: &'a std::collections::BTreeSet<String>,
    region: &'a str,
    tenant: &'a str,
}

impl Receivers<'_> {
    fn check(&self, given: &Given) -> S3Result<()> {
        let arn = Arn::parse(given.kind, &given.arn)
            .ok_or_else(|| error::invalid_argument("The ARN could not be parsed"))?;
        let is_known = arn.region == self.region
            && arn.account == self.tenant
            && self.targets.contains(arn.name);
        if is_known {
            Ok(())
        } else {
            Err(error::invalid_argument(
                "Unable to validate the following destination configurations",
            ))
        }
    }
}

fn filter(given: Option<NotificationConfigurationFilter>) -> S3Result<Vec<(Side, String)>> {
    let rules = given
        .and_then(|filter| filter.key)
        .and_then(|key| key.filter_rules)
        .unwrap_or_default();
    let mut filter: Vec<(Side, String)> = Vec::new();
    for rule in rules {
        let name = rule.name.as_ref().map_or("", FilterRuleName::as_str);
        let (side, twice) = match name.to_ascii_lowercase().as_str() {
            "prefix" => (
                Side::Prefix,
                "Cannot specify more than one prefix rule in a filter.",
            ),
            "suffix" => (
                Side::Suffix,
                "Cannot specify more than one suffix rule in a filter.",
            ),
            _ => {
                return Err(error::invalid_argument(
                    "filter rule name must be either prefix or suffix",
                ));
            }
        };
        if filter.iter().any(|(known, _)| *known == side) {
            return Err(error::invalid_argument(twice));
        }
        let value = rule.value.unwrap_or_default();
        if value.len() > VALUE_MAX {
            return Err(error::invalid_argument(
                "Size of filter rule value cannot exceed 1024 bytes in UTF-8 representation",
            ));
        }
        filter.push((side, value));
    }
    Ok(filter)
}

fn configuration(given: Given, receivers: &Receivers<'_>) -> S3Result<Configuration> {
    if given.events.is_empty() {
        return Err(error::malformed_xml());
    }
    let events: Vec<String> = given
        .events
        .iter()
        .map(|event| event.as_ref().to_owned())
        .collect();
    if !events.iter().all(|event| notification::is_event(event)) {
        return Err(error::invalid_argument(
            "A specified event is not supported for notifications.",
        ));
    }
    receivers.check(&given)?;
    let id = match given.id.filter(|id| !id.is_empty()) {
        Some(id) if id.chars().count() > ID_MAX => {
            return Err(s3_error!(
                InvalidArgument,
                "ID length should not exceed allowed limit of {ID_MAX}"
            ));
        }
        Some(id) => id,
        None => random_id()?,
    };
    Ok(Configuration {
        id,
        kind: given.kind,
        arn: given.arn,
        events,
        filter: filter(given.filter)?,
    })
}

/// What a document says, checked.
fn notification(
    given: NotificationConfiguration,
    receivers: &Receivers<'_>,
    owner: &str,
) -> S3Result<Notification> {
    let topics = given.topic_configurations.unwrap_or_default();
    let queues = given.queue_configurations.unwrap_or_default();
    let functions = given.lambda_function_configurations.unwrap_or_default();
    let all = topics
        .into_iter()
        .map(|topic| Given {
            kind: Kind::Topic,
            id: topic.id,
            arn: topic.topic_arn,
            events: topic.events,
            filter: topic.filter,
        })
        .chain(queues.into_iter().map(|queue| Given {
            kind: Kind::Queue,
            id: queue.id,
            arn: queue.queue_arn,
            events: queue.events,
            filter: queue.filter,
        }))
        .chain(functions.into_iter().map(|function| Given {
            kind: Kind::Function,
            id: function.id,
            arn: function.lambda_function_arn,
            events: function.events,
            filter: function.filter,
        }));
    let configurations = all
        .map(|given| configuration(given, receivers))
        .collect::<S3Result<Vec<_>>>()?;
    if configurations.len() > CONFIGURATIONS_MAX {
        return Err(error::custom(
            "TooManyConfigurations",
            400,
            "You are attempting to create a new configuration but have already reached the 100-configuration limit.",
        ));
    }
    let ids: HashSet<&str> = configurations
        .iter()
        .map(|configuration| configuration.id.as_str())
        .collect();
    if ids.len() < configurations.len() {
        return Err(error::invalid_argument(
            "Same ID used for multiple configurations. IDs must be unique",
        ));
    }
    let notification = Notification {
        configurations,
        event_bridge: given.event_bridge_configuration.is_some(),
        owner: owner.to_owned(),
    };
    if notification.has_overlap() {
        return Err(error::invalid_argument(
            "Configurations overlap. Configurations on the same bucket cannot share a common event type.",
        ));
    }
    Ok(notification)
}

fn filter_out(filter: &[(Side, String)]) -> Option<NotificationConfigurationFilter> {
    let rules = filter.iter().map(|(side, value)| FilterRule {
        name: Some(FilterRuleName::from_static(match side {
            Side::Prefix => "Prefix",
            Side::Suffix => "Suffix",
        })),
        value: Some(value.clone()),
    });
    (!filter.is_empty()).then(|| NotificationConfigurationFilter {
        key: Some(S3KeyFilter {
            filter_rules: Some(rules.collect()),
        }),
    })
}

fn notification_out(notification: &Notification) -> GetBucketNotificationConfigurationOutput {
    let (mut topics, mut queues, mut functions) = (Vec::new(), Vec::new(), Vec::new());
    for configuration in &notification.configurations {
        let id = Some(configuration.id.clone());
        let events = configuration
            .events
            .iter()
            .cloned()
            .map(Event::from)
            .collect();
        let filter = filter_out(&configuration.filter);
        let arn = configuration.arn.clone();
        match configuration.kind {
            Kind::Topic => topics.push(TopicConfiguration {
                id,
                topic_arn: arn,
                events,
                filter,
            }),
            Kind::Queue => queues.push(QueueConfiguration {
                id,
                queue_arn: arn,
                events,
                filter,
            }),
            Kind::Function => functions.push(LambdaFunctionConfiguration {
                id,
                lambda_function_arn: arn,
                events,
                filter,
            }),
        }
    }
    GetBucketNotificationConfigurationOutput {
        event_bridge_configuration: notification
            .event_bridge
            .then(EventBridgeConfiguration::default),
        topic_configurations: (!topics.is_empty()).then_some(topics),
        queue_configurations: (!queues.is_empty()).then_some(queues),
        lambda_function_configurations: (!functions.is_empty()).then_some(functions),
    }
}

impl Gateway {
    pub(super) async fn put_bucket_notification_configuration(
        &self,
        request: S3Request<PutBucketNotificationConfigurationInput>,
    ) -> S3Result<S3Response<PutBucketNotificationConfigurationOutput>> {
        let caller = Caller::of(&request)?.clone();
        let tenant = self.authority.tenant(caller.bucket()?.tenant).await;
        let tenant = tenant.map_err(error::of_fault)?;
        let receivers = Receivers {
            targets: &self.config.targets,
            region: &self.config.region,
            tenant: &tenant.name,
        };
        let context = request.extensions.get::<Arc<RequestContext>>().cloned();
        let given = request.input.notification_configuration;
        let notification = notification(given, &receivers, &tenant.owner_id)?;
        let request_id = context.map_or_else(String::new, |context| context.id().to_string());
        self.namespace
            .set_notification(caller.bucket()?, notification, &request_id)
            .await
            .map_err(error::of_condition)?;
        Ok(S3Response::new(
            PutBucketNotificationConfigurationOutput::default(),
        ))
    }

    pub(super) async fn get_bucket_notification_configuration(
        &self,
        request: S3Request<GetBucketNotificationConfigurationInput>,
    ) -> S3Result<S3Response<GetBucketNotificationConfigurationOutput>> {
        let bucket = Caller::of(&request)?.bucket()?;
        let output = bucket.settings.notification.as_ref();
        Ok(S3Response::new(
            output.map(notification_out).unwrap_or_default(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn queue(arn: &str, events: &[&str], rules: &[(&str, &str)]) -> QueueConfiguration {
        let rules = rules.iter().map(|(name, value)| FilterRule {
            name: Some((*name).to_owned().into()),
            value: Some((*value).to_owned()),
        });
        QueueConfiguration {
            id: None,
            queue_arn: arn.to_owned(),
            events: events
                .iter()
                .map(|&event| event.to_owned().into())
                .collect(),
            filter: Some(NotificationConfigurationFilter {
                key: Some(S3KeyFilter {
                    filter_rules: Some(rules.collect()),
                }),
            }),
        }
    }

    fn read(queues: Vec<QueueConfiguration>) -> S3Result<Notification> {
        let targets = BTreeSet::from(["jobs".to_owned()]);
        let receivers = Receivers {
            targets: &targets,
            region: "r",
            tenant: "me",
        };
        let given = NotificationConfiguration {
            queue_configurations: Some(queues),
            ..NotificationConfiguration::default()
        };
        notification(given, &receivers, "owner")
    }

    #[test]
    fn configurations_are_checked_as_s3_does() {
        const JOBS: &str = "arn:aws:sqs:r:me:jobs";
        const PUT: &[&str] = &["s3:ObjectCreated:Put"];
        type Rules<'a> = &'a [(&'a str, &'a str)];
        let long = "x".repeat(1025);
        let cases: [(&str, &[&str], Rules<'_>, &str); 11] = [
            (JOBS, PUT, &[("prefix", "a"), ("Suffix", "b")], ""),
            (JOBS, &[], &[], "schema"),
            (JOBS, &["s3:Nothing"], &[], "event is not supported"),
            ("jobs", PUT, &[], "ARN"),
            ("arn:aws:sqs:r:me:other", PUT, &[], "Unable to validate"),
            ("arn:aws:sqs:r:you:jobs", PUT, &[], "Unable to validate"),
            ("arn:aws:sqs:q:me:jobs", PUT, &[], "Unable to validate"),
            ("arn:aws:sns:r:me:jobs", PUT, &[], "ARN"),
            (JOBS, PUT, &[("infix", "a")], "prefix or suffix"),
            (
                JOBS,
                PUT,
                &[("prefix", "a"), ("prefix", "b")],
                "more than one prefix",
            ),
            (JOBS, PUT, &[("prefix", &long)], "1024 bytes"),
        ];
        for (arn, events, rules, expected) in cases {
            match read(vec![queue(arn, events, rules)]) {
                Ok(_) => assert_eq!(expected, "", "{arn} {events:?} {rules:.40?}"),
                Err(error) => {
                    let text = error.message().unwrap_or_default();
                    assert!(
                        !expected.is_empty() && text.contains(expected),
                        "{arn}: {text}"
                    );
                }
            }
        }
        let twice = vec![
            queue(JOBS, PUT, &[]),
            queue(JOBS, &["s3:ObjectCreated:*"], &[]),
        ];
        let text = read(twice).unwrap_err().message().unwrap().to_owned();
        assert!(text.contains("overlap"), "{text}");
    }
}
