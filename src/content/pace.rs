//! On which terms work in the background moves bytes: how fast, and for which job.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::meta::jobs::Lease;
use crate::meta::{Session, moves};
use crate::model::fault::Fault;
use crate::model::job::Progress;

/// Time that was not used is not saved up beyond this: what follows a pause comes no faster.
const BURST: Duration = Duration::from_millis(500);

/// Terms of work in the background.
pub struct Work {
    /// How fast it may go.
    pub pace: Pace,
    hold: Hold,
    total: OnceLock<u64>,
}

impl Work {
    /// Work for whoever holds `lease`: what it changes, it changes only while that holds.
    pub fn new(bytes_per_second: Option<u64>, lease: Option<Lease>) -> Self {
        Self {
            pace: Pace::new(bytes_per_second),
            hold: Hold { lease, of: None },
            total: OnceLock::new(),
        }
    }

    /// Says how many bytes it is about, once that is known.
    pub fn expect(&self, total: u64) {
        // A run is about one thing, and the first word holds.
        let _ = self.total.set(total);
    }

    /// How many bytes were moved, of as many as it is about.
    pub fn progress(&self) -> Progress {
        let done = self.pace.taken.load(Ordering::Relaxed);
        let total = self.total.get().map(|total| done.max(*total));
        Progress { done, total }
    }

    /// The same, of a move: what it changes, it changes only while the move is open, too.
    pub fn of_move(id: i64, bytes_per_second: Option<u64>, lease: Option<Lease>) -> Self {
        let mut work = Self::new(bytes_per_second, lease);
        work.hold.of = Some(id);
        work
    }

    /// Whose work it is.
    pub fn lease(&self) -> Option<Lease> {
        self.hold.lease
    }

    /// What a transaction of this work begins with.
    pub fn hold(&self) -> Hold {
        self.hold
    }
}

/// The lease of some work, and the move that it is of, for its transactions.
#[derive(Debug, Clone, Copy)]
pub struct Hold {
    lease: Option<Lease>,
    of: Option<i64>,
}

impl Hold {
    /// Makes the transaction one of the work's run. The move comes before the job: an order to move locks all moves
    /// before anything else that a transaction of a move needs.
    pub async fn on(self, session: &mut Session) -> Result<(), Fault> {
        if let Some(id) = self.of {
            moves::hold(session, id).await?;
        }
        match self.lease {
            Some(lease) => lease.hold(session).await,
            None => Ok(()),
        }
    }
}

/// A limit of bytes per second, shared by all that work at a time.
pub struct Pace {
    state: Mutex<State>,
    /// Bytes that were asked for.
    taken: AtomicU64,
    /// Wakes those who wait when there is another limit.
    changed: Notify,
}

struct State {
    bytes_per_second: Option<u64>,
    /// When all that was taken so far will have been paid for.
    paid: Instant,
}

impl Pace {
    /// At most so many bytes per second; without a limit for `None`.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            state: Mutex::new(State {
                bytes_per_second,
                paid: Instant::now(),
            }),
            taken: AtomicU64::new(0),
            changed: Notify::new(),
        }
    }

    /// Sets another limit, which those who wait for bytes go by from now on, too.
    pub fn set(&self, bytes_per_second: Option<u64>) {
        let is_new = self.lock().set(Instant::now(), bytes_per_second);
        if is_new {
            self.changed.notify_waiters();
        }
    }

    /// Waits until so many more bytes may be moved.
    pub async fn take(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
        // Made before the limit is read: one that is set in between wakes it.
        let mut changed = self.changed.notified();
        let Some(mut ticket) = self.lock().take(Instant::now(), bytes) else {
            return;
        };
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(ticket.until) => return,
                () = changed => {}
            }
            changed = self.changed.notified();
            let Some(again) = self.lock().exchange(Instant::now(), ticket) else {
                return;
            };
            ticket = again;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When bytes that were asked for may be moved, at the limit that held then.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ticket {
    until: Instant,
    bytes_per_second: u64,
}

