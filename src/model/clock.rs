//! The time source: the system's clock, or one moved by hand in tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    /// The system's clock, put right by so many milliseconds: for nodes that share one time.
    Adjusted(Arc<AtomicI64>),
    /// A clock that stands still until it is moved.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that shows `now` until it is moved with [`Clock::advance`].
    pub fn manual(now: Millis) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(now)))
    }

    /// The system's clock, until it is put right with [`Clock::adjust`].
    pub fn adjusted() -> Self {
        Self::Adjusted(Arc::default())
    }

    /// Puts an adjusted clock right, so that it shows `now`; any other is left alone. Answers by how much it was
    /// wrong.
    pub fn adjust(&self, now: Millis) -> Millis {
        let error = now - self.now();
        if let Self::Adjusted(offset) = self {
            offset.fetch_add(error, Ordering::SeqCst);
        }
        error
    }

    /// The time now. It may step backwards; nothing may rely on it for order.
    pub fn now(&self) -> Millis {
        match self {
            Self::System => system(),
            Self::Adjusted(offset) => system() + offset.load(Ordering::SeqCst),
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
