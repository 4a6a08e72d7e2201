//! Disks that lose bytes while they are in use: `shardgate disk check` finds
//! them, and what is damaged is made anew from the other disks.

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use shardgate_tests::places;
use shardgate_tests::process::free_addr;

use crate::place::{Place, disks_in, make_bucket, read, write};

/// The id of the disk in this folder.
fn id_of(place: &Place, folder: &str) -> String {
    let (status, path) = (place.status(), place.text(folder));
    let line = disks_in(&status, "living")
        .into_iter()
        .find(|line| line.split_whitespace().any(|word| word == path));
    let line = line.expect("the disk lives");
    line.split_whitespace().next().expect("its id").to_owned()
}

/// Flips a bit in the bytes of every shard on a disk; how many there are.
fn rot(place: &Place, folder: &str) -> usize {
    let shards = places::shards(&place.path(folder)).expect("find shards");
    for shard in &shards {
        let file = fs::File::options().read(true).write(true).open(&shard.path);
        let file = file.expect("open a shard");
        let at = shard.data.unwrap_or(shard.start + shard.len / 2) + 7;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("read a byte");
        byte[0] ^= 4;
        file.write_all_at(&byte, at).expect("write a byte");
    }
    shards.len()
}

/// Checks the disk until nothing is wrong with it.
fn wait_well(place: &Place, id: &str) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let (well, said) = place.command(&["disk", "check", id]);
        if well {
            return;
        }
        assert!(Instant::now() < until, "{said}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[tokio::test]
async fn what_a_check_finds_damaged_is_made_anew() {
    let place = Place::new();
    let own = ["own-1", "own-2"];
    place.make(&[own[0], own[1], "one-1", "one-2", "two-1", "two-2"]);
    let addrs = [free_addr(), free_addr()];
    let one = place.agent("one", addrs[0], &["one-1", "one-2"]);
    let two = place.agent("two", addrs[1], &["two-1", "two-2"]);
    place.configure(&format!(
        "disks = ['{}', '{}']\nagents = ['http://{}', 'http://{}']\n[limits]\nscrub_period = '0s'",
        place.text(own[0]),
        place.text(own[1]),
        addrs[0],
        addrs[1]
    ));
    let gateway = place.serve();
    make_bucket(&place).await;
    write(&place, 0).await;
    write(&place, 1).await;

    // One disk of the gateway's own, one of an agent.
    for folder in ["own-1", "one-2"] {
        let id = id_of(&place, folder);
        let (well, said) = place.command(&["disk", "check", &id]);
        assert!(well && said.contains("; 0 found wrong"), "{said}");
        let shards = rot(&place, folder);
        assert!(shards >= 4, "{folder} has {shards} shards");
        let (well, said) = place.command(&["disk", "check", &id]);
        let found = format!("; {shards} found wrong");
        assert!(!well && said.contains(&found), "{said}");
        // Nobody has read them.
        wait_well(&place, &id);
        place.wait_status("nothing is owed", |status| {
            status.contains("; 0 slots owed")
        });
    }
    // Each is needed now.
    two.kill();
    read(&place, 0).await;
    read(&place, 1).await;

    let (well, said) = place.command(&["disk", "check", &"0".repeat(32)]);
    assert!(!well && said.contains("no such disk"), "{said}");
    gateway.stop();
    one.stop();
}

/// The scrub of its own accord: nobody reads, nobody checks.
#[tokio::test]
async fn what_rots_unread_is_found_and_made_anew() {
    let place = Place::new();
    let gateway = place.demo(&["--disks", "6"]);
    make_bucket(&place).await;
    write(&place, 0).await;
    gateway.stop();
    let shards = rot(&place, "disk-3");
    assert!(shards >= 2, "{shards}");
    // A first pass begins a minute after the disk was opened.
    assert!(!place.path("disk-3/scrub").exists());
    let gateway = place.demo(&["--disks", "6"]);
    let logged = Instant::now() + Duration::from_secs(90);
    while gateway
        .output()
        .matches("damaged shard is made anew")
        .count()
        < shards
    {
        assert!(Instant::now() < logged, "{}", gateway.output());
        std::thread::sleep(Duration::from_millis(500));
    }
    place.wait_status("nothing is owed", |status| {
        status.contains("; 0 slots owed")
    });
    wait_well(&place, &id_of(&place, "disk-3"));
    for disk in ["disk-1", "disk-2"] {
        fs::rename(place.path(disk), place.path(&format!("{disk}.away"))).expect("take it away");
    }
    read(&place, 0).await;
    gateway.stop();
}
