//! A catalog is lost and made anew, from notes that disks had and from parts
//! of its journal; what comes out is compared with what there was.

mod sources;
mod world;

use std::sync::Arc;

use shardgate_wire::note::NO_BLOB;
use shardgate_wire::store::ListedShard;
use shardgate_wire::{
    BlobNote, BucketIncarnation, DiskId, Generation, InstanceId, NoteState, ShardKey, VersionUid,
};

use super::*;
use crate::complete::MIN_PART_BYTES;
use crate::engine::MemoryEngine;
use crate::model::{Content, DetailRow, GroupRow, GroupState};
use world::{GROUP, SLOTS, World, detail, disk_row, group, new, payload};

async fn same_object(world: &World, made: &Catalog, key: &str) {
    let incarnation = world.bucket.incarnation;
    let before = world.catalog.read_object(incarnation, key).await.unwrap();
    let after = made.read_object(incarnation, key).await.unwrap();
    assert_eq!(after, before, "{key}");
    let before = world
        .catalog
        .object_with_parts(incarnation, key)
        .await
        .unwrap();
    let after = made.object_with_parts(incarnation, key).await.unwrap();
    assert_eq!(after, before, "{key}");
    let blobs = decide::blobs_of(&after.0, &after.1);
    for blob in blobs {
        let state = |catalog: Catalog| async move { catalog.blob(GROUP, blob.blob).await.unwrap() };
        assert_eq!(
            state(made.clone()).await,
            state(world.catalog.clone()).await
        );
    }
}

async fn is_absent(made: &Catalog, incarnation: BucketIncarnation, key: &str) {
    let found = made.object(incarnation, key).await;
    assert_eq!(found, Err(CatalogError::NoSuchKey), "{key}");
}

#[tokio::test]
async fn from_notes_alone_every_object_of_the_pool_comes_back() {
    let mut world = World::new().await;
    world.put("one").await;
    world.put("two").await;
    let old = world.put("over").await;
    world.put("over").await;
    world.put("gone").await;
    world.delete("gone").await;
    let uid = world.begin_upload("parts").await;
    world.put_part("parts", uid, 1, MIN_PART_BYTES).await;
    let replaced = world.put_part("parts", uid, 2, 100).await;
    world.put_part("parts", uid, 2, 2000).await;
    world.put_part("parts", uid, 3, 2000).await;
    world.complete("parts", uid, &[1, 2]).await;
    let open = world.begin_upload("open").await;
    world.put_part("open", open, 7, 2000).await;
    world.put_inline("inline", b"lies in the catalog").await;
    world.send_notes().await;

    let (made, report, doubts) = world.rebuild(&mut world.facts().await).await;
    assert_eq!(doubts, []);
    for key in ["one", "two", "over", "parts"] {
        same_object(&world, &made, key).await;
    }
    is_absent(&made, world.bucket.incarnation, "gone").await;
    is_absent(&made, world.bucket.incarnation, "inline").await;
    let bucket = made.bucket("photos").await.unwrap();
    assert_eq!(bucket.incarnation, world.bucket.incarnation);
    assert_eq!(bucket.owner, "root", "nothing tells whose it was");
    let upload = made.upload(bucket.incarnation, "open", open).await.unwrap();
    assert_eq!(upload.detail, detail("parts"));
    let parts = made
        .list_parts(bucket.incarnation, "open", open, 0, 10)
        .await
        .unwrap();
    assert_eq!(parts.len(), 1);
    // What was deleted is condemned again, and nothing else.
    let condemned = made.condemned(None, 100).await.unwrap();
    let condemned: Vec<BlobId> = condemned.iter().map(|one| one.row.blob).collect();
    assert_eq!(
        condemned.len(),
        4,
        "old, gone, a part replaced and one not used"
    );
    let Content::Blob(old) = old.content else {
        panic!()
    };
    assert!(condemned.contains(&old.blob) && condemned.contains(&replaced));
    assert_eq!(
        (report.objects, report.uploads, report.condemned),
        (4, 1, 4)
    );
    assert_eq!((report.vouched, report.last), (world.told, world.told));
    assert_eq!(made.class_number("STANDARD").await, Ok(0));
    assert_eq!(made.group(GROUP).await.unwrap(), Some(group()));
    assert!(made.next_group_id().await.unwrap() > GROUP);
    let next = made.create_bucket("next", "me", 1).await.unwrap();
    assert!(next.incarnation > world.bucket.incarnation);
    assert_eq!(made.owed().await.unwrap(), []);
}

