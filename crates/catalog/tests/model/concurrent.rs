//! Many callers at once: what the turns and expectations must bring about.

use std::time::Duration;

use bytes::Bytes;
use shardgate_catalog::{
    Catalog, CatalogError, CompletePart, DeleteCondition, MIN_PART_BYTES, PublishBody, Reopen,
    WriteCondition,
};
use shardgate_wire::{BlobId, CommitNumber, Generation, VersionUid};

use super::Opened;
use super::build::{self, finish, furnish, part, publish};
use super::check::check;

/// Each test on each engine.
macro_rules! on_every_engine {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::in_memory()).await;
            })*
        }
        #[cfg(feature = "rocksdb")]
        mod rocksdb {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::on_rocksdb().await).await;
            })*
        }
    };
}

on_every_engine!(
    all_puts_to_one_key_succeed_and_the_last_commit_wins,
    one_of_many_creations_wins,
    owed_rows_open_once_and_close_only_when_nothing_came,
    a_stored_blob_that_lost_its_shard_is_owed,
    a_bucket_is_never_deleted_over_an_object,
    complete_and_abort_have_one_winner,
    ten_thousand_parts_complete_and_are_found,
    many_keys_go_at_once,
    ids_and_numbers_are_drawn_once,
);

async fn spawn_all<T: Send + 'static, F>(work: impl IntoIterator<Item = F>) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = work.into_iter().map(tokio::spawn).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

async fn all_puts_to_one_key_succeed_and_the_last_commit_wins(opened: Opened) {
    let catalog = opened.catalog.clone();
    let bucket = furnish(&catalog).await;
    let puts = (1..=64u64).map(|n| {
        let body = PublishBody::Blob(build::written(n.into(), 100));
        let request = publish(&bucket, "k", n, body);
        let catalog = catalog.clone();
        async move { catalog.publish(request).await.unwrap() }
    });
    let done = spawn_all(puts).await;
    let last = done.iter().max_by_key(|done| done.commit).unwrap();
    let held = catalog.object(bucket.incarnation, "k").await.unwrap();
    assert_eq!(held, last.row);
    assert_eq!(check(&catalog).await.condemned.len(), 63);
}

async fn one_of_many_creations_wins(opened: Opened) {
    let catalog = opened.catalog.clone();
    let bucket = furnish(&catalog).await;
    let puts = (1..=32u64).map(|n| {
        let mut request = publish(&bucket, "k", n, PublishBody::Inline(Bytes::from("x")));
        request.condition = WriteCondition::IfNoneMatchAny;
        let catalog = catalog.clone();
        async move { catalog.publish(request).await }
    });
    let done = spawn_all(puts).await;
    let won = done.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(won, 1);
    for outcome in done.into_iter().filter_map(Result::err) {
        assert_eq!(outcome, CatalogError::PreconditionFailed);
    }
}

async fn owed_rows_open_once_and_close_only_when_nothing_came(opened: Opened) {
    let catalog = opened.catalog.clone();
    let bucket = furnish(&catalog).await;
    let put = |n: u64| {
        let mut written = build::written((100 + n).into(), 100);
        written.owed_slots = vec![2];
        written.lowest_in_flight = BlobId(101);
        let request = publish(&bucket, &format!("k{n}"), n, PublishBody::Blob(written));
        let catalog = catalog.clone();
        async move { catalog.publish(request).await.unwrap() }
    };
    spawn_all((1..=32).map(put)).await;
    let owed = catalog.owed().await.unwrap();
    assert_eq!(owed.len(), 1);
    assert_eq!((owed[0].1, owed[0].2.lowest), (2, BlobId(101)));

    let generation = Generation(1);
    let not_compared = catalog
        .close_owed(build::GROUP, 2, &owed[0].2, generation)
        .await;
    assert_eq!(not_compared, Err(CatalogError::Conflict));
    let compared = catalog
        .compare_owed(build::GROUP, 2)
        .await
        .unwrap()
        .unwrap();
    put(33).await;
    let closed = catalog
        .close_owed(build::GROUP, 2, &compared, generation)
        .await;
    assert_eq!(closed, Err(CatalogError::Conflict), "a blob came meanwhile");
    let compared = catalog
        .compare_owed(build::GROUP, 2)
        .await
        .unwrap()
        .unwrap();
    let moved = catalog
        .close_owed(build::GROUP, 2, &compared, Generation(2))
        .await;
    assert_eq!(
        moved,
        Err(CatalogError::Conflict),
        "another disk was compared"
    );
    catalog
        .close_owed(build::GROUP, 2, &compared, generation)
        .await
        .unwrap();
    assert_eq!(catalog.owed().await.unwrap(), vec![]);
    assert_eq!(catalog.compare_owed(build::GROUP, 2).await.unwrap(), None);
}

