//! The file of a form, as a stream.
//!
//! What stands before the file is bounded, and so is what is read ahead of the file's reader: one frame of the
//! connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use futures::Stream;
use multer::{Field, Multipart};

use super::refusal::{Refusal, of_body};
use crate::http::form::FormBody;
use crate::namespace::BodyError;

/// The field that holds the file.
const FIELD: &str = "file";

/// A form whose file is next.
pub(super) struct Form {
    pub(super) file: File,
    multipart: Multipart<'static>,
}

/// The file's bytes.
pub(super) struct File(Field<'static>);

/// A form is not one.
#[derive(Debug, thiserror::Error)]
#[error("not a form of type multipart/form-data with a field named file")]
struct Malformed;

fn malformed() -> Refusal {
    Refusal::wrong(Malformed.to_string())
}

fn of_form(error: &multer::Error) -> Refusal {
    match error {
        multer::Error::StreamReadFailed(cause) => of_body(cause.as_ref()),
        _ => malformed(),
    }
}

impl Form {
    /// Reads a form up to its file.
    pub(super) async fn open(content_type: Option<&str>, body: Body) -> Result<Self, Refusal> {
        let boundary = multer::parse_boundary(content_type.unwrap_or_default());
        let boundary = boundary.map_err(|_| malformed())?;
        let (source, begun) = FormBody::new(body.into_data_stream());
        let mut multipart = Multipart::new(source, boundary);
        loop {
            let field = multipart
                .next_field()
                .await
                .map_err(|error| of_form(&error))?;
            let mut field = field.ok_or_else(malformed)?;
            if field.name() == Some(FIELD) {
                begun.tell();
                return Ok(Self {
                    file: File(field),
                    multipart,
                });
            }
            while field
                .chunk()
                .await
                .map_err(|error| of_form(&error))?
                .is_some()
            {}
        }
    }

    /// Checks that the line on which the file ended was a boundary: a file that holds something like one must not
    /// be stored in part. Fields behind the file are ignored.
    pub(super) async fn close(self) -> Result<(), Refusal> {
        let Self {
            file,
            mut multipart,
        } = self;
        drop(file);
        match multipart.next_field().await {
            Ok(_) => Ok(()),
            Err(error) => Err(of_form(&error)),
        }
    }
}

impl Stream for File {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(cx).map(|item| {
            item.map(|result| {
                result.map_err(|error| match error {
                    multer::Error::StreamReadFailed(cause) => cause,
                    _ => Box::new(Malformed),
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::form::PREAMBLE_MAX_BYTES;
    use futures::TryStreamExt;

    const TYPE: Option<&str> = Some("multipart/form-data; boundary=X");

    fn field(name: &str, value: &str) -> String {
        format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    }

    async fn read(text: String) -> Result<Vec<u8>, Refusal> {
        let mut form = Form::open(TYPE, Body::from(text)).await?;
        let mut bytes = Vec::new();
        while let Some(piece) = form
            .file
            .try_next()
            .await
            .map_err(|error| of_body(error.as_ref()))?
        {
            bytes.extend_from_slice(&piece);
        }
        form.close().await?;
        Ok(bytes)
    }

    #[tokio::test]
    async fn other_fields_are_ignored() {
        let form = field("a", "1") + &field("file", "bytes") + &field("late", "2") + "--X--\r\n";
        assert_eq!(read(form).await.unwrap(), b"bytes");
        let empty = field("file", "") + "--X--\r\n";
        assert_eq!(read(empty).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn what_is_no_form_with_a_file_is_refused() {
        for form in [
            String::new(),
            "hello".to_owned(),
            field("a", "1") + "--X--\r\n",
            field("file", "cut off"),
            field("file", "bytes\r\n--Xyz") + "--X--\r\n",
            field("a", &"v".repeat(PREAMBLE_MAX_BYTES as usize * 3)) + &field("file", ""),
        ] {
            assert!(read(form.clone()).await.is_err(), "{form:.40}");
        }
        for content_type in [None, Some("application/json"), Some("multipart/form-data")] {
            let opened = Form::open(content_type, Body::from(field("file", "x"))).await;
            assert!(opened.is_err(), "{content_type:?}");
        }
    }
}
