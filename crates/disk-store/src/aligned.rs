//! A buffer whose address and length suit writing past the page cache.
//!
//! Bytes from the network lie anywhere; they are copied here first. Each disk
//! thread owns one, so they are bounded by the number of threads.

use crate::format::PAGE;

/// A reusable buffer that begins at a multiple of [`PAGE`].
#[derive(Debug, Default)]
pub(crate) struct AlignedBuffer {
    slack: Vec<u8>,
}

impl AlignedBuffer {
    /// `len` bytes of unspecified content, at an aligned address.
    pub(crate) fn take(&mut self, len: usize) -> &mut [u8] {
        if self.slack.len() < len + PAGE {
            self.slack = vec![0; len + PAGE];
        }
        let start = self.slack.as_ptr().align_offset(PAGE);
        // `align_offset` may give up by contract; then the write is refused
        // by the kernel and goes through the page cache.
        let start = if start < PAGE { start } else { 0 };
        &mut self.slack[start..start + len]
    }

    /// Gives up what is more than a small call needs.
    pub(crate) fn shrink(&mut self) {
        const SMALL: usize = 64 * 1024;
        if self.slack.len() > SMALL + PAGE {
            self.slack = Vec::new();
        }
    }

    /// The parts, one after the other, then zeroes up to `len`.
    pub(crate) fn fill(&mut self, parts: &[&[u8]], len: usize) -> &[u8] {
        let out = self.take(len);
        let mut at = 0;
        for part in parts {
            out[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        out[at..].fill(0);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_padded() {
        let mut buffer = AlignedBuffer::default();
        for len in [PAGE, 300_000, 8192] {
            buffer.take(len).fill(0xff);
            let filled = buffer.fill(&[&[1; 10], &[2; 20]], len);
            assert_eq!(filled.as_ptr().addr() % PAGE, 0);
            assert_eq!(filled.len(), len);
            assert_eq!((filled[9], filled[10], filled[29]), (1, 2, 2));
            assert!(filled[30..].iter().all(|b| *b == 0));
        }
        buffer.shrink();
        assert!(buffer.slack.is_empty(), "it had become large");
    }
}
