//! On which terms work in the background moves bytes: how fast, and for which job.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::meta::Session;
use crate::meta::jobs::Lease;
use crate::model::fault::Fault;

/// Time that was not used is not saved up beyond this: what follows a pause comes no faster.
const BURST: Duration = Duration::from_millis(500);

/// Terms of work in the background.
pub struct Work {
    /// How fast it may go.
    pub pace: Pace,
    lease: Option<Lease>,
}

impl Work {
    /// Work for whoever holds `lease`: what it changes, it changes only while that holds.
    pub fn new(bytes_per_second: Option<u64>, lease: Option<Lease>) -> Self {
        Self {
            pace: Pace::new(bytes_per_second),
            lease,
        }
    }

    /// Whose work it is.
    pub fn lease(&self) -> Option<Lease> {
        self.lease
    }

    /// What a transaction of this work begins with.
    pub fn hold(&self) -> Hold {
        Hold(self.lease)
    }
}

/// The lease of some work, for its transactions.
#[derive(Debug, Clone, Copy)]
pub struct Hold(Option<Lease>);

impl Hold {
    /// Makes the transaction one of the work's run.
    pub async fn on(self, session: &mut Session) -> Result<(), Fault> {
        match self.0 {
            Some(lease) => lease.hold(session).await,
            None => Ok(()),
        }
    }
}

/// A limit of bytes per second, shared by all that work at a time.
pub struct Pace {
    state: Mutex<State>,
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
        }
    }

    /// Sets another limit.
    pub fn set(&self, bytes_per_second: Option<u64>) {
        self.lock().bytes_per_second = bytes_per_second;
    }

    /// Waits until so many more bytes may be moved.
    pub async fn take(&self, bytes: usize) {
        let until = self.lock().take(Instant::now(), bytes);
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// When bytes that are asked for at `now` may be moved; `None` is at once.
    fn take(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let rate = self.bytes_per_second?;
        let from = self.paid.max(now.checked_sub(BURST).unwrap_or(now));
        self.paid = from + cost(bytes, rate);
        Some(self.paid)
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
            assert!(until[0] < until[1]);
            last = until[1].unwrap();
        }
        assert_eq!((last - begin).as_millis(), 10_000);
        let later = last + Duration::from_secs(100);
        let mut until = later;
        for _ in 0..50 {
            until = state.take(later, 100).unwrap();
        }
        assert_eq!((until - later).as_millis(), 4_500);
        state.bytes_per_second = None;
        assert_eq!(state.take(later, usize::MAX), None);
    }
}
