//! What is made of sources that contradict each other, end early, or are of
//! other times.

use std::sync::Arc;

use shardgate_wire::note::NO_BLOB;
use shardgate_wire::store::ListedShard;
use shardgate_wire::{BlobNote, DiskId, NoteState, ShardKey};

use super::world::{GROUP, SLOTS, World, disk_row, new, payload};
use super::{is_absent, same_object};
use crate::complete::MIN_PART_BYTES;
use crate::engine::{Commit, Engine, MemoryEngine, Op};
use crate::model::{Content, DiskRow, DiskState};
use crate::rebuild::*;

/// One that was cut short leaves disks that say no more how far the catalog
/// before was.
#[tokio::test]
async fn the_next_rebuild_knows_what_disks_were_told_before_the_last_one() {
    let mut world = World::new().await;
    world.put("one").await;
    let told = world.catalog.committed();
    let engine = Arc::new(MemoryEngine::new());
    let into = Catalog::new(engine.clone());
    let mut before = world.facts().await;
    before.set_lineage(LineageId(1));
    before.add_told((LineageId(9), CommitNumber(1_000_000)));
    begin(&before, &new(), &into).await.unwrap();
    let first = payload(&engine.commits()[0].1);
    // Its pool map was written, or not.
    for map in [LineageId(2), LineageId(1)] {
        let mut facts = Facts::new(Arc::new(MemoryEngine::new()));
        facts.set_lineage(map);
        facts.add_disk(disk_row(1), true);
        facts.add_told((LineageId(2), CommitNumber(40)));
        facts.add_unfinished(first.clone()).unwrap();
        assert_eq!(facts.lineages(), [map, LineageId(1)]);
        let (made, report, _) = world.rebuild(&mut facts).await;
        assert_eq!(report.last, told, "of the last one that was whole");
        let lineage = made.lineage().await.unwrap().unwrap();
        assert_eq!(lineage.before[0], (LineageId(1), told));
    }
}

/// Which history a piece of the journal is of says the epoch of its segments:
/// numbers of two histories say nothing about each other.
#[tokio::test]
async fn an_old_piece_of_the_journal_is_of_its_own_history() {
    let mut world = World::new().await;
    let old = world.put("key").await;
    let journal = world.journal();
    let new = world.put("key").await;
    world.send_notes().await;
    // Since epoch 8 the catalog is of another history, and has begun to count
    // anew: what was published there has a lower number.
    world.notes.retain(|note| note.state != NoteState::Deleted);
    for note in &mut world.notes {
        note.order = NoteOrder {
            history: 8,
            commit: CommitNumber(2),
        };
    }
    let mut facts = world.facts().await;
    assert_eq!(
        [0, 7, 8, 9].map(|epoch| facts.history_at(epoch)),
        [0, 0, 8, 8]
    );
    let history = facts.history_at(5);
    facts.add_journal(history, journal).await.unwrap();
    let (made, _, _) = world.rebuild(&mut facts).await;
    let found = made.object(world.bucket.incarnation, "key").await.unwrap();
    assert_eq!((found.uid, found.uid != old.uid), (new.uid, true));
}

/// What only the journal has, and no disk has a shard of: deleted in a part of
/// the journal that cannot be read, as far as anybody knows.
#[tokio::test]
async fn what_the_journal_has_and_no_disk_is_listed_unless_the_journal_goes_to_the_end() {
    for whole in [true, false] {
        let mut world = World::new().await;
        let lost = world.put("lost").await;
        world.put("there").await;
        let journal = world.journal();
        let Content::Blob(blob) = lost.content else {
            panic!()
        };
        world.shards.remove(&blob.blob);
        let end = world.catalog.committed();
        if !whole {
            world.delete("lost").await;
        }
        let mut facts = world.facts().await;
        facts.add_journal(0, journal).await.unwrap();
        facts.add_spans(0, &[(CommitNumber(1), end)]);
        let (made, report, doubts) = world.rebuild(&mut facts).await;
        same_object(&world, &made, "there").await;
        match whole {
            // It is there, and cannot be read: that is for the reader to say.
            true => {
                same_object(&world, &made, "lost").await;
                assert_eq!(doubts, []);
            }
            false => {
                is_absent(&made, world.bucket.incarnation, "lost").await;
                assert_eq!(
                    (doubts[0].blob, doubts[0].doubt),
                    (blob.blob, Doubt::NoShard)
                );
                assert_eq!(doubts.len(), 1);
            }
        }
        assert_eq!(report.condemned, 0);
    }
}

