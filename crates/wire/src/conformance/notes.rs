//! Notes: what was told is listed, and what was deleted is never written.

use std::collections::BTreeMap;

use super::{Case, Subject, assert_bad_call, sample};
use crate::disk::SlotAssignment;
use crate::ids::{BlobId, CommitNumber, GroupId};
use crate::note::{BlobNote, MAX_NOTE_BYTES, MAX_NOTES, NoteOrder, NoteState};
use crate::store::{MAX_BATCH, ShardEnd};

fn note(blob: u128, commit: u64, state: NoteState) -> BlobNote {
    BlobNote {
        group: sample::GROUP,
        blob: BlobId(blob),
        order: NoteOrder {
            history: 3,
            commit: CommitNumber(commit),
        },
        state,
    }
}

fn published(blob: u128, commit: u64) -> BlobNote {
    let payload = format!("blob {blob} at {commit}").into_bytes();
    note(blob, commit, NoteState::Published(payload))
}

fn deleted(blob: u128, commit: u64) -> BlobNote {
    note(blob, commit, NoteState::Deleted)
}

impl<S: Subject> Case<S> {
    async fn put_all(&self, notes: &[BlobNote]) {
        let put = self.store.put_notes(&self.ctx, notes).await;
        put.expect("a fresh disk takes notes");
    }

