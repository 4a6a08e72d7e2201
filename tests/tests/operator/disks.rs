//! `shardgate disk lost` and `shardgate disk replace`, as commands.

use std::fs;

use crate::place::{Place, disks_in, ids_in, make_bucket, read, write};

#[tokio::test]
async fn a_lost_disk_is_replaced_and_another_given_up() {
    let place = Place::new();
    let gateway = place.demo(&["--disks", "6"]);
    make_bucket(&place).await;
    write(&place, 0).await;
    let all = ids_in(&place.status(), "living");
    assert_eq!(all.len(), 6);

    // A drive fails, and an empty one is mounted in its place.
    fs::remove_dir_all(place.path("disk-2")).expect("lose a disk");
    place.make(&["disk-2"]);
    let status = place.wait_status("the disk is out", |status| {
        disks_in(status, "living").len() == 5
    });
    assert!(status.contains("disk replace"), "{status}");
    let folder = place.text("disk-2");
    // A folder that holds a disk, one that is none, no id: refused.
    for words in [
        ["disk", "replace", &place.text("disk-3")],
        ["disk", "replace", "/nowhere"],
        ["disk", "lost", "no-id"],
        ["disk", "lost", &"0".repeat(32)],
    ] {
        let (done, said) = place.command(&words);
        assert!(
            !done && said.starts_with("shardgate: "),
            "{words:?}: {said}"
        );
    }
    let (done, said) = place.command(&["disk", "replace", &folder]);
    assert!(done && said.contains("is the new disk"), "{said}");
    let status = place.wait_status("the new disk lives", |status| {
        disks_in(status, "living").len() == 6
    });
    let now = ids_in(&status, "living");
    let new: Vec<_> = now.iter().filter(|id| !all.contains(id)).collect();
    assert_eq!(new.len(), 1, "{status}");
    assert_eq!(disks_in(&status, "declared lost").len(), 1, "{status}");
    read(&place, 0).await;
    write(&place, 1).await;

    // Another is given up while it lives, and never taken back.
    let lost = all
        .iter()
        .find(|id| now.contains(id))
        .expect("five are left");
    let (done, said) = place.command(&["disk", "lost", lost]);
    assert!(done && said.contains("lost for good"), "{said}");
    let status = place.status();
    assert_eq!(disks_in(&status, "living").len(), 5, "{status}");
    assert!(ids_in(&status, "declared lost").contains(lost), "{status}");
    write(&place, 2).await;
    gateway.stop();
    let gateway = place.demo(&["--disks", "6"]);
    let status = place.status();
    assert_eq!(disks_in(&status, "living").len(), 5, "{status}");
    assert_eq!(disks_in(&status, "declared lost").len(), 2, "{status}");
    for round in 0..3 {
        read(&place, round).await;
    }
    gateway.stop();
}
