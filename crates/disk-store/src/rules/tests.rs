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
