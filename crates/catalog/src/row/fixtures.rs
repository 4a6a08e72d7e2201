//! Every row as format 1 has it on disk. Later code must read these bytes: a
//! change of a row's shape needs a new format version, not new bytes here.

use std::fmt::Debug;

use shardgate_wire::{
    AgentId, BlobId, BlobLayout, BucketIncarnation, ClusterId, CommitNumber, DiskId, Epoch,
    Generation, GroupId, InstanceId, LineageId, Medium, VersionUid,
};

use super::*;
use crate::model::{
    BlobRef, BlobRow, BucketState, CheckpointBlob, ChecksumAlgorithm, ChecksumKind, CondemnReason,
    Content, DiskState, ETag, GroupState, Hold, HoldReason, StoredChecksum,
};

fn same<R: Row + PartialEq + Debug>(row: R, stored: &str) {
    let bytes = hex::decode(stored).unwrap_or_default();
    assert_eq!(hex::encode(encode(&row)), stored, "{}", R::WHAT);
    assert_eq!(decode(&bytes), Ok(row));
}

fn blob() -> BlobRef {
    BlobRef {
        group: GroupId(300),
        blob: BlobId(0x0123_4567_89AB_CDEF << 64),
        layout: BlobLayout { data: 8, parity: 4 },
        len: 5 << 30,
    }
}

fn checksum(algorithm: ChecksumAlgorithm, kind: ChecksumKind) -> Option<StoredChecksum> {
    Some(StoredChecksum {
        algorithm,
        kind,
        digest: vec![0xC5; 4],
    })
}

#[test]
fn rows_of_buckets_and_versions() {
    let mut bucket = BucketRow {
        incarnation: BucketIncarnation(5),
        created: 1_700_000_000_000,
        owner: "owner".to_owned(),
        state: BucketState::Active,
    };
    same(bucket.clone(), "010580d095ffbc31056f776e657200");
    bucket.state = BucketState::Deleting { attempt: u64::MAX };
    same(bucket, "010580d095ffbc31056f776e657201ffffffffffffffffff01");
    let version = VersionRow {
        uid: VersionUid(1 << 100),
        size: 1,
        modified: 2,
        etag: ETag {
            md5: [0x11; 16],
            parts: 10_000,
        },
        class: 3,
        content: Content::Parts(10_000),
        checksum: checksum(ChecksumAlgorithm::Sha256, ChecksumKind::Composite),
        null: false,
        has_detail: true,
    };
    same(
        version.clone(),
        concat!(
            "01808080808080808080808080808004010211111111111111111111111111111111904e",
            "0302904e01040104c5c5c5c50001"
        ),
    );
    let inline = VersionRow {
        content: Content::Inline,
        checksum: checksum(ChecksumAlgorithm::Crc64Nvme, ChecksumKind::FullObject),
        ..version
    };
    same(
        inline,
        concat!(
            "01808080808080808080808080808004010211111111111111111111111111111111904e",
            "030001020004c5c5c5c50001"
        ),
    );
    let text = |text: &str| Some(text.to_owned());
    let detail = DetailRow {
        content_type: text("ty"),
        content_encoding: text("en"),
        content_disposition: text("di"),
        content_language: text("la"),
        cache_control: text("ca"),
        expires: text("ex"),
        website_redirect: text("re"),
        user: vec![("name".to_owned(), "value".to_owned())],
    };
    same(
        detail,
        concat!(
            "01010274790102656e0102646901026c6101026361010265780102726501046e616d6505",
            "76616c7565"
        ),
    );
    let part = PartRow {
        number: 9,
        start: 5 << 20,
        blob: Some(blob()),
        len: 7,
        md5: [0x22; 16],
        checksum: checksum(ChecksumAlgorithm::Crc32, ChecksumKind::FullObject),
    };
    same(
        part,
        concat!(
            "01098080c00201ac02808080808080808080deb7de9af1d9a2a302080480808080140722",
            "22222222222222222222222222222201000004c5c5c5c5"
        ),
    );
}

#[test]
fn rows_of_uploads() {
    let upload = UploadRow {
        uid: VersionUid(4),
        initiated: 5,
        owner: "owner".to_owned(),
        class: 6,
        detail: DetailRow::default(),
        checksum: Some((ChecksumAlgorithm::Sha1, ChecksumKind::Composite)),
        group: Some(GroupId(8)),
    };
    same(upload, "010405056f776e65720600000000000000000103010108");
    let part = UploadPartRow {
        number: 10_000,
        blob: None,
        len: 0,
        md5: [0x33; 16],
        checksum: None,
        modified: 12,
    };
    same(part, "01904e000033333333333333333333333333333333000c");
    let completed = CompletedRow {
        request: [0x44; 32],
        etag: ETag {
            md5: [0x55; 16],
            parts: 2,
        },
        checksum: None,
        completed: 13,
    };
    same(
        completed,
        concat!(
            "014444444444444444444444444444444444444444444444444444444444444444555555",
            "5555555555555555555555555502000d"
        ),
    );
}

