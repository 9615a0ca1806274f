//! How one event reaches its target: by HTTP, or into a Redis stream.

use std::time::Duration;

use super::config::{Kind, Target};
use crate::cluster::Stream;
use crate::meta::events::EventRow;
use crate::model::fault::{Fault, Kind as FaultKind};

/// A way to a target.
pub(super) enum Sender {
    Webhook(Webhook),
    Redis(Stream),
}

/// A URL that events are posted to.
pub(super) struct Webhook {
    client: reqwest::Client,
    url: reqwest::Url,
    token: String,
}

impl Sender {
    /// The way to a target; `None` for one that fetches its events.
    pub(super) fn new(name: &str, target: &Target) -> Result<Option<Self>, Fault> {
        let timeout = Duration::from_secs(target.timeout_seconds.get());
        let url = target.url.reveal();
        match target.kind {
            Kind::Queue => Ok(None),
            Kind::Redis => Stream::new(url, &target.stream, timeout)
                .map(|stream| Some(Self::Redis(stream)))
                .map_err(|fault| fault.context(format_args!("notification.target.{name}.url"))),
            Kind::Webhook => {
                let config = || {
                    Fault::new(FaultKind::Config, "read url")
                        .context(format_args!("notification.target.{name}.url"))
                };
                let client = reqwest::Client::builder()
                    .timeout(timeout)
                    // Where events go is what the configuration says, and nothing an answer says.
                    .redirect(reqwest::redirect::Policy::none())
                    .pool_max_idle_per_host(1)
                    .user_agent("osproxy")
                    .build()
                    .map_err(|error| config().source(error))?;
                Ok(Some(Self::Webhook(Webhook {
                    client,
                    url: url
                        .parse()
                        .map_err(|error| config().source(format!("{error}")))?,
                    token: target.token.reveal().to_owned(),
                })))
            }
        }
    }

    /// Hands one event over. When this returns, the target has it; when it fails, the target may have it.
    pub(super) async fn send(&mut self, event: &EventRow) -> Result<(), Fault> {
        match self {
            Self::Redis(stream) => stream.append(event.id, &event.payload).await,
            Self::Webhook(webhook) => webhook.post(event).await,
        }
    }
}

impl Webhook {
    async fn post(&self, event: &EventRow) -> Result<(), Fault> {
        let fault = || Fault::new(FaultKind::Unavailable, "post event");
        let mut request = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("x-osproxy-event-id", event.id.to_string())
            .body(event.payload.clone());
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        let response = request
            .send()
            .await
            // The URL may hold what nobody should read.
            .map_err(|error| fault().source(error.without_url()))?;
        if response.status().is_success() {
            Ok(())
        } else {
            Err(fault().context(format_args!("answered {}", response.status().as_u16())))
        }
    }
}
