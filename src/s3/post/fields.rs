//! The form itself: its fields in memory, its file as a stream.
//!
//! What stands before the file is bounded, and so is what is read ahead of the file's reader: one frame of
//! the connection.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use http_body::{Body, Frame};
use http_body_util::BodyDataStream;
use multer::{Field, Multipart};
use s3s::{S3Error, S3Result, s3_error};

use crate::http::form::{FormBody, PreambleTooLarge};
use crate::http::{BoxError, InBody};
use crate::s3::error;

/// Most bytes of names and values before the file ("POST Object" in the S3 API reference).
const FIELDS_MAX_BYTES: usize = 20 * 1024;

/// The fields before the file, by lower-case name, each once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pairs: Vec<(String, String)>,
    bytes: usize,
}

impl Fields {
    /// Adds a field. One that comes twice is refused: what a policy allows must be what is used.
    pub(super) fn add(&mut self, name: &str, value: &str) -> S3Result<()> {
        let name = name.to_ascii_lowercase();
        self.bytes += name.len() + value.len();
        if self.bytes > FIELDS_MAX_BYTES {
            return Err(preamble_too_large());
        }
        if self.get(&name).is_some() {
            return Err(s3_error!(
                InvalidArgument,
                "The form has more than one field named '{name}'."
            ));
        }
        self.pairs.push((name, value.to_owned()));
        Ok(())
    }

    /// The value of a field, named in lower case.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find_map(|(field, value)| (field == name).then_some(value))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(name, _)| name)
    }

    /// Puts the file's name in the place of `${filename}` in every field but the policy. Of a path, only what
    /// follows the last separator is the name.
    pub(super) fn expand(&mut self, file_name: &str) {
        let name = file_name.rsplit(['/', '\\']).next().unwrap_or_default();
        for (field, value) in &mut self.pairs {
            if field != "policy" && value.contains("${filename}") {
                *value = value.replace("${filename}", name);
            }
        }
    }
}

/// A form whose fields are read and whose file is next.
pub(super) struct Opened {
    pub(super) fields: Fields,
    pub(super) file: File,
    pub(super) rest: Rest,
}

/// What follows the file.
pub(super) struct Rest {
    multipart: Multipart<'static>,
    broken: Arc<AtomicBool>,
}

/// The file's bytes. Its errors are those of the connection, or that the form is not one.
pub(super) struct File {
    field: Field<'static>,
    broken: Arc<AtomicBool>,
}

/// Reads a form up to its file.
pub(super) async fn open(body: InBody, boundary: &str) -> S3Result<Opened> {
    let (source, begun) = FormBody::new(BodyDataStream::new(body));
    let mut multipart = Multipart::new(source, boundary);
    let mut fields = Fields::default();
    loop {
        let field = multipart
            .next_field()
            .await
            .map_err(|error| of_form(&error))?;
        let Some(mut field) = field else {
            return Err(s3_error!(
                IncorrectNumberOfFilesInPostRequest,
                "POST requires exactly one file upload per request."
            ));
        };
        let name = field.name().unwrap_or_default().to_owned();
        if name.eq_ignore_ascii_case("file") {
            begun.tell();
            fields.expand(field.file_name().unwrap_or_default());
            let broken = Arc::new(AtomicBool::new(false));
            return Ok(Opened {
                fields,
                rest: Rest {
                    multipart,
                    broken: Arc::clone(&broken),
                },
                file: File { field, broken },
            });
        }
        let mut value = Vec::new();
        while let Some(bytes) = field.chunk().await.map_err(|error| of_form(&error))? {
            value.extend_from_slice(&bytes);
            if value.len() > FIELDS_MAX_BYTES {
                return Err(preamble_too_large());
            }
        }
        let value = String::from_utf8(value)
            .map_err(|_| s3_error!(InvalidArgument, "The field '{name}' is not valid UTF-8."))?;
        fields.add(&name, &value)?;
    }
}

impl Rest {
    /// Whether the file ended because the form is not well-formed.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Checks that the line on which the file ended was a boundary: a file that holds something like one must
    /// not be stored in part. Fields behind the file are ignored.
    pub(super) async fn close(mut self) -> S3Result<()> {
        match self.multipart.next_field().await {
            Ok(_) => Ok(()),
            Err(error) => Err(of_form(&error)),
        }
    }
}

impl Body for File {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.field)
            .poll_next(cx)
            .map(|item| match item? {
                Ok(bytes) => Some(Ok(Frame::data(bytes))),
                Err(error) => {
                    let is_read = matches!(error, multer::Error::StreamReadFailed(_));
                    self.broken.store(!is_read, Ordering::Relaxed);
                    Some(Err(error.into()))
                }
            })
    }
}

