//! Blocks: the buffers that bodies are coded in, used again and again.
//!
//! Owns the free lists. Invariant: a block's capacity never grows, so what a
//! block holds is what the memory budget counted for it; what the lists keep
//! is bounded. Without reuse, buffers of this size are mapped and unmapped,
//! or leave holes, with every stripe.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use shardgate_erasure::BLOCK;

/// Capacity of the largest blocks.
const LARGEST: usize = BLOCK as usize;
/// Capacities of the blocks that are kept, the smallest first: schemes with
/// many data shards have blocks of half the length.
const CAPACITIES: [usize; 2] = [LARGEST / 2, LARGEST];

/// The list of blocks that are long enough for `len` bytes; `None`: a short
/// one is not worth a whole block of a list.
fn list_for(len: usize) -> Option<usize> {
    match len > LARGEST / 4 {
        true => CAPACITIES.iter().position(|capacity| len <= *capacity),
        false => None,
    }
}

/// Where blocks come from and go back to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BlockPool {
    free: Arc<Mutex<[Vec<Vec<u8>>; CAPACITIES.len()]>>,
    /// Bytes that each list keeps at most.
    most_kept: usize,
}

/// A buffer that can be written; goes back to its pool when dropped, or when
/// the last [`Bytes`] made of it is.
#[derive(Debug)]
pub struct Block {
    buffer: Vec<u8>,
    pool: BlockPool,
}

impl BlockPool {
    /// A pool that keeps up to `most_kept` bytes of each capacity for reuse.
    pub fn new(most_kept: usize) -> Self {
        Self {
            free: Arc::default(),
            most_kept,
        }
    }

    /// An empty block for up to `len` bytes, at most 256 KiB.
    pub fn take(&self, len: usize) -> Block {
        assert!(len <= LARGEST, "a block of {len} bytes");
        let list = list_for(len);
        let reused = list.and_then(|list| self.free.lock()[list].pop());
        let capacity = list.map_or(len, |list| CAPACITIES[list]);
        let buffer = reused.unwrap_or_else(|| Vec::with_capacity(capacity));
        Block {
            buffer,
            pool: self.clone(),
        }
    }

    #[cfg(test)]
    fn kept(&self) -> usize {
        self.free.lock().iter().map(Vec::len).sum()
    }
}

impl Block {
    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Adds bytes that are known to fit.
    pub fn extend(&mut self, bytes: &[u8]) {
        debug_assert!(self.buffer.len() + bytes.len() <= self.buffer.capacity());
        self.buffer.extend_from_slice(bytes);
    }

    /// Sets its length; what is added is zeroes.
    pub fn resize(&mut self, len: usize) {
        debug_assert!(len <= self.buffer.capacity());
        self.buffer.resize(len, 0);
    }

    /// Its bytes, shared from now on.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl AsMut<[u8]> for Block {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.buffer
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let capacity = self.buffer.capacity();
        let Some(list) = CAPACITIES.iter().position(|kept| *kept == capacity) else {
            return;
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let mut free = self.pool.free.lock();
        if (free[list].len() + 1) * capacity <= self.pool.most_kept {
            free[list].push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_when_the_last_slice_goes() {
        let pool = BlockPool::new(LARGEST);
        let mut block = pool.take(LARGEST);
        block.extend(&[7; 100]);
        block.resize(128);
        let bytes = block.freeze();
        assert_eq!((bytes[99], bytes[100], bytes.len()), (7, 0, 128));
        let slice = bytes.slice(5..9);
        drop(bytes);
        assert_eq!(pool.kept(), 0);
        drop(slice);
        assert_eq!(pool.kept(), 1);
        assert_eq!(pool.take(LARGEST).len(), 0, "a used block comes empty");
    }

    #[test]
    fn the_lists_are_bounded_and_blocks_no_longer_than_need_be() {
        let pool = BlockPool::new(2 * LARGEST);
        let blocks: Vec<_> = (0..5).map(|_| pool.take(LARGEST)).collect();
        drop(blocks);
        assert_eq!(pool.kept(), 2);
        let half = pool.take(LARGEST / 2);
        assert_eq!(half.buffer.capacity(), LARGEST / 2);
        drop(half);
        assert_eq!(pool.kept(), 3);
        assert_eq!(pool.take(LARGEST / 2 + 1).buffer.capacity(), LARGEST);
        let mut small = pool.take(100);
        small.resize(100);
        assert!(small.buffer.capacity() < 1000);
        drop(small);
        assert_eq!(pool.kept(), 3);
    }
}
