//! Checkpoints of a real database into disks in memory.

use std::fs;
use std::time::Duration;

use shardgate_catalog::model::CondemnReason;
use shardgate_wire::memory_store::Call;
use shardgate_wire::{DiskId, ShardKey};

use super::*;
use crate::checkpoint::fixture::{Test, blobs};
use crate::checkpoint::inherit;

/// The disks of all blobs of a checkpoint.
fn disks(taken: &Taken) -> Vec<DiskId> {
    let files = taken.manifest.stored().map(|(_, stored)| stored);
    let all = files.chain([&taken.root.manifest]);
    all.flat_map(|stored| stored.disks.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_read_back_and_what_has_not_changed_is_not_sent_again() {
    let test = Test::new(&[6]).await;
    test.change("first").await;
    let one = test.taker.take(None).await.unwrap();
    assert!(one.sent_bytes > 0 && one.manifest.stored().count() > 0);
    assert_eq!(test.built(&one, "one").await, one.root.position);
    assert!(
        !test.dir.path().join("checkpoint").exists(),
        "links are left behind"
    );
    test.change("second").await;
    let two = test.taker.take(None).await.unwrap();
    assert!(two.root.position.number > one.root.position.number);
    assert_eq!(test.built(&two, "two").await, two.root.position);
    // Tables of the first are in the second as they are.
    let mut again = 0;
    for (file, stored) in two.manifest.stored() {
        let before = one.manifest.stored().find(|(of, _)| of.hash == file.hash);
        if let Some((_, before)) = before {
            assert_eq!(stored, before, "{} was sent again", file.name);
            again += 1;
        }
    }
    assert!(again > 0, "no table stayed");
    let files = test.pool.catalog.checkpoint_files().await.unwrap();
    assert!(files.iter().all(|file| file.stored), "{files:?}");
    // Commits that it says it made are all that came but the test's own.
    let committed = test.pool.catalog.committed().0;
    assert_eq!(committed - two.root.position.number.0, two.commits);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_registered_before_anything_of_it_is_sent() {
    let test = Test::new(&[6]).await;
    test.change("first").await;
    // Groups are assigned, but no shard ever comes to lie on a disk.
    for call in [Call::Put, Call::Open] {
        test.fail_all(call);
    }
    let refused = test.taker.take(None).await.unwrap_err();
    assert!(matches!(refused, TakeError::Store(_)), "{refused}");
    let catalog = &test.pool.catalog;
    assert!(catalog.checkpoint_files().await.unwrap().is_empty());
    let condemned = catalog.condemned(None, 100).await.unwrap();
    assert!(!condemned.is_empty(), "nothing was registered");
    for row in condemned {
        assert_eq!(row.row.reason, CondemnReason::CheckpointDropped);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_a_slot_on_a_disk_that_is_away_is_sent_elsewhere() {
    let test = Test::new(&[6]).await;
    test.change("first").await;
    let one = test.taker.take(None).await.unwrap();
    let away = disks(&one)[0];
    test.pool.pull(&[away]).await;
    let worst = one
        .manifest
        .stored()
        .map(|(_, of)| test.taker.health(&of.blob))
        .max();
    assert_eq!(
        worst.max(Some(test.taker.health(&one.root.manifest.blob))),
        Some(Health::Away)
    );
    let two = test.taker.take(None).await.unwrap();
    assert!(
        !disks(&two).contains(&away),
        "a narrow group would have done"
    );
    for (_, stored) in two.manifest.stored() {
        assert_eq!(test.taker.health(&stored.blob), Health::Whole);
    }
    assert_eq!(test.built(&two, "two").await, two.root.position);
    // Both kept: the older one's blobs are known still.
    let known = test.pool.catalog.checkpoint_files().await.unwrap();
    let is_known = |blob: &BlobRef| known.iter().any(|file| file.blob == *blob);
    assert!(
        one.manifest
            .stored()
            .all(|(_, stored)| is_known(&stored.blob))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_lacks_a_shard_is_not_used_again() {
    let test = Test::new(&[6]).await;
    test.change("first").await;
    let one = test.taker.take(None).await.unwrap();
    let (file, stored) = one.manifest.stored().next().unwrap();
    let key = ShardKey {
        group: stored.blob.group,
        blob: stored.blob.blob,
        index: 0,
    };
    assert!(test.pool.disk(stored.disks[0]).drop_shard(key));
    let two = test.taker.take(None).await.unwrap();
    let again = two.manifest.stored().find(|(of, _)| of.hash == file.hash);
    let (_, again) = again.expect("the table has not changed");
    assert_ne!(again.blob.blob, stored.blob.blob);
    assert_eq!(test.built(&two, "two").await, two.root.position);
}

/// A disk is slow, and nothing is given up for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_disk_delays_it_and_no_more() {
    let test = Test::new(&[6]).await;
    test.change("first").await;
    let late = test.pool.disks()[2];
    test.pool.disk(late).delay(Duration::from_millis(400));
    let one = test.taker.take(None).await.unwrap();
    test.pool.disk(late).delay(Duration::ZERO);
    for (_, stored) in one.manifest.stored() {
        let (there, of) = test.taker.pool_files().count(stored).await;
        assert_eq!(there, of);
    }
}

/// A mark is what later checkpoints use a blob again by.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_back_is_never_marked() {
    let test = Test::new(&[6]).await;
    test.change("first").await;
    let one = test.taker.take(None).await.unwrap();
    test.change("second").await;
    test.fail_all(Call::Read);
    let before = test.pool.catalog.committed().0;
    let refused = test.taker.take(Some(&blobs(&one))).await.unwrap_err();
    assert!(matches!(refused, TakeError::Fetch(_)), "{refused}");
    // Registered and given up, each time, and nothing between.
    let commits = test.pool.catalog.committed().0 - before;
    assert_eq!(commits, 2 * SENDINGS as u64);
}

/// Attempts that fail again and again must not fill the pool.
#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_gives_up_first_what_those_before_it_left() {
    let test = Test::new(&[6]).await;
    test.change("first").await;
    let one = test.taker.take(None).await.unwrap();
    let kept = blobs(&one);
    // One was cut short before it was marked, one is of no file any more.
    let objects = &test.taker.objects;
    let catalog = &test.pool.catalog;
    let mut left = HashSet::new();
    for (content, stored) in [("cut short", false), ("of before", true)] {
        let hash = ContentHash::of(content.as_bytes());
        let place = objects.place_kept(content.len() as u64).await.unwrap();
        catalog
            .register_checkpoint_file(hash, &place.blob)
            .await
            .unwrap();
        if stored {
            let bytes = of_bytes(content.into());
            let kept = objects.keep(&place, "left", bytes, &*test.taker.turns);
            test.taker
                .check_and_mark(hash, kept.await.unwrap())
                .await
                .unwrap();
        }
        left.insert(place.blob.blob);
    }
    test.change("second").await;
    for call in [Call::Put, Call::Open] {
        test.fail_all(call);
    }
    let failed = test.taker.take(Some(&kept)).await;
    assert!(failed.is_err(), "nothing can be sent");
    let known = catalog.checkpoint_files().await.unwrap();
    let known: HashSet<BlobId> = known.iter().map(|file| file.blob.blob).collect();
    assert!(kept.is_subset(&known), "what is kept stays");
    assert!(left.is_disjoint(&known), "{left:?} {known:?}");
    let condemned = catalog.condemned(None, 100).await.unwrap();
    let condemned: HashSet<BlobId> = condemned.iter().map(|of| of.row.blob).collect();
    assert!(left.is_subset(&condemned), "{left:?} {condemned:?}");
    assert!(!test.dir.path().join("checkpoint").exists());
}

/// By its root alone a checkpoint is none.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_an_earlier_run_is_whole_only_if_its_files_are_there() {
    let look = async |test: &Test, taken: &Taken| {
        let found = inherit::look(&test.taker, taken.root.clone()).await;
        (found.manifest.is_some(), found.whole)
    };
    let test = Test::new(&[6]).await;
    test.change("first").await;
    let one = test.taker.take(None).await.unwrap();
    assert_eq!(look(&test, &one).await, (true, true));
    // A disk that is known to be away may come back with what it has.
    let away = disks(&one)[0];
    test.pool.pull(&[away]).await;
    assert_eq!(look(&test, &one).await, (true, true));
    test.pool.put_back(&[away]).await;
    let drop_of = |stored: &StoredFile, shard: u8| {
        let key = ShardKey {
            group: stored.blob.group,
            blob: stored.blob.blob,
            index: shard,
        };
        let disk = test.pool.disk(stored.disks[usize::from(shard)]);
        assert!(disk.drop_shard(key), "{key:?}");
    };
    let (_, table) = one.manifest.stored().next().unwrap();
    drop_of(table, 0);
    assert_eq!(look(&test, &one).await, (true, false));
    // Of the manifest every copy.
    let manifest = &one.root.manifest;
    (0..manifest.disks.len()).for_each(|shard| drop_of(manifest, shard as u8));
    assert_eq!(look(&test, &one).await, (false, false));
}

#[test]
fn a_manifest_that_no_restore_reads_is_refused() {
    assert!(check_manifest_len(MAX_MANIFEST_BYTES).is_ok());
    let refused = check_manifest_len(MAX_MANIFEST_BYTES + 1).unwrap_err();
    assert!(!is_worth_another(&refused), "{refused}");
}

/// The pool has it whole; the gateway's own disk has not, and no start or
/// table cache between tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_damaged_here_takes_nothings_place() {
    let test = Test::new(&[6]).await;
    test.change("first").await;
    let one = test.taker.take(None).await.unwrap();
    let kept = blobs(&one);
    let (file, _) = one.manifest.stored().next().unwrap();
    let path = test.dir.path().join("rocksdb").join(&file.name);
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    // As after a start: what it had hashed is not known any more.
    test.taker.local.forget();
    let refused = test.taker.take(Some(&kept)).await.unwrap_err();
    assert!(
        matches!(refused, TakeError::Engine(EngineError::Damaged(_))),
        "{refused}"
    );
    let known = test.pool.catalog.checkpoint_files().await.unwrap();
    let known: HashSet<BlobId> = known.iter().map(|file| file.blob.blob).collect();
    assert!(kept.is_subset(&known), "what is whole stays");
}