#[tokio::test]
async fn a_catalog_that_was_made_anew_is_held_and_of_another_lineage() {
    let mut world = World::new().await;
    world.put("one").await;
    world.send_notes().await;
    let vouched = world.told;
    world.put("two").await;
    let (made, report, _) = world.rebuild(&mut world.facts().await).await;
    let lineage = made.lineage().await.unwrap().unwrap();
    assert_eq!((lineage.lineage, lineage.history), (LineageId(2), 8));
    assert_eq!(lineage.before, [(LineageId(1), world.catalog.committed())]);
    let why = HoldReason::Rebuilt {
        vouched,
        last: world.catalog.committed(),
    };
    let hold = lineage.hold.unwrap();
    assert_eq!(hold.why[0], why);
    let through = CommitNumber(made.committed().0 - 1);
    assert_eq!(hold.decided(), Some(through), "all before its last commit");
    assert!(report.vouched < report.last);
    let cluster = made.cluster().await.unwrap().unwrap();
    assert_eq!(
        (cluster.cluster, cluster.lineage),
        (ClusterId(1), LineageId(2))
    );
    assert!(
        made.record_epoch(Epoch {
            number: 9,
            instance: InstanceId(9)
        })
        .await
        .is_ok()
    );
}

#[tokio::test]
async fn what_no_note_tells_is_listed_and_not_guessed() {
    let mut world = World::new().await;
    world.put("one").await;
    world.send_notes().await;
    // Published, and its note never came; and never published at all.
    world.put("late").await;
    let never = world.write("never", (VersionUid(5), 0), &DetailRow::default());
    // A file of a checkpoint has no note, and is of the catalog that is lost.
    let own = world.write("table", (VersionUid(6), 0), &DetailRow::default());
    let header = world.shards.get_mut(&own.blob).unwrap();
    header.object.bucket = String::new();
    let (made, report, doubts) = world.rebuild(&mut world.facts().await).await;
    same_object(&world, &made, "one").await;
    is_absent(&made, world.bucket.incarnation, "late").await;
    assert_eq!((doubts.len(), report.undecided), (2, 2));
    let photo = |key: &str| Some(("photos".to_owned(), key.to_owned()));
    assert_eq!(doubts[0].object, photo("late"));
    assert_eq!(
        (doubts[1].blob, doubts[1].object.clone()),
        (never.blob, photo("never"))
    );
    assert!(doubts.iter().all(|one| one.doubt == Doubt::NoNote));
    let condemned = made.condemned(None, 10).await.unwrap();
    let condemned: Vec<BlobId> = condemned.iter().map(|one| one.row.blob).collect();
    assert_eq!(condemned, [own.blob], "the shards of the others stay");
}

#[tokio::test]
async fn what_was_purged_does_not_come_back_by_an_old_note() {
    let mut world = World::new().await;
    let row = world.put("key").await;
    world.send_notes().await;
    world.delete("key").await;
    world.send_notes().await;
    let Content::Blob(blob) = row.content else {
        panic!()
    };
    world.purge(blob.blob);
    let (made, report, doubts) = world.rebuild(&mut world.facts().await).await;
    is_absent(&made, world.bucket.incarnation, "key").await;
    assert_eq!((report.objects, doubts.len()), (0, 0));
}

/// A disk was away during the deletion, and has its shard and an old note.
#[tokio::test]
async fn one_note_of_the_deletion_is_enough() {
    let mut world = World::new().await;
    let row = world.put("key").await;
    world.send_notes().await;
    let mut before = world.notes.clone();
    for note in &mut before {
        // Even if it were later: what was deleted stays so.
        note.order.history = 5;
    }
    world.delete("key").await;
    world.send_notes().await;
    let Content::Blob(blob) = row.content else {
        panic!()
    };
    for (with, without) in [(1u128, 2u128), (2, 1)] {
        let mut facts = Facts::new(Arc::new(MemoryEngine::new()));
        for disk in 1..=3 {
            facts.add_disk(disk_row(disk), true);
        }
        // In either order of reading.
        let on = |disk: u128| if disk == 1 { &world.notes } else { &before };
        facts.add_notes(DiskId(with), on(with), 0).await.unwrap();
        facts
            .add_notes(DiskId(without), on(without), 0)
            .await
            .unwrap();
        let left = ListedShard {
            key: ShardKey {
                group: GROUP,
                blob: blob.blob,
                index: 1,
            },
            disk_bytes: 1,
            finished: true,
        };
        facts.add_shards(&[left]).await.unwrap();
        let (made, report, _) = world.rebuild(&mut facts).await;
        is_absent(&made, world.bucket.incarnation, "key").await;
        assert_eq!(report.condemned, 1);
    }
}