fn preamble_too_large() -> S3Error {
    s3_error!(
        MaxPostPreDataLengthExceededError,
        "Your POST request fields preceding the upload file were too large."
    )
}

pub(super) fn malformed() -> S3Error {
    s3_error!(
        MalformedPOSTRequest,
        "The body of your POST request is not well-formed multipart/form-data."
    )
}

fn of_form(error: &multer::Error) -> S3Error {
    match error {
        multer::Error::StreamReadFailed(cause) if cause.is::<PreambleTooLarge>() => {
            preamble_too_large()
        }
        multer::Error::StreamReadFailed(cause) => {
            let cause: &(dyn Error + 'static) = cause.as_ref();
            error::of_body(cause)
        }
        _ => malformed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::RequestContext;
    use http_body_util::BodyExt;

    fn part(name: &str, value: &str) -> String {
        format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    }

    fn file(name: &str, bytes: &str) -> String {
        format!(
            "--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: a/b\r\n\r\n{bytes}\r\n"
        )
    }

    async fn opened(form: String) -> S3Result<Opened> {
        let context = Arc::new(RequestContext::new());
        open(InBody::in_memory(Bytes::from(form), context), "X").await
    }

    async fn code_of(form: String) -> String {
        match opened(form).await {
            Ok(_) => String::new(),
            Err(error) => error.code().as_str().to_owned(),
        }
    }

    #[tokio::test]
    async fn fields_come_before_the_file_and_what_follows_is_ignored() {
        let form = part("Key", "u/${filename}")
            + &part("x-amz-meta-ä", "ö")
            + &file("C:\\d\\ä b.txt", "bytes")
            + &part("late", "1")
            + "--X--\r\n";
        let Opened { fields, file, rest } = opened(form).await.unwrap();
        assert_eq!(fields.get("key"), Some("u/ä b.txt"));
        assert_eq!(fields.get("x-amz-meta-ä"), Some("ö"));
        assert_eq!(fields.get("late"), None);
        assert_eq!(&file.collect().await.unwrap().to_bytes()[..], b"bytes");
        assert!(!rest.is_broken());
        rest.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_form_cut_off_in_its_file_is_broken() {
        let form = part("key", "k") + &file("f", "bytes");
        let Opened { file, rest, .. } = opened(form).await.unwrap();
        assert!(file.collect().await.is_err());
        assert!(rest.is_broken());
    }

    #[tokio::test]
    async fn a_file_that_holds_the_beginning_of_a_boundary_is_not_stored_in_part() {
        let form = part("key", "k") + &file("f", "bytes\r\n--Xyz") + "--X--\r\n";
        let Opened { file, rest, .. } = opened(form).await.unwrap();
        assert_eq!(&file.collect().await.unwrap().to_bytes()[..], b"bytes");
        let error = rest.close().await.unwrap_err();
        assert_eq!(error.code().as_str(), "MalformedPOSTRequest");
    }

    #[tokio::test]
    async fn what_is_no_form_is_refused() {
        assert_eq!(code_of(String::new()).await, "MalformedPOSTRequest");
        assert_eq!(code_of("hello".into()).await, "MalformedPOSTRequest");
        assert_eq!(
            code_of(part("key", "k") + "--X--\r\n").await,
            "IncorrectNumberOfFilesInPostRequest"
        );
        assert_eq!(
            code_of(part("key", "k") + &part("KEY", "k") + &file("f", "")).await,
            "InvalidArgument"
        );
    }

    #[tokio::test]
    async fn fields_before_the_file_are_bounded() {
        let large = "v".repeat(FIELDS_MAX_BYTES / 2);
        let form = part("a", &large) + &part("b", &large) + &part("c", &large) + &file("f", "");
        assert_eq!(code_of(form).await, "MaxPostPreDataLengthExceededError");
    }

    #[test]
    fn a_file_name_without_a_path_is_taken_whole() {
        for (path, name) in [("a/b.c", "b.c"), ("b.c", "b.c"), ("a\\b/c", "c"), ("", "")] {
            let mut fields = Fields::default();
            fields.add("key", "${filename}-${filename}").unwrap();
            fields.add("policy", "${filename}").unwrap();
            fields.expand(path);
            assert_eq!(fields.get("key"), Some(format!("{name}-{name}").as_str()));
            assert_eq!(fields.get("policy"), Some("${filename}"));
        }
    }
}
