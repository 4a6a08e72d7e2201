//! The check of whole disks: each kind of damage is found where it is, and
//! nothing else is, whatever goes on meanwhile.

mod beside;
mod damages;
mod world;

use proptest::prelude::*;
use shardgate_wire::check::{MAX_CHECK_CURSOR_BYTES, MAX_FINDINGS};
use shardgate_wire::conformance::sample;
use shardgate_wire::{CheckCursor, ShardStore, StoreError};

use super::cursor::{Place, places};
use super::*;
use crate::volume::GiveWay;
use world::{World, check_all, flip, runtime};

#[test]
fn a_part_reads_so_many_bytes_at_most() {
    runtime().block_on(async {
        let world = World::new().await;
        // Longer than two parts, and a journal of as much.
        world.append_file(900, 9 << 20).await;
        world.fill_journal(9 << 20).await;
        let core = &world.disk.core;
        let (mut next, mut parts, mut all) = (Some(Place::default()), 0, 0);
        while let Some(at) = next {
            let (way, mut report) = (Way::new(core), Report::default());
            next = core.check_from(at, None, &way, &mut report).unwrap();
            // What was begun is read to the next window.
            let most = PART_BYTES + (2 << 20);
            assert!(way.read_bytes() <= most, "{at:?}: {}", way.read_bytes());
            assert!(next != Some(at), "{at:?} goes on");
            assert_eq!(report.into_page(None).findings, []);
            (parts, all) = (parts + 1, all + way.read_bytes());
        }
        assert!(
            parts > 6 + 4 && all > 18 << 20,
            "{parts} parts, {all} bytes"
        );
    });
}

#[test]
fn a_volume_with_more_findings_than_a_page_ends_all_the_same() {
    runtime().block_on(async {
        let mut world = World::new().await;
        for blob in 2000..2300 {
            world.put(blob, 20).await;
        }
        let volumes = world.sealed().await;
        let with_most = |path: &&std::path::PathBuf| std::fs::metadata(path).unwrap().len();
        let directory = volumes.iter().map(|path| path.with_extension("dir"));
        let largest = directory.max_by_key(|path| with_most(&path)).unwrap();
        std::fs::remove_file(largest.with_extension("vol")).unwrap();
        let found = check_all(&world.disk, None).await;
        assert!(
            found.findings.len() >= MAX_FINDINGS,
            "{}",
            found.findings.len()
        );
        let last = &found.findings[MAX_FINDINGS - 1];
        assert!(last.what.ends_with(" more are wrong here"), "{last}");
        let damaged = world.disk.damaged().await.unwrap();
        assert!(damaged.len() > MAX_FINDINGS, "{}", damaged.len());
    });
}

#[test]
fn a_directory_is_repaired_once_nothing_is_compacted() {
    runtime().block_on(async {
        let mut world = World::new().await;
        let volumes = world.sealed().await;
        let directory = volumes[0].with_extension("dir");
        flip(&directory, 4096 + 10);
        let core = &world.disk.core;
        let ctx = world.disk.own_context();
        let alone = core.tidying.lock();
        let mut next = FIRST_VOLUME;
        for tries in 0..2 {
            assert!(matches!(next, Place::Volumes { tries: now, .. } if now == tries));
            let mut report = Report::default();
            let way = Way::new(core);
            let went = core.check_from(next, Some(&ctx), &way, &mut report);
            assert_eq!(report.into_page(None).findings, [], "it is told once");
            next = went.unwrap().unwrap();
        }
        // It does not wait for ever.
        let way = Way::new(core);
        let (after, tries) = (None, MOST_TRIES);
        let last = Place::Volumes { after, tries };
        let mut report = Report::default();
        let went = core.check_from(last, Some(&ctx), &way, &mut report);
        assert!(matches!(
            went,
            Ok(Some(
                Place::Volumes { after: Some(_), .. } | Place::Files(None)
            ))
        ));
        let found = report.into_page(None).findings;
        assert!(found.len() == 1 && !found[0].repaired, "{found:?}");
        drop(alone);
        let found = check_all(&world.disk, Some(&ctx)).await.findings;
        assert!(found.len() == 1 && found[0].repaired, "{found:?}");
        assert_eq!(check_all(&world.disk, None).await.findings, []);
    });
}

#[test]
fn who_may_repair_and_what_is_checked_without() {
    runtime().block_on(async {
        let mut world = World::new().await;
        let volumes = world.sealed().await;
        flip(&volumes[0].with_extension("dir"), 4096 + 10);
        let ctx = sample::context(1);
        let stale = sample::context(0);
        let answer = world.disk.check(&stale, None, true).await;
        assert!(
            matches!(answer, Err(StoreError::StaleEpoch { .. })),
            "{answer:?}"
        );
        let _ = world.disk.core.condition.fence("for the test".into());
        let found = check_all(&world.disk, Some(&ctx)).await.findings;
        assert!(found.len() == 1 && !found[0].repaired, "{found:?}");
        std::fs::remove_file(world.dir.path().join("identity")).unwrap();
        for repair in [false, true] {
            let answer = world.disk.check(&ctx, None, repair).await;
            assert!(matches!(answer, Err(StoreError::Lost { .. })), "{answer:?}");
        }
    });
}

#[test]
fn any_cursor_is_refused_or_gives_a_page() {
    let runtime = runtime();
    let world = runtime.block_on(World::new());
    let core = &world.disk.core;
    let try_one = |cursor: &CheckCursor| match core.check_part(Some(cursor), None) {
        Ok(page) => assert_eq!(page.findings, [], "{cursor:?}"),
        Err(error) => assert!(matches!(error, StoreError::BadCall { .. }), "{error}"),
    };
    proptest!(ProptestConfig::with_cases(64), |(bytes in prop::collection::vec(any::<u8>(), 0..MAX_CHECK_CURSOR_BYTES), kind in 0_u8..12)| {
        try_one(&CheckCursor(bytes.clone()));
        // The same, of a kind that there is.
        try_one(&CheckCursor([&[1, kind], &bytes[..]].concat()));
    });
    proptest!(ProptestConfig::with_cases(24), |(a: u64, b: u64, tries: u8)| {
        for place in places(a, b, tries) {
            try_one(&place.encode());
        }
    });
    for place in places(sample::GROUP.0, 0, 0) {
        try_one(&place.encode());
    }
}

#[test]
fn way_is_given_for_a_bounded_time() {
    runtime().block_on(async {
        let world = World::new().await;
        let way = Way::new(&world.disk.core);
        let since = std::time::Instant::now();
        for _ in 0..10 {
            way.before(1 << 20);
        }
        assert!(since.elapsed() < Duration::from_secs(1), "nobody waits");
        assert!(way.is_spent());
    });
}
