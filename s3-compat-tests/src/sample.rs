//! The bytes that clients store: one file of 1 GiB, made once and shared by all tests.
//!
//! The bytes follow from the generator alone, do not compress and do not repeat, so that a block that came
//! back in the wrong place is seen. Scripts cut their small objects out of it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Length of the sample in bytes.
pub const SAMPLE_LEN: u64 = 1 << 30;

const CHUNK_LEN: usize = 1 << 20;
const SEED: u64 = 0x5348_4152_4447_4154;

/// The sample, written into `folder` if it is not there yet.
pub fn file(folder: &Path) -> PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let path = folder.join("sample-1GiB");
        let complete = fs::metadata(&path).is_ok_and(|found| found.len() == SAMPLE_LEN);
        if !complete {
            // Under another name first: a run that was stopped leaves no half of it.
            let unfinished = folder.join(format!("sample-{}", std::process::id()));
            write(&unfinished).expect("write the sample");
            fs::rename(&unfinished, &path).expect("name the sample");
        }
        path
    })
    .clone()
}

fn write(path: &Path) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    let mut state = SEED;
    let mut chunk = vec![0; CHUNK_LEN];
    for _ in 0..SAMPLE_LEN / CHUNK_LEN as u64 {
        for word in chunk.chunks_exact_mut(8) {
            word.copy_from_slice(&next(&mut state).to_le_bytes());
        }
        file.write_all(&chunk)?;
    }
    file.sync_all()
}

/// xorshift64*, by Marsaglia and Vigna: the shifts and the factor are from "An experimental exploration of
/// Marsaglia's xorshift generators, scrambled" (2016).
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D)
}

#[test]
fn the_sample_does_not_repeat() {
    let mut state = SEED;
    let words: std::collections::HashSet<u64> = (0..100_000).map(|_| next(&mut state)).collect();
    assert_eq!(words.len(), 100_000);
}
