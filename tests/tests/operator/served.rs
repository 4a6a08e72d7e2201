//! `shardgate serve` over a configuration file: own disks, agents, both.

use std::fs;

use shardgate_tests::process::free_addr;

use crate::place::{Place, disks_in, make_bucket, read, write};

fn disks(place: &Place, names: &[&str]) -> String {
    let quoted = names.iter().map(|name| format!("'{}'", place.text(name)));
    format!("disks = [{}]", quoted.collect::<Vec<_>>().join(", "))
}

#[tokio::test]
async fn a_pool_of_the_gateways_own_disks() {
    let place = Place::new();
    place.make(&["a", "b", "c", "d"]);
    // A new cluster begins with all that is configured.
    place.configure(&disks(&place, &["a", "b", "c", "d", "e"]));
    let mut refused = place.spawn_serve();
    assert!(!refused.wait_end());
    let missing = format!("there is no folder {}", place.text("e"));
    assert!(refused.output().contains(&missing), "{}", refused.output());
    assert!(
        fs::read_dir(place.path("a"))
            .expect("a folder")
            .next()
            .is_none()
    );

    place.configure(&disks(&place, &["a", "b", "c", "d"]));
    let gateway = place.serve();
    make_bucket(&place).await;
    write(&place, 0).await;
    let status = place.status();
    assert_eq!(disks_in(&status, "living").len(), 4, "{status}");
    assert!(status.contains("2+2"), "{status}");
    assert!(!status.contains("there is no folder"), "{status}");
    gateway.stop();

    // Later a folder that is not there stops nothing, and is told of; so is
    // one that is spelt otherwise, and a disk of another pool.
    let other = Place::new();
    let stranger = other.demo(&["--disks", "2"]);
    stranger.stop();
    fs::rename(other.path("disk-1"), place.path("foreign")).expect("move a disk");
    place.configure(&disks(&place, &["a/", "./b", "c", "d", "e", "foreign"]));
    let gateway = place.serve();
    let status = place.status();
    assert!(gateway.output().contains(&missing), "{}", gateway.output());
    for words in [&missing[..], "is a disk of another cluster"] {
        assert!(status.contains(words), "{status}");
    }
    assert_eq!(disks_in(&status, "living").len(), 4, "{status}");
    read(&place, 0).await;
    // Made and empty it is a new disk, as `status` says before.
    place.make(&["e"]);
    assert!(place.status().contains("the next start makes it one"));
    gateway.stop();
    let gateway = place.serve();
    let status = place.status();
    assert_eq!(disks_in(&status, "living").len(), 5, "{status}");
    write(&place, 1).await;
    gateway.stop();

    // Where a disk was, no spelling makes a new one.
    fs::rename(place.path("c"), place.path("c.away")).expect("take a disk away");
    place.make(&["c"]);
    place.configure(&disks(&place, &["a", "b", "./c//", "d", "e"]));
    let gateway = place.serve();
    let status = place.status();
    assert_eq!(disks_in(&status, "living").len(), 4, "{status}");
    assert!(status.contains("disk replace"), "{status}");
    assert!(
        fs::read_dir(place.path("c"))
            .expect("a folder")
            .next()
            .is_none()
    );
    read(&place, 0).await;
    read(&place, 1).await;
    gateway.stop();
}

/// Nobody needs a secret on loopback.
#[tokio::test]
async fn a_pool_of_own_disks_and_of_agents_without_a_secret() {
    let place = Place::new();
    place.make(&["own-1", "own-2", "one-1", "one-2", "two-1", "two-2"]);
    let addrs = [free_addr(), free_addr()];
    let one = place.agent("one", addrs[0], &["one-1", "one-2"]);
    let two = place.agent("two", addrs[1], &["two-1", "two-2"]);
    let agents = format!("agents = ['http://{}', 'http://{}']", addrs[0], addrs[1]);
    let own = disks(&place, &["own-1", "own-2"]);
    place.configure(&format!("{own}\n{agents}"));
    let gateway = place.serve();
    let status = place.status();
    assert_eq!(disks_in(&status, "living").len(), 6, "{status}");
    assert!(status.contains("any 1 server"), "{status}");
    assert!(status.contains("4+2"), "{status}");
    make_bucket(&place).await;
    write(&place, 0).await;
    // One server of three goes, and comes back.
    two.kill();
    read(&place, 0).await;
    write(&place, 1).await;
    read(&place, 1).await;
    gateway.stop();
    let two = place.agent("two", addrs[1], &["two-1", "two-2"]);
    let gateway = place.serve();
    place.wait_status("the agent's disks are back", |status| {
        disks_in(status, "living").len() == 6
    });
    read(&place, 0).await;
    read(&place, 1).await;

    // An agent that lost its own folder is another one, and its disks are
    // what they were; a mount point without its drive is no new disk.
    gateway.stop();
    two.stop();
    fs::remove_dir_all(place.path("two-state")).expect("lose the agent's id");
    fs::rename(place.path("two-2"), place.path("unmounted")).expect("unmount a drive");
    place.make(&["two-2"]);
    let two = place.agent("two", addrs[1], &["two-1", "two-2"]);
    let gateway = place.serve();
    let status = place.wait_status("the agent answers", |status| {
        disks_in(status, "living").len() == 5
    });
    assert!(status.contains("is blank where disk"), "{status}");
    assert!(
        fs::read_dir(place.path("two-2"))
            .expect("a folder")
            .next()
            .is_none()
    );
    read(&place, 0).await;
    read(&place, 1).await;
    gateway.stop();
    one.stop();
    two.stop();
}
