//! One Redis stream that documents are added to.
//!
//! The connection is made when it is needed and given up after a failure: who adds tries again.

use std::time::Duration;

use fred::prelude::{Builder, Client, ClientLike, Config, StreamsInterface};

use crate::model::fault::{Fault, Kind};

/// How long a farewell may take.
const QUIT_DEADLINE: Duration = Duration::from_secs(1);

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
        let config = Config::from_url(url)
            // The source may repeat the URL and the password in it.
            .map_err(|_| Fault::new(Kind::Config, "read the URL of a Redis server"))?;
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
