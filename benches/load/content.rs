//! Bodies: pseudo-random content that can be made again from a number.
//!
//! Every 4 KiB block is a block of one shared base XORed with a key derived from the content's id
//! and the block's position. All bytes of two contents differ from each other, so that neither a
//! server that stores equal chunks once nor one that compresses gains anything, yet making them
//! costs little more than a copy inside the second-level cache. A reader makes the expected bytes
//! again instead of keeping them.

/// The unit that gets its own key. Offsets given to [`ContentSource::fill`] are multiples of it.
const BLOCK_BYTES: usize = 4096;
/// Words in a block.
const BLOCK_WORDS: usize = BLOCK_BYTES / 8;
/// Blocks in the shared base: 64 KiB, small enough to stay in the cache.
const BASE_BLOCKS: usize = 16;

/// Names one content: equal ids have equal bytes (at equal length), different ids differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ContentId(u64);

impl ContentId {
    /// The content of the `number`-th object under `seed`.
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        Self(scramble(scramble(seed).wrapping_add(number)))
    }

    /// The content of one part of a multipart upload whose whole has this id.
    pub(crate) fn part(self, number: u64) -> Self {
        Self::new(self.0, number)
    }
}

/// Makes and checks contents.
pub(crate) struct ContentSource {
    base: Vec<u64>,
}

impl ContentSource {
    /// Makes the shared base; the same in every process.
    pub(crate) fn new() -> Self {
        let base = (0..BASE_BLOCKS * BLOCK_WORDS)
            .map(|word| scramble(word as u64))
            .collect();
        Self { base }
    }

    /// Writes the bytes `offset..offset + out.len()` of a content. `offset` is a multiple of 4 KiB.
    pub(crate) fn fill(&self, content: ContentId, offset: u64, out: &mut [u8]) {
        debug_assert_eq!(offset % BLOCK_BYTES as u64, 0);
        let first = offset / BLOCK_BYTES as u64;
        for (position, block) in out.chunks_mut(BLOCK_BYTES).enumerate() {
            let number = first + position as u64;
            let key = scramble(content.0 ^ number.wrapping_mul(0xD6E8_FEB8_6659_FD93));
            let start = (number % BASE_BLOCKS as u64) as usize * BLOCK_WORDS;
            let base = &self.base[start..start + BLOCK_WORDS];
            let whole_words = block.len() / 8;
            let mut words = block.chunks_exact_mut(8);
            for (out, word) in words.by_ref().zip(base) {
                out.copy_from_slice(&(word ^ key).to_le_bytes());
            }
            let rest = words.into_remainder();
            if !rest.is_empty() {
                let last = (base[whole_words] ^ key).to_le_bytes();
                rest.copy_from_slice(&last[..rest.len()]);
            }
        }
    }

    /// Whether `seen` is what the content has at `offset`, which may be any offset. `scratch` is
    /// working space, grown to the largest piece seen.
    pub(crate) fn matches(
        &self,
        content: ContentId,
        offset: u64,
        seen: &[u8],
        scratch: &mut Vec<u8>,
    ) -> bool {
        let lead = (offset % BLOCK_BYTES as u64) as usize;
        let needed = lead + seen.len();
        if scratch.len() < needed {
            scratch.resize(needed, 0);
        }
        let window = &mut scratch[..needed];
        self.fill(content, offset - lead as u64, window);
        window[lead..] == *seen
    }
}

/// A cheap, well mixing bijection on 64 bits (the finalizer of SplitMix64).
pub(crate) fn scramble(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
