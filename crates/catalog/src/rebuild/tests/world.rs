//! A catalog, and what disks and journal would have of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use shardgate_wire::note::NO_BLOB;
use shardgate_wire::store::ListedShard;
use shardgate_wire::{
    BlobLayout, BlobNote, DiskId, Generation, InstanceId, Medium, NoteState, ObjectRef, ShardKey,
    VersionUid,
};

use crate::complete::{CompleteFinish, CompletePart, CompleteRequest};
use crate::delete::DeleteCondition;
use crate::engine::log::ChainPosition;
use crate::engine::{Change, MemoryEngine};
use crate::model::{
    BlobRef, Content, DetailRow, DiskRow, DiskState, ETag, GroupRow, GroupState, NotePayload,
    UploadPartRow, UploadRow, VersionRow,
};
use crate::rebuild::*;
use crate::{BucketRef, Publish, PublishBody, WriteCondition, WrittenBlob};

pub(super) const GROUP: GroupId = GroupId(3);
pub(super) const LAYOUT: BlobLayout = BlobLayout { data: 1, parity: 2 };
pub(super) const SLOTS: usize = 3;

/// A catalog, and what disks would have of it.
pub(super) struct World {
    pub(super) catalog: Catalog,
    pub(super) engine: Arc<MemoryEngine>,
    pub(super) bucket: BucketRef,
    pub(super) next: u128,
    /// Shards that are on all three disks, and what their headers say.
    pub(super) shards: BTreeMap<BlobId, ShardHeader>,
    pub(super) notes: Vec<BlobNote>,
    /// Up to where notes were sent.
    pub(super) told: CommitNumber,
}

pub(super) fn group() -> GroupRow {
    GroupRow {
        id: GROUP,
        generation: Generation(1),
        data: 1,
        parity: 2,
        medium: Medium::Flash,
        slots: (1..=SLOTS as u128).map(DiskId).collect(),
        state: GroupState::Open,
        narrow: false,
        slot_bytes: 0,
    }
}

pub(super) fn detail(text: &str) -> DetailRow {
    DetailRow {
        content_type: Some(text.to_owned()),
        ..DetailRow::default()
    }
}

impl World {
    pub(super) async fn new() -> Self {
        let engine = Arc::new(MemoryEngine::new());
        let catalog = Catalog::new(engine.clone());
        let cluster = ClusterRow {
            cluster: ClusterId(1),
            lineage: LineageId(1),
            epoch: Epoch::default(),
            created: 1,
        };
        catalog.init_cluster(&cluster).await.unwrap();
        catalog.put_group(&group(), None).await.unwrap();
        assert_eq!(catalog.class_number("STANDARD").await, Ok(0));
        let row = catalog.create_bucket("photos", "me", 7).await.unwrap();
        Self {
            bucket: BucketRef {
                name: "photos".to_owned(),
                incarnation: row.incarnation,
            },
            catalog,
            engine,
            next: 100,
            shards: BTreeMap::new(),
            notes: Vec::new(),
            told: CommitNumber(0),
        }
    }

    pub(super) fn write(
        &mut self,
        key: &str,
        (uid, part): (VersionUid, u16),
        detail: &DetailRow,
    ) -> BlobRef {
        self.next += 1;
        let blob = BlobRef {
            group: GROUP,
            blob: BlobId(self.next),
            layout: LAYOUT,
            len: 2000,
        };
        let header = ShardHeader {
            cluster: ClusterId(1),
            lineage: LineageId(1),
            epoch: Epoch {
                number: 1,
                instance: InstanceId(1),
            },
            key: ShardKey {
                group: GROUP,
                blob: blob.blob,
                index: 0,
            },
            slot: 0,
            generation: Generation(1),
            layout: LAYOUT,
            blob_len: Some(2000),
            object: ObjectRef {
                bucket: self.bucket.name.clone(),
                incarnation: self.bucket.incarnation,
                key: key.to_owned(),
                version: uid,
                part,
                metadata: postcard::to_stdvec(detail).unwrap(),
            },
        };
        self.shards.insert(blob.blob, header);
        blob
    }

    pub(super) async fn put(&mut self, key: &str) -> VersionRow {
        self.next += 1;
        let detail = detail(&format!("text/{}", self.next));
        let uid = VersionUid(self.next);
        let blob = self.write(key, (uid, 0), &detail);
        self.publish(key, uid, detail, PublishBody::Blob(written(blob)), 2000)
            .await
    }

    pub(super) async fn put_inline(&mut self, key: &str, bytes: &'static [u8]) -> VersionRow {
        self.next += 1;
        let (uid, body) = (
            VersionUid(self.next),
            PublishBody::Inline(Bytes::from_static(bytes)),
        );
        self.publish(key, uid, detail("inline"), body, bytes.len() as u64)
            .await
    }

    pub(super) async fn publish(
        &self,
        key: &str,
        uid: VersionUid,
        detail: DetailRow,
        body: PublishBody,
        size: u64,
    ) -> VersionRow {
        let publish = Publish {
            bucket: self.bucket.clone(),
            key: key.to_owned(),
            row: VersionRow {
                uid,
                size,
                modified: 5,
                etag: ETag {
                    md5: [uid.0 as u8; 16],
                    parts: 0,
                },
                class: 0,
                content: Content::Inline,
                checksum: None,
                null: true,
                has_detail: false,
            },
            detail,
            body,
            condition: WriteCondition::None,
        };
        self.catalog.publish(publish).await.unwrap().row
    }

    pub(super) async fn delete(&self, key: &str) {
        let none = DeleteCondition::None;
        let gone = self.catalog.delete_object(&self.bucket, key, none).await;
        assert!(gone.unwrap().is_some());
    }

