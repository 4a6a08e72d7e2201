//! Which records are read at once. Pure.

use super::super::format::Entry;

/// Bytes that are read at once: as long as to go to another place takes.
pub(super) const RUN_BYTES: u64 = 1 << 20;
/// What lies between two records is read with them up to this length, as a
/// kernel reads ahead; more is passed over.
const GAP_BYTES: u64 = 128 * 1024;

/// Where a record ends.
pub(super) fn end_of(entry: &Entry) -> u64 {
    entry.offset() + u64::from(entry.span)
}

/// Whether a record is read with those before it, of all in order of place;
/// `most` bytes are wanted in all.
pub(super) fn joins(run: &[Entry], next: &Entry, most: u64) -> bool {
    let (Some(first), Some(last)) = (run.first(), run.last()) else {
        return true;
    };
    let gap = next.offset().saturating_sub(end_of(last));
    // Records lie apart; a directory that says otherwise is met by reading.
    let apart = next.offset() >= end_of(last);
    apart && gap <= GAP_BYTES && end_of(next) - first.offset() <= most.min(RUN_BYTES)
}

#[cfg(test)]
mod tests {
    use shardgate_wire::ids::BlobId;

    use super::*;

    fn entry(offset: u64, span: u64) -> Entry {
        Entry {
            blob: BlobId(offset.into()),
            index: 0,
            at: u32::try_from(offset / 64).unwrap(),
            span: u32::try_from(span).unwrap(),
            besides: 0,
        }
    }

    /// Runs of records at (offset, length), as counts.
    fn runs(records: &[(u64, u64)], most: u64) -> Vec<usize> {
        let mut runs: Vec<Vec<Entry>> = vec![Vec::new()];
        for (offset, span) in records {
            let next = entry(*offset, *span);
            let last = runs.last_mut().unwrap();
            if joins(last, &next, most) {
                last.push(next);
            } else {
                runs.push(vec![next]);
            }
        }
        runs.iter().map(Vec::len).collect()
    }

    #[test]
    fn neighbours_are_read_at_once() {
        const K: u64 = 1024;
        const M: u64 = 1024 * K;
        for (records, most, wanted) in [
            // All in one go, up to 1 MiB, and to what is wanted.
            (&[(0, 4 * K), (4 * K, 4 * K), (8 * K, 64)][..], M, &[3][..]),
            (&[(0, 512 * K), (512 * K, 512 * K), (M, 64)], 9 * M, &[2, 1]),
            (&[(0, 4 * K), (4 * K, 4 * K), (8 * K, 64)], 8 * K, &[2, 1]),
            (&[(0, 4 * K), (4 * K, 4 * K)], 1, &[1, 1]),
            // What is dead between them is read along if it is short.
            (&[(0, 4 * K), (132 * K, 64)], M, &[2]),
            (&[(0, 4 * K), (132 * K + 64, 64)], M, &[1, 1]),
            // A long one is alone.
            (&[(0, 64), (64, 2 * M), (64 + 2 * M, 64)], 9 * M, &[1, 1, 1]),
            // Of two in one place, each is looked at.
            (&[(0, 4 * K), (0, 4 * K), (K, 64)], M, &[1, 1, 1]),
        ] {
            assert_eq!(runs(records, most), wanted, "{records:?} {most}");
        }
    }
}