impl State {
    /// When bytes that are asked for at `now` may be moved; `None` is at once.
    fn take(&mut self, now: Instant, bytes: usize) -> Option<Ticket> {
        let rate = self.bytes_per_second?;
        let from = self.paid.max(now.checked_sub(BURST).unwrap_or(now));
        self.paid = from + cost(bytes, rate);
        Some(Ticket {
            until: self.paid,
            bytes_per_second: rate,
        })
    }

    /// Sets another limit, at which the rest of what was taken is paid for; `false` when it is the same.
    fn set(&mut self, now: Instant, bytes_per_second: Option<u64>) -> bool {
        if self.bytes_per_second == bytes_per_second {
            return false;
        }
        let paid = Ticket {
            until: self.paid,
            bytes_per_second: self.bytes_per_second.unwrap_or(1),
        };
        let was_limited = self.bytes_per_second.is_some();
        self.bytes_per_second = bytes_per_second;
        let paid = self.exchange(now, paid).filter(|_| was_limited);
        self.paid = paid.map_or(now, |paid| paid.until);
        true
    }

    /// What a ticket of another limit is worth at `now` under this one; `None` is at once.
    fn exchange(&self, now: Instant, ticket: Ticket) -> Option<Ticket> {
        let rate = self.bytes_per_second?;
        let left = ticket.until.saturating_duration_since(now);
        let left = left.as_secs_f64() * ticket.bytes_per_second as f64 / rate.max(1) as f64;
        Some(Ticket {
            until: now + Duration::from_secs_f64(left),
            bytes_per_second: rate,
        })
    }
}

fn cost(bytes: usize, rate: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_the_time_they_should_and_a_pause_saves_up_no_more_than_a_burst() {
        let begin = Instant::now() + Duration::from_secs(1000);
        let mut state = State {
            bytes_per_second: Some(1000),
            paid: begin,
        };
        // Two that work at a time ask at the same moment, and wait for each other's bytes too.
        let mut last = begin;
        for _ in 0..50 {
            let until = [state.take(last, 100), state.take(last, 100)];
            let until = until.map(|ticket| ticket.unwrap().until);
            assert!(until[0] < until[1]);
            last = until[1];
        }
        assert_eq!((last - begin).as_millis(), 10_000);
        let later = last + Duration::from_secs(100);
        let mut until = later;
        for _ in 0..50 {
            until = state.take(later, 100).unwrap().until;
        }
        assert_eq!((until - later).as_millis(), 4_500);
        state.set(later, None);
        assert_eq!(state.take(later, usize::MAX), None);
    }

    #[test]
    fn what_is_waited_for_is_waited_for_at_the_new_limit() {
        let begin = Instant::now() + Duration::from_secs(1000);
        let mut state = State {
            bytes_per_second: Some(1000),
            paid: begin,
        };
        let ticket = state.take(begin, 10_000).unwrap();
        // Four of ten seconds have passed: 6000 bytes are left.
        let later = begin + Duration::from_secs(4);
        assert!(state.set(later, Some(2000)));
        assert!(!state.set(later, Some(2000)));
        let ticket = state.exchange(later, ticket).unwrap();
        assert_eq!((ticket.until - later).as_millis(), 3000);
        let next = state.take(later, 2000).unwrap();
        assert_eq!((next.until - later).as_millis(), 4000);
        assert!(state.set(later, None));
        assert_eq!(state.exchange(later, ticket), None);
        assert!(state.set(later, Some(1000)));
        assert_eq!(
            (state.take(later, 1000).unwrap().until - later).as_millis(),
            1000
        );
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_the_limit_is_taken_away() {
        let pace = Pace::new(Some(1));
        let waits = async {
            tokio::join!(pace.take(1 << 40), pace.take(1 << 40));
        };
        let frees = async {
            tokio::task::yield_now().await;
            pace.set(Some(2));
            tokio::task::yield_now().await;
            pace.set(None);
        };
        // Without the second it would be thousands of years.
        tokio::join!(waits, frees);
    }
}
