//! Reading blobs that lie on another node's own disk, from that node.
//!
//! ```text
//!   GET http://ADDRESS/blobs/BACKEND/NAME?start=S&end=E      bytes S..E of the blob, exactly
//!       x-osproxy-peer: NODE             who is asked, by name
//!       x-osproxy-time: MILLISECONDS     when, by the database's clock
//!       authorization: OSPROXY-PEER HEX  HMAC-SHA256 of all of that under a key that the master key gives
//! ```
//!
//! The signature is good for one node, one blob, one range and one minute: what is overheard opens nothing else. The
//! asked node answers from its own disk or not at all, so no request goes round in circles. Bytes travel as they are
//! stored; a network that others listen to needs encryption at rest, or a tunnel.
//!
//! A node that does not answer is [`Kind::Unavailable`]; only the node itself says that a blob is not there.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use hmac::{Hmac, KeyInit, Mac};
use moka::sync::Cache;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::Sha256;

use crate::meta::{MetaStore, nodes};
use crate::model::clock::{Clock, Millis};
use crate::model::fault::{Fault, Kind};

/// The header that says who is asked, and in an answer who answers.
pub const PEER_HEADER: &str = "x-osproxy-peer";
/// The header that says when.
pub const TIME_HEADER: &str = "x-osproxy-time";
const SCHEME: &str = "OSPROXY-PEER ";

/// How far apart the time of a question and that of its answer may be.
const VALID: Millis = 60_000;
/// How long a peer may take to accept a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// How long it may take to begin its answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// How long it may be silent in the middle of one.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long a node's address is used; one that does not answer is looked up at once.
const REMEMBERED_FOR: Duration = Duration::from_secs(1);
/// Addresses remembered.
const REMEMBERED: u64 = 2_000;
/// Connections to one peer that wait for the next request.
const IDLE_CONNECTIONS: usize = 16;

/// What all nodes of an install sign their questions with.
#[derive(Clone)]
pub struct PeerKey([u8; 32]);

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerKey(***)")
    }
}

/// One question to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask<'a> {
    /// Who is asked.
    pub node: &'a str,
    /// The backend, by the name its row has.
    pub backend: &'a str,
    /// The blob's name there.
    pub blob: &'a str,
    /// Its bytes, half-open.
    pub range: Range<u64>,
    /// When.
    pub time: Millis,
}

impl PeerKey {
    /// What the master key is asked for it by.
    pub const PURPOSE: &[u8] = b"osproxy peers";

    /// The key that the master key gives for this.
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The value of `authorization` for a question.
    pub fn sign(&self, ask: &Ask<'_>) -> String {
        let tag = self.tag(ask).finalize().into_bytes();
        format!("{SCHEME}{}", hex::encode(tag))
    }

    /// Whether `authorization` is that of this question, asked about `now`. Takes a time that tells nothing of the
    /// signature.
    pub fn verify(&self, ask: &Ask<'_>, authorization: &str, now: Millis) -> bool {
        let given = authorization.strip_prefix(SCHEME);
        let Some(given) = given.and_then(|given| hex::decode(given).ok()) else {
            return false;
        };
        now.abs_diff(ask.time) <= VALID.unsigned_abs() && self.tag(ask).verify_slice(&given).is_ok()
    }

    /// No field holds a line's end, so no two questions have the same text.
    fn tag(&self, ask: &Ask<'_>) -> Hmac<Sha256> {
        let mut tag =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        let Ask {
            node,
            backend,
            blob,
            range: Range { start, end },
            time,
        } = ask;
        let text = format!("GET\n{node}\n{backend}\n{blob}\n{start}\n{end}\n{time}");
        tag.update(text.as_bytes());
        tag
    }
}

/// The other nodes, as far as their disks go. Shared by all reads.
pub struct Peers {
    meta: MetaStore,
    clock: Clock,
    key: PeerKey,
    client: reqwest::Client,
    addresses: Cache<String, Arc<str>>,
}