#[tokio::test]
async fn a_whole_journal_tells_everything() {
    let mut world = World::new().await;
    world.put("one").await;
    world.put_inline("inline", b"lies in the catalog").await;
    world.put_inline("empty", b"").await;
    world.put_inline("deleted", b"x").await;
    world.delete("deleted").await;
    let uid = world.begin_upload("parts").await;
    world.put_part("parts", uid, 1, MIN_PART_BYTES).await;
    world.put_part("parts", uid, 2, 2000).await;
    world.complete("parts", uid, &[1, 2]).await;
    let open = world.begin_upload("open").await;
    world.put_part("open", open, 1, 2000).await;
    world.put("over").await;
    world.put_inline("over", b"by bytes").await;
    // No note was ever sent.
    let mut facts = world.facts().await;
    facts.add_journal(0, world.journal()).await.unwrap();
    facts.add_spans(0, &[(CommitNumber(1), world.catalog.committed())]);
    let (made, report, doubts) = world.rebuild(&mut facts).await;
    assert_eq!(doubts, []);
    for key in ["one", "inline", "empty", "parts", "over"] {
        same_object(&world, &made, key).await;
    }
    is_absent(&made, world.bucket.incarnation, "deleted").await;
    assert_eq!(
        made.bucket("photos").await,
        world.catalog.bucket("photos").await
    );
    let upload = made.upload(world.bucket.incarnation, "open", open).await;
    assert!(upload.is_ok());
    assert_eq!(
        report.journal,
        [(CommitNumber(1), world.catalog.committed())]
    );
    assert_eq!(
        made.condemned(None, 10).await.unwrap().len(),
        1,
        "what was overwritten"
    );
    // Blobs of which no disk had a note are to be told.
    let waiting = made.waiting_notes(None, 100).await.unwrap().rows;
    assert!(waiting.iter().filter(|row| row.blob != NO_BLOB).count() >= 4);
}

/// The journal ends before the notes do, or begins behind them.
#[tokio::test]
async fn of_journal_and_notes_the_later_commit_holds() {
    let mut world = World::new().await;
    world.put("a").await;
    world.put("b").await;
    world.put_inline("c", b"first").await;
    world.send_notes().await;
    let middle = world.journal().len();
    world.put("a").await;
    world.delete("b").await;
    world.put("c").await;
    let journal = world.journal();
    // The first half of the journal, and notes of everything.
    let mut world_told = world;
    world_told.send_notes().await;
    let world = world_told;
    let mut facts = world.facts().await;
    facts
        .add_journal(0, journal[..middle].to_vec())
        .await
        .unwrap();
    let (made, _, doubts) = world.rebuild(&mut facts).await;
    assert_eq!(doubts, []);
    same_object(&world, &made, "a").await;
    same_object(&world, &made, "c").await;
    is_absent(&made, world.bucket.incarnation, "b").await;
    // The second half alone, and notes of the first.
    let mut world = world;
    world
        .notes
        .retain(|note| note.order.commit.0 <= middle as u64);
    let mut facts = world.facts().await;
    facts
        .add_journal(0, journal[middle..].to_vec())
        .await
        .unwrap();
    let (made, _, doubts) = world.rebuild(&mut facts).await;
    assert_eq!(doubts, []);
    same_object(&world, &made, "a").await;
    same_object(&world, &made, "c").await;
    is_absent(&made, world.bucket.incarnation, "b").await;
}

#[tokio::test]
async fn of_two_lives_of_a_bucket_the_later_counts() {
    let mut world = World::new().await;
    world.put("old").await;
    world.send_notes().await;
    world.delete("old").await;
    world.catalog.delete_bucket("photos").await.unwrap();
    let row = world
        .catalog
        .create_bucket("photos", "me", 9)
        .await
        .unwrap();
    let before = world.bucket.incarnation;
    world.bucket.incarnation = row.incarnation;
    world.put("new").await;
    // The note of the deletion never came.
    world.notes.retain(|note| note.state != NoteState::Deleted);
    let condemned_before = world.notes.len();
    let waiting = world.catalog.waiting_notes(None, 100).await.unwrap();
    for row in waiting.rows {
        if let Some(note) = world.catalog.note_of(row.group, row.blob).await.unwrap() {
            world.notes.push(BlobNote {
                group: row.group,
                blob: row.blob,
                order: NoteOrder {
                    history: 0,
                    commit: row.place.commit,
                },
                state: NoteState::Published(note.encode()),
            });
        }
    }
    assert!(world.notes.len() > condemned_before);
    let (made, report, _) = world.rebuild(&mut world.facts().await).await;
    same_object(&world, &made, "new").await;
    is_absent(&made, before, "old").await;
    assert_eq!(
        made.bucket("photos").await.unwrap().incarnation,
        row.incarnation
    );
    assert_eq!((report.buckets, report.condemned), (1, 1));
}

