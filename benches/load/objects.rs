//! The workloads of one request an operation: PUT in its kinds, GET, HEAD and DELETE.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::{Check, Client, Failure, PayloadDigest, SendBody, Upload};
use crate::content::{ContentId, scramble};
use crate::plan::{Plan, Workload};
use crate::tally::Tally;

/// The longest an operation may take; beyond, it is an error.
pub(crate) const OPERATION_LIMIT: Duration = Duration::from_secs(300);
/// So many failures in a row end a connection's work: the server is not there.
pub(crate) const FAILURES_IN_A_ROW: u32 = 20;
/// Every so many GETs, one is compared byte by byte.
const CHECK_EVERY: u64 = 16;
/// How often a fill tries an object before it gives up on it.
const FILL_TRIES: u32 = 5;
/// How many objects are looked at again after the clock has stopped.
const REVISITED: usize = 2;

/// What the connections of a run share.
struct Course {
    plan: Arc<Plan>,
    next: AtomicU64,
    begin: Instant,
    /// How the content of a PUT is signed, where it is the same for every operation.
    digest: Option<PayloadDigest>,
}

/// Sends the content that a duplicate PUT repeats, and says how it is signed.
pub(crate) async fn prepare(
    client: &mut Client,
    plan: &Plan,
) -> Result<Option<PayloadDigest>, Failure> {
    if !matches!(plan.workload, Workload::PutDup | Workload::PutInstant) {
        return Ok(None);
    }
    let content = content_of(plan, 0);
    let digest = if plan.signed || plan.workload == Workload::PutInstant {
        client.digest(content, plan.size)
    } else {
        PayloadDigest::Unsigned
    };
    let upload = Upload {
        content,
        size: plan.size,
        digest: &digest,
        send: SendBody::AtOnce,
    };
    let key = format!("{}original", plan.prefix);
    client.put(&key, "", &upload).await?;
    Ok(Some(digest))
}

/// Runs the operations on all connections and returns these with what was seen.
pub(crate) async fn run(
    clients: Vec<Client>,
    plan: &Arc<Plan>,
    digest: Option<PayloadDigest>,
) -> (Vec<Client>, Tally) {
    let course = Arc::new(Course {
        plan: Arc::clone(plan),
        next: AtomicU64::new(plan.first),
        begin: Instant::now(),
        digest,
    });
    let mut tasks = JoinSet::new();
    for client in clients {
        tasks.spawn(work(client, Arc::clone(&course)));
    }
    let mut tally = Tally::default();
    let mut clients = Vec::new();
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok((client, part)) => {
                clients.push(client);
                tally.merge(part);
            }
            Err(error) => tally.failed(&Failure::Wrong(format!("a task ended: {error}"))),
        }
    }
    (clients, tally)
}

/// Looks at some of the objects again, after the clock has stopped: what was put reads back the
/// same, what was deleted is gone.
pub(crate) async fn revisit(client: &mut Client, plan: &Plan, tally: &mut Tally) {
    let numbers: Vec<u64> = tally.done.iter().copied().take(REVISITED).collect();
    for number in numbers {
        let key = plan.key(number);
        let seen = match plan.workload {
            Workload::Get | Workload::Head => return,
            Workload::Delete => client.absent(&key).await,
            _ => {
                let content = content_of(plan, number);
                client.get(&key, content, plan.size, Check::Bytes).await
            }
        };
        match seen {
            Ok(()) => tally.verified += 1,
            Err(failure) => {
                client.disconnect();
                tally.failed(&failure);
            }
        }
    }
}

async fn work(mut client: Client, course: Arc<Course>) -> (Client, Tally) {
    let plan = &course.plan;
    let mut tally = Tally::default();
    let mut failures = 0;
    while failures < FAILURES_IN_A_ROW && course.begin.elapsed() < plan.seconds {
        let number = course.next.fetch_add(1, Ordering::Relaxed);
        if number >= plan.first + plan.count {
            break;
        }
        let tries = match plan.workload {
            Workload::Fill => FILL_TRIES,
            _ => 1,
        };
        for _ in 0..tries {
            let started = Instant::now();
            let operation = operate(&mut client, &course, number, &mut tally);
            match tokio::time::timeout(OPERATION_LIMIT, operation).await {
                Ok(Ok(())) => {
                    tally.succeeded(number, started.elapsed());
                    failures = 0;
                    break;
                }
                Ok(Err(failure)) => tally.failed(&failure),
                Err(_) => tally.failed(&Failure::Wrong("no answer in time".to_owned())),
            }
            client.disconnect();
            failures += 1;
        }
    }
    (client, tally)
}

async fn operate(
    client: &mut Client,
    course: &Course,
    number: u64,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let plan = &course.plan;
    match plan.workload {
        Workload::Get => {
            let chosen = scramble(plan.seed ^ number) % plan.keys;
            let check = match number % CHECK_EVERY {
                0 => Check::Bytes,
                _ => Check::Length,
            };
            let content = content_of(plan, chosen);
            client
                .get(&plan.key(chosen), content, plan.size, check)
                .await?;
            tally.verified += u64::from(check == Check::Bytes);
        }
        Workload::Head => {
            let chosen = scramble(plan.seed ^ number) % plan.keys;
            client.head(&plan.key(chosen), plan.size).await?;
        }
        Workload::Delete => client.delete(&plan.key(number)).await?,
        _ => put(client, course, number, tally).await?,
    }
    Ok(())
}

async fn put(
    client: &mut Client,
    course: &Course,
    number: u64,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let plan = &course.plan;
    let content = content_of(plan, number);
    let digest = match &course.digest {
        Some(digest) => digest.clone(),
        None if plan.signed => client.digest(content, plan.size),
        None => PayloadDigest::Unsigned,
    };
    let upload = Upload {
        content,
        size: plan.size,
        digest: &digest,
        send: match plan.workload {
            Workload::PutInstant => SendBody::WhenAsked,
            _ => SendBody::AtOnce,
        },
    };
    let uploaded = client.put(&plan.key(number), "", &upload).await?;
    tally.sent_bytes += uploaded.sent_bytes;
    Ok(())
}

/// The content of the object with this number: its own, or the one all objects share.
fn content_of(plan: &Plan, number: u64) -> ContentId {
    match plan.workload {
        Workload::PutDup | Workload::PutInstant => ContentId::new(plan.seed, u64::MAX),
        _ => ContentId::new(plan.seed, number),
    }
}
