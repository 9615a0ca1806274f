//! Jobs under crashes, lost leases and several engines: what a job does is done once, and by one node at a time.
//!
//! Every engine here has a runtime and a connection to the database of its own, as a process has. A crash takes the
//! runtime away: nothing is released and nothing cleans up.

use std::collections::HashMap;
use std::future::pending;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use osproxy::meta::Bell;
use osproxy::meta::jobs::{self, Filter, Lease, NewJob};
use osproxy::meta::{MetaStore, Session, releases};
use osproxy::model::clock::Clock;
use osproxy::model::fault::{Fault, Kind};
use osproxy::model::ids::{ContentId, EPOCH, JobId, UidGenerator};
use osproxy::model::job::{Claimed, Claimer, Job, Progress, State};
use osproxy::tasks::engine::{self, Config, Engine};
use osproxy::tasks::{Backlog, Failure, JobError, JobHandler, Outcome, Run, Wish};
use osproxy::telemetry::Metrics;
use tokio::runtime::Runtime;

use crate::install::database;

const DEADLINE: Duration = Duration::from_secs(30);

static IDS: AtomicI64 = AtomicI64::new(1);

fn id() -> i64 {
    IDS.fetch_add(1, Ordering::SeqCst)
}

/// One node: an engine in a runtime of its own.
pub struct Node {
    runtime: Option<Runtime>,
    running: Option<engine::Running>,
    metrics: Arc<Metrics>,
}

impl Node {
    /// With leases so short that the end of one can be waited for. A machine that stands still for that long loses them.
    pub async fn start(
        dir: &Path,
        number: i64,
        set_up: impl FnOnce(&mut Engine) + Send + 'static,
    ) -> Self {
        Self::start_leasing(2, dir, number, set_up).await
    }

    /// With leases that no pause of the machine ends, for what is counted exactly.
    pub async fn start_steady(
        dir: &Path,
        number: i64,
        set_up: impl FnOnce(&mut Engine) + Send + 'static,
    ) -> Self {
        Self::start_leasing(60, dir, number, set_up).await
    }

    async fn start_leasing(
        seconds: u64,
        dir: &Path,
        number: i64,
        set_up: impl FnOnce(&mut Engine) + Send + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (metrics, dir) = (Metrics::new(), dir.to_owned());
        let shared = metrics.clone();
        let started = runtime.spawn(async move {
            let uids = UidGenerator::new(Clock::System, number as u16, EPOCH);
            uids.extend(i64::MAX);
            let mut engine = Engine::new(engine::Parts {
                meta: database(&dir, shared.clone()).await,
                clock: Clock::System,
                node: number,
                uids: Arc::new(uids),
                metrics: shared,
                bell: Bell::default(),
                config: Config {
                    lease_seconds: seconds.try_into().unwrap(),
                    poll_seconds: 1.try_into().unwrap(),
                    ..Config::default()
                },
            });
            set_up(&mut engine);
            engine.start().await.unwrap()
        });
        let running = started.await.unwrap();
        Self {
            runtime: Some(runtime),
            running: Some(running),
            metrics,
        }
    }

    /// Ends it where it stands.
    pub fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    pub async fn stop(&mut self) {
        let running = self.running.take().unwrap();
        let runtime = self.runtime.as_ref().unwrap();
        runtime.spawn(running.stop()).await.unwrap();
    }