    pub(super) async fn begin_upload(&mut self, key: &str) -> VersionUid {
        self.next += 1;
        let row = UploadRow {
            uid: VersionUid(self.next),
            initiated: 3,
            owner: "me".to_owned(),
            class: 0,
            detail: detail("parts"),
            checksum: None,
            group: Some(GROUP),
        };
        self.catalog
            .create_upload(&self.bucket, key, &row)
            .await
            .unwrap();
        row.uid
    }

    pub(super) async fn put_part(
        &mut self,
        key: &str,
        uid: VersionUid,
        number: u16,
        len: u64,
    ) -> BlobId {
        let mut blob = self.write(key, (uid, number), &detail("parts"));
        blob.len = len;
        let row = UploadPartRow {
            number,
            blob: None,
            len,
            md5: [number as u8; 16],
            checksum: None,
            modified: 4,
        };
        let written = written(blob);
        let put = self
            .catalog
            .put_part(&self.bucket, key, uid, row, Some(&written));
        put.await.unwrap();
        blob.blob
    }

    pub(super) async fn complete(&self, key: &str, uid: VersionUid, numbers: &[u16]) {
        let named = numbers.iter().map(|number| CompletePart {
            number: *number,
            md5: [*number as u8; 16],
        });
        let request = CompleteRequest {
            bucket: self.bucket.clone(),
            key: key.to_owned(),
            uid,
            parts: named.collect(),
            condition: WriteCondition::None,
            now: 6,
        };
        let finish = |_: &UploadRow, parts: &[UploadPartRow]| {
            Ok::<_, CatalogError>(CompleteFinish {
                etag: ETag {
                    md5: [9; 16],
                    parts: parts.len() as u16,
                },
                checksum: None,
            })
        };
        self.catalog
            .complete_upload(&request, finish)
            .await
            .unwrap();
    }

    /// Notes are sent up to now, as a gateway would.
    pub(super) async fn send_notes(&mut self) {
        let order = |commit| NoteOrder { history: 0, commit };
        let committed = self.catalog.committed();
        let waiting = self.catalog.waiting_notes(None, 10_000).await.unwrap();
        for row in waiting.rows {
            if let Some(note) = self.catalog.note_of(row.group, row.blob).await.unwrap() {
                self.notes.push(BlobNote {
                    group: row.group,
                    blob: row.blob,
                    order: order(row.place.commit),
                    state: NoteState::Published(note.encode()),
                });
            }
        }
        for condemned in self.catalog.condemned(None, 10_000).await.unwrap() {
            self.notes.push(BlobNote {
                group: condemned.row.group,
                blob: condemned.row.blob,
                order: order(condemned.cursor.commit),
                state: NoteState::Deleted,
            });
        }
        self.notes.push(BlobNote {
            group: shardgate_wire::note::NO_GROUP,
            blob: NO_BLOB,
            order: order(committed),
            state: NoteState::Published(NotePayload::Mark.encode()),
        });
        self.told = committed;
    }

    /// The purge had its turn, everywhere.
    pub(super) fn purge(&mut self, blob: BlobId) {
        self.shards.remove(&blob);
        self.notes
            .retain(|note| note.blob != blob || note.state != NoteState::Deleted);
    }

    pub(super) async fn facts(&self) -> Facts {
        let mut facts = Facts::new(Arc::new(MemoryEngine::new()));
        for disk in 1..=SLOTS as u128 {
            facts.add_disk(disk_row(disk), true);
            facts.add_told((LineageId(1), self.catalog.committed()));
            let listed = self.shards.values().map(|header| ListedShard {
                key: ShardKey {
                    index: (disk - 1) as u8,
                    ..header.key
                },
                disk_bytes: 1,
                finished: true,
            });
            facts.add_shards(&listed.collect::<Vec<_>>()).await.unwrap();
            facts.add_notes(DiskId(disk), &self.notes, 0).await.unwrap();
        }
        facts
    }

    pub(super) async fn rebuild(&self, facts: &mut Facts) -> (Catalog, Rebuilt, Vec<Undecided>) {
        let into = Catalog::in_memory();
        let mut doubts = Vec::new();
        let mut hear = |one: &Undecided| doubts.push(one.clone());
        begin(facts, &new(), &into).await.unwrap();
        let made = rebuild(facts, self, &new(), &into, &mut hear)
            .await
            .unwrap();
        (into, made, doubts)
    }

    /// All commits so far as the journal has them.
    pub(super) fn journal(&self) -> Vec<(CommitNumber, Bytes)> {
        self.engine
            .commits()
            .into_iter()
            .map(|(number, changes)| (number, payload(&changes)))
            .collect()
    }
}

pub(super) fn payload(changes: &[Change]) -> Bytes {
    ChainPosition::default().next(changes).payload
}

pub(super) fn written(blob: BlobRef) -> WrittenBlob {
    WrittenBlob {
        blob,
        generation: Generation(1),
        owed_slots: vec![],
        lowest_in_flight: blob.blob,
    }
}

pub(super) fn disk_row(id: u128) -> DiskRow {
    DiskRow {
        id: DiskId(id),
        agent: None,
        path: format!("disk-{id}"),
        server: "here".to_owned(),
        site: "here".to_owned(),
        medium: Medium::Flash,
        state: DiskState::Member,
    }
}

pub(super) fn new() -> NewCatalog {
    NewCatalog {
        cluster: ClusterId(1),
        lineage: LineageId(2),
        epoch: Epoch {
            number: 8,
            instance: InstanceId(8),
        },
        owner: "root".to_owned(),
        now: 99,
    }
}

#[async_trait]
impl Headers for World {
    async fn header(&self, _: GroupId, blob: BlobId) -> Option<ShardHeader> {
        self.shards.get(&blob).cloned()
    }
}
