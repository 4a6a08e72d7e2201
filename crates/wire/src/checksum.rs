//! The checksum of a block.
//!
//! Every shard is checked in blocks of [`CHECK_BLOCK`] bytes (the last one
//! may be shorter) with CRC-32C, which detects all burst errors up to 32 bits
//! and runs at memory speed. The gateway computes it while it encodes, the
//! store checks it before it writes and after it reads, and the gateway
//! checks it again: one checksum from end to end.

use crc_fast::{CrcAlgorithm, checksum};

/// Bytes that one checksum covers.
pub const CHECK_BLOCK: usize = 64 * 1024;

/// CRC-32C (Castagnoli) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    // The 32-bit result comes in the low half; the high half is zero.
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// The checksums of `bytes`, which start at a multiple of [`CHECK_BLOCK`].
pub fn block_crcs(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(CHECK_BLOCK).map(crc32c).collect()
}

/// Index of the first block of `bytes` that its checksum does not match.
///
/// Returns `Some` too when the number of checksums is not that of the blocks.
pub fn first_bad_block(bytes: &[u8], crcs: &[u32]) -> Option<usize> {
    if bytes.len().div_ceil(CHECK_BLOCK) != crcs.len() {
        return Some(crcs.len().min(bytes.len().div_ceil(CHECK_BLOCK)));
    }
    bytes
        .chunks(CHECK_BLOCK)
        .zip(crcs)
        .position(|(block, &crc)| crc32c(block) != crc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_of_the_check_string() {
        // RFC 3720, appendix B.4, and the usual check value of CRC-32C.
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0u8; 32]), 0x8A91_36AA);
    }

    #[test]
    fn a_flipped_bit_is_found_in_its_block() {
        let mut bytes = vec![7u8; 3 * CHECK_BLOCK + 5];
        let crcs = block_crcs(&bytes);
        assert_eq!(crcs.len(), 4);
        assert_eq!(first_bad_block(&bytes, &crcs), None);
        bytes[2 * CHECK_BLOCK] ^= 1;
        assert_eq!(first_bad_block(&bytes, &crcs), Some(2));
        assert_eq!(first_bad_block(&bytes, &crcs[..3]), Some(3));
    }
}
