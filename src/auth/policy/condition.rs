//! Conditions: operators over the values that a request has ("IAM JSON policy elements: Condition operators").
//!
//! A key without a value fails a positive operator and passes a negated one; with `IfExists` it passes both.
//! Of several values of a policy any may match a positive operator and none a negated one.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use time::OffsetDateTime;
use time::format_description::well_known::Iso8601;

use super::json::Json;
use super::pattern::{Case, Pattern, Signs, Unresolved};
use super::truth::Truth;
use super::{Malformed, Value};

/// What is compared, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text(Case),
    Like,
    Number(Order),
    Date(Order),
    Bool,
    Binary,
    Ip,
    Arn,
    Null,
}

/// How two sizes compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    fn holds(self, found: f64, wanted: f64) -> bool {
        match self {
            Self::Equal => found == wanted,
            Self::Less => found < wanted,
            Self::LessOrEqual => found <= wanted,
            Self::Greater => found > wanted,
            Self::GreaterOrEqual => found >= wanted,
        }
    }
}

/// How several values of a request count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantifier {
    /// As `ForAnyValue`, but a negated operator must hold for all.
    One,
    All,
    Any,
}

/// An operator's name, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Operator {
    kind: Kind,
    negated: bool,
    if_exists: bool,
    quantifier: Quantifier,
}

/// What a policy compares with.
#[derive(Debug, Clone, PartialEq)]
enum Wanted {
    Pattern(Pattern),
    /// A number or a date, in seconds since 1970.
    Size(f64),
    Bool(bool),
    Binary(Vec<u8>),
    Ip(Network),
}

/// One condition: an operator, a key and what its values are compared with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condition {
    operator: Operator,
    key: String,
    wanted: Vec<Wanted>,
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads an address or a CIDR of either family.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits: u8 = bits.unwrap_or(width);
        (bits <= width).then_some(Self { address, bits })
    }

    /// Whether an address lies in it. An IPv4 address in IPv6 form counts as the former.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address.to_canonical(), address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                // A mapped network is given with the width of the other family.
                let bits = if self.address.is_ipv6() {
                    self.bits.saturating_sub(96)
                } else {
                    self.bits
                };
                let shift = 32 - u32::from(bits);
                let top = |address: u32| address.checked_shr(shift).unwrap_or(0);
                top(net.to_bits()) == top(address.to_bits())
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.bits);
                let top = |address: u128| address.checked_shr(shift).unwrap_or(0);
                top(net.to_bits()) == top(address.to_bits())
            }
            _ => false,
        }
    }

    /// Whether it is so wide that a policy for it is for the public: above /8 or, for IPv6, above /32,
    /// private ranges apart ("Blocking public access to your Amazon S3 storage").
    fn is_public(&self) -> bool {
        match self.address {
            IpAddr::V4(_) => self.bits < 8,
            IpAddr::V6(address) => self.bits < 32 && !(address.is_unique_local() && self.bits >= 7),
        }
    }
}

impl Operator {
    fn parse(name: &str) -> Option<Self> {
        let (quantifier, name) = match name.split_once(':') {
            None => (Quantifier::One, name),
            Some(("ForAllValues", name)) => (Quantifier::All, name),
            Some(("ForAnyValue", name)) => (Quantifier::Any, name),
            Some(_) => return None,
        };
        let (name, if_exists) = match name.strip_suffix("IfExists") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let (kind, negated) = match name {
            "StringEquals" => (Kind::Text(Case::Sensitive), false),
            "StringNotEquals" => (Kind::Text(Case::Sensitive), true),
            "StringEqualsIgnoreCase" => (Kind::Text(Case::Ignored), false),
            "StringNotEqualsIgnoreCase" => (Kind::Text(Case::Ignored), true),
            "StringLike" => (Kind::Like, false),
            "StringNotLike" => (Kind::Like, true),
            "NumericEquals" => (Kind::Number(Order::Equal), false),
            "NumericNotEquals" => (Kind::Number(Order::Equal), true),
            "NumericLessThan" => (Kind::Number(Order::Less), false),
            "NumericLessThanEquals" => (Kind::Number(Order::LessOrEqual), false),
            "NumericGreaterThan" => (Kind::Number(Order::Greater), false),
            "NumericGreaterThanEquals" => (Kind::Number(Order::GreaterOrEqual), false),
            "DateEquals" => (Kind::Date(Order::Equal), false),
            "DateNotEquals" => (Kind::Date(Order::Equal), true),
            "DateLessThan" => (Kind::Date(Order::Less), false),
            "DateLessThanEquals" => (Kind::Date(Order::LessOrEqual), false),
            "DateGreaterThan" => (Kind::Date(Order::Greater), false),
            "DateGreaterThanEquals" => (Kind::Date(Order::GreaterOrEqual), false),
            "Bool" => (Kind::Bool, false),
            "BinaryEquals" => (Kind::Binary, false),
            "IpAddress" => (Kind::Ip, false),
            "NotIpAddress" => (Kind::Ip, true),
            "ArnEquals" | "ArnLike" => (Kind::Arn, false),
            "ArnNotEquals" | "ArnNotLike" => (Kind::Arn, true),
            "Null" if !if_exists => (Kind::Null, false),
            _ => return None,
        };
        Some(Self {
            kind,
            negated,
            if_exists,
            quantifier,
        })
    }

