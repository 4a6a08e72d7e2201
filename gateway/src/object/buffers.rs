//! Blocks: the buffers that bodies are coded in, used again and again.
//!
//! Owns the free list. Invariant: a block's capacity never grows, so what a
//! block holds is what the memory budget counted for it; what the list keeps
//! is bounded. Without reuse, buffers of this size are mapped and unmapped,
//! or leave holes, with every stripe.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use shardgate_erasure::BLOCK;

/// Capacity of every block of the list.
const CAPACITY: usize = BLOCK as usize;

/// Where blocks come from and go back to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BlockPool {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
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
    /// A pool that keeps up to `most_kept` blocks for reuse.
    pub fn new(most_kept: usize) -> Self {
        Self {
            free: Arc::default(),
            most_kept,
        }
    }

    /// An empty block for up to `len` bytes, at most 256 KiB.
    pub fn take(&self, len: usize) -> Block {
        assert!(len <= CAPACITY, "a block of {len} bytes");
        // A small one is not worth a whole block of the list.
        let reused = match len > CAPACITY / 4 {
            true => self.free.lock().pop(),
            false => None,
        };
        let buffer = reused
            .unwrap_or_else(|| Vec::with_capacity(if len > CAPACITY / 4 { CAPACITY } else { len }));
        Block {
            buffer,
            pool: self.clone(),
        }
    }

    #[cfg(test)]
    fn kept(&self) -> usize {
        self.free.lock().len()
    }
}

impl Block {
    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Adds bytes that are known to fit.
    pub fn extend(&mut self, bytes: &[u8]) {
        debug_assert!(self.buffer.len() + bytes.len() <= CAPACITY);
        self.buffer.extend_from_slice(bytes);
    }

    /// Sets its length; what is added is zeroes.
    pub fn resize(&mut self, len: usize) {
        debug_assert!(len <= CAPACITY);
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
        if self.buffer.capacity() != CAPACITY {
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let mut free = self.pool.free.lock();
        if free.len() < self.pool.most_kept {
            free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_when_the_last_slice_goes() {
        let pool = BlockPool::new(1);
        let mut block = pool.take(CAPACITY);
        block.extend(&[7; 100]);
        block.resize(128);
        let bytes = block.freeze();
        assert_eq!((bytes[99], bytes[100], bytes.len()), (7, 0, 128));
        let slice = bytes.slice(5..9);
        drop(bytes);
        assert_eq!(pool.kept(), 0);
        drop(slice);
        assert_eq!(pool.kept(), 1);
        assert_eq!(pool.take(CAPACITY).len(), 0, "a used block comes empty");
    }

    #[test]
    fn the_list_is_bounded_and_small_blocks_are_small() {
        let pool = BlockPool::new(2);
        let blocks: Vec<_> = (0..5).map(|_| pool.take(CAPACITY)).collect();
        drop(blocks);
        assert_eq!(pool.kept(), 2);
        let mut small = pool.take(100);
        small.resize(100);
        assert!(small.buffer.capacity() < 1000);
        drop(small);
        assert_eq!(pool.kept(), 2);
    }
}
