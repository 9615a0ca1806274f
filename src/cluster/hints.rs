//! Hints between nodes: that something changed, and how busy each node is. Redis carries them where one is configured.
//!
//! A hint makes another node look at once instead of a little later, and nothing else: what is true is in SQL, and
//! every reader looks by itself too. So a hint may be lost, come twice or come from a stranger, and Redis may be away,
//! hang or be emptied at any time.
//!
//! - Telling is ringing a [`Bell`]: it sets a bit and waits for nothing. The bits are sent when there is somebody to
//!   take them, and kept until then; there is one for each [`Topic`], however often it is rung.
//! - All nodes speak and listen on one channel. A node also hears itself: one that has not done so for a while
//!   begins anew with fresh connections, whatever the reason is.
//! - Whenever the connection comes or goes, all bells ring here: hints may have been missed, and from now on they are
//!   waited for more or less patiently (see [`Bell::patience`]).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::draw_id;
use super::redis::{self, Heard, Publisher, Subscriber};
use crate::meta::{Bell, Carrier, Reach};
use crate::model::clock::random_fraction;
use crate::model::fault::{Fault, Kind};
use crate::model::url::ServerUrl;
use crate::telemetry::{Counted, Load, Metrics};

/// Time between two messages of a node about its load.
const BEAT: Duration = Duration::from_secs(2);
/// A connection by which a node has not heard itself for so long is given up; what another node said last is then
/// forgotten too.
const SILENCE_MAX: Duration = Duration::from_secs(6);
/// What is told within this time of a message is in the next one.
const MESSAGE_PAUSE: Duration = Duration::from_millis(50);
/// The pause after a connection that was lost; each failure after that doubles it.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long the end of a process may be held up by what it has to tell.
const FAREWELL_MAX: Duration = Duration::from_millis(1500);
/// Longest message in bytes; ours are a tenth of that.
const MESSAGE_MAX: usize = 4096;
/// Most nodes whose load is remembered; worker ids leave room for no more.
const NODES_MAX: usize = 1024;
/// Longest prefix in bytes.
const PREFIX_MAX: usize = 64;

/// Section `[redis]`: what carries hints between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `redis://USER:PASSWORD@HOST:PORT`, `redis-sentinel://...` or `redis-cluster://...`, each with `rediss` for TLS;
    /// empty for none.
    pub url: ServerUrl,
    /// How names in Redis begin. Installs that share a Redis have different ones.
    pub prefix: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: ServerUrl::default(),
            prefix: "osproxy:".to_owned(),
        }
    }
}

impl Config {
    /// Checks what the types do not. The error names the key, and repeats nothing of the URL.
    pub fn check(&self) -> Result<(), String> {
        let is_plain = (1..=PREFIX_MAX).contains(&self.prefix.len())
            && self.prefix.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain {
            return Err(format!(
                "redis.prefix: expected 1 to {PREFIX_MAX} printable ASCII characters without spaces"
            ));
        }
        if self.url.reveal().is_empty() {
            return Ok(());
        }
        redis::parse(self.url.reveal())
            .map(|_| ())
            .map_err(|problem| format!("redis.url: {problem}"))
    }
}

/// What a hint is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// Access keys, their policies, or tenants were changed.
    Access,
    /// Wrapping keys were changed.
    WrappingKeys,
    /// A bucket was made, changed or deleted.
    Buckets,
    /// Events were committed.
    Events,
    /// Jobs were committed.
    Jobs,
}

impl Topic {
    /// All of them, each at its own place.
    pub const ALL: [Self; 5] = [
        Self::Access,
        Self::WrappingKeys,
        Self::Buckets,
        Self::Events,
        Self::Jobs,
    ];

    /// Its name in messages and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::WrappingKeys => "wrapping-keys",
            Self::Buckets => "buckets",
            Self::Events => "events",
            Self::Jobs => "jobs",
        }
    }

    fn set_in(places: u64) -> impl Iterator<Item = Self> {
        Self::ALL
            .into_iter()
            .filter(move |topic| places & (1 << *topic as u32) != 0)
    }
}

/// Who gives and takes hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A node, by its number. It listens, and says how busy it is.
    Node(i64),
    /// A command. It connects when it has something to tell.
    Command,
}

