//! Tables of what is decided from what is found.

use proptest::prelude::*;
use shardgate_wire::{
    BlobId, BucketIncarnation, CommitNumber, Generation, GroupId, Medium, VersionUid,
};

use super::*;
use crate::model::{ETag, GroupState};

fn order(history: u64, commit: u64) -> NoteOrder {
    NoteOrder {
        history,
        commit: CommitNumber(commit),
    }
}

fn blob(id: u128, len: u64) -> BlobRef {
    BlobRef {
        group: GroupId(1),
        blob: BlobId(id),
        layout: BlobLayout { data: 4, parity: 2 },
        len,
    }
}

fn version(uid: u128, content: Content, size: u64) -> VersionRow {
    VersionRow {
        uid: VersionUid(uid),
        size,
        modified: 0,
        etag: ETag {
            md5: [0; 16],
            parts: 0,
        },
        class: 0,
        content,
        checksum: None,
        null: true,
        has_detail: false,
    }
}

fn note(id: u128) -> NotePayload {
    NotePayload::Version {
        incarnation: BucketIncarnation(1),
        key: "key".to_owned(),
        row: version(id, Content::Blob(blob(id, 10)), 10),
        class: String::new(),
        detail: None,
        part: None,
        empty_last: None,
    }
}

#[test]
fn what_becomes_of_a_blob() {
    let is = || Some((order(0, 5), Noted::Is(note(1))));
    let deleted = || Some((order(0, 3), Noted::Deleted));
    let all = Looked { read: 6, parity: 2 };
    let few = Looked { read: 1, parity: 2 };
    let owned = Some(JournalBlob::Owned);
    let gone = Some(JournalBlob::Gone);
    let belongs = || Fate::Belongs(order(0, 5), Box::new(note(1)));
    let cases = [
        // With shards: by its note, and what was deleted stays so.
        (0b11, is(), None, all, belongs()),
        (0b11, is(), owned, all, belongs()),
        (0b11, is(), gone, all, Fate::Gone),
        (0b11, deleted(), None, all, Fate::Gone),
        (0b11, deleted(), owned, all, Fate::Gone),
        (0b11, None, owned, all, Fate::ByJournal),
        (0b11, None, gone, all, Fate::Gone),
        (0b11, None, None, all, Fate::Undecided(Doubt::NoNote)),
        // Without any: it was deleted and its notes are gone, or its disks
        // are away.
        (0, is(), None, all, Fate::Nothing),
        (0, is(), None, few, Fate::Undecided(Doubt::NoShard)),
        (0, is(), owned, few, belongs()),
        (0, is(), gone, few, Fate::Nothing),
        (0, deleted(), None, all, Fate::Nothing),
        (0, None, owned, few, Fate::ByJournal),
        (0, None, None, all, Fate::Nothing),
    ];
    for (shards, note, journal, looked, expected) in cases {
        let fact = BlobFact {
            noted: 1,
            shards,
            unfinished: false,
            note,
        };
        assert_eq!(
            fate(&fact, journal, looked),
            expected,
            "{fact:?} {journal:?}"
        );
    }
    // What was begun and not finished is there, too.
    let half = BlobFact {
        unfinished: true,
        note: deleted(),
        ..BlobFact::default()
    };
    assert_eq!(fate(&half, None, all), Fate::Gone);
}

/// An acknowledged blob lacks at most half of its parity shards.
#[test]
fn absence_is_shown_by_more_disks_than_an_acknowledged_blob_may_lack() {
    for (parity, enough) in [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3)] {
        for read in 0..=6 {
            let looked = Looked { read, parity };
            assert_eq!(looked.shows_absence(), read >= enough, "{looked:?}");
        }
    }
}

fn published(uid: u128) -> Said {
    Said::Published(Box::new(Candidate {
        row: version(uid, Content::Inline, 0),
        class: String::new(),
        detail: None,
        empty_last: None,
        in_journal: false,
    }))
}

#[test]
fn the_highest_commit_of_the_highest_history_is_the_newest() {
    let cases = [
        (vec![], None),
        (vec![(order(0, 5), published(1))], Some(0)),
        (
            vec![(order(0, 5), published(1)), (order(0, 4), published(2))],
            Some(0),
        ),
        (
            vec![(order(0, 5), published(1)), (order(2, 1), published(2))],
            Some(1),
        ),
        (
            vec![(order(0, 5), published(1)), (order(0, 6), Said::Deleted)],
            None,
        ),
        (
            vec![
                (order(0, 6), Said::Deleted),
                (order(0, 5), published(1)),
                (order(0, 7), published(2)),
            ],
            Some(2),
        ),
    ];
    for (said, expected) in cases {
        assert_eq!(newest(&said), expected, "{said:?}");
    }
}

fn part(number: u16, start: u64, len: u64) -> PartRow {
    PartRow {
        number,
        start,
        blob: Some(blob(u128::from(number), len)),
        len,
        md5: [0; 16],
        checksum: None,
    }
}

