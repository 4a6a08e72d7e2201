//! A commit that is being put together: expectations and rows, typed.

use bytes::Bytes;
use shardgate_wire::note::NO_BLOB;
use shardgate_wire::{BucketIncarnation, GroupId, VersionUid};

use crate::engine::{Commit, Expect, KeyRange, Op};
use crate::keys::{self, space};
use crate::model::{BlobRef, CondemnReason, CondemnedRow, Content, NoteRow, PartRow, VersionRow};
use crate::row::{Row, encode};

/// The newest version of a key with everything that names its blobs, exactly
/// as it was read: what a commit that drops it expects.
#[derive(Clone, Debug)]
pub(crate) struct StoredVersion {
    pub(crate) raw: Bytes,
    pub(crate) row: VersionRow,
    /// Part rows and their bytes; empty unless the content is parts.
    pub(crate) parts: Vec<(Bytes, Bytes, PartRow)>,
}

#[derive(Debug, Default)]
pub(crate) struct Draft {
    commit: Commit,
    condemned: u32,
    notes: u32,
}

impl Draft {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn into_commit(self) -> Commit {
        self.commit
    }

    pub(crate) fn ops(&self) -> usize {
        self.commit.ops.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.commit.ops.is_empty()
    }

    /// The key has exactly this value, or is absent.
    pub(crate) fn expect(&mut self, key: Bytes, raw: Option<Bytes>) {
        self.commit.expect.push(Expect::Value(key, raw));
    }

    /// The range holds exactly these rows.
    pub(crate) fn expect_rows(&mut self, range: KeyRange, rows: Vec<(Bytes, Bytes)>) {
        self.commit.expect.push(Expect::Rows(range, rows));
    }

    pub(crate) fn put<R: Row>(&mut self, key: Bytes, row: &R) {
        self.put_raw(key, encode(row));
    }

    pub(crate) fn put_raw(&mut self, key: Bytes, value: Bytes) {
        self.commit.ops.push(Op::Put(key, value));
    }

    pub(crate) fn delete(&mut self, key: Bytes) {
        self.commit.ops.push(Op::Delete(key));
    }

    /// Takes a blob from its owner and queues it to be purged.
    pub(crate) fn condemn_owned(&mut self, blob: &BlobRef, reason: CondemnReason) {
        self.delete(keys::blob(blob.group, blob.blob));
        self.condemn(&CondemnedRow {
            group: blob.group,
            blob: blob.blob,
            layout: blob.layout,
            reason,
        });
    }

    /// Queues a blob to be purged.
    pub(crate) fn condemn(&mut self, row: &CondemnedRow) {
        self.commit.ops.push(Op::PutNumbered {
            head: Bytes::from_static(&[space::CONDEMNED]),
            tail: Bytes::copy_from_slice(&self.condemned.to_be_bytes()),
            value: encode(row),
        });
        self.condemned += 1;
    }

    /// Queues a blob whose slots are to be told what it is from now on.
    pub(crate) fn note(&mut self, blob: &BlobRef) {
        self.note_row(NoteRow {
            group: blob.group,
            blob: blob.blob,
        });
    }

    /// Queues a group whose disks are to be told its record.
    pub(crate) fn note_group(&mut self, group: GroupId) {
        self.note_row(NoteRow {
            group,
            blob: NO_BLOB,
        });
    }

    fn note_row(&mut self, row: NoteRow) {
        self.commit.ops.push(Op::PutNumbered {
            head: Bytes::from_static(&[space::NOTE]),
            tail: Bytes::copy_from_slice(&self.notes.to_be_bytes()),
            value: encode(&row),
        });
        self.notes += 1;
    }

    /// Drops the newest version of a key, its other rows and its blobs; the
    /// commit expects it to be as it was read.
    pub(crate) fn drop_version(
        &mut self,
        incarnation: BucketIncarnation,
        key: &str,
        version: &StoredVersion,
        reason: CondemnReason,
    ) {
        let current = keys::current(incarnation, key);
        self.expect(current.clone(), Some(version.raw.clone()));
        self.delete(current);
        let row = &version.row;
        if row.has_detail {
            self.delete(keys::detail(row.uid));
        }
        match &row.content {
            Content::Inline => {
                if row.size > 0 {
                    self.delete(keys::inline(row.uid));
                }
            }
            Content::Blob(blob) => self.condemn_owned(blob, reason),
            Content::Parts(_) => self.drop_parts(row.uid, version, reason),
        }
    }

    fn drop_parts(&mut self, uid: VersionUid, version: &StoredVersion, reason: CondemnReason) {
        let raw = version.parts.iter();
        self.expect_rows(
            KeyRange::prefix(keys::parts(uid)),
            raw.map(|(key, value, _)| (key.clone(), value.clone()))
                .collect(),
        );
        for (key, _, part) in &version.parts {
            self.delete(key.clone());
            if let Some(blob) = &part.blob {
                self.condemn_owned(blob, reason);
            }
        }
    }
}