    /// Reads what a policy compares with.
    fn wanted(&self, text: &str, variables: bool) -> Result<Wanted, Malformed> {
        let pattern = |wildcards| {
            let signs = Signs {
                wildcards,
                variables,
            };
            Pattern::parse(text, signs).map(Wanted::Pattern)
        };
        let parsed = match self.kind {
            Kind::Text(_) => return pattern(false),
            Kind::Like | Kind::Arn => return pattern(true),
            Kind::Number(_) => number(text).map(Wanted::Size),
            Kind::Date(_) => date(text).map(Wanted::Size),
            Kind::Bool | Kind::Null => boolean(text).map(Wanted::Bool),
            Kind::Binary => BASE64.decode(text).ok().map(Wanted::Binary),
            Kind::Ip => Network::parse(text).map(Wanted::Ip),
        };
        parsed.ok_or(Malformed::CONDITION_VALUE)
    }

    /// Whether one value of the request matches, before the operator is negated.
    fn compare(
        &self,
        found: &str,
        wanted: &Wanted,
        lookup: &dyn Fn(&str) -> Value,
    ) -> Result<bool, Unresolved> {
        Ok(match (self.kind, wanted) {
            (Kind::Text(case), Wanted::Pattern(pattern)) => pattern.matches(found, case, lookup)?,
            (Kind::Like, Wanted::Pattern(pattern)) => {
                pattern.matches(found, Case::Sensitive, lookup)?
            }
            (Kind::Number(order), Wanted::Size(wanted)) => {
                number(found).is_some_and(|found| order.holds(found, *wanted))
            }
            (Kind::Date(order), Wanted::Size(wanted)) => {
                date(found).is_some_and(|found| order.holds(found, *wanted))
            }
            (Kind::Bool, Wanted::Bool(wanted)) => boolean(found) == Some(*wanted),
            (Kind::Binary, Wanted::Binary(wanted)) => {
                BASE64.decode(found).is_ok_and(|found| found == *wanted)
            }
            (Kind::Ip, Wanted::Ip(network)) => {
                found.parse().is_ok_and(|address| network.contains(address))
            }
            (Kind::Arn, Wanted::Pattern(pattern)) => arn_matches(pattern, found, lookup)?,
            _ => false,
        })
    }
}