fn uploaded(number: u16, len: u64) -> UploadPartRow {
    UploadPartRow {
        number,
        blob: Some(blob(u128::from(number), len)),
        len,
        md5: [0; 16],
        checksum: None,
        modified: 0,
    }
}

#[test]
fn parts_make_an_object_or_they_do_not() {
    let row = version(1, Content::Parts(3), 25);
    let all = [part(1, 0, 10), part(4, 10, 10), part(9, 20, 5)];
    assert_eq!(assemble(&row, &all, &[], None), Some(all.to_vec()));
    let mixed = [all[2].clone(), all[0].clone(), all[1].clone()];
    assert_eq!(assemble(&row, &mixed, &[], None), Some(all.to_vec()));
    // One whose last note is from before the completion.
    let two = [all[0].clone(), all[2].clone()];
    let late = assemble(&row, &two, &[uploaded(4, 10)], None);
    assert_eq!(late, Some(all.to_vec()));
    // A part that was not used is no part of it.
    let unused = assemble(&row, &all, &[uploaded(5, 10)], None);
    assert_eq!(unused, Some(all.to_vec()));
    // Too few, too many, or of another length.
    assert_eq!(assemble(&row, &two, &[], None), None);
    assert_eq!(
        assemble(&row, &two, &[uploaded(4, 10), uploaded(5, 10)], None),
        None
    );
    assert_eq!(assemble(&row, &two, &[uploaded(4, 9)], None), None);
    let shifted = [all[0].clone(), part(4, 11, 10), all[2].clone()];
    assert_eq!(assemble(&row, &shifted, &[], None), None);
    // The last one has no bytes.
    let row = version(1, Content::Parts(3), 20);
    let last = PartRow {
        blob: None,
        ..part(9, 20, 0)
    };
    let with = assemble(&row, &all[..2], &[], Some(&last));
    assert_eq!(with.map(|parts| parts.len()), Some(3));
    assert_eq!(assemble(&row, &all[..2], &[], None), None);
}

fn group(id: u64, disks: &[u128], parity: u8) -> GroupRow {
    GroupRow {
        id: GroupId(id),
        generation: Generation(1),
        data: disks.len() as u8 - parity,
        parity,
        medium: Medium::Flash,
        slots: disks.iter().copied().map(DiskId).collect(),
        state: GroupState::Open,
        narrow: false,
        slot_bytes: 0,
    }
}

#[test]
fn what_is_vouched_for_bears_as_many_ignorant_disks_as_parity() {
    let marks = |of: &[(u128, u64)]| -> BTreeMap<DiskId, NoteOrder> {
        of.iter()
            .map(|(disk, commit)| (DiskId(*disk), order(0, *commit)))
            .collect()
    };
    let one = group(1, &[1, 2, 3, 4], 2);
    let two = group(2, &[3, 4, 5], 1);
    let all = marks(&[(1, 9), (2, 9), (3, 9), (4, 9), (5, 7)]);
    let cases = [
        (vec![], all.clone(), 9),
        (vec![&one], all.clone(), 9),
        (vec![&one, &two], all, 9),
        // Two of the first know less, or were not read.
        (vec![&one], marks(&[(3, 9), (4, 9)]), 9),
        (vec![&one], marks(&[(2, 3), (4, 9)]), 3),
        (vec![&one, &two], marks(&[(1, 9), (2, 9), (3, 9)]), 0),
        (vec![&two], marks(&[(3, 9), (4, 4), (5, 6)]), 6),
    ];
    for (groups, marks, expected) in cases {
        assert_eq!(vouched(&groups, &marks), order(0, expected), "{marks:?}");
    }
}

#[test]
fn shards_that_are_lacking() {
    let layout = BlobLayout { data: 4, parity: 2 };
    assert_eq!(lacking(layout, 0b11_1111), BTreeSet::new());
    assert_eq!(lacking(layout, 0b10_1101), BTreeSet::from([1, 4]));
    assert_eq!(lacking(layout, 0).len(), 6);
}

proptest! {
    /// Whatever order things are found in, the same is the newest.
    #[test]
    fn the_order_of_finding_decides_nothing(
        said in proptest::collection::vec((0u64..3, 0u64..6, any::<bool>()), 1..8),
        turn in 0usize..8,
    ) {
        let mut seen = BTreeSet::new();
        let said: Vec<(NoteOrder, Said)> = said
            .into_iter()
            .filter(|(history, commit, _)| seen.insert((*history, *commit)))
            .map(|(history, commit, there)| {
                let uid = u128::from(history * 10 + commit);
                let what = if there { published(uid) } else { Said::Deleted };
                (order(history, commit), what)
            })
            .collect();
        let mut turned = said.clone();
        turned.rotate_left(turn % said.len());
        let pick = |of: &[(NoteOrder, Said)]| newest(of).map(|at| of[at].0);
        prop_assert_eq!(pick(&said), pick(&turned));
        let last = said.iter().max_by_key(|(order, _)| *order).unwrap();
        prop_assert_eq!(pick(&said), matches!(last.1, Said::Published(_)).then_some(last.0));
    }
}