#[test]
fn rows_of_blobs() {
    let owner = BlobRow {
        incarnation: BucketIncarnation(14),
        key: "a/key".to_owned(),
        uid: VersionUid(15),
        part: 16,
        layout: blob().layout,
        len: 17,
    };
    same(BlobState::Owned(owner), "01000e05612f6b65790f10080411");
    same(BlobState::NeverPublished, "0101");
    let of_checkpoint = CheckpointBlob {
        file: [0x66; 32],
        layout: blob().layout,
        len: 22,
        stored: true,
    };
    same(
        BlobState::Checkpoint(of_checkpoint),
        concat!(
            "0102",
            "6666666666666666666666666666666666666666666666666666666666666666",
            "08041601"
        ),
    );
    let file = CheckpointFileRow {
        blob: blob(),
        stored: false,
    };
    same(
        file,
        "01ac02808080808080808080deb7de9af1d9a2a3020804808080801400",
    );
    let reasons = [
        (CondemnReason::Deleted, "011213080400"),
        (CondemnReason::Overwritten, "011213080401"),
        (CondemnReason::UploadEnded, "011213080402"),
        (CondemnReason::NeverPublished, "011213080403"),
        (CondemnReason::CheckpointDropped, "011213080404"),
    ];
    for (reason, stored) in reasons {
        let row = CondemnedRow {
            group: GroupId(18),
            blob: BlobId(19),
            layout: blob().layout,
            reason,
        };
        same(row, stored);
    }
    let owed = OwedRow {
        lowest: BlobId(20),
        comparing: Some(21),
    };
    same(owed, "01140115");
}

#[test]
fn rows_of_the_pool() {
    let group = GroupRow {
        id: GroupId(22),
        generation: Generation(23),
        data: 4,
        parity: 2,
        medium: Medium::Rotating,
        slots: vec![DiskId(24), DiskId(25)],
        state: GroupState::Sealed,
        narrow: true,
        slot_bytes: 26,
    };
    same(group, "01161704020002181901011a");
    let disk = DiskRow {
        id: DiskId(27),
        agent: Some(AgentId(28)),
        path: "path".to_owned(),
        server: "server".to_owned(),
        site: "site".to_owned(),
        medium: Medium::Flash,
        state: DiskState::Lost,
    };
    same(disk, "011b011c04706174680673657276657204736974650101");
    let class = ClassRow {
        number: 29,
        name: "STANDARD".to_owned(),
    };
    same(class, "011d085354414e44415244");
    let instance = InstanceRow {
        instance: InstanceId(30),
        epoch: 31,
        retired: true,
    };
    same(instance, "011e1f01");
    let cluster = ClusterRow {
        cluster: ClusterId(32),
        lineage: LineageId(33),
        epoch: Epoch {
            number: 34,
            instance: InstanceId(35),
        },
        created: 36,
    };
    same(cluster, "012021222324");
    same(Counter(37), "0125");
    let mark = LowWater {
        commit: 38,
        index: 39,
    };
    same(mark, "012627");
}

#[test]
fn rows_of_notes_and_histories() {
    let queued = NoteRow {
        group: GroupId(300),
        blob: BlobId(1 << 64),
    };
    same(queued, "01ac0280808080808080808002");
    let history = LineageRow {
        lineage: LineageId(3),
        history: 5,
        before: vec![(LineageId(2), CommitNumber(300))],
        hold: Some(Hold {
            since: 2,
            why: vec![
                HoldReason::JournalIncomplete,
                HoldReason::DiskKnowsMore {
                    disk: DiskId(1),
                    told: CommitNumber(300),
                    committed: CommitNumber(2),
                },
                HoldReason::OtherLineage {
                    disk: DiskId(1),
                    lineage: LineageId(3),
                },
                HoldReason::Rebuilt {
                    vouched: CommitNumber(7),
                    last: CommitNumber(9),
                },
            ],
        }),
    };
    same(history, "0103050102ac02010204000101ac0202020103030709");
    let rebuilding = RebuildingRow {
        lineage: LineageId(3),
    };
    same(rebuilding, "0103");
}

/// What disks keep: notes of format 1 are read by every later version.
#[test]
fn payloads_of_notes() {
    same(NotePayload::Mark, "0103");
    let version = NotePayload::Version {
        incarnation: BucketIncarnation(5),
        key: "k".to_owned(),
        row: VersionRow {
            uid: VersionUid(1),
            size: 2,
            modified: 3,
            etag: ETag {
                md5: [0x11; 16],
                parts: 2,
            },
            class: 4,
            content: Content::Parts(2),
            checksum: None,
            null: true,
            has_detail: false,
        },
        class: "S".to_owned(),
        detail: Some(DetailRow::default()),
        part: Some(PartRow {
            number: 1,
            start: 0,
            blob: None,
            len: 2,
            md5: [0x22; 16],
            checksum: None,
        }),
        empty_last: None,
    };
    same(
        version,
        concat!(
            "010005016b0102031111111111111111111111111111111102040202000100",
            "0153010000000000000000010100000222222222222222222222222222222222",
            "0000",
        ),
    );
    let part = NotePayload::UploadPart {
        incarnation: BucketIncarnation(5),
        key: "k".to_owned(),
        upload: UploadRow {
            uid: VersionUid(1),
            initiated: 2,
            owner: "o".to_owned(),
            class: 3,
            detail: DetailRow::default(),
            checksum: None,
            group: None,
        },
        class: "S".to_owned(),
        part: UploadPartRow {
            number: 4,
            blob: None,
            len: 0,
            md5: [0x22; 16],
            checksum: None,
            modified: 5,
        },
    };
    same(
        part,
        concat!(
            "010105016b0102016f03000000000000000000000153",
            "040000222222222222222222222222222222220005",
        ),
    );
}
