//! The S3 operations a workload is made of, on one keep-alive connection.
//!
//! Every operation checks what can be checked cheaply (status, length, ETag where one is needed)
//! and ends in a [`Failure`] otherwise. After a failure the connection is given up, so that no
//! response can be taken for that of a later request.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::content::{ContentId, ContentSource};
use crate::http::{Connection, ResponseHead};
use crate::sign::{EMPTY_DIGEST, RequestHead, Signer, UNSIGNED, sha256_hex};

/// How much of a body is made and sent at a time.
const PIECE_BYTES: usize = 128 * 1024;
/// Room before the first piece, so that head and piece leave in one write.
const HEAD_BYTES: usize = 4 * 1024;
/// How long a client with `Expect: 100-continue` waits before it sends the body all the same.
const CONTINUE_WAIT: Duration = Duration::from_secs(1);
/// How much of an unexpected answer is kept for the report.
const EXCERPT_BYTES: usize = 300;
/// What a bucket is told to encrypt everything.
const ENCRYPTION: &str = "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault>\
    <SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule>\
    </ServerSideEncryptionConfiguration>";

/// Where and as whom to work.
pub(crate) struct Target {
    /// The server.
    pub address: SocketAddr,
    /// The bucket, by path style.
    pub bucket: String,
    /// The access key.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
}

/// Why an operation failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection broke or the answer was no HTTP.
    Broken(io::Error),
    /// The answer had another status than expected; with the beginning of its body.
    Status(u16, String),
    /// The answer was well-formed and wrong.
    Wrong(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Broken(error) => write!(f, "connection: {error}"),
            Failure::Status(status, body) => write!(f, "status {status}: {body}"),
            Failure::Wrong(what) => f.write_str(what),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Broken(error)
    }
}

/// What the `x-amz-content-sha256` of an upload says.
#[derive(Clone, Debug)]
pub(crate) enum PayloadDigest {
    /// `UNSIGNED-PAYLOAD`.
    Unsigned,
    /// The SHA-256 of the body, made before the request begins.
    Sha256(String),
}

impl PayloadDigest {
    fn as_str(&self) -> &str {
        match self {
            PayloadDigest::Unsigned => UNSIGNED,
            PayloadDigest::Sha256(digest) => digest,
        }
    }
}

/// Whether the client waits for the server's word before it sends a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendBody {
    /// Right behind the head.
    AtOnce,
    /// After `100 Continue`, or a second; not at all when the final answer comes first.
    WhenAsked,
}

/// A body to upload.
pub(crate) struct Upload<'a> {
    /// What to send.
    pub content: ContentId,
    /// How much of it.
    pub size: u64,
    /// How it is signed.
    pub digest: &'a PayloadDigest,
    /// When it is sent.
    pub send: SendBody,
}

/// What an upload did.
pub(crate) struct Uploaded {
    /// Bytes of the body that went out.
    pub sent_bytes: u64,
    /// The ETag of the answer, with quotes.
    pub etag: Option<String>,
}

/// What to look at in the body of a GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Its length.
    Length,
    /// Its length and every byte.
    Bytes,
}

/// An S3 client with one connection, opened when first needed and after each loss.
pub(crate) struct Client {
    target: Arc<Target>,
    source: Arc<ContentSource>,
    signer: Signer,
    connection: Option<Connection>,
    head: Vec<u8>,
    outgoing: Vec<u8>,
    expected: Vec<u8>,
}

impl Client {
    /// A client that is not connected yet.
    pub(crate) fn new(target: Arc<Target>, source: Arc<ContentSource>) -> Self {
        let host = target.address.to_string();
        let signer = Signer::new(&target.access_key, &target.secret_key, &host);
        Self {
            target,
            source,
            signer,
            connection: None,
            head: Vec::with_capacity(HEAD_BYTES),
            outgoing: vec![0; HEAD_BYTES + PIECE_BYTES],
            expected: Vec::new(),
        }
    }

    /// Opens the connection if there is none.
    pub(crate) async fn connect(&mut self) -> Result<(), Failure> {
        if self.connection.is_none() {
            self.connection = Some(Connection::open(self.target.address).await?);
        }
        Ok(())
    }

