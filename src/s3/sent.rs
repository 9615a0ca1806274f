//! What a request says of itself to policies: the values of condition keys, worked out when they are asked for.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::auth::{Network, Value};
use crate::model::clock::Millis;

/// How a request proved who it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// A signature in the `Authorization` header: the key's holder sent this request itself.
    Header,
    /// A presigned URL: the key's holder let somebody send it.
    Handed,
    /// A signed form: as a presigned URL.
    Form,
    /// Nothing: anybody sent it.
    None,
}

/// Values that a request carries in its document, by their condition keys in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Document {
    /// It has none.
    None,
    /// It has one, which nobody has read yet; it may hold values of these keys.
    Unread(&'static [&'static str]),
    /// It holds these values.
    Read(Vec<(String, Vec<String>)>),
}

/// A request as policies see it.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    headers: HeaderMap,
    query: Option<String>,
    /// Whence it came; `None` when it came from no socket.
    client: Option<IpAddr>,
    is_secure: bool,
    at: Millis,
    pub(super) proof: Proof,
    pub(super) document: Document,
}

/// Where a request came from, through the proxies that are trusted to say so.
pub(super) fn origin(
    remote: Option<IpAddr>,
    headers: &HeaderMap,
    trusted: &[Network],
) -> (Option<IpAddr>, bool) {
    let Some(peer) = remote else {
        return (None, false);
    };
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(peer) {
        return (Some(peer), false);
    }
    let values = headers.get_all("x-forwarded-for").iter();
    let hops: Vec<&str> = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    // The last hop is the one that the nearest proxy saw; what stands before a stranger's is that one's word.
    let mut client = peer;
    for hop in hops.iter().rev() {
        let Ok(address) = hop.parse::<IpAddr>() else {
            break;
        };
        client = address;
        if !is_trusted(address) {
            break;
        }
    }
    let scheme = headers.get("x-forwarded-proto");
    let is_secure = scheme.is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"));
    (Some(client), is_secure)
}

impl Sent {
    pub(super) fn new(
        headers: HeaderMap,
        query: Option<&str>,
        (client, is_secure): (Option<IpAddr>, bool),
        at: Millis,
        proof: Proof,
    ) -> Self {
        Self {
            headers,
            query: query.map(str::to_owned),
            client,
            is_secure,
            at,
            proof,
            document: Document::None,
        }
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// A parameter of the query by its exact name.
    pub(super) fn parameter(&self, wanted: &str) -> Option<String> {
        form_urlencoded::parse(self.query.as_deref()?.as_bytes())
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.into_owned())
    }

