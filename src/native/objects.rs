//! Reading: what a number names, whole or in ranges, and what is known of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::header::{
    self, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE,
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName,
    LAST_MODIFIED, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::StreamExt;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::Native;
use super::access::{Caller, Object};
use super::call::{Call, list};
use super::kind::is_active;
use super::refusal::{Problem, Refusal};
use super::uploads::MD5_METADATA;
use crate::auth::Action;
use crate::model::bucket::Versioning;
use crate::model::clock::Millis;
use crate::model::content::RangeRequest;
use crate::model::fault::Fault;
use crate::model::file::NAME_METADATA;
use crate::model::ids::Uid;
use crate::model::object::{ETagList, ReadConditions, ReadDecision, Version, WriteConditions};
use crate::namespace::{Condition, DeleteRequest, Numbered, Reader};

/// What a version without a type is answered as.
const DEFAULT_TYPE: &str = "application/octet-stream";
/// What keeps a file that a browser may run away from everything else at this address.
const SANDBOX: HeaderValue = HeaderValue::from_static("sandbox");
/// What RFC 8187 lets stand in an extended value.
const ATTRIBUTE: AsciiSet = NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Whether a browser shows a file or saves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Inline,
    Saved,
}

impl Native {
    /// The version of a number, if the caller may read it: what it may not even see is not there.
    pub(super) async fn readable(
        &self,
        caller: &Caller,
        uid: Uid,
    ) -> Result<Option<Numbered>, Refusal> {
        let Some(found) = self.namespace.numbered(uid).await? else {
            return Ok(None);
        };
        let action = match found.is_current {
            true => Action::GetObject,
            false => Action::GetObjectVersion,
        };
        let version = &found.object.version;
        let (bucket, key) = (&found.bucket, found.key.as_str());
        let may = self.may(caller, action, bucket, key, Object::Found(version));
        Ok(may.then_some(found))
    }

