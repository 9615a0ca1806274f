//! Who is told of what happens in a bucket, and how S3 says it.
//!
//! The rules are those of "Amazon S3 Event Notifications" in the user guide; [`Record`] is one entry of "Event
//! message structure" there, serialised field by field as S3 writes it.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Something that happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// An object was put.
    CreatedByPut,
    /// An object came with a browser's form.
    CreatedByPost,
    /// An object was copied.
    CreatedByCopy,
    /// An upload was completed.
    CreatedByUpload,
    /// A version, or an object that has none, was deleted.
    Removed,
    /// A delete marker was put before an object.
    MarkerCreated,
    /// Tags were put on an object.
    TagsPut,
    /// The tags of an object were taken away.
    TagsDeleted,
    /// The access control list of an object was set.
    AclPut,
    /// A lifecycle rule deleted a version, or an object that has none.
    Expired,
    /// A lifecycle rule put a delete marker before an object.
    ExpiredByMarker,
}

impl Event {
    const ALL: [Self; 11] = [
        Self::CreatedByPut,
        Self::CreatedByPost,
        Self::CreatedByCopy,
        Self::CreatedByUpload,
        Self::Removed,
        Self::MarkerCreated,
        Self::TagsPut,
        Self::TagsDeleted,
        Self::AclPut,
        Self::Expired,
        Self::ExpiredByMarker,
    ];

    /// The name in records: the one in configurations without `s3:`.
    pub fn name(self) -> &'static str {
        match self {
            Self::CreatedByPut => "ObjectCreated:Put",
            Self::CreatedByPost => "ObjectCreated:Post",
            Self::CreatedByCopy => "ObjectCreated:Copy",
            Self::CreatedByUpload => "ObjectCreated:CompleteMultipartUpload",
            Self::Removed => "ObjectRemoved:Delete",
            Self::MarkerCreated => "ObjectRemoved:DeleteMarkerCreated",
            Self::TagsPut => "ObjectTagging:Put",
            Self::TagsDeleted => "ObjectTagging:Delete",
            Self::AclPut => "ObjectAcl:Put",
            Self::Expired => "LifecycleExpiration:Delete",
            Self::ExpiredByMarker => "LifecycleExpiration:DeleteMarkerCreated",
        }
    }

    /// The version of the record's form that S3 sends this event in.
    fn version(self) -> &'static str {
        match self {
            Self::TagsPut
            | Self::TagsDeleted
            | Self::AclPut
            | Self::Expired
            | Self::ExpiredByMarker => "2.3",
            _ => "2.1",
        }
    }

    /// Whether the record tells size and ETag.
    fn tells_content(self) -> bool {
        matches!(
            self,
            Self::CreatedByPut | Self::CreatedByPost | Self::CreatedByCopy | Self::CreatedByUpload
        )
    }
}

/// What S3 lets a configuration name beside the events that happen here.
const NEVER: [&str; 14] = [
    "s3:ReducedRedundancyLostObject",
    "s3:ObjectRestore:*",
    "s3:ObjectRestore:Post",
    "s3:ObjectRestore:Completed",
    "s3:ObjectRestore:Delete",
    "s3:Replication:*",
    "s3:Replication:OperationFailedReplication",
    "s3:Replication:OperationNotTracked",
    "s3:Replication:OperationMissedThreshold",
    "s3:Replication:OperationReplicatedAfterThreshold",
    "s3:LifecycleTransition",
    "s3:IntelligentTiering",
    "s3:ObjectSynced:*",
    "s3:ObjectSynced:Create",
];

/// Whether a configuration's `pattern`, such as `s3:ObjectCreated:*`, means `event`.
fn means(pattern: &str, event: Event) -> bool {
    pattern.strip_prefix("s3:").is_some_and(|pattern| {
        let name = event.name();
        pattern == name
            || pattern
                .strip_suffix('*')
                .is_some_and(|group| group.ends_with(':') && name.starts_with(group))
    })
}

/// Whether `pattern` is one that S3 knows.
pub fn is_event(pattern: &str) -> bool {
    Event::ALL.iter().any(|event| means(pattern, *event)) || NEVER.contains(&pattern)
}

/// What kind of receiver a configuration was written for. They are served alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// `TopicConfiguration`.
    Topic,
    /// `QueueConfiguration`.
    Queue,
    /// `CloudFunctionConfiguration`.
    Function,
}

impl Kind {
    /// The service in the ARNs of this kind.
    fn service(self) -> &'static str {
        match self {
            Self::Topic => "sns",
            Self::Queue => "sqs",
            Self::Function => "lambda",
        }
    }
}