#[tokio::test]
async fn slots_that_lack_shards_are_owed() {
    let mut world = World::new().await;
    let row = world.put("one").await;
    world.send_notes().await;
    let mut facts = Facts::new(Arc::new(MemoryEngine::new()));
    facts.add_disk(disk_row(1), true);
    facts.add_disk(disk_row(2), true);
    // The third is away.
    facts.add_disk(disk_row(3), false);
    facts.add_notes(DiskId(1), &world.notes, 0).await.unwrap();
    let Content::Blob(blob) = row.content else {
        panic!()
    };
    let shard = |index| ListedShard {
        key: ShardKey {
            group: GROUP,
            blob: blob.blob,
            index,
        },
        disk_bytes: 1,
        finished: index != 1,
    };
    facts.add_shards(&[shard(0), shard(1)]).await.unwrap();
    let (made, report, _) = world.rebuild(&mut facts).await;
    same_object(&world, &made, "one").await;
    let owed = made.owed().await.unwrap();
    let slots: Vec<u8> = owed.iter().map(|(_, slot, _)| *slot).collect();
    let mut expected: Vec<u8> = [1, 2]
        .map(|index| write::slot_of(blob.blob, index, SLOTS))
        .to_vec();
    expected.sort_unstable();
    assert_eq!((slots, report.owed), (expected, 2));
    assert!(owed.iter().all(|(_, _, row)| row.lowest == blob.blob));
    assert_eq!(made.disk(DiskId(3)).await.unwrap(), Some(disk_row(3)));
}

#[tokio::test]
async fn without_a_record_a_group_is_made_of_all_its_slots() {
    let mut world = World::new().await;
    world.put("one").await;
    world.send_notes().await;
    world.notes.retain(|note| note.blob != NO_BLOB);
    for whole in [true, false] {
        let mut facts = world.facts().await;
        let slots = if whole { 0..3 } else { 0..2 };
        for slot in slots {
            let held = shardgate_wire::SlotAssignment {
                group: GROUP,
                slot,
                generation: Generation(1),
            };
            facts.add_slots(DiskId(u128::from(slot) + 1), &[held]);
        }
        let (made, _, doubts) = world.rebuild(&mut facts).await;
        let expected = GroupRow {
            state: GroupState::Sealed,
            ..group()
        };
        match whole {
            true => {
                assert_eq!(made.group(GROUP).await.unwrap(), Some(expected));
                same_object(&world, &made, "one").await;
            }
            // Of two slots: 0+2 is no scheme.
            false => assert_eq!(doubts[0].doubt, Doubt::NoGroup),
        }
    }
}

#[tokio::test]
async fn a_half_made_catalog_says_so_from_its_first_commit_on() {
    let world = World::new().await;
    let engine = Arc::new(MemoryEngine::new());
    let into = Catalog::new(engine.clone());
    let mut facts = world.facts().await;
    let mut hear = |_: &Undecided| {};
    // Without its first commit nothing is made.
    let early = rebuild(&mut facts, &world, &new(), &into, &mut hear).await;
    assert_eq!(early, Err(CatalogError::Conflict));
    begin(&facts, &new(), &into).await.unwrap();
    rebuild(&mut facts, &world, &new(), &into, &mut hear)
        .await
        .unwrap();
    let commits = engine.commits();
    let (first, last) = (commits.first().unwrap(), commits.last().unwrap());
    assert_eq!(begins_rebuild(payload(&first.1)), Ok(true));
    assert_eq!(ends_rebuild(payload(&last.1)), Ok(true));
    let between = &commits[1..commits.len() - 1];
    assert!(between.iter().all(|(_, changes)| {
        let payload = payload(changes);
        begins_rebuild(payload.clone()) == Ok(false) && ends_rebuild(payload) == Ok(false)
    }));
    // It is never made over rows that there are.
    let again = rebuild(&mut facts, &world, &new(), &into, &mut hear).await;
    assert_eq!(again, Err(CatalogError::Conflict));
    let again = begin(&facts, &new(), &into).await;
    assert_eq!(again, Err(CatalogError::Conflict));
}
