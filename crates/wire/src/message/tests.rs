//! Targets are exact, limits hold what they must, noise does not decode into
//! a panic.

use proptest::prelude::*;

use super::*;
use crate::check::{
    CheckCursor, CheckHead, CheckPage, DamagedHead, DamagedShard, Finding, MAX_CHECK_CURSOR_BYTES,
    MAX_FINDING_BYTES,
};
use crate::frame::{PREFIX_BYTES, decode_head, encode_head};
use crate::ids::{
    BlobId, BucketIncarnation, ClusterId, CommitNumber, Epoch, Generation, GroupId, InstanceId,
    LineageId, VersionUid,
};
use crate::message_notes::{ForgetNotesHead, NotesHead, PutNotesHead, SlotsHead};
use crate::note::{
    BlobNote, MAX_NOTE_BYTES, MAX_NOTES, NoteCursor, NoteOrder, NotePage, NoteState,
};
use crate::shard::{BlobLayout, MAX_METADATA_BYTES, ObjectRef};
use crate::space::Purpose;
use crate::store::{ListedShard, MAX_BATCH, ShardStat};

const DISK: &str = "000000000000000000000000000000ab";

fn max_key() -> ShardKey {
    ShardKey {
        group: GroupId(u64::MAX),
        blob: BlobId(u128::MAX),
        index: u8::MAX,
    }
}

fn max_ctx() -> CallContext {
    CallContext {
        cluster: ClusterId(u128::MAX),
        epoch: Epoch {
            number: u64::MAX,
            instance: InstanceId(u128::MAX),
        },
        lineage: LineageId(u128::MAX),
        committed: CommitNumber(u64::MAX),
        purpose: Purpose::Checkpoint,
    }
}

fn max_header() -> ShardHeader {
    ShardHeader {
        cluster: ClusterId(u128::MAX),
        lineage: LineageId(u128::MAX),
        epoch: max_ctx().epoch,
        key: max_key(),
        slot: u8::MAX,
        generation: Generation(u32::MAX),
        layout: BlobLayout {
            data: u8::MAX,
            parity: u8::MAX,
        },
        blob_len: Some(u64::MAX),
        object: ObjectRef {
            bucket: "b".repeat(63),
            incarnation: BucketIncarnation(u64::MAX),
            key: "k".repeat(1024),
            version: VersionUid(u128::MAX),
            part: u16::MAX,
            metadata: vec![0xff; MAX_METADATA_BYTES],
        },
    }
}

fn max_note() -> BlobNote {
    BlobNote {
        group: GroupId(u64::MAX),
        blob: BlobId(u128::MAX),
        order: NoteOrder {
            history: u64::MAX,
            commit: CommitNumber(u64::MAX),
        },
        state: NoteState::Published(vec![0xff; MAX_NOTE_BYTES]),
    }
}

fn max_cursor() -> Option<NoteCursor> {
    Some(NoteCursor::Deleted(GroupId(u64::MAX), BlobId(u128::MAX)))
}

fn max_damaged() -> DamagedShard {
    DamagedShard {
        key: max_key(),
        what: "x".repeat(MAX_FINDING_BYTES),
    }
}

fn max_check_cursor() -> CheckCursor {
    CheckCursor(vec![u8::MAX; MAX_CHECK_CURSOR_BYTES])
}

fn max_check_page() -> CheckPage {
    let finding = Finding {
        place: "p".repeat(MAX_FINDING_BYTES),
        shard: Some(max_key()),
        what: "x".repeat(MAX_FINDING_BYTES),
        repaired: true,
    };
    CheckPage {
        volumes: u64::MAX,
        shards: u64::MAX,
        bytes: u64::MAX,
        findings: vec![finding; MAX_FINDINGS],
        next: Some(max_check_cursor()),
    }
}

fn head_len<T: Serialize>(head: &T) -> usize {
    encode_head(head).len() - PREFIX_BYTES
}