    fn outcomes(&self, outcome: &str) -> usize {
        let text = self.metrics.expose();
        let wanted = format!("outcome=\"{outcome}\"");
        text.lines()
            .filter(|line| line.starts_with("osproxy_jobs_total") && line.contains(&wanted))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
            .sum()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub async fn open(dir: &Path) -> MetaStore {
    database(dir, Metrics::new()).await
}

fn backlog(meta: &MetaStore) -> Backlog {
    Backlog::new(meta.clone(), Clock::System, Bell::default())
}

pub async fn insert(meta: &MetaStore, kind: &'static str, key: Option<&'static str>) -> JobId {
    let (new, now) = (id(), Clock::System.now());
    meta.transact("insert", move |session| {
        Box::pin(async move {
            let job = NewJob {
                id: new,
                kind,
                key,
                payload: "{}",
                due: now,
                now,
            };
            jobs::insert(session, &job).await
        })
    })
    .await
    .unwrap_or_else(|fault: Fault| panic!("{fault}"))
}

pub async fn find(meta: &MetaStore, id: JobId) -> Job {
    let found: Result<_, Fault> = meta
        .scan("find", move |session| Box::pin(jobs::find(session, id)))
        .await;
    found.unwrap().unwrap()
}

pub async fn until(meta: &MetaStore, id: JobId, what: impl Fn(&Job) -> bool) -> Job {
    let end = Instant::now() + DEADLINE;
    loop {
        let job = find(meta, id).await;
        if what(&job) {
            return job;
        }
        assert!(Instant::now() < end, "{job:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub async fn holds(what: impl Fn() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !what() {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a run leaves in the database, twice when it is done twice.
async fn leave(session: &mut Session, id: i64, job: JobId) -> Result<(), Fault> {
    releases::release(session, id, ContentId(job.0), 0).await
}

async fn left(meta: &MetaStore, job: JobId) -> usize {
    let found: Result<Vec<_>, Fault> = meta
        .scan("count", move |session| {
            Box::pin(releases::of(session, ContentId(job.0), i64::MAX, 10))
        })
        .await;
    found.unwrap().len()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    AfterClaim,
    BetweenEffects,
    BeforeFinish,
    Never,
}

/// Leaves two things behind, each in a transaction of its own, and hangs at one step.
struct TwoEffects {
    meta: MetaStore,
    hang: Step,
    hangs: Arc<AtomicBool>,
}

impl TwoEffects {
    async fn at(&self, step: Step) {
        if self.hang == step {
            self.hangs.store(true, Ordering::SeqCst);
            pending().await
        }
    }
}

impl JobHandler for TwoEffects {
    fn kind(&self) -> &'static str {
        "two-effects"
    }

    fn run<'a>(&'a self, run: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async move {
            self.at(Step::AfterClaim).await;
            let mut done: u64 = run.state()?.unwrap_or(0);
            while done < 2 {
                let (lease, effect) = (run.lease(), id());
                let progress = Progress {
                    done: done + 1,
                    total: Some(2),
                };
                self.meta
                    .transact("effect", move |session| {
                        Box::pin(async move {
                            lease.checkpoint(session, &progress.done, progress).await?;
                            leave(session, effect, lease.job()).await
                        })
                    })
                    .await?;
                done += 1;
                if done == 1 {
                    self.at(Step::BetweenEffects).await;
                }
            }
            self.at(Step::BeforeFinish).await;
            Outcome::count("effects", done).map_err(Failure::from)
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wherever_a_node_is_killed_each_effect_happens_once() {
    for hang in [Step::AfterClaim, Step::BetweenEffects, Step::BeforeFinish] {
        let dir = tempfile::tempdir().unwrap();
        let meta = open(dir.path()).await;
        let hangs = Arc::new(AtomicBool::new(false));
        let two = |hang| TwoEffects {
            meta: meta.clone(),
            hang,
            hangs: hangs.clone(),
        };
        let job = insert(&meta, "two-effects", None).await;
        let first = two(hang);
        let mut node = Node::start(dir.path(), 1, |engine| engine.register(first)).await;
        holds(|| hangs.load(Ordering::SeqCst)).await;
        node.kill();
        assert_eq!(find(&meta, job).await.state, State::Running);

        let second = two(Step::Never);
        let mut node = Node::start(dir.path(), 2, |engine| engine.register(second)).await;
        let ended = until(&meta, job, |job| job.state.is_ended()).await;
        assert_eq!(
            (ended.state, ended.run, ended.node),
            (State::Done, 2, Some(2))
        );
        assert_eq!(ended.report.as_deref(), Some("{\"effects\":2}"));
        assert_eq!(left(&meta, job).await, 2, "{hang:?}");
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_the_same_name_goes_on_without_waiting_for_the_lease() {
    let dir = tempfile::tempdir().unwrap();
    let meta = open(dir.path()).await;
    let job = insert(&meta, "watched", None).await;
    let lease = claim(&meta, job, 1, Clock::System.now()).await;
    let renewed: Result<_, Fault> = meta
        .transact("renew", move |session| {
            Box::pin(async move { lease.renew(session, i64::MAX).await })
        })
        .await;
    assert_eq!(renewed.unwrap(), jobs::Renewed::Yes);
    let watched = || Watched {
        meta: meta.clone(),
        watch: Arc::default(),
    };
    let (other, same) = (watched(), watched());
    let _other = Node::start(dir.path(), 2, |engine| engine.register(other)).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(find(&meta, job).await.run, 1);
    let _same = Node::start(dir.path(), 1, |engine| engine.register(same)).await;
    until(&meta, job, |job| job.state == State::Done).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_transaction_that_is_rolled_back_was_never_there() {
    let dir = tempfile::tempdir().unwrap();
    let meta = open(dir.path()).await;
    let (new, now) = (id(), Clock::System.now());
    let refused: Result<(), Fault> = meta
        .transact("insert and refuse", move |session| {
            Box::pin(async move {
                let job = NewJob {
                    id: new,
                    kind: "two-effects",
                    key: Some("k"),
                    payload: "{}",
                    due: now,
                    now,
                };
                jobs::insert(session, &job).await?;
                Err(Fault::new(Kind::NotFound, "refuse"))
            })
        })
        .await;
    assert!(refused.is_err());
    let all = Filter {
        kind: None,
        state: None,
        before: None,
        limit: 10,
    };
    assert_eq!(backlog(&meta).list(all).await.unwrap().jobs, []);
}

/// What happened in all engines together.
#[derive(Default)]
struct Watch {
    running: Mutex<HashMap<JobId, usize>>,
    most: AtomicUsize,
    runs: AtomicUsize,
    /// No run ends while this is set.
    held: AtomicBool,
}

struct Watched {
    meta: MetaStore,
    watch: Arc<Watch>,
}

impl JobHandler for Watched {
    fn kind(&self) -> &'static str {
        "watched"
    }

    fn at_once(&self) -> usize {
        4
    }

    fn run<'a>(&'a self, run: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async move {
            let count = |by: isize| {
                let mut running = self.watch.running.lock().unwrap();
                let count = running.entry(run.id()).or_default();
                *count = count.wrapping_add_signed(by);
                self.watch.most.fetch_max(*count, Ordering::SeqCst);
            };
            count(1);
            self.watch.runs.fetch_add(1, Ordering::SeqCst);
            while self.watch.held.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let (lease, effect) = (run.lease(), id());
            let done: Result<(), Fault> = self
                .meta
                .transact("effect", move |session| {
                    Box::pin(async move {
                        lease.hold(session).await?;
                        leave(session, effect, lease.job()).await
                    })
                })
                .await;
            tokio::time::sleep(Duration::from_millis(2)).await;
            count(-1);
            done?;
            Ok(Outcome::done())
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_engines_share_the_jobs_and_never_run_one_together() {
    let dir = tempfile::tempdir().unwrap();
    let meta = open(dir.path()).await;
    let mut all = Vec::new();
    for _ in 0..60 {
        all.push(insert(&meta, "watched", None).await);
    }
    let watch = Arc::new(Watch::default());
    watch.held.store(true, Ordering::SeqCst);
    let mut nodes = Vec::new();
    for number in [1, 2] {
        let watched = Watched {
            meta: meta.clone(),
            watch: watch.clone(),
        };
        let node = Node::start_steady(dir.path(), number, |engine| engine.register(watched));
        nodes.push(node.await);
    }
    // One takes four at a time: the fifth is the other's.
    holds(|| watch.runs.load(Ordering::SeqCst) > 4).await;
    watch.held.store(false, Ordering::SeqCst);
    for job in &all {
        until(&meta, *job, |job| job.state == State::Done).await;
        assert_eq!(left(&meta, *job).await, 1);
    }
    for node in &mut nodes {
        node.stop().await;
    }
    assert_eq!(watch.most.load(Ordering::SeqCst), 1);
    assert_eq!(watch.runs.load(Ordering::SeqCst), all.len());
    let shares: Vec<usize> = nodes.iter().map(|node| node.outcomes("done")).collect();
    assert_eq!(shares.iter().sum::<usize>(), all.len());
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
}

async fn claim(meta: &MetaStore, id: JobId, node: i64, now: i64) -> Lease {
    let claimed: Result<_, Fault> = meta
        .transact("claim", move |session| {
            Box::pin(async move {
                let mut job = jobs::lock(session, id).await?.unwrap();
                let claimer = Claimer {
                    node,
                    now,
                    lease: 1000,
                    attempts_max: 9,
                };
                assert_eq!(job.claim(&claimer), Claimed::Yes);
                jobs::save(session, &job).await?;
                Ok(Lease::of(&job))
            })
        })
        .await;
    claimed.unwrap()
}

async fn effect_under(meta: &MetaStore, lease: Lease) -> Result<(), Fault> {
    let effect = id();
    meta.transact("effect", move |session| {
        Box::pin(async move {
            leave(session, effect, lease.job()).await?;
            lease.hold(session).await
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_under_a_lost_lease_is_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let meta = open(dir.path()).await;
    let job = insert(&meta, "by-hand", None).await;
    let now = Clock::System.now();
    let first = claim(&meta, job, 1, now).await;
    effect_under(&meta, first).await.unwrap();
    // Long over by the clock, and nobody else has it: still the first's.
    effect_under(&meta, first).await.unwrap();
    let second = claim(&meta, job, 2, now + 10_000).await;
    assert_eq!(
        effect_under(&meta, first).await.unwrap_err().kind(),
        Kind::Busy
    );
    effect_under(&meta, second).await.unwrap();
    assert_eq!(left(&meta, job).await, 3);
    let checkpoint: Result<(), Fault> = meta
        .transact("checkpoint", move |session| {
            Box::pin(async move { first.checkpoint(session, &1, Progress::default()).await })
        })
        .await;
    assert!(checkpoint.is_err());
    let renewed: Result<_, Fault> = meta
        .transact("renew", move |session| {
            Box::pin(async move { first.renew(session, i64::MAX).await })
        })
        .await;
    assert_eq!(renewed.unwrap(), jobs::Renewed::Lost);
    assert!(find(&meta, job).await.due.unwrap() < i64::MAX);
}

/// Runs until it is dropped or told, and says so.
struct Endless {
    begun: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
    told: Arc<AtomicUsize>,
    grace: Duration,
}

impl Endless {
    fn new(grace: Duration) -> Self {
        Self {
            begun: Arc::default(),
            dropped: Arc::default(),
            told: Arc::default(),
            grace,
        }
    }

    fn same(&self) -> Self {
        Self {
            begun: self.begun.clone(),
            dropped: self.dropped.clone(),
            told: self.told.clone(),
            grace: self.grace,
        }
    }
}

struct CountDrop(Arc<AtomicUsize>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl JobHandler for Endless {
    fn kind(&self) -> &'static str {
        "endless"
    }

    fn stop_grace(&self) -> Duration {
        self.grace
    }

    fn run<'a>(&'a self, run: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async move {
            let _dropped = CountDrop(self.dropped.clone());
            self.begun.fetch_add(1, Ordering::SeqCst);
            if self.grace.is_zero() {
                pending::<()>().await;
            }
            run.told_to_stop().cancelled().await;
            self.told.fetch_add(1, Ordering::SeqCst);
            Ok(Outcome::More(Duration::ZERO))
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_overtaken_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let meta = open(dir.path()).await;
    let job = insert(&meta, "endless", None).await;
    let endless = Endless::new(Duration::from_secs(60));
    let same = endless.same();
    let node = Node::start(dir.path(), 1, |engine| engine.register(same)).await;
    holds(|| endless.begun.load(Ordering::SeqCst) == 1).await;
    // As another node does whose clock is far ahead.
    claim(&meta, job, 2, Clock::System.now() + 1_000_000).await;
    holds(|| endless.dropped.load(Ordering::SeqCst) == 1).await;
    assert_eq!(endless.told.load(Ordering::SeqCst), 0);
    holds(|| node.outcomes("lost") == 1).await;
    let job = find(&meta, job).await;
    assert_eq!((job.state, job.node, job.run), (State::Running, Some(2), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_for_as_long_as_the_run_lasts() {
    let dir = tempfile::tempdir().unwrap();
    let meta = open(dir.path()).await;
    let job = insert(&meta, "endless", None).await;
    let endless = Endless::new(Duration::ZERO);
    let (first, second) = (endless.same(), endless.same());
    let _nodes = (
        Node::start(dir.path(), 1, |engine| engine.register(first)).await,
        Node::start(dir.path(), 2, |engine| engine.register(second)).await,
    );
    let lease = Duration::from_secs(2);
    let mut run = until(&meta, job, |job| job.run > 0).await.run;
    let end = Instant::now() + DEADLINE;
    let (mut looked, mut steady_since) = (Instant::now(), Instant::now());
    while steady_since.elapsed() < 2 * lease + lease / 2 {
        assert!(Instant::now() < end);
        let (found, now) = (find(&meta, job).await.run, Instant::now());
        if now - looked > lease / 4 {
            // A machine that stands still may lose the lease, and says so within another: begun anew.
            steady_since = now + lease;
        }
        if now < steady_since {
            run = found;
        }
        assert_eq!(found, run);
        looked = now;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(endless.begun.load(Ordering::SeqCst) as i64, run);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_hands_its_jobs_over_at_once() {
    for grace in [Duration::ZERO, Duration::from_secs(60)] {
        let dir = tempfile::tempdir().unwrap();
        let meta = open(dir.path()).await;
        let job = insert(&meta, "endless", None).await;
        let endless = Endless::new(grace);
        let same = endless.same();
        let mut node = Node::start_steady(dir.path(), 1, |engine| engine.register(same)).await;
        holds(|| endless.begun.load(Ordering::SeqCst) == 1).await;
        let began = Instant::now();
        node.stop().await;
        assert!(began.elapsed() < Duration::from_secs(20));
        let job = find(&meta, job).await;
        assert_eq!((job.state, job.attempt), (State::Waiting, 0));
        assert!(job.due.unwrap() <= Clock::System.now());
        let told = usize::from(!grace.is_zero());
        assert_eq!(endless.told.load(Ordering::SeqCst), told);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_cancelled_and_paused_while_they_run() {
    let dir = tempfile::tempdir().unwrap();
    let meta = open(dir.path()).await;
    let endless = Endless::new(Duration::ZERO);
    let same = endless.same();
    let job = insert(&meta, "endless", None).await;
    let _node = Node::start(dir.path(), 1, |engine| engine.register(same)).await;
    holds(|| endless.begun.load(Ordering::SeqCst) == 1).await;

    let backlog = backlog(&meta);
    backlog.pause("endless").await.unwrap();
    until(&meta, job, |job| job.state == State::Waiting).await;
    assert_eq!(endless.dropped.load(Ordering::SeqCst), 1);
    // Longer than a poll.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(endless.begun.load(Ordering::SeqCst), 1);
    assert!(backlog.show(job).await.unwrap().paused);

    backlog.resume("endless").await.unwrap();
    holds(|| endless.begun.load(Ordering::SeqCst) == 2).await;
    assert!(backlog.wish(job, Wish::Cancel).await.unwrap().cancelling);
    until(&meta, job, |job| job.state == State::Cancelled).await;
    assert_eq!(endless.dropped.load(Ordering::SeqCst), 2);

    let again = backlog.wish(job, Wish::Retry).await.unwrap();
    assert_eq!(again.state, "waiting");
    holds(|| endless.begun.load(Ordering::SeqCst) == 3).await;
}

/// Cancels a job that runs and asks for the same work, with nothing between the two.
async fn cancel_and_ask(meta: &MetaStore, job: JobId, kind: &'static str, key: &'static str) {
    let (new, now) = (id(), Clock::System.now());
    let asked: Result<_, Fault> = meta
        .transact("cancel and ask", move |session| {
            Box::pin(async move {
                let mut running = jobs::lock(session, job).await?.unwrap();
                running.cancel(now).unwrap();
                jobs::save(session, &running).await?;
                let job = NewJob {
                    id: new,
                    kind,
                    key: Some(key),
                    payload: "{}",
                    due: now,
                    now,
                };
                jobs::insert(session, &job).await
            })
        })
        .await;
    assert_eq!(asked.unwrap(), job);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_while_its_job_is_cancelled_is_done_after_all() {
    let dir = tempfile::tempdir().unwrap();
    let meta = open(dir.path()).await;
    // The run is told to end, and the job begins anew.
    for grace in [Duration::ZERO, Duration::from_secs(60)] {
        let job = insert(&meta, "endless", Some("same")).await;
        let endless = Endless::new(grace);
        let same = endless.same();
        let mut node = Node::start(dir.path(), 1, |engine| engine.register(same)).await;
        holds(|| endless.begun.load(Ordering::SeqCst) == 1).await;
        cancel_and_ask(&meta, job, "endless", "same").await;
        holds(|| endless.begun.load(Ordering::SeqCst) == 2).await;
        let again = find(&meta, job).await;
        assert_eq!((again.state, again.cancelling), (State::Running, false));
        assert!(backlog(&meta).wish(job, Wish::Cancel).await.is_ok());
        until(&meta, job, |job| job.state == State::Cancelled).await;
        node.stop().await;
    }
    // Its node was killed: the next one does the work.
    let job = insert(&meta, "watched", Some("same")).await;
    claim(&meta, job, 7, Clock::System.now()).await;
    cancel_and_ask(&meta, job, "watched", "same").await;
    let watched = Watched {
        meta: meta.clone(),
        watch: Arc::default(),
    };
    let _node = Node::start(dir.path(), 1, |engine| engine.register(watched)).await;
    let ended = until(&meta, job, |job| job.state.is_ended()).await;
    assert_eq!((ended.state, ended.run), (State::Done, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn wishes_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let meta = open(dir.path()).await;
    let backlog = backlog(&meta);
    let nothing = backlog.wish(JobId(404), Wish::Cancel).await.unwrap_err();
    assert!(matches!(nothing, JobError::NoJob(_)), "{nothing}");
    let first = insert(&meta, "by-hand", Some("k")).await;
    let unknown = backlog.pause("by-hant").await.unwrap_err();
    assert!(unknown.to_string().contains("by-hand"), "{unknown}");
    let unknown = backlog.resume("by-hant").await.unwrap_err();
    assert!(matches!(unknown, JobError::NoType { .. }), "{unknown}");
    for known in ["by-hand", "merge"] {
        backlog.resume(known).await.unwrap();
    }
    backlog.wish(first, Wish::Cancel).await.unwrap();
    let refused = backlog.wish(first, Wish::Cancel).await.unwrap_err();
    assert!(matches!(refused, JobError::Refused(..)), "{refused}");
    // The key is free, and then another's.
    let second = insert(&meta, "by-hand", Some("k")).await;
    assert_ne!(first, second);
    let twice = backlog.wish(first, Wish::Retry).await.unwrap_err();
    assert!(matches!(twice, JobError::Twice(..)), "{twice}");
    backlog.wish(second, Wish::Cancel).await.unwrap();
    backlog.wish(first, Wish::Retry).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_work_is_queued_once_and_again_when_it_is_asked_for_too_late() {
    let dir = tempfile::tempdir().unwrap();
    let meta = open(dir.path()).await;
    let inserts: Vec<_> = (0..8)
        .map(|_| {
            let meta = meta.clone();
            tokio::spawn(async move { insert(&meta, "watched", Some("same")).await })
        })
        .collect();
    let mut ids = Vec::new();
    for insert in inserts {
        ids.push(insert.await.unwrap());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let other = insert(&meta, "watched", Some("other")).await;
    assert_ne!(other, ids[0]);

    // Asked for while a run is under way, which may have passed what it is about.
    let lease = claim(&meta, ids[0], 7, Clock::System.now()).await;
    assert_eq!(insert(&meta, "watched", Some("same")).await, ids[0]);
    let watch = Arc::new(Watch::default());
    let watched = Watched {
        meta: meta.clone(),
        watch: watch.clone(),
    };
    meta.transact("finish", move |session| {
        Box::pin(async move {
            let mut job = lease.locked(session).await?.unwrap();
            job.finish(Clock::System.now(), None, 0);
            jobs::save(session, &job).await
        })
    })
    .await
    .unwrap_or_else(|fault: Fault| panic!("{fault}"));
    let _node = Node::start(dir.path(), 1, |engine| engine.register(watched)).await;
    let ended = until(&meta, ids[0], |job| job.state == State::Done).await;
    assert_eq!(ended.run, 2);
}

/// Fails, once in a panic, for as long as it is told to.
struct Failing(Arc<AtomicUsize>);

impl JobHandler for Failing {
    fn kind(&self) -> &'static str {
        "failing"
    }

    fn attempts_max(&self) -> u32 {
        2
    }

    fn run<'a>(&'a self, run: &'a Run) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async move {
            match self.0.fetch_add(1, Ordering::SeqCst) {
                0 => panic!("on purpose"),
                1 => Err(Fault::new(Kind::Unavailable, "be there").into()),
                2 => {
                    let _: u64 = run.payload()?;
                    Ok(Outcome::done())
                }
                _ => Ok(Outcome::done()),
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_fail_are_repeated_and_end_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let meta = open(dir.path()).await;
    let job = insert(&meta, "failing", None).await;
    let tries = Arc::new(AtomicUsize::new(0));
    let failing = Failing(tries.clone());
    let node = Node::start_steady(dir.path(), 1, |engine| engine.register(failing)).await;
    let seen = until(&meta, job, |job| job.reason.is_some()).await;
    // The next attempt comes within a second, and may have come.
    if seen.attempt == 1 {
        assert_eq!(seen.state, State::Waiting);
        assert!(seen.reason.unwrap().contains("panicked"));
    }
    let failed = until(&meta, job, |job| job.state.is_ended()).await;
    assert_eq!((failed.state, failed.attempt), (State::Failed, 2));
    assert!(failed.reason.unwrap().starts_with("be there: Unavailable"));

    // What no attempt can do is not tried twice: the payload is no number.
    let backlog = backlog(&meta);
    backlog.wish(job, Wish::Retry).await.unwrap();
    holds(|| tries.load(Ordering::SeqCst) == 3).await;
    let failed = until(&meta, job, |job| job.state.is_ended()).await;
    assert_eq!((failed.state, failed.attempt), (State::Failed, 1));
    backlog.wish(job, Wish::Retry).await.unwrap();
    let done = until(&meta, job, |job| job.state == State::Done).await;
    assert_eq!(done.reason, None);
    assert_eq!((node.outcomes("retried"), node.outcomes("failed")), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_one_row_and_runs_on_one_node_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let meta = open(dir.path()).await;
    let watch = Arc::new(Watch::default());
    let mut nodes = Vec::new();
    for number in [1, 2] {
        let watched = Watched {
            meta: meta.clone(),
            watch: watch.clone(),
        };
        let period = Duration::from_millis(50);
        nodes.push(
            Node::start_steady(dir.path(), number, move |engine| {
                engine.schedule(period, watched)
            })
            .await,
        );
    }
    holds(|| watch.runs.load(Ordering::SeqCst) >= 10).await;
    for node in &mut nodes {
        node.stop().await;
    }
    assert_eq!(watch.most.load(Ordering::SeqCst), 1);
    let all = Filter {
        kind: None,
        state: Some(State::Waiting),
        before: None,
        limit: 10,
    };
    let report = backlog(&meta).list(all).await.unwrap();
    assert_eq!(report.jobs.len(), 1);
    let row = &report.jobs[0];
    assert_eq!((row.period, row.attempt, &row.reason), (Some(50), 0, &None));
    assert!(row.runs >= 10 && row.ended.is_some() && row.next_run.is_some());
    let id = JobId(row.id.parse().unwrap());
    let refused = backlog(&meta).wish(id, Wish::Cancel).await.unwrap_err();
    assert!(refused.to_string().contains("paused"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_rows_of_ended_jobs_go_and_the_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let meta = open(dir.path()).await;
    let (ended, waits) = (
        insert(&meta, "by-hand", None).await,
        insert(&meta, "by-hand", None).await,
    );
    let backlog = backlog(&meta);
    backlog.wish(ended, Wish::Cancel).await.unwrap();
    let purge = async |before, failed_kept| {
        let old = jobs::Old {
            before,
            failed_kept,
            limit: 10,
        };
        let purged: Result<usize, Fault> = meta
            .transact("purge", move |session| {
                Box::pin(async move { jobs::purge(session, &old).await })
            })
            .await;
        purged.unwrap()
    };
    let (past, future) = (Clock::System.now() - 60_000, Clock::System.now() + 60_000);
    assert_eq!(purge(past, 9).await, 0);
    assert_eq!(purge(future, 9).await, 1);
    assert!(matches!(backlog.show(ended).await, Err(JobError::NoJob(_))));
    assert_eq!(backlog.show(waits).await.unwrap().state, "waiting");

    // What failed waits for an operator, as far as there is room.
    let mut failed = Vec::new();
    for _ in 0..3 {
        let job = insert(&meta, "broken", None).await;
        let lease = claim(&meta, job, 1, Clock::System.now()).await;
        let fail: Result<(), Fault> = meta
            .transact("fail", move |session| {
                Box::pin(async move {
                    let mut job = lease.locked(session).await?.unwrap();
                    job.fail(Clock::System.now(), "broken".to_owned(), 0, 1);
                    jobs::save(session, &job).await
                })
            })
            .await;
        fail.unwrap();
        failed.push(job);
    }
    assert_eq!(purge(future, 3).await, 0);
    assert_eq!(purge(past, 0).await, 0);
    assert_eq!(purge(future, 2).await, 1);
    assert!(matches!(
        backlog.show(failed[0]).await,
        Err(JobError::NoJob(_))
    ));
    backlog.wish(failed[1], Wish::Cancel).await.unwrap();
    assert_eq!(purge(future, 2).await, 1);
    assert_eq!(find(&meta, failed[2]).await.state, State::Failed);
    let page = |before, limit| Filter {
        kind: Some("by-hand".to_owned()),
        state: None,
        before,
        limit,
    };
    assert_eq!(backlog.list(page(None, 10)).await.unwrap().jobs.len(), 1);
    assert_eq!(backlog.list(page(Some(waits), 10)).await.unwrap().jobs, []);
}