/// What a node said of itself last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct NodeLoad {
    /// Its number, as in its row.
    pub node: i64,
    /// How busy it was.
    #[serde(flatten)]
    pub load: Load,
    /// How long ago that was.
    pub age_millis: u64,
}

/// Bells that are heard on all nodes, and what other nodes say of themselves. Without a Redis the bells are heard
/// here, and the others look by themselves.
pub struct Hints {
    bells: [Bell; Topic::ALL.len()],
    nodes: Loads,
    line: Option<Line>,
}

/// How busy the nodes are. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Loads(Arc<Mutex<HashMap<i64, (Instant, Load)>>>);

impl Loads {
    /// What each node said last, this one too, in the order of their numbers. Those that have not said anything for
    /// a few seconds are left out; without Redis that is all of them.
    pub fn now(&self) -> Vec<NodeLoad> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Vec<NodeLoad> {
        let nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut loads: Vec<NodeLoad> = nodes
            .iter()
            .map(|(node, (at, load))| (node, now.duration_since(*at), load))
            .filter(|(_, age, _)| *age <= SILENCE_MAX)
            .map(|(node, age, load)| NodeLoad {
                node: *node,
                load: *load,
                age_millis: age.as_millis() as u64,
            })
            .collect();
        loads.sort_by_key(|load| load.node);
        loads
    }

    fn note(&self, node: i64, load: Load, now: Instant) {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|_, (at, _)| now.duration_since(*at) <= SILENCE_MAX);
        if nodes.len() < NODES_MAX || nodes.contains_key(&node) {
            nodes.insert(node, (now, load));
        }
    }
}

/// Whether Redis answers, where one is configured. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct RedisState(Option<Arc<AtomicBool>>);

impl RedisState {
    /// Whether one is configured and is not connected now. One that hangs is so after a few seconds.
    pub fn is_away(&self) -> bool {
        let is_connected = self.0.as_ref();
        is_connected.is_some_and(|is_connected| !is_connected.load(Ordering::Relaxed))
    }
}

/// The way to the others.
struct Line {
    state: Arc<State>,
    /// Also when it is dropped without a farewell.
    stop: DropGuard,
    task: JoinHandle<()>,
}

impl Hints {
    /// Begins to tell and listen; does not wait for Redis. Fails with [`Kind::Config`] on a URL that is none.
    pub fn start(config: &Config, role: Role, metrics: &Arc<Metrics>) -> Result<Self, Fault> {
        if config.url.reveal().is_empty() {
            return Ok(Self {
                bells: std::array::from_fn(|_| Bell::default()),
                nodes: Loads::default(),
                line: None,
            });
        }
        let carrier = Arc::new(Carrier::default());
        let bells = Topic::ALL.map(|topic| Bell::carried_by(&carrier, topic as u32));
        let server = redis::parse(config.url.reveal())
            .map_err(|problem| Fault::new(Kind::Config, "read redis.url").context(problem))?;
        let (stop, nodes) = (CancellationToken::new(), Loads::default());
        let state = Arc::new(State {
            // Unlike a node's number it also tells two runs of one process apart.
            id: draw_id()?,
            role,
            channel: format!("{}hints", config.prefix),
            bells: bells.clone(),
            carrier,
            is_connected: Arc::default(),
            is_sending: AtomicBool::new(false),
            round: Notify::new(),
            nodes: nodes.clone(),
            metrics: Arc::clone(metrics),
        });
        let talk = Talk {
            state: Arc::clone(&state),
            server,
            stop: stop.clone(),
        };
        Ok(Self {
            bells,
            nodes,
            line: Some(Line {
                state,
                stop: stop.drop_guard(),
                task: tokio::spawn(talk.run()),
            }),
        })
    }

    /// The bell to ring when something was committed, and to listen to.
    pub fn bell(&self, topic: Topic) -> Bell {
        self.bells[topic as usize].clone()
    }

    /// Whether Redis answers.
    pub fn redis(&self) -> RedisState {
        let line = self.line.as_ref();
        RedisState(line.map(|line| Arc::clone(&line.state.is_connected)))
    }

    /// What the nodes say of themselves.
    pub fn nodes(&self) -> Loads {
        self.nodes.clone()
    }