#[test]
fn targets_round_trip() {
    let disk: DiskId = DISK.parse().unwrap();
    let mut targets = vec![Target::Alive, Target::Agent, Target::Format];
    targets.extend(Call::ALL.map(|call| Target::Disk(disk, call)));
    for target in targets {
        assert_eq!(Target::parse(target.method(), &target.path()), Ok(target));
        let other = if target.method() == "GET" {
            "POST"
        } else {
            "GET"
        };
        assert_eq!(
            Target::parse(other, &target.path()),
            Err(NoTarget::Method(target.method()))
        );
    }
}

/// Attack 52: no path but those of the table, and no disk but hex.
#[test]
fn attack_052_paths_do_not_escape() {
    let mut paths: Vec<String> = [
        "",
        "/",
        "*",
        "/v1",
        "/v1/agent/",
        "//v1/agent",
        "/v1/../healthz",
        "/V1/agent",
        "/v1/disks/",
        "/v1/disks/../../etc/passwd",
        "/v1/disks/%2e%2e/health",
        "/v1/disks//health",
        "/v1/disks/00/health",
        "/v1/disks/000000000000000000000000000000AB/health",
        "/v1/disks/+00000000000000000000000000000ab/health",
    ]
    .map(str::to_owned)
    .to_vec();
    for tail in [
        "",
        "/",
        "/shards",
        "/shards/",
        "/shards/../health",
        "/shards/read/",
        "/shards//read",
        "/shards%2fread",
        "/health\0",
        "/shards\\read",
    ] {
        paths.push(format!("/v1/disks/{DISK}{tail}"));
    }
    for path in paths {
        for method in ["GET", "POST"] {
            assert_eq!(Target::parse(method, &path), Err(NoTarget::Path), "{path}");
        }
    }
}

#[test]
fn the_longest_heads_fit_their_limits() {
    let ctx = max_ctx();
    let end = ShardEnd {
        shard_len: u64::MAX,
        blob_len: u64::MAX,
    };
    let handle = ShardHandle(u64::MAX);
    let slot = SlotAssignment {
        group: GroupId(u64::MAX),
        slot: u8::MAX,
        generation: Generation(u32::MAX),
    };
    let crcs = |bytes: usize| vec![u32::MAX; bytes.div_ceil(crate::checksum::CHECK_BLOCK)];
    let requests = [
        (Call::RaiseEpoch, head_len(&RaiseEpochHead { ctx })),
        (
            Call::Assign,
            head_len(&AssignHead {
                ctx,
                slots: vec![slot; MAX_BATCH],
            }),
        ),
        (
            Call::Open,
            head_len(&OpenHead {
                ctx,
                header: max_header(),
                shard_len: Some(u64::MAX),
            }),
        ),
        (
            Call::Append,
            head_len(&AppendHead {
                ctx,
                handle,
                offset: u64::MAX,
                crcs: crcs(MAX_APPEND_BYTES),
            }),
        ),
        (Call::Finish, head_len(&FinishHead { ctx, handle, end })),
        (Call::Abort, head_len(&AbortHead { ctx, handle })),
        (
            Call::Read,
            head_len(&ReadHead {
                key: max_key(),
                offset: u64::MAX,
                len: u32::MAX,
            }),
        ),
        (Call::Stat, head_len(&StatHead { key: max_key() })),
        (
            Call::Delete,
            head_len(&DeleteHead {
                ctx,
                keys: vec![max_key(); MAX_BATCH],
            }),
        ),
        (
            Call::List,
            head_len(&ListHead {
                after: Some(max_key()),
                limit: u16::MAX,
            }),
        ),
        (Call::Health, head_len(&HealthHead {})),
        (
            Call::PutNotes,
            head_len(&PutNotesHead {
                ctx,
                notes: vec![max_note(); MAX_NOTES],
            }),
        ),
        (
            Call::ForgetNotes,
            head_len(&ForgetNotesHead {
                ctx,
                blobs: vec![(GroupId(u64::MAX), BlobId(u128::MAX)); MAX_BATCH],
            }),
        ),
        (
            Call::Notes,
            head_len(&NotesHead {
                after: max_cursor(),
            }),
        ),
        (
            Call::Slots,
            head_len(&SlotsHead {
                after: Some(GroupId(u64::MAX)),
            }),
        ),
        (Call::Damaged, head_len(&DamagedHead {})),
        (
            Call::Check,
            head_len(&CheckHead {
                ctx,
                from: Some(max_check_cursor()),
                repair: true,
            }),
        ),
    ];
    for (call, len) in requests {
        assert!(len <= call.request_limits().head, "{call:?}: {len}");
    }
    let listed = ListedShard {
        key: max_key(),
        disk_bytes: u64::MAX,
        finished: true,
    };
    let stat = ShardStat {
        header: max_header(),
        end: Some(end),
    };
    let answers = [
        (
            Call::Read,
            head_len(&Answer::Ok(ReadAnswer {
                crcs: crcs(MAX_READ_BYTES),
            })),
        ),
        (Call::List, head_len(&Answer::Ok(vec![listed; MAX_BATCH]))),
        (Call::Stat, head_len(&Answer::Ok(stat))),
        (
            Call::Notes,
            head_len(&Answer::Ok(NotePage {
                notes: vec![max_note(); MAX_NOTES],
                next: max_cursor(),
                damaged: u32::MAX,
            })),
        ),
        (Call::Slots, head_len(&Answer::Ok(vec![slot; MAX_BATCH]))),
        (
            Call::Damaged,
            head_len(&Answer::Ok(vec![max_damaged(); MAX_DAMAGED])),
        ),
        (Call::Check, head_len(&Answer::Ok(max_check_page()))),
    ];
    for (call, len) in answers {
        assert!(len <= call.answer_limits().head, "{call:?}: {len}");
    }
}

