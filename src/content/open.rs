//! What is open on this node: when the oldest read and the oldest unfinished write began.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::clock::{Clock, Millis};

/// The begin of every open read and write. The collector spares what is younger than the oldest of them.
pub struct OpenTimes {
    clock: Clock,
    reads: Mutex<Open>,
    writes: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    begun: BTreeSet<(Millis, u64)>,
    count: u64,
}

/// Which of the two a token stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Read,
    Write,
}

/// Something open; ends when dropped.
pub struct Token {
    times: Arc<OpenTimes>,
    side: Side,
    entry: (Millis, u64),
}

impl OpenTimes {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            reads: Mutex::default(),
            writes: Mutex::default(),
        }
    }

    pub(super) fn read(self: &Arc<Self>) -> Token {
        self.begin(Side::Read)
    }

    pub(super) fn write(self: &Arc<Self>) -> Token {
        self.begin(Side::Write)
    }

    /// No read open now, or begun later, began before this.
    pub fn oldest_read(&self) -> Millis {
        self.oldest(Side::Read)
    }

    /// No unfinished write, and none begun later, began before this.
    pub fn oldest_write(&self) -> Millis {
        self.oldest(Side::Write)
    }

    /// How many writes are open.
    pub(super) fn writes(&self) -> usize {
        self.lock(Side::Write).begun.len()
    }

    fn begin(self: &Arc<Self>, side: Side) -> Token {
        let mut open = self.lock(side);
        // The time is read under the lock, so that `oldest` never overtakes a token being made.
        let entry = (self.clock.now(), open.count);
        open.count += 1;
        open.begun.insert(entry);
        Token {
            times: Arc::clone(self),
            side,
            entry,
        }
    }

    fn oldest(&self, side: Side) -> Millis {
        let open = self.lock(side);
        let now = self.clock.now();
        open.begun
            .first()
            .map_or(now, |(begun, _)| (*begun).min(now))
    }

    fn lock(&self, side: Side) -> MutexGuard<'_, Open> {
        let open = match side {
            Side::Read => &self.reads,
            Side::Write => &self.writes,
        };
        open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.times.lock(self.side).begun.remove(&self.entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_open_read_holds_the_time_back_until_it_ends() {
        let clock = Clock::manual(1000);
        let times = Arc::new(OpenTimes::new(clock.clone()));
        let first = times.read();
        clock.advance(500);
        let second = times.read();
        clock.advance(500);
        assert_eq!(times.oldest_read(), 1000);
        assert_eq!(times.oldest_write(), 2000);
        drop(first);
        assert_eq!(times.oldest_read(), 1500);
        drop(second);
        assert_eq!(times.oldest_read(), 2000);
    }
}