    /// Tells what is left to tell, as far as that is quickly done, and ends.
    pub async fn close(self) {
        let Some(line) = self.line else {
            return;
        };
        if tokio::time::timeout(FAREWELL_MAX, line.state.told())
            .await
            .is_err()
        {
            tracing::debug!("a last hint was not sent");
        }
        drop(line.stop);
        // It ends by itself; a panic in it has been reported by the panic hook.
        let _ = line.task.await;
    }
}

/// What both sides of the line know.
struct State {
    id: i64,
    role: Role,
    channel: String,
    bells: [Bell; Topic::ALL.len()],
    carrier: Arc<Carrier>,
    /// Whether hints come from other nodes.
    is_connected: Arc<AtomicBool>,
    /// Whether a message is under way.
    is_sending: AtomicBool,
    /// Notified after each message.
    round: Notify,
    nodes: Loads,
    metrics: Arc<Metrics>,
}

/// What is sent: JSON. Fields and topics that a reader does not know are left alone.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Message {
    /// Who speaks.
    from: i64,
    /// What changed, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    topics: Vec<String>,
    /// The speaker's number as a node ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<i64>,
    /// ... and its load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    load: Option<Load>,
}

/// Whose message it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaker {
    Myself,
    Other,
    /// It is none of ours.
    Stranger,
}

impl State {
    /// Does what a message says.
    fn hear(&self, text: &str, now: Instant) -> Speaker {
        if text.len() > MESSAGE_MAX {
            return Speaker::Stranger;
        }
        let Ok(message) = serde_json::from_str::<Message>(text) else {
            return Speaker::Stranger;
        };
        if let (Some(node), Some(load)) = (message.node, message.load) {
            self.nodes.note(node, load, now);
        }
        if message.from == self.id {
            return Speaker::Myself;
        }
        for topic in Topic::ALL {
            if message.topics.iter().any(|name| name == topic.name()) {
                self.bells[topic as usize].ring_here();
                self.metrics.hint(topic.name(), "heard");
            }
        }
        Speaker::Other
    }

    /// Completes when nothing is left to tell.
    async fn told(&self) {
        loop {
            let round = self.round.notified();
            tokio::pin!(round);
            // From here on the end of a message is noticed, also before it is waited for.
            round.as_mut().enable();
            if self.carrier.is_empty() && !self.is_sending.load(Ordering::SeqCst) {
                return;
            }
            round.await;
        }
    }
}

/// What is being told. When it is dropped unsent it will be told again.
struct Telling<'a> {
    state: &'a State,
    places: u64,
    is_sent: bool,
}

impl<'a> Telling<'a> {
    fn begin(state: &'a State) -> Self {
        state.is_sending.store(true, Ordering::SeqCst);
        Self {
            state,
            places: state.carrier.take(),
            is_sent: false,
        }
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        let outcome = if self.is_sent {
            "sent"
        } else {
            self.state.carrier.note(self.places);
            "failed"
        };
        for topic in Topic::set_in(self.places) {
            self.state.metrics.hint(topic.name(), outcome);
        }
        self.state.is_sending.store(false, Ordering::SeqCst);
        self.state.round.notify_waiters();
    }
}

/// While it lives, hints come from other nodes.
struct Live<'a> {
    state: &'a State,
    _counted: Counted,
}

impl<'a> Live<'a> {
    fn begin(state: &'a State) -> Self {
        tracing::info!("Redis connected");
        for bell in &state.bells {
            bell.set_carried(Reach::AllNodes);
        }
        state.is_connected.store(true, Ordering::Relaxed);
        Self {
            state,
            _counted: state.metrics.redis_connected(),
        }
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.state.is_connected.store(false, Ordering::Relaxed);
        for bell in &self.state.bells {
            bell.set_carried(Reach::ThisNode);
        }
    }
}

/// How a connection ended.
enum End {
    /// It was asked to.
    Stopped,
    /// It never worked.
    Failed(Fault),
    /// It worked before.
    Lost(Fault),
}

/// The task that tells and listens.
struct Talk {
    state: Arc<State>,
    server: fred::types::config::Config,
    stop: CancellationToken,
}

