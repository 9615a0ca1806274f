//! What tells of a commit to whoever would otherwise have to look again and again.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use moka::sync::Cache;
use tokio::sync::{Notify, watch};

/// While rings come from other nodes, they are looked for this many times less often.
const PATIENCE: u32 = 6;

/// Rung when something was committed that others wait for, so that they need not wait for their timers. A ring is a
/// hint and no more: it says that something may have changed, and one that is lost costs time alone.
///
/// Ringing never waits. Rings that nobody has heard yet are one ring.
#[derive(Debug, Clone)]
pub struct Bell(Arc<Rope>);

#[derive(Debug)]
struct Rope {
    heard: watch::Sender<()>,
    rings: AtomicU64,
    is_carried: AtomicBool,
    carrier: OnceLock<Carried>,
}

#[derive(Debug)]
struct Carried {
    carrier: Arc<Carrier>,
    place: u32,
}

impl Default for Bell {
    fn default() -> Self {
        Self(Arc::new(Rope {
            heard: watch::Sender::new(()),
            rings: AtomicU64::new(0),
            is_carried: AtomicBool::new(false),
            carrier: OnceLock::new(),
        }))
    }
}

impl Bell {
    /// A bell whose rings are also noted by `carrier` as those of `place`, of which there are 64.
    pub fn carried_by(carrier: &Arc<Carrier>, place: u32) -> Self {
        let bell = Self::default();
        let carried = Carried {
            carrier: Arc::clone(carrier),
            place: place % u64::BITS,
        };
        // The bell is new: nothing is set.
        let _ = bell.0.carrier.set(carried);
        bell
    }

    /// Wakes whoever listens, here and on other nodes. A ring that nobody waits for yet is not lost.
    pub fn ring(&self) {
        self.ring_here();
        if let Some(carried) = self.0.carrier.get() {
            carried.carrier.note(1 << carried.place);
        }
    }

    /// Wakes whoever listens here, for a ring that came from elsewhere.
    pub fn ring_here(&self) {
        // Counted first: who is woken must find what was remembered before to be old.
        self.0.rings.fetch_add(1, Ordering::SeqCst);
        self.0.heard.send_replace(());
    }

    /// Hears every ring from now on.
    pub fn listen(&self) -> watch::Receiver<()> {
        self.0.heard.subscribe()
    }

    /// How often it was rung so far.
    pub fn rings(&self) -> u64 {
        self.0.rings.load(Ordering::SeqCst)
    }

    /// Says whether rings of other nodes arrive, and rings: who waits has to think again for how long.
    pub fn set_carried(&self, is_carried: Reach) {
        self.0
            .is_carried
            .store(is_carried == Reach::AllNodes, Ordering::SeqCst);
        self.ring_here();
    }

    /// The time between two looks for what may have been committed without a ring: longer than `usual` while rings
    /// come from all nodes.
    pub fn patience(&self, usual: Duration) -> Duration {
        match self.0.is_carried.load(Ordering::SeqCst) {
            true => usual * PATIENCE,
            false => usual,
        }
    }
}

/// How far a bell is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// In this process.
    ThisNode,
    /// On all nodes, as far as is known.
    AllNodes,
}

/// Notes which bells were rung until somebody takes the notes to other nodes. Its size does not depend on how often
/// they ring, nor on how long nobody comes.
#[derive(Debug, Default)]
pub struct Carrier {
    rung: AtomicU64,
    wake: Notify,
}

impl Carrier {
    /// Notes rings of the places that are set in `places`.
    pub fn note(&self, places: u64) {
        if places != 0 {
            self.rung.fetch_or(places, Ordering::SeqCst);
            self.wake.notify_one();
        }
    }

    /// The places that were rung since this was asked last.
    pub fn take(&self) -> u64 {
        self.rung.swap(0, Ordering::SeqCst)
    }

    /// Whether nothing waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.rung.load(Ordering::SeqCst) == 0
    }

    /// Completes when there may be something to take. For one task.
    pub async fn rung(&self) {
        while self.is_empty() {
            self.wake.notified().await;
        }
    }
}

/// Rows that were read a moment ago. One is used again for a time, and not any more once the bell has rung after it
/// began to be read.
pub struct Remembered<K, V> {
    rows: Cache<K, (Reading, V)>,
    time: Duration,
    changed: Bell,
}