    /// What holds of each blob, as a reader puts it together.
    async fn noted(&self) -> BTreeMap<(GroupId, BlobId), BlobNote> {
        let (mut held, mut after) = (BTreeMap::<_, BlobNote>::new(), None);
        loop {
            let page = self.store.notes(after).await.expect("notes list");
            assert!(page.notes.len() <= MAX_NOTES);
            assert_eq!(page.damaged, 0);
            for note in page.notes {
                let key = (note.group, note.blob);
                if held.get(&key).is_none_or(|before| note.overrules(before)) {
                    held.insert(key, note);
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return held,
            }
        }
    }

    async fn assert_noted(&self, wanted: &[BlobNote]) {
        let held: Vec<BlobNote> = self.noted().await.into_values().collect();
        assert_eq!(held, wanted);
    }
}

pub(super) async fn what_is_noted_is_listed<S: Subject>(mut case: Case<S>) {
    case.assert_noted(&[]).await;
    case.put_all(&[published(1, 10), published(2, 11), deleted(3, 12)])
        .await;
    // Later ones, a repeat, and ones that are overruled.
    case.put_all(&[published(1, 20), published(2, 11), deleted(4, 13)])
        .await;
    case.put_all(&[published(1, 9), deleted(2, 5), published(3, 99)])
        .await;
    let wanted = [
        published(1, 20),
        deleted(2, 5),
        deleted(3, 12),
        deleted(4, 13),
    ];
    case.assert_noted(&wanted).await;
    case.restart().await;
    case.assert_noted(&wanted).await;
    let forgotten = [3, 4, 77].map(|blob| (sample::GROUP, BlobId(blob)));
    let forget = case.store.forget_notes(&case.ctx, &forgotten).await;
    assert_eq!(forget, Ok(()));
    for _ in 0..2 {
        let held = case.noted().await;
        let blob = |blob| held.get(&(sample::GROUP, BlobId(blob)));
        assert_eq!(blob(1), Some(&published(1, 20)));
        assert_eq!(blob(2), Some(&deleted(2, 5)));
        assert!(blob(3).is_none_or(|note| note.state != NoteState::Deleted));
        assert_eq!(blob(4), None);
        case.restart().await;
    }
}

pub(super) async fn a_deleted_blob_takes_no_shards<S: Subject>(mut case: Case<S>) {
    let (ctx, store) = (case.ctx, case.store.clone());
    let header = sample::header(&ctx, 5);
    let open = store.open(&ctx, header.clone(), None).await.expect("opens");
    let bytes = sample::bytes(5, 100);
    let crcs = crate::checksum::block_crcs(&bytes);
    let appended = store.append(&ctx, open, 0, bytes, &crcs).await;
    assert_eq!(appended, Ok(()));
    let small = |blob| sample::small(&ctx, blob, 300);
    assert_eq!(store.put(&ctx, small(7)).await, Ok(()));

    case.put_all(&[deleted(5, 1), deleted(6, 1), deleted(7, 1)])
        .await;
    let end = ShardEnd {
        shard_len: 100,
        blob_len: 400,
    };
    assert_bad_call(store.finish(&ctx, open, end).await);
    assert_bad_call(store.open(&ctx, header.clone(), None).await);
    assert_bad_call(store.put(&ctx, small(6)).await);
    // What is stored goes by `delete` alone, and does not come back.
    assert!(store.stat(sample::key(7)).await.is_ok());
    assert_eq!(store.delete(&ctx, &[sample::key(7)]).await, Ok(()));
    assert_bad_call(store.put(&ctx, small(7)).await);
    case.restart().await;
    assert_bad_call(case.store.put(&ctx, small(7)).await);
    assert_bad_call(case.store.open(&ctx, header, Some(100)).await);
    assert_eq!(case.store.put(&ctx, small(8)).await, Ok(()));
}

pub(super) async fn notes_are_bounded<S: Subject>(case: Case<S>) {
    let many: Vec<_> = (0..=MAX_NOTES as u128).map(|b| published(b, 1)).collect();
    assert_bad_call(case.store.put_notes(&case.ctx, &many).await);
    let long = note(1, 1, NoteState::Published(vec![0; MAX_NOTE_BYTES + 1]));
    assert_bad_call(
        case.store
            .put_notes(&case.ctx, &[published(2, 1), long])
            .await,
    );
    let blobs = vec![(sample::GROUP, BlobId(1)); MAX_BATCH + 1];
    assert_bad_call(case.store.forget_notes(&case.ctx, &blobs).await);
    case.assert_noted(&[]).await;
    assert_eq!(case.store.put_notes(&case.ctx, &[]).await, Ok(()));
}

pub(super) async fn many_notes_come_in_pages<S: Subject>(mut case: Case<S>) {
    let most = |blob| note(blob, 1, NoteState::Published(vec![7; MAX_NOTE_BYTES]));
    let mut wanted = Vec::new();
    for step in 0..5_u128 {
        let blobs = step * 1000..step * 1000 + MAX_NOTES as u128;
        let notes: Vec<_> = blobs.map(most).collect();
        case.put_all(&notes).await;
        wanted.extend(notes);
    }
    let gone: Vec<_> = (9000..9000 + MAX_NOTES as u128)
        .map(|blob| deleted(blob, 2))
        .collect();
    case.put_all(&gone).await;
    case.put_all(&[deleted(9999, 3)]).await;
    wanted.extend(gone);
    wanted.push(deleted(9999, 3));
    case.assert_noted(&wanted).await;
    case.restart().await;
    case.assert_noted(&wanted).await;
}

pub(super) async fn slots_are_listed<S: Subject>(case: Case<S>) {
    let slot = |group: u64| SlotAssignment {
        group: GroupId(group),
        ..sample::slot()
    };
    assert_eq!(case.store.slots(None).await, Ok(vec![sample::slot()]));
    let all: Vec<_> = (0x1000..0x1000 + MAX_BATCH as u64).map(slot).collect();
    let assigned = case.store.assign(&case.ctx, &all).await;
    assert_eq!(assigned, Ok(()));
    let first = case.store.slots(None).await.expect("slots list");
    assert_eq!(first.len(), MAX_BATCH);
    assert_eq!(
        (first[0], &first[1..]),
        (sample::slot(), &all[..MAX_BATCH - 1])
    );
    let rest = case.store.slots(Some(first[MAX_BATCH - 1].group)).await;
    assert_eq!(rest, Ok(vec![all[MAX_BATCH - 1]]));
}