async fn a_stored_blob_that_lost_its_shard_is_owed(opened: Opened) {
    let catalog = opened.catalog.clone();
    let bucket = furnish(&catalog).await;
    for n in 1..=3 {
        let body = PublishBody::Blob(build::written((100 + n).into(), 100));
        let request = publish(&bucket, &format!("k{n}"), n, body);
        catalog.publish(request).await.unwrap();
    }
    let blob = |n: u128| build::blob(100 + n, 100);
    let generation = Generation(1);
    let owe =
        async |blob, slot, generation, reopen| catalog.owe(&blob, slot, generation, reopen).await;
    assert_eq!(owe(blob(2), 1, generation, Reopen::Always).await, Ok(true));
    let owed = async || {
        let rows = catalog.owed().await.unwrap();
        rows.iter()
            .map(|row| (row.1, row.2.lowest.0))
            .collect::<Vec<_>>()
    };
    assert_eq!(owed().await, [(1, 102)]);
    // Lists that are compared already may have passed it.
    let compared = catalog.compare_owed(build::GROUP, 1).await.unwrap();
    assert_eq!(owe(blob(3), 1, generation, Reopen::Unless).await, Ok(false));
    assert_eq!(owe(blob(3), 1, generation, Reopen::Always).await, Ok(true));
    let closed = catalog
        .close_owed(build::GROUP, 1, &compared.unwrap(), generation)
        .await;
    assert_eq!(closed, Err(CatalogError::Conflict));
    assert_eq!(owed().await, [(1, 102)]);
    // One that is left as it is lets a comparison come to its end.
    let compared = catalog.compare_owed(build::GROUP, 1).await.unwrap();
    assert_eq!(owe(blob(3), 1, generation, Reopen::Unless).await, Ok(false));
    let closed = catalog
        .close_owed(build::GROUP, 1, &compared.unwrap(), generation)
        .await;
    assert_eq!(closed, Ok(()));
    assert_eq!(owe(blob(3), 1, generation, Reopen::Unless).await, Ok(true));
    assert_eq!(owed().await, [(1, 103)]);
    assert_eq!(owe(blob(1), 1, generation, Reopen::Unless).await, Ok(true));
    assert_eq!(owed().await, [(1, 101)]);

    // What is not there, or is another blob by length, owes nothing.
    let longer = build::blob(101, 200);
    for gone in [blob(9), longer] {
        assert_eq!(owe(gone, 2, generation, Reopen::Always).await, Ok(false));
    }
    let moved = owe(blob(1), 2, Generation(2), Reopen::Always).await;
    assert!(
        matches!(moved, Err(CatalogError::GroupMoved { .. })),
        "{moved:?}"
    );
    assert_eq!(owed().await, [(1, 101)]);
}