    /// Answers with the bytes of a version, as far as the request wants them.
    pub(super) async fn send(
        &self,
        call: &Call,
        found: &Numbered,
        name: &str,
        shown: Shown,
    ) -> Result<Response, Refusal> {
        let version = &found.object.version;
        let readable = self.namespace.check_readable(&found.bucket, version, None);
        readable.await?;
        let modified = http_date(version.modified);
        let etag = format!("\"{}\"", version.etag);
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        set(headers, ETAG, &etag);
        set(headers, LAST_MODIFIED, &modified);
        if let Some(cached) = &version.headers.cache_control {
            set(headers, CACHE_CONTROL, cached);
        }
        match conditions(&call.headers).decide(&version.etag, version.modified) {
            ReadDecision::Proceed => {}
            ReadDecision::Failed => return Err(Condition::PreconditionFailed.into()),
            ReadDecision::NotModified => {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                return Ok(response);
            }
        }
        let wanted = call
            .header(header::RANGE)
            .filter(|_| range_applies(&call.headers, &etag, &modified))
            .and_then(RangeRequest::parse);
        let range = match wanted {
            None => 0..version.size,
            Some(wanted) => wanted.resolve(version.size).map_err(|_| {
                let text = "no byte of the range exists";
                Refusal::new(Problem::Range(version.size), text)
            })?,
        };
        let content_type = version.headers.content_type.as_deref();
        let content_type = content_type.unwrap_or(DEFAULT_TYPE);
        set(headers, CONTENT_TYPE, content_type);
        set(headers, CONTENT_DISPOSITION, &disposition(shown, name));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if is_active(content_type) {
            headers.insert(CONTENT_SECURITY_POLICY, SANDBOX);
        }
        for (name, value) in [
            (CONTENT_ENCODING, &version.headers.content_encoding),
            (CONTENT_LANGUAGE, &version.headers.content_language),
        ] {
            if let Some(value) = value {
                set(headers, name, value);
            }
        }
        headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
        if wanted.is_some() {
            let text = format!("bytes {}-{}/{}", range.start, range.end - 1, version.size);
            set(headers, CONTENT_RANGE, &text);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        let reader = self.namespace.open(&found.object, range, None);
        *response.body_mut() = body_of(reader).await?;
        Ok(response)
    }

    /// Deletes the version of a number for good.
    pub(super) async fn delete(&self, caller: &Caller, uid: Uid) -> Result<(), Refusal> {
        let found = self.namespace.numbered(uid).await?;
        let found = found.ok_or_else(Refusal::missing)?;
        let version = &found.object.version;
        let action = match found.bucket.versioning {
            Versioning::Never => Action::DeleteObject,
            Versioning::Enabled | Versioning::Suspended => Action::DeleteObjectVersion,
        };
        let (bucket, key) = (&found.bucket, found.key.as_str());
        self.admit(caller, action, bucket, key, Object::Found(version))?;
        let deleted = self.namespace.delete(DeleteRequest {
            bucket: std::sync::Arc::clone(bucket),
            key: found.key.clone(),
            version: Some(version.id()),
            conditions: WriteConditions::default(),
            only: Some(uid),
            reason: crate::namespace::Reason::Asked,
            origin: caller.origin(bucket),
            bypass_governance: false,
            recheck: Some(self.recheck(caller, action, key)),
        });
        match deleted.await {
            Ok(_) => Ok(()),
            // Another version has taken its place since.
            Err(Condition::PreconditionFailed) => Err(Refusal::missing()),
            Err(condition) => Err(condition.into()),
        }
    }

    /// The MD5 of a version's bytes: as it was computed, else as its client told it; `None` when nobody knows.
    pub(super) async fn md5_of(&self, version: &Version) -> Result<Option<[u8; 16]>, Refusal> {
        if version.etag.parts.is_none() {
            return Ok(Some(version.etag.md5));
        }
        if let Some(digests) = self.namespace.digests(version.content).await? {
            return Ok(Some(digests.md5));
        }
        let told = metadata(version, MD5_METADATA).and_then(|text| BASE64.decode(text).ok());
        Ok(told.and_then(|bytes| bytes.try_into().ok()))
    }
}

fn metadata<'v>(version: &'v Version, wanted: &str) -> Option<&'v str> {
    let mut metadata = version.headers.metadata.iter();
    metadata.find_map(|(name, value)| (name == wanted).then_some(value.as_str()))
}

/// What a version was called by who sent it: of one that did not come by this API, the end of its key.
pub(super) fn name_of(found: &Numbered) -> String {
    let own = metadata(&found.object.version, NAME_METADATA)
        .and_then(|text| percent_decode_str(text).decode_utf8().ok())
        .filter(|name| !name.is_empty());
    match own {
        Some(name) => name.into_owned(),
        None => {
            let key = found.key.as_str().trim_end_matches('/');
            key.rsplit('/').next().unwrap_or_default().to_owned()
        }
    }
}

