//! What the data path counts. Plain numbers; the server gives them names.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn one(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// How many by now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The counts of the data path since the start.
        #[derive(Debug, Default)]
        pub struct ObjectMetrics {
            $($(#[$doc])* pub $name: Count,)*
        }

        impl ObjectMetrics {
            /// Every count by its name.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

counts! {
    /// Bytes of bodies that were taken in.
    bytes_in,
    /// Bytes of objects that were given out.
    bytes_out,
    /// Blobs that became durable.
    blobs_written,
    /// Shards that a quorum did without, because they failed or were late.
    shards_owed,
    /// Shards that were given up because they were late.
    shards_late,
    /// Writes that did not reach their quorum.
    quorums_lost,
    /// Blobs that were sent again to another group.
    blobs_resent,
    /// Blobs condemned because their write failed.
    blobs_abandoned,
    /// Shard reads that were asked of disks.
    shard_reads,
    /// Shard reads that found no shard.
    shards_missing,
    /// Shard reads that found bytes other than were written.
    shards_corrupt,
    /// Shard reads that failed by the disk's fault.
    shard_reads_failed,
    /// Shard reads sent to race a late one.
    hedges,
    /// Parts of stripes that were decoded.
    decodes,
    /// Reads that had too few shards.
    unreadable,
    /// Requests refused for lack of memory.
    slow_downs,
    /// Blobs whose shards were purged.
    blobs_purged,
    /// Condemned blobs whose records are damaged, and which are left alone.
    condemned_damaged,
    /// Notes of blobs that disks took.
    notes_sent,
    /// Blobs of which no note can be made, because records are damaged.
    notes_damaged,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_listed_by_name() {
        let metrics = ObjectMetrics::default();
        metrics.bytes_out.add(5);
        metrics.hedges.one();
        let all = metrics.all();
        assert!(all.contains(&("bytes_out", 5)) && all.contains(&("hedges", 1)));
    }
}