/// Puts and deletions of one bucket race; whoever wins, no object that was
/// acknowledged is without its bucket.
async fn a_bucket_is_never_deleted_over_an_object(opened: Opened) {
    let catalog = opened.catalog.clone();
    furnish(&catalog).await;
    for round in 0..20u64 {
        let name = format!("r{round}");
        let row = catalog.create_bucket(&name, "me", 1).await.unwrap();
        let bucket = build::bucket(&name, row.incarnation);
        let put = {
            let (catalog, bucket) = (catalog.clone(), bucket.clone());
            async move {
                tokio::time::sleep(Duration::from_micros(50 * (round % 7))).await;
                let body = PublishBody::Inline(Bytes::from("x"));
                let request = publish(&bucket, "k", 1000 + round, body);
                catalog.publish(request).await.map(|_| ())
            }
        };
        let delete = {
            let (catalog, name) = (catalog.clone(), name.clone());
            async move { catalog.delete_bucket(&name).await }
        };
        let (put, delete) = tokio::join!(tokio::spawn(put), tokio::spawn(delete));
        match (put.unwrap(), delete.unwrap()) {
            (Ok(()), Err(CatalogError::BucketNotEmpty)) => {
                catalog.object(bucket.incarnation, "k").await.unwrap();
                assert_eq!(catalog.bucket(&name).await.unwrap(), row);
            }
            (Err(CatalogError::NoSuchBucket), Ok(())) => {
                let gone = catalog.bucket(&name).await;
                assert_eq!(gone, Err(CatalogError::NoSuchBucket));
            }
            other => panic!("round {round}: {other:?}"),
        }
    }
    check(&catalog).await;
}

async fn complete_and_abort_have_one_winner(opened: Opened) {
    let catalog = opened.catalog.clone();
    let bucket = furnish(&catalog).await;
    for round in 1..=20u64 {
        let uid = VersionUid(round.into());
        let row = build::upload(round, true);
        catalog.create_upload(&bucket, "k", &row).await.unwrap();
        let written = build::written((1000 + round).into(), 100);
        let stored = part(1, round, 100);
        let md5 = stored.md5;
        let put = catalog.put_part(&bucket, "k", uid, stored, Some(&written));
        put.await.unwrap();
        let parts = vec![CompletePart { number: 1, md5 }];
        let request = build::complete(&bucket, "k", uid, parts);
        let complete = |_| {
            let (catalog, request) = (catalog.clone(), request.clone());
            async move {
                let finish = |_: &_, parts: &[_]| Ok::<_, CatalogError>(finish(parts));
                catalog.complete_upload(&request, finish).await.map(|done| {
                    assert_eq!(done.etag.md5, request.parts[0].md5);
                })
            }
        };
        let abort = {
            let (catalog, bucket) = (catalog.clone(), bucket.clone());
            async move { catalog.abort_upload(&bucket, "k", uid).await }
        };
        let (completed, aborted) =
            tokio::join!(spawn_all((0..2).map(complete)), tokio::spawn(abort));
        // Two requests that are alike have the same answer.
        assert_eq!(completed[0], completed[1]);
        match (&completed[0], aborted.unwrap()) {
            (Ok(()), Err(CatalogError::NoSuchUpload))
            | (Err(CatalogError::NoSuchUpload), Ok(())) => {}
            other => panic!("round {round}: {other:?}"),
        }
        check(&catalog).await;
    }
}