    /// Gives the connection up: after a failure, or when an operation was cancelled.
    pub(crate) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Creates the bucket, or finds that it exists.
    pub(crate) async fn create_bucket(&mut self) -> Result<(), Failure> {
        let path = format!("/{}", self.target.bucket);
        let request = RequestHead {
            content_length: Some(0),
            ..bare("PUT", &path, "")
        };
        match self.small(&request, &[], 200).await {
            Ok(_) | Err(Failure::Status(409, _)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Lets everything that is put into the bucket be encrypted, without a word in the requests for it.
    pub(crate) async fn encrypt_bucket(&mut self) -> Result<(), Failure> {
        let path = format!("/{}", self.target.bucket);
        let request = RequestHead {
            content_length: Some(ENCRYPTION.len() as u64),
            payload: UNSIGNED,
            ..bare("PUT", &path, "encryption=")
        };
        self.small(&request, ENCRYPTION.as_bytes(), 200).await?;
        Ok(())
    }

    /// SHA-256 of a content, for a signed upload.
    pub(crate) fn digest(&mut self, content: ContentId, size: u64) -> PayloadDigest {
        let mut digest = Sha256::new();
        let mut offset = 0;
        while offset < size {
            let length = (size - offset).min(PIECE_BYTES as u64) as usize;
            let piece = &mut self.outgoing[..length];
            self.source.fill(content, offset, piece);
            digest.update(&*piece);
            offset += length as u64;
        }
        PayloadDigest::Sha256(hex::encode(digest.finalize()))
    }

    /// PutObject or, with a query, UploadPart.
    pub(crate) async fn put(
        &mut self,
        key: &str,
        query: &str,
        upload: &Upload<'_>,
    ) -> Result<Uploaded, Failure> {
        self.connect().await?;
        let path = self.path(key);
        let request = RequestHead {
            payload: upload.digest.as_str(),
            content_length: Some(upload.size),
            extra: match upload.send {
                SendBody::AtOnce => "",
                SendBody::WhenAsked => "expect: 100-continue\r\n",
            },
            ..bare("PUT", &path, query)
        };
        self.signer.write_head(&request, &mut self.head);
        let mut early = None;
        if upload.send == SendBody::WhenAsked {
            let connection = self.connection.as_mut().expect("connect has opened it");
            connection.send(&self.head).await?;
            self.head.clear();
            let wait = tokio::time::timeout(CONTINUE_WAIT, connection.head("PUT")).await;
            early = wait.ok().transpose()?.filter(|answer| answer.status >= 200);
        }
        let (answer, sent_bytes) = match early {
            Some(answer) => (answer, 0),
            None => {
                self.send_body(upload).await?;
                (self.final_head("PUT").await?, upload.size)
            }
        };
        self.finish(&answer, 200, None).await?;
        if sent_bytes < upload.size {
            // The server still expects a body of the announced length on this connection.
            self.disconnect();
        }
        Ok(Uploaded {
            sent_bytes,
            etag: answer.etag,
        })
    }

    /// GetObject of a whole object, which is `content` of length `size`.
    pub(crate) async fn get(
        &mut self,
        key: &str,
        content: ContentId,
        size: u64,
        check: Check,
    ) -> Result<(), Failure> {
        let path = self.path(key);
        let answer = self.ask(&bare("GET", &path, ""), &[]).await?;
        if answer.status != 200 {
            return self.finish(&answer, 200, None).await;
        }
        if answer.content_length.is_some_and(|length| length != size) {
            let length = answer.content_length;
            return self.wrong(format!("GET {key}: length {length:?}, expected {size}"));
        }
        let connection = self.connection.as_mut().expect("ask has opened it");
        let mut offset = 0;
        while let Some(piece) = connection.piece().await? {
            if check == Check::Bytes
                && !self
                    .source
                    .matches(content, offset, piece, &mut self.expected)
            {
                return self.wrong(format!("GET {key}: wrong bytes at or after {offset}"));
            }
            offset += piece.len() as u64;
        }
        if offset != size {
            return self.wrong(format!("GET {key}: {offset} bytes, expected {size}"));
        }
        self.settle(&answer);
        Ok(())
    }

    /// GetObject of a range (half-open) of an object, whose bytes are those of `content` from its
    /// own beginning.
    pub(crate) async fn get_range(
        &mut self,
        key: &str,
        range: Range<u64>,
        content: ContentId,
    ) -> Result<(), Failure> {
        let path = self.path(key);
        let extra = format!("range: bytes={}-{}\r\n", range.start, range.end - 1);
        let request = RequestHead {
            extra: &extra,
            ..bare("GET", &path, "")
        };
        let length = range.end - range.start;
        let answer = self.ask(&request, &[]).await?;
        // Some servers answer a range with 200; the length tells it from the whole object.
        if answer.status == 200 && answer.content_length != Some(length) {
            return self.wrong(format!("GET {key}: the range {range:?} was not heeded"));
        }
        let expected = if answer.status == 200 { 200 } else { 206 };
        let mut bytes = Vec::new();
        self.finish(&answer, expected, Some(&mut bytes)).await?;
        if bytes.len() as u64 != length
            || !self.source.matches(content, 0, &bytes, &mut self.expected)
        {
            return self.wrong(format!("GET {key}: wrong bytes in the range {range:?}"));
        }
        Ok(())
    }

    /// HeadObject: the object is there and has this size.
    pub(crate) async fn head(&mut self, key: &str, size: u64) -> Result<(), Failure> {
        let path = self.path(key);
        let answer = self.ask(&bare("HEAD", &path, ""), &[]).await?;
        self.finish(&answer, 200, None).await?;
        match answer.content_length {
            Some(length) if length == size => Ok(()),
            length => self.wrong(format!("HEAD {key}: length {length:?}, expected {size}")),
        }
    }

    /// HeadObject: the object is gone.
    pub(crate) async fn absent(&mut self, key: &str) -> Result<(), Failure> {
        let path = self.path(key);
        let answer = self.ask(&bare("HEAD", &path, ""), &[]).await?;
        self.finish(&answer, 404, None).await
    }

    /// DeleteObject.
    pub(crate) async fn delete(&mut self, key: &str) -> Result<(), Failure> {
        let path = self.path(key);
        let answer = self.ask(&bare("DELETE", &path, ""), &[]).await?;
        self.finish(&answer, 204, None).await
    }

    /// One page of ListObjectsV2, its XML put in `page`.
    pub(crate) async fn list(&mut self, query: &str, page: &mut Vec<u8>) -> Result<(), Failure> {
        let path = format!("/{}", self.target.bucket);
        let answer = self.ask(&bare("GET", &path, query), &[]).await?;
        page.clear();
        self.finish(&answer, 200, Some(page)).await
    }

    /// A POST with a small signed body, answered by XML: the multipart calls.
    pub(crate) async fn post(
        &mut self,
        key: &str,
        query: &str,
        body: &[u8],
    ) -> Result<String, Failure> {
        let path = self.path(key);
        let payload = sha256_hex(body);
        let request = RequestHead {
            payload: &payload,
            content_length: Some(body.len() as u64),
            ..bare("POST", &path, query)
        };
        let answer = self.small(&request, body, 200).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// A request with a small body and a small answer, which is collected.
    async fn small(
        &mut self,
        request: &RequestHead<'_>,
        body: &[u8],
        expected: u16,
    ) -> Result<Vec<u8>, Failure> {
        let answer = self.ask(request, body).await?;
        let mut collected = Vec::new();
        self.finish(&answer, expected, Some(&mut collected)).await?;
        Ok(collected)
    }

    async fn ask(
        &mut self,
        request: &RequestHead<'_>,
        body: &[u8],
    ) -> Result<ResponseHead, Failure> {
        self.connect().await?;
        self.signer.write_head(request, &mut self.head);
        self.head.extend_from_slice(body);
        let connection = self.connection.as_mut().expect("connect has opened it");
        connection.send(&self.head).await?;
        self.final_head(request.method).await
    }

    /// Sends what is left of the head and the whole body, the first piece with the head.
    async fn send_body(&mut self, upload: &Upload<'_>) -> Result<(), Failure> {
        let connection = self.connection.as_mut().expect("put has opened it");
        let mut lead = self.head.len().min(HEAD_BYTES);
        self.outgoing[..lead].copy_from_slice(&self.head[..lead]);
        let mut offset = 0;
        while offset < upload.size || lead > 0 {
            let length = (upload.size - offset).min(PIECE_BYTES as u64) as usize;
            let piece = &mut self.outgoing[lead..lead + length];
            self.source.fill(upload.content, offset, piece);
            if let Err(error) = connection.send(&self.outgoing[..lead + length]).await {
                // A server that refuses early closes while the body is on its way; what it said
                // explains more than the broken pipe.
                return match connection.head("PUT").await {
                    Ok(answer) => Err(Failure::Status(answer.status, error.to_string())),
                    Err(_) => Err(error.into()),
                };
            }
            offset += length as u64;
            lead = 0;
        }
        Ok(())
    }

    async fn final_head(&mut self, method: &str) -> Result<ResponseHead, Failure> {
        let connection = self
            .connection
            .as_mut()
            .expect("the request was sent on it");
        loop {
            let answer = connection.head(method).await?;
            if answer.status >= 200 {
                return Ok(answer);
            }
        }
    }

    /// Reads the body to its end, into `keep` if given, and compares the status.
    async fn finish(
        &mut self,
        answer: &ResponseHead,
        expected: u16,
        mut keep: Option<&mut Vec<u8>>,
    ) -> Result<(), Failure> {
        let connection = self
            .connection
            .as_mut()
            .expect("the answer was read from it");
        let mut excerpt = Vec::new();
        while let Some(piece) = connection.piece().await? {
            if answer.status != expected {
                let room = EXCERPT_BYTES - excerpt.len();
                excerpt.extend_from_slice(&piece[..piece.len().min(room)]);
            } else if let Some(keep) = keep.as_deref_mut() {
                keep.extend_from_slice(piece);
            }
        }
        self.settle(answer);
        if answer.status == expected {
            return Ok(());
        }
        let excerpt = String::from_utf8_lossy(&excerpt).replace('\n', " ");
        Err(Failure::Status(answer.status, excerpt))
    }

    /// The answer is read: drops a connection that the server is closing.
    fn settle(&mut self, answer: &ResponseHead) {
        if answer.close {
            self.connection = None;
        }
    }

    fn wrong<T>(&mut self, what: String) -> Result<T, Failure> {
        self.connection = None;
        Err(Failure::Wrong(what))
    }

    fn path(&self, key: &str) -> String {
        format!("/{}/{key}", self.target.bucket)
    }
}

/// A request without a body.
fn bare<'a>(method: &'static str, path: &'a str, query: &'a str) -> RequestHead<'a> {
    RequestHead {
        method,
        path,
        query,
        payload: EMPTY_DIGEST,
        content_length: None,
        extra: "",
    }
}
