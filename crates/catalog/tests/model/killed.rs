//! A process that does everything at once is killed with SIGKILL, several
//! times over: what it acknowledged is there, and every invariant holds.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use shardgate_catalog::{
    BucketRef, Catalog, CatalogError, CompletePart, DeleteCondition, MIN_PART_BYTES, PublishBody,
};
use shardgate_wire::VersionUid;

use super::build::{self, finish, part, publish};
use super::check::check;
use super::open_in;

const FOLDER: &str = "SHARDGATE_TEST_CATALOG_FOLDER";
const ROUND: &str = "SHARDGATE_TEST_ROUND";
const WRITERS: u64 = 6;
/// Numbers that one writer of one round may use.
const SPAN: u64 = 1 << 32;

/// Not a test by itself: the process that the next one kills.
#[tokio::test(flavor = "multi_thread")]
async fn works_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let catalog = open_in(&PathBuf::from(folder)).await;
    let bucket = match round {
        0 => build::furnish(&catalog).await,
        _ => build::bucket("b", catalog.bucket("b").await.unwrap().incarnation),
    };
    for writer in 0..WRITERS {
        let (catalog, bucket) = (catalog.clone(), bucket.clone());
        let first = (round * WRITERS + writer + 1) * SPAN;
        tokio::spawn(async move {
            for n in (first..).step_by(8) {
                work(&catalog, &bucket, writer, n).await;
            }
        });
    }
    // Far longer than the parent waits.
    tokio::time::sleep(Duration::from_secs(60)).await;
}

/// One change of one key that nobody else changes: said before it is tried,
/// and again when it is acknowledged. 0 stands for no object.
async fn work(catalog: &Catalog, bucket: &BucketRef, writer: u64, n: u64) {
    let key = format!("w{writer}/{}", n / 8 % 3);
    let put = async |body| {
        println!("try {key} {n} .");
        let done = catalog.publish(publish(bucket, &key, n, body)).await;
        done.unwrap();
        println!("ack {key} {n} .");
    };
    match n / 8 % 7 {
        0 | 1 => put(PublishBody::Inline(Bytes::from("inline"))).await,
        2..=4 => put(PublishBody::Blob(build::written(n.into(), 5000))).await,
        5 => {
            println!("try {key} 0 .");
            let gone = catalog.delete_object(bucket, &key, DeleteCondition::None);
            gone.await.unwrap();
            println!("ack {key} 0 .");
        }
        _ => upload(catalog, bucket, &key, n).await,
    }
}

async fn upload(catalog: &Catalog, bucket: &BucketRef, key: &str, n: u64) {
    let uid = VersionUid(n.into());
    let row = build::upload(n, true);
    catalog.create_upload(bucket, key, &row).await.unwrap();
    let mut named = Vec::new();
    for number in 1..=3u16 {
        let id = u128::from(n) + u128::from(number);
        let row = part(number, n, MIN_PART_BYTES);
        let md5 = row.md5;
        let written = build::written(id, MIN_PART_BYTES);
        let stored = catalog.put_part(bucket, key, uid, row, Some(&written));
        stored.await.unwrap();
        if number != 2 {
            named.push(CompletePart { number, md5 });
        }
    }
    println!("try {key} {n} .");
    let request = build::complete(bucket, key, uid, named);
    let finish = |_: &_, parts: &[_]| Ok::<_, CatalogError>(finish(parts));
    catalog.complete_upload(&request, finish).await.unwrap();
    println!("ack {key} {n} .");
}

/// What may be found under a key: what was acknowledged last, or what was
/// tried after it.
#[derive(Debug, Default)]
struct Allowed {
    acked: u128,
    tried: Option<u128>,
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_changes_and_invariants_survive_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut keys: BTreeMap<String, Allowed> = BTreeMap::new();
    for round in 0..5u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::works_until_killed", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acks = 0;
        for line in lines.map_while(Result::ok) {
            let words: Vec<_> = line.split(' ').collect();
            // A line that was cut does not end in a full stop.
            let [what @ ("try" | "ack"), key, uid, "."] = words[..] else {
                continue;
            };
            let uid = uid.parse().unwrap();
            let allowed = keys.entry(key.to_owned()).or_default();
            if what == "try" {
                allowed.tried = Some(uid);
                continue;
            }
            *allowed = Allowed {
                acked: uid,
                tried: None,
            };
            acks += 1;
            if acks == 100 + 70 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acks >= 100, "the child works");
        let catalog = open_in(folder.path()).await;
        let found = check(&catalog).await;
        for (key, allowed) in &mut keys {
            let held = found.objects.get(&("b".to_owned(), key.clone()));
            let held = held.map_or(0, |row| row.uid.0);
            let expected = held == allowed.acked || Some(held) == allowed.tried;
            assert!(expected, "round {round}, {key}: {held} of {allowed:?}");
            *allowed = Allowed {
                acked: held,
                tried: None,
            };
        }
    }
}
