//! ListObjects, in both versions.
//!
//! A page comes from the namespace; here it is clothed in the protocol: markers and tokens, the encoding of
//! names, and what is echoed. The token of version 2 holds the name the page ended with, so that it stays
//! good whatever is written or deleted meanwhile.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result};

use super::access::Caller;
use super::acl::owner_dto;
use super::{Gateway, answer, convert, error};
use crate::namespace::listing::{ListPage, ListQuery};

/// Most entries of a page.
pub(super) const PAGE_MAX: usize = 1000;

/// What `encoding-type=url` leaves as it is. A space is `%20`, which decoders of forms and of paths both read.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/');

/// How names are written in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As they are.
    Plain,
    /// `encoding-type=url`: as in a URL, for names that XML cannot carry.
    Url,
}

impl Encoding {
    /// The encoding a request asks for.
    pub(super) fn of(wanted: Option<&EncodingType>) -> S3Result<Self> {
        match wanted.map(EncodingType::as_str) {
            None => Ok(Self::Plain),
            Some(EncodingType::URL) => Ok(Self::Url),
            Some(_) => Err(error::invalid_argument(
                "Invalid Encoding Method specified in Request",
            )),
        }
    }

    /// A name as the answer has it.
    pub(super) fn apply(self, name: &str) -> String {
        match self {
            Self::Plain => name.to_owned(),
            Self::Url => utf8_percent_encode(name, ENCODED).to_string(),
        }
    }
}

/// Common prefixes as the answer has them.
pub(super) fn prefix_list(prefixes: &[String], encoding: Encoding) -> Vec<CommonPrefix> {
    prefixes
        .iter()
        .map(|prefix| CommonPrefix {
            prefix: Some(encoding.apply(prefix)),
        })
        .collect()
}

/// Continuation tokens: Base64 (URL alphabet) of a version byte and the name to go on after.
pub(super) struct Token;

impl Token {
    const VERSION: u8 = 1;

    pub(super) fn write(after: &str) -> String {
        let mut bytes = Vec::with_capacity(after.len() + 1);
        bytes.push(Self::VERSION);
        bytes.extend_from_slice(after.as_bytes());
        BASE64.encode(bytes)
    }

    /// The name a token holds; empty without a token.
    pub(super) fn read(token: Option<&str>) -> S3Result<String> {
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            return Ok(String::new());
        };
        BASE64
            .decode(token)
            .ok()
            .and_then(|bytes| match bytes.split_first() {
                Some((&Self::VERSION, name)) => String::from_utf8(name.to_vec()).ok(),
                _ => None,
            })
            .ok_or_else(|| error::invalid_argument("The continuation token provided is incorrect"))
    }
}

/// The name that a page after `key` begins behind. Unlike a marker or token, a start that is itself a common
/// prefix does not skip what is below it: keys there come after it. No key holds a NUL, so none lies between.
fn after_key(key: &str, delimiter: Option<&str>) -> String {
    match delimiter {
        Some(delimiter) if key.ends_with(delimiter) => format!("{key}\0"),
        _ => key.to_owned(),
    }
}

/// Whether any key or prefix of a page, or of what is echoed, must be written with references.
pub(super) fn needs_references<'n>(
    mut keys: impl Iterator<Item = &'n str>,
    prefixes: &[String],
    echoed: &[Option<&str>],
) -> bool {
    let mut rest = prefixes.iter().map(String::as_str);
    keys.any(answer::needs_references)
        || rest.any(answer::needs_references)
        || echoed
            .iter()
            .flatten()
            .any(|name| answer::needs_references(name))
}

fn page_needs_references(page: &ListPage, echoed: &[Option<&str>]) -> bool {
    let keys = page.keys.iter().map(|row| row.key.as_str());
    needs_references(keys, &page.common_prefixes, echoed)
}

/// The page's keys as the answer has them. S3 lists times in whole seconds.
fn contents(page: &mut ListPage, encoding: Encoding, owner: Option<&Owner>) -> Vec<Object> {
    let rows = std::mem::take(&mut page.keys).into_iter();
    rows.map(|row| {
        let checksum = row.checksum.as_ref();
        Object {
            key: Some(encoding.apply(row.key.as_str())),
            size: Some(row.size as i64),
            e_tag: Some(convert::etag(&row.etag)),
            last_modified: Some(convert::timestamp(row.modified.div_euclid(1000) * 1000)),
            storage_class: Some(ObjectStorageClass::from_static(
                ObjectStorageClass::STANDARD,
            )),
            checksum_algorithm: checksum
                .map(|checksum| vec![convert::algorithm_name(checksum.checksum.algorithm)]),
            checksum_type: checksum.map(|checksum| convert::kind_name(checksum.kind)),
            owner: owner.map(|bucket_owner| match row.owner {
                Some(owner) => owner_dto(owner),
                None => bucket_owner.clone(),
            }),
            restore_status: None,
        }
    })
    .collect()
}

/// An answer whose names are marked where they need references.
pub(super) fn respond<T>(output: T, needs_references: bool) -> S3Response<T> {
    let mut response = S3Response::new(output);
    if needs_references {
        response.extensions.insert(answer::Referenced);
    }
    response
}

impl Gateway {
    async fn page(&self, caller: &Caller, query: ListQuery) -> S3Result<ListPage> {
        self.namespace
            .list(caller.bucket()?, query)
            .await
            .map_err(error::of_condition)
    }

