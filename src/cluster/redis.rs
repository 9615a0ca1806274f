//! What Redis is used for: a stream that documents are added to, and a channel that all nodes speak and listen on.
//!
//! A connection is given up after a failure, and its user makes a new one when it is time: so the servers of a
//! Sentinel or a cluster are asked anew who is who, and nothing is queued for a server that does not answer.

use std::future::Future;
use std::time::Duration;

use fred::error::Error;
use fred::prelude::{
    Builder, Client, ClientLike, Config, EventInterface, PubsubInterface, StreamsInterface,
};
use fred::types::{ConnectHandle, Message};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::model::fault::{Fault, Kind};
use crate::model::url::check_query;

/// How long a farewell may take.
const QUIT_DEADLINE: Duration = Duration::from_secs(1);
/// How long a server of a channel may take for one step.
const STEP_TIMEOUT: Duration = Duration::from_secs(3);
/// How long it may take to reach a channel, by way of other servers too.
const OPEN_TIMEOUT: Duration = Duration::from_secs(8);
/// Messages kept for a listener that is behind; after that it misses some.
const BACKLOG_MAX: usize = 1024;
/// Kinds of URLs there are. With `-sentinel` they name Sentinels, with `-cluster` nodes of a cluster.
const SCHEMES: [&str; 6] = [
    "redis",
    "rediss",
    "redis-sentinel",
    "rediss-sentinel",
    "redis-cluster",
    "rediss-cluster",
];

/// Reads a URL. The error is for an operator and repeats nothing of it.
pub(super) fn parse(url: &str) -> Result<Config, String> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    if !SCHEMES.contains(&scheme) {
        return Err(format!(
            "expected a URL that begins with one of {}, each followed by ://",
            SCHEMES.join(", ")
        ));
    }
    // What the client does not know it ignores.
    let parameters: &[&str] = match scheme {
        _ if scheme.ends_with("-sentinel") => &[
            "node",
            "sentinelServiceName",
            "sentinelUsername",
            "sentinelPassword",
        ],
        _ if scheme.ends_with("-cluster") => &["node"],
        _ => &[],
    };
    check_query(url, parameters)?;
    Config::from_url(url).map_err(|error| match error.kind() {
        fred::error::ErrorKind::Tls => {
            "the certificates this system trusts cannot be read; see SSL_CERT_FILE".to_owned()
        }
        _ if scheme.ends_with("-sentinel") => format!(
            "expected {scheme}://USER:PASSWORD@HOST:PORT/DATABASE?sentinelServiceName=NAME&node=HOST:PORT"
        ),
        _ if scheme.ends_with("-cluster") => {
            format!("expected {scheme}://USER:PASSWORD@HOST:PORT?node=HOST:PORT")
        }
        _ => format!("expected {scheme}://USER:PASSWORD@HOST:PORT/DATABASE"),
    })
}

/// One connected client, which ends with this value.
struct Connection {
    client: Client,
    task: ConnectHandle,
}

impl Connection {
    async fn open(config: &Config) -> Result<Self, Fault> {
        // Without a policy a lost connection ends the client.
        let built = Builder::from_config(config.clone())
            .with_connection_config(|connection| {
                connection.connection_timeout = STEP_TIMEOUT;
                connection.internal_command_timeout = STEP_TIMEOUT;
                connection.max_command_attempts = 1;
            })
            .with_performance_config(|performance| {
                performance.default_command_timeout = STEP_TIMEOUT;
                performance.broadcast_channel_capacity = BACKLOG_MAX;
            })
            .build();
        let client = built.map_err(away)?;
        let task = client.init().await.map_err(away)?;
        Ok(Self { client, task })
    }