/// An ARN's six parts match each for itself, so that a wildcard does not run over a colon.
fn arn_matches(
    pattern: &Pattern,
    found: &str,
    lookup: &dyn Fn(&str) -> Value,
) -> Result<bool, Unresolved> {
    let wanted = pattern.split(':', 6);
    let found: Vec<&str> = found.splitn(6, ':').collect();
    if wanted.len() != found.len() {
        return Ok(false);
    }
    for (wanted, found) in wanted.iter().zip(found) {
        if !wanted.matches(found, Case::Sensitive, lookup)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// A date as ISO 8601 or as seconds since 1970, as the latter.
fn date(text: &str) -> Option<f64> {
    if let Some(seconds) = number(text) {
        return Some(seconds);
    }
    if text.len() == 10 {
        let midnight = format!("{text}T00:00:00Z");
        return date(&midnight);
    }
    let moment = OffsetDateTime::parse(text, &Iso8601::DEFAULT).ok()?;
    Some(moment.unix_timestamp() as f64 + f64::from(moment.nanosecond()) / 1e9)
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        text if text.eq_ignore_ascii_case("true") => Some(true),
        text if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

impl Condition {
    /// Reads a `Condition` element; `variables` says whether the document's version has them.
    pub(super) fn parse(json: &Json, variables: bool) -> Result<Vec<Self>, Malformed> {
        let Json::Object(operators) = json else {
            return Err(Malformed::SYNTAX);
        };
        let mut conditions = Vec::new();
        for (name, keys) in operators {
            let operator = Operator::parse(name)
                .ok_or_else(|| Malformed::new(format!("Invalid Condition type : {name}")))?;
            let Json::Object(keys) = keys else {
                return Err(Malformed::SYNTAX);
            };
            for (key, values) in keys {
                if !is_condition_key(key) {
                    return Err(Malformed::CONDITION_KEY);
                }
                let texts = values.texts().ok_or(Malformed::SYNTAX)?;
                let wanted = texts.iter().map(|text| operator.wanted(text, variables));
                conditions.push(Self {
                    operator,
                    key: key.clone(),
                    wanted: wanted.collect::<Result<_, _>>()?,
                });
            }
        }
        Ok(conditions)
    }

    /// Whether the request fulfils it.
    pub(super) fn holds(&self, lookup: &dyn Fn(&str) -> Value) -> Truth {
        let Operator {
            kind,
            negated,
            if_exists,
            quantifier,
        } = self.operator;
        let values = match lookup(&self.key) {
            Value::Unknown => return Truth::Unknown,
            Value::Absent => None,
            Value::Is(values) => Some(values).filter(|values| !values.is_empty()),
        };
        if kind == Kind::Null {
            let wanted = Wanted::Bool(values.is_none());
            return self.wanted.contains(&wanted).into();
        }
        let Some(values) = values else {
            let vacuous = match quantifier {
                Quantifier::One => negated,
                Quantifier::All => true,
                Quantifier::Any => false,
            };
            return (vacuous || if_exists).into();
        };
        let each = values.iter().map(|value| {
            let any = Truth::any(self.wanted.iter().map(|wanted| {
                match self.operator.compare(value, wanted, lookup) {
                    Ok(matches) => matches.into(),
                    Err(Unresolved::Absent) => Truth::No,
                    Err(Unresolved::Unknown) => Truth::Unknown,
                }
            }));
            if negated { !any } else { any }
        });
        match (quantifier, negated) {
            (Quantifier::All, _) | (Quantifier::One, true) => Truth::all(each),
            (Quantifier::Any, _) | (Quantifier::One, false) => Truth::any(each),
        }
    }

    /// Whether it lets in only who is named by fixed values: then an `Allow` with it is not public.
    pub(super) fn is_narrow(&self) -> bool {
        const FIXED: [&str; 14] = [
            "aws:principalorgid",
            "aws:principalorgpaths",
            "aws:principalaccount",
            "aws:principalarn",
            "aws:sourceaccount",
            "aws:sourcearn",
            "aws:sourceorgid",
            "aws:sourceowner",
            "aws:sourcevpc",
            "aws:sourcevpce",
            "aws:userid",
            "aws:username",
            "s3:dataaccesspointaccount",
            "s3:dataaccesspointarn",
        ];
        let Operator {
            kind,
            negated,
            if_exists,
            quantifier,
        } = self.operator;
        if negated || if_exists || quantifier == Quantifier::All || self.wanted.is_empty() {
            return false;
        }
        let key = self.key.to_ascii_lowercase();
        let is_fixed = |wanted: &Wanted| match wanted {
            Wanted::Pattern(pattern) => pattern.is_fixed(),
            Wanted::Ip(network) => !network.is_public(),
            Wanted::Size(_) | Wanted::Bool(_) | Wanted::Binary(_) => false,
        };
        let compares = match kind {
            Kind::Text(_) | Kind::Like | Kind::Arn => {
                FIXED.contains(&key.as_str())
                    || key == "s3:x-amz-server-side-encryption-aws-kms-key-id"
            }
            Kind::Ip => key == "aws:sourceip",
            Kind::Number(_) | Kind::Date(_) | Kind::Bool | Kind::Binary | Kind::Null => false,
        };
        compares && self.wanted.iter().all(is_fixed)
    }
}

/// Condition keys of S3 that are one name each.
const S3_KEYS: [&str; 45] = [
    "s3:accesspointnetworkorigin",
    "s3:authtype",
    "s3:bucketkeyenabled",
    "s3:dataaccesspointaccount",
    "s3:dataaccesspointarn",
    "s3:delimiter",
    "s3:destinationregion",
    "s3:existingjoboperation",
    "s3:existingjobpriority",
    "s3:if-match",
    "s3:if-none-match",
    "s3:inventoryaccessibleoptionalfields",
    "s3:jobsuspendedcause",
    "s3:locationconstraint",
    "s3:max-keys",
    "s3:object-lock-legal-hold",
    "s3:object-lock-mode",
    "s3:object-lock-remaining-retention-days",
    "s3:object-lock-retain-until-date",
    "s3:objectcreationoperation",
    "s3:prefix",
    "s3:requestjoboperation",
    "s3:requestjobpriority",
    "s3:requestobjecttagkeys",
    "s3:resourceaccount",
    "s3:signatureage",
    "s3:signatureversion",
    "s3:tlsversion",
    "s3:versionid",
    "s3:x-amz-acl",
    "s3:x-amz-content-sha256",
    "s3:x-amz-copy-source",
    "s3:x-amz-grant-full-control",
    "s3:x-amz-grant-read",
    "s3:x-amz-grant-read-acp",
    "s3:x-amz-grant-write",
    "s3:x-amz-grant-write-acp",
    "s3:x-amz-metadata-directive",
    "s3:x-amz-object-ownership",
    "s3:x-amz-server-side-encryption",
    "s3:x-amz-server-side-encryption-aws-kms-key-id",
    "s3:x-amz-server-side-encryption-customer-algorithm",
    "s3:x-amz-storage-class",
    "s3:x-amz-website-redirect-location",
    "s3:x-amz-bucket-namespace",
];

/// Whether a text names a condition key: a global one, or one of S3. Names of keys know no case; what follows
/// the slash of a tag's key does.
fn is_condition_key(key: &str) -> bool {
    let lower = key.to_ascii_lowercase();
    if let Some(name) = lower.strip_prefix("aws:") {
        return !name.is_empty();
    }
    let (name, tag) = match lower.split_once('/') {
        Some((name, tag)) => (name, Some(tag)),
        None => (lower.as_str(), None),
    };
    match tag {
        Some(tag) => {
            let tagged = [
                "s3:existingobjecttag",
                "s3:requestobjecttag",
                "s3:buckettag",
            ];
            tagged.contains(&name) && !tag.is_empty()
        }
        None => S3_KEYS.contains(&name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(operator: &str, key: &str, values: &str) -> Condition {
        let json = format!(r#"{{"{operator}":{{"{key}":{values}}}}}"#);
        Condition::parse(&Json::read(&json).unwrap(), true)
            .unwrap()
            .remove(0)
    }

    /// Whether a condition holds for a key's values; none of them means that the key is absent.
    fn holds(operator: &str, values: &str, found: &[&str]) -> bool {
        let lookup = |key: &str| match (key, found) {
            ("aws:username", _) => Value::Is(vec!["bob".to_owned()]),
            ("aws:k", []) | ("aws:none", _) => Value::Absent,
            _ => Value::Is(found.iter().map(|text| (*text).to_owned()).collect()),
        };
        condition(operator, "aws:k", values).holds(&lookup) == Truth::Yes
    }

    #[test]
    fn operators_compare_as_documented() {
        for (operator, values, found, expected) in [
            ("StringEquals", r#""a""#, &["a"][..], true),
            ("StringEquals", r#""a""#, &["A"], false),
            ("StringEquals", r#"["a","b"]"#, &["b"], true),
            ("StringEquals", r#""a*""#, &["ab"], false),
            ("StringEquals", r#""a*""#, &["a*"], true),
            ("StringEquals", r#""${aws:username}""#, &["bob"], true),
            ("StringEquals", r#""${aws:none}""#, &["bob"], false),
            ("StringEquals", r#""a""#, &[], false),
            ("StringEqualsIfExists", r#""a""#, &[], true),
            ("StringEqualsIfExists", r#""a""#, &["b"], false),
            ("StringNotEquals", r#""a""#, &["b"], true),
            ("StringNotEquals", r#"["a","b"]"#, &["b"], false),
            ("StringNotEquals", r#""a""#, &[], true),
            ("StringEqualsIgnoreCase", r#""aB""#, &["Ab"], true),
            ("StringNotEqualsIgnoreCase", r#""aB""#, &["Ab"], false),
            ("StringLike", r#""a*c?""#, &["abbcd"], true),
            ("StringLike", r#""a*""#, &["b"], false),
            ("StringNotLike", r#""a*""#, &["b"], true),
            ("NumericEquals", "10", &["10"], true),
            ("NumericEquals", r#""10.0""#, &["10"], true),
            ("NumericNotEquals", "10", &["9"], true),
            ("NumericLessThan", "10", &["9"], true),
            ("NumericLessThan", "10", &["10"], false),
            ("NumericLessThanEquals", "10", &["10"], true),
            ("NumericGreaterThan", "10", &["11"], true),
            ("NumericGreaterThanEquals", "10", &["10"], true),
            ("NumericEquals", "10", &["ten"], false),
            (
                "DateLessThan",
                r#""2030-01-01T00:00:00Z""#,
                &["2029-12-31T23:59:59Z"],
                true,
            ),
            (
                "DateGreaterThan",
                r#""2030-01-01T00:00:00Z""#,
                &["2029-12-31T23:59:59Z"],
                false,
            ),
            ("DateEquals", r#""1970-01-01T00:01:00Z""#, &["60"], true),
            (
                "DateGreaterThanEquals",
                r#""2030-01-01""#,
                &["2030-01-01T00:00:00Z"],
                true,
            ),
            ("Bool", "true", &["true"], true),
            ("Bool", r#""false""#, &["true"], false),
            ("Bool", r#""false""#, &[], false),
            ("BoolIfExists", r#""false""#, &[], true),
            ("BinaryEquals", r#""AAEC""#, &["AAEC"], true),
            ("BinaryEquals", r#""AAEC""#, &["AAED"], false),
            ("IpAddress", r#""10.0.0.0/8""#, &["10.255.0.1"], true),
            ("IpAddress", r#""10.0.0.0/8""#, &["11.0.0.1"], false),
            ("IpAddress", r#""10.0.0.1""#, &["10.0.0.1"], true),
            ("IpAddress", r#""0.0.0.0/0""#, &["1.2.3.4"], true),
            ("IpAddress", r#""0.0.0.0/0""#, &["::1"], false),
            ("IpAddress", r#""2001:db8::/32""#, &["2001:db8:1::1"], true),
            ("IpAddress", r#""::/0""#, &["2001:db8::1"], true),
            ("IpAddress", r#""10.0.0.0/8""#, &["::ffff:10.1.1.1"], true),
            (
                "NotIpAddress",
                r#"["10.0.0.0/8","127.0.0.1"]"#,
                &["127.0.0.1"],
                false,
            ),
            ("NotIpAddress", r#""10.0.0.0/8""#, &["127.0.0.1"], true),
            (
                "ArnLike",
                r#""arn:aws:s3:::b*""#,
                &["arn:aws:s3:::bucket"],
                true,
            ),
            (
                "ArnEquals",
                r#""arn:aws:*:::b""#,
                &["arn:aws:s3:x::b"],
                false,
            ),
            ("ArnLike", r#""arn:aws:s3:*:b""#, &["arn:aws:s3:::b"], false),
            (
                "ArnNotLike",
                r#""arn:aws:s3:::b*""#,
                &["arn:aws:s3:::x"],
                true,
            ),
            ("Null", "true", &[], true),
            ("Null", "true", &["x"], false),
            ("Null", "false", &["x"], true),
            (
                "ForAllValues:StringEquals",
                r#"["a","b"]"#,
                &["a", "b"],
                true,
            ),
            (
                "ForAllValues:StringEquals",
                r#"["a","b"]"#,
                &["a", "c"],
                false,
            ),
            ("ForAllValues:StringEquals", r#"["a","b"]"#, &[], true),
            (
                "ForAnyValue:StringEquals",
                r#"["a","b"]"#,
                &["c", "b"],
                true,
            ),
            ("ForAnyValue:StringEquals", r#"["a","b"]"#, &["c"], false),
            ("ForAnyValue:StringEquals", r#"["a","b"]"#, &[], false),
            ("ForAnyValue:StringNotEquals", r#""a""#, &["a", "b"], true),
            ("ForAllValues:StringNotEquals", r#""a""#, &["a", "b"], false),
        ] {
            assert_eq!(
                holds(operator, values, found),
                expected,
                "{operator} {values} {found:?}"
            );
        }
    }

    #[test]
    fn what_is_not_known_yet_is_unknown() {
        let lookup = |_: &str| Value::Unknown;
        for operator in ["StringEquals", "StringNotEquals", "StringEqualsIfExists"] {
            let condition = condition(operator, "s3:ExistingObjectTag/a", r#""b""#);
            assert_eq!(condition.holds(&lookup), Truth::Unknown);
        }
    }

    #[test]
    fn wrong_operators_keys_and_values_are_malformed() {
        for json in [
            r#"{"StringIs":{"aws:k":"a"}}"#,
            r#"{"ForSome:StringEquals":{"aws:k":"a"}}"#,
            r#"{"NullIfExists":{"aws:k":"true"}}"#,
            r#"{"StringEquals":{"k":"a"}}"#,
            r#"{"StringEquals":{"s3:nothing":"a"}}"#,
            r#"{"StringEquals":{"s3:prefix/a":"a"}}"#,
            r#"{"StringEquals":{"s3:ExistingObjectTag/":"a"}}"#,
            r#"{"StringEquals":{"aws:k":null}}"#,
            r#"{"StringEquals":{"aws:k":{"a":"b"}}}"#,
            r#"{"StringEquals":"a"}"#,
            r#"{"NumericEquals":{"aws:k":"ten"}}"#,
            r#"{"DateEquals":{"aws:k":"tomorrow"}}"#,
            r#"{"IpAddress":{"aws:SourceIp":"10.0.0.0/33"}}"#,
            r#"{"IpAddress":{"aws:SourceIp":"10.0.0"}}"#,
            r#"{"Bool":{"aws:k":"maybe"}}"#,
            r#"{"StringEquals":{"aws:k":"${open"}}"#,
            r#"["StringEquals"]"#,
        ] {
            let parsed = Condition::parse(&Json::read(json).unwrap(), true);
            assert!(parsed.is_err(), "{json}");
        }
    }

    #[test]
    fn narrow_conditions_fix_who_is_let_in() {
        for (operator, key, values, expected) in [
            ("IpAddress", "aws:SourceIp", r#""10.0.0.0/32""#, true),
            (
                "IpAddress",
                "aws:SourceIp",
                r#"["10.0.0.0/32","0.0.0.0/1"]"#,
                false,
            ),
            ("IpAddress", "aws:SourceIp", r#""9.0.0.0/7""#, false),
            ("IpAddress", "aws:SourceIp", r#""2001:db8::/31""#, false),
            ("NotIpAddress", "aws:SourceIp", r#""10.0.0.0/32""#, false),
            ("StringEquals", "aws:SourceVpc", r#""vpc-1""#, true),
            ("StringLike", "aws:SourceVpc", r#""vpc-*""#, false),
            ("StringEqualsIfExists", "aws:SourceVpc", r#""vpc-1""#, false),
            ("StringEquals", "aws:userid", r#""${aws:username}""#, false),
            ("StringEquals", "s3:prefix", r#""a""#, false),
        ] {
            let narrow = condition(operator, key, values).is_narrow();
            assert_eq!(narrow, expected, "{operator} {key} {values}");
        }
    }
}