/// The newest version was deleted, and nothing tells that of the one before.
#[tokio::test]
async fn behind_a_deleted_version_nothing_older_comes_back() {
    let mut world = World::new().await;
    world.put("key").await;
    world.send_notes().await;
    let before = world.notes.clone();
    world.delete("key").await;
    world.put("key").await;
    let journal = world.journal();
    world.delete("key").await;
    world.send_notes().await;
    let deleted = world
        .notes
        .iter()
        .rfind(|note| note.state == NoteState::Deleted);
    let deleted = deleted.cloned().unwrap();
    // Of the first version's end no disk was told.
    world.notes = before;
    world.notes.push(deleted);
    let mut facts = world.facts().await;
    let middle = journal.len() - 1;
    facts
        .add_journal(0, journal[middle..].to_vec())
        .await
        .unwrap();
    let (made, _, _) = world.rebuild(&mut facts).await;
    is_absent(&made, world.bucket.incarnation, "key").await;
}

/// A part's first note is made when its upload is completed already.
#[tokio::test]
async fn a_late_note_of_a_part_is_not_of_the_time_when_it_was_uploaded() {
    let mut world = World::new().await;
    let uid = world.begin_upload("key").await;
    world.put_part("key", uid, 1, MIN_PART_BYTES).await;
    let uploaded = world.catalog.committed();
    world.put("key").await;
    world.send_notes().await;
    let before = world.notes.clone();
    world.complete("key", uid, &[1]).await;
    // The note that the part's upload queued, and no other; the note of the
    // deletion did not come.
    let waiting = world.catalog.waiting_notes(None, 100).await.unwrap().rows;
    let late = waiting
        .iter()
        .find(|row| row.place.commit == uploaded)
        .unwrap();
    let note = world
        .catalog
        .note_as_of(late.group, late.blob, uploaded)
        .await;
    let (note, as_of) = note.unwrap().unwrap();
    assert_eq!(as_of, world.catalog.committed());
    world.notes = before
        .into_iter()
        .filter(|note| note.blob != late.blob)
        .collect();
    world.notes.push(BlobNote {
        group: late.group,
        blob: late.blob,
        order: NoteOrder {
            history: 0,
            commit: as_of,
        },
        state: NoteState::Published(note.encode()),
    });
    let (made, _, _) = world.rebuild(&mut world.facts().await).await;
    same_object(&world, &made, "key").await;
}

/// Notes of one version that were made at different times are of one version.
#[tokio::test]
async fn what_notes_of_several_times_say_of_a_version_is_taken_together() {
    let mut world = World::new().await;
    let uid = world.begin_upload("key").await;
    for number in [1, 2, 3] {
        world.put_part("key", uid, number, MIN_PART_BYTES).await;
    }
    world.complete("key", uid, &[1, 2, 3]).await;
    world.put("over").await;
    world.put("over").await;
    world.send_notes().await;
    let mut commit = world.catalog.committed().0;
    for note in world.notes.iter_mut().filter(|note| note.blob != NO_BLOB) {
        commit += 1;
        note.order.commit = CommitNumber(commit);
    }
    let (made, report, doubts) = world.rebuild(&mut world.facts().await).await;
    assert_eq!(doubts, []);
    same_object(&world, &made, "key").await;
    assert_eq!(report.condemned, 1, "what was overwritten, once");
}

