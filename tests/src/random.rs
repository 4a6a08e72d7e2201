//! Seeds and bytes for random tests.

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

/// The seed of this run: `SHARDGATE_TEST_SEED`, or a new one. It is printed,
/// with the command that repeats the run.
pub fn seed(test: &str) -> u64 {
    let seed = std::env::var("SHARDGATE_TEST_SEED")
        .ok()
        .map(|text| text.parse().expect("SHARDGATE_TEST_SEED is a number"))
        .unwrap_or_else(rand::random);
    println!("{test}: repeat with SHARDGATE_TEST_SEED={seed} cargo test -p shardgate-tests {test}");
    seed
}

/// A generator from a seed.
pub fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// `len` bytes that follow from `seed` alone.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    rng(seed).fill_bytes(&mut bytes);
    bytes
}
