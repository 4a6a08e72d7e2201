//! Checkpoint files that are damaged on disks: computed from others, or the
//! other checkpoint is taken, or it is refused and said what is missing.

use std::fs;
use std::path::{Path, PathBuf};

use shardgate_tests::pool::TestPool;

use crate::told::Told;
use crate::whole::{lose_gateway, restored};

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("list a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

/// What every manifest begins with (`docs/catalog.md`).
const MAGIC: &[u8] = b"SG.cman\0\x01";

/// Takes a number as postcard writes it: seven bits a byte, the lowest first.
fn take_number(bytes: &mut &[u8]) -> u128 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (&byte, rest) = bytes.split_first().expect("a number ends");
        *bytes = rest;
        number |= u128::from(byte & 0x7F) << shift;
        shift += 7;
        if byte < 0x80 {
            return number;
        }
    }
}

/// How the manifest of the newest checkpoint begins that a disk has; it is
/// stored like any other file.
fn newest_manifest(disk: &Path) -> Vec<u8> {
    let mut newest = (0, Vec::new());
    for path in files(disk) {
        let bytes = fs::read(&path).expect("read a file");
        for (at, _) in found(&bytes, MAGIC) {
            let mut body = &bytes[at + MAGIC.len()..];
            let (_cluster, _lineage) = (take_number(&mut body), take_number(&mut body));
            let commit = take_number(&mut body);
            if commit > newest.0 {
                newest = (commit, bytes[at..at + 80].to_vec());
            }
        }
    }
    assert!(newest.0 > 0, "no manifest on {}", disk.display());
    newest.1
}

/// Where a needle lies in bytes.
fn found<'b>(bytes: &'b [u8], needle: &'b [u8]) -> impl Iterator<Item = (usize, &'b [u8])> {
    let windows = bytes.windows(needle.len()).enumerate();
    windows.filter(move |(_, window)| *window == needle)
}

/// Flips a byte behind every place where a needle lies on a disk; how many
/// there were.
fn damage(disk: &Path, needle: &[u8]) -> usize {
    let mut hits = 0;
    for path in files(disk) {
        let mut bytes = fs::read(&path).expect("read a file");
        let places: Vec<usize> = found(&bytes, needle).map(|(at, _)| at).collect();
        for at in &places {
            bytes[*at + needle.len() / 2] ^= 0x40;
        }
        if !places.is_empty() {
            fs::write(&path, &bytes).expect("write it back");
        }
        hits += places.len();
    }
    hits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_damaged_on_one_disk_and_on_all() {
    // Two copies more: each disk has every file whole.
    let mut pool = TestPool::embedded(3);
    let mut told = Told::new(31);
    told.fill(&pool.client(), 20).await;
    pool.checkpoint();
    told.fill(&pool.client(), 10).await;
    pool.checkpoint();
    told.fill(&pool.client(), 5).await;
    pool.stop();
    let needle = newest_manifest(&pool.disk(1));
    assert_eq!(damage(&pool.disk(1), &needle), 1, "one copy on each disk");
    lose_gateway(&mut pool);
    let said = restored(&mut pool, &told).await;
    assert!(
        !said.contains("shards that are needed"),
        "the newest would do: {said}"
    );
    pool.stop();

    // On all three: the older checkpoint, and more journal.
    for disk in 2..=3 {
        assert_eq!(damage(&pool.disk(disk), &needle), 1);
    }
    lose_gateway(&mut pool);
    let said = restored(&mut pool, &told).await;
    assert!(said.contains("0 of the 1 shards"), "{said}");
    pool.stop();
}