#[tokio::test]
async fn a_disk_that_lost_notes_vouches_for_nothing_and_is_named() {
    let mut world = World::new().await;
    world.put("one").await;
    world.send_notes().await;
    for damaged in [0, 2] {
        let mut facts = world.facts().await;
        facts.add_notes(DiskId(3), &[], damaged).await.unwrap();
        facts.add_disk(disk_row(4), false);
        let lost = DiskRow {
            state: DiskState::Lost,
            ..disk_row(5)
        };
        facts.add_disk(lost, false);
        let (_, report, _) = world.rebuild(&mut facts).await;
        assert_eq!(report.missing, [DiskId(4)], "not the one declared lost");
        match damaged {
            0 => assert_eq!(
                (report.vouched, &report.damaged_notes[..]),
                (world.told, &[][..])
            ),
            _ => assert_eq!(report.damaged_notes, [(DiskId(3), 2)]),
        }
    }
    for disk in [1, 2] {
        let mut facts = world.facts().await;
        for damaged in 1..=disk {
            facts.add_notes(DiskId(damaged), &[], 1).await.unwrap();
        }
        facts.add_notes(DiskId(3), &[], 1).await.unwrap();
        let (_, report, _) = world.rebuild(&mut facts).await;
        let vouched = if disk == 1 {
            world.told
        } else {
            CommitNumber(0)
        };
        assert_eq!(report.vouched, vouched, "{disk} and another are damaged");
    }
}

/// A note that could not be read is one that is not there.
#[tokio::test]
async fn a_note_that_cannot_be_read_counts_as_damage() {
    let mut world = World::new().await;
    world.put("one").await;
    world.send_notes().await;
    let mut bad = world
        .notes
        .iter()
        .find(|note| note.blob != NO_BLOB)
        .cloned()
        .unwrap();
    bad.state = NoteState::Published(vec![0xFF; 3]);
    let mut facts = world.facts().await;
    facts.add_notes(DiskId(2), &[bad], 0).await.unwrap();
    let (_, report, _) = world.rebuild(&mut facts).await;
    assert_eq!(report.damaged_notes, [(DiskId(2), 1)]);
}

/// What a disk was told of another history is of other commits.
#[tokio::test]
async fn numbers_of_another_history_are_not_compared() {
    let mut world = World::new().await;
    world.put("one").await;
    world.send_notes().await;
    for current in [1, 2] {
        let mut facts = world.facts().await;
        facts.set_lineage(LineageId(current));
        // Of a history before it, or after it.
        facts.add_told((LineageId(9), CommitNumber(1_000_000)));
        facts.add_told((LineageId(2), CommitNumber(500)));
        let (_, report, _) = world.rebuild(&mut facts).await;
        let last = if current == 1 {
            world.told
        } else {
            CommitNumber(500)
        };
        assert_eq!((report.vouched, report.last), (world.told, last));
    }
    // A record of a later history: of that one nothing is vouched for.
    let mut facts = world.facts().await;
    facts.set_lineage(LineageId(77));
    let later = BlobNote {
        group: GROUP,
        blob: BlobId(77),
        order: NoteOrder {
            history: 5,
            commit: CommitNumber(3),
        },
        state: NoteState::Deleted,
    };
    facts.add_notes(DiskId(1), &[later], 0).await.unwrap();
    let (_, report, _) = world.rebuild(&mut facts).await;
    assert_eq!(
        (report.vouched, report.last),
        (CommitNumber(0), CommitNumber(3))
    );
}

/// Disks that have not the note that others have are told by the new catalog:
/// its marks speak for them from then on.
#[tokio::test]
async fn disks_that_were_late_are_told_again() {
    let mut world = World::new().await;
    let row = world.put("one").await;
    world.send_notes().await;
    let Content::Blob(blob) = row.content else {
        panic!()
    };
    for late in [false, true] {
        let mut facts = Facts::new(Arc::new(MemoryEngine::new()));
        for disk in 1..=SLOTS as u128 {
            facts.add_disk(disk_row(disk), true);
            let listed = ListedShard {
                key: ShardKey {
                    group: GROUP,
                    blob: blob.blob,
                    index: (disk - 1) as u8,
                },
                disk_bytes: 1,
                finished: true,
            };
            facts.add_shards(&[listed]).await.unwrap();
            if disk < 3 || !late {
                facts
                    .add_notes(DiskId(disk), &world.notes, 0)
                    .await
                    .unwrap();
            }
        }
        let (made, _, _) = world.rebuild(&mut facts).await;
        let waiting = made.waiting_notes(None, 100).await.unwrap().rows;
        let queued = waiting.iter().any(|row| row.blob == blob.blob);
        assert_eq!(queued, late);
    }
}

