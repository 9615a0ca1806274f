//! The other side of `/v1`: how a command asks the server that runs on its data directory.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::RunFile;
use super::told::{LINES, Line};
use crate::content::{FsckOrder, FsckReport};
use crate::model::progress::Tell;
use crate::tasks::{GcReport, KeyCommand, KeyReport};

/// How long the server may take to accept the connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long a probe may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(5);
/// Most bytes of a line.
const LINE_MAX: usize = 64 << 20;

/// Why a running server gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It cannot be reached, or hung up.
    #[error("{address} does not answer: {}", root(.source))]
    Unreachable {
        /// Its admin listener.
        address: SocketAddr,
        /// Why.
        source: reqwest::Error,
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
    pub async fn gc(&self, tell: Tell<'_>) -> Result<GcReport, ClientError> {
        self.ask("/v1/gc", &(), tell).await
    }

    /// Compares rows and backends, and waits for the end of it, however long that takes.
    pub async fn fsck(&self, order: &FsckOrder, tell: Tell<'_>) -> Result<FsckReport, ClientError> {
        self.ask("/v1/fsck", order, tell).await
    }

    /// Does what is asked of the wrapping keys, and waits for the end of it.
    pub async fn keys(
        &self,
        command: &KeyCommand,
        tell: Tell<'_>,
    ) -> Result<KeyReport, ClientError> {
        self.ask("/v1/keys", command, tell).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        tell: Tell<'_>,
    ) -> Result<T, ClientError> {
        let address = reachable(self.server.admin);
        let away = |source| ClientError::Unreachable { address, source };
        let body = serde_json::to_vec(body).map_err(unreadable)?;
        let asked = client().map_err(away)?;
        let asked = asked
            .post(format!("http://{address}{path}"))
            .bearer_auth(self.server.token.reveal())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, LINES)
            .body(body);
        let mut answer = accepted(asked.send().await.map_err(away)?, address).await?;
        let mut lines = Lines::default();
        while let Some(piece) = answer.chunk().await.map_err(away)? {
            lines.push(&piece)?;
            while let Some(line) = lines.next()? {
                match line {
                    Line::Progress(progress) => tell(progress),
                    Line::Report(report) => return Ok(report),
                    Line::Failure { status, error } => {
                        return Err(ClientError::Refused { status, error });
                    }
                }
            }
        }
        Err(ClientError::Unreadable("it ends too early".to_owned()))
    }
}

/// Asks for one of the paths that need no token, and fails unless the answer is 200.
pub async fn probe(listen: SocketAddr, path: &str) -> Result<(), ClientError> {
    let address = reachable(listen);
    let away = |source| ClientError::Unreachable { address, source };
    let asked = client().map_err(away)?;
    let asked = asked
        .get(format!("http://{address}{path}"))
        .timeout(PROBE_DEADLINE);
    let answer = asked.send().await.map_err(away)?;
    accepted(answer, address).await.map(|_| ())
}

fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_DEADLINE)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
}

/// The answer, if it is 200; otherwise what it says.
async fn accepted(
    answer: reqwest::Response,
    address: SocketAddr,
) -> Result<reqwest::Response, ClientError> {
    #[derive(serde::Deserialize)]
    struct Failure {
        error: String,
    }
    let status = answer.status().as_u16();
    if status == 200 {
        return Ok(answer);
    }
    let away = |source| ClientError::Unreachable { address, source };
    let body = answer.bytes().await.map_err(away)?;
    let error = match serde_json::from_slice::<Failure>(&body) {
        Ok(failure) => failure.error,
        Err(_) => String::from_utf8_lossy(&body).trim().to_owned(),
    };
    Err(ClientError::Refused { status, error })
}

/// The lines of an answer, as its pieces come.
#[derive(Default)]
struct Lines {
    text: Vec<u8>,
}

impl Lines {
    fn push(&mut self, piece: &[u8]) -> Result<(), ClientError> {
        if self.text.len() + piece.len() > LINE_MAX {
            return Err(unreadable("a line is too long"));
        }
        self.text.extend_from_slice(piece);
        Ok(())
    }

    /// The next line that is whole.
    fn next<T: DeserializeOwned>(&mut self) -> Result<Option<Line<T>>, ClientError> {
        let Some(end) = self.text.iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        let line = serde_json::from_slice(&self.text[..end]).map_err(unreadable)?;
        self.text.drain(..=end);
        Ok(Some(line))
    }
}

fn unreadable(why: impl ToString) -> ClientError {
    ClientError::Unreadable(why.to_string())
}

/// What was wrong at the bottom of it: an error of the client library says only what it was about.
fn root(error: &reqwest::Error) -> String {
    let mut root: &dyn Error = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_however_they_are_cut() {
        let text = b"{\"progress\":{\"step\":\"a\",\"done\":1,\"total\":null}}\n{\"report\":7}\n";
        for cut in 0..=text.len() {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for piece in [&text[..cut], &text[cut..]] {
                lines.push(piece).unwrap();
                while let Some(line) = lines.next::<u32>().unwrap() {
                    seen.push(match line {
                        Line::Progress(progress) => progress.done as u32,
                        Line::Report(report) => report,
                        Line::Failure { .. } => unreachable!("it was done"),
                    });
                }
            }
            assert_eq!(seen, [1, 7], "{cut}");
        }
        let mut lines = Lines::default();
        lines.push(b"{\"report\":\"seven\"}\n").unwrap();
        assert!(lines.next::<u32>().is_err());
        let too_long = vec![b' '; LINE_MAX + 1];
        assert!(lines.push(&too_long).is_err());
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