async fn ten_thousand_parts_complete_and_are_found(opened: Opened) {
    let catalog = opened.catalog.clone();
    let bucket = furnish(&catalog).await;
    let key = "k".repeat(1024);
    let uid = VersionUid(7);
    catalog
        .create_upload(&bucket, &key, &build::upload(7, false))
        .await
        .unwrap();
    let lanes = (0..50u16).map(|lane| {
        let (catalog, bucket, key) = (catalog.clone(), bucket.clone(), key.clone());
        async move {
            for number in (1..=10_000).filter(|number| number % 50 == lane) {
                let row = part(number, number.into(), MIN_PART_BYTES);
                let written = build::written(number.into(), MIN_PART_BYTES);
                let put = catalog.put_part(&bucket, &key, uid, row, Some(&written));
                put.await.unwrap();
            }
        }
    });
    spawn_all(lanes).await;
    // Every second part is left out, and so freed.
    let used: Vec<_> = (1..=10_000u16).filter(|number| number % 2 == 1).collect();
    let named = used.iter().map(|&number| CompletePart {
        number,
        md5: build::etag(number.into()).md5,
    });
    let request = build::complete(&bucket, &key, uid, named.collect());
    let finish = |_: &_, parts: &[_]| Ok::<_, CatalogError>(finish(parts));
    let done = catalog.complete_upload(&request, finish).await.unwrap();
    assert_eq!(done.etag.parts, 5000);
    for number in [1, 3, 63, 65, 4999, 9999] {
        let part = catalog.part_by_number(uid, number).await.unwrap();
        let start = u64::from(number / 2) * MIN_PART_BYTES;
        assert_eq!((part.number, part.start), (number, start));
        for from in [start, start + 1, start + MIN_PART_BYTES - 1] {
            let found = catalog.parts(uid, from, 2).await.unwrap();
            assert_eq!(found[0].number, number, "from {from}");
        }
    }
    for number in [2, 64, 66, 10_000] {
        let missing = catalog.part_by_number(uid, number).await;
        assert_eq!(missing, Err(CatalogError::InvalidPart { number }));
    }
    let end = 5000 * MIN_PART_BYTES;
    assert_eq!(catalog.parts(uid, end, 1).await.unwrap(), vec![]);
    let delete = catalog.delete_object(&bucket, &key, DeleteCondition::None);
    delete.await.unwrap().unwrap();
    let condemned = catalog.condemned(None, 20_000).await.unwrap();
    assert_eq!(condemned.len(), 10_000);
    catalog.purged(&condemned[..9_000]).await.unwrap();
    let left = catalog.condemned(None, 20_000).await.unwrap();
    assert_eq!(left, condemned[9_000..]);
    let none = catalog.condemned(Some(left[999].cursor), 10).await.unwrap();
    assert_eq!(none, vec![]);
}

async fn many_keys_go_at_once(opened: Opened) {
    let catalog = opened.catalog.clone();
    let bucket = furnish(&catalog).await;
    let keys: Vec<_> = (0..1000).map(|n| format!("k{n:04}")).collect();
    let puts = keys.iter().zip(1u64..).map(|(key, n)| {
        let body = PublishBody::Blob(build::written(n.into(), 100));
        let request = publish(&bucket, key, n, body);
        let catalog = catalog.clone();
        async move { catalog.publish(request).await.unwrap() }
    });
    spawn_all(puts).await;
    let before = catalog.committed();
    let deletions = (0..4).map(|_| {
        let (catalog, bucket, keys) = (catalog.clone(), bucket.clone(), keys.clone());
        async move { catalog.delete_objects(&bucket, &keys).await.unwrap() }
    });
    let answers = spawn_all(deletions).await;
    let gone = answers.iter().flatten().filter(|answer| {
        let answer = answer.as_ref().unwrap();
        answer.is_some()
    });
    assert_eq!(gone.count(), 1000, "each is deleted once");
    assert_eq!(catalog.committed(), CommitNumber(before.0 + 1));
    assert_eq!(check(&catalog).await.condemned.len(), 1000);
    catalog.delete_bucket("b").await.unwrap();
}

async fn ids_and_numbers_are_drawn_once(opened: Opened) {
    let catalog = opened.catalog.clone();
    let draw = |n: u64| {
        let catalog: Catalog = catalog.clone();
        async move {
            let group = catalog.next_group_id().await.unwrap();
            let class = catalog
                .class_number(&format!("CLASS{}", n % 3))
                .await
                .unwrap();
            let name = format!("b{n}");
            let bucket = catalog.create_bucket(&name, "me", 1).await.unwrap();
            (group, class, bucket.incarnation)
        }
    };
    let drawn = spawn_all((0..24).map(draw)).await;
    let groups: std::collections::BTreeSet<_> = drawn.iter().map(|drawn| drawn.0).collect();
    let lives: std::collections::BTreeSet<_> = drawn.iter().map(|drawn| drawn.2).collect();
    assert_eq!((groups.len(), lives.len()), (24, 24));
    for (n, (_, class, _)) in drawn.iter().enumerate() {
        assert_eq!(*class, drawn[n % 3].1);
    }
    assert_eq!(catalog.classes().await.unwrap().len(), 3);
    let page = catalog.list_buckets(Some("b5"), 2).await.unwrap();
    let names: Vec<_> = page.iter().map(|bucket| &bucket.name[..]).collect();
    assert_eq!(names, ["b6", "b7"]);
}