/// `Content-Disposition` (RFC 6266): a plain name for old clients, and the name itself as RFC 8187 writes it. Nothing of
/// a name can end the value or the header.
fn disposition(shown: Shown, name: &str) -> String {
    let kind = match shown {
        Shown::Inline => "inline",
        Shown::Saved => "attachment",
    };
    let plain: String = name
        .chars()
        .map(|c| match c {
            ' '..='~'
                if !matches!(
                    c,
                    '"' | '\\' | '/' | '%' | '?' | '*' | ':' | '<' | '>' | '|'
                ) =>
            {
                c
            }
            _ => '_',
        })
        .collect();
    let exact: String = name
        .chars()
        .map(|c| match c {
            '/' | '\\' => '_',
            c if c.is_control() => '_',
            c => c,
        })
        .collect();
    let exact = utf8_percent_encode(&exact, &ATTRIBUTE);
    format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{exact}")
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A time as HTTP writes it.
pub(super) fn http_date(time: Millis) -> String {
    let seconds = u64::try_from(time.div_euclid(1000)).unwrap_or_default();
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<Millis> {
    let time: SystemTime = httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()?;
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    Millis::try_from(since.as_millis()).ok()
}

/// The conditions of a read; a date that is none is ignored (RFC 9110, 13.1.3).
fn conditions(headers: &HeaderMap) -> ReadConditions {
    let tags = |name: HeaderName| list(headers, name).map(|value| ETagList::parse(&value));
    ReadConditions {
        if_match: tags(header::IF_MATCH),
        if_none_match: tags(header::IF_NONE_MATCH),
        if_modified_since: date(headers, header::IF_MODIFIED_SINCE),
        if_unmodified_since: date(headers, header::IF_UNMODIFIED_SINCE),
    }
}

/// Whether `Range` counts: not when `If-Range` names another state (RFC 9110, 13.1.5). Both are compared exactly; a
/// version never changes, so its date is as good as its ETag.
fn range_applies(headers: &HeaderMap, etag: &str, modified: &str) -> bool {
    headers
        .get(header::IF_RANGE)
        .is_none_or(|value| value == etag || value == modified)
}

/// A reader as a body. What fits in one read is sent as one piece, and a failure before the first byte is still an
/// answer of its own.
async fn body_of(mut reader: Reader) -> Result<Body, Refusal> {
    let Some(first) = reader.first().await? else {
        return Ok(Body::empty());
    };
    if reader.is_done() {
        return Ok(Body::from(first));
    }
    let rest = futures::stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        match reader.next().await? {
            Ok(bytes) => Some((Ok(bytes), Some(reader))),
            Err(fault) => {
                tracing::warn!(%fault, "body ended early");
                Some((Err(fault), None))
            }
        }
    });
    let first = futures::stream::iter([Ok::<_, Fault>(first)]);
    Ok(Body::from_stream(first.chain(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_is_told_plainly_and_exactly() {
        assert_eq!(
            disposition(Shown::Saved, "example file？?@$.txt"),
            "attachment; filename=\"example file__@$.txt\"; filename*=UTF-8''example%20file%EF%BC%9F%3F%40$.txt"
        );
        assert_eq!(
            disposition(Shown::Inline, "a\"; b=\r\nSet-Cookie: c/..\\d"),
            "inline; filename=\"a_; b=__Set-Cookie_ c_.._d\"; filename*=UTF-8''a%22%3B%20b%3D__Set-Cookie%3A%20c_.._d"
        );
    }

    proptest! {
        #[test]
        fn no_name_ends_its_header(name in any::<String>()) {
            let text = disposition(Shown::Inline, &name);
            prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(text.matches('"').count(), 2);
            prop_assert!(HeaderValue::from_str(&text).is_ok());
            let exact = text.rsplit("''").next().unwrap();
            let back = percent_decode_str(exact).decode_utf8().unwrap().into_owned();
            prop_assert!(!back.contains(['/', '\\', '\n', '\r']));
        }
    }

    #[test]
    fn a_range_counts_only_for_the_state_it_is_of() {
        let (etag, modified) = ("\"x\"", "Sun, 06 Nov 1994 08:49:37 GMT");
        let with = |value: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(header::IF_RANGE, HeaderValue::from_static(value));
            }
            range_applies(&headers, etag, modified)
        };
        assert!(with(None) && with(Some("\"x\"")) && with(Some("Sun, 06 Nov 1994 08:49:37 GMT")));
        assert!(!with(Some("\"y\"")) && !with(Some("W/\"x\"")) && !with(Some("x")));
        assert!(!with(Some("Sun, 06 Nov 1994 08:49:38 GMT")));
    }

    #[test]
    fn dates_are_those_of_http() {
        assert_eq!(http_date(784_111_777_999), "Sun, 06 Nov 1994 08:49:37 GMT");
        let mut headers = HeaderMap::new();
        let text = HeaderValue::from_static("Sunday, 06-Nov-94 08:49:37 GMT");
        headers.insert(header::IF_MODIFIED_SINCE, text);
        let found = conditions(&headers);
        assert_eq!(found.if_modified_since, Some(784_111_777_000));
    }
}