    async fn close(self) {
        // One that does not answer is dropped all the same.
        let _ = tokio::time::timeout(QUIT_DEADLINE, self.client.quit()).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn away(error: Error) -> Fault {
    Fault::new(Kind::Unavailable, "reach Redis").source(error)
}

async fn opened<T>(opening: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let outcome = tokio::time::timeout(OPEN_TIMEOUT, opening).await;
    outcome.unwrap_or_else(|_| {
        Err(Fault::new(Kind::Unavailable, "reach Redis").context("no answer in time"))
    })
}

/// Speaks on a channel.
pub(super) struct Publisher(Connection);

impl Publisher {
    /// Connects.
    pub(super) async fn open(config: &Config) -> Result<Self, Fault> {
        Ok(Self(opened(Connection::open(config)).await?))
    }

    /// Sends `text` to all who listen now. After a failure the connection is of no use any more.
    pub(super) async fn send(&self, channel: &str, text: String) -> Result<(), Fault> {
        let sending = self.0.client.publish::<i64, _, _>(channel, text);
        match tokio::time::timeout(STEP_TIMEOUT, sending).await {
            Ok(sent) => sent.map(|_| ()).map_err(away),
            Err(_) => Err(Fault::new(Kind::Unavailable, "send hint").context("no answer in time")),
        }
    }

    /// Says farewell.
    pub(super) async fn close(self) {
        self.0.close().await;
    }
}

/// Listens on a channel.
pub(super) struct Subscriber {
    connection: Connection,
    messages: Receiver<Message>,
}

/// What a listener gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A message.
    Text(String),
    /// It was behind, and some messages are lost.
    Missed,
}

impl Subscriber {
    /// Connects and listens.
    pub(super) async fn open(config: &Config, channel: &str) -> Result<Self, Fault> {
        opened(async {
            let connection = Connection::open(config).await?;
            let messages = connection.client.message_rx();
            connection.client.subscribe(channel).await.map_err(away)?;
            Ok(Self {
                connection,
                messages,
            })
        })
        .await
    }

    /// The next message. Cancel-safe.
    pub(super) async fn receive(&mut self) -> Result<Heard, Fault> {
        let lost = || Fault::new(Kind::Unavailable, "listen for hints").context("connection lost");
        tokio::select! {
            biased;
            received = self.messages.recv() => match received {
                // What is no text is no message of ours.
                Ok(message) => Ok(Heard::Text(message.value.into_string().unwrap_or_default())),
                Err(RecvError::Lagged(_)) => Ok(Heard::Missed),
                Err(RecvError::Closed) => Err(lost()),
            },
            _ = &mut self.connection.task => Err(lost()),
        }
    }

    /// Says farewell.
    pub(super) async fn close(self) {
        self.connection.close().await;
    }
}

/// A stream.
pub struct Stream {
    config: Config,
    key: String,
    timeout: Duration,
    client: Option<Client>,
}

impl Stream {
    /// The stream under `key` at `url`; connects to nothing yet. Fails with [`Kind::Config`] on a URL that is
    /// none.
    pub fn new(url: &str, key: &str, timeout: Duration) -> Result<Self, Fault> {
        let config = parse(url).map_err(|problem| {
            Fault::new(Kind::Config, "read the URL of a Redis server").context(problem)
        })?;
        Ok(Self {
            config,
            key: key.to_owned(),
            timeout,
            client: None,
        })
    }

    /// Adds an entry with the fields `id` and `event`. When this returns, the server has it; when it fails, the
    /// server may have it.
    pub async fn append(&mut self, id: i64, event: &str) -> Result<(), Fault> {
        let fault = || Fault::new(Kind::Unavailable, "add to Redis stream");
        let outcome = tokio::time::timeout(self.timeout, self.try_append(id, event)).await;
        let failed = match outcome {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => fault().source(error),
            Err(_) => fault().context("no answer in time"),
        };
        if let Some(client) = self.client.take() {
            let _ = tokio::time::timeout(QUIT_DEADLINE, client.quit()).await;
        }
        Err(failed)
    }

    async fn try_append(&mut self, id: i64, event: &str) -> Result<(), fred::error::Error> {
        let client = match &self.client {
            Some(client) => client,
            None => {
                // Without a policy a lost connection ends the client, and a new one is made here.
                let client = Builder::from_config(self.config.clone()).build()?;
                client.init().await?;
                self.client.insert(client)
            }
        };
        let fields = vec![("id", id.to_string()), ("event", event.to_owned())];
        let _: String = client
            .xadd(self.key.as_str(), false, None::<()>, "*", fields)
            .await?;
        Ok(())
    }
}
