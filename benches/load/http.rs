//! One keep-alive HTTP/1.1 connection, with as little work per request as a client can do.
//!
//! Responses are parsed by hand into what a load generator looks at: status, length, ETag and
//! whether the connection stays. Bodies are handed out as pieces of one reused buffer. Requests are
//! never pipelined: a connection has at most one response under way.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::ops::Range;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The read buffer: an upper bound of a response's head, and what one read of a body may return.
const BUFFER_BYTES: usize = 256 * 1024;

/// The head of a response.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// `Content-Length`, also where there is no body (HEAD).
    pub content_length: Option<u64>,
    /// `ETag`, with its quotes.
    pub etag: Option<String>,
    /// The server said that it closes the connection.
    pub close: bool,
    chunked: bool,
}

/// What is left to read of the response under way.
enum Body {
    /// Nothing: the next bytes are another response.
    Done,
    /// So many bytes.
    Length(u64),
    /// A chunk-size line comes next.
    ChunkSize,
    /// So many bytes of a chunk, then its line end.
    Chunk(u64),
    /// The line end of a chunk.
    ChunkEnd,
    /// All until the server closes.
    UntilClose,
}

/// A connection and the response it is reading.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    unread: Range<usize>,
    body: Body,
}

impl Connection {
    /// Connects, without Nagle's algorithm.
    pub(crate) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; BUFFER_BYTES],
            unread: 0..0,
            body: Body::Done,
        })
    }

    /// Sends bytes of a request.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Reads the next response head, interim ones (1xx) included. `method` is that of the request:
    /// a HEAD has no body whatever its length says. Cancelled, it loses nothing already received.
    pub(crate) async fn head(&mut self, method: &str) -> io::Result<ResponseHead> {
        let mut searched = 0;
        let end = loop {
            let seen = &self.buffer[self.unread.clone()];
            if let Some(end) = find(&seen[searched..], b"\r\n\r\n") {
                break searched + end;
            }
            searched = seen.len().saturating_sub(3);
            self.receive().await?;
        };
        let start = self.unread.start;
        let head = parse_head(&self.buffer[start..start + end])?;
        self.unread.start += end + 4;
        let bare = head.status < 200 || matches!(head.status, 204 | 304);
        self.body = if bare || method == "HEAD" {
            Body::Done
        } else if head.chunked {
            Body::ChunkSize
        } else {
            head.content_length.map_or(Body::UntilClose, Body::Length)
        };
        Ok(head)
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) async fn piece(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            match self.body {
                Body::Done => return Ok(None),
                Body::Length(0) => self.body = Body::Done,
                Body::Length(left) => {
                    let taken = self.take(left).await?;
                    self.body = Body::Length(left - taken.len() as u64);
                    return Ok(Some(&self.buffer[taken]));
                }
                Body::Chunk(left) => {
                    let taken = self.take(left).await?;
                    self.body = match left - taken.len() as u64 {
                        0 => Body::ChunkEnd,
                        left => Body::Chunk(left),
                    };
                    return Ok(Some(&self.buffer[taken]));
                }
                Body::ChunkEnd => {
                    if !self.line().await?.is_empty() {
                        return Err(malformed("a chunk is longer than its size line says"));
                    }
                    self.body = Body::ChunkSize;
                }
                Body::ChunkSize => {
                    let line = self.line().await?;
                    match parse_chunk_size(&self.buffer[line])? {
                        0 => {
                            // Trailer lines, if any, end with an empty one.
                            while !self.line().await?.is_empty() {}
                            self.body = Body::Done;
                        }
                        size => self.body = Body::Chunk(size),
                    }
                }
                Body::UntilClose => match self.take(u64::MAX).await {
                    Ok(taken) => return Ok(Some(&self.buffer[taken])),
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                        self.body = Body::Done;
                    }
                    Err(error) => return Err(error),
                },
            }
        }
    }

    /// Takes up to `limit` bytes out of the buffer, at least one, reading when it is empty.
    async fn take(&mut self, limit: u64) -> io::Result<Range<usize>> {
        if self.unread.is_empty() {
            self.receive().await?;
        }
        let start = self.unread.start;
        let length = limit.min(self.unread.len() as u64) as usize;
        self.unread.start += length;
        Ok(start..start + length)
    }

    /// Takes a line out of the buffer; the answer is without its CRLF.
    async fn line(&mut self) -> io::Result<Range<usize>> {
        loop {
            let seen = &self.buffer[self.unread.clone()];
            if let Some(length) = find(seen, b"\r\n") {
                let start = self.unread.start;
                self.unread.start += length + 2;
                return Ok(start..start + length);
            }
            self.receive().await?;
        }
    }

    /// Reads more behind what is unread, at least one byte.
    async fn receive(&mut self) -> io::Result<()> {
        if self.unread.is_empty() {
            self.unread = 0..0;
        } else if self.unread.end == self.buffer.len() {
            if self.unread.start == 0 {
                return Err(malformed("a head or line is longer than the buffer"));
            }
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        let count = self
            .stream
            .read(&mut self.buffer[self.unread.end..])
            .await?;
        if count == 0 {
            return Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the server closed the connection",
            ));
        }
        self.unread.end += count;
        Ok(())
    }
}

fn parse_head(head: &[u8]) -> io::Result<ResponseHead> {
    let head = std::str::from_utf8(head).map_err(|_| malformed("a head is not text"))?;
    let mut lines = head.split('\n').map(str::trim_ascii_end);
    let status = lines
        .next()
        .filter(|line| line.starts_with("HTTP/1."))
        .and_then(|line| line.get(9..12))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| malformed("a status line is malformed"))?;
    let mut parsed = ResponseHead {
        status,
        content_length: None,
        etag: None,
        close: head.starts_with("HTTP/1.0"),
        chunked: false,
    };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            return Err(malformed("a header line has no colon"));
        };
        let value = value.trim_ascii();
        // Comparing lengths first keeps the many headers nobody looks at cheap.
        match name.len() {
            4 if name.eq_ignore_ascii_case("etag") => parsed.etag = Some(value.to_owned()),
            10 if name.eq_ignore_ascii_case("connection") => {
                parsed.close = value.eq_ignore_ascii_case("close");
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                let length = value
                    .parse()
                    .map_err(|_| malformed("a Content-Length is no number"))?;
                parsed.content_length = Some(length);
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                parsed.chunked = value.eq_ignore_ascii_case("chunked");
            }
            _ => {}
        }
    }
    Ok(parsed)
}

fn parse_chunk_size(line: &[u8]) -> io::Result<u64> {
    std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.split(';').next())
        .and_then(|size| u64::from_str_radix(size.trim(), 16).ok())
        .ok_or_else(|| malformed("a chunk's size line is malformed"))
}

/// Where `needle` begins in `haystack`. Heads are short, so looking at every position is enough.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
