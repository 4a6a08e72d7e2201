//! What really lies on a disk, read without the code that is tested but for
//! the format of a batch.

use std::collections::BTreeSet;

use shardgate_journal::SegmentId;
use shardgate_journal::format::{Batch, claimed_len};
use shardgate_journal::memory::MemoryDisk;
use shardgate_wire::journal::JOURNAL_PAGE;

/// Commits that are whole on a disk, and in which segment.
pub fn commits(disk: &MemoryDisk) -> BTreeSet<(SegmentId, u64)> {
    let mut found = BTreeSet::new();
    for (_, bytes) in disk.contents() {
        for at in (0..bytes.len()).step_by(JOURNAL_PAGE) {
            let rest = &bytes[at..];
            let whole = claimed_len(rest).ok().filter(|len| *len <= rest.len());
            let Some(batch) = whole
                .and_then(|len| Batch::decode(&bytes::Bytes::copy_from_slice(&rest[..len])).ok())
            else {
                continue;
            };
            if batch.offset == at as u64 {
                let numbers = batch.before.0 + 1..=batch.last.number.0;
                found.extend(numbers.map(|number| (batch.segment, number)));
            }
        }
    }
    found
}
