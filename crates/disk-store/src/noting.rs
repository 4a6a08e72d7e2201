//! Notes as the disk's callers have them: those of deleted blobs lie in the
//! log of the volumes, which every write looks at, all others in files.

use shardgate_wire::ids::{BlobId, GroupId};
use shardgate_wire::note::{
    BlobNote, MAX_DELETE_NOTES, MAX_NOTES, NoteCursor, NoteOrder, NotePage, NoteState,
};
use shardgate_wire::store::MAX_BATCH;
use shardgate_wire::{CallContext, ShardKey, StoreError, bounds};

use crate::aligned::AlignedBuffer;
use crate::core::Core;
use crate::space::Taker;
use crate::volume::{Note, Op};

impl Core {
    pub(crate) fn put_notes(
        &self,
        ctx: &CallContext,
        notes: &[BlobNote],
    ) -> Result<(), StoreError> {
        let _gate = self.enter(ctx)?;
        bounds::check_notes(notes)?;
        let is_deleted = |note: &BlobNote| {
            let held = self.volumes.note(note.group, note.blob);
            held.is_some_and(|held| held.deleted)
        };
        let open: Vec<BlobNote> = notes
            .iter()
            .filter(|note| !is_deleted(note))
            .cloned()
            .collect();
        let mut gone: Vec<_> = open
            .iter()
            .filter(|note| note.state == NoteState::Deleted)
            .collect();
        if gone.len() + self.volumes.notes_len() > MAX_DELETE_NOTES {
            return Err(StoreError::NoSpace);
        }
        gone.sort_by_key(|note| (note.group, note.blob, std::cmp::Reverse(note.order)));
        gone.dedup_by_key(|note| (note.group, note.blob));
        let gone: Vec<_> = gone
            .into_iter()
            .map(|note| (note.group, note.blob, deleted(note.order)))
            .collect();
        let ops: Vec<_> = gone
            .iter()
            .map(|(group, blob, note)| Op::Note(*group, *blob, note))
            .collect();
        if !ops.is_empty() {
            let answers = self.volumes.commit(&ops);
            answers.into_iter().collect::<Result<(), _>>()?;
        }
        let bytes = open.iter().map(note_space).sum();
        let _promised = match bytes {
            0 => None,
            bytes => Some(self.space.take(&self.condition, Taker::Notes, bytes)?),
        };
        self.notes.append(&open)
    }

    pub(crate) fn forget_notes(
        &self,
        ctx: &CallContext,
        blobs: &[(GroupId, BlobId)],
    ) -> Result<(), StoreError> {
        let _gate = self.enter(ctx)?;
        bounds::check_batch(blobs.len())?;
        let held = blobs.iter().filter(|(group, blob)| {
            let held = self.volumes.note(*group, *blob);
            held.is_some_and(|held| held.deleted)
        });
        let ops: Vec<_> = held
            .map(|(group, blob)| Op::Forget(*group, *blob))
            .collect();
        if ops.is_empty() {
            return Ok(());
        }
        let answers = self.volumes.commit(&ops);
        answers.into_iter().collect()
    }

    pub(crate) fn list_notes(&self, after: Option<NoteCursor>) -> Result<NotePage, StoreError> {
        self.condition.check_present()?;
        let from = match after {
            None => None,
            Some(NoteCursor::Deleted(group, blob)) => Some((group, blob)),
            Some(NoteCursor::Stored { .. }) => return self.notes.page(after),
        };
        let held = self.volumes.notes(from, MAX_NOTES);
        let next = match held.last() {
            Some(((group, blob), _)) if held.len() == MAX_NOTES => {
                NoteCursor::Deleted(*group, *blob)
            }
            _ => NoteCursor::Stored { file: 0, offset: 0 },
        };
        let notes = held
            .into_iter()
            .map(|((group, blob), note)| listed(group, blob, note));
        Ok(NotePage {
            notes: notes.collect(),
            next: Some(next),
            damaged: 0,
        })
    }

    /// Cleans the files of notes as far as that is due.
    pub(crate) fn clean_notes(&self) -> Result<bool, StoreError> {
        self.condition.check_writable()?;
        let mut buffer = AlignedBuffer::default();
        self.notes
            .clean(&mut |blobs| self.holds_any_of(blobs, &mut buffer))
    }