    pub(super) async fn list_objects(
        &self,
        request: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let caller = Caller::of(&request)?.clone();
        let input = request.input;
        let encoding = Encoding::of(input.encoding_type.as_ref())?;
        let limit = convert::page_size(input.max_keys, PAGE_MAX, "max-keys")?;
        let prefix = input.prefix.unwrap_or_default();
        let marker = input.marker.unwrap_or_default();
        let delimiter = input.delimiter.filter(|delimiter| !delimiter.is_empty());
        let query = ListQuery {
            prefix: prefix.clone(),
            delimiter: delimiter.clone(),
            after: marker.clone(),
            limit,
        };
        let mut page = self.page(&caller, query).await?;
        let marked = encoding == Encoding::Plain
            && page_needs_references(&page, &[Some(&prefix), Some(&marker), delimiter.as_deref()]);
        let owner = owner_dto(self.owner_of(caller.bucket()?).await?);
        let output = ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(encoding.apply(&prefix)),
            marker: Some(encoding.apply(&marker)),
            max_keys: Some(input.max_keys.unwrap_or(PAGE_MAX as i32)),
            is_truncated: Some(page.truncated),
            // Without a delimiter the last key is the next marker, and S3 leaves it to the client.
            next_marker: page
                .next
                .take()
                .filter(|_| delimiter.is_some())
                .map(|next| encoding.apply(&next)),
            common_prefixes: Some(prefix_list(&page.common_prefixes, encoding)),
            contents: Some(contents(&mut page, encoding, Some(&owner))),
            delimiter: delimiter.map(|delimiter| encoding.apply(&delimiter)),
            encoding_type: input.encoding_type,
            request_charged: None,
        };
        Ok(respond(output, marked))
    }

    pub(super) async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let caller = Caller::of(&request)?.clone();
        let input = request.input;
        let encoding = Encoding::of(input.encoding_type.as_ref())?;
        let limit = convert::page_size(input.max_keys, PAGE_MAX, "max-keys")?;
        let prefix = input.prefix.unwrap_or_default();
        let delimiter = input.delimiter.filter(|delimiter| !delimiter.is_empty());
        let start_after = input.start_after.as_deref();
        let resumed = Token::read(input.continuation_token.as_deref())?;
        // A token has passed the start already.
        let after = if resumed.is_empty() {
            after_key(start_after.unwrap_or_default(), delimiter.as_deref())
        } else {
            resumed
        };
        let query = ListQuery {
            prefix: prefix.clone(),
            delimiter: delimiter.clone(),
            after,
            limit,
        };
        let mut page = self.page(&caller, query).await?;
        let marked = encoding == Encoding::Plain
            && page_needs_references(&page, &[Some(&prefix), start_after, delimiter.as_deref()]);
        let owner = match input.fetch_owner {
            Some(true) => Some(owner_dto(self.owner_of(caller.bucket()?).await?)),
            Some(false) | None => None,
        };
        let output = ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(encoding.apply(&prefix)),
            max_keys: Some(input.max_keys.unwrap_or(PAGE_MAX as i32)),
            key_count: Some((page.keys.len() + page.common_prefixes.len()) as i32),
            is_truncated: Some(page.truncated),
            next_continuation_token: page.next.as_deref().map(Token::write),
            common_prefixes: Some(prefix_list(&page.common_prefixes, encoding)),
            contents: Some(contents(&mut page, encoding, owner.as_ref())),
            start_after: start_after.map(|start| encoding.apply(start)),
            continuation_token: input.continuation_token,
            delimiter: delimiter.map(|delimiter| encoding.apply(&delimiter)),
            encoding_type: input.encoding_type,
            request_charged: None,
        };
        Ok(respond(output, marked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_holds_any_name_exactly() {
        for name in ["a", "a/", "ä \u{1}\r\n", &"é".repeat(512)] {
            assert_eq!(Token::read(Some(&Token::write(name))).unwrap(), name);
        }
        assert_eq!(Token::read(None).unwrap(), "");
        assert_eq!(Token::read(Some("")).unwrap(), "");
    }

    #[test]
    fn a_token_of_another_make_is_refused() {
        let other_version = BASE64.encode(b"\x02key");
        let not_utf8 = BASE64.encode(b"\x01\xff");
        for bad in ["not a token", "AA==", "!", &other_version, &not_utf8] {
            let error = Token::read(Some(bad)).unwrap_err();
            assert_eq!(error.code().as_str(), "InvalidArgument", "{bad}");
        }
    }

    #[test]
    fn names_are_encoded_as_in_a_path() {
        let cases = [
            ("a b", "a%20b"),
            ("foo+1/bar", "foo%2B1/bar"),
            ("ä/x", "%C3%A4/x"),
            ("\u{1}ctl", "%01ctl"),
            ("a&<b>", "a%26%3Cb%3E"),
            ("p%/q", "p%25/q"),
            ("plain-_.~", "plain-_.~"),
        ];
        for (name, encoded) in cases {
            assert_eq!(Encoding::Url.apply(name), encoded);
            assert_eq!(Encoding::Plain.apply(name), name);
        }
    }

    #[test]
    fn only_url_is_an_encoding() {
        let wanted = |text: &'static str| EncodingType::from_static(text);
        assert_eq!(Encoding::of(None).unwrap(), Encoding::Plain);
        assert_eq!(Encoding::of(Some(&wanted("url"))).unwrap(), Encoding::Url);
        assert!(Encoding::of(Some(&wanted("morse"))).is_err());
    }

    #[test]
    fn a_start_that_is_a_common_prefix_does_not_skip_it() {
        assert_eq!(after_key("a/", Some("/")), "a/\0");
        assert_eq!(after_key("a/b", Some("/")), "a/b");
        assert_eq!(after_key("a/", None), "a/");
        assert_eq!(after_key("", Some("/")), "");
    }
}