/// A receiver as clients name it: `arn:aws:SERVICE:REGION:ACCOUNT:NAME`, where a function's name comes after
/// `function:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arn<'a> {
    /// The region.
    pub region: &'a str,
    /// The tenant.
    pub account: &'a str,
    /// The target.
    pub name: &'a str,
}

impl<'a> Arn<'a> {
    /// Parses an ARN of `kind`; `None` when it is none.
    pub fn parse(kind: Kind, text: &'a str) -> Option<Self> {
        let mut words = text.splitn(6, ':');
        let is_ours = words.next() == Some("arn")
            && words.next().is_some_and(|word| word.starts_with("aws"))
            && words.next() == Some(kind.service());
        let (region, account) = (words.next()?, words.next()?);
        let name = words.next().filter(|_| is_ours)?;
        let name = match kind {
            Kind::Function => name.strip_prefix("function:").unwrap_or(name),
            Kind::Topic | Kind::Queue => name,
        };
        (!name.is_empty() && !name.contains(':')).then_some(Self {
            region,
            account,
            name,
        })
    }
}

/// Where in a key a filter looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// At its begin.
    Prefix,
    /// At its end.
    Suffix,
}

/// Who is told of which events under which keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Its id, which records carry.
    pub id: String,
    /// What kind of receiver it was written for.
    pub kind: Kind,
    /// The receiver, as the client named it; an [`Arn`].
    pub arn: String,
    /// Which events, with wildcards.
    pub events: Vec<String>,
    /// Conditions on the key, in the order given; at most one for each side.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter: Vec<(Side, String)>,
}

impl Configuration {
    /// The name of the target.
    pub fn target(&self) -> &str {
        Arn::parse(self.kind, &self.arn).map_or("", |arn| arn.name)
    }

    fn side(&self, wanted: Side) -> &str {
        self.filter
            .iter()
            .find(|(side, _)| *side == wanted)
            .map_or("", |(_, text)| text)
    }

    fn matches(&self, event: Event, key: &str) -> bool {
        key.starts_with(self.side(Side::Prefix))
            && key.ends_with(self.side(Side::Suffix))
            && self.events.iter().any(|pattern| means(pattern, event))
    }

    /// Whether some event of some key is told by both, which S3 does not let be.
    fn overlaps(&self, other: &Self) -> bool {
        let nested = |a: &str, b: &str| a.starts_with(b) || b.starts_with(a);
        let ends_nested = |a: &str, b: &str| a.ends_with(b) || b.ends_with(a);
        let shares = |event: &Event| {
            let told = |by: &Self| by.events.iter().any(|pattern| means(pattern, *event));
            told(self) && told(other)
        };
        nested(self.side(Side::Prefix), other.side(Side::Prefix))
            && ends_nested(self.side(Side::Suffix), other.side(Side::Suffix))
            && Event::ALL.iter().any(shares)
    }
}

/// Who is told of what happens in a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notification {
    /// The receivers.
    pub configurations: Vec<Configuration>,
    /// Whether EventBridge is asked for; kept to be answered.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub event_bridge: bool,
    /// The canonical user id of the bucket's owner, which records name.
    pub owner: String,
}

impl Notification {
    /// Whether nobody is told of anything, as in a bucket that never had a configuration.
    pub fn is_empty(&self) -> bool {
        self.configurations.is_empty() && !self.event_bridge
    }

    /// The configurations that tell of `event` on `key`.
    pub fn about<'a>(
        &'a self,
        event: Event,
        key: &'a str,
    ) -> impl Iterator<Item = &'a Configuration> {
        self.configurations
            .iter()
            .filter(move |configuration| configuration.matches(event, key))
    }

    /// Whether two configurations would tell of the same event.
    pub fn has_overlap(&self) -> bool {
        let all = &self.configurations;
        all.iter()
            .enumerate()
            .any(|(index, one)| all[..index].iter().any(|other| one.overlaps(other)))
    }
}

/// Who did it, and by which request. Empty for what the server does by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The access key, or the tenant's canonical id.
    pub principal: String,
    /// The address the request came from.
    pub address: String,
    /// The request's id.
    pub request_id: String,
}

/// What an event is about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The key.
    pub key: &'a str,
    /// Its bytes.
    pub size: u64,
    /// Its ETag, without quotes.
    pub etag: &'a str,
    /// Its version id, where it has one that is shown.
    pub version: Option<&'a str>,
}

/// The bucket that an event happened in.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its name.
    pub bucket: &'a str,
    /// The canonical user id of its owner.
    pub owner: &'a str,
    /// Where it is.
    pub region: &'a str,
}