#[test]
fn one_largest_shard_fits_a_put() {
    let entry = PutEntry {
        header: max_header(),
        blob_len: u64::MAX,
        len: u32::MAX,
        crcs: vec![u32::MAX; 4],
    };
    assert!(head_len(&entry) + 256 <= MAX_PUT_HEAD_BYTES);
    const { assert!(crate::store::MAX_PUT_BYTES <= MAX_PUT_DATA_BYTES) };
}

proptest! {
    /// Attack 72: noise is refused or taken, and never a panic.
    #[test]
    fn attack_072_noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode_head::<RaiseEpochHead>(&noise);
        let _ = decode_head::<AssignHead>(&noise);
        let _ = decode_head::<OpenHead>(&noise);
        let _ = decode_head::<AppendHead>(&noise);
        let _ = decode_head::<FinishHead>(&noise);
        let _ = decode_head::<AbortHead>(&noise);
        let _ = decode_head::<PutHead>(&noise);
        let _ = decode_head::<ReadHead>(&noise);
        let _ = decode_head::<StatHead>(&noise);
        let _ = decode_head::<DeleteHead>(&noise);
        let _ = decode_head::<ListHead>(&noise);
        let _ = decode_head::<PutNotesHead>(&noise);
        let _ = decode_head::<ForgetNotesHead>(&noise);
        let _ = decode_head::<Answer<NotePage>>(&noise);
        let _ = decode_head::<CheckHead>(&noise);
        let _ = decode_head::<Answer<CheckPage>>(&noise);
        let _ = decode_head::<Answer<Vec<DamagedShard>>>(&noise);
        let _ = decode_head::<FormatHead>(&noise);
        let _ = decode_head::<Answer<AgentReport>>(&noise);
        let _ = decode_head::<Answer<ShardStat>>(&noise);
        let _ = decode_head::<Answer<Vec<PutOutcome>>>(&noise);
    }

    /// A message with a few bytes changed, too: lengths inside lie there.
    #[test]
    fn damaged_heads_never_panic(at in 0usize..400, with in any::<u8>(), cut in 0usize..20_000) {
        let whole = encode_head(&OpenHead { ctx: max_ctx(), header: max_header(), shard_len: None });
        let mut bytes = whole[PREFIX_BYTES..].to_vec();
        let at = at % bytes.len();
        bytes[at] = with;
        let _ = decode_head::<OpenHead>(&bytes);
        bytes.truncate(cut);
        let _ = decode_head::<OpenHead>(&bytes);
    }

    #[test]
    fn any_path_parses_or_is_refused(path in "/v1/(disks/)?.{0,60}") {
        let _ = Target::parse("POST", &path);
    }
}