impl Talk {
    async fn run(self) {
        let (mut pause, mut is_known) = (PAUSE_MIN, false);
        loop {
            let end = tokio::select! {
                biased;
                // Also when it is waiting for a server that does not answer.
                end = self.talk() => end,
                () = self.give_up() => return,
            };
            match end {
                End::Stopped => return,
                End::Lost(fault) => {
                    tracing::warn!(%fault, "Redis lost; other nodes see changes a little later");
                    (pause, is_known) = (PAUSE_MIN, true);
                }
                End::Failed(fault) if is_known => tracing::debug!(%fault, "Redis is away"),
                End::Failed(fault) => {
                    tracing::warn!(%fault, "Redis is away; other nodes see changes a little later");
                    is_known = true;
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(pause.mul_f64(0.5 + random_fraction() / 2.0)) => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Completes when it is time to end without a farewell.
    async fn give_up(&self) {
        self.stop.cancelled().await;
        tokio::time::sleep(FAREWELL_MAX).await;
    }

    async fn talk(&self) -> End {
        match self.state.role {
            Role::Command => self.talk_alone().await,
            Role::Node(node) => self.talk_with_all(node).await,
        }
    }

    /// Tells what is to tell, without listening.
    async fn talk_alone(&self) -> End {
        tokio::select! {
            () = self.stop.cancelled() => return End::Stopped,
            () = self.state.carrier.rung() => {}
        }
        let publisher = match Publisher::open(&self.server).await {
            Ok(publisher) => publisher,
            Err(fault) => return End::Failed(fault),
        };
        let end = match self.speak(&publisher, None).await {
            Ok(()) => End::Stopped,
            Err(fault) => End::Failed(fault),
        };
        publisher.close().await;
        end
    }

    async fn talk_with_all(&self, node: i64) -> End {
        let opening = async {
            let subscriber = Subscriber::open(&self.server, &self.state.channel).await?;
            Ok::<_, Fault>((Publisher::open(&self.server).await?, subscriber))
        };
        let (publisher, mut subscriber) = tokio::select! {
            () = self.stop.cancelled() => return End::Stopped,
            opened = opening => match opened {
                Ok(opened) => opened,
                Err(fault) => return End::Failed(fault),
            },
        };
        let mut live = None;
        let outcome = tokio::select! {
            spoken = self.speak(&publisher, Some(node)) => spoken,
            fault = self.listen(&mut subscriber, &mut live) => Err(fault),
        };
        let was_live = live.is_some();
        // Before the farewells: nobody should wait patiently meanwhile.
        drop(live);
        tokio::join!(publisher.close(), subscriber.close());
        match outcome {
            Ok(()) => End::Stopped,
            Err(fault) if was_live => End::Lost(fault),
            Err(fault) => End::Failed(fault),
        }
    }

    /// Tells what is to tell, until it is asked to stop.
    async fn speak(&self, publisher: &Publisher, node: Option<i64>) -> Result<(), Fault> {
        let mut beats = tokio::time::interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return self.tell(publisher).await,
                () = self.state.carrier.rung() => {
                    self.tell(publisher).await?;
                    tokio::select! {
                        () = self.stop.cancelled() => {}
                        () = tokio::time::sleep(MESSAGE_PAUSE) => {}
                    }
                }
                _ = beats.tick(), if node.is_some() => {
                    let load = Some(self.state.metrics.load());
                    self.send(publisher, &Message { node, load, ..Message::default() }).await?;
                }
            }
        }
    }

    async fn tell(&self, publisher: &Publisher) -> Result<(), Fault> {
        let mut telling = Telling::begin(&self.state);
        let topics: Vec<String> = Topic::set_in(telling.places)
            .map(|topic| topic.name().to_owned())
            .collect();
        if !topics.is_empty() {
            let message = Message {
                topics,
                ..Message::default()
            };
            self.send(publisher, &message).await?;
        }
        telling.is_sent = true;
        Ok(())
    }

    async fn send(&self, publisher: &Publisher, message: &Message) -> Result<(), Fault> {
        let message = Message {
            from: self.state.id,
            topics: message.topics.clone(),
            ..*message
        };
        let text = serde_json::to_string(&message)
            .map_err(|error| Fault::new(Kind::Internal, "encode hint").source(error))?;
        publisher.send(&self.state.channel, text).await
    }

    /// Does what the others say, until nothing is heard any more; answers why.
    async fn listen<'a>(
        &'a self,
        subscriber: &mut Subscriber,
        live: &mut Option<Live<'a>>,
    ) -> Fault {
        let mut heard_myself = Instant::now();
        loop {
            let until = heard_myself + SILENCE_MAX;
            let heard = match tokio::time::timeout_at(until, subscriber.receive()).await {
                // Messages of others do not show that ours arrive.
                Ok(_) if Instant::now() > until => Err(silent()),
                Ok(heard) => heard,
                Err(_) => Err(silent()),
            };
            match heard {
                Err(fault) => return fault,
                Ok(Heard::Missed) => self.state.bells.iter().for_each(Bell::ring_here),
                Ok(Heard::Text(text)) => {
                    let now = Instant::now();
                    if self.state.hear(&text, now) == Speaker::Myself {
                        heard_myself = now;
                        live.get_or_insert_with(|| Live::begin(&self.state));
                    }
                }
            }
        }
    }
}

fn silent() -> Fault {
    Fault::new(Kind::Unavailable, "listen for hints").context("what was sent did not arrive")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    fn state(id: i64) -> State {
        let carrier = Arc::new(Carrier::default());
        State {
            id,
            role: Role::Node(id),
            channel: "test".to_owned(),
            bells: Topic::ALL.map(|topic| Bell::carried_by(&carrier, topic as u32)),
            carrier,
            is_connected: Arc::default(),
            is_sending: AtomicBool::new(false),
            round: Notify::new(),
            nodes: Loads::default(),
            metrics: Metrics::new(),
        }
    }

    fn rings(state: &State) -> [u64; Topic::ALL.len()] {
        Topic::ALL.map(|topic| state.bells[topic as usize].rings())
    }

    #[test]
    fn every_topic_has_a_place_and_a_name_of_its_own() {
        for (place, topic) in Topic::ALL.into_iter().enumerate() {
            assert_eq!(topic as usize, place);
            assert!(Topic::set_in(1 << place).eq([topic]));
        }
        let names: std::collections::HashSet<_> = Topic::ALL.map(Topic::name).into();
        assert_eq!(names.len(), Topic::ALL.len());
        assert_eq!(Topic::set_in(0).count(), 0);
    }

    #[test]
    fn a_hint_rings_its_bell_alone_and_is_not_told_again() {
        let state = state(1);
        let text = r#"{"from":2,"topics":["buckets","weather"],"mood":"good"}"#;
        assert_eq!(state.hear(text, Instant::now()), Speaker::Other);
        assert_eq!(rings(&state), [0, 0, 1, 0, 0]);
        assert!(state.carrier.is_empty());
    }

    #[test]
    fn a_node_does_not_take_its_own_hints() {
        let state = state(1);
        let text = r#"{"from":1,"topics":["buckets"]}"#;
        assert_eq!(state.hear(text, Instant::now()), Speaker::Myself);
        assert_eq!(rings(&state), [0; 5]);
    }

    #[test]
    fn what_is_no_message_does_nothing() {
        let state = state(1);
        let long = format!(
            r#"{{"from":2,"topics":["{}"]}}"#,
            "buckets".repeat(MESSAGE_MAX)
        );
        for text in ["", "buckets", "{}", "[]", r#"{"from":"2"}"#, &long] {
            assert_eq!(
                state.hear(text, Instant::now()),
                Speaker::Stranger,
                "{text}"
            );
        }
        assert_eq!(rings(&state), [0; 5]);
    }

    proptest! {
        #[test]
        fn no_text_is_a_reason_to_panic_or_to_ring_more_than_once(text in ".{0,200}") {
            let state = state(1);
            state.hear(&text, Instant::now());
            prop_assert!(rings(&state).iter().all(|rings| *rings <= 1));
        }

        #[test]
        fn a_message_is_understood(from: i64, node: i64, places in 0_u64..32, requests: u64) {
            let topics = Topic::set_in(places).map(|topic| topic.name().to_owned()).collect();
            let load = Load { requests, ..Load::default() };
            let message = Message { from, topics, node: Some(node), load: Some(load) };
            let text = serde_json::to_string(&message).unwrap();
            prop_assert!(text.len() <= MESSAGE_MAX);
            prop_assert_eq!(serde_json::from_str::<Message>(&text).unwrap(), message);
        }
    }

    #[test]
    fn what_was_not_sent_is_told_again() {
        let state = state(1);
        state.bells[0].ring();
        state.bells[4].ring();
        drop(Telling::begin(&state));
        let mut telling = Telling::begin(&state);
        assert_eq!(telling.places, 0b10001);
        telling.is_sent = true;
        drop(telling);
        assert!(state.carrier.is_empty());
    }

    #[tokio::test]
    async fn all_is_told_only_when_the_last_message_is_sent() {
        let state = Arc::new(state(1));
        state.bells[0].ring();
        let mut telling = Telling::begin(&state);
        let waiting = Arc::clone(&state);
        let told = tokio::spawn(async move { waiting.told().await });
        tokio::task::yield_now().await;
        assert!(!told.is_finished());
        telling.is_sent = true;
        drop(telling);
        tokio::time::timeout(Duration::from_secs(10), told)
            .await
            .unwrap()
            .unwrap();
    }

    #[test]
    fn nodes_are_forgotten_when_they_fall_silent_and_never_are_too_many() {
        let (nodes, now) = (Loads::default(), Instant::now());
        for node in 0..2 * NODES_MAX as i64 {
            nodes.note(node, Load::default(), now);
        }
        assert_eq!(nodes.at(now).len(), NODES_MAX);
        let later = now + SILENCE_MAX + Duration::from_millis(1);
        assert!(nodes.at(later).is_empty());
        let load = Load {
            requests: 3,
            ..Load::default()
        };
        nodes.note(9999, load, later);
        let found = nodes.at(later + Duration::from_millis(5));
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].node, found[0].load, found[0].age_millis),
            (9999, load, 5)
        );
    }

    #[test]
    fn every_form_of_url_is_taken_and_any_other_refused_unseen() {
        let check = |url: &str| {
            let url = serde_json::from_value(url.into()).unwrap();
            let config = Config {
                url,
                ..Config::default()
            };
            config.check()
        };
        for url in [
            "",
            "redis://127.0.0.1",
            "redis://user:pass@host:6380/3",
            "redis-cluster://user:pass@host:30001?node=other:30002&node=third:30003",
            "redis-sentinel://user:pass@host:26379/0?sentinelServiceName=main&node=other:26379",
            "redis-sentinel://h?sentinelServiceName=m&sentinelUsername=u&sentinelPassword=p",
        ] {
            assert_eq!(check(url), Ok(()), "{url}");
        }
        for url in [
            "hush",
            "http://hush@host",
            "redis://",
            "redis://hush@host:99999",
            "redis://hush@host/first",
            "redis-sentinel://hush@host",
            "redis-cluster://hush@host?node=other",
            "redis-cluster://hush@host?foo=bar",
            "redis-cluster://hush@host?sentinelServiceName=main",
            "redis://hush@host?node=other:6379",
            "redis://user:12?hush@host",
            "redis://user:12#hush@host",
            "redis-sentinel://h?sentinelServiceName=m&sentinelPasword=hush",
            "unix:///hush",
        ] {
            let problem = check(url).unwrap_err();
            assert!(problem.starts_with("redis.url: expected "), "{problem}");
            assert!(!problem.contains("hush"), "{problem}");
        }
    }

    #[tokio::test]
    async fn a_server_that_takes_connections_and_never_answers_holds_up_nothing() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", silent.local_addr().unwrap());
        let config = Config {
            url: serde_json::from_value(url.into()).unwrap(),
            ..Config::default()
        };
        for role in [Role::Node(1), Role::Command] {
            let hints = Hints::start(&config, role, &Metrics::new()).unwrap();
            let bell = hints.bell(Topic::Jobs);
            let heard = bell.listen();
            let began = Instant::now();
            for _ in 0..10_000 {
                bell.ring();
            }
            assert!(heard.has_changed().unwrap());
            assert!(began.elapsed() < Duration::from_secs(20));
            let usual = Duration::from_secs(1);
            assert_eq!(bell.patience(usual), usual);
            tokio::time::timeout(2 * FAREWELL_MAX + 10 * usual, hints.close())
                .await
                .unwrap();
        }
    }
}
