//! Which blobs a checkpoint can use again, which must be sent, and which
//! nobody needs: decided here, without I/O.

use std::collections::HashSet;

use shardgate_catalog::checkpoint::{
    CheckpointFile, CheckpointRoot, ContentHash, Manifest, folder,
};
use shardgate_catalog::model::BlobRef;
use shardgate_wire::BlobId;

use super::due::Health;

/// Files up to this many bytes that are no tables lie in the manifest.
const INLINE: u64 = 64 << 10;

/// Whether a file lies in the manifest itself.
pub(super) fn is_inline(name: &str, len: u64) -> bool {
    len <= INLINE && !folder::is_table(name)
}

/// A checkpoint that is kept: its root, and its manifest if that was read.
#[derive(Clone, Debug)]
pub(super) struct KeptCheckpoint {
    pub(super) root: CheckpointRoot,
    pub(super) manifest: Option<Manifest>,
    /// Whether every file was found whole: when it was taken, or when a start
    /// looked.
    pub(super) whole: bool,
}

impl KeptCheckpoint {
    /// Its blobs, the manifest's too; none of its files where that was not
    /// read.
    fn blobs(&self) -> impl Iterator<Item = BlobRef> + '_ {
        let files = self.manifest.iter().flat_map(Manifest::stored);
        let files = files.map(|(_, stored)| stored.blob);
        std::iter::once(self.root.manifest.blob).chain(files)
    }
}

/// The blobs that may hold a file already, where all their disks take writes.
pub(super) fn reusable(
    hash: ContentHash,
    len: u64,
    known: &[CheckpointFile],
    health: impl Fn(&BlobRef) -> Health,
) -> Vec<CheckpointFile> {
    let of_file = known
        .iter()
        .filter(|file| file.hash == hash && file.stored && file.blob.len == len);
    of_file
        .filter(|file| health(&file.blob) == Health::Whole)
        .copied()
        .collect()
}

/// The blobs of the checkpoints that are kept: `None` as long as one of their
/// manifests was not read, since then they are not known.
pub(super) fn needed(kept: &[KeptCheckpoint]) -> Option<HashSet<BlobId>> {
    if kept.iter().any(|of| of.manifest.is_none()) {
        return None;
    }
    let blobs = kept.iter().flat_map(KeptCheckpoint::blobs);
    Some(blobs.map(|blob| blob.blob).collect())
}

/// Of the known blobs those that are not needed.
pub(super) fn needless(known: &[CheckpointFile], needed: &HashSet<BlobId>) -> Vec<CheckpointFile> {
    let needless = |file: &&CheckpointFile| !needed.contains(&file.blob.blob);
    known.iter().filter(needless).copied().collect()
}

/// What attempts that came to nothing left, when the next one begins: blobs
/// that were never marked, which nothing names, and those of files that are
/// not `wanted` now.
pub(super) fn stale(
    known: &[CheckpointFile],
    needed: Option<&HashSet<BlobId>>,
    wanted: &HashSet<ContentHash>,
) -> Vec<CheckpointFile> {
    let is_needless =
        |file: &CheckpointFile| needed.is_some_and(|of| !of.contains(&file.blob.blob));
    let is_stale = |file: &&CheckpointFile| {
        !file.stored || (is_needless(file) && !wanted.contains(&file.hash))
    };
    known.iter().filter(is_stale).copied().collect()
}

