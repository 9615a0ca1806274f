//! Which backends failed a moment ago, so that the next request need not find out again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::fault::Kind;

/// How long a backend that failed is avoided where another one will do.
const AVOIDED_FOR: Duration = Duration::from_secs(10);

/// What this node remembers of its backends.
pub(super) struct Health {
    /// Backends, the preferred first.
    order: Vec<i64>,
    failed: Mutex<HashMap<i64, Instant>>,
}

impl Health {
    pub(super) fn new(order: Vec<i64>) -> Self {
        Self {
            order,
            failed: Mutex::default(),
        }
    }

    /// Notes how an operation at a backend ended: `None` is well.
    pub(super) fn note(&self, backend: i64, fault: Option<Kind>) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            None => {
                failed.remove(&backend);
            }
            Some(kind) if tells_of_backend(kind) => {
                failed.insert(backend, Instant::now());
            }
            Some(_) => {}
        }
    }

    /// Whether a backend failed a moment ago.
    pub(super) fn is_avoided(&self, backend: i64) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed
            .get(&backend)
            .is_some_and(|at| at.elapsed() < AVOIDED_FOR)
    }

    /// Sorts what lies at backends: healthy ones first, and those in the order of preference.
    pub(super) fn sort<T>(&self, copies: &mut [T], backend: impl Fn(&T) -> i64) {
        if copies.len() > 1 {
            copies.sort_by_cached_key(|copy| {
                let backend = backend(copy);
                let place = self.order.iter().position(|other| *other == backend);
                (self.is_avoided(backend), place.unwrap_or(usize::MAX))
            });
        }
    }
}

/// Whether a fault says something of the backend rather than of one blob.
fn tells_of_backend(kind: Kind) -> bool {
    match kind {
        Kind::Unavailable | Kind::Full => true,
        Kind::Busy
        | Kind::NotFound
        | Kind::Unknown
        | Kind::Corrupt
        | Kind::Config
        | Kind::Internal => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_read_in_order_of_preference_and_those_of_a_failed_backend_last() {
        let health = Health::new(vec![3, 1, 2]);
        let sorted = |health: &Health| {
            let mut copies = vec![1, 2, 3, 9];
            health.sort(&mut copies, |backend| *backend);
            copies
        };
        assert_eq!(sorted(&health), [3, 1, 2, 9]);
        health.note(3, Some(Kind::Unavailable));
        // One blob that is not there says nothing of the others.
        health.note(1, Some(Kind::NotFound));
        assert_eq!(sorted(&health), [1, 2, 9, 3]);
        assert!(health.is_avoided(3) && !health.is_avoided(1));
        health.note(3, None);
        assert_eq!(sorted(&health), [3, 1, 2, 9]);
    }
}
