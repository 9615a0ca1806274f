//! Buffers that blobs are read into, lent from one bounded pool.
//!
//! A buffer goes out as [`Bytes`] and comes back when the last clone of these is dropped, so its memory is
//! zeroed once, when it is first made. The pool never holds more than its budget. A stream that finds it
//! empty gets a small buffer of its own instead of waiting, because the buffers may all be with clients that
//! do not drain them.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Size of a pooled buffer: a read costs about as much as its system call and thread hop below this.
pub(super) const POOLED_BYTES: usize = 256 * 1024;
/// Size of the buffer made for a stream that finds the pool empty, and below which the pool is not asked.
pub(super) const PRIVATE_BYTES: usize = 32 * 1024;

/// The pool. Cheap to clone.
#[derive(Clone)]
pub(super) struct Buffers(Arc<Pool>);

struct Pool {
    state: Mutex<State>,
}

struct State {
    free: Vec<Vec<u8>>,
    /// How many more buffers may be made.
    unmade: usize,
}

/// Memory to read into: a mutable slice until it is frozen.
pub(super) struct Buffer {
    memory: Vec<u8>,
    /// How much of the memory is in use.
    len: usize,
    /// Where the memory goes back to.
    home: Option<Arc<Pool>>,
}

impl Buffers {
    /// A pool that holds at most `budget_bytes`.
    pub(super) fn new(budget_bytes: usize) -> Self {
        Self(Arc::new(Pool {
            state: Mutex::new(State {
                free: Vec::new(),
                unmade: budget_bytes / POOLED_BYTES,
            }),
        }))
    }

    /// A buffer of at most `want` bytes, and at least one when `want` is not 0.
    pub(super) fn take(&self, want: u64) -> Buffer {
        if want > PRIVATE_BYTES as u64
            && let Some(buffer) = self.take_pooled(want)
        {
            return buffer;
        }
        let len = clamp(want, PRIVATE_BYTES);
        Buffer {
            memory: vec![0; len],
            len,
            home: None,
        }
    }

    /// A pooled buffer of at most `want` bytes, when there is one.
    pub(super) fn take_pooled(&self, want: u64) -> Option<Buffer> {
        let mut state = self.0.lock();
        let memory = match state.free.pop() {
            Some(memory) => memory,
            None => {
                state.unmade = state.unmade.checked_sub(1)?;
                drop(state);
                vec![0; POOLED_BYTES]
            }
        };
        Some(Buffer {
            memory,
            len: clamp(want, POOLED_BYTES),
            home: Some(self.0.clone()),
        })
    }
}

impl Pool {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Every state in between is a valid one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buffer {
    /// The bytes to fill.
    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }

    /// The first `filled` bytes, to be handed on.
    pub(super) fn freeze(mut self, filled: usize) -> Bytes {
        self.len = filled;
        if self.home.is_some() {
            return Bytes::from_owner(self);
        }
        let mut memory = std::mem::take(&mut self.memory);
        memory.truncate(filled);
        Bytes::from(memory)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.lock().free.push(std::mem::take(&mut self.memory));
        }
    }
}

fn clamp(want: u64, most: usize) -> usize {
    usize::try_from(want).map_or(most, |want| want.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_pool_gives_a_small_private_buffer() {
        let buffers = Buffers::new(2 * POOLED_BYTES);
        let mut first = buffers.take(u64::MAX);
        let second = buffers.take(u64::MAX);
        assert_eq!(first.as_mut().len(), POOLED_BYTES);
        assert_eq!(second.as_ref().len(), POOLED_BYTES);
        assert_eq!(buffers.take(u64::MAX).as_ref().len(), PRIVATE_BYTES);
        assert!(buffers.take_pooled(1).is_none());
    }

    #[test]
    fn memory_comes_back_when_the_last_clone_is_dropped() {
        let buffers = Buffers::new(POOLED_BYTES);
        let mut buffer = buffers.take(u64::MAX);
        buffer.as_mut()[..3].copy_from_slice(b"abc");
        let bytes = buffer.freeze(3);
        let tail = bytes.slice(1..);
        drop(bytes);
        assert!(buffers.take_pooled(1).is_none());
        assert_eq!(tail, "bc");
        drop(tail);
        assert!(buffers.take_pooled(1).is_some());
    }

    #[test]
    fn a_short_read_does_not_occupy_the_pool() {
        let buffers = Buffers::new(POOLED_BYTES);
        let small = buffers.take(100);
        assert_eq!(small.as_ref().len(), 100);
        assert!(buffers.take_pooled(1).is_some());
        assert_eq!(small.freeze(7).len(), 7);
    }
}
