//! Numbers that name things: newtypes for ids, and the generator of UIDs.
//!
//! A UID is 64 bits, positive: 41 bits of milliseconds since [`EPOCH`], 10 bits of worker id, 12 bits of
//! sequence. Only the generator's holder of a worker id may mint with it, and only below a time that it
//! has reserved in SQL, so that a successor that starts above the reservation can never repeat one,
//! whatever either clock does.

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::model::clock::{Clock, Millis};
use crate::model::fault::{Fault, Kind};

/// 2024-01-01T00:00:00Z: the zero of a UID's time.
pub const EPOCH: Millis = 1_704_067_200_000;

const SEQUENCE_BITS: u32 = 12;
const WORKER_BITS: u32 = 10;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// The stable number of an object version, part or native upload.
    Uid
);
id!(
    /// A tenant: what S3 calls an account.
    TenantId
);
id!(
    /// A bucket. A bucket that is made again under an old name has a new id.
    BucketId
);
id!(
    /// A space: which bytes may be shared.
    SpaceId
);
id!(
    /// A content.
    ContentId
);
id!(
    /// A blob. Its high bits are the time it was made, as in a [`Uid`].
    BlobId
);
id!(
    /// An access key's row, by which possession is recorded: the key's name may be given again, its id never.
    SenderId
);

id!(
    /// A job.
    JobId
);

id!(
    /// A key that wraps data keys: a tenant's own, or one of its KMS.
    WrapKeyId
);
id!(
    /// One version of such a key.
    KeyVersionId
);

/// The time, in milliseconds since 1970, at which an id made by [`UidGenerator`] was minted.
pub fn minted_at(id: i64) -> Millis {
    (id >> (WORKER_BITS + SEQUENCE_BITS)) + EPOCH
}

/// The worker that minted an id.
pub fn worker_of(id: i64) -> u16 {
    (id >> SEQUENCE_BITS & ((1 << WORKER_BITS) - 1)) as u16
}

/// Mints ids for one worker. Shared by all tasks; never blocks.
#[derive(Debug)]
pub struct UidGenerator {
    clock: Clock,
    worker: i64,
    /// The last tick given out: milliseconds since [`EPOCH`] shifted by [`SEQUENCE_BITS`], plus sequence.
    last: AtomicU64,
    /// Milliseconds since 1970; ids are minted strictly below it.
    reserved_until: AtomicI64,
}

impl UidGenerator {
    /// A generator for `worker` (0 to 1023) that starts at or above `floor` and mints nothing before
    /// [`UidGenerator::extend`] has reserved time. `floor` is the predecessor's reservation.
    pub fn new(clock: Clock, worker: u16, floor: Millis) -> Self {
        let start = (floor - EPOCH).max(1) as u64;
        Self {
            clock,
            worker: i64::from(worker) & ((1 << WORKER_BITS) - 1),
            last: AtomicU64::new(start << SEQUENCE_BITS),
            reserved_until: AtomicI64::new(floor),
        }
    }

    /// Allows ids below `until` (milliseconds since 1970), which must be durable in SQL already.
    pub fn extend(&self, until: Millis) {
        self.reserved_until.fetch_max(until, Ordering::SeqCst);
    }

    /// The next id: greater than any this generator gave before. Fails with [`Kind::Busy`] while the
    /// reserved time is used up, as after a pause longer than the reservation.
    pub fn next(&self) -> Result<i64, Fault> {
        let now = ((self.clock.now() - EPOCH).max(0) as u64) << SEQUENCE_BITS;
        let millis_of = |tick: u64| (tick >> SEQUENCE_BITS) as i64;
        // What may not be minted is not noted as minted: after a time far ahead that was a mistake, ids go on.
        let advanced = self
            .last
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| {
                let tick = (last + 1).max(now);
                let until = self.reserved_until.load(Ordering::SeqCst);
                (millis_of(tick) + EPOCH < until).then_some(tick)
            });
        let Ok(last) = advanced else {
            return Err(Fault::new(Kind::Busy, "mint id").context("no reserved time left"));
        };
        let tick = (last + 1).max(now);
        let millis = millis_of(tick);
        let sequence = (tick & ((1 << SEQUENCE_BITS) - 1)) as i64;
        Ok((millis << (WORKER_BITS + SEQUENCE_BITS)) | (self.worker << SEQUENCE_BITS) | sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_even_when_the_clock_steps_back() {
        let clock = Clock::manual(EPOCH + 50_000);
        let uids = UidGenerator::new(clock.clone(), 7, EPOCH);
        uids.extend(EPOCH + 100_000);
        let mut last = 0;
        for step in 0..20_000 {
            if step == 10_000 {
                clock.advance(-40_000);
            }
            let id = uids.next().unwrap();
            assert!(id > last);
            last = id;
        }
    }

    #[test]
    fn nothing_is_minted_at_or_above_the_reservation() {
        let clock = Clock::manual(EPOCH + 1000);
        let uids = UidGenerator::new(clock.clone(), 1, EPOCH);
        assert_eq!(uids.next().unwrap_err().kind(), Kind::Busy);
        uids.extend(EPOCH + 2000);
        assert!(minted_at(uids.next().unwrap()) < EPOCH + 2000);
        clock.advance(1000);
        assert_eq!(uids.next().unwrap_err().kind(), Kind::Busy);
    }

    #[test]
    fn after_a_time_far_ahead_ids_go_on_as_before() {
        let clock = Clock::manual(EPOCH + 1000);
        let uids = UidGenerator::new(clock.clone(), 1, EPOCH);
        uids.extend(EPOCH + 2000);
        let before = uids.next().unwrap();
        let far = 40 * 86_400_000;
        clock.advance(far);
        assert_eq!(uids.next().unwrap_err().kind(), Kind::Busy);
        clock.advance(-far);
        let after = uids.next().unwrap();
        assert!(after > before);
        assert!(minted_at(after) < EPOCH + 2000);
    }

    #[test]
    fn a_successor_starts_above_its_predecessor() {
        let clock = Clock::manual(EPOCH + 1000);
        let first = UidGenerator::new(clock.clone(), 1, EPOCH);
        first.extend(EPOCH + 5000);
        let old = first.next().unwrap();
        let second = UidGenerator::new(clock, 1, EPOCH + 5000);
        second.extend(EPOCH + 9000);
        assert!(second.next().unwrap() > old);
        assert!(minted_at(second.next().unwrap()) >= EPOCH + 5000);
    }
}
