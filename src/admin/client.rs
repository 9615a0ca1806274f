//! The other side of `/v1`: how a command asks the server that runs on its data directory.
//!
//! One request a connection, to a server of the same version, over an address that the server itself wrote
//! down: the few lines of HTTP/1.1 here need no client library.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::RunFile;
use crate::content::{FsckOrder, FsckReport};
use crate::tasks::{GcReport, KeyCommand, KeyReport};

/// How long the server may take to accept the connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long a probe may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(5);
/// Most bytes of an answer.
const ANSWER_MAX: u64 = 64 << 20;

/// Why a running server gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It cannot be reached, or hung up.
    #[error("{address} does not answer: {source}")]
    Unreachable {
        /// Its admin listener.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// It refused or failed.
    #[error("it answered {status}: {error}")]
    Refused {
        /// The status.
        status: u16,
        /// What it said.
        error: String,
    },
    /// The answer is not what was asked for.
    #[error("its answer cannot be read: {0}")]
    Unreadable(String),
}

/// Asks one running server.
#[derive(Debug)]
pub struct Client {
    server: RunFile,
}

impl Client {
    /// A client of the server that wrote `server`.
    pub fn new(server: RunFile) -> Self {
        Self { server }
    }

    /// Collects and sweeps, and waits for the end of it, however long that takes.
    pub async fn gc(&self) -> Result<GcReport, ClientError> {
        self.ask("/v1/gc", b"").await
    }

    /// Compares rows and backends, and waits for the end of it, however long that takes.
    pub async fn fsck(&self, order: &FsckOrder) -> Result<FsckReport, ClientError> {
        let body = serde_json::to_vec(order)
            .map_err(|error| ClientError::Unreadable(error.to_string()))?;
        self.ask("/v1/fsck", &body).await
    }

    /// Does what is asked of the wrapping keys, and waits for the end of it.
    pub async fn keys(&self, command: &KeyCommand) -> Result<KeyReport, ClientError> {
        let body = serde_json::to_vec(command)
            .map_err(|error| ClientError::Unreadable(error.to_string()))?;
        self.ask("/v1/keys", &body).await
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, ClientError> {
        let address = reachable(self.server.admin);
        let answer = self
            .exchange(address, path, body)
            .await
            .map_err(|source| ClientError::Unreachable { address, source })?;
        let (status, body) = parse(&answer)
            .ok_or_else(|| ClientError::Unreadable("it is not HTTP/1.1".to_owned()))?;
        if status == 200 {
            return serde_json::from_slice(body)
                .map_err(|error| ClientError::Unreadable(error.to_string()));
        }
        #[derive(serde::Deserialize)]
        struct Failure {
            error: String,
        }
        let error = match serde_json::from_slice::<Failure>(body) {
            Ok(failure) => failure.error,
            Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
        };
        Err(ClientError::Refused { status, error })
    }

    async fn exchange(&self, address: SocketAddr, path: &str, body: &[u8]) -> io::Result<Vec<u8>> {
        let connect = TcpStream::connect(address);
        let mut stream = tokio::time::timeout(CONNECT_DEADLINE, connect).await??;
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.server.token.reveal(),
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        stream.write_all(body).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
        Ok(answer)
    }
}

/// Asks for one of the paths that need no token, and fails unless the answer is 200.
pub async fn probe(listen: SocketAddr, path: &str) -> Result<(), ClientError> {
    let address = reachable(listen);
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX).read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = tokio::time::timeout(PROBE_DEADLINE, exchange)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|source| ClientError::Unreachable { address, source })?;
    match parse(&answer) {
        Some((200, _)) => Ok(()),
        Some((status, body)) => Err(ClientError::Refused {
            status,
            error: String::from_utf8_lossy(body).trim().to_owned(),
        }),
        None => Err(ClientError::Unreadable("it is not HTTP/1.1".to_owned())),
    }
}

/// The address to connect to for a listener on `address`, which may be on all of them.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// Status and body of an answer that ends with the connection. One that was cut short has no body of the
/// announced length.
fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let body = &answer[end + 4..];
    let mut lines = std::str::from_utf8(&answer[..end]).ok()?.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    (length? == body.len()).then_some((status.parse().ok()?, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_one_cut_short_is_not() {
        let whole = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\nx: y\r\n\r\n{}";
        assert_eq!(parse(whole), Some((401, &b"{}"[..])));
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(parse(b"SSH-2.0-x\r\n\r\n"), None);
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_the_loopback() {
        let all: SocketAddr = "0.0.0.0:9001".parse().unwrap();
        assert_eq!(reachable(all).to_string(), "127.0.0.1:9001");
        let all: SocketAddr = "[::]:9001".parse().unwrap();
        assert_eq!(reachable(all).to_string(), "[::1]:9001");
        let one: SocketAddr = "10.1.2.3:9001".parse().unwrap();
        assert_eq!(reachable(one), one);
    }
}
