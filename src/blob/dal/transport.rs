//! What is checked of every HTTP answer of a service before OpenDAL sees it.
//!
//! A ranged read must be answered with that range: a service that ignores it would have its first bytes taken for
//! others. Bodies that OpenDAL gathers in memory (listings, errors) end at a limit, whatever the service sends.

use std::ops::Range;

use futures::StreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderMap, Request, Response, StatusCode};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, HttpTransporter};

/// Bytes of an error's body.
const ERROR_MAX_BYTES: u64 = 1 << 20;
/// Bytes of any other body that is gathered: the listing of one directory, for services that have no pages.
const GATHERED_MAX_BYTES: u64 = 64 << 20;

/// A transport whose answers are checked.
pub(super) struct Checked(HttpTransporter);

impl Checked {
    /// Checks the answers that come by `inner`.
    pub(super) fn over(inner: &HttpTransporter) -> HttpTransporter {
        HttpTransporter::new(Self(inner.clone()))
    }
}

impl HttpTransport for Checked {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        let asked = asked_range(request.headers());
        let response = self.0.fetch(request).await?;
        let (parts, body) = response.into_parts();
        let limit = match (&asked, parts.status.is_success()) {
            (Some(asked), true) => {
                check_answered(asked, parts.status, &parts.headers)?;
                // Streamed, and counted by its reader.
                return Ok(Response::from_parts(parts, body));
            }
            (None, true) => GATHERED_MAX_BYTES,
            (_, false) => ERROR_MAX_BYTES,
        };
        let body = body.map_inner(|stream| {
            let mut left = limit;
            Box::new(stream.map(move |piece| {
                let piece = piece?;
                left = left.checked_sub(piece.len() as u64).ok_or_else(|| {
                    Error::new(
                        ErrorKind::Unexpected,
                        "an answer is longer than any should be",
                    )
                })?;
                Ok(piece)
            }))
        });
        Ok(Response::from_parts(parts, body))
    }
}

/// The range that a request names by both ends.
fn asked_range(headers: &HeaderMap) -> Option<Range<u64>> {
    let (first, last) = headers
        .get(RANGE)?
        .to_str()
        .ok()?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    Some(first..last.checked_add(1)?)
}

/// Fails unless a success is about the whole range that was asked for.
fn check_answered(
    asked: &Range<u64>,
    status: StatusCode,
    headers: &HeaderMap,
) -> opendal::Result<()> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let answered = match header(CONTENT_RANGE) {
        // Some services answer a range with 200; what they sent is what they say it is.
        Some(text) => text
            .strip_prefix("bytes ")
            .and_then(|text| text.split_once('/'))
            .and_then(|(range, _)| range.split_once('-'))
            .and_then(|(first, last)| Some(number(first)?..number(last)?.checked_add(1)?)),
        // All of the blob, which may be what was asked for.
        None if status != StatusCode::PARTIAL_CONTENT => header(CONTENT_LENGTH)
            .and_then(number)
            .map(|length| 0..length),
        None => None,
    };
    match answered {
        Some(answered) if answered == *asked => Ok(()),
        Some(answered)
            if header(CONTENT_RANGE).is_some()
                && answered.start == asked.start
                && answered.end < asked.end =>
        {
            Err(Error::new(
                ErrorKind::RangeNotSatisfied,
                "the blob ends within the range that was asked for",
            ))
        }
        _ => Err(Error::new(
            ErrorKind::Unexpected,
            "another range was answered than was asked for",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(http::HeaderName, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), http::HeaderValue::from_static(value)))
            .collect()
    }

    fn refusal(asked: Range<u64>, status: StatusCode, headers: &HeaderMap) -> Option<ErrorKind> {
        check_answered(&asked, status, headers)
            .err()
            .map(|error| error.kind())
    }

    #[test]
    fn a_range_named_by_both_ends_is_what_was_asked_for() {
        let asked = |text| asked_range(&headers(&[(RANGE, text)]));
        assert_eq!(asked("bytes=5-9"), Some(5..10));
        for other in [
            "bytes=5-",
            "bytes=-5",
            "pages=1-2",
            "bytes=a-b",
            "bytes=0-18446744073709551615",
        ] {
            assert_eq!(asked(other), None, "{other}");
        }
    }

    #[test]
    fn only_the_range_asked_for_is_an_answer() {
        let refusal = |text| {
            let headers = headers(&[(CONTENT_RANGE, text)]);
            let [partial, ok] = [StatusCode::PARTIAL_CONTENT, StatusCode::OK]
                .map(|status| refusal(5..10, status, &headers));
            assert_eq!(partial, ok, "{text}");
            partial
        };
        assert_eq!(refusal("bytes 5-9/100"), None);
        assert_eq!(refusal("bytes 5-9/*"), None);
        assert_eq!(refusal("bytes 5-7/8"), Some(ErrorKind::RangeNotSatisfied));
        for wrong in [
            "bytes 0-9/100",
            "bytes 6-9/100",
            "bytes 5-10/100",
            "5-9/100",
            "bytes */100",
            "x",
        ] {
            assert_eq!(refusal(wrong), Some(ErrorKind::Unexpected), "{wrong}");
        }
        let none = HeaderMap::new();
        assert!(super::check_answered(&(5..10), StatusCode::PARTIAL_CONTENT, &none).is_err());
    }

    #[test]
    fn the_whole_blob_answers_only_the_range_of_all_of_it() {
        let whole = |asked: Range<u64>| {
            let headers = headers(&[(CONTENT_LENGTH, "10")]);
            refusal(asked, StatusCode::OK, &headers)
        };
        assert_eq!(whole(0..10), None);
        for other in [0..9, 1..10, 5..8, 0..11] {
            assert_eq!(whole(other), Some(ErrorKind::Unexpected));
        }
        assert!(refusal(0..10, StatusCode::OK, &HeaderMap::new()).is_some());
    }
}