impl Peers {
    /// The peers that the database knows of.
    pub fn new(meta: MetaStore, clock: Clock, key: PeerKey) -> Result<Self, Fault> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_DEADLINE)
            .read_timeout(SILENCE_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .build()
            .map_err(|error| Fault::new(Kind::Internal, "prepare to ask peers").source(error))?;
        Ok(Self {
            meta,
            clock,
            key,
            client,
            addresses: Cache::builder()
                .max_capacity(REMEMBERED)
                .time_to_live(REMEMBERED_FOR)
                .build(),
        })
    }

    /// Bytes `range` of a blob at the own backend of `node`: exactly those, or a fault in their place. No more than
    /// the network holds is read ahead.
    pub async fn read(
        &self,
        node: &str,
        backend: &str,
        blob: &str,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, Fault>>, Fault> {
        let away = |context: &dyn fmt::Display| {
            Fault::new(Kind::Unavailable, "read from peer")
                .context(format_args!("node {node}"))
                .context(context)
        };
        let address = self.address(node).await?;
        let address = address.ok_or_else(|| away(&"it is not there, or has no node.listen"))?;
        let ask = Ask {
            node,
            backend,
            blob,
            range: range.clone(),
            time: self.clock.now(),
        };
        // The name of an adopted object is a path.
        let escaped = utf8_percent_encode(blob, NON_ALPHANUMERIC);
        let url = format!(
            "http://{address}/blobs/{backend}/{escaped}?start={}&end={}",
            range.start, range.end
        );
        let sent = self
            .client
            .get(url)
            .header(PEER_HEADER, node)
            .header(TIME_HEADER, ask.time.to_string())
            .header("authorization", self.key.sign(&ask))
            .send();
        let answer = match tokio::time::timeout(ANSWER_DEADLINE, sent).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                self.addresses.invalidate(node);
                return Err(away(&address).source(error));
            }
            Err(_) => {
                self.addresses.invalidate(node);
                return Err(away(&address).context("no answer in time"));
            }
        };
        let length = range.end - range.start;
        let is_peer =
            answer.headers().get(PEER_HEADER).map(|it| it.as_bytes()) == Some(node.as_bytes());
        match answer.status().as_u16() {
            // Whoever else listens there now knows nothing about blobs.
            _ if !is_peer => {
                self.addresses.invalidate(node);
                Err(away(&address).context("another listens there"))
            }
            200 if answer.content_length() == Some(length) => Ok(body(answer, node, length)),
            404 => Err(Fault::new(Kind::NotFound, "read from peer")
                .context(format_args!("node {node}"))
                .context(format_args!("backend {backend}"))
                .context(format_args!("blob {blob}"))),
            status => Err(away(&address).context(format_args!("it answered {status}"))),
        }
    }

    async fn address(&self, node: &str) -> Result<Option<Arc<str>>, Fault> {
        if let Some(known) = self.addresses.get(node) {
            return Ok(Some(known));
        }
        let name = node.to_owned();
        let found = self
            .meta
            .read("find peer", move |session| {
                Box::pin(async move { nodes::address_of(session, &name).await })
            })
            .await
            .map_err(|fault: Fault| fault)?;
        let found = found.map(Arc::from);
        if let Some(address) = &found {
            self.addresses.insert(node.to_owned(), Arc::clone(address));
        }
        Ok(found)
    }
}

/// The bytes of an answer; a fault when they end early.
fn body(
    answer: reqwest::Response,
    node: &str,
    length: u64,
) -> BoxStream<'static, Result<Bytes, Fault>> {
    let node = node.to_owned();
    let broken = move || {
        Fault::new(Kind::Unavailable, "read from peer").context(format_args!("node {node}"))
    };
    stream::try_unfold((answer, length), move |(mut answer, left)| {
        let broken = broken.clone();
        async move {
            if left == 0 {
                return Ok(None);
            }
            let piece = answer
                .chunk()
                .await
                .map_err(|error| broken().source(error))?;
            let piece = piece.ok_or_else(|| broken().context("its answer is too short"))?;
            let left = left
                .checked_sub(piece.len() as u64)
                .ok_or_else(|| broken().context("its answer is too long"))?;
            Ok(Some((piece, (answer, left))))
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_good_for_its_own_question_alone() {
        let key = PeerKey::new([7; 32]);
        let ask = Ask {
            node: "a",
            backend: "disk@a",
            blob: "00ff",
            range: 5..10,
            time: 1_000_000,
        };
        let signature = key.sign(&ask);
        assert!(key.verify(&ask, &signature, 1_000_000 + VALID));
        assert!(key.verify(&ask, &signature, 1_000_000 - VALID));
        assert!(!key.verify(&ask, &signature, 1_000_001 + VALID));
        assert!(!key.verify(&ask, &signature, 999_999 - VALID));
        let others = [
            Ask {
                node: "b",
                ..ask.clone()
            },
            Ask {
                backend: "disk@b",
                ..ask.clone()
            },
            Ask {
                blob: "00fe",
                ..ask.clone()
            },
            Ask {
                range: 4..10,
                ..ask.clone()
            },
            Ask {
                range: 5..11,
                ..ask.clone()
            },
            Ask {
                time: 1_000_001,
                ..ask.clone()
            },
        ];
        for other in others {
            assert!(!key.verify(&other, &signature, 1_000_000), "{other:?}");
        }
        assert!(!PeerKey::new([8; 32]).verify(&ask, &signature, 1_000_000));
        for cut in 0..signature.len() {
            assert!(!key.verify(&ask, &signature[..cut], 1_000_000), "{cut}");
        }
        assert!(!format!("{key:?}").contains('7'));
    }
}