#[test]
fn commits_that_nothing_was_read_of_are_told() {
    let span = |from, to| (CommitNumber(from), CommitNumber(to));
    let cases = [
        (None, vec![], 9, vec![span(1, 9)]),
        (None, vec![span(1, 9)], 9, vec![]),
        (
            None,
            vec![span(1, 4), span(7, 9)],
            12,
            vec![span(5, 6), span(10, 12)],
        ),
        (Some(5), vec![], 5, vec![]),
        (Some(5), vec![span(8, 9)], 9, vec![span(6, 7)]),
        (Some(5), vec![span(2, 9)], 9, vec![]),
        (Some(9), vec![span(2, 4)], 9, vec![]),
    ];
    for (base, journal, last, unknown) in cases {
        let made = Rebuilt {
            base: base.map(CommitNumber),
            journal,
            last: CommitNumber(last),
            ..Rebuilt::default()
        };
        assert_eq!(made.unknown_spans(), unknown, "{made:?}");
    }
}

/// A checkpoint is a whole catalog: what it has is there but for what was
/// committed later, and what it does not have was deleted by then.
#[tokio::test]
async fn a_checkpoint_is_where_a_rebuild_begins() {
    let mut world = World::new().await;
    world.put("one").await;
    world.put_inline("inline", b"lies in the catalog").await;
    world.put_inline("over", b"first").await;
    let gone = world.put("gone").await;
    let later = world.put("later").await;
    world.send_notes().await;
    let old = world.notes.clone();
    world.delete("gone").await;
    let uid = world.begin_upload("open").await;
    world.put_part("open", uid, 1, 2000).await;
    let checkpoint = MemoryEngine::new();
    for (_, changes) in world.engine.commits() {
        let ops = changes.into_iter().map(|(key, value)| match value {
            Some(value) => Op::Put(key, value),
            None => Op::Delete(key),
        });
        let commit = Commit {
            expect: Vec::new(),
            ops: ops.collect(),
        };
        checkpoint.commit(commit).await.unwrap();
    }
    let at = checkpoint.committed();
    world.put("over").await;
    world.put("one").await;
    world.delete("later").await;
    world.put_inline("unknown", b"its commit is lost").await;
    world.send_notes().await;
    // Of the end of what was deleted before no disk was told.
    let Content::Blob(gone) = gone.content else {
        panic!()
    };
    world.notes.retain(|note| note.blob != gone.blob);
    world
        .notes
        .extend(old.into_iter().filter(|note| note.blob == gone.blob));
    let mut facts = world.facts().await;
    facts.add_catalog(&checkpoint).await.unwrap();
    // What the journal has of before says nothing.
    let journal = world.journal();
    let first = facts
        .add_journal(0, journal[..at.0 as usize].to_vec())
        .await;
    assert_eq!(first, Ok(0));
    let (made, report, doubts) = world.rebuild(&mut facts).await;
    assert_eq!(doubts, []);
    for key in ["one", "inline", "over"] {
        same_object(&world, &made, key).await;
    }
    let incarnation = world.bucket.incarnation;
    for key in ["gone", "later", "unknown"] {
        is_absent(&made, incarnation, key).await;
    }
    let Content::Blob(later) = later.content else {
        panic!()
    };
    assert_eq!(made.blob(GROUP, later.blob).await, Ok(None));
    assert!(made.upload(incarnation, "open", uid).await.is_ok());
    assert_eq!(
        made.bucket("photos").await,
        world.catalog.bucket("photos").await
    );
    assert_eq!(report.base, Some(at));
    assert_eq!(
        report.unknown_spans(),
        [(CommitNumber(at.0 + 1), world.catalog.committed())]
    );
}