impl<K, V> Remembered<K, V>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// At most `capacity` rows, each for `time` from the begin of its reading. `changed` is rung when one of them may have changed.
    pub fn new(capacity: u64, time: Duration, changed: Bell) -> Self {
        Self {
            rows: Cache::builder()
                .max_capacity(capacity)
                .time_to_live(time)
                .build(),
            time,
            changed,
        }
    }

    /// A row that is still good.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
        Q: std::hash::Hash + Eq + ?Sized,
    {
        let (read, row) = self.rows.get(key)?;
        let is_good = read.rings == self.changed.rings() && read.begun.elapsed() < self.time;
        is_good.then_some(row)
    }

    /// To be asked before a row is read, and given to [`Remembered::insert`]: a change that is committed in between
    /// makes the row an old one from the start.
    pub fn begin(&self) -> Reading {
        Reading {
            rings: self.changed.rings(),
            begun: Instant::now(),
        }
    }

    /// Remembers a row.
    pub fn insert(&self, key: K, row: V, reading: Reading) {
        self.rows.insert(key, (reading, row));
    }

    /// Forgets a row, here alone.
    pub fn forget<Q>(&self, key: &Q)
    where
        K: std::borrow::Borrow<Q>,
        Q: std::hash::Hash + Eq + ?Sized,
    {
        self.rows.invalidate(key);
    }

    /// Forgets all rows, here and on other nodes.
    pub fn change(&self) {
        self.changed.ring();
    }
}

/// When a read began.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    rings: u64,
    begun: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn rings_that_were_not_taken_are_one_and_none_is_lost() {
        let carrier = Arc::new(Carrier::default());
        let bells: Vec<Bell> = (0..3)
            .map(|place| Bell::carried_by(&carrier, place))
            .collect();
        for _ in 0..1000 {
            bells[0].ring();
            bells[2].ring();
        }
        assert_eq!(carrier.take(), 0b101);
        assert_eq!(carrier.take(), 0);
        bells[1].ring();
        assert_eq!(carrier.take(), 0b010);
    }

    #[test]
    fn a_ring_from_elsewhere_is_not_carried_back() {
        let carrier = Arc::new(Carrier::default());
        let bell = Bell::carried_by(&carrier, 5);
        let listener = bell.listen();
        bell.ring_here();
        assert!(listener.has_changed().unwrap());
        assert!(carrier.is_empty());
    }

    #[tokio::test]
    async fn whoever_carries_is_woken_also_by_what_was_rung_before() {
        let carrier = Arc::new(Carrier::default());
        let bell = Bell::carried_by(&carrier, 0);
        bell.ring();
        carrier.rung().await;
        assert_eq!(carrier.take(), 1);
        let waiting = Arc::clone(&carrier);
        let task = tokio::spawn(async move { waiting.rung().await });
        bell.ring();
        tokio::time::timeout(Duration::from_secs(10), task)
            .await
            .unwrap()
            .unwrap();
    }

    #[test]
    fn looks_are_rare_only_while_rings_come_from_all_nodes() {
        let (bell, usual) = (Bell::default(), Duration::from_secs(10));
        assert_eq!(bell.patience(usual), usual);
        let listener = bell.listen();
        bell.set_carried(Reach::AllNodes);
        assert!(listener.has_changed().unwrap());
        assert_eq!(bell.patience(usual), usual * PATIENCE);
        bell.set_carried(Reach::ThisNode);
        assert_eq!(bell.patience(usual), usual);
    }

    #[test]
    fn a_row_is_good_until_the_bell_rings() {
        let bell = Bell::default();
        let rows = Remembered::new(10, LONG, bell.clone());
        assert_eq!(rows.get("a"), None);
        rows.insert("a".to_owned(), 1, rows.begin());
        assert_eq!(rows.get("a"), Some(1));
        bell.ring_here();
        assert_eq!(rows.get("a"), None);
        rows.insert("a".to_owned(), 2, rows.begin());
        assert_eq!(rows.get("a"), Some(2));
        rows.forget("a");
        assert_eq!(rows.get("a"), None);
    }

    #[test]
    fn a_row_that_changed_while_it_was_read_is_not_used() {
        let bell = Bell::default();
        let rows = Remembered::new(10, LONG, bell.clone());
        let reading = rows.begin();
        bell.ring_here();
        rows.insert("a".to_owned(), 1, reading);
        assert_eq!(rows.get("a"), None);
    }

    #[test]
    fn a_row_that_took_long_to_read_is_as_old_as_the_begin_of_that() {
        let time = Duration::from_millis(50);
        let rows = Remembered::new(10, time, Bell::default());
        let reading = rows.begin();
        std::thread::sleep(time);
        rows.insert("a".to_owned(), 1, reading);
        assert_eq!(rows.get("a"), None);
    }
}