    fn header(&self, name: &str) -> Option<String> {
        let value = self.headers.get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    /// The tags in the header or form field.
    fn tags(&self) -> Vec<(String, String)> {
        let text = self.headers.get("x-amz-tagging").map(HeaderValue::as_bytes);
        form_urlencoded::parse(text.unwrap_or_default())
            .into_owned()
            .collect()
    }

    /// The values of a condition key, by its name in lower case.
    pub(super) fn value(&self, key: &str) -> Value {
        match &self.document {
            Document::Unread(keys) if keys.iter().any(|name| key.starts_with(name)) => {
                return Value::Unknown;
            }
            Document::Read(values) => {
                if let Some((_, values)) = values.iter().find(|(name, _)| name == key) {
                    return Value::Is(values.clone());
                }
            }
            Document::Unread(_) | Document::None => {}
        }
        if let Some(name) = key.strip_prefix("s3:requestobjecttag/") {
            let found = self.tags().into_iter().find(|(tag, _)| tag == name);
            return found.map_or(Value::Absent, |(_, value)| Value::Is(vec![value]));
        }
        if key == "s3:requestobjecttagkeys" {
            let names: Vec<String> = self.tags().into_iter().map(|(name, _)| name).collect();
            return match names.is_empty() {
                true => Value::Absent,
                false => Value::Is(names),
            };
        }
        self.single(key)
            .map_or(Value::Absent, |value| Value::Is(vec![value]))
    }

    fn single(&self, key: &str) -> Option<String> {
        let moment = || OffsetDateTime::from_unix_timestamp(self.at.div_euclid(1000)).ok();
        match key {
            "aws:sourceip" => self.client.map(|client| client.to_canonical().to_string()),
            "aws:securetransport" => Some(self.is_secure.to_string()),
            "aws:useragent" => self.header("user-agent"),
            "aws:referer" => self.header("referer"),
            "aws:currenttime" => moment()?.format(&Rfc3339).ok(),
            "aws:epochtime" => Some(self.at.div_euclid(1000).to_string()),
            "s3:prefix" | "s3:delimiter" | "s3:max-keys" => self.parameter(key.get(3..)?),
            "s3:versionid" => self
                .parameter("versionId")
                .filter(|version| !version.is_empty())
                .or_else(|| self.copied_version()),
            "s3:authtype" => match self.proof {
                Proof::Header => Some("REST-HEADER".to_owned()),
                Proof::Handed => Some("REST-QUERY-STRING".to_owned()),
                Proof::Form => Some("POST".to_owned()),
                Proof::None => None,
            },
            "s3:signatureversion" => self.signature_version(),
            "s3:signatureage" => {
                let signed = self.signed_at()?;
                Some((self.at - signed).max(0).to_string())
            }
            "s3:if-match" | "s3:if-none-match" => self.header(key.get(3..)?),
            "s3:x-amz-copy-source" => {
                let source = self.header("x-amz-copy-source")?;
                let source = source
                    .split_once('?')
                    .map_or(source.as_str(), |(path, _)| path);
                let path = percent_decode_str(source.trim_start_matches('/'));
                Some(path.decode_utf8_lossy().into_owned())
            }
            "s3:object-lock-mode" | "s3:object-lock-legal-hold" => {
                self.header(&format!("x-amz-{}", key.get(3..)?))
            }
            "s3:object-lock-retain-until-date" => {
                self.header("x-amz-object-lock-retain-until-date")
            }
            "s3:object-lock-remaining-retention-days" => {
                let until = self.header("x-amz-object-lock-retain-until-date")?;
                let until = OffsetDateTime::parse(&until, &Rfc3339).ok()?;
                let left = until.unix_timestamp() - self.at.div_euclid(1000);
                Some((left.max(0) / (24 * 3600)).to_string())
            }
            _ => {
                let name = key.strip_prefix("s3:")?;
                name.starts_with("x-amz-").then(|| self.header(name))?
            }
        }
    }

    fn copied_version(&self) -> Option<String> {
        let source = self.header("x-amz-copy-source")?;
        let (_, query) = source.split_once('?')?;
        form_urlencoded::parse(query.as_bytes())
            .find(|(name, _)| name == "versionId")
            .map(|(_, value)| value.into_owned())
    }

    fn signature_version(&self) -> Option<String> {
        let is_4 = match self.proof {
            Proof::None => return None,
            Proof::Header => true,
            Proof::Handed => self.parameter("X-Amz-Signature").is_some(),
            Proof::Form => self.headers.contains_key("x-amz-signature-version-4"),
        };
        Some(if is_4 { "AWS4-HMAC-SHA256" } else { "AWS" }.to_owned())
    }

    /// When it was signed, as far as it says so.
    fn signed_at(&self) -> Option<Millis> {
        let text = match self.proof {
            Proof::Header => self.header("x-amz-date")?,
            Proof::Handed => self.parameter("X-Amz-Date")?,
            Proof::Form | Proof::None => return None,
        };
        let format =
            time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
        let moment = time::PrimitiveDateTime::parse(&text, &format).ok()?;
        Some(moment.assume_utc().unix_timestamp() * 1000)
    }

    /// The token of a temporary key, from the header or a presigned URL's query.
    pub(super) fn token(&self) -> Option<Vec<u8>> {
        const HEADER: HeaderName = HeaderName::from_static("x-amz-security-token");
        if let Some(value) = self.headers.get(HEADER) {
            return Some(value.as_bytes().to_vec());
        }
        let named = ["X-Amz-Security-Token", "x-amz-security-token"];
        let found = named.iter().find_map(|name| self.parameter(name));
        found.map(String::into_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    fn sent(pairs: &[(&'static str, &str)], query: &str) -> Sent {
        let origin = (Some("::ffff:10.0.0.7".parse().unwrap()), true);
        Sent::new(
            headers(pairs),
            Some(query),
            origin,
            1_600_000_000_500,
            Proof::Header,
        )
    }

    #[test]
    fn condition_keys_have_the_values_of_the_request() {
        let sent = sent(
            &[
                ("user-agent", "curl"),
                ("x-amz-acl", "private"),
                ("x-amz-tagging", "a=1&b=x%20y"),
                ("x-amz-copy-source", "/src/p%C3%A4th?versionId=v1"),
                ("x-amz-date", "20200913T122630Z"),
            ],
            "list-type=2&prefix=home%2F&max-keys=5",
        );
        for (key, value) in [
            ("aws:sourceip", Some("10.0.0.7")),
            ("aws:securetransport", Some("true")),
            ("aws:useragent", Some("curl")),
            ("aws:referer", None),
            ("aws:currenttime", Some("2020-09-13T12:26:40Z")),
            ("aws:epochtime", Some("1600000000")),
            ("s3:prefix", Some("home/")),
            ("s3:delimiter", None),
            ("s3:max-keys", Some("5")),
            ("s3:x-amz-acl", Some("private")),
            ("s3:x-amz-copy-source", Some("src/päth")),
            ("s3:versionid", Some("v1")),
            ("s3:requestobjecttag/a", Some("1")),
            ("s3:requestobjecttag/b", Some("x y")),
            ("s3:requestobjecttag/c", None),
            ("s3:authtype", Some("REST-HEADER")),
            ("s3:signatureversion", Some("AWS4-HMAC-SHA256")),
            ("s3:signatureage", Some("10500")),
            ("aws:unheardof", None),
        ] {
            let expected = value.map_or(Value::Absent, |v| Value::Is(vec![v.to_owned()]));
            assert_eq!(sent.value(key), expected, "{key}");
        }
        let keys = Value::Is(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(sent.value("s3:requestobjecttagkeys"), keys);
    }

    #[test]
    fn a_document_that_is_not_read_is_unknown() {
        let mut sent = sent(&[], "");
        sent.document = Document::Unread(&["s3:requestobjecttag"]);
        assert_eq!(sent.value("s3:requestobjecttag/a"), Value::Unknown);
        assert_eq!(sent.value("s3:prefix"), Value::Absent);
        sent.document = Document::Read(vec![("s3:requestobjecttag/a".into(), vec!["1".into()])]);
        assert_eq!(
            sent.value("s3:requestobjecttag/a"),
            Value::Is(vec!["1".into()])
        );
    }

    #[test]
    fn only_trusted_proxies_say_where_a_request_came_from() {
        let trusted = [Network::parse("10.0.0.0/8").unwrap()];
        let said = headers(&[
            ("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.0.0.9"),
            ("x-forwarded-proto", "https"),
        ]);
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        assert_eq!(
            origin(ip("10.0.0.1"), &said, &trusted),
            (ip("1.2.3.4"), true)
        );
        assert_eq!(
            origin(ip("9.9.9.9"), &said, &trusted),
            (ip("9.9.9.9"), false)
        );
        assert_eq!(
            origin(ip("10.0.0.1"), &headers(&[]), &trusted),
            (ip("10.0.0.1"), false)
        );
        assert_eq!(origin(None, &said, &trusted), (None, false));
    }
}