/// How the disks of all kept checkpoints are; one that could not be read, or
/// of which something is missing, is as good as lost.
pub(super) fn health_of(kept: &[KeptCheckpoint], health: impl Fn(&BlobRef) -> Health) -> Health {
    let of = |kept: &KeptCheckpoint| match kept.manifest {
        Some(_) if kept.whole => kept.blobs().map(|blob| health(&blob)).max(),
        _ => Some(Health::Lost),
    };
    kept.iter().filter_map(of).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use shardgate_catalog::checkpoint::{FileContent, ManifestFile, StoredFile};
    use shardgate_catalog::engine::log::ChainPosition;
    use shardgate_wire::{BlobLayout, ClusterId, CommitNumber, GroupId, LineageId};

    use super::*;

    fn blob(id: u128) -> BlobRef {
        BlobRef {
            group: GroupId(1),
            blob: BlobId(id),
            layout: BlobLayout { data: 2, parity: 1 },
            len: 10,
        }
    }

    fn hash(of: u8) -> ContentHash {
        ContentHash([of; 32])
    }

    fn file(of: u8, id: u128, stored: bool) -> CheckpointFile {
        CheckpointFile {
            hash: hash(of),
            blob: blob(id),
            stored,
        }
    }

    fn stored(id: u128) -> StoredFile {
        StoredFile {
            blob: blob(id),
            disks: Vec::new(),
        }
    }

    fn kept(number: u64, manifest: u128, files: &[u128]) -> KeptCheckpoint {
        let position = ChainPosition {
            number: CommitNumber(number),
            hash: [0; 32],
        };
        let of = |id: &u128| ManifestFile {
            name: format!("{id:06}.sst"),
            len: 10,
            hash: hash(1),
            content: FileContent::Stored(stored(*id)),
        };
        KeptCheckpoint {
            root: CheckpointRoot {
                cluster: ClusterId(1),
                lineage: LineageId(1),
                position,
                taken: 0,
                manifest: stored(manifest),
                manifest_hash: hash(9),
            },
            manifest: Some(Manifest {
                cluster: ClusterId(1),
                lineage: LineageId(1),
                position,
                files: files.iter().map(of).collect(),
            }),
            whole: true,
        }
    }

    #[test]
    fn tables_are_sent_and_small_other_files_are_not() {
        for (name, len, inline) in [
            ("CURRENT", 16, true),
            ("MANIFEST-000004", INLINE, true),
            ("MANIFEST-000004", INLINE + 1, false),
            ("000001.sst", 10, false),
        ] {
            assert_eq!(is_inline(name, len), inline, "{name} {len}");
        }
    }

    #[test]
    fn a_blob_is_used_again_only_whole_and_on_disks_that_live() {
        let known = [
            file(1, 1, true),
            file(1, 2, false),
            file(2, 3, true),
            file(1, 4, true),
            file(1, 5, true),
        ];
        let health = |blob: &BlobRef| match blob.blob.0 {
            1 => Health::Away,
            5 => Health::Lost,
            _ => Health::Whole,
        };
        assert_eq!(reusable(hash(1), 10, &known, health), [file(1, 4, true)]);
        assert_eq!(reusable(hash(1), 11, &known, health), []);
        assert_eq!(reusable(hash(3), 10, &known, health), []);
    }

    #[test]
    fn what_neither_kept_checkpoint_names_goes() {
        let known: Vec<_> = (1..=8).map(|id| file(id as u8, id, id != 8)).collect();
        // 1 and 2 are their manifests, 3 is in both, 7 in none; 8 was given up.
        let both = [kept(20, 1, &[3, 4]), kept(10, 2, &[3, 5, 6])];
        let gone = needless(&known, &needed(&both).unwrap());
        assert_eq!(gone, [file(7, 7, true), file(8, 8, false)]);
        // An unread manifest may name anything.
        let mut unread = both.to_vec();
        unread[1].manifest = None;
        assert_eq!(needed(&unread), None);
        assert_eq!(needless(&known, &needed(&[]).unwrap()), known);
    }

    #[test]
    fn what_failed_attempts_left_goes_but_for_what_the_next_one_can_use() {
        let known = [
            // Of a kept one, whether it is wanted or not.
            file(1, 3, true),
            file(2, 4, true),
            // Of an attempt that failed: wanted still, and not any more.
            file(3, 7, true),
            file(4, 8, true),
            // Never marked, of a file that is wanted.
            file(3, 9, false),
        ];
        let kept = needed(&[kept(20, 1, &[3, 4])]).unwrap();
        let wanted = HashSet::from([hash(1), hash(3)]);
        let gone = stale(&known, Some(&kept), &wanted);
        assert_eq!(gone, [file(4, 8, true), file(3, 9, false)]);
        // As long as what is kept is not known, a marked one may be of it.
        assert_eq!(stale(&known, None, &wanted), [file(3, 9, false)]);
    }

    #[test]
    fn the_worst_disk_of_both_decides() {
        let both = [kept(20, 1, &[3, 4]), kept(10, 2, &[5])];
        let with = |bad: u128, health: Health| {
            move |blob: &BlobRef| match blob.blob.0 == bad {
                true => health,
                false => Health::Whole,
            }
        };
        assert_eq!(health_of(&both, with(9, Health::Lost)), Health::Whole);
        for bad in 1..=5 {
            assert_eq!(health_of(&both, with(bad, Health::Away)), Health::Away);
            assert_eq!(health_of(&both, with(bad, Health::Lost)), Health::Lost);
        }
        let mut unread = both.to_vec();
        unread[0].manifest = None;
        assert_eq!(health_of(&unread, with(9, Health::Lost)), Health::Lost);
        // One that a start found to lack a file.
        let mut lacking = both.to_vec();
        lacking[1].whole = false;
        assert_eq!(health_of(&lacking, with(9, Health::Lost)), Health::Lost);
        assert_eq!(health_of(&[], with(9, Health::Lost)), Health::Whole);
    }
}