    /// Whether the disk has, or may have, a shard of each of these blobs,
    /// which are in order: read off its list, page by page.
    fn holds_any_of(
        &self,
        blobs: &[(GroupId, BlobId)],
        buffer: &mut AlignedBuffer,
    ) -> Result<Vec<bool>, StoreError> {
        let mut held = Vec::with_capacity(blobs.len());
        let mut page: Vec<(GroupId, BlobId)> = Vec::new();
        let mut ends = false;
        for &(group, blob) in blobs {
            let behind = page.last().is_none_or(|last| *last < (group, blob));
            if behind && !ends {
                let listed = self.list_shards(before(group, blob), MAX_BATCH, buffer)?;
                ends = listed.len() < MAX_BATCH;
                page = listed
                    .iter()
                    .map(|entry| (entry.key.group, entry.key.blob))
                    .collect();
            }
            let listed = page.binary_search(&(group, blob)).is_ok();
            // What a lost volume had is in no list, and may come back.
            held.push(listed || self.volumes.may_hide(group));
        }
        Ok(held)
    }
}

/// The last key that no shard of the blob has; `None`: there is none.
fn before(group: GroupId, blob: BlobId) -> Option<ShardKey> {
    let index = u8::MAX;
    let (group, blob) = match (blob.0.checked_sub(1), group.0.checked_sub(1)) {
        (Some(before), _) => (group, BlobId(before)),
        (None, Some(before)) => (GroupId(before), BlobId(u128::MAX)),
        (None, None) => return None,
    };
    Some(ShardKey { group, blob, index })
}

/// Bytes that a note in the files takes at most; one of a deleted blob is in
/// the log, whose space nobody else takes.
fn note_space(note: &BlobNote) -> u64 {
    const HEADS: u64 = 1024;
    match &note.state {
        NoteState::Published(payload) => HEADS + payload.len() as u64,
        NoteState::Deleted => 0,
    }
}

fn deleted(order: NoteOrder) -> Note {
    Note {
        commit: order.commit,
        deleted: true,
        payload: order.history.to_be_bytes().to_vec(),
    }
}

fn listed(group: GroupId, blob: BlobId, note: Note) -> BlobNote {
    let history = match <[u8; 8]>::try_from(&note.payload[..]) {
        Ok(bytes) if note.deleted => u64::from_be_bytes(bytes),
        _ => 0,
    };
    BlobNote {
        group,
        blob,
        order: NoteOrder {
            history,
            commit: note.commit,
        },
        state: match note.deleted {
            true => NoteState::Deleted,
            false => NoteState::Published(note.payload),
        },
    }
}

#[cfg(test)]
mod tests {
    use shardgate_wire::conformance::sample;
    use shardgate_wire::{Medium, ShardStore};

    use super::*;
    use crate::{DiskOptions, Expected, KeptSpace, LocalDisk, NewDisk};

    fn open(path: &std::path::Path) -> LocalDisk {
        let expected = Expected {
            cluster: sample::CLUSTER,
            disk: None,
        };
        let options = DiskOptions {
            kept: Some(KeptSpace::NONE),
            ..DiskOptions::default()
        };
        LocalDisk::open(path, &expected, options).expect("it opens")
    }

    #[tokio::test]
    async fn notes_of_a_group_with_a_lost_volume_stay() {
        let dir = tempfile::tempdir().expect("make a folder");
        let new = NewDisk {
            cluster: sample::CLUSTER,
            disk: sample::identity().disk,
            medium: Some(Medium::Flash),
            create_folder: false,
        };
        LocalDisk::format(dir.path(), &new).expect("formatted");
        let disk = open(dir.path());
        let ctx = sample::context(1);
        disk.assign(&ctx, &[sample::slot()]).await.expect("taken");
        let small = sample::small(&ctx, 1, 100);
        disk.put(&ctx, small).await.expect("stored");
        let blobs = [
            (sample::GROUP, BlobId(1)),
            (sample::GROUP, BlobId(9)),
            (GroupId(sample::GROUP.0 + 1), BlobId(1)),
        ];
        let held = |disk: &LocalDisk| {
            let mut buffer = AlignedBuffer::default();
            disk.core.holds_any_of(&blobs, &mut buffer).expect("listed")
        };
        assert_eq!(held(&disk), [true, false, false]);
        disk.close().await;
        drop(disk);
        // Its directory, and its heading, both copies: nothing of it is found.
        let group = dir.path().join("volumes").join(sample::GROUP.to_string());
        let volume = group.join("0000000000000001.vol");
        let mut bytes = std::fs::read(&volume).expect("there is one");
        bytes[..8192].fill(0);
        std::fs::write(&volume, bytes).expect("damaged");
        std::fs::remove_file(group.join("0000000000000001.dir")).expect("there is one");
        let disk = open(dir.path());
        assert_eq!(
            disk.core
                .list_shards(None, 9, &mut AlignedBuffer::default()),
            Ok(vec![])
        );
        assert_eq!(held(&disk), [true, true, false]);
    }
}
