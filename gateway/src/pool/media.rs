//! What depends on the medium of a disk, as the gateway sees it: one table,
//! which `docs/operations.md` shows too. What the disk itself does by medium
//! (threads, direct writes) is `shardgate_disk_store::MediumFigures`.

use std::time::Duration;

use shardgate_wire::Medium;

/// The figures of one medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediumProfile {
    /// Of which medium.
    pub medium: Medium,
    /// A blob is cut into no more data shards than keep its shards at most
    /// this long, bytes: a seek costs as much as reading so much.
    pub shard_target_bytes: u64,
    /// Bytes of one read.
    pub io_bytes: usize,
    /// A late read is raced no sooner than this.
    pub hedge_least: Duration,
    /// And no later, before enough calls were measured too.
    pub hedge_most: Duration,
}

/// All media.
pub const MEDIA: [MediumProfile; 2] = [
    MediumProfile {
        medium: Medium::Flash,
        shard_target_bytes: 128 * 1024,
        io_bytes: 256 * 1024,
        hedge_least: Duration::from_millis(10),
        hedge_most: Duration::from_millis(250),
    },
    MediumProfile {
        medium: Medium::Rotating,
        shard_target_bytes: 256 * 1024,
        io_bytes: 1024 * 1024,
        hedge_least: Duration::from_millis(40),
        hedge_most: Duration::from_secs(1),
    },
];

/// The figures of `medium`.
pub fn medium_profile(medium: Medium) -> &'static MediumProfile {
    match medium {
        Medium::Flash => &MEDIA[0],
        Medium::Rotating => &MEDIA[1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_medium_has_its_own_row() {
        for row in &MEDIA {
            assert_eq!(medium_profile(row.medium), row);
            assert!(row.hedge_least < row.hedge_most);
        }
    }
}