/// An event as S3 sends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    event_version: &'static str,
    event_source: String,
    aws_region: String,
    event_time: String,
    event_name: &'static str,
    user_identity: Principal,
    request_parameters: RequestParameters,
    response_elements: ResponseElements,
    s3: Entity,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Principal {
    principal_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct RequestParameters {
    #[serde(rename = "sourceIPAddress")]
    source_ip_address: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ResponseElements {
    #[serde(rename = "x-amz-request-id")]
    request_id: String,
    #[serde(rename = "x-amz-id-2")]
    host_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Entity {
    #[serde(rename = "s3SchemaVersion")]
    schema_version: &'static str,
    #[serde(rename = "configurationId")]
    configuration_id: String,
    bucket: BucketEntity,
    object: ObjectEntity,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct BucketEntity {
    name: String,
    owner_identity: Principal,
    arn: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectEntity {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e_tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_id: Option<String>,
    sequencer: String,
}

/// When and as what an event is told.
#[derive(Debug, Clone, Copy)]
pub struct Telling<'a> {
    /// What happened.
    pub event: Event,
    /// The id of the configuration that asked for it.
    pub configuration: &'a str,
    /// When, as ISO 8601 with milliseconds in UTC.
    pub time: &'a str,
    /// Rises with every event of a key.
    pub sequence: i64,
}

impl Record {
    /// The record of an event. S3 tells size and ETag only of what was created.
    pub fn new(
        telling: Telling<'_>,
        place: Place<'_>,
        subject: Subject<'_>,
        origin: &Origin,
    ) -> Self {
        let event = telling.event;
        let tells_content = event.tells_content();
        Self {
            event_version: event.version(),
            event_source: "aws:s3".to_owned(),
            aws_region: place.region.to_owned(),
            event_time: telling.time.to_owned(),
            event_name: event.name(),
            user_identity: Principal {
                principal_id: match origin.principal.is_empty() {
                    true => "s3.amazonaws.com".to_owned(),
                    false => origin.principal.clone(),
                },
            },
            request_parameters: RequestParameters {
                source_ip_address: match origin.address.is_empty() {
                    true => "s3.amazonaws.com".to_owned(),
                    false => origin.address.clone(),
                },
            },
            response_elements: ResponseElements {
                request_id: origin.request_id.clone(),
                host_id: origin.request_id.clone(),
            },
            s3: Entity {
                schema_version: "1.0",
                configuration_id: telling.configuration.to_owned(),
                bucket: BucketEntity {
                    name: place.bucket.to_owned(),
                    owner_identity: Principal {
                        principal_id: place.owner.to_owned(),
                    },
                    arn: format!("arn:aws:s3:::{}", place.bucket),
                },
                object: ObjectEntity {
                    key: encode_key(subject.key),
                    size: tells_content.then_some(subject.size),
                    e_tag: tells_content.then(|| subject.etag.to_owned()),
                    version_id: subject.version.map(str::to_owned),
                    sequencer: format!("{:016X}", telling.sequence),
                },
            },
        }
    }
}

/// What S3 sends to a receiver when it is configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TestEvent {
    /// `Amazon S3`.
    pub service: &'static str,
    /// `s3:TestEvent`.
    pub event: &'static str,
    /// When, as ISO 8601 with milliseconds in UTC.
    pub time: String,
    /// The bucket's name.
    pub bucket: String,
    /// The id of the request that configured it.
    pub request_id: String,
    /// The same, as the host's id.
    pub host_id: String,
}

impl TestEvent {
    /// The test event of a bucket.
    pub fn new(bucket: &str, time: &str, request_id: &str) -> Self {
        Self {
            service: "Amazon S3",
            event: "s3:TestEvent",
            time: time.to_owned(),
            bucket: bucket.to_owned(),
            request_id: request_id.to_owned(),
            host_id: request_id.to_owned(),
        }
    }
}

/// A key as records carry it: encoded like a form's field, slashes left alone.
fn encode_key(key: &str) -> String {
    let mut encoded = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' | b'/' => {
                encoded.push(char::from(byte));
            }
            b' ' => encoded.push('+'),
            _ => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(events: &[&str], filter: &[(Side, &str)]) -> Configuration {
        Configuration {
            id: "id".to_owned(),
            kind: Kind::Queue,
            arn: "arn:aws:sqs:us-east-1:default:jobs".to_owned(),
            events: events.iter().map(|&event| event.to_owned()).collect(),
            filter: filter
                .iter()
                .map(|(side, text)| (*side, (*text).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn patterns_mean_their_event_or_their_group() {
        for (pattern, event, expected) in [
            ("s3:ObjectCreated:*", Event::CreatedByPut, true),
            ("s3:ObjectCreated:*", Event::CreatedByUpload, true),
            ("s3:ObjectCreated:Put", Event::CreatedByPut, true),
            ("s3:ObjectCreated:Put", Event::CreatedByPost, false),
            ("s3:ObjectRemoved:*", Event::MarkerCreated, true),
            ("s3:ObjectRemoved:Delete", Event::MarkerCreated, false),
            ("s3:LifecycleExpiration:*", Event::Removed, false),
            ("ObjectCreated:Put", Event::CreatedByPut, false),
            ("s3:*", Event::CreatedByPut, false),
        ] {
            assert_eq!(means(pattern, event), expected, "{pattern} {event:?}");
        }
        for known in ["s3:ObjectAcl:Put", "s3:ObjectTagging:*", "s3:Replication:*"] {
            assert!(is_event(known), "{known}");
        }
        for unknown in [
            "",
            "s3:*",
            "s3:ObjectCreated",
            "s3:ObjectCreated:Pu*",
            "s3:Nothing:*",
        ] {
            assert!(!is_event(unknown), "{unknown}");
        }
    }

    #[test]
    fn an_arn_names_its_target_by_its_last_word() {
        for (kind, arn, expected) in [
            (
                Kind::Topic,
                "arn:aws:sns:us-east-1:default:hook",
                Some("hook"),
            ),
            (Kind::Queue, "arn:aws:sqs:::jobs", Some("jobs")),
            (Kind::Function, "arn:aws:lambda:r:t:function:fn", Some("fn")),
            (Kind::Function, "arn:aws:lambda:r:t:fn", Some("fn")),
            (Kind::Queue, "arn:aws:sns:us-east-1:default:hook", None),
            (Kind::Topic, "arn:aws:sns:us-east-1:default:", None),
            (Kind::Topic, "arn:aws:sns:us-east-1:default", None),
            (Kind::Topic, "arn:gcp:sns:us-east-1:default:hook", None),
            (Kind::Topic, "hook", None),
        ] {
            let name = Arn::parse(kind, arn).map(|arn| arn.name);
            assert_eq!(name, expected, "{arn}");
        }
    }

    #[test]
    fn filters_look_at_both_ends_of_the_key() {
        let one = configuration(
            &["s3:ObjectCreated:*"],
            &[(Side::Prefix, "images/"), (Side::Suffix, ".jpg")],
        );
        for (key, expected) in [
            ("images/a.jpg", true),
            ("images/a.png", false),
            ("a.jpg", false),
            ("images/.jpg", true),
        ] {
            assert_eq!(one.matches(Event::CreatedByPut, key), expected, "{key}");
        }
        assert!(!one.matches(Event::Removed, "images/a.jpg"));
    }

    #[test]
    fn configurations_overlap_when_one_event_would_be_told_twice() {
        let put: &[&str] = &["s3:ObjectCreated:Put"];
        let all: &[&str] = &["s3:ObjectCreated:*"];
        let gone: &[&str] = &["s3:ObjectRemoved:*"];
        type Asked<'a> = (&'a [&'a str], &'a [(Side, &'a str)]);
        let cases: [(Asked<'_>, Asked<'_>, bool); 6] = [
            ((put, &[]), (all, &[]), true),
            ((put, &[]), (gone, &[]), false),
            (
                (put, &[(Side::Prefix, "a")]),
                (all, &[(Side::Prefix, "b")]),
                false,
            ),
            (
                (put, &[(Side::Prefix, "a")]),
                (all, &[(Side::Prefix, "ab")]),
                true,
            ),
            (
                (put, &[(Side::Suffix, ".x")]),
                (all, &[(Side::Suffix, ".y")]),
                false,
            ),
            (
                (put, &[(Side::Prefix, "a")]),
                (all, &[(Side::Suffix, ".y")]),
                true,
            ),
        ];
        for ((events, filter), (others, other), expected) in cases {
            let both = Notification {
                configurations: vec![configuration(events, filter), configuration(others, other)],
                ..Notification::default()
            };
            assert_eq!(both.has_overlap(), expected, "{both:?}");
        }
    }

    #[test]
    fn keys_are_encoded_as_a_forms_fields_are() {
        assert_eq!(encode_key("a b/c+d.jpg"), "a+b/c%2Bd.jpg");
        assert_eq!(encode_key("é~"), "%C3%A9%7E");
    }
}
