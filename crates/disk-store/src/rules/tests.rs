//! The rules over two small files, or over what takes no byte.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use shardgate_wire::conformance::sample;

use super::*;
use crate::format::decode_root;

fn files(paths: [&Path; 2]) -> Twin {
    Twin::of(paths.map(|path| {
        let file = File::options().read(true).write(true).open(path);
        OwnedFd::from(file.expect("open"))
    }))
}

/// A device that says that it is full.
fn full() -> Twin {
    files([Path::new("/dev/full"), Path::new("/dev/full")])
}

fn rules(root_twin: Twin) -> Rules {
    let identity = sample::identity();
    let root = Root {
        identity,
        sequence: 1,
        map_number: 0,
        map: Vec::new(),
        epoch: sample::context(1).epoch,
        checkpoint: Vec::new(),
        told: Vec::new(),
    };
    let slots = Slots {
        disk: identity.disk,
        sequence: 1,
        table: SlotTable::default(),
    };
    Rules::new(root, root_twin, slots, full())
}

#[test]
fn what_was_told_is_still_to_be_saved_after_a_save_that_was_refused() {
    let dir = tempfile::tempdir().expect("make a folder");
    let paths = ["a", "b"].map(|name| dir.path().join(name));
    for path in &paths {
        File::create(path).expect("make a file");
    }
    let twin = || files([&paths[0], &paths[1]]);
    let saved = || {
        let bytes = std::fs::read(&paths[1]).expect("read");
        decode_root(&bytes).map(|root| root.told)
    };
    let condition = Condition::good(sample::identity().disk);
    let ctx = sample::context(1);
    let mut rules = rules(full());
    let enter = |rules: &Rules, ctx| rules.enter(&condition, ctx, &|| {}).map(drop);
    // A new lineage passes only once it is durable, at the second try too.
    for _ in 0..2 {
        assert_eq!(enter(&rules, &ctx), Err(StoreError::NoSpace));
    }
    rules.root_twin = twin();
    assert_eq!(enter(&rules, &ctx), Ok(()));
    assert_eq!(saved(), Ok(vec![(ctx.lineage, ctx.committed)]));
    // A number of a known one is saved later, and after a refusal again.
    let mut higher = ctx;
    higher.committed.0 += 7;
    rules.root_twin = full();
    assert_eq!(enter(&rules, &higher), Ok(()));
    assert_eq!(rules.save_told(&condition), Err(StoreError::NoSpace));
    rules.root_twin = twin();
    assert_eq!(rules.save_told(&condition), Ok(()));
    assert_eq!(saved(), Ok(vec![(ctx.lineage, higher.committed)]));
    assert_eq!(condition.fenced(), None);
}

/// A condition, and rules over files that take all.
fn good() -> (tempfile::TempDir, Condition, Rules) {
    let dir = tempfile::tempdir().expect("make a folder");
    let twins: Vec<_> = [["a", "b"], ["c", "d"]]
        .into_iter()
        .map(|names| {
            let paths = names.map(|name| dir.path().join(name));
            for path in &paths {
                File::create(path).expect("make a file");
            }
            files([&paths[0], &paths[1]])
        })
        .collect();
    let [root, slots] = <[Twin; 2]>::try_from(twins).expect("two");
    let mut rules = rules(root);
    rules.slots_twin = slots;
    (dir, Condition::good(sample::identity().disk), rules)
}

const SOON: Duration = Duration::from_secs(10);

#[test]
fn the_journal_waits_for_no_call_of_shards() {
    let (_dir, condition, rules) = good();
    let (condition, rules) = (&condition, &rules);
    let ctx = sample::context(1);
    let slow = rules.enter(condition, &ctx, &|| {}).expect("it is in");
    std::thread::scope(|scope| {
        // Waits for the slow one, and whoever comes for the gate behind it.
        let assigned = scope.spawn(move || rules.assign(condition, &ctx, &[sample::slot()]));
        while rules.gate.try_read().is_some() {
            std::thread::yield_now();
        }
        let (passed, has_passed) = std::sync::mpsc::channel();
        scope.spawn(move || {
            let entered = rules.enter_journal(condition, &ctx, &|| {});
            let _ = passed.send(entered.map(drop));
        });
        let entered = has_passed.recv_timeout(SOON);
        drop(slow);
        assert_eq!(entered, Ok(Ok(())), "it waits for a call of shards");
        assert_eq!(assigned.join().expect("no panic"), Ok(()));
    });
}

#[test]
fn a_raise_waits_for_both_and_refuses_the_epoch_before_in_both() {
    let (_dir, condition, rules) = good();
    let (condition, rules) = (&condition, &rules);
    let (old, new) = (sample::context(1), sample::context(2));
    let enter = |ctx: &CallContext| rules.enter(condition, ctx, &|| {}).map(drop);
    let enter_journal = |ctx: &CallContext| {
        let entered = rules.enter_journal(condition, ctx, &|| {});
        entered.map(drop)
    };
    let in_work = rules.enter_journal(condition, &old, &|| {}).expect("in");
    std::thread::scope(|scope| {
        let raised = scope.spawn(move || rules.enter(condition, &new, &|| {}).map(drop));
        std::thread::sleep(Duration::from_millis(100));
        // Not durable, not answered: the journal's call takes effect before.
        assert_eq!(rules.root.lock().epoch, old.epoch);
        assert!(!raised.is_finished());
        drop(in_work);
        assert_eq!(raised.join().expect("no panic"), Ok(()));
    });
    let stale = Err(StoreError::StaleEpoch { held: new.epoch });
    assert_eq!((enter(&old), enter_journal(&old)), (stale.clone(), stale));
    assert_eq!((enter(&new), enter_journal(&new)), (Ok(()), Ok(())));
    // A raise by the journal waits for calls of shards, and holds for them.
    let newer = sample::context(3);
    let slow = rules.enter(condition, &new, &|| {}).expect("in");
    std::thread::scope(|scope| {
        let raised = scope.spawn(move || rules.enter_journal(condition, &newer, &|| {}).map(drop));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!raised.is_finished());
        drop(slow);
        assert_eq!(raised.join().expect("no panic"), Ok(()));
    });
    let stale = Err(StoreError::StaleEpoch { held: newer.epoch });
    assert_eq!((enter(&new), enter_journal(&new)), (stale.clone(), stale));
}

#[test]
fn a_fenced_disk_gives_its_journal_and_takes_no_epoch() {
    let (_dir, condition, rules) = good();
    let (old, new) = (sample::context(1), sample::context(2));
    let reads = |ctx: &CallContext| {
        let entered = rules.enter_journal_to_read(&condition, ctx, &|| {});
        entered.map(drop)
    };
    assert_eq!(reads(&new), Ok(()));
    let _ = condition.fence("for the test".into());
    assert!(matches!(reads(&old), Err(StoreError::StaleEpoch { .. })));
    assert_eq!(reads(&new), Ok(()));
    assert_eq!(reads(&sample::context(3)), Ok(()));
    assert_eq!(rules.epoch(), new.epoch);
    let entered = rules.enter_journal(&condition, &new, &|| {}).map(drop);
    assert!(
        matches!(entered, Err(StoreError::Fenced { .. })),
        "{entered:?}"
    );
}
