//! The time source: the system's clock, or one moved by hand in tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01T00:00:00Z.
pub type Millis = i64;

/// A length of time in milliseconds; the longest where it has more.
pub fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// A time as ISO 8601 with milliseconds, in UTC: `2026-01-02T03:04:05.678Z`.
pub fn iso8601(time: Millis) -> String {
    let form = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
    );
    time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(time) * 1_000_000)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
        .format(form)
        .unwrap_or_default()
}

/// A random number from 0 up to 1, so that pauses of those who began together differ; 0 without random bytes.
pub fn random_fraction() -> f64 {
    let mut random = [0; 2];
    // The shortest pause is as good as any.
    let _ = getrandom::fill(&mut random);
    f64::from(u16::from_ne_bytes(random)) / 65536.0
}

/// Where the time comes from. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The system's clock.
    #[default]
    System,
    /// A clock for nodes that share one time: the time it was told last, and what has passed since.
    Adjusted(Arc<Running>),
    /// A clock that stands still until it is moved.
    Manual(Arc<AtomicI64>),
}

/// A time that goes on by the machine's monotonic clock, whatever becomes of the system's: that is set by hand and by
/// others, and a step forward would end every upload and delete what rules and graces still keep. While the machine is
/// suspended it stands still, and is behind until it is put right: late, never early.
#[derive(Debug)]
pub struct Running {
    began: Instant,
    /// What it showed, or should have shown, at `began`.
    at_begin: AtomicI64,
}

impl Running {
    fn from(now: Millis) -> Self {
        Self {
            began: Instant::now(),
            at_begin: AtomicI64::new(now),
        }
    }

    fn now(&self) -> Millis {
        self.at_begin
            .load(Ordering::SeqCst)
            .saturating_add(millis(self.began.elapsed()))
    }
}

impl Clock {
    /// A clock that shows `now` until it is moved with [`Clock::advance`].
    pub fn manual(now: Millis) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(now)))
    }

    /// A clock that begins at the system's time, goes on by itself, and is put right with [`Clock::adjust`].
    pub fn adjusted() -> Self {
        Self::Adjusted(Arc::new(Running::from(system())))
    }

    /// Puts an adjusted clock right, so that it shows `now`; any other is left alone. Answers by how much it was
    /// wrong.
    pub fn adjust(&self, now: Millis) -> Millis {
        let error = now - self.now();
        if let Self::Adjusted(running) = self {
            running.at_begin.fetch_add(error, Ordering::SeqCst);
        }
        error
    }

    /// The time now. It may step backwards; nothing may rely on it for order.
    pub fn now(&self) -> Millis {
        match self {
            Self::System => system(),
            Self::Adjusted(running) => running.now(),
            Self::Manual(now) => now.load(Ordering::SeqCst),
        }
    }

    /// Moves a manual clock by `by` milliseconds; the system's clock is left alone.
    pub fn advance(&self, by: Millis) {
        if let Self::Manual(now) = self {
            now.fetch_add(by, Ordering::SeqCst);
        }
    }
}

fn system() -> Millis {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_millis() as Millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adjusted_clock_goes_on_from_the_time_it_was_told() {
        let clock = Clock::adjusted();
        assert!((clock.now() - system()).abs() < 60_000);
        let day = 86_400_000;
        for told in [system() + 40 * day, system() - 40 * day] {
            clock.adjust(told);
            let began = Instant::now();
            let first = clock.now();
            std::thread::sleep(Duration::from_millis(20));
            let second = clock.now();
            let most = millis(began.elapsed()) + 1;
            assert!((0..60_000).contains(&(first - told)), "{first}");
            assert!((20..=most).contains(&(second - first)), "{second}");
        }
    }
}
