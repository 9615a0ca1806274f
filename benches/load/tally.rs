//! What was seen during a run, and its summary.

use std::time::Duration;

use crate::client::Failure;

/// Successful operations whose numbers each connection keeps, to look at the objects again.
const KEPT_NUMBERS: usize = 2;

/// Counts and latencies; one a connection, merged at the end.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Latencies of the successful operations, in microseconds.
    latencies_us: Vec<u32>,
    /// Failed operations, each try counted, and wrong answers found afterwards.
    pub errors: u64,
    /// The first failure, for the report.
    pub first_error: Option<String>,
    /// Bytes of bodies that were sent.
    pub sent_bytes: u64,
    /// Objects or pages whose bytes were compared and right.
    pub verified: u64,
    /// Numbers of some successful operations.
    pub done: Vec<u64>,
}

impl Tally {
    /// Counts a success.
    pub(crate) fn succeeded(&mut self, number: u64, took: Duration) {
        let latency = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.latencies_us.push(latency);
        if self.done.len() < KEPT_NUMBERS {
            self.done.push(number);
        }
    }

    /// Counts a failure.
    pub(crate) fn failed(&mut self, failure: &Failure) {
        self.errors += 1;
        if self.first_error.is_none() {
            self.first_error = Some(failure.to_string());
        }
    }

    /// Adds another connection's tally.
    pub(crate) fn merge(&mut self, other: Tally) {
        self.latencies_us.extend(other.latencies_us);
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.sent_bytes += other.sent_bytes;
        self.verified += other.verified;
        self.done.extend(other.done);
    }

    /// Successful operations.
    pub(crate) fn operations(&self) -> u64 {
        self.latencies_us.len() as u64
    }

    /// The latencies below which these percentages of the operations lie (nearest rank), in
    /// milliseconds; zero without operations.
    pub(crate) fn percentiles_ms<const N: usize>(&mut self, percents: [f64; N]) -> [f64; N] {
        self.latencies_us.sort_unstable();
        percents.map(|percent| {
            let rank = (percent / 100.0 * self.latencies_us.len() as f64).ceil() as usize;
            let latency = self.latencies_us.get(rank.saturating_sub(1));
            f64::from(latency.copied().unwrap_or(0)) / 1e3
        })
    }
}
